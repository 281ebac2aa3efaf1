"""YAML to plain data that remembers where each part stood.

The text is composed to nodes, never constructed: no tag can make an object, and each node carries its line
and column. Interpolation fills scalars afterwards, so what is filled in can never become structure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from collector.config.interpolation import InterpolationError, fill, references
from collector.config.problems import ConfigError, Position, Problem

Path = tuple[str | int, ...]

_MOST_NODES: Final = 100_000  # aliases count each time: a "billion laughs" file ends here
_DEEPEST: Final = 20  # settings lie four deep; a node that holds itself ends here
_TAG: Final = "tag:yaml.org,2002:"
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
# What YAML itself refuses, looked for beforehand: its own error gives no line.
_UNPRINTABLE: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Source:
    """The data of a file, and where its parts stood.

    `filled` holds, for each text that had references in it, those references: what was filled in may be
    secret. `faulty` are the places that have a problem already.
    """

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    filled: dict[Path, str] = field(default_factory=dict)
    faulty: set[Path] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def position(self, path: Path, *, key: bool = False) -> Position:
        """Where the value of a path stands, or its key; of the nearest part that is there."""
        places = self.keys if key else self.values
        while path:
            if path in places:
                return places[path]
            path = path[:-1]
        return Position(1, 1)

    def problem(self, path: Path, message: str, suggestion: str = "") -> Problem:
        """A problem with the value of a path."""
        return Problem(self.file, self.position(path), message, suggestion)

    def written(self, path: Path) -> str | None:
        """The references in the value of a path, if any were filled in."""
        return next((self.filled[part] for part in _upwards(path) if part in self.filled), None)

    def is_faulty(self, path: Path) -> bool:
        """Whether the value of a path has a problem already."""
        return any(part in self.faulty for part in _upwards(path))


def _upwards(path: Path) -> list[Path]:
    # A listener's URL alone stands where its long form does: pydantic's ("listen", 0, "url") is at
    # ("listen", 0).
    return [path[:length] for length in range(len(path), 0, -1)]


def read(file: str, text: str, environ: Mapping[str, str]) -> Source:
    """Reads YAML; what is wrong with keys and interpolation is in `problems`. ConfigError for syntax."""
    source = Source(file)
    root = _compose(file, text)
    if root is None:
        return source
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError([Problem(file, _at(root), "a configuration is a mapping of keys to values")])
    source.data = _Composer(source, environ).mapping(root, ())
    return source


def _compose(file: str, text: str) -> yaml.Node | None:
    if odd := _UNPRINTABLE.search(text):
        before = text[: odd.start()]
        at = Position(before.count("\n") + 1, odd.start() - before.rfind("\n"))
        raise ConfigError([Problem(file, at, f"not YAML: the character {odd[0]!r} is not allowed")])
    try:
        loader = _Loader(text)
        try:
            root: yaml.Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        # The end of the text, where an open bracket is missed, lies behind its last line.
        line = next(iter(text.split("\n")[at.line - 1 :]), "") if mark else ""
        hint = "indent with blanks, not tabs" if line[at.column - 1 : at.column] == "\t" else ""
        message = f"not YAML: {error.problem or error.context}"
        raise ConfigError([Problem(file, at, message, hint)]) from None
    except RecursionError:
        raise ConfigError([Problem(file, Position(1, 1), "not YAML: nested too deeply")]) from None
    return root


def _at(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


class _Composer:
    """Nodes to data, noting positions and problems."""

    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._left = _MOST_NODES
        self._constructor = yaml.SafeLoader("")

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > _DEEPEST:
            what = "nested too deeply" if self._left >= 0 else f"too large: more than {_MOST_NODES:,} values"
            raise ConfigError([Problem(self._source.file, _at(node), what)])
        self._source.values[path] = _at(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            return self._unknown(node, path)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._problem(key_node, "a key must be a plain word")
                continue
            if key in data:
                first = self._source.keys[(*path, key)]
                shown = json.dumps(key, ensure_ascii=False)
                self._problem(key_node, f"key {shown} stands twice", f"first on line {first.line}")
                continue
            self._source.keys[(*path, key)] = _at(key_node)
            data[key] = self.value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        text: str = node.value
        if "$" in text:
            if shown := references(text):
                self._source.filled[path] = shown
            try:
                return fill(text, self._environ)
            except InterpolationError as error:
                self._source.faulty.add(path)
                self._problem(node, error.problem, error.remedy)
                return None
        match node.tag.removeprefix(_TAG):
            case "str" | "timestamp":
                return text
            case "int":
                # YAML 1.1 also reads 0100 as 64 and 1:30 as 90; nobody means that.
                return int(text) if _INTEGER.fullmatch(text) and len(text) < 20 else text
            case "float" if ":" in text:
                return text
            case "float" | "bool" | "null":
                try:
                    return self._constructor.construct_object(node)
                except (yaml.YAMLError, ValueError, KeyError):  # a tag that its text does not fit
                    return text
        return self._unknown(node, path)

    def _unknown(self, node: yaml.Node, path: Path) -> None:
        self._source.faulty.add(path)
        self._problem(node, f"a value of type {node.tag} is not known here")

    def _problem(self, node: yaml.Node, message: str, suggestion: str = "") -> None:
        self._source.problems.append(Problem(self._source.file, _at(node), message, suggestion))
