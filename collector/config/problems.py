"""What is wrong with a configuration, and where."""

from __future__ import annotations

from dataclasses import dataclass

from collector.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; lines and columns count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or (`warning`) only doubtful."""

    file: str
    at: Position
    message: str
    suggestion: str = ""
    warning: bool = False

    def __str__(self) -> str:
        hint = f" ({self.suggestion})" if self.suggestion else ""
        kind = "warning: " if self.warning else ""
        text = f"{self.file}:{self.at.line}:{self.at.column}: {kind}{self.message}{hint}"
        # One problem is one line, whatever the file put into it, and moves no terminal's cursor.
        return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class ConfigError(OperatorError):
    """A configuration that cannot be used: all its problems at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
