"""Settings as text: the effective configuration, the schema, the shipped file."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

import yaml

from collector.config.settings import Settings
from collector.config.validation import ADAPTER
from collector.listeners.settings import ONLY_OF
from collector.store.address import without_password

_REFERENCE: Final = {"type": "string", "pattern": r"\$\{", "description": "a reference that is filled in"}
_BESIDE: Final = ("title", "description", "default")  # what is said of a setting, not of its values


def show(settings: Settings) -> str:
    """The effective configuration as YAML that loads back equal, but for passwords, which are masked."""
    data = _plain(settings)
    redis = data["redis"]
    redis["url"] = without_password(settings.redis.url)
    for key in ("password", "sentinel_password"):
        redis[key] = redis[key] and "***"
    for listener in data["listen"]:
        listener["dialects"].sort()  # a set has no order of its own, and the next run another one
        scheme = listener["url"].partition(":")[0]
        for key, schemes in ONLY_OF.items():
            if scheme not in schemes:
                del listener[key]
    text: str = yaml.safe_dump(_escaped(data), sort_keys=False, allow_unicode=True)
    return text


def _plain(settings: Settings) -> dict[str, Any]:
    data: dict[str, Any] = ADAPTER.dump_python(settings, mode="json")
    return data


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
    definitions = made["$defs"]
    for one in (made, *definitions.values()):
        for name, value in one.get("properties", {}).items():
            one["properties"][name] = _or_reference(value, definitions)
    listen = made["properties"]["listen"]
    url = definitions["ListenerSettings"]["properties"]["url"]
    listen["items"] = {"anyOf": [listen["items"], {"anyOf": url["anyOf"]}]}
    # pydantic writes defaults of our own types by their fields, which is not how a file has them
    plain = _plain(Settings())
    listen["default"] = [one["url"] for one in plain["listen"]]
    definitions["ListenerSettings"]["properties"]["mode"]["default"] = plain["listen"][0]["mode"]
    definitions["HttpSettings"]["properties"]["listen"]["default"] = plain["http"]["listen"]
    for kind, ladder in plain["retention"].items():
        definitions["RetentionSettings"]["properties"][kind]["default"] = ladder
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "collector"}


def _or_reference(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A setting's schema that also lets a reference stand for a single value."""
    if value.get("type") == "array":
        return {**value, "items": _or_reference(value["items"], definitions)}
    target = definitions.get(value.get("$ref", "").rpartition("/")[2], value)
    if target.get("type") == "object":
        return value
    outer: dict[str, Any] = {key: value[key] for key in _BESIDE if key in value}
    inner = {key: item for key, item in value.items() if key not in outer}
    return {**outer, "anyOf": [inner, _REFERENCE]}


def shipped() -> str:
    """The shipped file, which is the manual."""
    return (resources.files("collector.shipped") / "collector.yaml").read_text(encoding="utf-8")
