"""Rule files, and whether all ladders go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from collector.config.problems import ConfigError, Problem
from collector.config.settings import Settings
from collector.config.source import Source, read
from collector.config.validation import found_by_pydantic
from collector.model import Kind
from collector.rules import KindWord, Retention, RuleFile, SeriesRule

ADAPTER: Final = TypeAdapter(RuleFile)


def read_rules(
    settings: Settings, source: Source, environ: Mapping[str, str]
) -> tuple[tuple[SeriesRule, ...], list[Problem]]:
    """The rules of all files of the settings, and what is wrong with them and with the ladders.

    `source` is where the settings stood.
    """
    rules: list[SeriesRule] = []
    problems: list[Problem] = []
    for index, path in enumerate(settings.rules):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not a UTF-8 text"
            problems.append(source.problem(("rules", index), f"rules[{index}]: {path} cannot be read: {why}"))
            continue
        found, faults = _read_file(path, text, environ)
        rules += found
        problems += faults
    if not problems:
        problems += _ladders(settings, source, rules)
    return tuple(rules), problems


def _read_file(path: Path, text: str, environ: Mapping[str, str]) -> tuple[list[SeriesRule], list[Problem]]:
    try:
        source = read(str(path), text, environ)
    except ConfigError as error:
        return [], error.problems
    problems = list(source.problems)
    found: list[SeriesRule] = []
    try:
        found = list(ADAPTER.validate_python(source.data).series)
    except ValidationError as error:
        problems += found_by_pydantic(source, error, RuleFile)
    problems += [
        source.problem(
            ("series", index), f"series[{index}] does nothing", "give it retain or samples, or leave it out"
        )
        for index, rule in enumerate(found)
        if rule.retain is None and rule.samples is None
    ]
    return found, sorted(set(problems), key=lambda one: (one.at.line, one.at.column))


def _ladders(settings: Settings, source: Source, rules: list[SeriesRule]) -> list[Problem]:
    """Kinds whose ladders cannot be rolled up along one chain; the rule that breaks it is named."""
    resolution = int(settings.flush_interval)
    problems = []
    for kind in Kind:
        word = KindWord[kind.name]
        fault = Retention(settings.retention, resolution).fault(kind)
        at = ("retention", f"{word}s")
        if fault:
            problems.append(source.problem(at, f"retention.{word}s with flush_interval: {fault}"))
            continue
        for count in range(1, len(rules) + 1):
            fault = Retention(settings.retention, resolution, rules[:count]).fault(kind)
            if fault:
                rule = rules[count - 1]
                where = f"the rule for {str(rule.match)!r}: its ladder does not go with the others of {word}s"
                problems.append(source.problem(("rules",), f"{where}: {fault}"))
                break
    return problems
