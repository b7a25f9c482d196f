"""The same client on real sockets: TLS, resets, Unix sockets, and what only a kernel does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import ssl
import tempfile
import termios
from pathlib import Path
from typing import Any

from twisted.internet import reactor  # noqa: TID251  (tests run on the reactor itself)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from edgecache.processes.timers import LoopTimers
from edgecache.upstream.addresses import Address, parse_origin, unix_address
from edgecache.upstream.client import Client
from edgecache.upstream.dialing import LoopDialer
from edgecache.upstream.responses import Response
from edgecache.upstream.tls import client_context
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import (
    CertificateWrong,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    ContentStalled,
    HeadTimedOut,
    TLSFailed,
    UpstreamFailed,
)
from edgecache.words.messages import Outbound
from tests.characters import Character, Cut, Good, Performance, Resetting, Saying, Silent, Stalling, perform
from tests.upstream.authority import Authority
from tests.upstream.rig import GET, Holder, Taker

CONTENT = os.urandom(3_000_000)


def loop() -> asyncio.AbstractEventLoop:
    found: asyncio.AbstractEventLoop = reactor._asyncioEventloop  # type: ignore[attr-defined]  # of asyncioreactor
    return found


class RealCase(TestCase):
    """A client on the loop, and origins on loopback."""

    settings = UpstreamSettings()
    taker: type[Taker] = Taker

    def setUp(self) -> None:
        self.timers = LoopTimers(loop())
        self.client = Client(LoopDialer(loop()), self.timers, self.settings)
        self.addCleanup(self.client.close)

    async def play(self, character: Character, **how: Any) -> Performance:
        performance = await perform(loop(), character, **how)
        self.addCleanup(performance.stop)
        return performance

    async def fetch(self, address: Address, outbound: Outbound = GET, client: Client | None = None) -> Taker:
        response = await (client or self.client).ask(address, outbound)
        taker = self.taker()
        response.attach(taker)
        return await taker.over

    async def failed(self, address: Address, error: type[UpstreamFailed], client: Client | None = None) -> Any:
        try:
            taker = await self.fetch(address, client=client)
        except UpstreamFailed as failure:
            self.assertIsInstance(failure, error)
            return failure
        self.assertIsInstance(taker.failure, error)
        return taker.failure


class PlainTests(RealCase):
    """TCP and Unix sockets."""

    async def test_content_arrives_and_the_connection_is_used_again(self) -> None:
        origin = Good(content=CONTENT)
        address = (await self.play(origin)).address()
        for _ in range(3):
            self.assertEqual(CONTENT, (await self.fetch(address)).content)
        self.assertEqual(1, origin.connections)

    async def test_the_same_over_a_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            origin = Good(content=CONTENT)
            performance = await self.play(origin, path=f"{directory}/owner")
            assert performance.path is not None
            for _ in range(2):
                self.assertEqual(CONTENT, (await self.fetch(unix_address(performance.path))).content)
            self.assertEqual(1, origin.connections)
            self.client.close()

    async def test_a_unix_socket_that_nobody_listens_at_is_refused(self) -> None:
        await self.failed(unix_address("/nonexistent/owner"), ConnectFailed)

    async def test_a_port_that_nobody_listens_at_is_refused(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        failure = await self.failed(Address(parse_origin("http://origin.example"), "127.0.0.1", port), ConnectFailed)
        self.assertIn("refused", failure.detail.lower())

    async def test_a_reset_is_no_end_of_content_that_only_the_end_delimits(self) -> None:
        octets = b"HTTP/1.1 200 OK\r\n\r\nhello"
        closing = (await self.play(Saying(octets, close=True))).address()
        self.assertTrue((await self.fetch(closing)).ended)
        resetting = (await self.play(_ResettingAfter(octets))).address()
        await self.failed(resetting, ConnectionLost)

    async def test_cut_and_reset_content_is_lost(self) -> None:
        await self.failed((await self.play(Cut(content=CONTENT, after=100_000))).address(), ConnectionLost)
        await self.failed((await self.play(Resetting(content=CONTENT, after=100_000))).address(), ConnectionLost)

    async def test_what_comes_behind_a_response_is_no_answer_to_the_next_request(self) -> None:
        """The loop may not have looked at the socket yet when the connection is used again."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            address = Address(parse_origin("http://origin.example"), *server.getsockname())
            for behind in (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b""):
                answer = self.client.ask(address, GET)
                first = await self._accepted(server)
                first.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                (await answer).cancel()
                if behind:
                    first.sendall(behind)
                else:
                    first.shutdown(socket.SHUT_WR)
                again = self.client.ask(address, GET)
                second = await self._accepted(server)
                second.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood")
                taker = Taker()
                (await again).attach(taker)
                self.assertEqual(b"good", (await taker.over).content)

    async def test_an_answer_that_is_there_when_the_loop_comes_to_look_at_its_deadline_came_in_time(self) -> None:
        """All stood still, this process or the machine: no upstream is to blame for that."""
        clock = Clock()
        answer, origin = await self._asked_at(clock)
        self._sent(origin, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        clock.advance(2 * self.settings.head_seconds)
        taker = self.taker()
        (await answer).attach(taker)
        self._sent(origin, b"good")
        clock.advance(2 * self.settings.stall_seconds)
        self.assertEqual(b"good", (await taker.over).content)

    async def test_who_drips_is_waited_for_no_longer(self) -> None:
        clock = Clock()
        answer, origin = await self._asked_at(clock)
        for octets in (b"HTTP", b"/1.1 200 OK\r\n"):
            self._sent(origin, octets)
            clock.advance(self.settings.head_seconds)
        await self.assertFailure(answer, HeadTimedOut)

    async def _asked_at(self, clock: Clock) -> tuple[Deferred[Response], socket.socket]:
        """:return: of a request whose deadlines are by that clock: its answer, and the origin's side, which has it."""
        client = Client(LoopDialer(loop()), clock, self.settings)
        self.addCleanup(client.close)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            answer = client.ask(Address(parse_origin("http://origin.example"), *server.getsockname()), GET)
            return answer, await self._accepted(server)

    def _sent(self, sock: socket.socket, octets: bytes) -> None:
        """Return when the other side's kernel has them: tcp(7), ``SIOCOUTQ``."""
        sock.sendall(octets)
        while fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) != bytes(4):
            os.sched_yield()

    async def _accepted(self, server: socket.socket) -> socket.socket:
        """:return: the next connection, once a request is there; its calls block."""

        async def accepted() -> socket.socket:
            sock, _ = await loop().sock_accept(server)
            await loop().sock_recv(sock, 4096)
            return sock

        sock = await Deferred.fromFuture(loop().create_task(accepted()))
        self.addCleanup(sock.close)
        return sock

    async def test_a_paused_response_goes_on_where_it_stopped(self) -> None:
        address = (await self.play(Good(content=CONTENT))).address()
        response = await self.client.ask(address, GET)
        taker = _stuttering(self.taker, response)
        response.attach(taker)
        await taker.over
        self.assertEqual(CONTENT, taker.content)
        self.assertGreater(taker.pauses, 1)

    async def test_cancelling_closes_the_connection(self) -> None:
        origin = Silent()
        performance = await self.play(origin)
        asking = self.client.ask(performance.address(), GET)
        while not origin.asked:
            await _turn()
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
        while origin.playing:
            await _turn()

    async def test_cancelling_while_connecting_leaves_no_connection(self) -> None:
        origin = Good()
        performance = await self.play(origin)
        asking = self.client.ask(performance.address(), GET)
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
        self.assertEqual(b"good content", (await self.fetch(performance.address())).content)
        while len(origin.playing) > 1:
            await _turn()
        self.assertEqual(1, len(origin.asked))

    async def test_content_of_a_request_is_streamed_at_the_origins_pace(self) -> None:
        origin = Good()
        address = (await self.play(origin)).address()
        outbound = Outbound(b"PUT", b"/in", [], content=_Whole(CONTENT), content_length=len(CONTENT))
        self.assertTrue((await self.fetch(address, outbound)).ended)
        self.assertEqual(CONTENT, origin.asked[0].content)


