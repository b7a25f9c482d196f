"""
A content that goes on elsewhere, exact on the clock: the nine rules of FIELD 1 by their numbers, then what may
happen meanwhile.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.continuing import Continuing
from edgecache.rules.digests import Digest
from edgecache.upstream.addresses import Address
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import (
    ConnectionLost,
    ContentStalled,
    NotTaken,
    ResolveFailed,
    UpstreamFailed,
    WrongDigest,
    WrongRange,
)
from edgecache.words.messages import Outbound
from edgecache.words.reasons import Outcome
from tests.characters import (
    Boasting,
    Character,
    Chunking,
    Cut,
    Dripping,
    Good,
    Lying,
    Multipart,
    Refusing,
    Resetting,
    Saying,
    Shifting,
    Silent,
    Stage,
    Stalling,
    Stubborn,
    Wholesale,
)
from tests.upstream.rig import GET, HEAD, Holder, Taker

MEGABYTE = random.Random(1).randbytes(1_000_000)
TENTH = 100_000
SHA = hashlib.sha256(MEGABYTE).digest()
REPR = (b"Repr-Digest", b"sha-256=:" + base64.b64encode(SHA) + b":")
DIGEST = Digest("sha-256", SHA)

STALLED, LOST, SLOW = Outcome.STALLED, Outcome.LOST, Outcome.TOO_SLOW
WRONG_RANGE, WRONG_DIGEST = Outcome.WRONG_RANGE, Outcome.WRONG_DIGEST


@define(eq=False)
class Pausing(Taker):
    """A sink that pauses ``response`` whenever it has ``at`` octets or more."""

    at: int = 0
    response: Any = None

    def data(self, data: bytes) -> None:
        super().data(data)
        if self.response is not None and len(self.content) >= self.at:
            self.response.pause()


@define(eq=False)
class Leaving(Taker):
    """A sink that cancels once it has ``at`` octets."""

    at: int = 0
    response: Any = None

    def data(self, data: bytes) -> None:
        super().data(data)
        if len(self.content) >= self.at:
            self.response.cancel()


@define(eq=False)
class Starved(Holder):
    """A sink that finds no memory for what comes from now on."""

    starved: bool = False

    def data(self, data: bytes) -> None:
        if self.starved:
            raise MemoryError
        super().data(data)


@define(eq=False)
class Rig:
    """
    Characters at addresses "1", "2", ...; the first is asked first, and a rest of those not tried, in order.

    :ivar told: how exchanges ended, in order: host, and an outcome or "good".
    :ivar tried: what each question for a rest excluded.
    """

    settings: UpstreamSettings = field(factory=UpstreamSettings)
    stage: Stage = field(factory=Stage)
    addresses: list[Address] = field(factory=list)
    healthy: bool = True
    told: list[tuple[str, object]] = field(factory=list)
    targets: list[bytes | None] = field(factory=list)
    tried: list[set[str]] = field(factory=list)
    counted: dict[int, int] = field(factory=dict)
    overs: int = 0
    cancelled: int = 0
    asking: Callable[[Outbound, frozenset[Address]], Deferred[Response]] | None = None
    client: Client = field(init=False)
    taker: Taker = field(factory=Taker)

    def __attrs_post_init__(self) -> None:
        self.client = Client(self.stage, self.stage.clock, self.settings)

    def play(self, *characters: Character) -> None:
        for character in characters:
            self.addresses.append(self.stage.play(str(len(self.addresses) + 1), character))

    def ask(self, outbound: Outbound = GET, digest: Digest | None = None, *, attach: bool = True) -> Continuing:
        """Ask the first address, and hand its content to the taker."""
        made: list[Continuing] = []

        def answered(response: Response) -> None:
            continuing = Continuing(
                response,
                outbound,
                self.asking or self.rest,
                self,
                self.stage.clock,
                self.settings,
                self,
                lambda address: self.healthy,
                self.over,
                digest,
            )
            made.append(continuing)
            if isinstance(self.taker, Pausing | Leaving):
                self.taker.response = continuing
            if attach:
                continuing.attach(self.taker)

        _ = self.client.ask(self.addresses[0], outbound).addCallback(answered)
        self.stage.settle()
        return made[0]

    def fetch(self, *characters: Character, digest: Digest | None = None, outbound: Outbound = GET) -> Continuing:
        self.play(*characters)
        return self.ask(outbound, digest)

    def advance(self, seconds: float) -> None:
        self.stage.advance(seconds)

    def rest(self, outbound: Outbound, tried: frozenset[Address]) -> Deferred[Response]:
        self.tried.append({address.host for address in tried})
        left = [address for address in self.addresses if address not in tried]
        asking: list[Deferred[Response]] = []

        def cancel(_: object) -> None:
            self.cancelled += 1
            asking[-1].cancel()

        result: Deferred[Response] = Deferred(cancel)

        def proceed(failure: Failure | None) -> None:
            if not left or (failure is not None and failure.check(CancelledError)):
                result.errback(failure or ResolveFailed("all", 0.0, "none is left"))
                return
            asking.append(self.client.ask(left.pop(0), outbound))
            _ = asking[-1].addCallbacks(result.callback, proceed)

        proceed(None)
        return result

    def good(self, address: Address) -> None:
        self.told.append((address.host, "good"))

    def failed(self, address: Address, outcome: Outcome | None, target: bytes | None = None) -> None:
        self.told.append((address.host, outcome))
        self.targets.append(target)

    def add(self, counter: int, n: int = 1) -> None:
        self.counted[counter] = self.counted.get(counter, 0) + n

    def over(self) -> None:
        self.overs += 1

    def quiet(self) -> bool:
        """Does nothing remain once it is over?"""
        self.client.close()
        self.stage.settle()
        return not self.stage.clock.getDelayedCalls() and not self.client._pools


class ContinuingCase(SynchronousTestCase):
    """Every test ends with nothing left behind, and with ``over`` called once."""

    def setUp(self) -> None:
        self.rig = Rig()

    def tearDown(self) -> None:
        self.assertEqual((1, True), (self.rig.overs, self.rig.quiet()))

    def assert_complete(self, content: bytes = MEGABYTE) -> None:
        taker = self.rig.taker
        self.assertIsNone(taker.failure)
        self.assertTrue(taker.ended)
        self.assertTrue(content == taker.content, f"{len(taker.content)} octets, or others")

    def assert_broken(self, failure: type[UpstreamFailed], content: bytes = MEGABYTE[:TENTH]) -> None:
        taker = self.rig.taker
        self.assertIsInstance(taker.failure, failure)
        self.assertTrue(content == taker.content, f"{len(taker.content)} octets, or others")


class UnbrokenTests(ContinuingCase):
    def test_a_content_that_is_complete_is_handed_on_and_its_address_is_good(self) -> None:
        continuing = self.rig.fetch(Good(MEGABYTE), Good(MEGABYTE))
        self.assert_complete()
        self.assertEqual(([("1", "good")], [], {}), (self.rig.told, self.rig.tried, self.rig.counted))
        self.assertEqual((1_000_000, False), (continuing.received, continuing.resumed))
        self.assertEqual((200, 1_000_000, False), (continuing.head.status, continuing.length, continuing.empty))
        self.assertEqual((self.rig.addresses[0], 1), (continuing.address, continuing.minor))

    def test_an_address_is_good_as_soon_as_enough_octets_came(self) -> None:
        stalling = Stalling(MEGABYTE, after=(64 << 10) - 1)
        self.rig.fetch(stalling).cancel()
        self.assertEqual([], self.rig.told)
        self.rig.addresses.clear()
        self.rig.overs = 0
        stalling.after += 1
        self.rig.taker = Taker()
        self.rig.fetch(stalling).cancel()
        self.assertEqual([("1", "good")], self.rig.told)

    def test_small_content_is_good_when_it_is_complete(self) -> None:
        self.rig.fetch(Good(b"small"))
        self.assert_complete(b"small")
        self.assertEqual([("1", "good")], self.rig.told)

    def test_a_response_without_content_is_good(self) -> None:
        self.rig.fetch(Good(MEGABYTE), outbound=HEAD)
        self.assert_complete(b"")
        self.assertEqual([("1", "good")], self.rig.told)

    def test_a_response_without_content_may_be_cancelled_as_well(self) -> None:
        self.rig.play(Good(MEGABYTE))
        self.rig.ask(evolve(GET, fields=[(b"if-none-match", b'"one"')]), attach=False).cancel()
        self.assertEqual([("1", "good")], self.rig.told)

    def test_an_error_is_no_sign_of_health(self) -> None:
        self.rig.fetch(Good(b"sorry", status=b"503 Busy"))
        self.assert_complete(b"sorry")
        self.assertEqual([], self.rig.told)


class StarvedTests(ContinuingCase):
    """A sink that has failed within a piece may have some of it: a rest would be put to other octets than its own."""

    def setUp(self) -> None:
        super().setUp()
        self.taker = self.rig.taker = Starved()
        self.continuing = self.rig.fetch(Stalling(MEGABYTE, after=TENTH), Good(MEGABYTE))

    def assert_over(self) -> None:
        self.assert_broken(NotTaken)
        self.assertEqual([("1", "good")], self.rig.told)
        self.assertEqual([], self.rig.tried)
        self.rig.advance(60)
        self.assertEqual([], self.rig.tried)

    def test_no_rest_is_asked_for_and_nobody_is_blamed(self) -> None:
        self.taker.starved = True
        response: Any = self.continuing._response
        self.assertRaises(MemoryError, response.received, MEGABYTE[TENTH : 2 * TENTH])
        self.assert_over()

    def test_nor_after_octets_that_were_read_into_its_own_memory(self) -> None:
        self.taker.starved = True
        response: Any = self.continuing._response
        response.room()
        self.assertRaises(MemoryError, response.filled, 1000)
        self.assert_over()

    def test_nor_after_those_that_were_held_for_it(self) -> None:
        self.continuing.pause()
        response: Any = self.continuing._response
        response.received(MEGABYTE[TENTH : 2 * TENTH])
        self.taker.starved = True
        self.assertRaises(MemoryError, self.continuing.resume)
        self.assert_over()

    def test_nor_if_it_was_not_the_sink_that_failed(self) -> None:
        response: Any = self.continuing._response
        self.continuing._sources = None  # type: ignore[assignment]  # a defect
        self.assertRaises(AttributeError, response.received, MEGABYTE[TENTH : 2 * TENTH])
        self.assert_over()


class Rule1Tests(ContinuingCase):
    """What is not known well enough breaks off as it did."""

    def test_without_a_strong_validator_or_a_digest_it_breaks_off(self) -> None:
        for etag in (None, b'W/"one"'):
            self.rig = Rig()
            self.rig.fetch(Stalling(MEGABYTE, etag=etag, after=TENTH), Good(MEGABYTE, etag=etag))
            self.rig.advance(3.1)
            self.assert_broken(ContentStalled)
            self.assertEqual([("1", "good"), ("1", STALLED)], self.rig.told)
            self.assertEqual([], self.rig.tried)

    def test_only_a_get_that_was_answered_200_goes_on(self) -> None:
        for outbound in (
            Outbound(b"POST", b"/thing", []),
            evolve(GET, fields=[(b"range", b"bytes=1-")]),
        ):
            self.rig = Rig()
            self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE), outbound=outbound)
            self.assertIsInstance(self.rig.taker.failure, ConnectionLost)
            self.assertEqual([], self.rig.tried)

    def test_content_that_only_the_end_of_the_connection_ends_does_not_go_on(self) -> None:
        octets = b'HTTP/1.0 200 OK\r\nETag: "one"\r\n\r\n' + MEGABYTE[:TENTH]
        self.rig.fetch(Saying(octets), Good(MEGABYTE))
        self.rig.advance(3.1)
        self.assert_broken(ContentStalled)

    def test_chunks_without_a_length_go_on_with_a_rest_that_tells_it(self) -> None:
        self.rig.fetch(Chunking(MEGABYTE, after=TENTH), Good(MEGABYTE))
        self.assert_complete()
        self.assertEqual([("1", "good"), ("1", LOST), ("2", "good")], self.rig.told)

    def test_chunks_go_on_with_chunks(self) -> None:
        for ranges in (True, False):
            self.rig = Rig()
            self.rig.fetch(Chunking(MEGABYTE, after=TENTH), Chunking(MEGABYTE, ranges=ranges))
            self.assert_complete()

    def test_chunks_that_are_fewer_elsewhere_are_not_the_same(self) -> None:
        self.rig.fetch(Chunking(MEGABYTE, after=TENTH, ranges=False), Chunking(MEGABYTE[:50_000], ranges=False))
        self.assertIsNotNone(self.rig.taker.failure)
        self.assertTrue(MEGABYTE[:TENTH] == self.rig.taker.content)


class Rule2Tests(ContinuingCase):
    """Stall, reset, early end, or too slow: counted against the address, and the next one is chosen."""

    def assert_resumed(self, outcome: Outcome) -> None:
        self.assert_complete()
        self.assertEqual([("1", "good"), ("1", outcome), ("2", "good")], self.rig.told)
        self.assertEqual([b"/thing"], self.rig.targets)
        self.assertEqual([{"1"}], self.rig.tried)
        expected = {Counter.RESUMES: 1, Counter.RESUMED: 1, Counter.UPSTREAM_FAILURES: 1}
        self.assertEqual(expected, self.rig.counted)

    def test_a_stall_is_resumed_after_3_seconds(self) -> None:
        good = Good(MEGABYTE)
        self.rig.fetch(Stalling(MEGABYTE, after=TENTH), good)
        self.rig.advance(2.9)
        self.assertEqual((TENTH, []), (len(self.rig.taker.content), good.asked))
        self.rig.advance(0.2)
        self.assert_resumed(STALLED)
        self.assertEqual(1, len(good.asked))

    def test_a_reset_is_resumed_at_once(self) -> None:
        self.rig.fetch(Resetting(MEGABYTE, after=TENTH), Good(MEGABYTE))
        self.assert_resumed(LOST)

    def test_an_early_end_is_resumed_at_once(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE))
        self.assert_resumed(LOST)

    def test_under_1_kib_a_second_for_10_seconds_is_left_for_a_healthy_one(self) -> None:
        clock = self.rig.stage.clock
        slow = Dripping(MEGABYTE, timers=clock, piece=1000, seconds=1.0, at_once=TENTH)
        self.rig.fetch(slow, Good(MEGABYTE))
        # What came at once leaves the window after ten looks, a second each.
        for _ in range(11):
            self.assertFalse(self.rig.tried)
            self.rig.advance(1.0)
        self.assert_resumed(SLOW)
        self.rig.advance(2.0)  # its player notices that nobody listens

    def test_1_kib_a_second_is_not_too_slow(self) -> None:
        slow = Dripping(MEGABYTE[:40_000], timers=self.rig.stage.clock, piece=1200, seconds=1.0, at_once=1000)
        self.rig.fetch(slow, Good(MEGABYTE))
        for _ in range(40):
            self.rig.advance(1.0)
        self.assert_complete(MEGABYTE[:40_000])
        self.assertEqual([("1", "good")], self.rig.told)

    def test_a_slow_one_is_kept_while_no_other_is_healthy(self) -> None:
        slow = Dripping(MEGABYTE, timers=self.rig.stage.clock, piece=100, seconds=1.0, at_once=TENTH)
        self.rig.healthy = False
        self.rig.fetch(slow, Good(MEGABYTE))
        for _ in range(30):
            self.rig.advance(1.0)
        self.assertEqual([("1", "good")], self.rig.told)
        self.rig.healthy = True
        self.rig.advance(1.0)
        self.assert_resumed(SLOW)
        self.rig.advance(2.0)

    def test_one_that_nobody_could_take_over_is_never_too_slow(self) -> None:
        slow = Dripping(b"x" * 1000, etag=None, timers=self.rig.stage.clock, piece=10, seconds=0.5, at_once=300)
        self.rig.fetch(slow, Good(b"x" * 1000))
        for _ in range(100):
            self.rig.advance(1.0)
        self.assert_complete(b"x" * 1000)

    def test_a_slow_one_is_kept_where_no_rest_may_be_asked_for_any_more(self) -> None:
        self.rig = Rig(UpstreamSettings(resumes=0))
        slow = Dripping(MEGABYTE[:4000], timers=self.rig.stage.clock, piece=100, seconds=1.0, at_once=1000)
        self.rig.fetch(slow, Good(MEGABYTE[:4000]))
        for _ in range(40):
            self.rig.advance(1.0)
        self.assert_complete(MEGABYTE[:4000])

    def test_who_reads_slowly_itself_does_not_call_the_address_slow(self) -> None:
        slow = Dripping(MEGABYTE, timers=self.rig.stage.clock, piece=100, seconds=1.0, at_once=TENTH)
        continuing = self.rig.fetch(slow, Good(MEGABYTE))
        for second in range(40):
            self.rig.advance(1.0)
            if second % 5 == 0:
                continuing.pause()
                continuing.resume()
        self.assertEqual([("1", "good")], self.rig.told)
        continuing.cancel()
        self.rig.stage.settle()
        self.rig.advance(2.0)


class Rule3Tests(ContinuingCase):
    """The request for the rest."""

    def test_range_with_an_overlap_if_range_and_the_same_fields(self) -> None:
        good = Good(MEGABYTE)
        fields = [(b"accept", b"text/html"), (b"accept-encoding", b"gzip"), (b"if-none-match", b'"old"')]
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), good, outbound=evolve(GET, fields=fields))
        self.assert_complete()
        [asked] = good.asked
        expected = {
            b"host": b"origin.example",
            b"accept": b"text/html",
            b"accept-encoding": b"gzip",
            b"range": b"bytes=%d-" % (TENTH - 4096),
            b"if-range": b'"one"',
        }
        self.assertEqual((b"GET", b"/thing", expected), (asked.method, asked.target, asked.fields))

    def test_exact_octets_wherever_it_breaks_off(self) -> None:
        content = MEGABYTE[:10_000]
        for after in (0, 1, 4095, 4096, 4097, 5000, 8192, 9_999):
            for good in (Good(content), Wholesale(content)):
                self.rig = Rig()
                self.rig.fetch(Cut(content, after=after), good)
                self.assert_complete(content)
                self.assertEqual(b"bytes=%d-" % max(0, after - 4096), good.asked[0].fields.get(b"range", b"bytes=0-"))
                self.assertEqual(1, self.rig.overs)

    def test_exact_octets_however_they_arrive(self) -> None:
        content = MEGABYTE[:12_000]
        for quantum in (1, 7, 4096, 5000):
            for good in (Good(content), Wholesale(content)):
                self.rig = Rig()
                self.rig.play(Cut(content, after=6000), good)
                continuing = self.rig.ask(attach=False)
                continuing.attach(self.rig.taker)
                self.rig.stage.settle(quantum)
                self.assert_complete(content)

    def test_exact_octets_when_the_last_of_them_begin_another_piece_of_memory(self) -> None:
        for after in (TENTH + 70_001, TENTH + 70_000 + 33_333):
            self.rig, holder = Rig(), Holder(sizes=(70_000, 33_333))
            self.rig.taker = holder
            continuing = self.rig.fetch(Stalling(MEGABYTE, after=TENTH), Good(MEGABYTE))
            position = TENTH
            for room in continuing.room(len(MEGABYTE) - TENTH - 1):
                room[:] = MEGABYTE[position : position + len(room)]
                position += len(room)
            continuing.filled(after - TENTH)
            self.rig.advance(3.1)
            self.assert_complete()
            self.assertEqual(("1", STALLED), self.rig.told[-2])
            self.assertEqual(1, len(self.rig.tried))


class Rule4Tests(ContinuingCase):
    """Whatever is not exactly the rest is refused; what a server must not send counts against it."""

    def check(self, second: Character, told: list[tuple[str, object]], third: Character | None = None) -> None:
        """After ``second`` is refused, ``third`` completes it."""
        good = Good(MEGABYTE)
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), second, third or good)
        self.assert_complete()
        self.assertEqual([("1", "good"), ("1", LOST), *told, ("3", "good")], self.rig.told)
        self.assertEqual([{"1"}, {"1", "2"}], self.rig.tried)
        self.assertEqual(1, self.rig.counted[Counter.RESUMES])

    def test_another_entity_tag_on_the_other_server_is_not_the_rest(self) -> None:
        self.check(Good(MEGABYTE, etag=b'"two"'), [])

    def test_a_206_for_another_entity_tag_is_wrong(self) -> None:
        self.check(Stubborn(MEGABYTE, etag=b'"two"'), [("2", WRONG_RANGE)])

    def test_a_range_that_begins_elsewhere_is_wrong(self) -> None:
        self.check(Shifting(MEGABYTE), [("2", WRONG_RANGE)])

    def test_another_complete_length_is_wrong(self) -> None:
        self.check(Good(MEGABYTE + b"more"), [("2", WRONG_RANGE)])

    def test_a_complete_length_that_contradicts_the_range_is_wrong(self) -> None:
        self.check(Boasting(MEGABYTE), [("2", WRONG_RANGE)])

    def test_several_parts_are_wrong(self) -> None:
        self.check(Multipart(MEGABYTE), [("2", WRONG_RANGE)])

    def test_other_octets_in_the_overlap_are_wrong(self) -> None:
        other = bytearray(MEGABYTE)
        other[TENTH - 1] ^= 1
        self.check(Good(bytes(other)), [("2", WRONG_RANGE)])
        self.rig.overs -= 1
        self.rig = Rig()
        other = bytearray(MEGABYTE)
        other[TENTH - 4096] ^= 1
        self.check(Wholesale(bytes(other)), [("2", WRONG_RANGE)])

    def test_another_coding_is_not_the_rest(self) -> None:
        self.check(Good(MEGABYTE, fields=((b"Content-Encoding", b"gzip"),)), [])

    def test_a_lie_about_the_length_in_chunks_is_found_in_the_content(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), LongChunks(MEGABYTE), Good(MEGABYTE))
        self.assertIsInstance(self.rig.taker.failure, WrongRange)
        self.assertFalse(self.rig.taker.ended)
        self.assertIn(("2", WRONG_RANGE), self.rig.told)

    def test_one_that_is_not_found_there_is_not_the_rest(self) -> None:
        self.check(Saying(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"), [])


@define(eq=False)
class LongChunks(Chunking):
    """A right head, and more chunks than it says."""

    def response(self, asked: Any) -> tuple[bytes, bytes]:
        head, content = super().response(asked)
        return head, content + b"more"


class Rule5Tests(ContinuingCase):
    """A 200 with the same validator and length: what we have is dropped."""

    def test_it_goes_on_with_the_whole(self) -> None:
        whole = Wholesale(MEGABYTE)
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), whole)
        self.assert_complete()
        self.assertEqual([("1", "good"), ("1", LOST), ("2", "good")], self.rig.told)
        self.assertEqual(1, len(whole.asked))

    def test_another_length_or_tag_is_not_it(self) -> None:
        for other in (Wholesale(MEGABYTE + b"x"), Wholesale(MEGABYTE, etag=b'"two"'), Wholesale(MEGABYTE, etag=None)):
            self.rig = Rig()
            self.rig.fetch(Cut(MEGABYTE, after=TENTH), other, Good(MEGABYTE))
            self.assert_complete()
            self.assertEqual([("1", "good"), ("1", LOST), ("3", "good")], self.rig.told)

    def test_a_stall_while_octets_are_dropped_is_a_stall(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), StallingWholesale(MEGABYTE, after=50_000), Good(MEGABYTE))
        self.rig.advance(3.1)
        self.assert_complete()
        self.assertEqual([("1", "good"), ("1", LOST), ("2", STALLED), ("3", "good")], self.rig.told)


@define(eq=False)
class StallingWholesale(Wholesale, Stalling):
    """Both."""


class Rule6Tests(ContinuingCase):
    """Named by its digest, content goes on whatever the entity tag, and the digest decides."""

    def test_a_mirror_with_another_entity_tag_helps_out(self) -> None:
        mirror = Good(MEGABYTE, etag=b'"two"')
        continuing = self.rig.fetch(Cut(MEGABYTE, after=TENTH), mirror, digest=DIGEST)
        self.assert_complete()
        self.assertEqual(DIGEST, continuing.digest)
        self.assertNotIn(b"if-range", mirror.asked[0].fields)
        self.assertEqual(b"bytes=%d-" % (TENTH - 4096), mirror.asked[0].fields[b"range"])

    def test_repr_digest_names_it_too(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, etag=None, fields=(REPR,), after=TENTH), Good(MEGABYTE, etag=None))
        self.assert_complete()

    def test_a_wrong_digest_after_a_rest_is_nobodys_fault(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), Lying(MEGABYTE, after=200_000), digest=DIGEST)
        failure = self.rig.taker.failure
        assert isinstance(failure, WrongDigest)
        self.assertTrue(failure.resumed)
        self.assertFalse(self.rig.taker.ended)
        self.assertEqual([("1", "good"), ("1", LOST), ("2", "good")], self.rig.told)
        self.assertNotIn(Counter.RESUMED, self.rig.counted)

    def test_a_wrong_digest_from_one_address_is_its_fault(self) -> None:
        self.rig.fetch(Good(MEGABYTE[::-1]), Good(MEGABYTE), digest=DIGEST)
        failure = self.rig.taker.failure
        assert isinstance(failure, WrongDigest)
        self.assertFalse(failure.resumed)
        self.assertEqual([("1", "good"), ("1", WRONG_DIGEST)], self.rig.told)
        self.assertEqual([], self.rig.tried)

    def test_also_if_another_gave_a_head_alone(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=0), Good(MEGABYTE[::-1]), digest=DIGEST)
        self.assertEqual([("1", LOST), ("2", "good"), ("2", WRONG_DIGEST)], self.rig.told)

    def test_other_octets_in_the_overlap_are_not_the_rest_and_nobodys_fault(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE[::-1]), Good(MEGABYTE), digest=DIGEST)
        self.assert_complete()
        self.assertEqual([("1", "good"), ("1", LOST), ("3", "good")], self.rig.told)

    def test_only_the_whole_content_of_a_200_is_checked(self) -> None:
        self.rig.fetch(Good(MEGABYTE, fields=(REPR,)), outbound=evolve(GET, fields=[(b"range", b"bytes=1-")]))
        self.assert_complete(MEGABYTE[1:])


class Rule8Tests(ContinuingCase):
    """No way on: it breaks off, with everything good handed over and no end."""

    def test_no_other_address_and_this_one_is_lost_too(self) -> None:
        self.rig.play(Stalling(MEGABYTE, after=TENTH))
        self.rig.ask()
        self.rig.stage._hosts.clear()
        self.rig.advance(3.1)
        self.assert_broken(ContentStalled)

    def test_all_others_refuse_or_are_silent(self) -> None:
        self.rig.fetch(Stalling(MEGABYTE, after=TENTH), Refusing(), Silent())
        self.rig.advance(3.1)
        self.assertIsNone(self.rig.taker.failure)
        # "2" refuses, "3" is silent, "1" may be asked again, and stalls again behind the overlap.
        self.rig.advance(5.1)
        self.rig.advance(3.1)
        self.assertEqual([{"1"}, set(), {"1"}], self.rig.tried)
        self.rig.advance(5.1)
        self.assert_broken(ContentStalled, MEGABYTE[: 2 * TENTH - 4096])

    def test_everybody_has_something_else(self) -> None:
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE, etag=b'"two"'), Wholesale(MEGABYTE, etag=None))
        self.assertIsNotNone(self.rig.taker.failure)
        self.assertFalse(self.rig.taker.ended)
        self.assertEqual(1, self.rig.counted[Counter.RESUMES])
        self.assertNotIn(Counter.RESUMED, self.rig.counted)


class Rule9Tests(ContinuingCase):
    """At most one resume per address and four per fill."""

    def test_an_only_address_is_asked_for_the_rest_once(self) -> None:
        cut = Cut(MEGABYTE, after=TENTH)
        self.rig.fetch(cut)
        # The second answer is as long, 4096 octets of it an overlap.
        self.assert_broken(ConnectionLost, MEGABYTE[: 2 * TENTH - 4096])
        self.assertEqual([{"1"}, set(), {"1"}], self.rig.tried)
        self.assertEqual(2, len(cut.asked))

    def test_the_one_that_broke_off_comes_last(self) -> None:
        first, second = Cut(MEGABYTE, after=TENTH), Cut(MEGABYTE, after=TENTH)
        self.rig.fetch(first, second)
        self.assertEqual([{"1"}, {"1", "2"}, {"2"}, {"1", "2"}], self.rig.tried)
        self.assertEqual((2, 1), (len(first.asked), len(second.asked)))

    def test_four_rests_are_enough(self) -> None:
        cuts = [Cut(MEGABYTE, after=TENTH) for _ in range(7)]
        self.rig.fetch(*cuts)
        self.assert_broken(ConnectionLost, MEGABYTE[: 5 * TENTH - 4 * 4096])
        self.assertEqual([1, 1, 1, 1, 1, 0, 0], [len(cut.asked) for cut in cuts])

    def test_fewer_or_none_if_so_configured(self) -> None:
        for resumes in (0, 1):
            self.rig = Rig(UpstreamSettings(resumes=resumes))
            self.rig.fetch(*[Cut(MEGABYTE, after=TENTH) for _ in range(4)])
            self.assertIsInstance(self.rig.taker.failure, ConnectionLost)
            self.assertEqual(resumes, len(self.rig.tried))

    def test_a_refused_rest_counts(self) -> None:
        others = [Good(MEGABYTE, etag=b'"two"') for _ in range(5)]
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), *others)
        self.assertEqual([1, 1, 1, 1, 0], [len(other.asked) for other in others])
        self.assertIsNotNone(self.rig.taker.failure)

    def test_one_after_the_other_completes_it(self) -> None:
        self.rig.fetch(*[Cut(MEGABYTE, after=300_000) for _ in range(3)], Good(MEGABYTE))
        self.assert_complete()
        self.assertEqual({Counter.RESUMES: 1, Counter.RESUMED: 1, Counter.UPSTREAM_FAILURES: 3}, self.rig.counted)


class PausedTests(ContinuingCase):
    """A sink that wants no more for now."""

    def test_nothing_is_handed_over_while_paused_and_no_stall_clock_runs(self) -> None:
        self.rig.taker = Pausing(at=50_000)
        continuing = self.rig.fetch(Stalling(MEGABYTE, after=TENTH), Good(MEGABYTE))
        had = len(self.rig.taker.content)
        self.assertTrue(50_000 <= had < TENTH)
        self.rig.advance(100)
        self.assertEqual((had, []), (len(self.rig.taker.content), self.rig.tried))
        self.rig.taker.at = 2 * len(MEGABYTE)
        continuing.resume()
        self.rig.stage.settle()
        self.rig.advance(2.9)
        self.assertEqual([], self.rig.tried)
        self.rig.advance(0.2)
        self.assert_complete()

    def test_a_failure_behind_a_pause_is_acted_upon_at_once(self) -> None:
        good = Good(MEGABYTE)
        continuing = self.rig.fetch(Stalling(MEGABYTE, after=TENTH), good)
        continuing.pause()
        self.rig.stage.links[0].cut(ConnectionResetError("reset by peer"))
        self.rig.stage.settle()
        self.assertEqual((1, TENTH), (len(good.asked), len(self.rig.taker.content)))
        self.rig.advance(100)
        self.assertEqual(TENTH, len(self.rig.taker.content))
        continuing.resume()
        self.rig.stage.settle()
        self.assert_complete()

    def test_octets_before_a_failure_behind_a_pause_are_not_lost(self) -> None:
        # One read brings two chunks and an octet that is none; the sink pauses at the first chunk.
        broken = b'HTTP/1.1 200 OK\r\nETag: "one"\r\nTransfer-Encoding: chunked\r\n\r\n'
        chunks = b"".join(b"1388\r\n%b\r\n" % MEGABYTE[start : start + 5000] for start in (0, 5000))
        self.rig.taker = Pausing(at=5000)
        good = Good(MEGABYTE)
        self.rig.play(Saying(broken), good)
        continuing = self.rig.ask()
        self.rig.stage.links[0].b.protocol.send(chunks + b"x\r\n")
        self.rig.stage.settle()
        self.assertEqual((1, 5000), (len(good.asked), len(self.rig.taker.content)))
        self.assertEqual(b"bytes=%d-" % (10_000 - 4096), good.asked[0].fields[b"range"])
        self.rig.taker.response = None
        continuing.resume()
        self.rig.stage.settle()
        self.assert_complete()

    def test_a_failure_that_was_there_before_the_sink_paused_too(self) -> None:
        octets = b'HTTP/1.1 200 OK\r\nETag: "one"\r\nTransfer-Encoding: chunked\r\n\r\n'
        octets += b"1388\r\n%b\r\nx\r\n" % MEGABYTE[:5000]
        self.rig.taker = Pausing(at=1)
        good = Good(MEGABYTE)
        continuing = self.rig.fetch(Saying(octets), good)
        self.assertEqual((1, 5000), (len(good.asked), len(self.rig.taker.content)))
        self.rig.taker.response = None
        continuing.resume()
        self.rig.stage.settle()
        self.assert_complete()

    def test_pausing_and_resuming_while_the_rest_is_asked_for(self) -> None:
        self.rig.stage.hang("2")
        continuing = self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE), Good(MEGABYTE))
        continuing.pause()
        self.rig.advance(2.1)  # "2" does not connect, "3" does
        self.assertEqual(TENTH, len(self.rig.taker.content))
        continuing.resume()
        continuing.pause()
        self.rig.stage.settle()
        had = len(self.rig.taker.content)
        self.assertLess(had, len(MEGABYTE))
        self.rig.advance(100)
        self.assertEqual(had, len(self.rig.taker.content))
        continuing.resume()
        self.rig.stage.settle()
        self.assert_complete()

    def test_no_way_on_is_told_after_the_pause(self) -> None:
        continuing = self.rig.fetch(Stalling(MEGABYTE, after=TENTH, etag=None))
        continuing.pause()
        self.rig.stage.links[0].cut(ConnectionResetError("reset by peer"))
        self.assertEqual(([("1", "good"), ("1", LOST)], 1), (self.rig.told, self.rig.overs))
        self.assertIsNone(self.rig.taker.failure)
        continuing.resume()
        self.assert_broken(ConnectionLost)

    def test_paused_before_it_is_attached(self) -> None:
        self.rig.play(Good(MEGABYTE))
        continuing = self.rig.ask(attach=False)
        continuing.pause()
        continuing.attach(self.rig.taker)
        self.rig.stage.settle()
        self.assertEqual(b"", self.rig.taker.content)
        continuing.resume()
        self.rig.stage.settle()
        self.assert_complete()


class CancelledTests(ContinuingCase):
    """No more interest."""

    def test_before_it_is_attached(self) -> None:
        good = Good(MEGABYTE)
        self.rig.play(good)
        self.rig.ask(attach=False).cancel()
        self.rig.stage.settle()
        self.assertEqual(([], []), (good.playing, self.rig.told))

    def test_while_content_comes_says_nothing_about_the_address(self) -> None:
        stalling = Stalling(MEGABYTE, after=1000)
        self.rig.fetch(stalling, Good(MEGABYTE)).cancel()
        self.rig.advance(100)
        self.assertEqual(([], [], []), (stalling.playing, self.rig.told, self.rig.tried))
        self.assertEqual((None, False), (self.rig.taker.failure, self.rig.taker.ended))

    def test_while_the_rest_is_asked_for_ends_that(self) -> None:
        silent = Silent()
        continuing = self.rig.fetch(Cut(MEGABYTE, after=TENTH), silent, Good(MEGABYTE))
        self.assertEqual(1, len(silent.playing))
        continuing.cancel()
        self.rig.advance(100)
        self.assertEqual((1, []), (self.rig.cancelled, silent.playing))
        self.assertEqual(([{"1"}], TENTH), (self.rig.tried, len(self.rig.taker.content)))
        self.assertIsNone(self.rig.taker.failure)

    def test_while_the_rest_comes(self) -> None:
        stalling = Stalling(MEGABYTE, after=TENTH)
        continuing = self.rig.fetch(Cut(MEGABYTE, after=TENTH), stalling)
        self.assertEqual(1, len(stalling.playing))
        continuing.cancel()
        self.rig.advance(100)
        self.assertEqual([], stalling.playing)

    def test_by_the_sink_while_it_is_handed_octets(self) -> None:
        for after in (100, TENTH + 100):
            self.rig = Rig()
            self.rig.taker = Leaving(at=after)
            self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE))
            self.assertEqual((None, False, 1), (self.rig.taker.failure, self.rig.taker.ended, self.rig.overs))
            self.assertLess(len(self.rig.taker.content), len(MEGABYTE))

    def test_twice_or_after_the_end_does_nothing(self) -> None:
        continuing = self.rig.fetch(Good(b"small"))
        continuing.cancel()
        continuing.cancel()
        self.assert_complete(b"small")

    def test_an_answer_that_comes_too_late_is_cancelled(self) -> None:
        good = Good(MEGABYTE)
        late = Unstoppable()
        self.rig.asking = lambda outbound, tried: late
        continuing = self.rig.fetch(Cut(MEGABYTE, after=TENTH), good)
        continuing.cancel()
        _ = self.rig.client.ask(self.rig.addresses[1], GET).addCallback(late.callback)
        self.rig.stage.settle()
        self.assertEqual([], good.playing)


class Unstoppable(Deferred[Response]):
    """Cancelled too late."""

    def cancel(self) -> None:
        pass


class UnexpectedTests(ContinuingCase):
    def test_a_mistake_of_ours_breaks_the_content_off_and_is_logged(self) -> None:
        self.rig.asking = lambda outbound, tried: fail(ValueError("a mistake"))
        self.rig.fetch(Cut(MEGABYTE, after=TENTH), Good(MEGABYTE))
        self.assert_broken(ConnectionLost)
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
