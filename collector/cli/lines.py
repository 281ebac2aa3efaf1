"""Lines as they are given on the command line, and parse, which explains them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import Final, cast

import click

from collector.cli.base import NO, json_option, print_json
from collector.cli.explain import explain
from collector.model import GaugeMode
from collector.statsd.framing import LineStream, split_lines
from collector.statsd.lines import Profile
from collector.statsd.names import Dialect, Naming

_READ: Final = 64 * 1024  # bytes
_LONGEST: Final = 2**20  # bytes; far more than any server takes, so that its length is explained too


def given(lines: tuple[str, ...]) -> Iterator[bytes]:
    """The lines of the command line, or of stdin as they come when there are none or "-".

    An event that holds a raw newline is one line, as the daemon reads it.
    """
    named = lines and lines != ("-",)
    for piece in map(os.fsencode, lines) if named else _stdin():
        for line in split_lines(piece, _LONGEST):
            yield line.encode("latin-1")


def _stdin() -> Iterator[bytes]:
    stream = LineStream(_LONGEST)
    stdin = cast("io.BufferedReader", sys.stdin.buffer)
    while data := stdin.read1(_READ):
        yield stream.feed(data)
    yield stream.end()


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
@click.option(
    "--names",
    type=click.Choice([one.value for one in Naming]),
    default="sanitise",
    help="What becomes of odd characters in names.",
)
@click.option("--meters", is_flag=True, help='Take "m" for "c".')
@click.option("--bare-names", is_flag=True, help="Take a name alone as a count of one.")
@json_option
def parse(
    lines: tuple[str, ...],
    gauges: str,
    dialects: tuple[str, ...],
    names: str,
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
        naming=Naming(names),
        meters=meters,
        bare_names=bare_names,
    )
    explained = (explain(line, profile) for line in given(lines) if line.strip())
    refused = False
    if as_json:
        found = list(explained)
        print_json([one.data() for one in found])
        refused = any(one.refusals for one in found)
    else:
        for number, one in enumerate(explained):
            click.echo(f"\n{one.text()}" if number else one.text())
            refused |= bool(one.refusals)
    raise SystemExit(NO if refused else 0)
