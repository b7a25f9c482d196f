"""Content from a source: framing, back-pressure, turns, and ends that the client can tell apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.wire.sending import HIGH_WATER, PIECE, TURN
from edgecache.words.counters import Counter
from tests.wire.rig import Client, Given, Rig, Waking

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
KNOWN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n"
UNKNOWN = b"HTTP/1.1 200 OK\r\n"


def stream(rig: Rig, source: Given, start: int = 0, stop: int | None = None) -> Callable[[Any, Any], None]:
    """A route that streams ``source`` once, and answers ``ok`` after that."""

    def route(request: Any, downstream: Any) -> None:
        rig.route = None
        begin = UNKNOWN if stop is None else KNOWN % (stop - start)
        downstream.send_from(begin, source, start, stop)

    return route


class FramingTests(SynchronousTestCase):
    def ask(self, source: Given, stop: int | None = None, start: int = 0, request: bytes = GET) -> tuple[Rig, Client]:
        rig = Rig()
        rig.route = stream(rig, source, start, stop)
        return rig, rig.say(request)

    def test_a_known_length_as_it_comes(self) -> None:
        source = Given(10)
        rig, client = self.ask(source, 10)
        self.assertEqual(KNOWN % 10 + b"\r\n", client.received)
        source.give(b"hello")
        rig.network.settle()
        self.assertTrue(client.received.endswith(b"hello"))
        source.give(b"world", complete=True)
        rig.say(NEXT, client)
        self.assertEqual(KNOWN % 10 + b"\r\nhelloworld" + KNOWN % 2 + b"\r\nok", client.received)
        self.assertEqual([], source.readers)

    def test_a_part_ends_before_its_source_does(self) -> None:
        source = Given(None, b"0123456789")
        _, client = self.ask(source, stop=5, start=2)
        self.assertEqual(KNOWN % 3 + b"\r\n234", client.received)
        self.assertEqual([], source.readers)

    def test_an_empty_part(self) -> None:
        _, client = self.ask(Given(0), 0)
        self.assertEqual(KNOWN % 0 + b"\r\n", client.received)

    def test_an_unknown_length_is_chunked(self) -> None:
        source = Given(None, b"hello")
        rig, client = self.ask(source)
        source.give(b"w" * 16)
        source.give(complete=True)
        rig.say(NEXT, client)
        self.assertEqual(
            UNKNOWN
            + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n"
            + b"w" * 16
            + b"\r\n0\r\n\r\n"
            + KNOWN % 2
            + b"\r\nok",
            client.received,
        )

    def test_an_unknown_length_that_is_nothing(self) -> None:
        _, client = self.ask(Given(None, b"", complete=True))
        self.assertEqual(UNKNOWN + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", client.received)

    def test_an_unknown_length_to_http_1_0_ends_with_the_connection(self) -> None:
        for request in (GET_1_0, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"):
            source = Given(None, b"hello")
            rig, client = self.ask(source, request=request)
            self.assertFalse(client.ended)
            source.give(complete=True)
            rig.network.settle()
            self.assertEqual(UNKNOWN + b"Connection: close\r\n\r\nhello", client.received)
            self.assertTrue(client.ended)

    def test_head_and_first_piece_are_one_write(self) -> None:
        rig = Rig()
        rig.route = stream(rig, Given(5, b"hello", complete=True), 0, 5)
        rig.connect()
        rig.link.b.protocol.data_received(GET)
        self.assertEqual(KNOWN % 5 + b"\r\nhello", bytes(rig.link.b.outbox))

    @settings(max_examples=60)
    @given(st.lists(st.binary(min_size=1, max_size=9), max_size=8), st.booleans(), st.integers(1, 40))
    def test_what_was_given_is_what_arrives(self, gifts: list[bytes], known: bool, quantum: int) -> None:
        content = b"".join(gifts)
        source = Given(len(content) if known else None)
        rig = Rig()
        rig.route = stream(rig, source, 0, len(content) if known else None)
        client = rig.connect()
        client.transport.write(GET + NEXT)
        for gift in gifts:
            source.give(gift)
            rig.network.settle(quantum)
        source.give(complete=True)
        rig.network.settle(quantum)
        rig.turns()
        if known:
            expected = KNOWN % len(content) + b"\r\n" + content
        else:
            body = client.received.split(b"\r\n\r\n", 1)[1]
            got = b""
            while not body.startswith(b"0\r\n\r\n"):
                size, body = body.split(b"\r\n", 1)
                got, body = got + body[: int(size, 16)], body[int(size, 16) + 2 :]
            self.assertEqual(content, got)
            expected = b""
        self.assertTrue(client.received.startswith(expected))
        self.assertTrue(client.received.endswith(KNOWN % 2 + b"\r\nok"))


class BrokenSourceTests(SynchronousTestCase):
    def broken(self, request: bytes, stop: int | None, *, short: bool = False) -> tuple[Rig, Client, Given]:
        source = Given(stop, b"hello")
        rig = Rig()
        rig.route = stream(rig, source, 0, stop)
        client = rig.say(request)
        if short:
            source.give(complete=True)
        else:
            source.give(failed=RuntimeError())
        rig.network.settle()
        self.assertEqual([], source.readers)
        self.assertEqual(1, rig.counters.get(Counter.CUT))
        self.assertTrue(client.lost)
        return rig, client, source

    def test_the_connection_ends_before_the_content_does(self) -> None:
        for short in (False, True):
            _, client, _ = self.broken(GET, 10, short=short)
            self.assertEqual(KNOWN % 10 + b"\r\nhello", client.received)

    def test_a_chunked_response_has_no_last_chunk(self) -> None:
        _, client, _ = self.broken(GET, None)
        self.assertTrue(client.received.endswith(b"5\r\nhello\r\n"))

    def test_before_the_first_octet_as_well(self) -> None:
        rig = Rig()
        rig.route = stream(rig, Given(10, failed=RuntimeError()), 0, 10)
        client = rig.say(GET)
        self.assertEqual(KNOWN % 10 + b"\r\n", client.received)
        self.assertTrue(client.lost)

    def test_a_read_that_fails_for_want_of_memory_ends_it_as_well(self) -> None:
        class Starved(Given):
            def read(self, position: int, limit: int) -> bytes:
                if position:
                    raise MemoryError
                return super().read(position, limit)

        rig, source = Rig(), Starved(10, b"hello")
        rig.route = stream(rig, source, 0, 10)
        client = rig.say(GET)
        source.give(b"world", complete=True)
        rig.network.settle()
        self.assertTrue(client.lost)
        self.assertEqual([], source.readers)
        self.assertTrue(self.flushLoggedErrors(MemoryError))

    def test_whoever_asked_to_know_is_woken(self) -> None:
        rig, waking, source = Rig(), Waking(), Given(10)

        def route(request: Any, downstream: Any) -> None:
            downstream.on_gone(waking)
            downstream.send_from(KNOWN % 10, source, 0, 10)

        rig.route = route
        rig.say(GET)
        source.give(failed=RuntimeError())
        self.assertEqual(1, waking.count)


class SecureTests(SynchronousTestCase):
    """Over TLS, large content goes out piece by piece too: OpenSSL would keep room for all of it."""

    def test_large_pieces_at_once_are_written_as_the_client_reads(self) -> None:
        content = [bytes([n]) * 60_000 for n in range(5)]
        rig = Rig(secure=True)
        rig.route = lambda request, downstream: downstream.send_pieces(KNOWN % 300_000, content)
        client = rig.connect()
        rig.link.b.stalled = True
        rig.say(GET, client)
        self.assertLessEqual(len(rig.link.b.outbox), len(KNOWN % 300_000 + b"\r\n") + PIECE)
        rig.link.b.stalled = False
        rig.network.settle()
        self.assertEqual(KNOWN % 300_000 + b"\r\n" + b"".join(content), client.received)


class LostTests(SynchronousTestCase):
    def test_nothing_more_is_read_for_a_connection_that_is_lost_but_not_told_yet(self) -> None:
        rig = Rig()

        class Breaking(Given):
            def read(self, position: int, limit: int) -> bytes:
                rig.link.b.abort()  # as a transport does when a write shows a broken pipe
                return super().read(position, limit)

        source = Breaking(1 << 20, bytes(1 << 20), complete=True)
        rig.route = stream(rig, source, 0, 1 << 20)
        rig.say(GET)
        rig.network.advance(1)
        self.assertEqual((1, []), (source.reads, source.readers))


class BackPressureTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = Rig()
        self.source = Given(2 * TURN, bytes(2 * TURN), complete=True)
        self.rig.route = stream(self.rig, self.source, 0, 2 * TURN)

    def test_a_client_that_does_not_read_holds_96_kib_at_most(self) -> None:
        client = self.rig.connect()
        self.rig.link.b.stalled = True
        self.rig.say(GET, client)
        self.assertLessEqual(len(self.rig.link.b.outbox), HIGH_WATER + PIECE)
        reads = self.source.reads
        self.source.give(complete=True)
        self.assertEqual(reads, self.source.reads)
        self.rig.link.b.stalled = False
        self.rig.network.settle()
        self.rig.turns()
        self.assertEqual(2 * TURN, len(client.received.split(b"\r\n\r\n", 1)[1]))

    def test_a_client_that_reads_everything_at_once_takes_turns_with_others(self) -> None:
        client = self.rig.connect()
        transport = self.rig.link.b
        transport.set_write_buffer_limits(1 << 30)
        transport.protocol.data_received(GET)
        self.rig.network.settle()
        self.assertEqual(TURN // PIECE, self.source.reads)
        self.rig.network.advance(0)
        self.assertEqual(2 * TURN, len(client.received.split(b"\r\n\r\n", 1)[1]))

    def test_a_client_that_leaves_lets_go_of_the_source(self) -> None:
        client = self.rig.connect()
        self.rig.link.b.stalled = True
        self.rig.say(GET, client)
        self.assertEqual(1, len(self.source.readers))
        self.rig.link.cut(ConnectionResetError())
        self.assertEqual([], self.source.readers)
        reads = self.source.reads
        self.rig.network.advance(10)
        self.assertEqual(reads, self.source.reads)

    def test_a_source_may_wake_while_it_is_read(self) -> None:
        class Eager(Given):
            def read(self, position: int, limit: int) -> bytes:
                for reader in list(self.readers):
                    reader.wake()
                return super().read(position, limit)

        rig = Rig()
        source = Eager(5, b"hello", complete=True)
        rig.route = stream(rig, source, 0, 5)
        self.assertEqual(KNOWN % 5 + b"\r\nhello", rig.say(GET).received)
