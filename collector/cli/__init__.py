"""The command line. stdout is data, stderr is messages.

    base        exit codes, and how a daemon is asked over HTTP
    explain     a line, part by part, or a caret under its fault
    lines       parse
    sending     send
    asking      query, metrics, status, health
    settings    config check, init, show, schema
    store       store check, usage

What a command needs is imported when it runs: `collector parse` does not wait for the daemon's modules.
"""

from __future__ import annotations

import os

import click

from collector import __version__
from collector.cli.asking import health, metrics, query, status
from collector.cli.lines import parse
from collector.cli.sending import send
from collector.cli.settings import config, config_file, loaded
from collector.cli.store import store

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="collector")
@click.pass_context
def main(context: click.Context) -> None:
    """A metrics daemon: StatsD and DogStatsD in, Redis or Valkey out, exactly once.

    \b
    Example: collector run --config config/collector.yaml

    \b
    Exit codes: 0 ok, 1 the answer is no, 2 usage, 3 only warnings and --strict,
    69 unreachable, 75 try again, 78 bad configuration.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


@main.command()
@click.option("--config", "-c", "path", type=click.Path(dir_okay=False), help="The YAML file.")
@click.option("--require-native", is_flag=True, help="Refuse to run on the pure-Python engine.")
def run(path: str | None, require_native: bool) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Without --config it reads $COLLECTOR_CONFIG, ~/.config/collector/collector.yaml or
    /etc/collector/collector.yaml, the first that there is, else it runs on the defaults.

    \b
    Example: collector run --config config/collector.yaml
    """
    settings, warnings = loaded(config_file(path))
    for warning in warnings:
        click.echo(str(warning), err=True)
    from collector import daemon

    raise SystemExit(daemon.run(settings, require_native=require_native))


for command in (config, store, parse, send, query, metrics, status, health):
    main.add_command(command)
