"""What stands for a value: ${NAME}, ${NAME:-default}, ${file:/path}, ${credential:name}; $$ is a dollar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from collector.errors import OperatorError

_PART: Final = re.compile(r"\$\$|\$\{([^}]*)\}|\$")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # set by systemd for LoadCredential=


class InterpolationError(OperatorError):
    """A reference that cannot be filled in."""


def fill(text: str, environ: Mapping[str, str]) -> str:
    """`text` with every reference filled in; InterpolationError for the first that cannot be."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if match[1] is None:
            raise InterpolationError('a lone "$"', "write $$ for a dollar, ${NAME} for a variable")
        return _look_up(match[1], environ)

    return _PART.sub(one, text)


def _look_up(reference: str, environ: Mapping[str, str]) -> str:
    if reference.startswith("file:"):
        return _read(Path(reference[5:]), reference)
    if reference.startswith("credential:"):
        directory = environ.get(_CREDENTIALS)
        if directory is None:
            raise InterpolationError(f"${{{reference}}}: there are no credentials", "systemd sets them")
        return _read(Path(directory) / Path(reference[11:]).name, reference)
    name, default_mark, default = reference.partition(":-")
    if not _NAME.fullmatch(name):
        raise InterpolationError(f"${{{reference}}} is no reference", "write ${NAME} or ${NAME:-default}")
    if default_mark:
        return environ.get(name) or default
    if name not in environ:
        raise InterpolationError(
            f"the environment has no {name}", f"set it, or give a default: ${{{name}:-value}}"
        )
    return environ[name]


def _read(path: Path, reference: str) -> str:
    try:
        return path.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text"
        raise InterpolationError(f"${{{reference}}} cannot be read", f"{path}: {why}") from None
