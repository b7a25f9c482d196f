"""On real sockets: accepting, TLS, and the ends that only a kernel can show."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import socket
import ssl
import sys
import warnings
from collections.abc import Callable
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor  # noqa: TID251 - the one that these tests run on
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from edgecache.wire.listener import Listener
from edgecache.wire.listening import BATCH, MOST_WAITING, STRANGERS, Server, client_of, start_server
from edgecache.wire.sending import HIGH_WATER
from edgecache.wire.tls import tls_context
from edgecache.words.config import LimitSettings, TLSSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import ConfigError
from tests.wire.rig import OK, Counts, Given

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
LAST = OK + b"Connection: close\r\n\r\nok"


def certificate(directory: str, name: str = "edge", password: bytes | None = None) -> TLSSettings:
    """Write a fresh self-signed certificate for ``localhost``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    settings = TLSSettings(os.path.join(directory, f"{name}.pem"), os.path.join(directory, f"{name}.key"))
    secret = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    with open(settings.certificate, "wb") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    with open(settings.key, "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    return settings


def queued(listening: socket.socket) -> int:
    """:return: connections that could be accepted: ``tcpi_unacked`` of a listener (tcp(7), <linux/tcp.h>)."""
    info = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], sys.byteorder)


def read_all(sock: socket.socket) -> bytes:
    """:return: everything up to the end of the stream; raises on a reset."""
    octets = b""
    while piece := sock.recv(65536):
        octets += piece
    return octets


