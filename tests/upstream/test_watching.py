"""The node process judges every address, probes those that are out, and says so (FIELD 1, DESIGN 8)."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.health import EJECTED_WORD, FAILING_WORD, SUSPECT_WORD, State, share
from edgecache.upstream.addresses import Origin, parse_origin
from edgecache.upstream.client import Client
from edgecache.upstream.roster import Roster
from edgecache.upstream.standing import Standing
from edgecache.upstream.watching import Condition, Watch
from edgecache.upstreamstates import upstream_states
from edgecache.words.config import Profile, SiteSettings, UpstreamSettings
from edgecache.words.reasons import Outcome
from tests.characters import Character, Cut, Dripping, Good, Refusing, Resetting, Saying, Silent, Stage, Stalling

NAME = "http://origin.example"
BAD, GOOD, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
WALL = 1_763_000_000.0
LARGE = b"x" * 200_000


def site(*origins: str, name: str = "main", **changed: Any) -> SiteSettings:
    return SiteSettings(name, Profile.PLAIN, origins or (NAME,), **changed)


def document(*hosts: str, **others: list[list[Any]]) -> dict[str, Any]:
    """The first origin has these hosts, in the slots from 1."""
    return {"origins": {NAME: [[host, 80, slot] for slot, host in enumerate(hosts, 1)], **others}}


class WatchCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.clock = self.stage.clock
        self.began = self.clock.seconds()
        self.words: dict[int, int] = {}
        self.told: list[list[int]] = []
        self.logged: list[str] = []
        self.jitter = 0.0
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: Any) -> None:
        if event["log_namespace"] == "edgecache.upstream.watching":
            self.logged.append(event["log_format"].format(**event))

    def watch(
        self,
        *sites: SiteSettings,
        hosts: tuple[str, ...] = (BAD, GOOD),
        siblings: tuple[Origin, ...] = (),
        **changed: Any,
    ) -> Watch:
        settings = UpstreamSettings(**changed)
        client = Client(self.stage, self.clock, settings)
        offset = WALL - self.began

        def tell(op: str, slots: list[int]) -> None:
            self.assertEqual("ejected", op)
            # Whoever is told finds it in the page.
            self.assertEqual({EJECTED_WORD}, {self.words[slot] for slot in slots})
            self.told.append(slots)

        watch = Watch(
            Roster(sites or (site(),), settings, siblings),
            client,
            self.clock,
            lambda: offset + self.clock.seconds(),
            settings,
            self.words.__setitem__,
            tell,
            lambda: self.jitter,
        )
        self.standing = Standing(
            lambda slot: self.words[slot], lambda op, outcomes: watch.outcomes(outcomes), self.clock, settings
        )
        if hosts:
            watch.follow(document(*hosts))

        def quiet() -> None:
            self.standing.close()
            watch.stop()
            self.stage.settle()
            # Neither timers nor connections remain.
            self.assertEqual([], self.clock.getDelayedCalls())
            self.assertEqual({}, client._pools)

        self.addCleanup(quiet)
        return watch

    def play(self, host: str, character: Any) -> Any:
        self.stage.play(host, character)
        return character

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Time passes, and everything moves meanwhile."""
        until = self.clock.seconds() + seconds
        while (left := until - self.clock.seconds()) > 1e-6:
            self.clock.advance(min(step, left))
            self.stage.settle()

    def fail_at(self, watch: Watch, slot: int, outcome: Outcome, target: str | None = None, times: int = 1) -> None:
        member = watch._roster.members[slot]
        watch.outcomes([[slot, member.name, 0, outcome.value, times, target]])

    def good_at(self, watch: Watch, slot: int, goods: int = 1) -> None:
        watch.outcomes([[slot, watch._roster.members[slot].name, goods, None, 0, None]])

    def condition(self, watch: Watch, slot: int) -> Condition:
        condition = watch.condition(slot)
        assert condition is not None
        return condition

    def state(self, watch: Watch, slot: int) -> State:
        return self.condition(watch, slot).state

    def share(self, slot: int) -> float:
        return share(self.words[slot], self.clock.seconds(), 30.0)


