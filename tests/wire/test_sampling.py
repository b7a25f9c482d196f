"""How long answers take and what is asked for most, as far as a worker looks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import ask
from edgecache.rules.popularity import Popular
from edgecache.rules.sites import Sites
from edgecache.wire.sampling import HALVE_SECONDS, SAMPLE_SECONDS, TELL_SECONDS, Row, Sampling
from edgecache.words.config import Config, NodeSettings, Profile, SiteSettings
from edgecache.words.latency import HITS, MISSES
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream
from tests.wire.rig import OK, Rig

FILES = SiteSettings(name="files", profile=Profile.PLAIN, origins=("http://o.example",))
SITES = Sites(Config(node=NodeSettings(id="eu-1"), sites=(FILES,)))
GET = b"GET %b HTTP/1.1\r\nHost: a.example\r\n\r\n"


class LatencyTests(SynchronousTestCase):
    def test_an_answer_that_had_to_be_waited_for_is_timed_up_to_its_head(self) -> None:
        rig = Rig()
        rig.route = rig.later
        rig.say(GET % b"/")
        rig.network.advance(0.2)
        self.assertEqual(0, sum(MISSES.buckets(rig.counters.slots)))
        rig.downstreams[0].send(OK, b"ok")
        expected = [0] * 14
        expected[MISSES.bounds.index(0.25)] = 1
        self.assertEqual(expected, MISSES.buckets(rig.counters.slots))
        self.assertAlmostEqual(0.2, MISSES.seconds(rig.counters.slots), 5)

    def test_the_next_one_on_the_connection_is_timed_on_its_own(self) -> None:
        rig = Rig()
        rig.route = rig.later
        client = rig.say(GET % b"/")
        rig.downstreams[0].send(OK, b"ok")
        rig.network.advance(3.0)
        rig.route = rig.at_once
        rig.say(GET % b"/", client)
        self.assertEqual(1, sum(MISSES.buckets(rig.counters.slots)))

    def test_a_quantile_is_the_bound_of_its_bucket(self) -> None:
        buckets = [90, 9, 0, 1] + [0] * 10
        self.assertEqual([0.001, 0.0025, 0.01], [MISSES.quantile(share, buckets) for share in (0.5, 0.95, 0.999)])
        self.assertEqual(10.0, MISSES.quantile(0.5, [0] * 13 + [5]))
        self.assertIsNone(MISSES.quantile(0.5, [0] * 14))

    def test_histograms_share_no_slot_with_each_other_or_with_a_counter(self) -> None:
        slots = [
            *range(HITS.first, HITS.sum_slot + 1),
            *range(MISSES.first, MISSES.sum_slot + 1),
        ]
        self.assertEqual(len(set(slots)), len(slots))
        self.assertGreaterEqual(min(slots), 64)


class SamplingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rig = Rig(route=self.answer)
        self.told: list[list[tuple[Row, int]]] = []
        self.sampling = Sampling(self.rig.listener, self.rig.counters, self.rig.network.clock, self.told.append)
        self.sampling.start()
        self.addCleanup(self.sampling.stop)
        self.client = self.rig.connect()

    def answer(self, request: Request, downstream: Downstream) -> None:
        request.asked = ask(request, SITES)
        self.rig.network.clock.advance(0.0002)
        downstream.send(OK, b"ok")

    def get(self, path: bytes) -> None:
        self.rig.say(GET % path, self.client)

    def timed(self) -> int:
        return sum(HITS.buckets(self.rig.counters.slots))

    def test_one_request_is_looked_at_and_then_none_for_a_moment(self) -> None:
        for _ in range(5):
            self.get(b"/a")
        self.assertEqual(1, self.timed())
        self.assertEqual(1, HITS.buckets(self.rig.counters.slots)[1])
        self.rig.network.advance(1.0)
        self.get(b"/a")
        self.assertEqual(2, self.timed())

    def test_the_node_process_is_told_what_is_asked_for_most(self) -> None:
        for number in range(60):
            self.get(b"/often" if number % 3 else b"/rarely?x=1")
            self.rig.network.advance(1.0 if number == 0 else SAMPLE_SECONDS)
        self.rig.network.advance(TELL_SECONDS)
        (first, second) = self.told[-1]
        self.assertEqual(
            (("files", "a.example", "/often"), ("files", "a.example", "/rarely?x=1")), (first[0], second[0])
        )
        self.assertGreater(first[1], second[1])
        self.rig.network.advance(2 * TELL_SECONDS)
        self.assertEqual(1, len(self.told), "nothing is told where nothing was asked")

    def test_what_was_long_ago_counts_less(self) -> None:
        for _ in range(4):
            self.get(b"/a")
            self.rig.network.advance(1.0)
        self.rig.network.advance(HALVE_SECONDS)
        self.assertEqual(2, self.sampling.popular.top(1)[0][1])


class PopularTests(SynchronousTestCase):
    def test_what_is_asked_for_often_stays_however_many_others_come(self) -> None:
        popular: Popular[int] = Popular(10)
        for number in range(1000):
            popular.saw(-1)
            popular.saw(number)
        self.assertEqual((-1, 1000), popular.top(1)[0])
        self.assertEqual(10, len(popular.top(100)))

    def test_what_was_seen_once_is_forgotten_when_counts_are_halved(self) -> None:
        popular: Popular[str] = Popular()
        for thing in "aab":
            popular.saw(thing)
        popular.halve()
        self.assertEqual([("a", 1)], popular.top(5))