class LoopTimers:
    """The loop's own clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def seconds(self) -> float:
        return self._loop.time()

    def callLater(self, delay: float, call: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, call, *args)


class Sockets(TestCase):
    """Starts listeners; asks them from a thread with blocking sockets."""

    timeout = 120

    def listen(
        self,
        route: Callable[[Any, Any], None] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        limits: LimitSettings | None = None,
        path: str | None = None,
    ) -> Listener:
        loop = reactor._asyncioEventloop  # type: ignore[attr-defined]  # asyncioreactor has no public name for it
        self.counters = Counts()
        listener = Listener(
            route or (lambda request, downstream: downstream.send(OK, b"ok")),
            limits or LimitSettings(),
            self.counters,
            LoopTimers(loop),
            loop.call_soon,
            secure=tls is not None,
            trusted=path is not None,
        )
        self.sock = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self.sock.bind(("127.0.0.1", 0) if path is None else path)
        self.sock.listen()
        self.address = self.sock.getsockname()
        listener.start()
        self.server: Server = self.successResultOf(start_server(loop, listener, self.sock, tls))
        self.addCleanup(self.gone, listener)
        return listener

    def gone(self, listener: Listener) -> Deferred[None]:
        """Every test ends without connections, timers and readers."""
        self.server.stop()
        drained = listener.drain(0)

        def stop(_: object) -> None:
            listener.stop()
            self.sock.close()
            self.assertEqual(0, listener.admitted)
            self.assertEqual(0, self.counters.get(Counter.CONNECTIONS_OPEN))

        return drained.addCallback(stop)

    def connect(self) -> socket.socket:
        """In a thread: a new client."""
        sock = socket.socket(self.sock.family)
        sock.settimeout(60)
        sock.connect(self.address)
        return sock


class PlainTests(Sockets):
    def test_requests_over_tcp(self) -> Any:
        peers = []

        def route(request: Any, downstream: Any) -> None:
            peers.append((downstream.peer, request.secure))
            downstream.send(OK, b"ok")

        self.listen(route)

        def ask() -> bytes:
            with self.connect() as sock:
                sock.sendall(GET + CLOSE)
                return read_all(sock)

        def check(answer: bytes) -> None:
            self.assertEqual(OK + b"\r\nok" + LAST, answer)
            self.assertEqual([(b"127.0.0.1", False)] * 2, peers)

        return deferToThread(ask).addCallback(check)

    def test_a_crowd_is_accepted_a_few_in_each_turn(self) -> Any:
        listener, waiting = self.crowd()
        self.server._accept()
        self.assertEqual(BATCH, listener.admitted)
        self.server._accept()
        self.assertEqual(2 * BATCH, listener.admitted)
        return deferToThread(self.ask_all, waiting)

    def test_who_waits_when_nobody_will_be_accepted_any_more_is_accepted(self) -> Any:
        listener, waiting = self.crowd()
        self.server.finish()
        self.assertEqual(len(waiting), listener.admitted)
        return deferToThread(self.ask_all, waiting)

    def test_who_comes_meanwhile_keeps_nobody_from_ending(self) -> None:
        listener = self.listen()
        came = []

        def one_more() -> bool:
            if len(came) < 2 * MOST_WAITING:
                came.append(True)
                self.connect().close()
            return False

        self.patch(Listener, "admit", lambda *_: one_more())
        one_more()
        self.server.finish()
        self.assertLessEqual(len(came), MOST_WAITING + 2 * BATCH)
        self.assertEqual(0, listener.admitted)

    def crowd(self) -> tuple[Listener, list[socket.socket]]:
        """Connections that wait in the kernel, more than are accepted at once."""
        listener = self.listen()
        waiting = [self.connect() for _ in range(3 * BATCH)]
        # A client is connected a moment before the kernel has a connection for us.
        while queued(self.sock) < len(waiting):
            os.sched_yield()
        return listener, waiting

    def ask_all(self, waiting: list[socket.socket]) -> None:
        for sock in waiting:
            with sock:
                sock.sendall(CLOSE)
                self.assertEqual(LAST, read_all(sock))

    def test_requests_over_a_unix_socket_keep_their_internal_fields(self) -> Any:
        seen: list[Any] = []

        def route(request: Any, downstream: Any) -> None:
            seen.extend(request.fields)
            downstream.send(OK, b"ok")

        self.listen(route, path=os.path.join(self.mktemp_directory(), "s"))

        def ask() -> bytes:
            with self.connect() as sock:
                sock.sendall(CLOSE[:-2] + b"Edgecache-Epoch: 7\r\n\r\n")
                return read_all(sock)

        def check(answer: bytes) -> None:
            self.assertEqual(LAST, answer)
            self.assertIn((b"edgecache-epoch", b"7"), seen)

        return deferToThread(ask).addCallback(check)

    def mktemp_directory(self) -> str:
        path = os.path.relpath(self.mktemp())  # a Unix socket's path must be short
        os.makedirs(path)
        return path

    def test_a_client_may_end_its_side_and_still_be_answered(self) -> Any:
        waiting: list[Any] = []
        self.listen(lambda request, downstream: waiting.append(downstream))

        def ask() -> bytes:
            with self.connect() as sock:
                sock.sendall(GET)
                sock.shutdown(socket.SHUT_WR)
                reactor.callFromThread(answer)  # type: ignore[attr-defined]
                return read_all(sock)

        def answer() -> None:
            if waiting:
                waiting[0].send(OK, b"ok")
            else:
                reactor.callLater(0.01, answer)  # type: ignore[attr-defined]

        return deferToThread(ask).addCallback(self.assertEqual, OK + b"\r\nok")

    def test_an_error_answer_reaches_a_client_that_is_still_sending(self) -> Any:
        """Without lingering, the kernel's reset would destroy it."""
        self.listen()

        def ask() -> bytes:
            with self.connect() as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a b\r\nContent-Length: 300000\r\n\r\n")
                for _ in range(300):
                    sock.sendall(bytes(1000))
                return read_all(sock)

        return deferToThread(ask).addCallback(
            lambda answer: self.assertTrue(answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"\n"))
        )

    def broken(self, request: bytes) -> Any:
        """A response of unknown length whose source fails after five octets."""
        source = Given(None, b"hello")
        self.listen(lambda request, downstream: downstream.send_from(b"HTTP/1.1 200 OK\r\n", source, 0, None))

        def ask() -> tuple[bytes, bool]:
            with self.connect() as sock:
                sock.sendall(request)
                octets = b""
                while b"hello" not in octets:
                    octets += sock.recv(65536)
                reactor.callFromThread(source.give, failed=RuntimeError())  # type: ignore[attr-defined]
                try:
                    return octets + read_all(sock), False
                except ConnectionResetError:
                    return octets, True

        return deferToThread(ask)

    def test_a_cut_response_without_framing_is_a_reset(self) -> Any:
        """An end of stream would look like the end of the content."""
        return self.broken(b"GET / HTTP/1.0\r\n\r\n").addCallback(lambda result: self.assertTrue(result[1]))

    def test_a_cut_chunked_response_has_no_last_chunk(self) -> Any:
        return self.broken(GET).addCallback(lambda result: self.assertTrue(result[0].endswith(b"\r\n5\r\nhello\r\n")))

    def test_a_client_over_the_cap_is_told_so(self) -> Any:
        listener = self.listen(limits=evolve(LimitSettings(), connections_per_client=1))

        def ask() -> bytes:
            with self.connect() as first, self.connect() as second:
                answer = read_all(second)
                first.sendall(CLOSE)
                read_all(first)
            return answer

        def check(answer: bytes) -> None:
            self.assertTrue(answer.startswith(b"HTTP/1.1 503 "))
            self.assertLessEqual(listener.admitted, 1)

        return deferToThread(ask).addCallback(check)

    def test_a_closed_server_leaves_connections_and_the_socket_alone(self) -> Any:
        self.listen()

        def ask() -> bytes:
            with self.connect() as sock:
                sock.sendall(GET)
                first = sock.recv(65536)
                reactor.callFromThread(self.server.close)  # type: ignore[attr-defined]
                sock.sendall(CLOSE)
                return first + read_all(sock)

        def check(answer: bytes) -> None:
            self.assertEqual(OK + b"\r\nok" + LAST, answer)
            self.assertGreaterEqual(self.sock.fileno(), 0)

        return deferToThread(ask).addCallback(check)


