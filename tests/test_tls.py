"""TLS on TCP: who gets in, that nothing is lost in it, and what is said when files are wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from rig import Rig, both_loops, descriptors, eventually, listening, run

from collector.errors import OperatorError
from collector.listeners import tls as tls_module
from collector.listeners.settings import TlsSettings

pytestmark = pytest.mark.usefixtures("each_engine")


class Authority:
    """A certificate authority for one test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(directory / "ca.pem")

    def server(self, name: str = "server") -> TlsSettings:
        """A certificate for 127.0.0.1, in two files."""
        issued = self.ca.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(self.directory / f"{name}.key")
        certificate = self.directory / f"{name}.pem"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return TlsSettings(certificate=certificate, key=self.directory / f"{name}.key")

    def client(self, *, certified_by: Authority | None = None) -> ssl.SSLContext:
        """A client that trusts this authority, and has a certificate if one is to certify it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        if certified_by is not None:
            certified_by.ca.issue_cert("client.example").configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files are in the test's own directory."""
    return Authority(tmp_path)


async def send_tls(rig: Rig, context: ssl.SSLContext, *parts: bytes, pause: float = 0.0) -> None:
    """Sends the parts over one connection and closes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port(), ssl=context)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(pause)
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):  # the other side may be first
        await writer.wait_closed()


def refused(rig: Rig) -> Any:
    """Connections that were not let in, by reason."""
    return rig.listener.status()["refused_connections"]


@both_loops
def test_lines_arrive_over_tls(loop: str, authority: Authority) -> None:
    """Whole, in pieces, many, and the last one without a newline."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", tls=authority.server()) as rig:
            context = authority.client()
            await send_tls(rig, context, b"a:1|c\nb:2", b"|c\n", pause=0.01)
            await send_tls(rig, context, b"a:1|c\n" * 50_000, b"b:1|c")
            await rig.ended(2)
            assert rig.totals() == {"a": 50_001, "b": 3}
            assert refused(rig) == {}

    run(loop, main())


@both_loops
def test_only_clients_with_a_certificate_are_let_in(loop: str, authority: Authority, tmp_path: Path) -> None:
    """With client_ca: none without a certificate, none with that of another authority; each is counted."""

    async def main() -> None:
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other")
        settings = authority.server()
        settings = TlsSettings(
            certificate=settings.certificate, key=settings.key, client_ca=tmp_path / "ca.pem"
        )
        async with listening("tcp://127.0.0.1:0", tls=settings) as rig:
            await send_tls(rig, authority.client(certified_by=authority), b"a:1|c\n")
            for certified_by in (None, other):
                # In TLS 1.3 the client has its handshake behind it before it learns that it is refused.
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await send_tls(rig, authority.client(certified_by=certified_by), b"bad:1|c\n")
            await eventually(lambda: refused(rig) == {"tls": 2}, "two refusals", rig.listener.status)
            await rig.ended(3)
            assert rig.totals() == {"a": 1}

    run(loop, main())


@both_loops
def test_who_speaks_no_tls_is_refused_and_harms_nobody(
    loop: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain lines and clients that say nothing at all: counted, and their descriptors given back."""
    monkeypatch.setattr("collector.listeners.connection._HANDSHAKE", 0.5)

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", tls=authority.server()) as rig:
            context = authority.client()
            await send_tls(rig, context, b"a:1|c\n")
            await rig.ended(1)
            before = descriptors()
            silent = [socket.create_connection(("127.0.0.1", rig.port())) for _ in range(5)]
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", rig.port())) as plain:
                    plain.sendall(b"bad:1|c\n")
            await send_tls(rig, context, b"a:1|c\n")
            await eventually(lambda: refused(rig) == {"tls": 10}, "ten refusals", rig.listener.status)
            for sock in silent:
                sock.close()
            await rig.ended(12)
            await eventually(lambda: descriptors() == before, "descriptors")
            assert rig.totals() == {"a": 2}

    run(loop, main())


@both_loops
def test_a_stop_takes_what_tls_clients_have_sent(loop: str, authority: Authority) -> None:
    """What the kernel holds, encrypted, is taken before the connections are closed."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", tls=authority.server()) as rig:
            writers = []
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", rig.port(), ssl=authority.client())
                writers.append(writer)
            await eventually(lambda: rig.listener.status()["connections"] == 5, "five connections")
            for writer in writers:
                writer.write(b"a:1|c\n" * 1000 + b"b:1|c")
            await asyncio.sleep(0)  # the clients' loop is ours: their writes reach the kernel here at last
            await rig.listener.drain()
            assert rig.totals() == {"a": 5000, "b": 5}
            for writer in writers:
                writer.transport.abort()

    run(loop, main())


