"""What no field can tell by itself.

These look at the data as it was read, not at finished settings, so that they speak up whatever else is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from collector.addresses import Address
from collector.config.problems import Problem
from collector.config.settings import Settings
from collector.config.source import Source
from collector.errors import OperatorError
from collector.listeners.settings import ONLY_OF
from collector.statsd.names import clean_tag
from collector.store import settings as store
from collector.store.address import StoreAddress

_UNFIT_PREFIX: Final = re.compile(r"[\s{}\x00-\x1f\x7f]")
_UNFIT_NAME: Final = re.compile(r"[:|\x00-\x1f\x7f-\x9f]")
_INSTEAD: Final = {
    "tls": "only tcp:// has it",
    "allow": "who may write to the socket file may send: set mode",
    "sender_tag": "senders of a unix socket have no address",
    "mode": "set allow to say who is heard",
}


def check(source: Source, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Every such fault of a file."""
    yield from _listeners(source)
    yield from _redis(source)
    yield from _state_dir(source, environ)


def _listeners(source: Source) -> Iterator[Problem]:
    listen = source.data.get("listen")
    if not isinstance(listen, list):
        return
    if not listen:
        yield source.problem(("listen",), "listen is empty: nothing would arrive")
    seen: set[Address] = set()
    for index, one in enumerate(listen):
        try:
            url = Address.parse(one.get("url") if isinstance(one, dict) else one)
        except ValueError:
            continue  # told by the field itself
        yield from _of_transport(source, index, url, one)
        if (url.port or url.unix) and url in seen:
            shown = str(url) if source.written(("listen", index, "url")) is None else "an address"
            yield source.problem(("listen", index), f"listen: {shown} stands twice")
        seen.add(url)


def _of_transport(source: Source, index: int, url: Address, listener: object) -> Iterator[Problem]:
    """Settings that a transport has not, where a reader would think himself safe."""
    if not isinstance(listener, dict):
        return
    for key, schemes in ONLY_OF.items():
        if key in listener and url.scheme not in schemes:
            message = f"listen[{index}].{key} means nothing to {url.scheme}"
            yield source.problem(("listen", index, key), message, _INSTEAD[key])
    prefix = listener.get("prefix")
    if isinstance(prefix, str) and _UNFIT_NAME.search(prefix):
        yield source.problem(("listen", index, "prefix"), f"listen[{index}].prefix holds what no name can")
    tags = listener.get("tags")
    for key, value in tags.items() if isinstance(tags, dict) else ():
        if isinstance(value, str) and clean_tag(key, value)[1]:
            message = f"listen[{index}].tags.{key} holds what no tag can"
            yield source.problem(
                ("listen", index, "tags", key), message, "leave out commas, pipes and blanks at the ends"
            )


def _redis(source: Source) -> Iterator[Problem]:
    redis = source.data.get("redis")
    if not isinstance(redis, dict):
        return
    url, prefix = redis.get("url", store.EMBEDDED), redis.get("prefix")
    if isinstance(url, str):
        yield from _address(source, url, redis)
    if isinstance(prefix, str) and _UNFIT_PREFIX.search(prefix):
        # Braces would move the hash tag that keeps a shard's keys in one place.
        yield source.problem(("redis", "prefix"), "redis.prefix holds blanks or braces", "try letters")


def _address(source: Source, url: str, redis: dict[Any, Any]) -> Iterator[Problem]:
    """What is wrong with a store's address, and settings that mean nothing beside it."""
    tls = False
    if url != store.EMBEDDED:
        try:
            tls = StoreAddress.parse(url).tls
        except OperatorError as error:
            yield source.problem(("redis", "url"), error.problem, error.remedy)
            return
    files = redis.get("tls")
    if isinstance(files, dict) and not tls and any(files.get(key) for key in ("ca", "certificate", "key")):
        message = "redis.tls means nothing without TLS"
        yield source.problem(("redis", "tls"), message, "use rediss:// in redis.url")
    for key in ("user", "password"):
        if redis.get(key) and url == store.EMBEDDED:
            message = f"redis.{key} means nothing to the embedded server"
            yield source.problem(("redis", key), message, "set redis.url, or leave it out")


def _state_dir(source: Source, environ: Mapping[str, str]) -> Iterator[Problem]:
    given: Any = source.data.get("state_dir", str(Settings().state_dir))
    if not isinstance(given, str) or source.is_faulty(("state_dir",)):
        return
    if not given or "\0" in given:
        yield source.problem(("state_dir",), "state_dir is no path", "write a path in full")
        return
    try:
        expand(Path(given), environ)
    except RuntimeError:
        yield source.problem(("state_dir",), 'state_dir: "~" is no directory here', "write a path in full")


def expand(path: Path, environ: Mapping[str, str]) -> Path:
    """A path with `~` replaced by the home directory; RuntimeError when there is none."""
    home = environ.get("HOME")
    text = str(path)
    if home and (text == "~" or text.startswith("~/")):
        return Path(home) / text[2:]
    return path.expanduser()
