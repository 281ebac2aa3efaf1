"""Exit codes, and how a running daemon is asked: over its HTTP API only, with the standard library."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import click

NO: Final = 1
STRICT: Final = 3
UNREACHABLE: Final = 69
TRY_AGAIN: Final = 75
BAD_CONFIGURATION: Final = 78

_TIMEOUT: Final = 10.0  # seconds
_DEFAULT_URL: Final = "http://127.0.0.1:8127"

F = TypeVar("F", bound=Callable[..., Any])


def url_option(function: F) -> F:
    """--url, which every command that asks the daemon has."""
    return click.option(
        "--url",
        default=_DEFAULT_URL,
        envvar="COLLECTOR_URL",
        show_default=True,
        show_envvar=True,
        help="The daemon's HTTP address.",
    )(function)


def json_option(function: F) -> F:
    """--json, for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def fail(message: str, code: int) -> NoReturn:
    """Ends with a message on stderr."""
    click.echo(message, err=True)
    raise SystemExit(code)


def print_json(data: Any) -> None:
    """Data for programs, also readable by people."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def get(url: str, path: str, **parameters: str) -> tuple[int, str]:
    """(status, body) of a GET; ends with 69 when nobody answers."""
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    address = url.rstrip("/") + path + query
    if not address.startswith(("http://", "https://")):
        fail(f"{url} is no HTTP address: write it like {_DEFAULT_URL}", 2)
    # No proxy: the daemon is next to us, whatever the environment says of the web.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_TIMEOUT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error
        fail(f"no daemon answers at {url}: {why}. Is it running? Is --url right?", UNREACHABLE)


def ask(url: str, path: str, **parameters: str) -> Any:
    """The `data` of an API answer; ends with the error's text where there is none."""
    status, body = get(url, path, **parameters)
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    match answer:
        case {"data": data} if status == 200:
            return data
        case {"error": str(message)}:
            fail(message, {400: 2, 503: TRY_AGAIN}.get(status, NO))
    fail(f"{url}{path} answered {status} with something that is not ours", UNREACHABLE)
