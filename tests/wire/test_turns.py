"""What takes long is done in parts, one turn of the loop after the other, in the order in which it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from edgecache.wire.listener import HEADS
from edgecache.wire.sending import BURST, PIECE, TURN, Pump
from edgecache.wire.states import PIPELINE_MOST, PIPELINE_OCTETS
from edgecache.wire.turns import Turns
from tests.wire.rig import OK, Client, Given, Rig

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"


@define(eq=False)
class Loop:
    """Runs what is to be called soon, a turn at a time."""

    calls: list[Callable[[], None]] = field(factory=list)

    def soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop = Loop()
        self.turns = Turns(self.loop.soon, 3)
        self.done: list[str] = []

    def work(self, name: str, cost: int) -> Callable[[], None]:
        def go_on() -> None:
            self.turns.spend(cost)
            self.done.append(name)

        return go_on

    def test_a_turn_is_open_until_all_of_it_is_spent(self) -> None:
        self.turns.spend(2)
        self.assertTrue(self.turns.open)
        self.turns.spend(2)
        self.assertFalse(self.turns.open)
        self.loop.turn()
        self.assertTrue(self.turns.open)
        self.assertEqual([], self.loop.calls, "nothing is to be done: the loop may sleep")

    def test_who_waits_goes_on_in_order_as_far_as_a_turn_reaches(self) -> None:
        for name in "abcde":
            self.turns.wait(self.work(name, 2))
        self.loop.turn()
        self.assertEqual(list("ab"), self.done)
        self.loop.turn()
        self.assertEqual(list("abcd"), self.done)
        self.loop.turn()
        self.loop.turn()
        self.assertEqual((list("abcde"), []), (self.done, self.loop.calls))

    def test_who_waits_again_is_behind_all_others(self) -> None:
        def twice() -> None:
            self.work("long", 3)()
            self.turns.wait(self.work("its end", 1))

        self.turns.wait(twice)
        self.turns.wait(self.work("short", 1))
        for _ in range(3):
            self.loop.turn()
        self.assertEqual(["long", "short", "its end"], self.done)

    def test_one_that_fails_keeps_nobody_from_the_next_turn(self) -> None:
        self.turns.wait(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
        self.turns.wait(self.work("next", 1))
        self.assertRaises(ZeroDivisionError, self.loop.turn)
        self.loop.turn()
        self.assertEqual(["next"], self.done)


class LargeTests(SynchronousTestCase):
    """However many ask for large contents at once, nobody waits for more than a turn's worth of them."""

    SIZE = 4 * TURN

    def setUp(self) -> None:
        self.loop = Loop()
        self.rig = Rig()
        self.rig.listener.octets = Turns(self.loop.soon, TURN)
        self.sources: list[Given] = []
        self.rig.route = self.large

    def large(self, request: Any, downstream: Any) -> None:
        source = Given(self.SIZE, bytes(self.SIZE), complete=True)
        self.sources.append(source)
        downstream.send_from(OK[:-3] + b"%d\r\n" % self.SIZE, source, 0, self.SIZE)

    def asking(self) -> Client:
        client = self.rig.connect()
        self.rig.link.b.set_write_buffer_limits(1 << 30)
        self.rig.link.b.protocol.data_received(GET % 1)
        return client

    def read(self) -> int:
        return sum(source.reads for source in self.sources) * PIECE

    def test_all_together_are_sent_a_turns_worth_and_take_turns(self) -> None:
        clients = [self.asking() for _ in range(5)]
        read = self.read()
        self.assertLessEqual(read, TURN + PIECE)
        served: list[int] = []
        while self.loop.calls:
            self.loop.turn()
            self.assertLessEqual(self.read() - read, TURN + PIECE)
            read = self.read()
            reads = [source.reads for source in self.sources]
            served.append(max(reads) - min(reads))
        self.assertLessEqual(
            max(served), 2 * TURN // PIECE, "who came first was at once sent a turn's worth, and waits first"
        )
        self.rig.network.settle()
        for client in clients:
            self.assertEqual(self.SIZE, len(client.received.partition(b"\r\n\r\n")[2]))

    def test_who_has_to_wait_is_sent_its_head_with_the_first_of_its_content(self) -> None:
        self.asking()
        waiting = self.asking()
        self.rig.network.settle()
        self.assertEqual(b"", waiting.received)
        self.loop.turn()
        self.loop.turn()
        self.rig.network.settle()
        self.assertGreater(len(waiting.received), PIECE)

    def test_small_ones_and_the_ends_of_large_ones_do_not_wait(self) -> None:
        self.asking()
        self.assertFalse(self.rig.listener.octets.open)
        for size in (1, PIECE):
            source = Given(size, bytes(size), complete=True)
            self.rig.route = lambda request, downstream, source=source, size=size: downstream.send_from(
                OK, source, 0, size
            )
            self.assertEqual(OK + b"\r\n" + bytes(size), self.rig.say(GET % 2).received)

    def test_what_ends_nobody_knows_where_does_not_wait_until_it_is_large(self) -> None:
        self.asking()
        source = Given(None, b"page")
        self.rig.route = lambda request, downstream: downstream.send_from(OK[:17], source, 0, None)
        client = self.rig.say(GET % 2)
        self.assertTrue(client.received.endswith(b"\r\n4\r\npage\r\n"), client.received)
        source.give(bytes(PIECE))
        self.rig.network.settle()
        self.assertTrue(client.received.endswith(bytes(PIECE) + b"\r\n"))
        large = len(client.received)
        source.give(b"more")
        self.rig.network.settle()
        self.assertEqual(large, len(client.received))

    def test_what_is_written_past_the_transport_waits_as_well(self) -> None:
        offered: list[int] = []
        self.rig.route = lambda request, downstream: offered.extend(map(downstream.straight_socket, (BURST, PIECE)))
        self.rig.connect()
        self.rig.link.b.protocol._descriptor = 7
        self.rig.listener.octets.spend(TURN)
        self.rig.link.b.protocol.data_received(GET % 1)
        self.assertEqual([-1, 7], offered)

    def test_what_cannot_be_written_past_the_transport_takes_nothing_of_the_turn(self) -> None:
        """With TLS, nothing can: it would be counted twice, and each would wait for a turn of its own."""
        offered: list[int] = []
        self.rig.route = lambda request, downstream: offered.append(downstream.straight_socket(BURST))
        self.rig.connect()
        self.rig.link.b.protocol.data_received(GET % 1)
        self.assertEqual(([-1], True), (offered, self.rig.listener.octets.open))

    def test_a_client_that_leaves_while_it_waits_is_forgotten(self) -> None:
        self.asking()
        self.asking()
        self.rig.link.cut(ConnectionResetError())
        self.assertEqual([], self.sources[1].readers)
        while self.loop.calls:
            self.loop.turn()
        self.assertEqual(0, self.sources[1].reads)


