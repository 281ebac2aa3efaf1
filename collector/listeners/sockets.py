"""Sockets: names to addresses, receive buffers, and what the kernel dropped."""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from typing import Any, Final

from collector.addresses import Address
from collector.errors import OperatorError
from collector.logfmt import event

log = logging.getLogger(__name__)

SocketAddress = tuple[Any, ...]  # as the socket module has it: host, port, and for IPv6 flow and scope

_SO_MEMINFO: Final = 55  # Linux: nine u32, the last is the number of packets dropped at this socket
_MEMINFO: Final = struct.Struct("=9I")
_SO_RCVBUFFORCE: Final = 33  # Linux: beyond net.core.rmem_max, for those with CAP_NET_ADMIN
_SAME_PORT_TRIES: Final = 20
BACKLOG: Final = 1024  # TCP connections that the kernel holds until they are accepted
_REMEDIES: Final = {
    errno.EADDRINUSE: "another process listens there: stop it, or choose another port",
    errno.EACCES: "ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}


def bind(address: Address, kind: socket.SocketKind) -> list[socket.socket]:
    """Non-blocking sockets bound to all that the host's name means; OperatorError if one cannot be.

    `localhost` is both 127.0.0.1 and ::1, on one port also when that was left to the kernel.
    """
    families = _resolve(address, kind)
    for attempt in range(_SAME_PORT_TRIES):
        bound: list[socket.socket] = []
        port = address.port
        try:
            for family, where in families:
                sock = _bind_one(family, kind, (where[0], port, *where[2:]))
                if sock is None:
                    log.warning(event("listener.no_ipv6", url=address, host=where[0]))
                    continue
                bound.append(sock)
                port = sock.getsockname()[1]
        except OSError as error:
            for sock in bound:
                sock.close()
            taken = error.errno == errno.EADDRINUSE and address.port == 0 and bound
            if taken and attempt + 1 < _SAME_PORT_TRIES:
                continue  # the kernel's choice for one family was taken in the other: choose again
            remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
            raise OperatorError(f"cannot listen on {address}", remedy) from error
        if bound:
            return bound
        break
    raise OperatorError(f"cannot listen on {address}", "this machine has no such address")


def _resolve(address: Address, kind: socket.SocketKind) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """What a host's name means; an IPv6 address carries its flow and, link-local ones, their interface."""
    if address.host == "localhost":
        port = address.port
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise OperatorError(f"cannot listen on {address}", f"unknown host: {error.strerror}") from error
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))


def _bind_one(
    family: socket.AddressFamily, kind: socket.SocketKind, where: SocketAddress
) -> socket.socket | None:
    """A bound socket; None where `localhost` has no IPv6 on this machine."""
    try:
        sock = socket.socket(family, kind)
    except OSError:
        if where[0] == "::1":
            return None
        raise
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # For TCP it lets a restart bind while old connections linger. For UDP it would let a second
            # daemon take half of the datagrams without a word.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(where)
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)  # here, since a port may be taken between the two
    except OSError as error:
        sock.close()
        if where[0] == "::1" and error.errno == errno.EADDRNOTAVAIL:
            return None
        raise
    return sock


def request_receive_buffer(sock: socket.socket, size: int) -> int:
    """Asks the kernel for a receive buffer of `size` bytes; how many it grants.

    The kernel counts its own bookkeeping too and reports twice what was asked for; so do we here.
    """
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < size:
        if sys.platform == "linux":
            try:
                sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
            except OSError:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


class DropCounter:
    """Packets that the kernel dropped at one socket because its buffer was full."""

    __slots__ = ("_last", "_sock", "total")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._last = 0
        self.total = 0

    def read(self) -> int:
        """The total so far; the kernel's own count wraps at 2^32. 0 for ever where it keeps none."""
        if sys.platform == "linux" and self._sock.fileno() >= 0:
            raw = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            now = _MEMINFO.unpack(raw)[8]
            self.total += (now - self._last) % 2**32
            self._last = now
        return self.total


def shown(scheme: str, sock: socket.socket) -> str:
    """The address that a socket is bound to, as a URL."""
    host, port = sock.getsockname()[:2]
    return str(Address(scheme, host, port))
