"""TLS whose buffers are shared by all connections: what one leaves in them must be nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import socket
import ssl
import weakref
from collections.abc import Callable
from typing import Any

from attrs import define, field
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from edgecache.wire.securing import Buffers, SecureTransport
from edgecache.wire.tls import tls_context
from edgecache.wire.turns import Turns as Handshakes
from tests.wire.test_listening import certificate


@define(eq=False)
class Turns:
    """The part of an event loop that a transport needs, turned by the test."""

    readers: dict[int, Callable[[], None]] = field(factory=dict)
    writers: dict[int, Callable[[], None]] = field(factory=dict)
    soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = field(factory=list)

    def add_reader(self, descriptor: int, call: Callable[[], None]) -> None:
        self.readers[descriptor] = call

    def add_writer(self, descriptor: int, call: Callable[[], None]) -> None:
        self.writers[descriptor] = call

    def remove_reader(self, descriptor: int) -> None:
        self.readers.pop(descriptor, None)

    def remove_writer(self, descriptor: int) -> None:
        self.writers.pop(descriptor, None)

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        self.soon.append((call, args))

    def call_later(self, seconds: float, call: Callable[..., None]) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(0.0, call, (), asyncio.new_event_loop())

    def turn(self) -> None:
        """Until nothing is left to do."""
        while True:
            soon, self.soon = self.soon, []
            for call, args in soon:
                call(*args)
            readable, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
            for descriptor in readable:
                if descriptor in self.readers:
                    self.readers[descriptor]()
            for descriptor in writable:
                if descriptor in self.writers:
                    self.writers[descriptor]()
            if not (self.soon or readable or writable):
                return


@define(eq=False)
class Keeper(asyncio.Protocol):
    """Keeps what it is told; ``on_data`` is what it does then."""

    on_data: Callable[[], None] = lambda: None
    received: list[bytes] = field(factory=list)
    transport: Any = None
    lost: bool = False
    paused: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.on_data()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@define(eq=False)
class Client:
    """The other end, which the test moves; what it has sent is there as one piece."""

    sock: socket.socket
    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO

    def flush(self) -> None:
        self.sock.sendall(self.outgoing.read())

    def shake(self) -> bool:
        self._fill()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return False
        self.flush()
        return True

    def read(self) -> bytes:
        """What is there by now."""
        self._fill()
        content = b""
        while True:
            try:
                piece = self.tls.read(1 << 16)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return content
            if not piece:
                return content
            content += piece

    def _fill(self) -> None:
        try:
            while data := self.sock.recv(1 << 16):
                self.incoming.write(data)
        except BlockingIOError:
            return


class SecuringTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = self.mktemp()
        os.makedirs(directory)
        settings = certificate(directory)
        self.context = tls_context(settings)
        self.trusting = ssl.create_default_context(cafile=settings.certificate)
        self.loop, self.buffers = Turns(), Buffers()
        self.handshakes = Handshakes(self.loop.call_soon, 2)
        self.shaken: list[bool] = []

    def accept(self, protocol: Keeper) -> socket.socket:
        """The client's end of a new connection."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
            self.addCleanup(sock.close)
        loop: Any = self.loop

        def over(transport: SecureTransport, made: bool) -> None:
            self.shaken.append(made)

        SecureTransport(loop, ours, self.context, self.buffers, protocol, 10.0, self.handshakes, over)
        return theirs

    def connect(self, protocol: Keeper) -> Client:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
        client = Client(self.accept(protocol), tls, incoming, outgoing)
        while not client.shake():
            self.loop.turn()
        self.loop.turn()
        self.empty()
        return client

    def empty(self) -> None:
        self.assertEqual((0, 0), (self.buffers.incoming.pending, self.buffers.outgoing.pending))

    def test_a_few_handshakes_are_answered_in_one_turn_and_the_others_in_the_next_ones(self) -> None:
        clients = []
        for _ in range(5):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = self.trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
            clients.append(Client(self.accept(Keeper()), tls, incoming, outgoing))
            self.assertFalse(clients[-1].shake())
        answered = []
        for _ in range(3):
            for readable in list(self.loop.readers.values()):
                readable()
            answered.append(len(select.select([client.sock for client in clients], [], [], 0)[0]))
            (again,) = self.loop.soon
            self.loop.soon.clear()
            again[0]()
        self.assertEqual([2, 4, 5], answered)
        for client in clients:
            while not client.shake():
                self.loop.turn()
        self.loop.turn()
        self.assertEqual([True] * 5, self.shaken)

    def test_nothing_stays_in_the_buffers(self) -> None:
        keeper = Keeper()
        client = self.connect(keeper)
        client.tls.write(b"one")
        half = client.outgoing.read()
        client.sock.sendall(half[:7])
        self.loop.turn()
        self.empty()
        self.assertEqual([], keeper.received)
        client.sock.sendall(half[7:])
        self.loop.turn()
        keeper.transport.writelines([b"the ", b"answer"])
        self.empty()
        self.assertEqual(([b"one"], b"the answer", [True]), (keeper.received, client.read(), self.shaken))

    def test_who_stops_reading_keeps_the_rest_for_itself(self) -> None:
        pausing, other = Keeper(), Keeper()
        first, second = self.connect(pausing), self.connect(other)
        pausing.on_data = lambda: pausing.transport.pause_reading()
        for content in (b"one", b"two", b"three"):
            first.tls.write(content)
        first.flush()
        self.loop.turn()
        self.empty()
        second.tls.write(b"else")
        second.flush()
        self.loop.turn()
        self.assertEqual(([b"one"], [b"else"]), (pausing.received, other.received))
        pausing.on_data = lambda: None
        pausing.transport.resume_reading()
        self.loop.turn()
        self.assertEqual([b"one", b"two", b"three"], pausing.received)

    def test_one_that_is_closed_while_another_reads_takes_nothing_of_it(self) -> None:
        """A shutdown looks for the peer's in the same buffer."""
        reading, closed = Keeper(), Keeper()
        first, second = self.connect(reading), self.connect(closed)
        reading.on_data = lambda: closed.transport.close()
        for content in (b"one", b"two"):
            first.tls.write(content)
        first.flush()
        self.loop.turn()
        self.assertEqual([b"one", b"two"], reading.received)
        self.assertEqual(b"", second.read())
        second.sock.close()
        self.loop.turn()
        self.assertEqual((True, False), (closed.lost, reading.lost))

    def test_a_protocol_that_fails_ends_its_connection_and_leaves_nothing_to_others(self) -> None:
        failing, other = Keeper(), Keeper()
        first, second = self.connect(failing), self.connect(other)

        def fail() -> None:
            raise ZeroDivisionError

        failing.on_data = fail
        for content in (b"one", b"two"):
            first.tls.write(content)
        first.flush()
        with self.assertRaises(ZeroDivisionError):
            self.loop.turn()
        self.empty()
        self.loop.turn()
        second.tls.write(b"else")
        second.flush()
        self.loop.turn()
        self.assertEqual((True, [b"one"]), (failing.lost, failing.received))
        self.assertEqual((False, [b"else"]), (other.lost, other.received))

    def test_what_the_socket_does_not_take_waits_and_is_right(self) -> None:
        keeper = Keeper()
        client = self.connect(keeper)
        keeper.transport.set_write_buffer_limits(32 << 10, 0)
        sent = b""
        while not keeper.paused:
            piece = os.urandom(48 << 10)
            keeper.transport.write(piece)
            sent += piece
        self.empty()
        self.assertGreater(keeper.transport.get_write_buffer_size(), 0)
        keeper.transport.close()
        got = b""
        while not keeper.lost:
            got += client.read()
            if len(got) == len(sent):
                client.sock.close()
            self.loop.turn()
        self.assertEqual(sent, got)

    def test_what_openssl_answers_by_itself_goes_to_whom_it_answers(self) -> None:
        """Between two records, to a wish for another handshake (TLS 1.2)."""
        asking, other = Keeper(), Keeper()
        second = self.connect(other)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        first = SSL.Connection(context, None)
        first.set_connect_state()
        sock = self.accept(asking)

        while self.handshaking(first):
            with contextlib.suppress(SSL.WantReadError):
                sock.sendall(first.bio_read(1 << 16))
            self.loop.turn()
            with contextlib.suppress(BlockingIOError):
                first.bio_write(sock.recv(1 << 16))
        asking.on_data = lambda: other.transport.write(b"told")
        first.send(b"one")
        first.renegotiate()
        self.handshaking(first)
        sock.sendall(first.bio_read(1 << 16))
        self.loop.turn()
        self.empty()
        self.assertEqual(([b"one"], b"told"), (asking.received, second.read()))
        self.assertEqual(21, sock.recv(1 << 16)[-31:][0], "an alert: no")

    @staticmethod
    def handshaking(connection: SSL.Connection) -> bool:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return True
        return False

    def test_what_is_closed_is_freed_at_once(self) -> None:
        """Without the collector, which comes too seldom for thousands of connections."""
        gc.disable()
        self.addCleanup(gc.enable)
        keeper = Keeper()
        client = self.connect(keeper)
        gone = weakref.ref(keeper)
        client.sock.close()
        self.loop.turn()
        self.assertTrue(keeper.lost)
        del keeper
        self.assertIsNone(gone())

    def test_octets_that_are_no_tls_end_it_and_nobody_else(self) -> None:
        keeper, other = Keeper(), Keeper()
        client, second = self.connect(keeper), self.connect(other)
        client.sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.loop.turn()
        self.empty()
        self.assertTrue(keeper.lost)
        second.tls.write(b"still")
        second.flush()
        self.loop.turn()
        self.assertEqual([b"still"], other.received)