class LargeTests(Sockets):
    """Octets exact, and little of them in memory, though the client is slower than the source."""

    SIZE = 24 << 20

    def stream(
        self, tls: ssl.SSLContext | None, wrap: Callable[[socket.socket], socket.socket], direct: bool = False
    ) -> Any:
        source = Given(self.SIZE, os.urandom(self.SIZE), complete=True)
        buffered = []

        class Watching(Given):
            def read(self, position: int, limit: int) -> bytes:
                buffered.append(downstreams[0]._transport.get_write_buffer_size())
                return source.read(position, limit)

        class Direct(Watching):
            written = 0

            def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
                try:
                    octets = os.writev(descriptor, [before, source.read(position, min(limit, 200_000))])
                except BlockingIOError:
                    return 0
                Direct.written += octets
                return octets

        downstreams: list[Any] = []

        def route(request: Any, downstream: Any) -> None:
            downstreams.append(downstream)
            begin = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % self.SIZE
            downstream.send_from(begin, (Direct if direct else Watching)(self.SIZE), 0, self.SIZE)

        self.listen(route, tls=tls)

        def ask() -> bytes:
            with wrap(self.connect()) as sock:
                sock.sendall(CLOSE)
                digest, received = hashlib.sha256(), b""
                while b"\r\n\r\n" not in received:
                    received += sock.recv(1)
                count = 0
                while count < self.SIZE:
                    piece = sock.recv(300_000)
                    if not piece:
                        break
                    digest.update(piece)
                    count += len(piece)
                return digest.digest()

        def check(digest: bytes) -> None:
            self.assertEqual(hashlib.sha256(source.octets).digest(), digest)
            self.assertLessEqual(max(buffered), HIGH_WATER if tls is None else 0)
            self.assertEqual(direct, Direct.written > 0)

        return deferToThread(ask).addCallback(check)

    def test_plain(self) -> Any:
        return self.stream(None, lambda sock: sock)

    def test_plain_past_the_transport(self) -> Any:
        return self.stream(None, lambda sock: sock, direct=True)

    def test_tls(self) -> Any:
        directory = self.mktemp()
        os.makedirs(directory)
        settings = certificate(directory)
        client = ssl.create_default_context(cafile=settings.certificate)
        return self.stream(tls_context(settings), lambda sock: client.wrap_socket(sock, server_hostname="localhost"))


