"""One exchange: deadlines by phase, back-pressure, request content, who may cancel what (DESIGN 8, FIELD 1)."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.upstream.addresses import Address, parse_origin, unix_address
from edgecache.upstream.client import Client
from edgecache.upstream.connection import Connection
from edgecache.upstream.pool import Pool
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import (
    ClientGone,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    ContentStalled,
    HeadTimedOut,
    TLSFailed,
    UpstreamBusy,
)
from edgecache.words.messages import Outbound
from edgecache.words.ports import Reader
from tests.characters import Cut, Dripping, Good, Hasty, Refusing, Resetting, Saying, Silent, Stalling
from tests.memnet import MemoryTransport
from tests.upstream.rig import GET, HEAD, Rig, Taker

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class DeadlineTests(SynchronousTestCase):
    """Each phase has a deadline and an error of its own; nothing bounds a whole body."""

    def setUp(self) -> None:
        self.rig = Rig()

    def tearDown(self) -> None:
        self.assertTrue(self.rig.quiet())

    def just_at(self, asking: Any, seconds: float, error: type[Exception]) -> None:
        self.rig.stage.advance(seconds - 0.01)
        self.assertIsNone(asking.failure)
        self.rig.stage.advance(0.02)
        self.assertIsInstance(asking.failure, error)
        self.assertEqual(seconds, round(asking.failure.after, 1))

    def test_a_refused_connection_fails_at_once(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Refusing()))
        self.assertIsInstance(asking.failure, ConnectFailed)

    def test_no_connection_within_its_two_seconds(self) -> None:
        self.rig.stage.hang("1")
        self.just_at(self.rig.ask(self.rig.stage.play("1", Refusing())), 2.0, ConnectTimedOut)

    def test_no_handshake_within_its_two_seconds(self) -> None:
        address = self.rig.stage.play("1", Silent(), "https://origin.example")
        self.just_at(self.rig.ask(address), 2.0, TLSFailed)

    def test_no_head_within_its_five_seconds(self) -> None:
        self.just_at(self.rig.ask(self.rig.stage.play("1", Silent())), 5.0, HeadTimedOut)

    def test_the_caller_may_set_another_deadline_for_the_head(self) -> None:
        self.just_at(self.rig.ask(self.rig.stage.play("1", Silent()), head_seconds=11.0), 11.0, HeadTimedOut)

    def test_a_shorter_deadline_counts_on_a_kept_connection_too(self) -> None:
        address = self.rig.stage.play("1", Good(announce=b"timeout=60"))
        self.rig.ask(address)
        self.rig.stage.links[0].b.stalled = True
        self.just_at(self.rig.ask(address, head_seconds=0.5), 0.5, HeadTimedOut)

    def test_octets_of_a_head_do_not_prolong_its_deadline(self) -> None:
        address = self.rig.stage.play("1", Dripping(timers=self.rig.stage.clock, seconds=0.9))
        asking = self.rig.ask(address)
        for _ in range(6):
            self.rig.stage.advance(0.9)
        self.assertIsInstance(asking.failure, HeadTimedOut)
        # The origin notices at its next drop.
        self.rig.stage.advance(2.0)

    def test_interim_responses_do_not_prolong_the_deadline_of_the_head(self) -> None:
        interim = b"HTTP/1.1 102 Processing\r\n\r\n"
        origin = Silent()
        asking = self.rig.ask(self.rig.stage.play("1", origin))
        for _ in range(5):
            origin.playing[0].send(interim)
            self.rig.stage.settle()
            self.rig.stage.advance(1.001)
        self.assertEqual(5, len(asking.interims))
        self.assertIsInstance(asking.failure, HeadTimedOut)

    def test_content_that_stalls_for_three_seconds(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Stalling(content=b"x" * 100, after=60)))
        self.assertEqual(60, len(asking.taker.content))
        self.just_at(asking, 3.0, ContentStalled)

    def test_a_head_without_any_content_stalls_too(self) -> None:
        self.just_at(self.rig.ask(self.rig.stage.play("1", Stalling(content=b"x"))), 3.0, ContentStalled)

    def test_nothing_bounds_a_whole_body(self) -> None:
        origin = Stalling(content=b"x" * 50, after=1)
        asking = self.rig.ask(self.rig.stage.play("1", origin))
        for _ in range(49):
            self.rig.stage.advance(2.9)
            origin.playing[0].send(b"x")
            self.rig.stage.settle()
        self.assertTrue(asking.taker.ended)

    def test_the_stall_clock_stands_while_we_do_not_read(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Stalling(content=b"x" * 100, after=60)))
        asking.response.pause()
        self.rig.stage.advance(1000)
        self.assertIsNone(asking.failure)
        asking.response.resume()
        self.rig.stage.advance(2.9)
        self.assertIsNone(asking.failure)
        self.rig.stage.advance(0.2)
        self.assertIsInstance(asking.failure, ContentStalled)

    def test_the_stall_clock_stands_until_somebody_takes_the_content(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Stalling(content=b"x" * 100, after=60)), attach=False)
        self.rig.stage.advance(1000)
        asking.response.attach(asking.taker)
        self.assertIsNone(asking.failure)
        self.rig.stage.advance(3.1)
        self.assertIsInstance(asking.failure, ContentStalled)

    def test_the_owner_of_a_key_may_stall_and_only_a_closed_socket_is_its_failure(self) -> None:
        self.rig.stage.play("/run/1", Stalling(content=b"x" * 100, after=60))
        asking = self.rig.ask(unix_address("/run/1"), head_seconds=60.0)
        self.rig.stage.advance(1000)
        self.assertEqual((60, None), (len(asking.taker.content), asking.failure))
        self.rig.stage.links[0].b.close()
        self.rig.stage.settle()
        self.assertIsInstance(asking.failure, ConnectionLost)

    def test_one_timer_serves_many_exchanges(self) -> None:
        address = self.rig.stage.play("1", Good())
        for _ in range(50):
            self.rig.ask(address)
            self.rig.stage.advance(0.01)
        self.assertEqual(1, len(self.rig.stage.clock.getDelayedCalls()))


@define
class _Later:
    """A dialer whose one connection is made when the test says so."""

    connecting: Deferred[Any]
    factory: Any = None

    def connect(self, factory: Any, address: Address) -> Deferred[Any]:
        self.factory = factory
        return self.connecting

    def secure(self, *_: Any) -> Deferred[Any]:
        raise NotImplementedError


class ConnectedTests(SynchronousTestCase):
    """Who asks is told when an address has taken the connection, so that it stops trying others (RFC 8305 §5)."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.told: list[str] = []

    def ask(self, address: Address, told: str) -> Any:
        return self.rig.client.ask(address, GET, connected=lambda: self.told.append(told))

    def test_once_for_a_new_connection_and_once_for_an_idle_one_before_ask_returns(self) -> None:
        address = self.rig.stage.play("1", Good())
        for expected in (["new"], ["new", "idle"]):
            asking = self.ask(address, expected[-1])
            self.assertEqual(expected, self.told)
            self.rig.stage.settle()
            self.successResultOf(asking).attach(Taker())
            self.assertEqual(expected, self.told)
        self.assertTrue(self.rig.quiet())

    def test_never_where_nothing_is_connected(self) -> None:
        refused = self.ask(self.rig.stage.play("1", Refusing()), "refused")
        self.failureResultOf(refused, ConnectFailed)
        self.rig.stage.hang("2")
        hung = self.ask(self.rig.stage.play("2", Good()), "hung")
        self.rig.stage.advance(2.1)
        self.failureResultOf(hung, ConnectTimedOut)
        self.assertEqual([], self.told)

    def test_before_the_handshake(self) -> None:
        asking = self.ask(self.rig.stage.play("1", Silent(), "https://origin.example"), "connected")
        self.assertEqual(["connected"], self.told)
        self.rig.stage.advance(2.1)
        self.failureResultOf(asking, TLSFailed)
        self.assertTrue(self.rig.quiet())

    def test_it_may_make_its_own_asker_leave(self) -> None:
        origin = Good()
        address = self.rig.stage.play("1", origin)
        hanging: Deferred[Any] = Deferred()
        connect = self.rig.stage.connect
        later = _Later(hanging)
        client = Client(later, self.rig.stage.clock, self.rig.settings)
        asking = client.ask(address, GET, connected=lambda: asking.cancel())
        connect(later.factory, address).chainDeferred(hanging)
        self.failureResultOf(asking, CancelledError)
        self.rig.stage.settle()
        self.assertEqual(([], [], {}), (origin.asked, origin.playing, client._pools))
        self.assertEqual([], self.rig.stage.clock.getDelayedCalls())

    def test_also_on_an_idle_connection_by_way_of_another(self) -> None:
        """The first to be connected ends the others' attempts."""
        self.rig.stage.hang("1")
        hung = self.ask(self.rig.stage.play("1", Good()), "hung")
        address = self.rig.stage.play("2", Good())
        self.rig.ask(address)
        won = self.rig.client.ask(address, GET, connected=hung.cancel)
        self.failureResultOf(hung, CancelledError)
        self.rig.stage.settle()
        self.successResultOf(won).attach(Taker())
        self.assertTrue(self.rig.quiet())


