"""parse and send."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Final

import click

from collector.cli.base import NO, UNREACHABLE, fail, json_option, print_json
from collector.cli.explain import explain
from collector.model import GaugeMode
from collector.statsd.lines import Profile
from collector.statsd.names import Dialect

_DATAGRAM: Final = 1432  # bytes that fit an Ethernet frame
_TIMEOUT: Final = 5.0  # seconds


def _given(lines: tuple[str, ...]) -> list[bytes]:
    """The lines of the command line, or of stdin when there are none or "-"."""
    if lines and lines != ("-",):
        return [one for line in lines for one in line.encode("utf-8", "surrogateescape").split(b"\n")]
    return sys.stdin.buffer.read().removesuffix(b"\n").split(b"\n")


@click.command()
@click.argument("lines", nargs=-1)
@click.option(
    "--gauges", type=click.Choice(["statsd", "dogstatsd"]), default="statsd", help="What a sign means."
)
@click.option(
    "--dialect",
    "dialects",
    multiple=True,
    type=click.Choice([one.value for one in Dialect]),
    help="Spoken; repeatable.",
)
@click.option("--meters", is_flag=True, help='Take "m" for "c".')
@click.option("--bare-names", is_flag=True, help="Take a name alone as a count of one.")
@json_option
def parse(
    lines: tuple[str, ...],
    gauges: str,
    dialects: tuple[str, ...],
    meters: bool,
    bare_names: bool,
    as_json: bool,
) -> None:
    """Explain LINES (or stdin): name, kind, value, rate and tags, or a caret at the fault.

    \b
    Example: collector parse 'api.latency:231|ms|@0.1|#route:/pay'
    Exit code 1 when anything was refused.
    """
    profile = Profile(
        gauges=GaugeMode(gauges),
        dialects=frozenset(map(Dialect, dialects)),
        meters=meters,
        bare_names=bare_names,
    )
    found = [explain(line, profile) for line in _given(lines) if line.strip()]
    if as_json:
        print_json([one.data() for one in found])
    elif found:
        click.echo("\n\n".join(one.text() for one in found))
    raise SystemExit(NO if any(one.refusals for one in found) else 0)


@click.command()
@click.argument("lines", nargs=-1)
@click.option("--to", default="udp://localhost:8125", show_default=True, help="udp:// or tcp://host:port.")
@click.option("--force", is_flag=True, help="Send also what the grammar refuses.")
def send(lines: tuple[str, ...], to: str, force: bool) -> None:
    """Send LINES (or stdin) to a StatsD server.

    \b
    Example: collector send page.views:1|c
    Nothing is sent when a line would be refused, unless --force is given.
    """
    given = [line for line in _given(lines) if line]
    bad = [one for one in (explain(line, Profile()) for line in given) if one.refusals]
    for one in bad:
        click.echo(one.text(), err=True)
    if bad and not force:
        fail("nothing was sent; --force sends it all the same", NO)
    scheme, separator, address = to.rpartition("://")
    host, _, port = address.rpartition(":")
    scheme = scheme if separator else "udp"
    known = scheme in ("udp", "tcp") and host and port.isascii() and port.isdecimal()
    if not known or not 0 < int(port) < 65536:  # a larger one would wrap around, to a port of someone else
        fail(f"--to {to}: write it like udp://localhost:8125", 2)
    host = host.removeprefix("[").removesuffix("]")
    try:
        packets = _send_udp(host, int(port), given) if scheme == "udp" else _send_tcp(host, int(port), given)
    except OSError as error:
        fail(f"nothing listens at {to}: {error.strerror or error}", UNREACHABLE)
    unit = "datagrams" if scheme == "udp" else "writes"
    click.echo(f"sent {len(given)} lines in {packets} {unit} to {to}", err=True)


def _send_tcp(host: str, port: int, lines: list[bytes]) -> int:
    with socket.create_connection((host, port), timeout=_TIMEOUT) as sock:
        sock.sendall(b"".join(line + b"\n" for line in lines))
    return 1


def _send_udp(host: str, port: int, lines: list[bytes]) -> int:
    """Sends to the first address of a host that does not say at once that nobody listens there."""
    refused: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(0.05)
            try:
                sock.connect(address)
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
