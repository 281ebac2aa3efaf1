"""The configuration: one YAML file, read into the settings of the parts.

    settings        all settings, put together from those beside the parts
    problems        what is wrong, and where
    interpolation   ${NAME} and its kin
    source          YAML to data that remembers its places
    validation      data to settings

Only `daemon` and `cli` import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from collector.config.problems import ConfigError, Position, Problem
from collector.config.settings import Settings
from collector.config.source import Source, read
from collector.config.validation import ADAPTER, expand, validate, warnings
from collector.store.client import without_password

__all__ = ["ConfigError", "Problem", "Settings", "check", "load", "schema", "shipped", "show"]

_REFERENCE = {"type": "string", "pattern": r"\$\{", "description": "a reference that is filled in"}


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings in a file, or the defaults without one; ConfigError with all problems at once."""
    return check(path, environ)[0]


def check(path: Path | None, environ: Mapping[str, str]) -> tuple[Settings, list[Problem]]:
    """The settings and what is doubtful about them; ConfigError for what is wrong."""
    source = _source(path, environ)
    settings = validate(source)
    return expand(settings, environ), warnings(source, settings)


def _source(path: Path | None, environ: Mapping[str, str]) -> Source:
    if path is None:
        return Source("defaults")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a UTF-8 text"
        raise ConfigError([Problem(str(path), Position(1, 1), f"cannot be read: {why}")]) from None
    return read(str(path), text, environ)


def show(settings: Settings) -> str:
    """The effective configuration as YAML that loads back equal, but for passwords, which are masked."""
    data = ADAPTER.dump_python(settings, mode="json")
    data["redis"]["url"] = without_password(settings.redis.url)
    text: str = yaml.safe_dump(_escaped(data), sort_keys=False, allow_unicode=True)
    return text


def _escaped(data: Any) -> Any:
    """Dollars doubled, so that they are not taken for references when the text is read again."""
    match data:
        case dict():
            return {key: _escaped(value) for key, value in data.items()}
        case list():
            return [_escaped(value) for value in data]
        case str():
            return data.replace("$", "$$")
        case _:
            return data


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file, for editors."""
    made = ADAPTER.json_schema()
    definitions = made.get("$defs", {})
    listen = made["properties"]["listen"]
    listen["items"] = {"anyOf": [listen["items"], definitions["ListenerSettings"]["properties"]["url"]]}
    for one in (made, *definitions.values()):
        for name, value in one.get("properties", {}).items():
            one["properties"][name] = _or_reference(value)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "collector"}


def _or_reference(value: dict[str, Any]) -> dict[str, Any]:
    """A setting's schema that also lets a reference stand for a single value."""
    if "$ref" in value or value.get("type") in ("array", "object"):
        return value
    outer: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
    inner = {key: item for key, item in value.items() if key not in outer}
    return {**outer, "anyOf": [inner, _REFERENCE]}


def shipped() -> str:
    """The shipped file, which is the manual."""
    return (resources.files("collector.shipped") / "collector.yaml").read_text()
