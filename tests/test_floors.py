"""The floors of docs/architecture.md, read off the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "collector"
IO = {
    *("asyncio", "socket", "selectors", "threading", "subprocess", "logging", "time", "datetime", "random"),
    *("redis", "uvloop", "aiohttp", "hiredis", "urllib.request", "http", "os", "pathlib", "sqlite3"),
}
OUTSIDE = {"collector", "collector.__main__"}  # the version, and the way to start


def rooms() -> dict[str, int]:
    """Room -> floor, out of the table in docs/architecture.md."""
    table = re.findall(
        r"^\| (\d) [a-z]+ \| (.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE
    )
    return {
        room.rstrip("/"): int(floor) for floor, names in table for room in re.findall(r"`([a-z_/]+)`", names)
    }


def modules() -> dict[str, Path]:
    """All modules of the package by their full name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, *, late: bool = True) -> set[str]:
    """The modules that a module imports; with `late`, also those inside functions."""
    found: set[str] = set()
    tree = ast.parse(MODULES[name].read_text())
    nodes = ast.walk(tree) if late else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found


def floor(name: str) -> int:
    """The floor that a module's room is on."""
    return rooms()[name.split(".")[1]]


@pytest.mark.parametrize("name", sorted(set(MODULES) - OUTSIDE))
def test_a_module_imports_from_below_only(name: str) -> None:
    """From a lower floor, from its own room, or from a room of its floor that does not import it back."""
    room = name.split(".")[1]
    assert room in rooms(), f"{room} has no place in docs/architecture.md"
    for other in imports(name):
        if not other.startswith("collector.") or other in OUTSIDE or other.split(".")[1] == room:
            continue
        assert floor(other) <= floor(name), f"{name} imports {other} from a floor above"


def test_no_module_imports_itself_in_a_circle() -> None:
    """Every module can be loaded by itself, in any order."""
    graph = {name: imports(name, late=False) & set(MODULES) for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for other in graph[name]:
                # `from package.module import x` runs the package too, which may be what is being loaded
                if not name.startswith(other + ".") and other != name:
                    visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(one for one in set(MODULES) - OUTSIDE if floor(one) <= 2))
def test_the_lower_floors_do_no_io(name: str) -> None:
    """No socket, clock, logger, thread or store below floor 3: `now` is an argument."""
    assert not imports(name) & IO


def test_only_the_assembly_knows_the_configuration() -> None:
    """Settings live beside what they configure; one package knows YAML, and pydantic."""
    for name in MODULES:
        if name.split(".")[1:2] not in (["config"], ["cli"], ["daemon"]):
            found = {one.split(".")[0] for one in imports(name)}
            assert not found & {"yaml", "pydantic", "pydantic_core"}, name
            assert not any(one.startswith("collector.config") for one in imports(name)), name


def test_every_room_of_the_table_is_there() -> None:
    """The table does not promise what does not exist."""
    there = {name.split(".")[1] for name in set(MODULES) - OUTSIDE}
    assert set(rooms()) == there
