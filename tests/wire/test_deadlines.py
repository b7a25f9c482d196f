"""Absolute deadlines and caps of a listener (DESIGN 12), and its drain."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve
from twisted.trial.unittest import SynchronousTestCase

from edgecache.wire.connection import Connection
from edgecache.wire.listener import CHECKED, HEADS, Listener
from edgecache.wire.pace import Pace
from edgecache.wire.states import LINGER_SECONDS, PIPELINE_OCTETS
from edgecache.words.config import LimitSettings
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream, Source
from tests.wire.rig import OK, Client, Given, Rig, Waking

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = OK + b"\r\nok"
LIMITS = LimitSettings()


class HeadTests(SynchronousTestCase):
    def test_an_unfinished_head_is_408_after_ten_seconds(self) -> None:
        rig = Rig()
        client = rig.say(b"GET / HT")
        rig.seconds(LIMITS.head_seconds - 1.5)
        self.assertEqual(b"", client.received)
        rig.seconds(3)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "))
        self.assertTrue(client.lost)
        self.assertEqual(1, rig.counters.get(Counter.SLOW_CLIENTS))

    def test_an_octet_now_and_then_does_not_help(self) -> None:
        """Slowloris."""
        rig = Rig()
        client = rig.say(b"GET / HTTP/1.1\r\n")
        for _ in range(12):
            if not client.lost:
                rig.say(b"X: y\r\n", client)
                rig.seconds(1)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "))

    def test_nor_does_it_where_much_of_the_head_is_here_and_waits_for_its_turn(self) -> None:
        rig = Rig(limits=evolve(LIMITS, head_octets=2 * PIPELINE_OCTETS))
        client = rig.say(b"GET / HTTP/1.1\r\nX: " + b"y" * PIPELINE_OCTETS)
        for _ in range(12):
            if not client.lost:
                rig.listener.heads.spend(HEADS)
                rig.say(b"y", client)
                rig.seconds(1)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "))

    def test_the_deadline_of_a_pipelined_head_runs_from_the_last_answer(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(GET + b"GET / HT")
        rig.seconds(30)
        self.assertFalse(client.ended)
        rig.downstreams[0].send(OK, b"ok")
        rig.seconds(12)
        self.assertTrue(client.received.startswith(ANSWER + b"HTTP/1.1 408 "))


class ManyTests(SynchronousTestCase):
    def test_those_who_are_late_at_once_are_ended_some_in_each_turn(self) -> None:
        calls: list[Callable[[], None]] = []
        rig = Rig()
        clients = [rig.say(b"GET / HT") for _ in range(2 * CHECKED + 1)]
        rig.seconds(LIMITS.head_seconds - 1)
        rig.listener.soon = calls.append
        rig.network.advance(2)
        ended = [sum(client.ended for client in clients)]
        while calls:
            calls.pop(0)()
            rig.network.settle()
            ended.append(sum(client.ended for client in clients))
        self.assertEqual([CHECKED, 2 * CHECKED, 2 * CHECKED + 1], ended)

    def test_one_that_leaves_before_its_turn_is_not_looked_at(self) -> None:
        calls: list[Callable[[], None]] = []
        rig = Rig()
        for _ in range(CHECKED + 1):
            rig.say(b"GET / HT")
        rig.seconds(LIMITS.head_seconds - 1)
        rig.listener.soon = calls.append
        rig.network.advance(2)
        rig.link.cut()
        calls.pop()()
        self.assertEqual(CHECKED, rig.counters.get(Counter.SLOW_CLIENTS))


class IdleTests(SynchronousTestCase):
    def test_an_idle_connection_is_closed_without_a_word(self) -> None:
        for octets, received in ((b"", b""), (GET, ANSWER)):
            rig = Rig()
            client = rig.say(octets)
            rig.seconds(LIMITS.idle_seconds - 1.5)
            self.assertFalse(client.ended)
            rig.seconds(3)
            self.assertEqual((received, True), (client.received, client.lost))

    def test_each_request_starts_it_anew(self) -> None:
        rig = Rig()
        client = rig.connect()
        for _ in range(3):
            rig.seconds(40)
            rig.say(GET, client)
        self.assertEqual(ANSWER * 3, client.received)

    def test_waiting_for_our_answer_is_not_idle(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(GET)
        rig.seconds(200)
        rig.downstreams[0].send(OK, b"ok")
        rig.network.settle()
        self.assertEqual(ANSWER, client.received)


class ContentTests(SynchronousTestCase):
    POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"

    def test_no_octet_for_thirty_seconds_is_408(self) -> None:
        rig = Rig()
        client = rig.say(self.POST + b"x")
        rig.seconds(LIMITS.stall_seconds - 1)
        self.assertFalse(client.ended)
        rig.seconds(4)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "))
        self.assertIsNotNone(rig.contents[0].source.failed)

    def test_a_route_that_answers_when_the_content_breaks_off_is_too_late(self) -> None:
        rig = Rig()

        def route(request: Request, downstream: Downstream) -> None:
            source = downstream.request_content()
            source.attach(Answering(source, downstream))

        rig.route = route
        client = rig.say(self.POST + b"x")
        rig.seconds(LIMITS.stall_seconds + 3)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "))
        self.assertEqual(1, client.received.count(b"HTTP/1.1"))

    def test_under_1_kib_a_second_over_a_minute_is_408(self) -> None:
        rig = Rig()
        client = rig.say(self.POST)
        for _ in range(70):
            if not client.lost:
                rig.say(b"x" * 1000, client)
                rig.seconds(1)
        self.assertTrue(client.received.startswith(b"HTTP/1.1 408 "))
        self.assertEqual([], rig.requests, "nobody else was kept waiting")

    def test_a_little_more_is_enough(self) -> None:
        rig = Rig()
        client = rig.say(self.POST)
        for _ in range(130):
            rig.say(b"x" * 1100, client)
            rig.seconds(1)
        self.assertFalse(client.ended)

    def test_content_that_our_side_does_not_read_is_not_late(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(self.POST + bytes(100_000))
        rig.seconds(200)
        self.assertFalse(client.ended)


@define(eq=False)
class Answering:
    """A reader of a request's content who answers when that fails."""

    source: Source
    downstream: Downstream

    def wake(self) -> None:
        if self.source.failed is not None:
            self.downstream.send(OK, b"ok")


class SlowReaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = Rig()
        self.source = Given(1 << 20, bytes(1 << 20), complete=True)
        self.waking = Waking()

        def route(request: object, downstream: object) -> None:
            downstream.on_gone(self.waking)
            downstream.send_from(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n", self.source, 0, 1 << 20)

        self.rig.route = route
        self.client = self.rig.connect()
        self.server = self.rig.link.b
        self.server.stalled = True
        self.rig.say(GET, self.client)

    def test_no_octet_taken_for_thirty_seconds_is_the_end(self) -> None:
        self.rig.seconds(LIMITS.stall_seconds - 1)
        self.assertFalse(self.server._lost)
        self.rig.seconds(4)
        self.assertTrue(self.server._lost)
        self.assertEqual([], self.source.readers)
        self.assertEqual(1, self.waking.count)
        self.assertEqual(1, self.rig.counters.get(Counter.SLOW_CLIENTS))

    def take(self, octets: int) -> None:
        """The client takes ``octets`` now."""
        self.server.stalled = False
        self.rig.link.pump(octets)
        self.server.stalled = True

    def test_under_1_kib_a_second_over_a_minute_is_the_end(self) -> None:
        for _ in range(66):
            self.take(1000)
            self.rig.seconds(1)
        self.assertTrue(self.server._lost)

    def test_a_little_more_is_enough(self) -> None:
        for _ in range(130):
            self.take(1100)
            self.rig.seconds(1)
        self.assertFalse(self.server._lost)

    def test_what_it_sent_before_does_not_count_against_it(self) -> None:
        self.client = self.rig.connect()
        self.server = self.rig.link.b
        octets = 1 << 20
        route, self.rig.route = self.rig.route, self.rig.later
        self.rig.say(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % octets, self.client)
        for _ in range(16):
            self.rig.seconds(1)
            self.rig.say(bytes(octets // 16), self.client)
            content = self.rig.downstreams[1].request_content()
            content.read(content.received, 1)
        self.server.stalled = True
        route(None, self.rig.downstreams[1])
        for _ in range(66):
            self.take(2000)
            self.rig.seconds(1)
        self.assertFalse(self.server._lost)

    def test_an_answer_that_the_client_never_reads_does_not_stay_in_closing(self) -> None:
        rig = Rig()
        client = rig.connect()
        rig.link.b.stalled = True
        rig.say(b"nonsense\r\n\r\n", client)
        rig.seconds(LIMITS.stall_seconds + 3)
        self.assertTrue(rig.link.b._lost)


class SlowSourceTests(SynchronousTestCase):
    def test_a_source_that_has_nothing_is_not_the_clients_fault(self) -> None:
        rig, source = Rig(), Given(10)
        rig.route = lambda request, downstream: downstream.send_from(
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", source, 0, 10
        )
        client = rig.say(GET)
        for octet in b"0123456789":
            rig.seconds(100)
            source.give(bytes([octet]))
        rig.network.settle()
        self.assertTrue(client.received.endswith(b"0123456789"))


class LingerTests(SynchronousTestCase):
    def test_a_client_that_never_ends_its_side_is_cut(self) -> None:
        rig = Rig()
        client = rig.connect()
        client.holds_on = True
        rig.say(b"nonsense\r\n\r\n", client)
        self.assertFalse(client.lost)
        rig.seconds(LINGER_SECONDS + 2)
        self.assertTrue(client.lost)


class DrainTests(SynchronousTestCase):
    def test_idle_connections_end_at_once(self) -> None:
        rig = Rig()
        client = rig.say(GET)
        drained = rig.listener.drain(5)
        rig.network.settle()
        self.successResultOf(drained)
        self.assertTrue(client.lost)

    def test_one_that_was_just_asked_may_ask_once_more(self) -> None:
        """Its next request may be on its way already: it is answered, and told that it was the last."""
        rig = Rig()
        client = rig.say(GET)
        drained = rig.listener.drain(30, quiet_seconds=5)
        rig.network.settle()
        self.assertFalse(client.lost)
        client.received = b""
        client.transport.write(GET)
        rig.network.settle()
        self.assertEqual(OK + b"Connection: close\r\n\r\nok", client.received)
        self.successResultOf(drained)

    def test_one_that_asks_no_more_is_closed_when_it_was_quiet_for_so_long(self) -> None:
        rig = Rig()
        client = rig.say(GET)
        drained = rig.listener.drain(30, quiet_seconds=5)
        rig.seconds(4)
        self.assertFalse(client.lost)
        rig.seconds(2)
        self.assertTrue(client.lost)
        self.successResultOf(drained)
        self.assertEqual(0, rig.listener.cut)

    def test_one_that_was_quiet_for_longer_is_closed_at_once(self) -> None:
        rig = Rig()
        client = rig.say(GET)
        rig.seconds(6)
        rig.listener.drain(30, quiet_seconds=5)
        rig.network.settle()
        self.assertTrue(client.lost)

    def test_a_client_in_its_handshake_is_waited_for(self) -> None:
        rig = Rig()
        self.assertTrue(rig.listener.admit(b"client"))
        drained = rig.listener.drain(30)
        self.assertNoResult(drained)
        rig.listener.release(b"client")
        self.successResultOf(drained)

    def test_without_connections_it_is_done(self) -> None:
        self.successResultOf(Rig().listener.drain(5))

    def test_a_running_exchange_is_finished_first(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(GET)
        drained = rig.listener.drain(5)
        rig.network.settle()
        self.assertNoResult(drained)
        rig.downstreams[0].send(OK, b"ok")
        rig.network.settle()
        self.assertEqual(OK + b"Connection: close\r\n\r\nok", client.received)
        self.successResultOf(drained)

    def test_what_is_not_done_in_time_is_cut(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(GET)
        drained = rig.listener.drain(5)
        rig.seconds(4)
        self.assertNoResult(drained)
        rig.seconds(3)
        self.successResultOf(drained)
        self.assertTrue(client.lost)
        self.assertEqual(1, rig.listener.cut)

    def test_stop_cuts_everything_and_leaves_no_timer(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(GET)
        rig.listener.stop()
        rig.network.settle()
        self.assertTrue(client.lost)
        self.assertEqual([], rig.network.clock.getDelayedCalls())


class CrowdTests(SynchronousTestCase):
    def test_what_a_crowd_took_is_given_back_when_it_has_gone(self) -> None:
        rig = Rig(limits=evolve(LIMITS, connections=2000), trusted=True)
        given: list[int] = []
        rig.listener.give_back = lambda: given.append(rig.listener.admitted)
        for count in (1200, -500, -200, 0, -240):
            for _ in range(abs(count)):
                if count > 0:
                    rig.listener.admit(b"")
                else:
                    rig.listener.release(b"")
            rig.seconds(1)
        # At 700 of 1,200 not yet; at 500 it is; 240 fewer are no crowd.
        self.assertEqual([500], given)


class CapTests(SynchronousTestCase):
    def test_one_client_has_so_many_connections(self) -> None:
        listener = Rig(limits=evolve(LIMITS, connections_per_client=2)).listener
        self.assertEqual([True, True, False, True], [listener.admit(c) for c in (b"a", b"a", b"a", b"b")])
        listener.release(b"a")
        self.assertTrue(listener.admit(b"a"))

    def test_all_clients_together_have_so_many(self) -> None:
        listener = Rig(limits=evolve(LIMITS, connections=2)).listener
        self.assertEqual([True, True, False], [listener.admit(c) for c in (b"a", b"b", b"c")])

    def test_another_worker_is_not_one_client(self) -> None:
        listener = Rig(limits=evolve(LIMITS, connections_per_client=1), trusted=True).listener
        self.assertEqual([True, True], [listener.admit(b""), listener.admit(b"")])


class CrowdedOutTests(SynchronousTestCase):
    """Who holds connections for nothing does not lock others out."""

    def setUp(self) -> None:
        self.rig = Rig(limits=evolve(LIMITS, connections=4))
        self.listener = self.rig.listener
        self.rig.network.listen("edge", self.accepted)

    def accepted(self) -> Connection:
        if not self.listener.admit(b"a"):
            raise ConnectionAbortedError
        return Connection(self.listener, b"a", lambda: self.listener.release(b"a"))

    def crowd(self, *octets: bytes) -> list[Client]:
        clients = []
        for each in octets:
            clients.append(self.rig.say(each))
            self.rig.seconds(1)
        return clients

    def test_the_one_that_waits_for_a_request_for_the_longest_time_makes_room(self) -> None:
        clients = self.crowd(b"", b"GET", GET, b"")
        self.assertEqual(ANSWER, self.rig.say(GET).received)
        self.assertEqual([True, False, False, False], [client.lost for client in clients])
        self.assertEqual(4, self.listener.admitted)
        self.assertEqual(ANSWER, self.rig.say(GET).received)
        self.assertEqual([True, True, False, False], [client.lost for client in clients])

    def test_of_those_that_came_within_a_second_the_first_goes(self) -> None:
        clients = [self.rig.say(b"") for _ in range(4)]
        for number in range(4):
            self.rig.say(GET)
            self.assertEqual([n <= number for n in range(4)], [client.lost for client in clients])

    def test_those_that_are_being_answered_stay_and_then_there_is_no_room(self) -> None:
        self.rig.route = self.rig.later
        clients = self.crowd(*[GET] * 4)
        with self.assertRaises(ConnectionAbortedError):
            self.rig.connect()
        self.assertEqual([False] * 4, [client.lost for client in clients])
        self.rig.downstreams[0].send(OK, b"ok")
        self.rig.seconds(1)
        self.rig.say(b"")
        self.assertEqual([True, False, False, False], [client.lost for client in clients])

    def test_a_handshake_that_takes_long_goes_before_anybody_who_has_done_his_the_oldest_first(self) -> None:
        clients, handshakes = self.crowd(b"", b""), [Handshake(self.listener) for _ in range(2)]
        self.rig.seconds(2)
        self.rig.connect()
        self.assertEqual([True, False], [each.out for each in handshakes])
        self.assertEqual([False, False], [client.lost for client in clients])

    def test_a_handshake_that_has_just_begun_goes_last(self) -> None:
        """Else who holds connections for nothing would have each new one pushed out by the next."""
        (idle,), handshakes = self.crowd(b""), [Handshake(self.listener) for _ in range(3)]
        self.rig.say(b"")
        self.assertEqual((True, [False] * 3), (idle.lost, [each.out for each in handshakes]))
        self.rig.route = self.rig.later
        self.rig.say(GET)
        self.assertEqual([False] * 3, [each.out for each in handshakes])
        self.rig.say(GET)
        self.assertEqual([True, False, False], [each.out for each in handshakes])


@define(eq=False)
class Handshake:
    """A client in its handshake."""

    listener: Listener
    out: bool = False

    def __attrs_post_init__(self) -> None:
        self.listener.admit(b"b")
        self.listener.shaking[self] = self.listener.now

    def push_out(self) -> None:
        self.out = True
        self.listener.release(b"b")


class PaceTests(SynchronousTestCase):
    def test_progress_now_and_then_is_no_stall(self) -> None:
        limits = evolve(LIMITS, slow_octets_per_second=0)
        pace = Pace(0, 100.0)
        self.assertEqual([False] * 5, [pace.too_slow(n, 100.0 + n * 29, limits) for n in range(1, 6)])

    def test_a_window_is_judged_at_its_end_and_begins_anew(self) -> None:
        pace = Pace(0, 0.0)
        self.assertFalse(pace.too_slow(61_440, 60.0, LIMITS))
        self.assertFalse(pace.too_slow(61_441, 89.0, LIMITS))
        self.assertFalse(pace.too_slow(61_442, 118.0, LIMITS))
        self.assertTrue(pace.too_slow(61_443, 120.0, LIMITS))
