"""Data to settings; what pydantic finds becomes problems with a place and a suggestion."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path as FilePath
from typing import Any, Final, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from collector.config import checks
from collector.config.problems import ConfigError, Problem
from collector.config.settings import Settings
from collector.config.source import Path, Source

ADAPTER: Final = TypeAdapter(Settings)

_LONGEST_SHOWN: Final = 60
_MAPPING: Final = "must be a mapping of keys to values"
# pydantic speaks of Python's types; a file has lists and mappings
_WORDS: Final = {
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dataclass_type": _MAPPING,
}
_LISTENER: Final = 'must be an address like "udp://localhost:8125", or a mapping with a url'


def validate(source: Source, environ: Mapping[str, str]) -> Settings:
    """The settings in a file, with `~` filled in; ConfigError with all problems at once."""
    problems = [*source.problems, *checks.check(source, environ)]
    settings = None
    try:
        settings = ADAPTER.validate_python(_long_forms(source.data))
    except ValidationError as error:
        problems += found_by_pydantic(source, error, Settings)
    if problems or settings is None:
        raise ConfigError(sorted(set(problems), key=lambda problem: (problem.at.line, problem.at.column)))
    directory = FilePath(source.file).parent
    rules = tuple(directory / checks.expand(one, environ) for one in settings.rules)
    return replace(settings, state_dir=checks.expand(settings.state_dir, environ), rules=rules)


def found_by_pydantic(source: Source, error: ValidationError, kind: type) -> list[Problem]:
    """What pydantic found wrong with data that was to be of a kind, but for what was told already."""
    found = error.errors(include_url=False)
    return [_problem(source, one, kind) for one in found if not source.is_faulty(one["loc"])]


def warnings(source: Source, settings: Settings) -> list[Problem]:
    """What is allowed and doubtful."""
    found = []
    if not settings.http.listen.loopback:
        at = source.position(("http", "listen"))
        message = f"http.listen {settings.http.listen} can be reached by others, and there is no password"
        found.append(Problem(source.file, at, message, "put a proxy before it", warning=True))
    return found


def _long_forms(data: dict[str, Any]) -> dict[str, Any]:
    """Listeners given as a URL alone, in their long form."""
    listen = data.get("listen")
    if not isinstance(listen, list):
        return data
    return {**data, "listen": [{"url": one} if isinstance(one, str) else one for one in listen]}


def _problem(source: Source, error: ErrorDetails, kind: type) -> Problem:
    # A place of pydantic's ends in words of its own (the branch of a union, say): the nearest part that
    # is in the file is meant.
    path: Path = tuple(error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown_key(source, path, kind)
    if error["type"] in ("missing", "missing_argument"):
        return source.problem(path[:-1], f"{_dotted(path)} is missing")
    if error["type"] == "dataclass_type" and error["input"] is None:
        message = f"{_dotted(path)} is empty"
        return source.problem(path, message, f"it {_MAPPING}; leave it out for its defaults")
    return source.problem(path, f"{_dotted(path)}: {_said(source, error, path)}")


def _unknown_key(source: Source, path: Path, kind: type) -> Problem:
    word = str(path[-1])
    known = _known_keys(path[:-1], kind)
    near = difflib.get_close_matches(word, known, 1)
    hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
    message = f"unknown key {json.dumps(_cut(word), ensure_ascii=False)}"
    return Problem(source.file, source.position(path, key=True), message, hint)


def _said(source: Source, error: ErrorDetails, path: Path) -> str:
    """What is wrong with a value, and the value itself unless that may be a secret."""
    value = error["input"]
    written = source.written(path)
    secret = written is not None or _may_be_secret(value) or "password" in str(path[-1:])
    if error["type"] == "value_error":  # one of our own, which may quote the value or a part of it
        if secret and path[-1:] == ("url",):
            return 'not an address: write it like "udp://localhost:8125"' + _reference(written)
        message = error["msg"].removeprefix("Value error, ")
        return (
            _without(message, str(value), written) if secret or len(str(value)) > _LONGEST_SHOWN else message
        )
    message = _WORDS.get(error["type"], error["msg"])
    if error["type"] == "dataclass_type" and path[0] == "listen":
        message = _LISTENER
    message = message[:1].lower() + message[1:]
    if secret:
        return message + _reference(written)
    quotable = isinstance(value, str | int | float)
    return f"{message}, found {_cut(repr(value))}" if quotable else message


def _may_be_secret(value: Any) -> bool:
    """Whether a value could be an address with a password, in a wrong place, or hold such a thing."""
    if isinstance(value, str):
        return "@" in value or "password" in value.lower()
    return isinstance(value, list | dict)


def _without(message: str, value: str, written: str | None) -> str:
    """A message without the value in it."""
    shown = "what is written here" if written is None else f"the value of {_cut(written)}"
    clean = message.replace(f'"{value}"', shown)
    return clean if not value or value not in clean else f"{shown} does not fit"


def _reference(written: str | None) -> str:
    return "" if written is None else f", found the value of {_cut(written)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _known_keys(path: Path, kind: Any) -> list[str]:
    """The keys of the settings at a path, from settings of a kind on."""
    for part in path:
        if isinstance(part, str):  # a number is a place in a list, whose hint is seen through already
            kind = get_type_hints(kind).get(part)
            if get_args(kind) and not is_dataclass(kind):
                kind = next((one for one in get_args(kind) if is_dataclass(one)), kind)
    return [one.name for one in fields(kind)] if is_dataclass(kind) else []
