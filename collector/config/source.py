"""YAML to plain data that remembers where each part stood.

The text is composed to nodes, never constructed: no tag can make an object, and each node carries its line
and column. Interpolation fills scalars afterwards, so what is filled in can never become structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from collector.config.interpolation import InterpolationError, fill
from collector.config.problems import ConfigError, Position, Problem

Path = tuple[str | int, ...]

_MOST_NODES: Final = 100_000  # aliases count each time: a "billion laughs" file ends here
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Source:
    """The data of a file, where its parts stood, and which texts were filled in and may be secret."""

    file: str
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def position(self, path: Path, *, key: bool = False) -> Position:
        """Where the value of a path stands, or its key; of the nearest part that is there."""
        places = self.keys if key else self.values
        while path:
            if path in places:
                return places[path]
            path = path[:-1]
        return Position(1, 1)


def read(file: str, text: str, environ: Mapping[str, str]) -> Source:
    """Reads YAML; what is wrong with keys and interpolation is in `problems`. ConfigError for syntax."""
    source = Source(file)
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
        raise ConfigError([Problem(file, at, f"not YAML: {error.problem or error.context}")]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file, Position(1, 1), f"not YAML: {error}")]) from None
    if root is None:
        return source
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError([Problem(file, _at(root), "a configuration is a mapping of keys to values")])
    source.data = _Composer(source, environ).mapping(root, ())
    return source


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
        if self._left < 0:
            problem = Problem(self._source.file, _at(node), "too large: more than 100,000 values")
            raise ConfigError([problem])
        self._source.values[path] = _at(node)
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._problem(key_node, "a key must be a plain word")
                continue
            if key in data:
                first = self._source.keys[(*path, key)]
                self._problem(key_node, f'key "{key}" stands twice', f"first on line {first.line}")
                continue
            self._source.keys[(*path, key)] = _at(key_node)
            data[key] = self.value(value_node, (*path, key))
        return data

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if "$" in node.value:
            try:
                return fill(node.value, self._environ)
            except InterpolationError as error:
                self._problem(node, error.problem, error.remedy)
                return node.value
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._problem(node, f"a value of type {node.tag} is not known here")
            return None

    def _problem(self, node: yaml.Node, message: str, suggestion: str = "") -> None:
        self._source.problems.append(Problem(self._source.file, _at(node), message, suggestion))