class LostTests(SynchronousTestCase):
    """The end of a connection is never the end of a response, unless the response says so."""

    def setUp(self) -> None:
        self.rig = Rig()

    def test_closed_before_any_octet(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Saying(b"", close=True)))
        self.assertIsInstance(asking.failure, ConnectionLost)
        self.assertTrue(asking.failure.sent)
        self.assertFalse(asking.failure.reused)

    def test_a_kept_connection_closed_before_any_octet_says_so_and_is_not_tried_again(self) -> None:
        origin = Good()
        address = self.rig.stage.play("1", origin)
        self.rig.ask(address)
        origin.tired = True
        asking = self.rig.ask(address)
        self.assertIsInstance(asking.failure, ConnectionLost)
        self.assertEqual((True, 2, 1), (asking.failure.reused, len(origin.asked), origin.connections))

    def test_cut_content_keeps_what_came(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Cut(content=b"0123456789", after=4)))
        self.assertEqual(b"0123", asking.taker.content)
        self.assertIsInstance(asking.failure, ConnectionLost)

    def test_reset_content_keeps_what_came(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Resetting(content=b"0123456789", after=4)))
        self.assertEqual(b"0123", asking.taker.content)
        self.assertIsInstance(asking.failure, ConnectionLost)


class FlowTests(SynchronousTestCase):
    """The sink sets the pace."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.content = bytes(range(256)) * 4096
        self.address = self.rig.stage.play("1", Good(content=self.content))

    def test_nothing_is_handed_over_while_paused_not_even_the_end(self) -> None:
        asking = self.rig.ask(self.address, attach=False, settle=None)
        self.rig.stage.settle(len(self.content) + 1000)
        asking.response.pause()
        asking.response.attach(asking.taker)
        self.rig.stage.settle()
        self.assertEqual((b"", False), (asking.taker.content, asking.taker.ended))
        asking.response.resume()
        self.rig.stage.settle()
        self.assertEqual((self.content, True), (asking.taker.content, asking.taker.ended))

    def test_without_a_sink_reading_stops_soon(self) -> None:
        asking = self.rig.ask(self.address, attach=False, settle=1000)
        [link] = self.rig.stage.links
        self.assertGreater(len(link.b.outbox), len(self.content) - 2000)
        asking.response.attach(asking.taker)
        self.rig.stage.settle()
        self.assertEqual(self.content, asking.taker.content)

    def test_a_paused_response_stops_the_origin(self) -> None:
        asking = self.rig.ask(self.address, settle=None)
        self.rig.stage.links[0].pump(100_000)
        self.rig.stage.links[0].pump(100_000)
        asking.response.pause()
        self.rig.stage.settle()
        seen = len(asking.taker.content)
        self.assertLess(seen, 300_000)
        self.rig.stage.settle()
        self.assertEqual(seen, len(asking.taker.content))

    def test_the_failure_waits_behind_what_is_held(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("2", Cut(content=b"0123456789", after=4)), attach=False)
        self.rig.stage.links[-1].cut(ConnectionResetError("reset"))
        asking.response.attach(asking.taker)
        self.assertEqual(b"0123", asking.taker.content)
        self.assertIsInstance(asking.failure, ConnectionLost)

    def test_a_sink_that_cancels_gets_nothing_more(self) -> None:
        @define(eq=False)
        class Sated:
            response: Any = None
            pieces: list[bytes] = field(factory=list)

            def take(self, _: object, asking: Any) -> None:
                self.response = asking.response
                self.response.attach(self)

            def data(self, data: bytes) -> None:
                self.pieces.append(data)
                self.response.cancel()

            def end(self) -> None:
                self.pieces.append(b"end")

            fail: Any = end

        chunks = b"".join(b"1388\r\n" + b"x" * 5000 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
        octets = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        for settle in (1 << 20, 7000):
            address = self.rig.stage.play(str(settle), Saying(octets))
            asking = self.rig.ask(address, attach=False, settle=None)
            sated = Sated()
            asking.answer.addCallback(sated.take, asking)
            self.rig.stage.settle(settle)
            self.assertEqual(1, len(sated.pieces))

    def test_pieces_are_handed_over_as_they_come(self) -> None:
        asking = self.rig.ask(self.address, settle=10_000)
        self.assertGreater(asking.taker.pieces, 100)

    def test_small_chunks_are_joined(self) -> None:
        octets = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"
        asking = self.rig.ask(self.rig.stage.play("2", Saying(octets)))
        self.assertEqual((b"x" * 1000, 1), (asking.taker.content, asking.taker.pieces))


class CancelTests(SynchronousTestCase):
    """Whoever asked may leave at any time; the connection is closed and nothing remains."""

    def setUp(self) -> None:
        self.rig = Rig()

    def tearDown(self) -> None:
        self.assertTrue(self.rig.quiet())

    def cancelled(self, asking: Any) -> None:
        asking.answer.cancel()
        self.assertIsInstance(asking.error, CancelledError)
        self.rig.stage.settle()
        self.assertTrue(all(link.b._lost for link in self.rig.stage.links))

    def test_while_connecting(self) -> None:
        self.rig.stage.hang("1")
        self.cancelled(self.rig.ask(self.rig.stage.play("1", Good())))

    def test_during_the_handshake(self) -> None:
        self.cancelled(self.rig.ask(self.rig.stage.play("1", Good(), "https://origin.example")))

    def test_while_the_head_is_awaited(self) -> None:
        address = self.rig.stage.play("1", Silent())
        asking = self.rig.ask(address)
        self.assertEqual(1, self.rig.client.awaited(address))
        self.cancelled(asking)
        self.assertEqual(0, self.rig.client.awaited(address))

    def test_at_an_interim_response(self) -> None:
        octets = b"HTTP/1.1 103 Hints\r\n\r\n" + OK
        answer = self.rig.client.ask(self.rig.stage.play("1", Saying(octets)), GET, interim=lambda _: answer.cancel())
        self.rig.stage.settle()
        self.failureResultOf(answer, CancelledError)

    def test_within_the_content(self) -> None:
        asking = self.rig.ask(self.rig.stage.play("1", Stalling(content=b"x" * 9, after=4)))
        asking.response.cancel()
        asking.response.cancel()
        self.rig.stage.settle()
        self.assertEqual((b"xxxx", False, None), (asking.taker.content, asking.taker.ended, asking.failure))
        self.assertTrue(self.rig.stage.links[0].b._lost)

    def test_after_the_end_the_connection_stays(self) -> None:
        address = self.rig.stage.play("1", Good())
        asking = self.rig.ask(address, attach=False)
        asking.response.cancel()
        self.assertEqual(1, self.rig.client.idle(address))
        asking.response.attach(asking.taker)
        self.assertEqual(b"", asking.taker.content)


class PoolTests(SynchronousTestCase):
    """A connection is used again only while its peer surely still wants it (DESIGN 8)."""

    def setUp(self) -> None:
        self.rig = Rig()

    def tearDown(self) -> None:
        self.assertTrue(self.rig.quiet())

    def connections_after(self, seconds: float, announce: bytes | None) -> int:
        origin = Good(announce=announce)
        address = self.rig.stage.play(f"{announce!r} {seconds}", origin)
        self.rig.ask(address)
        self.rig.stage.advance(seconds)
        asking = self.rig.ask(address)
        self.assertTrue(asking.taker.ended)
        return origin.connections

    def test_four_seconds_where_nothing_is_announced(self) -> None:
        self.assertEqual(1, self.connections_after(3.9, None))
        self.assertEqual(2, self.connections_after(4.1, None))

    def test_a_second_less_than_announced(self) -> None:
        self.assertEqual(1, self.connections_after(13.9, b"timeout=15, max=100"))
        self.assertEqual(2, self.connections_after(14.1, b"max=100, Timeout=15"))

    def test_not_at_all_where_a_second_or_less_is_announced(self) -> None:
        self.assertEqual(2, self.connections_after(0.0, b"timeout=1"))
        self.assertEqual(2, self.connections_after(0.0, b"timeout=0"))

    def test_one_whose_last_octets_were_too_many_at_once_is_read_again(self) -> None:
        origin = Good(content=bytes(100_000))
        address = self.rig.stage.play("paused at its end", origin)
        asking = self.rig.ask(address, attach=False, settle=None)

        class Full(Taker):
            def data(self, data: bytes) -> None:
                super().data(data)
                if len(self.content) == 100_000:
                    asking.response.pause()

        full = Full()
        asking.answer.addCallback(lambda _: asking.response.attach(full))
        self.rig.stage.settle(1000)
        asking.response.resume()
        self.assertTrue(full.ended)
        self.assertTrue(self.rig.ask(address).taker.ended)
        self.assertEqual(1, origin.connections)

    def test_no_longer_than_five_minutes_whatever_is_announced(self) -> None:
        self.assertEqual(1, self.connections_after(299.0, b"timeout=86400"))
        self.assertEqual(2, self.connections_after(301.0, b"timeout=86400"))

    def test_the_last_used_is_used_first(self) -> None:
        origin = Good(announce=b"timeout=60")
        address = self.rig.stage.play("1", origin)
        first, second = (self.rig.ask(address, settle=None) for _ in range(2))
        first_link, second_link = self.rig.stage.links
        while second_link.pump(1000):
            pass
        while first_link.pump(1000):
            pass
        self.assertTrue(first.taker.ended and second.taker.ended)
        self.rig.ask(address, settle=None)
        self.assertTrue(first_link.a.outbox)
        self.rig.stage.settle()

    def test_the_oldest_go_where_there_are_too_many(self) -> None:
        rig = self.rig = Rig(UpstreamSettings(idle_connections=3))
        address = rig.stage.play("1", Good())
        for _ in range(5):
            rig.ask(address, settle=None)
        rig.stage.settle()
        self.assertEqual(3, rig.client.idle(address))
        self.assertEqual([True, True, False, False, False], [link.a.is_closing() for link in rig.stage.links])

    def test_none_is_kept_where_none_may_be(self) -> None:
        self.rig = Rig(UpstreamSettings(idle_connections=0))
        self.assertEqual(2, self.connections_after(0.0, None))

    def test_a_connection_is_not_handed_out_late_even_where_its_timer_is(self) -> None:
        pool = Pool(self.rig.stage.play("1", Good()), self.rig.settings)
        for late, expected in ((3.9, True), (4.0, False)):
            connection = Connection(pool.address, Clock(), lambda _: None)
            connection.connection_made(MemoryTransport(connection))
            pool.put(connection, None, 100.0)
            self.assertEqual(expected, pool.take(100.0 + late) is connection)

    def test_a_connection_given_up_while_it_was_made_is_closed(self) -> None:
        connection = Connection(self.rig.stage.play("1", Good()), Clock(), lambda _: None)
        connection.close()
        transport = MemoryTransport(connection)
        connection.connection_made(transport)
        self.assertTrue(transport.is_closing())

    def test_octets_on_an_idle_connection_end_it(self) -> None:
        origin = Good()
        address = self.rig.stage.play("1", origin)
        self.rig.ask(address)
        origin.playing[0].send(OK)
        self.rig.stage.settle()
        self.assertEqual(0, self.rig.client.idle(address))
        self.assertTrue(self.rig.ask(address).taker.content == origin.content)

    def test_an_idle_connection_that_the_origin_closes_is_forgotten(self) -> None:
        origin = Good(announce=b"timeout=60")
        address = self.rig.stage.play("1", origin)
        self.rig.ask(address)
        origin.playing[0].transport.close()
        self.rig.stage.settle()
        self.assertEqual(0, self.rig.client.idle(address))
        self.assertTrue(self.rig.ask(address).taker.ended)

    def test_addresses_do_not_share_connections(self) -> None:
        one, two = Good(), Good()
        self.rig.ask(self.rig.stage.play("1", one))
        self.rig.ask(self.rig.stage.play("2", two))
        self.assertEqual((1, 1), (one.connections, two.connections))

    def test_the_same_address_of_another_origin_shares_none(self) -> None:
        origin = Good()
        self.rig.ask(self.rig.stage.play("1", origin))
        self.rig.ask(self.rig.stage.play("1", origin, "http://other.example"))
        self.assertEqual(2, origin.connections)

    def test_a_health_slot_makes_no_other_address(self) -> None:
        origin = Good()
        address = self.rig.stage.play("1", origin)
        self.rig.ask(address)
        self.rig.ask(evolve(address, slot=7))
        self.assertEqual(1, origin.connections)

    def test_heads_awaited_from_one_address_are_capped_and_harm_no_other(self) -> None:
        rig = self.rig = Rig(UpstreamSettings(awaited_heads=3))
        bad, good = rig.stage.play("1", Silent()), rig.stage.play("2", Good())
        asked = [rig.ask(bad) for _ in range(4)]
        self.assertEqual([None, None, None], [asking.failure for asking in asked[:3]])
        self.assertIsInstance(asked[3].failure, UpstreamBusy)
        self.assertFalse(asked[3].failure.sent)
        self.assertTrue(rig.ask(good).taker.ended)
        asked[0].answer.cancel()
        self.assertIsNone(rig.ask(bad).failure)
        rig.stage.advance(6)

    def test_heads_awaited_from_the_owner_of_a_key_are_not_capped(self) -> None:
        rig = self.rig = Rig(UpstreamSettings(awaited_heads=3))
        rig.stage.play("/run/1", Silent())
        asked = [rig.ask(unix_address("/run/1")) for _ in range(9)]
        self.assertEqual([None] * 9, [asking.failure for asking in asked])
        rig.stage.advance(6)

    def test_after_close_nothing_is_kept(self) -> None:
        address = self.rig.stage.play("1", Good())
        asking = self.rig.ask(address, settle=None)
        self.rig.client.close()
        self.rig.stage.settle()
        self.assertTrue(asking.taker.ended)
        self.assertEqual(0, self.rig.client.idle(address))


@define(eq=False)
class Offered:
    """A client's content, as the wire gives it: some of it now, more later."""

    length: int | None = None
    content: bytes = b""
    complete: bool = False
    failed: Exception | None = None
    reader: Reader | None = None
    read_up_to: int = 0

    def read(self, position: int, limit: int) -> bytes:
        if self.failed is not None:
            return b""
        piece = self.content[position : position + limit]
        self.read_up_to = max(self.read_up_to, position + len(piece))
        return piece

    def ended(self, position: int) -> bool:
        return self.complete and position == len(self.content)

    def attach(self, reader: Reader) -> None:
        self.reader = reader

    def detach(self, reader: Reader) -> None:
        assert self.reader is reader
        self.reader = None

    def more(self, content: bytes, complete: bool = False) -> None:
        self.content += content
        self.complete = complete
        if self.reader is not None:
            self.reader.wake()


