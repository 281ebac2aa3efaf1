"""Names and tags, and the dialects that put tags into the name.

    influx      name,key=value,key=value
    signalfx    name[key=value,key=value]
    librato     name#key=value,key=value
    graphite    name;key=value;key=value

A name that reads as one of them where the listener does not speak it is refused (`dialect_off`)
rather than kept as a strange name: the tags would be lost in it without a sign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from collector.statsd.refusal import Refusal


class Naming(StrEnum):
    """What becomes of characters that names are better without."""

    SANITISE = "sanitise"  # etsy's way: blanks become "_" and "/" becomes "-"
    KEEP = "keep"  # as they come
    STRICT = "strict"  # letters, digits, "_", "." and "-" or nothing


class Dialect(StrEnum):
    """Where tags may stand in the name."""

    INFLUX = "influx"
    SIGNALFX = "signalfx"
    LIBRATO = "librato"
    GRAPHITE = "graphite"


_PAIRS: Final = r"[^=,;\[\]#]+=[^,;\]]*"
_DIALECTS: Final[dict[Dialect, tuple[re.Pattern[str], str]]] = {
    Dialect.INFLUX: (re.compile(rf"([^,=;\[\]#]+),({_PAIRS}(?:,{_PAIRS})*)"), ","),
    Dialect.SIGNALFX: (re.compile(rf"([^,=;\[\]#]+)\[({_PAIRS}(?:,{_PAIRS})*)\]"), ","),
    Dialect.LIBRATO: (re.compile(rf"([^,=;\[\]#]+)#({_PAIRS}(?:,{_PAIRS})*)"), ","),
    Dialect.GRAPHITE: (re.compile(rf"([^,=;\[\]#]+);({_PAIRS}(?:;{_PAIRS})*)"), ";"),
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BLANKS: Final = re.compile(r"\s+")
_NOT_STRICT: Final = re.compile(r"[^A-Za-z0-9_.-]")
_NOT_KEY: Final = re.compile(r"[^\w./-]+")


class Name(NamedTuple):
    """A name as read, the tags that a dialect put into it, and whether one of them was odd."""

    text: str
    tags: list[str]
    odd: bool


def parse_name(raw: bytes, *, longest: int, naming: Naming, dialects: frozenset[Dialect]) -> Name:
    """Reads the bytes before the first colon; Refusal where they are no name.

    `longest` is in characters. Sanitising is etsy's: blanks become "_" and "/" becomes "-"; letters
    beyond ASCII stay, since dropping them would merge series.
    """
    if not raw:
        raise Refusal("empty_name")
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise Refusal("invalid_utf8", error.start, repr(raw[error.start : error.end])) from None
    if control := _CONTROL.search(name):
        at = len(name[: control.start()].encode())
        raise Refusal("control_char", at, repr(control[0]))
    name, pairs = _split_dialect(name, dialects) if "=" in name else (name, [])
    if len(name) > longest:
        found = f"a name of {len(name)} characters, the limit is {longest}"
        raise Refusal("too_long", 0, found, limit="name")
    if naming is Naming.SANITISE:
        name = _BLANKS.sub("_", name).replace("/", "-")
    elif naming is Naming.STRICT and (odd := _NOT_STRICT.search(name)):
        raise Refusal("bad_name", len(name[: odd.start()].encode()), repr(odd[0]))
    return Name(name, *_clean_tags(pairs))


def _split_dialect(name: str, spoken: frozenset[Dialect]) -> tuple[str, list[tuple[str, str]]]:
    """(name without them, (key, value) of each tag of the dialect that the name is written in)."""
    for dialect, (pattern, separator) in _DIALECTS.items():
        if match := pattern.fullmatch(name):
            if dialect not in spoken:
                raise Refusal("dialect_off", len(match[1].encode()), f"{dialect} tags")
            pairs = (pair.partition("=") for pair in match[2].split(separator))
            return match[1], [(key, value) for key, _, value in pairs]
    return name, []


def parse_tags(raw: bytes) -> tuple[list[str], bool]:
    """(tags, whether one was odd) of the bytes after "#".

    The metric survives whatever its tags are: a tag without a key is skipped, bytes that are no
    UTF-8 and characters that a label cannot hold are replaced, and `odd` says so.
    """
    text = raw.decode("utf-8", "replace")
    parts = (tag.partition(":") for tag in text.split(",") if tag)
    tags, odd = _clean_tags([(key, value) for key, _, value in parts])
    return tags, odd or ("\ufffd" in text and b"\xef\xbf\xbd" not in raw)


def _clean_tags(pairs: list[tuple[str, str]]) -> tuple[list[str], bool]:
    """(the tags that have a key, whether one had none or was changed)."""
    cleaned = [clean_tag(key, value) for key, value in pairs]
    return [tag for tag, _ in cleaned if tag], any(changed for _, changed in cleaned)


def with_defaults(tags: Sequence[str], defaults: Sequence[str]) -> list[str]:
    """The tags, and before them those of `defaults` whose key they do not have."""
    keys = {tag.partition(":")[0] for tag in tags}
    return [*(tag for tag in defaults if tag.partition(":")[0] not in keys), *tags]


def clean_tag(key: str, value: str) -> tuple[str, bool]:
    """("key:value", "key" or "" if nothing is left of the key; whether anything was changed)."""
    clean_key = _NOT_KEY.sub("_", key)
    if clean_key != key:
        clean_key = clean_key.strip("_")
    clean_value = _CONTROL.sub("_", value).strip().replace("|", "_").replace(",", "_")
    changed = clean_key != key or clean_value != value or not clean_key
    if not clean_key:
        return "", changed
    return (f"{clean_key}:{clean_value}" if clean_value else clean_key), changed