class HeadsTests(SynchronousTestCase):
    """However many send what is not just one request, nobody else waits for more than some of them."""

    def setUp(self) -> None:
        self.loop = Loop()
        self.rig = Rig()
        self.rig.listener.heads = Turns(self.loop.soon, HEADS)

    def crowd(self, octets: bytes) -> list[Client]:
        clients = [self.rig.connect() for _ in range(2 * HEADS + 1)]
        for link in self.rig.network.links:
            link.b.protocol.data_received(octets)
        return clients

    def answered(self, clients: list[Client]) -> int:
        self.rig.network.settle()
        return sum(client.received != b"" for client in clients)

    def test_faults_are_looked_for_and_told_some_in_each_turn(self) -> None:
        for octets in (GET[:-2] + b"X: y\r\n" * 200, b"nonsense\r\n\r\n"):
            self.setUp()
            clients = self.crowd(octets)
            answered = [self.answered(clients)]
            while self.loop.calls:
                self.loop.turn()
                answered.append(self.answered(clients))
            self.assertEqual([HEADS, 2 * HEADS, 2 * HEADS + 1], answered[:3])

    def test_a_whole_request_does_not_wait(self) -> None:
        self.crowd(b"nonsense\r\n\r\n")
        self.assertEqual(OK + b"\r\nok", self.rig.say(GET % 1).received)

    def test_what_comes_while_it_waits_is_in_order_and_its_end_is_seen(self) -> None:
        self.rig.listener.heads.spend(HEADS)
        client = self.rig.connect()
        for octets in (b"GET /1 HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n" + GET % 2, GET % 3):
            self.rig.say(octets, client)
        client.transport.write_eof()
        self.assertEqual(0, self.answered([client]))
        while self.loop.calls:
            self.loop.turn()
            self.rig.network.settle()
        self.assertEqual([b"/1", b"/2", b"/3"], [request.target for request in self.rig.requests])
        self.assertTrue(client.lost)

    def test_what_has_come_in_time_and_waits_for_its_turn_is_not_late(self) -> None:
        """Turns may be long, and a machine may stand still."""
        self.rig.listener.heads.spend(HEADS)
        client, large, late = self.rig.connect(), self.rig.connect(), self.rig.connect()
        for octets in (b"GET /1 HTTP/1.1\r\n", b"Host: a\r\n\r\n" + GET % 2):
            self.rig.say(octets, client)
        self.rig.say(GET[:-2] + b"X: y\r\n" * 2000, large)
        self.rig.say(GET[:-2], late)
        self.rig.seconds(12)
        self.assertEqual([b"/1", b"/2"], [request.target for request in self.rig.requests])
        self.assertEqual(b"HTTP/1.1 431 ", large.received[:13])
        self.assertEqual(b"HTTP/1.1 408 ", late.received[:13])
        while self.loop.calls:
            self.loop.turn()
        self.assertEqual(2, len(self.rig.requests))

    def test_who_sends_much_while_it_waits_is_not_read(self) -> None:
        self.rig.listener.heads.spend(HEADS)
        client = self.rig.say(GET[:-2] + b"X" * PIPELINE_OCTETS)
        self.assertFalse(self.rig.link.b.is_reading())
        self.loop.turn()
        self.rig.network.settle()
        self.assertEqual(b"HTTP/1.1 431 ", client.received[:13])

    def test_what_is_too_much_to_be_kept_is_looked_at_at_once(self) -> None:
        self.rig.listener.heads.spend(HEADS)
        for already in (b"", GET[:-2]):
            self.rig.connect()
            received = self.rig.link.b.protocol.data_received
            received(already)
            received(GET[:-2] + b"X" * PIPELINE_MOST)
            self.rig.network.settle()
            self.assertIn(b"HTTP/1.1 4", self.rig.link.a.protocol.received)
            self.assertTrue(self.rig.link.b.is_reading())

    def test_one_that_leaves_while_it_waits_is_forgotten(self) -> None:
        self.rig.listener.heads.spend(HEADS)
        self.rig.say(b"GET / HTTP/1.1\r\nHost: a\r\n")
        self.rig.say(b"\r\n", None)
        for link in self.rig.network.links:
            link.cut(ConnectionResetError())
        while self.loop.calls:
            self.loop.turn()
        self.assertEqual([], self.rig.requests)

    def test_those_that_have_left_take_no_turn_from_others(self) -> None:
        """However fast they come and go, those who wait are no more than there are connections."""
        self.rig.listener.heads.spend(HEADS)
        clients = self.crowd(GET[:-2])
        for link in self.rig.network.links:
            link.cut(ConnectionResetError())
        client = self.rig.say(b"GET /1 HTTP/1.1\r\n")
        self.rig.say(b"Host: a\r\n\r\n", client)
        self.loop.turn()
        self.assertEqual(1, self.answered([*clients, client]))