class TLSTests(Sockets):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.settings = certificate(self.directory)
        self.client = ssl.create_default_context(cafile=self.settings.certificate)
        self.client.set_alpn_protocols(["h2", "http/1.1"])

    def test_a_request(self) -> Any:
        seen: list[Any] = []

        def route(request: Any, downstream: Any) -> None:
            seen.append((request.secure, downstream.peer))
            downstream.send(OK, b"ok")

        self.listen(route, tls=tls_context(self.settings))

        def ask() -> Any:
            with self.client.wrap_socket(self.connect(), server_hostname="localhost") as sock:
                sock.sendall(GET + CLOSE)
                return sock.version(), sock.selected_alpn_protocol(), read_all(sock)

        def check(result: Any) -> None:
            self.assertEqual(("TLSv1.3", "http/1.1", OK + b"\r\nok" + LAST), result)
            self.assertEqual([(True, b"127.0.0.1")] * 2, seen)

        return deferToThread(ask).addCallback(check)

    def test_nothing_waits_for_the_clients_acknowledgement(self) -> Any:
        """With or without TLS: a kernel delays it by 40 ms where it has nothing else to send."""
        at_once: list[int] = []

        def route(request: Any, downstream: Any) -> None:
            sock = downstream._transport.get_extra_info("socket")
            at_once.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            downstream.send(OK, b"ok")

        self.listen(route, tls=tls_context(self.settings))

        def ask() -> None:
            with self.client.wrap_socket(self.connect(), server_hostname="localhost") as sock:
                sock.sendall(GET + CLOSE)
                read_all(sock)

        return deferToThread(ask).addCallback(lambda _: self.assertEqual([1, 1], at_once))

    def test_tls_1_1_is_too_old(self) -> Any:
        self.listen(tls=tls_context(self.settings))
        self.client.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            self.client.minimum_version = self.client.maximum_version = ssl.TLSVersion.TLSv1_1

        def ask() -> bool:
            try:
                self.client.wrap_socket(self.connect(), server_hostname="localhost").close()
            except ssl.SSLError:
                return True
            return False

        return deferToThread(ask).addCallback(self.assertTrue)

    def test_a_client_that_speaks_no_tls_is_let_go(self) -> Any:
        listener = self.listen(tls=tls_context(self.settings))

        def ask() -> bytes:
            with self.connect() as sock:
                sock.sendall(GET)
                with contextlib.suppress(ConnectionResetError):
                    return read_all(sock)
                return b""

        def check(answer: bytes) -> None:
            self.assertNotIn(b"200", answer)
            self.assertEqual(0, listener.admitted)

        return deferToThread(ask).addCallback(check)

    def test_a_silent_client_is_cut_in_its_handshake(self) -> Any:
        listener = self.listen(
            tls=tls_context(self.settings), limits=evolve(LimitSettings(), tls_handshake_seconds=0.2)
        )

        def ask() -> bytes:
            with self.connect() as sock:
                return read_all(sock)

        def check(answer: bytes) -> None:
            self.assertEqual((b"", 0), (answer, listener.admitted))

        return deferToThread(ask).addCallback(check)

    def test_of_many_handshakes_where_only_siblings_are_let_in_the_oldest_goes(self) -> Any:
        listener = self.listen(tls=tls_context(self.settings))
        listener.trusted = True

        def ask() -> bytes:
            with contextlib.ExitStack() as stack:
                first, *rest = [stack.enter_context(self.connect()) for _ in range(STRANGERS + 1)]
                answer = read_all(first)
                rest[0].setblocking(False)
                self.assertRaises(BlockingIOError, rest[0].recv, 1)
                return answer

        def check(answer: bytes) -> None:
            self.assertEqual(b"", answer)
            self.server.stop()

        return deferToThread(ask).addCallback(check)


class ContextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.settings = certificate(self.directory)

    def problem(self, settings: TLSSettings) -> str:
        return str(self.assertRaises(ConfigError, tls_context, settings))

    def test_a_file_that_is_not_there_is_named(self) -> None:
        for key in ("certificate", "key"):
            problem = self.problem(evolve(self.settings, **{key: "/nowhere/x"}))
            self.assertIn(key, problem)
            self.assertIn("/nowhere/x: No such file", problem)

    def test_a_key_of_another_certificate(self) -> None:
        other = certificate(self.directory, "other")
        self.assertIn("MISMATCH", self.problem(evolve(self.settings, key=other.key)))

    def test_an_encrypted_key_does_not_make_anybody_type(self) -> None:
        self.assertIn(self.directory, self.problem(certificate(self.directory, "secret", b"secret")))

    def test_what_is_no_certificate(self) -> None:
        self.assertIn("certificate", self.problem(evolve(self.settings, certificate=self.settings.key)))


class ClientTests(SynchronousTestCase):
    def test_what_counts_as_one_client(self) -> None:
        for address, expected in (
            (("192.0.2.1", 80), (b"192.0.2.1", b"192.0.2.1")),
            (("::ffff:192.0.2.1", 80, 0, 0), (b"192.0.2.1", b"192.0.2.1")),
            (("2001:db8::1", 80, 0, 0), (b"2001:db8::1", b"\x20\x01\x0d\xb8\0\0\0\0")),
            (("2001:db8::ffff:1", 80, 0, 0), (b"2001:db8::ffff:1", b"\x20\x01\x0d\xb8\0\0\0\0")),
            (("fe80::1%eth0", 80, 0, 2), (b"fe80::1", b"\xfe\x80\0\0\0\0\0\0")),
            ("", (b"", b"")),
            (b"\0abstract", (b"", b"")),
        ):
            self.assertEqual(expected, client_of(address))