class RequestContentTests(SynchronousTestCase):
    """Content of a request is streamed, at the pace of both sides, and framed anew."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.origin = Good()
        self.address = self.rig.stage.play("1", self.origin)

    def tearDown(self) -> None:
        self.assertTrue(self.rig.quiet())

    def post(self, offered: Offered, length: int | None, address: Address | None = None, **how: Any) -> Any:
        outbound = Outbound(b"POST", b"/in", [(b"a", b"b")], content=offered, content_length=length)
        return self.rig.ask(address or self.address, outbound, **how)

    def test_those_that_are_slow_leave_half_of_an_addresses_requests_to_others(self) -> None:
        self.rig = Rig(UpstreamSettings(awaited_heads=4))
        address = self.rig.stage.play("1", self.origin)
        slow = [self.post(Offered(), 10, address) for _ in range(3)]
        self.assertEqual([None, None], [asking.failure for asking in slow[:2]])
        self.assertIsInstance(slow[2].failure, UpstreamBusy)
        self.assertTrue(self.rig.ask(address).taker.ended)
        for asking in slow[:2]:
            asking.answer.cancel()

    def test_they_have_that_half_however_many_others_wait(self) -> None:
        self.rig = Rig(UpstreamSettings(awaited_heads=4))
        address = self.rig.stage.play("1", Silent())
        asked = [self.rig.ask(address), self.rig.ask(address), self.post(Offered(), 10, address)]
        self.assertEqual([None] * 3, [asking.failure for asking in asked])
        asked += [self.post(Offered(), 10, address), self.post(Offered(), 10, address)]
        self.assertEqual([False, True], [isinstance(asking.failure, UpstreamBusy) for asking in asked[3:]])
        for asking in asked[2:4]:
            asking.answer.cancel()
        self.assertIsNone(self.post(Offered(), 10, address).failure)
        self.rig.client.stop()

    def test_with_its_length(self) -> None:
        asking = self.post(Offered(content=b"x" * 200_000, complete=True), 200_000)
        self.assertTrue(asking.taker.ended)
        [asked] = self.origin.asked
        self.assertEqual((b"200000", b"x" * 200_000), (asked.fields[b"content-length"], asked.content))
        self.assertNotIn(b"transfer-encoding", asked.fields)

    def test_its_connection_is_used_again_only_where_this_program_answers(self) -> None:
        """An origin that did not read the content would take it for the next request."""
        for address, kept in ((self.address, 0), (unix_address("1"), 1)):
            asking = self.post(Offered(content=b"hello", complete=True), 5, address)
            self.assertTrue(asking.taker.ended)
            self.assertEqual(kept, self.rig.client.idle(address))

    def test_nor_is_that_of_any_other_request_than_a_get(self) -> None:
        """It may mean content to an origin where there is none."""
        for method, kept in ((b"POST", 0), (b"DELETE", 0), (b"OPTIONS", 0), (b"GET", 1)):
            self.assertTrue(self.rig.ask(self.address, Outbound(method, b"/in", [])).taker.ended)
            self.assertEqual(kept, self.rig.client.idle(self.address), method)

    def test_in_chunks_as_it_comes(self) -> None:
        offered = Offered()
        asking = self.post(offered, None)
        for piece in (b"one ", b"two ", b"three"):
            offered.more(piece)
            self.rig.stage.settle()
        self.assertIsNone(asking.response)
        offered.more(b"", complete=True)
        self.rig.stage.settle()
        [asked] = self.origin.asked
        self.assertEqual((b"chunked", b"one two three"), (asked.fields[b"transfer-encoding"], asked.content))
        self.assertTrue(asking.taker.ended)
        self.assertIsNone(offered.reader)

    def test_empty_content_is_content(self) -> None:
        self.post(Offered(complete=True), 0)
        self.assertEqual(b"0", self.origin.asked[0].fields[b"content-length"])

    def test_it_is_read_no_faster_than_the_origin_takes_it(self) -> None:
        offered = Offered(content=b"x" * (8 << 20), complete=True)
        asking = self.post(offered, 8 << 20, settle=None)
        self.assertLess(offered.read_up_to, 256 << 10)
        self.rig.stage.settle()
        self.assertTrue(asking.taker.ended)

    def test_an_origin_that_takes_no_more_is_silent(self) -> None:
        asking = self.post(Offered(content=b"x" * (8 << 20), complete=True), 8 << 20, settle=None)
        self.rig.stage.links[0].a.stalled = True
        self.rig.stage.advance(5.1)
        self.assertIsInstance(asking.failure, HeadTimedOut)

    def test_a_slow_client_is_not_the_origins_fault(self) -> None:
        offered = Offered()
        asking = self.post(offered, None)
        for _ in range(10):
            self.rig.stage.advance(20)
            offered.more(b"x")
            self.rig.stage.settle()
        self.assertIsNone(asking.failure)
        offered.more(b"", complete=True)
        self.rig.stage.settle()
        self.assertTrue(asking.taker.ended)

    def test_the_deadline_of_the_head_begins_when_all_is_sent(self) -> None:
        offered = Offered()
        address = self.rig.stage.play("2", Silent())
        asking = self.post(offered, None, address)
        self.rig.stage.advance(100)
        offered.more(b"x", complete=True)
        self.rig.stage.settle()
        self.rig.stage.advance(4.9)
        self.assertIsNone(asking.failure)
        self.rig.stage.advance(0.2)
        self.assertIsInstance(asking.failure, HeadTimedOut)

    def test_a_client_that_leaves_ends_the_exchange_with_its_own_error(self) -> None:
        offered = Offered()
        asking = self.post(offered, 100)
        offered.failed = ClientGone()
        offered.more(b"")
        self.rig.stage.settle()
        self.assertIsInstance(asking.error, ClientGone)
        self.assertEqual(([], 0), (self.origin.asked, self.rig.client.idle(self.address)))

    def test_content_is_never_more_or_less_than_announced(self) -> None:
        for content in (b"x" * 9, b"x" * 11):
            asking = self.post(Offered(content=content, complete=True), 10)
            self.assertIsInstance(asking.error, ValueError)
            self.assertEqual([], self.origin.asked)

    def test_a_refusal_before_all_is_sent_counts_and_the_rest_is_not_sent(self) -> None:
        early = Hasty(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        address = self.rig.stage.play("2", early)
        offered = Offered(content=b"x" * 100)
        asking = self.post(offered, 1000, address)
        self.assertEqual((413, b"no"), (asking.response.head.status, asking.taker.content))
        self.assertIsNone(offered.reader)
        self.rig.stage.settle()
        self.assertEqual((0, []), (self.rig.client.idle(address), early.playing))

    def test_after_a_refusal_nothing_more_of_the_content_is_read(self) -> None:
        early = Hasty(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nno")
        offered = Offered(content=b"x" * 100)
        asking = self.post(offered, 1000, self.rig.stage.play("2", early))
        self.assertIsNone(offered.reader)
        early.playing[0].send(b"no")
        self.rig.stage.settle()
        self.assertEqual((b"nono", True), (asking.taker.content, asking.taker.ended))

    def test_content_and_response_may_flow_at_once(self) -> None:
        early = Hasty(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        address = self.rig.stage.play("2", early)
        offered = Offered(content=b"x" * 10)
        asking = self.post(offered, 20, address)
        self.assertEqual(b"ab", asking.taker.content)
        self.rig.stage.advance(100)
        self.assertIsNone(asking.failure)
        offered.more(b"x" * 10, complete=True)
        self.rig.stage.settle()
        early.playing[0].send(b"cd")
        self.rig.stage.settle()
        self.assertEqual((b"abcd", True), (asking.taker.content, asking.taker.ended))

    def test_a_response_that_ends_before_the_request_does_leaves_no_connection(self) -> None:
        address = self.rig.stage.play("2", Hasty(OK))
        asking = self.post(Offered(content=b"x"), 1000, address)
        self.assertTrue(asking.taker.ended)
        self.assertEqual(0, self.rig.client.idle(address))

    def test_cancelling_lets_go_of_the_content(self) -> None:
        offered = Offered()
        asking = self.post(offered, None)
        asking.answer.cancel()
        self.assertIsNone(offered.reader)


class RequestTests(SynchronousTestCase):
    """Requests are built anew and can never be two."""

    def setUp(self) -> None:
        self.rig = Rig()

    def sent(self, outbound: Outbound, url: str = "http://origin.example") -> bytes:
        self.rig.ask(self.rig.stage.play("1", Silent(), url), outbound, settle=None)
        return bytes(self.rig.stage.links[-1].a.outbox)

    def test_the_origins_own_name_is_the_host(self) -> None:
        self.assertEqual(b"GET /thing HTTP/1.1\r\nHost: origin.example\r\n\r\n", self.sent(GET))

    def test_its_port_where_it_is_not_the_usual_one(self) -> None:
        self.assertIn(b"\r\nHost: origin.example:8080\r\n", self.sent(GET, "http://origin.example:8080"))
        self.assertIn(b"\r\nHost: origin.example\r\n", self.sent(GET, "http://origin.example:80"))

    def test_the_clients_name_where_it_is_preserved(self) -> None:
        self.assertIn(b"\r\nHost: a.example\r\n", self.sent(evolve(GET, authority=b"a.example")))

    def test_the_prefix_is_put_before_the_target(self) -> None:
        self.assertTrue(self.sent(GET, "http://origin.example/root/pypi/").startswith(b"GET /root/pypi/thing HTTP"))
        self.assertTrue(
            self.sent(Outbound(b"OPTIONS", b"*", []), "http://origin.example/root").startswith(b"OPTIONS * HTTP/1.1")
        )

    def test_credentials_of_the_origin_are_sent_unless_the_request_has_its_own(self) -> None:
        url = "http://us%65r:p%40ss@origin.example"
        self.assertIn(b"\r\nauthorization: Basic dXNlcjpwQHNz\r\n", self.sent(GET, url))
        own = self.sent(evolve(GET, fields=[(b"authorization", b"Bearer x")]), url)
        self.assertEqual((1, True), (own.count(b"authorization"), b"Bearer x" in own))

    def test_nobody_is_shown_them_by_an_origin_that_answers_with_what_it_was_sent(self) -> None:
        """RFC 9110 §9.3.8"""
        self.assertNotIn(b"authorization", self.sent(evolve(GET, method=b"TRACE"), "http://a:b@origin.example"))

    def test_methods_that_mean_content_say_that_there_is_none(self) -> None:
        self.assertIn(b"\r\ncontent-length: 0\r\n", self.sent(Outbound(b"POST", b"/", [])))
        self.assertNotIn(b"content-length", self.sent(Outbound(b"DELETE", b"/", [])))
        self.assertNotIn(b"content-length", self.sent(HEAD))

    def test_what_would_be_two_requests_is_never_sent(self) -> None:
        for outbound in (
            evolve(GET, fields=[(b"a", b"b\r\nc: d")]),
            evolve(GET, fields=[(b"a", b"b\nc: d")]),
            evolve(GET, fields=[(b"a", b"b\rc: d")]),
            evolve(GET, fields=[(b"a", b"b\x00")]),
            evolve(GET, fields=[(b"a\r\nb", b"c")]),
            evolve(GET, target=b"/a b"),
            evolve(GET, target=b"/a\r\nb"),
            evolve(GET, target=b"http://other.example/"),
            evolve(GET, target=b""),
            evolve(GET, method=b"GET /x HTTP/1.1\r\n\r\nGET"),
            evolve(GET, method=b"CONNECT"),
            evolve(GET, authority=b"a\r\nb"),
            evolve(GET, fields=[(b"content-length", b"3")]),
            evolve(GET, fields=[(b"transfer-encoding", b"chunked")]),
            evolve(GET, fields=[(b"connection", b"close")]),
            evolve(GET, fields=[(b"host", b"other.example")]),
        ):
            origin = Silent()
            asking = self.rig.ask(self.rig.stage.play("2", origin), outbound)
            self.assertIsInstance(asking.error, ValueError, outbound)
            self.assertEqual(0, origin.connections)

    def test_a_name_for_people_shows_no_credentials(self) -> None:
        origin = parse_origin("https://user:secret@origin.example:8443/root")
        shown = repr(origin) + origin.name + repr(Address(origin, "192.0.2.1", 8443)) + Address(origin, "a", 1).name
        self.assertNotIn("secret", shown)
        self.assertNotIn("c2VjcmV0", shown)
        self.assertEqual("https://origin.example:8443", origin.name)
