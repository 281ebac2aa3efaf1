"""Data to settings; what pydantic finds becomes problems with a place and a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from collector.config.problems import ConfigError, Problem
from collector.config.settings import Settings
from collector.config.source import Source
from collector.listeners.settings import ListenerSettings
from collector.store import settings as store

ADAPTER: Final = TypeAdapter(Settings)


def validate(source: Source) -> Settings:
    """The settings in a file; ConfigError with all problems at once."""
    problems = list(source.problems)
    settings = None
    try:
        settings = ADAPTER.validate_python(_long_forms(source.data))
    except ValidationError as error:
        problems += [_problem(source, found) for found in error.errors(include_url=False)]
    if settings is not None:
        problems += _together(source, settings)
    if problems:
        raise ConfigError(sorted(set(problems), key=lambda problem: (problem.at.line, problem.at.column)))
    assert settings is not None
    return settings


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


def _together(source: Source, settings: Settings) -> Iterator[Problem]:
    """What no field can tell by itself."""
    interval = settings.flush_interval
    if interval != int(interval) or 60 % int(interval):
        at = source.position(("flush_interval",))
        yield Problem(source.file, at, "flush_interval must be whole seconds that divide a minute", "try 10s")
    url = settings.redis.url
    if url != store.EMBEDDED and url.partition("://")[0] not in store.SCHEMES:
        at = source.position(("redis", "url"))
        known = ", ".join(f"{scheme}://" for scheme in store.SCHEMES)
        yield Problem(source.file, at, "redis.url is not an address", f"use embedded, {known}")
    if not settings.listen:
        yield Problem(source.file, source.position(("listen",)), "listen is empty: nothing would arrive")
    seen: set[str] = set()
    for index, listener in enumerate(settings.listen):
        if listener.url.port and str(listener.url) in seen:
            at = source.position(("listen", index))
            yield Problem(source.file, at, f"listen: {listener.url} stands twice")
        seen.add(str(listener.url))


def _problem(source: Source, error: ErrorDetails) -> Problem:
    # A place of pydantic's ends in words of its own (the branch of a union, say): the nearest part that
    # is in the file is meant.
    path = tuple(error["loc"])
    dotted = _dotted(path)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_keys(path[:-1])
        word = str(path[-1])
        near = difflib.get_close_matches(word, known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
        return Problem(source.file, source.position(path, key=True), f'unknown key "{word}"', hint)
    if error["type"] in ("missing", "missing_argument"):
        return Problem(source.file, source.position(path[:-1]), f"{dotted} is missing")
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return Problem(source.file, source.position(path), f"{dotted}: {message}{_hint(error)}")


def _hint(error: ErrorDetails) -> str:
    value = error.get("input")
    quotable = (
        isinstance(value, str | int | float) and error["type"] != "value_error" and "url" not in error["loc"]
    )
    return f", found {value!r}" if quotable else ""


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    """The keys of the settings at a path."""
    kind: Any = Settings
    for part in path:
        if isinstance(part, int):
            kind = ListenerSettings  # the only list of settings
        else:
            kind = get_type_hints(kind).get(part)
            if get_args(kind) and not is_dataclass(kind):
                kind = next((one for one in get_args(kind) if is_dataclass(one)), kind)
    return [one.name for one in fields(kind)] if is_dataclass(kind) else []


def expand(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """The settings with `~` replaced by the home directory."""
    home = environ.get("HOME")
    text = str(settings.state_dir)
    if home and (text == "~" or text.startswith("~/")):
        return replace(settings, state_dir=Path(home) / text[2:])
    return replace(settings, state_dir=settings.state_dir.expanduser())
