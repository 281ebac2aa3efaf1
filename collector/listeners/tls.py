"""TLS of a listener: the context, made again when its files change."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Final

from collector.errors import OperatorError
from collector.listeners.settings import TlsSettings
from collector.logfmt import event

log = logging.getLogger(__name__)

_LOOK: Final = 10.0  # seconds between two looks at the files

_Stamp = tuple[tuple[int, int, int], ...]


class ServerTls:
    """The context for new connections; certificates that were renewed are taken up within seconds."""

    def __init__(self, url: str, settings: TlsSettings) -> None:
        """OperatorError for files that do not make a certificate and its key."""
        self._url = url
        self._settings = settings
        self._stamp = self._look()
        self._looked = time.monotonic()
        self._context = _load(url, settings)

    def context(self) -> ssl.SSLContext:
        """The context of the files as they are; of the last good ones while they are faulty."""
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = _load(self._url, self._settings)
                    log.info(event("listener.tls_renewed", url=self._url))
                except OperatorError as error:
                    log.error(event("listener.tls_not_renewed", problem=error.problem, remedy=error.remedy))
        return self._context

    def _look(self) -> _Stamp:
        found = []
        for path in _files(self._settings):
            try:
                stat = path.stat()
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)


def _files(settings: TlsSettings) -> list[Path]:
    return [path for path in (settings.certificate, settings.key, settings.client_ca) if path is not None]


def _load(url: str, settings: TlsSettings) -> ssl.SSLContext:
    problem = f"tls of {url}"
    for path in _files(settings):
        try:
            path.open("rb").close()
        except OSError as error:
            raise OperatorError(f"{problem}: {path} cannot be read", error.strerror or str(error)) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: "")
    except ssl.SSLError as error:
        key = f" and {settings.key}" if settings.key else ""
        remedy = "write a PEM certificate and its own key, which has no password"
        raise OperatorError(f"{problem}: {settings.certificate}{key}: {_said(error)}", remedy) from error
    if settings.client_ca is not None:
        try:
            context.load_verify_locations(settings.client_ca)
        except ssl.SSLError as error:
            remedy = "write the PEM certificates of the authorities"
            raise OperatorError(f"{problem}: {settings.client_ca}: {_said(error)}", remedy) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _said(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
