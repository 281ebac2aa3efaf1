"""The configuration: one YAML file, read into the settings of the parts.

    settings        all settings, put together from those beside the parts
    problems        what is wrong, and where
    interpolation   ${NAME} and its kin
    source          YAML to data that remembers its places
    checks          what no field can tell by itself
    validation      data to settings
    rules           rule files, and whether all ladders go together
    render          settings to text

Only `daemon` and `cli` import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from collector.config.problems import ConfigError, Position, Problem
from collector.config.render import schema, shipped, show
from collector.config.rules import read_rules
from collector.config.settings import Settings
from collector.config.source import Source, read
from collector.config.validation import validate, warnings
from collector.rules import Retention

__all__ = [
    "ConfigError",
    "Problem",
    "Settings",
    "check",
    "load",
    "load_retention",
    "schema",
    "shipped",
    "show",
]


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings in a file, or the defaults without one; ConfigError with all problems at once."""
    return check(path, environ)[0]


def check(path: Path | None, environ: Mapping[str, str]) -> tuple[Settings, list[Problem]]:
    """The settings and what is doubtful about them; ConfigError for what is wrong."""
    source = _source(path, environ)
    settings = validate(source, environ)
    _, problems = read_rules(settings, source, environ)
    if problems:
        raise ConfigError(problems)
    return settings, warnings(source, settings)


def load_retention(settings: Settings, environ: Mapping[str, str]) -> Retention:
    """How long each series is kept, by the settings and their rule files; ConfigError with all problems."""
    rules, problems = read_rules(settings, Source("retention"), environ)
    if problems:
        raise ConfigError(problems)
    return Retention(settings.retention, int(settings.flush_interval), rules)


def _source(path: Path | None, environ: Mapping[str, str]) -> Source:
    if path is None:
        return Source("defaults")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a UTF-8 text"
        raise ConfigError([Problem(str(path), Position(1, 1), f"cannot be read: {why}")]) from None
    return read(str(path), text, environ)