@both_loops
def test_a_stop_does_not_wait_for_a_silent_handshake(loop: str, authority: Authority) -> None:
    """A client that connects and says nothing delays it by seconds, not until its own time is up."""

    async def main() -> None:
        async with listening("tcp://127.0.0.1:0", tls=authority.server()) as rig:
            before = descriptors()
            with socket.create_connection(("127.0.0.1", rig.port())):
                await eventually(lambda: rig.listener.status()["connections"] == 1, "the connection")
                started = asyncio.get_running_loop().time()
                await rig.listener.drain()
                assert asyncio.get_running_loop().time() - started < 5
                assert rig.listener.status()["connections"] == 0
            # libuv opens /dev/null once, the first time that it closes a handshake
            await eventually(lambda: descriptors() <= before + 1, "descriptors")

    run(loop, main())


def test_a_renewed_certificate_is_shown_to_new_clients(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a restart, and faulty files leave the old one in use."""
    monkeypatch.setattr(tls_module, "_LOOK", 0.0)

    async def shown(rig: Rig) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port(), ssl=authority.client())
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return certificate

    async def main() -> None:
        settings = authority.server()
        async with listening("tcp://127.0.0.1:0", tls=settings) as rig:
            first = await shown(rig)
            authority.server("server")  # over the same files
            second = await shown(rig)
            assert second != first
            settings.certificate.write_text("half a file")
            assert await shown(rig) == second
            settings.certificate.unlink()
            assert await shown(rig) == second

    run("uvloop", main())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no certificate", r"server\.pem cannot be read: No such file"),
        ("no key", r"server\.key cannot be read: No such file"),
        ("no ca", r"none\.pem cannot be read: No such file"),
        ("text", r"server\.pem and .*server\.key: .+: write a PEM certificate and its own key"),
        ("key of another", r"key values mismatch: write a PEM certificate and its own key"),
        ("ca is text", r"server\.key: .+: write the PEM certificates of the authorities"),
    ],
)
def test_files_that_make_no_certificate_are_named(authority: Authority, change: str, message: str) -> None:
    """At the start, with the file and the remedy."""
    settings = authority.server()
    key, client_ca = settings.key, None
    assert key
    match change:
        case "no certificate":
            settings.certificate.unlink()
        case "no key":
            key.unlink()
        case "no ca":
            client_ca = settings.certificate.with_name("none.pem")
        case "text":
            settings.certificate.write_text("text")
        case "key of another":
            key = authority.server("another").key
        case "ca is text":
            client_ca = key
    wrong = TlsSettings(certificate=settings.certificate, key=key, client_ca=client_ca)

    async def main() -> None:
        with pytest.raises(OperatorError, match=message):
            async with listening("tcp://127.0.0.1:0", tls=wrong):
                pass

    run("uvloop", main())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_key_that_may_not_be_read_is_named(authority: Authority) -> None:
    """The usual mistake after a renewal."""
    settings = authority.server()
    assert settings.key
    settings.key.chmod(0)

    async def main() -> None:
        with pytest.raises(OperatorError, match=r"server\.key cannot be read: Permission denied"):
            async with listening("tcp://127.0.0.1:0", tls=settings):
                pass

    run("uvloop", main())
