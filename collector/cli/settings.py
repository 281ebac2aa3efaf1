"""config check, init, show and schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from collector.cli.base import BAD_CONFIGURATION, NO, STRICT, fail, json_option, print_json

if TYPE_CHECKING:
    from collector.config import Problem, Settings

_PLACES: Final = ("~/.config/collector/collector.yaml", "/etc/collector/collector.yaml")


def config_file(given: str | None) -> Path | None:
    """The file to read: the one given, $COLLECTOR_CONFIG, or the first usual place that has one."""
    named = given or os.environ.get("COLLECTOR_CONFIG")
    if named:
        return Path(named)
    # Unlike Path, os.path neither fails without a home nor in a directory that may not be looked into.
    places = map(os.path.expanduser, _PLACES)
    return next((Path(one) for one in places if os.path.exists(one)), None)  # noqa: PTH110


def loaded(path: Path | None) -> tuple[Settings, list[Problem]]:
    """The settings and warnings; ends with 78 and all problems when they cannot be used."""
    from collector.config import ConfigError, check

    try:
        return check(path, os.environ)
    except ConfigError as error:
        fail("\n".join(map(str, error.problems)), BAD_CONFIGURATION)


@click.group()
def config() -> None:
    """Check, write and show the configuration.

    \b
    Example: collector config check config/collector.yaml
    """


@config.command("check")
@click.argument("file", required=False)
@click.option("--strict", is_flag=True, help="Exit code 3 when there are warnings.")
@json_option
def check_command(file: str | None, strict: bool, as_json: bool) -> None:
    """Find all faults of FILE and its rule files at once; print the ladders in force.

    \b
    Example: collector config check config/collector.yaml
    """
    from collector.config import ConfigError, check

    path = config_file(file)
    try:
        settings, problems = check(path, os.environ)
        code = STRICT if problems and strict else 0
    except ConfigError as error:
        problems, code = error.problems, BAD_CONFIGURATION
    if as_json:
        print_json(
            [
                {
                    "file": one.file,
                    "line": one.at.line,
                    "column": one.at.column,
                    "message": one.message,
                    "suggestion": one.suggestion,
                    "warning": one.warning,
                }
                for one in problems
            ]
        )
    else:
        for one in problems:
            click.echo(str(one), err=True)
        if not problems:
            click.echo(f"{path or 'defaults'}: ok")
        if code != BAD_CONFIGURATION:
            for line in _kept(settings):
                click.echo(line)
    raise SystemExit(code)


def _kept(settings: Settings) -> Iterator[str]:
    """The ladders in force, and what a busy series of each kind takes with them in the store."""
    from collector.config import load_retention
    from collector.model import Kind
    from collector.rules import KindWord
    from collector.units import format_size

    retention = load_retention(settings, os.environ)
    for kind in Kind:
        for ladder in dict.fromkeys(retention.ladders(kind)):
            size = format_size(ladder.bytes(kind))
            yield f"{KindWord[kind.name]:8} {ladder!s:28} {size:>8} a busy series"


@config.command()
@click.argument("path", default="collector.yaml")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: str, force: bool) -> None:
    """Write the shipped configuration, which is the manual, to PATH (collector.yaml).

    \b
    Example: collector config init /etc/collector/collector.yaml
    """
    from collector.config import shipped

    try:
        with Path(path).open("w" if force else "x") as out:
            out.write(shipped())
    except FileExistsError:
        fail(f"{path} is there already: --force overwrites it", NO)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}", NO)
    click.echo(f"wrote {path}", err=True)


@config.command("show")
@click.argument("file", required=False)
@json_option
def show_command(file: str | None, as_json: bool) -> None:
    """Print the effective configuration of FILE, defaults included, passwords masked.

    \b
    Example: collector config show config/collector.yaml
    """
    from collector.config import show

    text = show(loaded(config_file(file))[0])
    if as_json:
        import yaml

        print_json(yaml.safe_load(text))
    else:
        click.echo(text, nl=False)


@config.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of the file, for editors.

    \b
    Example: collector config schema > collector.schema.json
    """
    from collector.config import schema

    print_json(schema())
