"""What the user can put right: a problem and its remedy."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A run that cannot be made."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy
