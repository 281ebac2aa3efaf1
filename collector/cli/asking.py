"""query, metrics, status and health: what a running daemon says."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click

from collector.cli.base import NO, ask, fail, get, json_option, print_json, url_option
from collector.units import format_duration, format_size

_QUANTILES: Final = ("0.5", "0.75", "0.9", "0.95", "0.99", "1")
_POINTS: Final = 10  # recent points shown


@click.command()
@click.argument("selector")
@click.option("--range", "span", default="10m", show_default=True, help="How far back points are shown.")
@url_option
@json_option
def query(selector: str, span: str, url: str, as_json: bool) -> None:
    """Show the current value, the recent points and the percentiles of SELECTOR.

    \b
    Examples: collector query page.views
              collector query 'api.latency{route="/pay"}'
    """
    current = ask(url, "/api/v1/query", query=selector)["result"]
    points = ask(url, "/api/v1/query", query=f"{selector}[{span}]")["result"]
    if as_json:
        print_json({"current": current, "points": points})
        raise SystemExit(0 if current or points else NO)
    if not current and not points:
        fail(f"nothing found for {selector}", NO)
    recent = {json.dumps(one["metric"], sort_keys=True): one for one in points}
    for one in current:
        key = json.dumps(one["metric"], sort_keys=True)
        click.echo(_series(one, recent.pop(key, {}), url))
    for one in recent.values():
        click.echo(_series({"metric": one["metric"]}, one, url))


def _series(current: dict[str, Any], points: dict[str, Any], url: str) -> str:
    """One series: a title, its value or percentiles, its points."""
    metric = current["metric"]
    rows = [click.style(_title(metric), bold=True)]
    if "value" in current:
        rows.append(f"  now {current['value'][1]}")
    if "histogram" in current:
        rows += _timer(metric, current["histogram"][1], url)
    for at, value in points.get("values", [])[-_POINTS:]:
        rows.append(f"  {_clock(at)}  {value}")
    for at, histogram in points.get("histograms", [])[-_POINTS:]:
        mean = float(histogram["sum"]) / float(histogram["count"])
        rows.append(f"  {_clock(at)}  count {histogram['count']}, mean {mean:.6g}")
    return "\n".join(rows)


def _timer(metric: dict[str, str], histogram: dict[str, Any], url: str) -> list[str]:
    """Count, sum, mean and percentiles of the last five minutes."""
    count, total = float(histogram["count"]), float(histogram["sum"])
    rows = [f"  last 5m: count {count:g}, sum {total:.6g}, mean {total / count:.6g}"]
    matchers = ", ".join([_quoted(metric["__name__"]), 'kind="timer"', *_matchers(metric)])
    found = []
    for q in _QUANTILES:
        result = ask(url, "/api/v1/query", query=f'{{{matchers}, quantile="{q}"}}')["result"]
        same = [one for one in result if _without(one["metric"], "quantile") == _without(metric)]
        if same:
            label = "max" if q == "1" else f"p{float(q) * 100:g}"
            found.append(f"{label} {float(same[0]['value'][1]):.6g}")
    return [*rows, f"  {', '.join(found)}"]


def _matchers(metric: dict[str, str]) -> list[str]:
    labels = _without(metric, "__name__")
    return [f"{_label(name)}={_quoted(value)}" for name, value in labels.items()]


def _without(metric: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in metric.items() if name not in (*names, "kind")}


def _label(name: str) -> str:
    plain = name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
    return name if plain else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _title(metric: dict[str, str]) -> str:
    labels = ", ".join(f"{name}={_quoted(value)}" for name, value in metric.items() if name != "__name__")
    return f"{metric['__name__']}{{{labels}}}" if labels else metric["__name__"]


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


@click.command()
@click.argument("prefix", default="")
@url_option
@json_option
def metrics(prefix: str, url: str, as_json: bool) -> None:
    """Print the daemon's own counters, those whose names begin with PREFIX.

    \b
    Example: collector metrics collector_lines
    """
    status, body = get(url, "/metrics")
    if status != 200:
        fail(f"{url}/metrics answered {status}: {body.strip()}", NO)
    lines = [line for line in body.splitlines() if not line.startswith("#") and line.startswith(prefix)]
    if as_json:
        print_json({name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)})
    if not lines:
        fail(f"no counter's name begins with {prefix}", NO)
    if not as_json:
        click.echo("\n".join(lines))


@click.command()
@click.option("--rejected", is_flag=True, help="Also the last refused lines, and why.")
@url_option
@json_option
def status(rejected: bool, url: str, as_json: bool) -> None:
    """Show what the daemon listens on and how it fares.

    \b
    Example: collector status --rejected
    """
    found = ask(url, "/api/v1/status")
    refused = ask(url, "/api/v1/rejected") if rejected else []
    if as_json:
        print_json({**found, "refused_lines": refused} if rejected else found)
        return
    click.echo(_status(found))
    for line in refused:
        click.echo(f"  {_clock(line['at'])} {line['sender']}  {line['line']}")
        click.echo(f"           {line['reason']}: {line['message']}")


def _status(found: dict[str, Any]) -> str:
    store, flushes = found["store"], found["flushes"]
    uptime = format_duration(round(found["uptime_seconds"]))
    rows = [
        f"collector {found['version']}, engine {found['engine']}, up {uptime}, {found['series']} series",
        f"store     {store['url']}: {'up' if store['up'] else 'away: ' + store['last_error']},"
        f" {store['pending_batches']} batches waiting ({format_size(store['pending_bytes'])})",
        f"flushes   {flushes['count']}, the last of {flushes['last_points']} points in"
        f" {flushes['last_seconds']:.3f} s; longest hold of the loop {flushes['loop_lag_max'] * 1000:.0f} ms",
    ]
    for one in found["listeners"]:
        rows += _listener_rows(one)
    for reason, count in store["lost"].items():
        rows.append(f"DATA LOSS {reason}: {count}")
    if found["rejected"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in found["rejected"].items())
        rows.append(f"refused   {reasons} (collector status --rejected shows lines)")
    return "\n".join(rows)


def _listener_rows(listener: dict[str, Any]) -> list[str]:
    """A listener, and what was lost at it."""
    connections = f", {listener['connections']} connections" if "connections" in listener else ""
    rows = [f"listener  {', '.join(listener['addresses'])}: {listener['lines']} lines{connections}"]
    if listener["kernel_drops"]:
        count = listener["kernel_drops"]
        rows.append(f"  DATA LOSS: the kernel dropped {count} datagrams: raise receive_buffer")
    for reason, count in listener["dropped"].items():
        rows.append(f"  DATA LOSS: {count} lines dropped: {reason}")
    if listener["dropped"]:
        most = ", ".join(f"{one['sender']} ({one['lines']})" for one in listener["dropped_most"][:3])
        rows.append(f"  most of them from {most}")
    for reason, count in listener.get("refused_connections", {}).items():
        rows.append(f"  DATA LOSS: {count} connections not let in: {reason}")
    return rows


@click.command()
@url_option
@json_option
def health(url: str, as_json: bool) -> None:
    """Ask whether the daemon is healthy and ready; exit code 0 or 1, 69 when nobody answers.

    \b
    Example: collector health
    """
    answers = {name: get(url, f"/-/{name}") for name in ("healthy", "ready")}
    if as_json:
        print_json({name: status == 200 for name, (status, _) in answers.items()})
    else:
        click.echo("\n".join(body.strip() for _, body in answers.values()))
    raise SystemExit(0 if all(status == 200 for status, _ in answers.values()) else NO)
