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
_LONGEST: Final = 2**20  # characters of a file; systemd's own limit for a credential is 1 MB


class InterpolationError(OperatorError):
    """A reference that cannot be filled in."""


def references(text: str) -> str:
    """The references in a text as they may be shown, "" without any.

    Neither what stands around them nor their defaults: either may be a password in clear.
    """
    inner = (match[1] for match in _PART.finditer(text) if match[1] is not None)
    return ", ".join(f"${{{one.partition(':-')[0]}}}" for one in inner)


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
    if "${" in reference:
        raise InterpolationError("a reference inside another", "a default is plain text")
    if reference.startswith("file:"):
        return _read(Path(reference[5:]), reference)
    if reference.startswith("credential:"):
        return _read(_credential(reference, environ), reference)
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


def _credential(reference: str, environ: Mapping[str, str]) -> Path:
    name = reference.partition(":")[2]
    if not name or "/" in name:
        raise InterpolationError(f"${{{reference}}} names no credential", "write ${credential:name}")
    directory = environ.get(_CREDENTIALS)
    if directory is None:
        raise InterpolationError(f"${{{reference}}}: there are no credentials", "systemd sets them")
    return Path(directory) / name


def _read(path: Path, reference: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except OSError as error:
        raise InterpolationError(f"${{{reference}}} cannot be read", f"{path}: {error.strerror}") from None
    except ValueError:  # bytes that are no UTF-8, or a path that holds a NUL
        raise InterpolationError(f"${{{reference}}} cannot be read", "not a text") from None
    if len(text) > _LONGEST:
        raise InterpolationError(f"${{{reference}}} cannot be read", f"more than {_LONGEST} characters")
    return text.removesuffix("\n")
