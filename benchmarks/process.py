"""What Linux tells of other processes: their CPU time, memory and sockets, and what their sockets dropped."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.target import Target

_SCHED_CLOCK: Final = 2  # of a process: nanoseconds that its threads have run, ended threads included
_LISTENING: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON in /proc/net/unix


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, children not counted; ProcessLookupError when it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | _SCHED_CLOCK)
    except OSError as error:
        raise ProcessLookupError(f"no process {pid}") from error


def resident_bytes(pid: int) -> int:
    """Memory in use; 0 when it cannot be read."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def name(pid: int) -> str:
    """The name of a process's program; "" when it cannot be read."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A socket that a target's load arrives at."""

    inode: int
    queued: int = 0  # bytes that wait to be read; UDP
    drops: int = 0  # datagrams thrown away because the queue was full; UDP


def bound_sockets(target: Target) -> list[BoundSocket]:
    """The sockets of this machine that listen there; of UDP also those bound to all addresses."""
    if target.path:
        return list(_unix_sockets(target))
    return [one for table in _tables(target.scheme) for one in _inet_sockets(target, table)]


def _tables(scheme: str) -> Iterator[Path]:
    for path in (Path(f"/proc/net/{scheme}"), Path(f"/proc/net/{scheme}6")):
        if path.exists():
            yield path


def _inet_sockets(target: Target, table: Path) -> Iterator[BoundSocket]:
    """`sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode ref ptr drops`"""
    host = ipaddress.ip_address(target.host.partition("%")[0])
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if int(port, 16) != target.port or (target.stream and fields[3] != _LISTENING):
            continue
        bound = _address(address)
        if bound == host or bound.is_unspecified:
            queued = int(fields[4].partition(":")[2], 16)
            yield BoundSocket(int(fields[9]), queued, 0 if target.stream else int(fields[12]))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as /proc writes it: words of 32 bits in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    raw = struct.pack(f"={len(words)}I", *words)
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _unix_sockets(target: Target) -> Iterator[BoundSocket]:
    """`Num RefCount Protocol Flags Type St Inode Path`"""
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) < 8 or fields[7] != target.path:
            continue
        if not target.stream or int(fields[3], 16) & _ACCEPTS:
            yield BoundSocket(int(fields[6]))


def owner(target: Target) -> int | None:
    """The process that listens there; None if none does, or it may not be looked into."""
    wanted = {f"socket:[{one.inode}]" for one in bound_sockets(target)}
    if not wanted:
        return None
    for directory in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for descriptor in directory.iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in wanted:
                        return int(directory.parent.name)
    return None
