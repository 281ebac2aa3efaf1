"""Writes the first inputs of the corpora: the grammar's table, read in each way that the target knows, and
sketches of each form.

    python tests/fuzz/make_corpus.py

Inputs that a fuzzer has found lie beside them, under their hash.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from grammar_table import TABLE

from collector.sketch import Sketch

CORPUS = Path(__file__).resolve().parent / "corpus"
ENDS = b"\xfe"
ROWS = 24  # to a file


def main() -> None:
    """All of them."""
    core()
    sketches()


def core() -> None:
    """Each file: small or large limits, with and without failing memory, read at once or queued."""
    datagrams = [row.data for row in TABLE if len(row.data) < 200]
    for number in range(0, len(datagrams), ROWS):
        some = datagrams[number : number + ROWS]
        for name, limits, failing, ways in (
            ("at_once", 255, 0, (0, 0, 8, 2)),
            ("queued", 255, 0, (1, 5, 9, 7)),
            ("small", 1, 0, (1, 4, 13, 0)),
            ("failing", 15, 5, (1, 4, 13, 0)),
            ("windows", 255, 0, (17, 16, 29, 209)),
            ("policed", 2, 0, (33, 37, 51, 45)),
        ):
            parts = [
                bytes([ways[at % len(ways)]]) + data.replace(ENDS, b"") for at, data in enumerate(some * 2)
            ]
            (CORPUS / "core" / f"{name}_{number:03}").write_bytes(bytes([limits, failing]) + ENDS.join(parts))


def sketches() -> None:
    """Of both forms and signs, with whole weights and fractions, some to an input."""
    given: list[tuple[list[float], float]] = [
        ([], 1),
        ([0.0, 1, 1, 1.02, -5], 1),
        ([float(n) for n in range(100, 200)], 1),
        ([float(-n) for n in range(100, 200)] * 200, 1),
        ([1.0, 2, 3], 1 / 0.3),
        ([1.0, 1.02, 1.04], 1 / 0.3),
        ([5e-324, 1e300, -1e300], 1e9),
    ]
    blobs = []
    for values, weight in given:
        sketch = Sketch()
        sketch.add(values, weight)
        blobs.append(sketch.encode())
    parts = [bytes([len(blob)]) + blob for blob in blobs if len(blob) < 256]
    for n, part in enumerate(parts):
        (CORPUS / "sketch" / f"one_{n:03}").write_bytes(b"\0" + part)
    (CORPUS / "sketch" / "all").write_bytes(b"\0" + b"".join(parts))
    (CORPUS / "sketch" / "failing").write_bytes(b"\3" + b"".join(parts * 2))


if __name__ == "__main__":
    main()
