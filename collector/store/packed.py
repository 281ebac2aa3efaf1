"""Operations as RESP, which is what a flush mostly makes: compiled where it was built, else in Python.

    keys        $21\\r\\n{m07-3}:c:hits:10:1380\\r\\n           one a operation
    arguments   $2\\r\\n17\\r\\n$1\\r\\n5\\r\\n$5\\r\\nchits\\r\\n         as many as its kind has

The script wants all keys before all arguments, so they are gathered apart.
"""

from __future__ import annotations

from array import array

from collector.model import Number
from collector.store.numbers import number_text

__all__ = ["Packed", "PackedInPython", "bulk"]

Argument = bytes | Number


class PackedInPython:
    """Operations of one kind and one time to live."""

    __slots__ = ("_arguments", "_keys", "count", "operations")

    def __init__(self) -> None:
        self.operations = 0
        self.count = 0  # arguments of all of them
        self._keys: list[bytes] = []
        self._arguments: list[bytes] = []

    @property
    def keys(self) -> bytes:
        """The keys, packed."""
        return b"".join(self._keys)

    @property
    def arguments(self) -> bytes:
        """The arguments, packed."""
        return b"".join(self._arguments)

    def add(self, key: bytes, number: int, arguments: tuple[Argument, ...]) -> int:
        """Adds an operation; how many bytes it takes. A `number` that is not negative is the key's end."""
        packed = bulk(key if number < 0 else b"%b%d" % (key, number))
        added = [bulk(one if isinstance(one, bytes) else number_text(one)) for one in arguments]
        self._keys.append(packed)
        self._arguments += added
        self.operations += 1
        self.count += len(added)
        return len(packed) + sum(map(len, added))

    def add_samples(
        self, key: bytes, keep: int, ms: int, values: array[float], name: bytes, number: int
    ) -> int:
        """Adds raw samples, all at `ms`, as one member of a sorted set: `1.5,2,0.25:<name>.<number>`.

        `keep` and `ms`, its score, come before it.
        """
        member = b"%b:%b.%d" % (b",".join(map(number_text, values)), name, number)
        return self.add(key, -1, (keep, ms, member))


def bulk(part: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


try:
    from collector.store._packed import Packed
except ImportError:  # not built in this installation
    Packed = PackedInPython  # type: ignore[assignment,misc]