class FailingTests(WatchCase):
    """The last address of a site is asked on while it fails, and people are told."""

    def test_one_that_hangs_and_stays_for_want_of_another_is_told_as_failing_until_something_goes_well(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.clock.advance(3.0)
        self.fail_at(watch, 2, Outcome.STALLED)
        found = document(BAD, GOOD)["origins"]
        out, failing = upstream_states({NAME: ""}, found, watch, offset=1000.0)
        self.assertEqual(("ejected", False), (out.state, out.healthy))
        self.assertEqual(
            ("failing", True, "stalled", 1000.0 + self.began + 3.0),
            (failing.state, failing.healthy, failing.reason, failing.since),
        )
        self.assertEqual("stalled; there is no other", failing.detail)
        self.assertEqual("stalls in the middle of contents; it is asked on, for there is no other", failing.said)
        self.good_at(watch, 2)
        (_, well) = upstream_states({NAME: ""}, found, watch, offset=1000.0)
        self.assertEqual(("healthy", "", ""), (well.state, well.detail, well.said))

    def test_a_quiet_one_is_asked_by_the_node_until_it_is_well(self) -> None:
        watch = self.watch(hosts=(BAD,))
        silent = self.play(BAD, Silent())
        self.fail_at(watch, 1, Outcome.NO_HEAD, "/a")
        # 10 s, a probe of 5 s; 10 s after that failed, another one.
        self.advance(26.0)
        self.assertEqual(([b"/a", b"/a"], FAILING_WORD), ([one.target for one in silent.asked], self.words[1]))
        self.assertEqual(self.began + 35.0, self.condition(watch, 1).next_probe_at)
        self.play(BAD, Good())
        self.advance(15.0)
        self.assertEqual((0, None), (self.words[1], self.condition(watch, 1).next_probe_at))
        self.assertEqual(1, len(self.logged), "it is said once that it fails")

    def test_while_it_is_probed_it_is_still_said_why_it_is_out(self) -> None:
        watch = self.watch()
        self.play(BAD, Silent())
        self.fail_at(watch, 1, Outcome.NO_HEAD, "/a")
        self.advance(10.5)
        (probing, _) = upstream_states({NAME: ""}, document(BAD, GOOD)["origins"], watch, offset=0.0)
        self.assertEqual(
            ("probing", "no-head", "takes requests and does not answer"),
            (probing.state, probing.detail, probing.said),
        )


class EjectingTests(WatchCase):
    """A worker's report is a word in the page, a message to all workers, a line in the log."""

    def test_a_hang_is_published_told_and_logged_in_one_line(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.assertEqual({1: EJECTED_WORD, 2: 0}, self.words)
        self.assertEqual([[1]], self.told)
        self.assertEqual(
            [
                "upstream http://origin.example (192.0.2.1): healthy -> ejected: no-head; ejections in a row: 1; "
                "next probe: 2025-11-13T02:13:30Z"
            ],
            self.logged,
        )
        self.assertEqual(
            Condition(State.EJECTED, "no-head", self.began, self.began + 10.0, 1, ejected_for="no-head"),
            self.condition(watch, 1),
        )

    def test_what_comes_from_exchanges_that_began_before_changes_nothing(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        for _ in range(500):
            self.fail_at(watch, 1, Outcome.NO_HEAD)
            self.good_at(watch, 1)
        self.assertEqual(([[1]], 1), (self.told, len(self.logged)))
        self.assertEqual(self.began + 10.0, self.condition(watch, 1).next_probe_at)

    def test_outcomes_and_ejections_are_counted_by_kind(self) -> None:
        watch = self.watch()
        name = watch._roster.members[1].name
        watch.outcomes([[1, name, 5, "lost", 2, None], [1, name, 1, "slow-to-connect", 0, None]])
        self.fail_at(watch, 1, Outcome.STALLED)
        self.assertEqual(
            {
                (NAME, Outcome.GOOD): 6,
                (NAME, Outcome.LOST): 2,
                (NAME, Outcome.SLOW_TO_CONNECT): 1,
                (NAME, Outcome.STALLED): 1,
            },
            dict(watch.outcomes_seen),
        )
        self.assertEqual({(NAME, Outcome.STALLED): 1}, dict(watch.ejections_seen))

    def test_workers_failures_make_one_row_together(self) -> None:
        watch = self.watch()
        for _worker in range(3):
            self.fail_at(watch, 1, Outcome.CONNECT_FAILED)
        self.assertIs(State.EJECTED, self.state(watch, 1))

    def test_what_a_worker_reports_arrives(self) -> None:
        watch = self.watch()
        member = watch._roster.members[1]
        self.standing.failed(member.address(member.origins[0]), Outcome.STALLED, b"/large")
        self.assertEqual((EJECTED_WORD, b"/large"), (self.words[1], member.target))


class ProbeTests(WatchCase):
    """Half-open: one request in all, and only body bytes bring an address back."""

    def eject(self, character: Character, target: str | None = "/thing", **changed: Any) -> Watch:
        watch = self.watch(**changed)
        self.play(BAD, character)
        self.fail_at(watch, 1, Outcome.STALLED, target)
        return watch

    def test_it_is_probed_once_with_what_failed_and_comes_back_slowly(self) -> None:
        watch = self.eject(good := Good())
        self.advance(9.5)
        self.assertEqual(0, good.connections)
        self.advance(0.5)
        self.assertEqual([(b"GET", b"/thing")], [(asked.method, asked.target) for asked in good.asked])
        self.assertIs(State.RECOVERING, self.state(watch, 1))
        self.assertLess(self.share(1), 0.1)
        self.advance(15.0)
        self.assertAlmostEqual(0.5, self.share(1), places=2)
        self.advance(15.0)
        self.assertEqual((State.HEALTHY, 0, 1.0), (self.state(watch, 1), self.words[1], self.share(1)))
        self.assertEqual(1, len(good.asked))
        self.assertEqual(
            [
                "healthy -> ejected: stalled; ejections in a row: 1; next probe: 2025-11-13T02:13:30Z",
                "ejected -> probing: its time is over; ejections in a row: 1; next probe: 2025-11-13T02:13:30Z",
                "probing -> recovering: a probe went well; ejections in a row: 1; next probe: none",
                "recovering -> healthy: slow start is over; ejections in a row: 1; next probe: none",
            ],
            [line.partition(": ")[2] for line in self.logged],
        )

    def test_a_head_alone_does_not_bring_it_back(self) -> None:
        watch = self.eject(stalling := Stalling(LARGE))
        self.advance(10.0)
        self.assertEqual((1, State.PROBING), (len(stalling.asked), self.state(watch, 1)))
        self.assertEqual(EJECTED_WORD, self.words[1])
        self.advance(3.0)
        self.assertEqual(
            (State.EJECTED, "stalled, when probed"), (self.state(watch, 1), self.condition(watch, 1).reason)
        )
        self.assertEqual(self.began + 13.0 + 20.0, self.condition(watch, 1).next_probe_at)
        # It was out all the time: nobody has to be told again.
        self.assertEqual([[1]], self.told)

    def test_nor_does_less_than_restore_octets_of_a_longer_content(self) -> None:
        watch = self.eject(Stalling(LARGE, after=(64 << 10) - 1))
        self.advance(14.0)
        self.assertIs(State.EJECTED, self.state(watch, 1))

    def test_restore_octets_bring_it_back_and_the_rest_is_not_taken(self) -> None:
        watch = self.eject(stalling := Stalling(LARGE, after=64 << 10))
        self.advance(10.0)
        self.assertIs(State.RECOVERING, self.state(watch, 1))
        self.assertEqual([], stalling.playing)

    def test_no_other_failure_brings_it_back(self) -> None:
        for character, kind in (
            (Silent(), Outcome.NO_HEAD),
            (Refusing(), Outcome.CONNECT_FAILED),
            (Cut(LARGE, after=70), Outcome.LOST),
            (Resetting(LARGE, after=70), Outcome.LOST),
            (Good(status=b"503 Service Unavailable"), Outcome.ERROR_STATUS),
            (Saying(octets=b"nonsense\r\n\r\n"), Outcome.BAD_RESPONSE),
            (Dripping(LARGE, timers=self.clock, piece=100, seconds=1.0), Outcome.TOO_SLOW),
        ):
            self.stage._hosts.pop(BAD, None)
            watch = self.eject(character)
            self.advance(22.0)
            self.assertEqual((State.EJECTED, EJECTED_WORD), (self.state(watch, 1), self.words[1]), kind)
            self.assertEqual(f"{kind.value}, when probed", self.condition(watch, 1).reason)
            self.assertEqual(2, self.condition(watch, 1).ejections)
            watch.stop()

    def test_one_whose_packets_are_dropped_stays_out(self) -> None:
        watch = self.watch()
        self.stage.hang(BAD)
        self.fail_at(watch, 1, Outcome.CONNECT_TIMED_OUT)
        self.advance(12.0)
        self.assertEqual("connect-timeout, when probed", self.condition(watch, 1).reason)

    def test_a_4xx_or_no_content_is_an_answer(self) -> None:
        for character in (Good(status=b"404 Not Found"), Saying(octets=b"HTTP/1.1 204 No Content\r\n\r\n")):
            watch = self.eject(character)
            self.advance(10.0)
            self.assertIs(State.RECOVERING, self.state(watch, 1))
            watch.stop()

    def test_while_one_probe_runs_there_is_no_other(self) -> None:
        watch = self.eject(slow := Dripping(b"x" * 6000, timers=self.clock, piece=1200, seconds=1.0))
        self.advance(13.0)
        self.assertEqual((State.PROBING, 1), (self.state(watch, 1), slow.connections))
        self.advance(5.0)
        self.assertIs(State.RECOVERING, self.state(watch, 1))

    def test_a_flapping_one_stays_out_longer_each_time(self) -> None:
        watch = self.watch()
        self.play(BAD, Good())
        lengths = []
        for _ in range(6):
            self.fail_at(watch, 1, Outcome.STALLED, "/thing")
            ejected_at = self.clock.seconds()
            while self.state(watch, 1) is not State.RECOVERING:
                self.advance(0.5)
            lengths.append(round(self.clock.seconds() - ejected_at))
            self.advance(31.0)
            self.good_at(watch, 1)
            self.assertIs(State.HEALTHY, self.state(watch, 1))
        self.assertEqual([10, 20, 40, 80, 160, 300], lengths)

    def test_without_a_target_the_root_is_asked(self) -> None:
        self.eject(good := Good(), target=None)
        self.advance(10.0)
        self.assertEqual([b"/"], [asked.target for asked in good.asked])

    def test_what_fails_at_the_others_too_says_nothing_about_this_one(self) -> None:
        """Or anybody could empty a site with one bad path."""
        watch = self.watch(hosts=(BAD, GOOD, OTHER))
        good = self.play(BAD, Good())
        self.fail_at(watch, 1, Outcome.NO_HEAD, "/poison")
        self.fail_at(watch, 2, Outcome.LOST, "/poison")
        self.advance(10.0)
        self.assertEqual([b"/"], [asked.target for asked in good.asked])

    def test_it_is_asked_with_the_origins_own_prefix_credentials_and_host(self) -> None:
        with_all = site("http://user:secret@origin.example/private", name="private")
        watch = self.watch(site(), with_all)
        good = self.play(BAD, Good())
        self.fail_at(watch, 1, Outcome.NO_HEAD, "/private/thing")
        self.advance(10.0)
        (asked,) = good.asked
        self.assertEqual((b"/private/thing", b"origin.example"), (asked.target, asked.fields[b"host"]))
        self.assertEqual(b"Basic dXNlcjpzZWNyZXQ=", asked.fields[b"authorization"])
        self.assertFalse([line for line in self.logged if "secret" in line])

    def test_a_probe_that_cannot_be_made_leaves_nobody_half_open(self) -> None:
        watch = self.eject(Good(), target="/not one target")
        self.advance(10.0)
        self.assertIs(State.EJECTED, self.state(watch, 1))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))


class SiblingTests(WatchCase):
    """A sibling that is heard of again is probed where its contents are asked for."""

    def out(self, **changed: Any) -> tuple[Watch, Silent]:
        """:return: a watch of two siblings whose probes have failed until the next is far away."""
        siblings = tuple(evolve(parse_origin(f"http://{name}.example"), sibling=name) for name in ("m", "n"))
        watch = self.watch(hosts=(), siblings=siblings, **changed)
        watch.follow({"origins": {"http://m.example": [[BAD, 80, 1]], "http://n.example": [[OTHER, 80, 2]]}})
        silent: Silent = self.play(BAD, Silent())
        self.play(OTHER, Silent())
        for slot in (1, 2):
            self.fail_at(watch, slot, Outcome.NO_HEAD)
        while self.condition(watch, 1).ejections < 5:
            self.advance(1.0)
        self.advance(20.0)
        return watch, silent

    def test_it_is_probed_at_once_and_not_asked_before_its_content_came(self) -> None:
        watch, _ = self.out()
        other = self.condition(watch, 2)
        self.stage._hosts.pop(BAD)
        stalling = self.play(BAD, Stalling(LARGE))
        watch.heard_again("m")
        self.advance(0.1)
        self.assertEqual((1, State.PROBING, EJECTED_WORD), (len(stalling.asked), self.state(watch, 1), self.words[1]))
        self.assertEqual(other, self.condition(watch, 2), "that is another one")
        self.advance(5.0)
        self.assertEqual((State.EJECTED, EJECTED_WORD), (self.state(watch, 1), self.words[1]))
        # Not all of it may be back yet: once more, soon.
        self.stage._hosts.pop(BAD)
        good = self.play(BAD, Good())
        self.advance(10.0)
        self.assertEqual(([b"/"], State.RECOVERING), ([asked.target for asked in good.asked], self.state(watch, 1)))
        self.assertIn("ejected -> probing: its node is heard of again", "".join(self.logged))

    def test_it_is_said_when_it_will_be_probed(self) -> None:
        watch, silent = self.out()
        asked = len(silent.asked)
        watch.heard_again("m")
        self.assertEqual(self.clock.seconds(), self.condition(watch, 1).next_probe_at)
        for _ in range(20):
            # Again and again: that is no news.
            self.advance(1.0)
            watch.heard_again("m")
        self.assertEqual(2, len(silent.asked) - asked)

    def test_one_that_is_well_or_that_nobody_asks_is_left_alone(self) -> None:
        watch = self.watch()
        watch.heard_again("m")
        self.advance(60.0)
        self.assertEqual([], self.logged)


class LastOneTests(WatchCase):
    """The only remaining address of a site is never ejected."""

    def test_the_only_one(self) -> None:
        watch = self.watch(hosts=(BAD,))
        for _ in range(10):
            self.fail_at(watch, 1, Outcome.NO_HEAD)
            self.good_at(watch, 1)
        self.assertEqual(({1: 0}, []), (self.words, self.told))
        self.assertEqual(
            ["upstream http://origin.example (192.0.2.1) fails (no-head) and stays in service: there is no other"],
            self.logged,
        )

    def test_the_last_of_two(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        self.assertEqual(([[1]], EJECTED_WORD, FAILING_WORD), (self.told, self.words[1], self.words[2]))

    def test_it_leaves_when_the_other_is_back(self) -> None:
        watch = self.watch()
        self.play(BAD, Good())
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        self.advance(10.0)
        self.assertEqual((State.RECOVERING, State.EJECTED), (self.state(watch, 1), self.state(watch, 2)))
        self.assertEqual([[1], [2]], self.told)

    def test_it_stays_when_something_went_well_meanwhile(self) -> None:
        watch = self.watch()
        self.play(BAD, Good())
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        self.good_at(watch, 2)
        self.advance(10.0)
        self.assertEqual(([[1]], 0), (self.told, self.words[2]))

    def test_while_it_fails_the_others_are_probed_often_however_often_they_have_failed(self) -> None:
        watch = self.watch()
        self.play(BAD, silent := Silent())
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.advance(35.0)  # 10 s, a probe of 5 s; now it is out for 20 s
        self.assertEqual(2, self.condition(watch, 1).ejections)
        self.advance(40.0)
        self.assertEqual(2, len(silent.asked))
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        before = len(silent.asked)
        self.advance(45.0)
        self.assertEqual(8, len(silent.asked) - before, "a probe of 5 s each 6 s")

    def test_one_that_is_out_for_long_is_probed_at_once_when_the_last_one_begins_to_fail(self) -> None:
        watch = self.watch()
        silent = self.play(BAD, Silent())
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        while self.condition(watch, 1).ejections < 5:
            self.advance(1.0)
        self.advance(20.0)
        asked = len(silent.asked)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        self.advance(0.1)
        self.assertEqual(asked + 1, len(silent.asked))

    def test_a_sites_other_origin_is_another_one(self) -> None:
        other = "http://other.example"
        watch = self.watch(site(NAME, other), hosts=())
        watch.follow({"origins": {NAME: [[BAD, 80, 1]], other: [[BAD, 80, 2]]}})
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        self.assertEqual({1: EJECTED_WORD, 2: FAILING_WORD}, self.words)

    def test_one_that_several_sites_share_is_kept_if_one_of_them_has_no_other(self) -> None:
        other = "http://other.example"
        watch = self.watch(site(name="alone"), site(NAME + "/below", other, name="two"), hosts=())
        watch.follow({"origins": {NAME: [[BAD, 80, 1]], other: [[GOOD, 80, 2]]}})
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.assertEqual({1: FAILING_WORD, 2: 0}, self.words)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        self.assertEqual({1: FAILING_WORD, 2: EJECTED_WORD}, self.words)

    def test_addresses_for_which_the_page_has_no_room_are_others(self) -> None:
        watch = self.watch(hosts=())
        watch.follow({"origins": {NAME: [[BAD, 80, 1], [GOOD, 80, -1]]}})
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.assertEqual({1: EJECTED_WORD}, self.words)


class FollowingTests(WatchCase):
    """What the resolver finds: slots have tenants, and their health goes with them."""

    def test_a_new_address_begins_well_and_one_that_stays_keeps_its_history(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        watch.follow(document(BAD, GOOD, OTHER))
        self.assertEqual({1: EJECTED_WORD, 2: 0, 3: 0}, self.words)

    def test_a_slot_is_reset_when_its_tenant_goes(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        watch.follow({"origins": {NAME: [[GOOD, 80, 2]]}})
        self.assertEqual((0, None), (self.words[1], watch.condition(1)))

    def test_a_slots_next_tenant_begins_anew_also_at_once(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        watch.follow(document(OTHER, GOOD))
        self.assertEqual((0, State.HEALTHY), (self.words[1], self.state(watch, 1)))

    def test_news_of_a_tenant_that_has_gone_does_not_hurt_the_next(self) -> None:
        watch = self.watch()
        name = watch._roster.members[1].name
        watch.follow(document(OTHER, GOOD))
        watch.outcomes([[1, name, 0, "no-head", 1, "/a"], [7, "nobody", 0, "no-head", 1, None]])
        self.assertEqual((0, [], {}), (self.words[1], self.told, dict(watch.outcomes_seen)))

    def test_a_probe_ends_with_its_address(self) -> None:
        watch = self.watch()
        silent = self.play(BAD, Silent())
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.advance(11.0)
        self.assertEqual(1, len(silent.playing))
        watch.follow(document(OTHER, GOOD))
        self.stage.settle()
        self.assertEqual(([], 0), (silent.playing, self.words[1]))
        self.advance(10.0)
        self.assertIs(State.HEALTHY, self.state(watch, 1))

    def test_when_only_ejected_ones_are_left_the_first_of_them_is_asked_again(self) -> None:
        watch = self.watch(hosts=(BAD, OTHER, GOOD))
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.advance(1.0)
        self.fail_at(watch, 2, Outcome.NO_HEAD)
        watch.follow(document(BAD, OTHER))
        self.assertEqual((FAILING_WORD, EJECTED_WORD), (self.words[1], self.words[2]))
        self.assertIn("ejected -> healthy: the only one left", self.logged[-1])

    def test_when_another_address_comes_the_last_one_may_leave(self) -> None:
        watch = self.watch(hosts=(BAD,))
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        watch.follow(document(BAD, GOOD))
        self.assertEqual(([[1]], {1: EJECTED_WORD, 2: 0}), (self.told, self.words))

    def test_two_sites_with_one_origin_have_one_health(self) -> None:
        watch = self.watch(site(name="one"), site(NAME + "/below", name="two"))
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.assertEqual((1, 2), (len(self.logged), len(self.words)))
        name = watch._roster.members[2].name
        self.assertEqual(parse_origin(NAME).name + f" ({GOOD})", name)

    def test_after_the_end_nothing_is_asked_and_nothing_changes(self) -> None:
        watch = self.watch()
        silent = self.play(BAD, Silent())
        self.fail_at(watch, 1, Outcome.NO_HEAD)
        self.advance(10.0)
        watch.stop()
        self.stage.settle()
        self.assertEqual([], silent.playing)
        watch.outcomes([[2, f"{NAME} ({GOOD})", 0, "no-head", 1, None]])
        self.advance(1000.0, 100.0)
        self.assertEqual((1, 0), (len(silent.asked), self.words[2]))


class SuspectTests(WatchCase):
    """One of four drops packets: connecting to it is not waited for twice."""

    def test_it_is_published_and_its_attempt_decides(self) -> None:
        watch = self.watch()
        self.fail_at(watch, 1, Outcome.SLOW_TO_CONNECT, times=0)
        self.assertEqual((SUSPECT_WORD, []), (self.words[1], self.told))
        self.fail_at(watch, 1, Outcome.CONNECT_TIMED_OUT)
        self.assertEqual((EJECTED_WORD, [[1]]), (self.words[1], self.told))

    def test_when_nobody_tells_how_it_ended_we_try_ourselves(self) -> None:
        watch = self.watch()
        self.stage.hang(BAD)
        self.fail_at(watch, 1, Outcome.SLOW_TO_CONNECT, times=0)
        self.advance(3.9)
        # It never was a candidate of equal right meanwhile.
        self.assertEqual(SUSPECT_WORD, self.words[1])
        self.advance(0.2)
        self.assertEqual((EJECTED_WORD, [[1]]), (self.words[1], self.told))

    def test_one_that_connects_after_all_is_well_again(self) -> None:
        watch = self.watch()
        good = self.play(BAD, Good())
        self.fail_at(watch, 1, Outcome.SLOW_TO_CONNECT, times=0)
        self.advance(2.0)
        self.assertEqual((1, 0, State.HEALTHY), (len(good.asked), self.words[1], self.state(watch, 1)))


class ActiveProbeTests(WatchCase):
    """Optional: a real path of every address, every ``probe_seconds``."""

    def test_every_address_is_asked_every_ten_seconds(self) -> None:
        self.watch(site(probe_path="/health"))
        first, second = self.play(BAD, Good()), self.play(GOOD, Good())
        self.advance(60.0)
        self.assertEqual(([b"/health"] * 6,) * 2, tuple([one.target for one in of.asked] for of in (first, second)))

    def test_they_do_not_all_begin_at_once(self) -> None:
        self.jitter = -1.0
        self.watch(site(probe_path="/health"))
        good = self.play(BAD, Good())
        self.advance(0.5)
        self.assertEqual(1, len(good.asked))

    def test_what_it_finds_counts_like_any_request(self) -> None:
        watch = self.watch(site(probe_path="/health"))
        self.play(BAD, Good(status=b"503 Service Unavailable"))
        self.play(GOOD, Good())
        self.advance(26.0)
        self.assertEqual((State.EJECTED, State.HEALTHY), (self.state(watch, 1), self.state(watch, 2)))
        self.assertEqual(3, watch.outcomes_seen[NAME, Outcome.ERROR_STATUS])

    def test_what_is_out_is_probed_with_that_path_when_its_time_is_over_only(self) -> None:
        watch = self.watch(site(probe_path="/health"), probe_seconds=1.0)
        good = self.play(BAD, Good())
        self.play(GOOD, Good())
        self.fail_at(watch, 1, Outcome.STALLED, "/thing")
        self.advance(9.9)
        self.assertEqual([], good.asked)
        self.advance(0.2)
        self.assertEqual(([b"/health"], State.RECOVERING), ([one.target for one in good.asked], self.state(watch, 1)))
        self.advance(5.0)
        self.assertGreater(len(good.asked), 3)

    def test_status_says_when_it_is_asked_next(self) -> None:
        watch = self.watch(site(probe_path="/health"))
        self.assertEqual(self.began + 5.0, self.condition(watch, 1).next_probe_at)

    def test_one_that_hangs_is_not_asked_again_meanwhile(self) -> None:
        self.watch(site(probe_path="/health"), hosts=(BAD,), probe_seconds=1.0)
        silent = self.play(BAD, Silent())
        self.advance(4.9)
        self.assertEqual(1, silent.connections)

    def test_only_the_sites_that_want_it(self) -> None:
        other = "http://other.example"
        watch = self.watch(site(), site(other, name="probed", probe_path="/health"), hosts=())
        watch.follow({"origins": {NAME: [[BAD, 80, 1]], other: [[GOOD, 80, 2]]}})
        quiet, asked = self.play(BAD, Good()), self.play(GOOD, Good())
        self.advance(10.0)
        self.assertEqual((0, 1), (len(quiet.asked), len(asked.asked)))