class IntoMemoryTests(PlainTests):
    """The same, where the sink has memory for content."""

    taker = Holder

    async def test_octets_beyond_the_content_are_not_taken_for_another_response(self) -> None:
        octets = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%bHTTP/1.1 299 Forged\r\nContent-Length: 0\r\n\r\n"
        origin = Saying(octets % (len(CONTENT), CONTENT))
        address = (await self.play(origin)).address()
        for _ in range(2):
            self.assertEqual(CONTENT, (await self.fetch(address)).content)
        self.assertEqual(2, origin.connections)

    async def test_it_is_read_into_the_sinks_memory(self) -> None:
        address = (await self.play(Good(content=CONTENT))).address()
        response = await self.client.ask(address, GET)
        taker = _Remembering()
        response.attach(taker)
        await taker.over
        self.assertEqual(CONTENT, taker.content)
        self.assertGreater(taker.by_memory, len(CONTENT) // 2)


class ShortDeadlineTests(RealCase):
    """Deadlines on the loop's own clock."""

    settings = UpstreamSettings(connect_seconds=0.1, tls_seconds=0.1, head_seconds=0.1, stall_seconds=0.1)

    async def test_a_full_backlog_is_a_connection_that_timed_out(self) -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            port = server.getsockname()[1]
            crowd = [socket.socket() for _ in range(4)]
            for one in crowd:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
                self.addCleanup(one.close)
            address = Address(parse_origin("http://origin.example"), "127.0.0.1", port)
            await self.failed(address, ConnectTimedOut)

    async def test_silent_and_stalling_origins(self) -> None:
        await self.failed((await self.play(Silent())).address(), HeadTimedOut)
        await self.failed((await self.play(Stalling(content=CONTENT, after=5000))).address(), ContentStalled)

    async def test_a_handshake_that_nobody_answers(self) -> None:
        performance = await self.play(Silent())
        await self.failed(performance.address("https://127.0.0.1"), TLSFailed)


class TLSTests(RealCase):
    """Certificates are those of the configured name, signed by the system's CAs or the configured one."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        authority = Authority(self.directory)
        self.ca = UpstreamSettings(ca=authority.path)
        self.server = authority.server("origin.example")
        self.trusting = Client(LoopDialer(loop()), self.timers, self.ca)
        self.addCleanup(self.trusting.close)

    async def test_content_arrives_and_the_connection_is_used_again(self) -> None:
        origin = Good(content=CONTENT)
        performance = await self.play(origin, context=self.server)
        for url in ("https://origin.example", "https://127.0.0.1"):
            for _ in range(2):
                taker = await self.fetch(performance.address(url), client=self.trusting)
                self.assertEqual(CONTENT, taker.content)
        self.assertEqual(2, origin.connections)

    async def test_another_name_is_refused_before_anything_is_sent(self) -> None:
        origin = Good()
        performance = await self.play(origin, context=self.server)
        for url in ("https://other.example", "https://127.0.0.2"):
            await self.failed(performance.address(url), CertificateWrong, self.trusting)
        self.assertEqual([], origin.asked)

    async def test_another_name_is_refused_even_where_openssl_compares_none(self) -> None:
        lax = client_context(self.ca)
        lax.check_hostname = False
        client = Client(LoopDialer(loop()), self.timers, self.settings, lax)
        origin = Good()
        performance = await self.play(origin, context=self.server)
        for url in ("https://other.example", "https://127.0.0.2"):
            failure = await self.failed(performance.address(url), CertificateWrong, client)
            self.assertTrue(failure.detail.startswith("certificate is not for "), failure)
        self.assertEqual([], origin.asked)

    async def test_a_certificate_that_nobody_signed_is_refused(self) -> None:
        origin = Good()
        performance = await self.play(origin, context=self.server)
        await self.failed(performance.address("https://origin.example"), CertificateWrong)
        self.assertEqual([], origin.asked)

    async def test_an_origin_that_speaks_no_tls_is_refused(self) -> None:
        performance = await self.play(_Greeting())
        await self.failed(performance.address("https://origin.example"), TLSFailed, self.trusting)

    async def test_an_end_without_close_notify_completes_nothing(self) -> None:
        """Anyone on the path can close a TCP connection (RFC 9112 §9.8)."""
        octets = b"HTTP/1.1 200 OK\r\n\r\nhello"
        orderly = (await self.play(Saying(octets, close=True), context=self.server)).address("https://origin.example")
        self.assertTrue((await self.fetch(orderly, client=self.trusting)).ended)
        port = await _truncating(self, self.server, octets)
        address = Address(parse_origin("https://origin.example"), "127.0.0.1", port)
        await self.failed(address, ConnectionLost, self.trusting)

    async def test_a_paused_response_goes_on_where_it_stopped(self) -> None:
        performance = await self.play(Good(content=CONTENT), context=self.server)
        response = await self.trusting.ask(performance.address("https://origin.example"), GET)
        taker = _stuttering(self.taker, response)
        response.attach(taker)
        await taker.over
        self.assertEqual(CONTENT, taker.content)


class TLSIntoMemoryTests(TLSTests):
    """The same, where the sink has memory for content."""

    taker = Holder


class _Remembering(Holder):
    by_memory = 0

    def filled(self, octets: int) -> None:
        self.by_memory += octets
        super().filled(octets)


class _ResettingAfter(Saying):
    def answer(self, asked: Any, player: Any) -> None:
        player.send(self.octets)
        # The octets must be on their way before the reset throws away what is not.
        player.transport.get_extra_info("socket")
        loop().call_later(0.05, player.reset)


class _Greeting(Character):
    """Speaks first, and not TLS."""

    def player(self) -> Any:
        player = super().player()
        loop().call_later(0.01, lambda: player.send(b"220 mail.example ESMTP\r\n"))
        return player


class _Stuttering(Taker):
    """Pauses at every piece, for a turn of the loop."""

    response: Any
    pauses = 0

    def data(self, data: bytes) -> None:
        super().data(data)
        self.pauses += 1
        self.response.pause()
        loop().call_later(0.001, self.response.resume)


class _StutteringHolder(_Stuttering, Holder):
    """The same, read into its memory."""


def _stuttering(taker: type[Taker], response: Any) -> _Stuttering:
    stuttering = _StutteringHolder() if taker is Holder else _Stuttering()
    stuttering.response = response
    return stuttering


class _Whole:
    """A source that has everything."""

    failed = None

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.length: int | None = len(content)

    def read(self, position: int, limit: int) -> bytes:
        return self.content[position : position + limit]

    def ended(self, position: int) -> bool:
        return position == len(self.content)

    def attach(self, reader: object) -> None:
        pass

    def detach(self, reader: object) -> None:
        pass


def _turn() -> Deferred[None]:
    turned: Deferred[None] = Deferred()
    loop().call_later(0.001, turned.callback, None)
    return turned


async def _truncating(case: RealCase, context: ssl.SSLContext, octets: bytes) -> int:
    """A TLS server that answers ``octets``, then closes TCP without a close_notify."""

    class Server(asyncio.Protocol):
        """TLS by hand: the library would say goodbye."""

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
            self.answered = False

        def data_received(self, data: bytes) -> None:
            self.incoming.write(data)
            try:
                if self.tls.version() is None:
                    self.tls.do_handshake()
                if self.tls.read(65536) and not self.answered:
                    self.answered = True
                    self.tls.write(octets)
            except ssl.SSLWantReadError:
                pass
            self.transport.write(self.outgoing.read())
            if self.answered:
                self.transport.close()

    async def started() -> asyncio.Server:
        return await loop().create_server(Server, "127.0.0.1", 0)

    server = await Deferred.fromFuture(loop().create_task(started()))
    case.addCleanup(server.close)
    port: int = server.sockets[0].getsockname()[1]
    return port
