"""What `benchmarks.compare` measures: the shapes of load that tell servers apart."""

from __future__ import annotations

from typing import Final

from benchmarks.contestants import Workload
from benchmarks.payload import Load

_COUNTERS: Final = (100, 0, 0, 0)

WORKLOADS: Final = (
    Workload("one line each, 1,000 counters", Load(mix=_COUNTERS, size=1)),
    Workload("1432 B, 1,000 counters", Load(mix=_COUNTERS)),
    Workload("1432 B, 1,000 mixed", Load()),
    Workload("1432 B, 100,000 mixed", Load(series=100_000)),
    Workload("1432 B, 1,000 mixed, 4 tags", Load(tags=4)),
    Workload("8 KB, 1,000 mixed", Load(size=8192)),
    Workload("TCP, 1,000 mixed", Load(), scheme="tcp"),
)
