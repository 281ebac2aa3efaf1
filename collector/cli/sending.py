"""send."""

from __future__ import annotations

import contextlib
import socket
from typing import Final

import click

from collector.addresses import Address
from collector.cli.base import NO, UNREACHABLE, fail
from collector.cli.explain import explain
from collector.cli.lines import given
from collector.statsd.lines import Profile

_DATAGRAM: Final = 1432  # bytes that fit an Ethernet frame
_TIMEOUT: Final = 5.0  # seconds
_USAGE: Final = 2


@click.command()
@click.argument("lines", nargs=-1)
@click.option(
    "--to",
    default="udp://localhost:8125",
    show_default=True,
    help="udp://host:port, tcp://host:port, unixgram:///path or unixstream:///path.",
)
@click.option("--force", is_flag=True, help="Send also what the grammar refuses.")
def send(lines: tuple[str, ...], to: str, force: bool) -> None:
    """Send LINES (or stdin) to a StatsD server.

    \b
    Example: collector send 'page.views:1|c'
    Nothing is sent when a line would be refused, unless --force is given.
    """
    address = _address(to)
    packets = [line for line in given(lines) if line]
    bad = [one for one in (explain(line, Profile()) for line in packets) if one.refusals]
    for one in bad:
        click.echo(one.text(), err=True)
    if bad and not force:
        fail("nothing was sent; --force sends it all the same", NO)
    try:
        count = _send(address, packets)
    except OSError as error:
        fail(f"nothing listens at {address}: {error.strerror or error}", UNREACHABLE)
    unit = "datagram" if address.datagrams else "write"
    click.echo(f"sent {_many(len(packets), 'line')} in {_many(count, unit)} to {address}", err=True)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _address(text: str) -> Address:
    try:
        address = Address.parse(text if "://" in text else f"udp://{text}")
    except ValueError as error:
        fail(f"--to {text}: {error}", _USAGE)
    if not address.unix and not address.port:
        fail(f"--to {text}: port 0 is no port to send to", _USAGE)
    return address


def _send(address: Address, lines: list[bytes]) -> int:
    """How many datagrams or writes it took; OSError where nobody listens."""
    if address.scheme == "udp":
        return _send_udp(address, lines)
    with _connected(address) as sock:
        if address.datagrams:
            return sum(sock.send(packet) > 0 for packet in _packed(lines))
        sock.sendall(b"".join(line + b"\n" for line in lines))
    return 1


def _connected(address: Address) -> socket.socket:
    if not address.unix:
        return socket.create_connection((address.host, address.port), timeout=_TIMEOUT)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM)
    sock.settimeout(_TIMEOUT)
    try:
        sock.connect(address.path)
    except OSError:
        sock.close()
        raise
    return sock


def _send_udp(address: Address, lines: list[bytes]) -> int:
    """Sends to the first address of a host that does not say at once that nobody listens there."""
    refused: OSError | None = None
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(0.05)
            try:
                sock.connect(where)
                # An empty datagram asks: the kernel of a host without a listener answers with an error,
                # which the next call on a connected socket reports.
                sock.send(b"")
                with contextlib.suppress(TimeoutError):
                    sock.recv(1)
                return sum(sock.send(packet) > 0 for packet in _packed(lines))
            except OSError as error:
                refused = error
    assert refused is not None
    raise refused


def _packed(lines: list[bytes]) -> list[bytes]:
    packets: list[bytes] = []
    for line in lines:
        if packets and len(packets[-1]) + 1 + len(line) <= _DATAGRAM:
            packets[-1] += b"\n" + line
        else:
            packets.append(line)
    return packets
