"""Certificates towards origins, on real sockets: wrong ones by their name, and ours where an origin asks for it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.preparing import check
from edgecache.upstream.addresses import Address, parse_origin
from edgecache.upstream.client import Client
from edgecache.upstream.dialing import LoopDialer
from edgecache.upstream.tls import client_context
from edgecache.words.config import Config, NodeSettings, UpstreamSettings
from edgecache.words.errors import CertificateWrong, ConfigError, TLSFailed
from edgecache.words.messages import Outbound
from edgecache.words.reasons import Outcome
from tests.characters import Good
from tests.upstream.authority import Authority, key_pem
from tests.upstream.test_real import RealCase, loop

URL = "https://origin.example"
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class CertificateCase(RealCase):
    """Two authorities: one that we trust, and one that nobody does."""

    def setUp(self) -> None:
        super().setUp()
        directory = Path(self.mktemp())
        directory.mkdir()
        self.ours = Authority(directory)
        self.foreign = Authority(directory, "foreign")

    def asking(self, shown: tuple[str, str] | None = None, **settings: Any) -> Client:
        """A client that trusts our authority; ``shown`` are its certificate and key."""
        if shown is not None:
            settings |= {"client_certificate": shown[0], "client_key": shown[1]}
        # No deadline is meant to be met here, however busy the machine is.
        patient = UpstreamSettings(ca=self.ours.path, connect_seconds=60.0, tls_seconds=60.0, **settings)
        client = Client(LoopDialer(loop()), self.timers, patient)
        self.addCleanup(client.close)
        return client


class WrongCertificateTests(CertificateCase):
    """A wrong certificate is a failure of its own, and nothing is sent to who shows it (RFC 9110 §4.3.4)."""

    async def wrong(self, context: ssl.SSLContext, why: str, url: str = URL) -> None:
        origin, lines = Good(), list[str]()

        def observer(event: LogEvent) -> None:
            lines.append(eventAsText(event, includeTimestamp=False, includeSystem=False))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        performance = await self.play(origin, context=context)
        address, client = performance.address(url), self.asking()
        for _ in range(2):
            failure = await self.failed(address, CertificateWrong, client)
        self.assertEqual([f"upstream {address.name}: TLS failed: {failure.detail}"], lines)
        self.assertIn(why, failure.detail)
        self.assertNotIn("\n", failure.detail)
        self.assertEqual([], origin.asked)
        expected = ("tls_certificate_error", Outcome.CERTIFICATE_WRONG, False)
        self.assertEqual(expected, (failure.proxy_error, failure.outcome, failure.sent))

    async def test_expired(self) -> None:
        await self.wrong(self.ours.server("origin.example", expired=True), "expired")

    async def test_not_valid_yet(self) -> None:
        await self.wrong(self.ours.server("origin.example", early=True), "not yet valid")

    async def test_of_an_authority_that_is_not_trusted(self) -> None:
        await self.wrong(self.foreign.server("origin.example"), "issuer")

    async def test_of_another_name(self) -> None:
        await self.wrong(self.ours.server("other.example"), "origin.example")

    async def test_of_another_address(self) -> None:
        await self.wrong(self.ours.server("origin.example"), "127.0.0.2", "https://127.0.0.2")

    async def test_a_handshake_that_fails_otherwise_is_none(self) -> None:
        # Neither of these has authenticated encryption (RFC 9325 §4.2).
        for cipher in ("ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256"):
            old = self.ours.server("origin.example")
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            old.set_ciphers(cipher)
            address = (await self.play(Good(), context=old)).address(URL)
            failure = await self.failed(address, TLSFailed, self.asking())
            self.assertNotIsInstance(failure, CertificateWrong)
            asking = self.asking(ciphers=f"ECDHE+AESGCM:{cipher}")
            self.assertEqual(b"good content", (await self.fetch(address, client=asking)).content)

    async def test_where_no_cipher_is_in_common_the_setting_is_named(self) -> None:
        old = self.ours.server("origin.example")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        with socket.create_server(("127.0.0.1", 0)) as server:
            refusing = deferToThread(_refuse, server, old)
            address = Address(parse_origin(URL), "127.0.0.1", server.getsockname()[1])
            failure = await self.failed(address, TLSFailed, self.asking())
            await refusing
        self.assertIn("[upstream] ciphers", failure.detail)

    async def test_an_origin_of_an_older_tls(self) -> None:
        old = self.ours.server("origin.example")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        address = (await self.play(Good(), context=old)).address(URL)
        await self.failed(address, TLSFailed, self.asking())

    async def test_settings_that_cannot_be_read_any_more_fail_one_request_not_the_worker(self) -> None:
        client = self.asking(self.ours.issue("node.example"))
        os.remove(self.ours.path)
        origin = Good()
        performance = await self.play(origin, context=self.ours.server("origin.example"))
        failure = await self.failed(performance.address(URL), TLSFailed, client)
        self.assertIn("[upstream] ca", failure.detail)
        plain = await self.play(origin)
        self.assertEqual(b"good content", (await self.fetch(plain.address(), client=client)).content)


def _refuse(server: socket.socket, context: ssl.SSLContext) -> None:
    """A handshake that fails with an alert, and an end in order: asyncio would reset it, and the alert be lost."""
    plain, _ = server.accept()
    with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as secured:
        try:
            secured.do_handshake()
        except ssl.SSLError:
            secured.shutdown(socket.SHUT_WR)
            secured.recv(1)


class ClientCertificateTests(CertificateCase):
    """An origin that knows its clients by their certificates."""

    async def origin(self, version: ssl.TLSVersion) -> tuple[list[bytes], Address]:
        """:return: the requests that it reads, and where it is."""
        context = self.ours.server("origin.example", clients=self.ours)
        context.maximum_version = version
        asked: list[bytes] = []

        async def started() -> asyncio.Server:
            return await loop().create_server(lambda: _Demanding(context, asked), "127.0.0.1", 0)

        server = await Deferred.fromFuture(loop().create_task(started()))
        self.addCleanup(server.close)
        return asked, Address(parse_origin(URL), "127.0.0.1", server.sockets[0].getsockname()[1])

    async def test_given(self) -> None:
        shown = self.ours.issue("node.example")
        for version in VERSIONS:
            asked, address = await self.origin(version)
            taker = await self.fetch(address, client=self.asking(shown))
            self.assertEqual((b"ok", 1), (taker.content, len(asked)), version)

    async def test_given_with_its_key_in_the_same_file(self) -> None:
        certificate, key = (Path(path) for path in self.ours.issue("node.example"))
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
        _, address = await self.origin(ssl.TLSVersion.TLSv1_3)
        taker = await self.fetch(address, client=self.asking(client_certificate=str(certificate)))
        self.assertEqual(b"ok", taker.content)

    async def test_not_given(self) -> None:
        for version in VERSIONS:
            asked, address = await self.origin(version)
            failure = await self.failed(address, TLSFailed, self.asking())
            self.assertIn("alert", failure.detail, version)
            self.assertEqual((False, []), (failure.sent, asked), version)

    async def test_one_that_the_origin_does_not_trust_or_that_expired(self) -> None:
        for version in VERSIONS:
            for shown, why in (
                (self.foreign.issue("node.example"), "unknown ca"),
                (self.ours.issue("node.example", expired=True), "expired"),
            ):
                asked, address = await self.origin(version)
                failure = await self.failed(address, TLSFailed, self.asking(shown))
                self.assertIn(why, failure.detail, version)
                self.assertEqual((False, []), (failure.sent, asked), version)

    async def test_a_request_that_may_not_be_repeated_was_not_sent_either(self) -> None:
        _, address = await self.origin(ssl.TLSVersion.TLSv1_3)
        asking = self.asking().ask(address, Outbound(b"POST", b"/", []))
        self.assertFalse((await self.assertFailure(asking, TLSFailed)).sent)

    async def test_an_origin_that_asks_for_none_is_not_told(self) -> None:
        performance = await self.play(Good(), context=self.ours.server("origin.example"))
        client = self.asking(self.ours.issue("node.example"))
        self.assertEqual(b"good content", (await self.fetch(performance.address(URL), client=client)).content)


class FileTests(SynchronousTestCase):
    """Files are read at start, and by ``--check``; what cannot be used is named with its setting."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.authority = Authority(self.directory)
        self.certificate, self.key = self.authority.issue("node.example")
        self.empty = str(self.directory / "empty")
        Path(self.empty).touch()

    def refused(self, **settings: str) -> str:
        upstream = UpstreamSettings(**settings)
        config = Config(NodeSettings("n"), (), upstream=upstream)
        expected = str(self.assertRaises(ConfigError, client_context, upstream))
        self.assertEqual(expected, str(self.assertRaises(ConfigError, check, config)))
        self.assertNotIn("\n", expected)
        return expected

    def test_good_ones_are_used(self) -> None:
        upstream = UpstreamSettings(ca=self.authority.path, client_certificate=self.certificate, client_key=self.key)
        check(Config(NodeSettings("n"), (), upstream=upstream))

    def test_a_file_that_cannot_be_read(self) -> None:
        for path in ("/nonexistent/file.pem", str(self.directory)):
            for settings in (
                {"ca": path},
                {"client_certificate": path},
                {"client_certificate": self.certificate, "client_key": path},
            ):
                refused = self.refused(**settings)
                self.assertTrue(refused.startswith(f"[upstream] {list(settings)[-1]}: {path}: "), refused)

    def test_ciphers_that_there_are_not(self) -> None:
        self.assertEqual("[upstream] ciphers: OpenSSL has none of these: ROT13", self.refused(ciphers="ROT13"))

    def test_a_file_without_a_certificate(self) -> None:
        self.assertTrue(self.refused(ca=self.empty).startswith(f"[upstream] ca: {self.empty}: "))
        self.assertIn("[upstream] client_certificate", self.refused(client_certificate=self.empty))

    def test_a_certificate_without_its_key(self) -> None:
        self.assertIn("[upstream] client_certificate: ", self.refused(client_certificate=self.certificate))

    def test_a_key_of_another_certificate(self) -> None:
        _, other = self.authority.issue("other.example")
        refused = self.refused(client_certificate=self.certificate, client_key=other)
        self.assertIn(f"{self.certificate}, {other}: KEY_VALUES_MISMATCH", refused)

    def test_a_key_with_a_password_is_refused_not_asked_for(self) -> None:
        key = load_pem_private_key(Path(self.key).read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        Path(self.key).write_bytes(key_pem(key, b"hush"))
        self.assertIn("[upstream]", self.refused(client_certificate=self.certificate, client_key=self.key))


class _Demanding(asyncio.Protocol):
    """TLS by hand: whatever it refuses, it says so before it closes, as servers do and the loop's own TLS does not."""

    def __init__(self, context: ssl.SSLContext, asked: list[bytes]) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.asked = asked
        self.shaken = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.incoming.write(data)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            self.asked.append(self.tls.read(65536))
            self.tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.transport.write(self.outgoing.read())
            self.transport.close()
        self.transport.write(self.outgoing.read())
