"""store check and store usage: the store itself, looked at without a daemon."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from collector.cli.base import BAD_CONFIGURATION, NO, STRICT, UNREACHABLE, fail, json_option, print_json
from collector.cli.settings import config_file, loaded
from collector.units import format_size

if TYPE_CHECKING:
    from collector.config import Settings
    from collector.store.address import StoreAddress
    from collector.store.check import Finding
    from collector.store.keys import KeySpace
    from collector.store.topology import Topology
    from collector.store.usage import Usage

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_COLOURS: Final = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.group()
def store() -> None:
    """Look at the store that the configuration names.

    \b
    Example: collector store check
    """


def _config_option(function: F) -> F:
    return click.option(
        "--config", "-c", "path", type=click.Path(dir_okay=False), help="The YAML file, as for run."
    )(function)


@store.command("check")
@_config_option
@click.option("--strict", is_flag=True, help="Exit code 3 when there are warnings.")
@json_option
def check_command(path: str | None, strict: bool, as_json: bool) -> None:
    """Tell whether the store is fit: connection, rights, version, eviction, memory, persistence, schema.

    Nothing is written. The embedded server is looked at while the daemon runs.

    \b
    Example: collector store check --config config/collector.yaml
    """
    from collector.store.check import check
    from collector.store.rights import needed

    def ask(
        store: Topology, keys: KeySpace, address: StoreAddress, settings: Settings
    ) -> Awaitable[list[Finding]]:
        return check(store, keys, needed(address, settings.redis))

    findings = _with_store(path, ask)
    if as_json:
        print_json([{**_fields(one), "level": one.level.value} for one in findings])
    else:
        for one in findings:
            click.echo(_row(one))
    levels = {one.level.value for one in findings}
    raise SystemExit(NO if "failed" in levels else STRICT if strict and "warning" in levels else 0)


def _fields(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in finding.__slots__}


def _row(finding: Finding) -> str:
    level = click.style(f"{finding.level:8}", fg=_COLOURS[finding.level])
    node = f"{finding.node}  " if finding.node else ""
    remedy = f"\n{'':22}{finding.remedy}" if finding.remedy else ""
    return f"{level} {finding.what:12} {node}{finding.found}{remedy}"


@store.command("usage")
@_config_option
@click.option("--top", default=10, show_default=True, type=click.IntRange(0), help="How many are listed.")
@json_option
def usage_command(path: str | None, top: int, as_json: bool) -> None:
    """Show the bytes that metrics take in the store, and the largest series.

    Where there are very many series some of each metric stand for all of it, and the answer says so.

    \b
    Example: collector store usage --top 20
    """
    from collector.config import load_retention
    from collector.store.usage import measure

    def progress(asked: int, of: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{min(asked, of) * 100 // max(of, 1)} % of {of} keys", nl=False, err=True)

    def ask(store: Topology, keys: KeySpace, _: StoreAddress, settings: Settings) -> Awaitable[Usage]:
        return measure(
            store, keys, load_retention(settings, os.environ), time.time(), top=top, progress=progress
        )

    found = _with_store(path, ask)
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    if as_json:
        print_json(_usage_data(found, top))
    else:
        click.echo("\n".join(_usage_rows(found, top)))


def _usage_data(found: Usage, top: int) -> dict[str, Any]:
    return {
        "bytes": found.bytes,
        "series": found.series,
        "measured": found.measured,
        "metrics": [
            {"kind": one.kind.name.lower(), "name": one.name, "series": one.series, "bytes": one.bytes}
            for one in found.metrics[: top or None]
        ],
        "largest": [
            {"kind": series.kind.name.lower(), "series": series.text, "bytes": size}
            for series, size in found.largest
        ],
        "shared": found.shared,
    }


def _usage_rows(found: Usage, top: int) -> list[str]:
    rows = [f"{format_size(found.bytes)} in {found.series} series"]
    if found.sampled:
        rows[0] += f", estimated from {found.measured} of them"
    rows.append(click.style(f"{'bytes':>10} {'series':>9}  metric", bold=True))
    for one in found.metrics[:top]:
        rows.append(f"{format_size(one.bytes):>10} {one.series:>9}  {one.kind.name.lower()} {one.name}")
    if len(found.metrics) > top:
        rest = found.metrics[top:]
        size, count = sum(one.bytes for one in rest), sum(one.series for one in rest)
        rows.append(f"{format_size(size):>10} {count:>9}  {len(rest)} others")
    for name, size in found.shared.items():
        rows.append(f"{format_size(size):>10} {'':>9}  {name}, of all series")
    if found.largest:
        rows.append(click.style(f"{'bytes':>10} {'':>9}  largest series", bold=True))
    for series, size in found.largest:
        rows.append(f"{format_size(size):>10} {'':>9}  {series.kind.name.lower()} {series.text}")
    return rows


def _with_store(
    path: str | None, ask: Callable[[Topology, KeySpace, StoreAddress, Settings], Awaitable[T]]
) -> T:
    """An answer of the store that a configuration names; ends with 69 without one, with 1 without rights."""
    from collector.errors import OperatorError, StoreError
    from collector.store.address import StoreAddress, without_password
    from collector.store.faults import Fault, fault_of
    from collector.store.keys import KeySpace
    from collector.store.topology import open_store

    settings, warnings = loaded(config_file(path))
    for warning in warnings:
        click.echo(str(warning), err=True)
    url = _url(settings)

    async def run() -> T:
        store = open_store(url, settings.redis)
        try:
            keys = KeySpace(settings.redis.prefix, int(settings.flush_interval))
            return await ask(store, keys, StoreAddress.parse(url), settings)
        finally:
            await store.aclose()

    try:
        return asyncio.run(run())
    except OperatorError as error:
        fail(str(error), BAD_CONFIGURATION)
    except StoreError as error:
        code = NO if fault_of(error) is Fault.RIGHTS else UNREACHABLE
        fail(f"{without_password(url)}: {error}", code)


def _url(settings: Settings) -> str:
    """Where the store is; the embedded one is where the daemon has it while it runs."""
    from collector.embedded import EmbeddedServer
    from collector.store.settings import EMBEDDED

    if settings.redis.url != EMBEDDED:
        return settings.redis.url
    server = EmbeddedServer(settings.state_dir, settings.embedded)
    if not server.socket.exists():
        fail(f"no embedded server runs in {settings.state_dir}: start the daemon first", UNREACHABLE)
    return server.url
