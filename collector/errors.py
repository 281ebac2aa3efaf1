"""The errors of the collector, classed by whose fault they are.

    CollectorError
    ├── OperatorError     configuration or environment: the operator can mend it
    └── StoreError        Redis or Valkey refused, failed or is away

What a client sent wrong is no exception that travels: a refused line becomes a reason, counted by
`collector_lines_rejected_total{reason}` (see `collector.statsd`).
"""

from __future__ import annotations


class CollectorError(Exception):
    """Base of every error that the collector raises on purpose."""


class OperatorError(CollectorError):
    """Something the operator can mend: `problem` says what is wrong and where, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.problem = problem
        self.remedy = remedy


class StoreError(CollectorError):
    """The store refused or failed; the data that was to be written is kept and tried again."""