@define(eq=False)
class SlowSink:
    """A socket that takes a few octets at a time, past its transport, which takes none."""

    def put(self, pieces: list[bytes], content_octets: int) -> bool:
        return False

    def direct(self) -> int:
        return 7

    def put_directly(self, octets: int, content_octets: int) -> None:
        """Nobody counts."""

    def pumped(self, complete: bool) -> None:
        """It never ends."""


@define(eq=False)
class Verified(Given):
    """What it is asked for is verified, whatever is taken of it."""

    asked: int = 0

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        self.asked += limit
        return len(before) + 10


class SlowReaderTests(SynchronousTestCase):
    def test_what_is_looked_at_for_slow_readers_counts_and_not_the_little_that_they_take(self) -> None:
        loop, size = Loop(), 4 * BURST
        turns = Turns(loop.soon, TURN)
        sources = [Verified(size, bytes(size), complete=True) for _ in range(40)]
        pumps = [Pump(SlowSink(), turns, source, 0, size, chunked=False) for source in sources]
        for pump in pumps:
            pump.start(b"head")
        looked_at = sum(source.asked for source in sources)
        self.assertLessEqual(looked_at, TURN + BURST)
        while loop.calls:
            loop.turn()
            now = sum(source.asked for source in sources)
            self.assertLessEqual(now - looked_at, TURN + BURST)
            looked_at = now
        self.assertTrue(all(source.asked for source in sources))
