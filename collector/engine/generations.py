"""A table that forgets what has not been used for a while, in constant time.

    recent     used since the last turn
    previous   not used since, but in the period before
    turn()     forgets `previous`, `recent` becomes `previous`

A use moves an entry to `recent`. Turned every `T` seconds, an entry is forgotten between `T` and `2T`
after its last use. No entry carries a time and no sweep walks the table, so a million entries cost the
event loop nothing.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Generations(Generic[K, V]):
    """A mapping in two generations."""

    __slots__ = ("_previous", "_recent")

    def __init__(self) -> None:
        self._recent: dict[K, V] = {}
        self._previous: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, marked as used; None where there is none."""
        value = self._recent.get(key)
        if value is None:
            value = self._previous.pop(key, None)
            if value is not None:
                self._recent[key] = value
        return value

    @property
    def recent(self) -> dict[K, V]:
        """What was used since the last turn, for a loop that looks there by itself before it asks `get`."""
        return self._recent

    def __setitem__(self, key: K, value: V) -> None:
        self._previous.pop(key, None)
        self._recent[key] = value

    def __len__(self) -> int:
        return len(self._recent) + len(self._previous)

    def turn(self) -> dict[K, V]:
        """Forgets the older generation and returns it."""
        forgotten = self._previous
        self._previous, self._recent = self._recent, {}
        return forgotten
