"""Which addresses are asked for a head, and when: exact to the second, on the injected clock (DESIGN 8, FIELD 1)."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.candidates import Candidates
from edgecache.fills.outlet import Outlet
from edgecache.fills.quest import Quest
from edgecache.fills.resorting import Resort
from edgecache.rules.allowance import Allowance, Ticket
from edgecache.rules.health import EJECTED_WORD
from edgecache.rules.hedging import LEAST_SAMPLES, Latencies
from edgecache.upstream.addresses import Address
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.upstream.standing import Standing
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import ConnectFailed, ConnectionLost, HeadTimedOut, UpstreamBusy, UpstreamFailed
from edgecache.words.messages import Outbound
from edgecache.words.reasons import Outcome
from tests.characters import Character, Good, Refusing, Silent, Stage
from tests.wire.rig import Counts, Given

GET = Outbound(b"GET", b"/thing", [])
COARSE, FINE = 1 / 16, 1 / 64
"""Steps of time that add up without rounding."""


@define(eq=False)
class Once(Good):
    """Answers its first request, and no other."""

    def answer(self, request: Any, player: Any) -> None:
        if len(self.asked) == 1:
            super().answer(request, player)


@define(eq=False)
class Asked:
    """One quest and what came of it."""

    quest: Quest
    began: float
    response: Response | None = None
    failure: Failure | None = None
    after: float = -1.0
    answer: Deferred[Response] | None = None

    def cancel(self) -> None:
        assert self.answer is not None
        self.answer.cancel()


@define(eq=False)
class Rig:
    """Addresses with a character each, and one worker's outlet to them."""

    settings: UpstreamSettings = field(factory=UpstreamSettings)
    stage: Stage = field(factory=Stage)
    counts: Counts = field(factory=Counts)
    words: dict[int, int] = field(factory=dict)
    told: list[tuple[int, Outcome]] = field(factory=list)
    addresses: list[Address] = field(factory=list)
    characters: list[Character] = field(factory=list)
    standing: Standing = field(init=False)
    allowance: Allowance = field(init=False)
    latencies: Latencies = field(init=False)
    outlet: Outlet = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings, clock = self.settings, self.stage.clock
        self.allowance = Allowance(settings.attempt_share, settings.attempt_least, settings.hedge_share)
        self.latencies = Latencies(settings.hedge_window_seconds)
        self.standing = Standing(lambda slot: self.words.get(slot, 0), self._told, clock, settings)
        client = Client(self.stage, clock, settings)
        self.outlet = Outlet(client, self.standing, settings, clock, self.counts)

    def _told(self, op: str, *, outcomes: list[list[Any]]) -> None:
        self.told += [(slot, Outcome(kind)) for slot, _, _, kind, _, _ in outcomes if kind is not None]

    def play(self, *characters: Character | None) -> None:
        """One address each, in this order; ``None`` drops every packet."""
        for character in characters:
            slot = len(self.addresses)
            host = f"192.0.2.{slot}"
            if character is None:
                self.stage.hang(host)
            self.characters.append(character or Refusing())
            self.addresses.append(evolve(self.stage.play(host, self.characters[slot]), slot=slot))

    def ask(
        self,
        outbound: Outbound = GET,
        ticket: Ticket | None = None,
        *,
        better: int = 0,
        wrong: int = 0,
        within: float | None = None,
        resort: Resort | None = None,
    ) -> Asked:
        """
        A quest in which the first ``better`` addresses are no equals of the others, and the last ``wrong`` ones have
        sent what was of no use; the network settles.
        """
        above, below = frozenset(self.addresses[:better]), frozenset(self.addresses[len(self.addresses) - wrong :])
        left = Candidates(self.standing.ejected, list(self.addresses), above, below)
        ticket = ticket or self.allowance.ticket()
        until = self.now + (self.settings.first_byte_seconds if within is None else within)
        quest = Quest(self.outlet, outbound, None, until, left, ticket, self.latencies, resort=resort)
        asked = Asked(quest, self.now)

        def good(response: Response) -> None:
            asked.response, asked.after = response, self.now - asked.began

        def bad(failure: Failure) -> None:
            asked.failure, asked.after = failure, self.now - asked.began

        asked.answer = quest.start()
        asked.answer.addCallbacks(good, bad)
        self.stage.settle()
        return asked

    @property
    def now(self) -> float:
        return self.stage.clock.seconds()

    def seconds(self, seconds: float, step: float = COARSE) -> None:
        """Let time pass, the network settling after each step."""
        for _ in range(round(seconds / step)):
            self.stage.clock.advance(step)
            self.stage.settle()

    def history(self, seconds: float) -> None:
        """Heads have been taking so long."""
        for _ in range(LEAST_SAMPLES * 20):
            self.latencies.record(seconds, self.now)

    def requests(self, number: int) -> int:
        """How many requests the address has seen."""
        return len(self.characters[number].asked)


class QuestTests(SynchronousTestCase):
    def rig(self, *characters: Character | None, **settings: Any) -> Rig:
        rig = Rig(UpstreamSettings(**settings))
        rig.play(*characters)
        return rig

    def answered(self, asked: Asked, number: int, at: float, *, within: float = 0.0) -> None:
        """It has the head of address ``number``, after ``at`` seconds."""
        self.assertIsNone(asked.failure)
        assert asked.response is not None
        self.assertEqual(f"192.0.2.{number}", asked.response.address.host)
        self.assertLessEqual(abs(asked.after - at), within, asked.after)

    def failed(self, asked: Asked, kind: type[BaseException], at: float) -> UpstreamFailed:
        assert asked.failure is not None
        self.assertIsInstance(asked.failure.value, kind)
        self.assertLessEqual(abs(asked.after - at), COARSE, asked.after)
        return asked.failure.value  # type: ignore[return-value]  # of that kind

    def quiet(self, rig: Rig) -> None:
        """Nothing is left behind: no timer, no quest, no awaited head."""
        rig.seconds(20, 0.5)
        self.assertEqual(set(), rig.outlet.quests)
        self.assertEqual(0, rig.allowance.extra)
        rig.standing.close()
        rig.outlet.client.close()
        rig.stage.settle()
        self.assertEqual([], rig.stage.clock.getDelayedCalls())


class SilentTests(QuestTests):
    """Must-show 1: it accepts and never answers."""

    def test_the_next_address_is_asked_at_the_heads_deadline(self) -> None:
        rig = self.rig(Silent(), Good())
        asked = rig.ask()
        rig.seconds(6)
        self.answered(asked, 1, 5.0, within=COARSE)
        self.assertEqual([(0, Outcome.NO_HEAD)], rig.told)
        self.assertEqual((1, 1), (rig.requests(0), rig.requests(1)))
        self.quiet(rig)

    def test_the_next_request_does_not_touch_it(self) -> None:
        rig = self.rig(Silent(), Good())
        rig.ask()
        rig.seconds(5.125)
        self.assertEqual(0.0, rig.standing.share(rig.addresses[0]))

    def test_with_a_history_another_is_asked_as_well_after_p95(self) -> None:
        rig = self.rig(Silent(), Good())
        rig.history(0.2)
        asked = rig.ask()
        rig.seconds(1, FINE)
        self.answered(asked, 1, 0.2, within=0.05)
        self.assertEqual(1, rig.counts.get(Counter.HEDGES))
        self.assertEqual([], rig.told, "who loses a hedge has not failed")
        self.quiet(rig)

    def test_never_hedged_earlier_than_the_least(self) -> None:
        rig = self.rig(Silent(), Good())
        rig.history(0.001)
        asked = rig.ask()
        rig.seconds(1, FINE)
        self.answered(asked, 1, 0.05, within=FINE)

    def test_the_first_one_may_still_win_and_the_hedge_is_cancelled(self) -> None:
        late, silent = Silent(), Silent()
        rig = self.rig(late, silent)
        rig.history(0.1)
        asked = rig.ask()
        rig.seconds(0.2, FINE)
        self.assertEqual(1, len(silent.asked))
        late.playing[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        rig.stage.settle()
        self.answered(asked, 0, 0.2, within=FINE)
        self.assertEqual([], silent.playing)
        self.assertEqual([], rig.told)

    def test_neither_a_post_nor_a_put_is_hedged(self) -> None:
        for outbound in (
            Outbound(b"POST", b"/", [], content=Given(2, b"ok", complete=True), content_length=2),
            Outbound(b"DELETE", b"/", []),
        ):
            rig = self.rig(Silent(), Good())
            rig.history(0.1)
            rig.ask(outbound)
            rig.seconds(4)
            self.assertEqual(0, rig.requests(1))

    def test_hedges_are_a_twentieth_of_the_fills(self) -> None:
        rig = self.rig(Silent(), Silent(), attempt_least=100, head_seconds=60.0)
        rig.history(0.1)
        for _ in range(60):
            rig.ask()
            rig.seconds(0.125)
        # One that was saved up, and a twentieth of sixty.
        self.assertEqual(4, rig.counts.get(Counter.HEDGES))

    def test_the_last_one_has_what_is_left_of_the_clients_time(self) -> None:
        rig = self.rig(Silent(), Silent())
        asked = rig.ask()
        rig.seconds(13)
        self.failed(asked, HeadTimedOut, 12.0)
        self.quiet(rig)

    def test_the_only_one_has_all_of_it(self) -> None:
        rig = self.rig(Silent())
        asked = rig.ask()
        rig.seconds(13)
        self.failed(asked, HeadTimedOut, 12.0)
        self.assertEqual([(0, Outcome.NO_HEAD)], rig.told)

    def test_nobody_is_asked_when_the_client_s_time_is_over(self) -> None:
        rig = self.rig(Good(), Good())
        self.failed(rig.ask(within=0.0), HeadTimedOut, 0.0)
        self.assertEqual(([], 0, 0), (rig.told, *map(rig.requests, range(2))))
        self.quiet(rig)

    def test_who_was_wrong_is_asked_beside_nobody(self) -> None:
        rig = self.rig(Silent(), Good())
        rig.history(0.05)
        asked = rig.ask(wrong=1)
        rig.seconds(4)
        self.assertEqual(0, rig.requests(1))
        rig.seconds(2)
        self.answered(asked, 1, 5.0, within=COARSE)
        rig = self.rig(Good(), Good())
        rig.stage.hang(rig.addresses[0].host, 1.0)
        asked = rig.ask(wrong=1)
        rig.seconds(2)
        self.answered(asked, 0, 1.0, within=COARSE)
        self.assertEqual(0, rig.characters[1].connections)

    def test_who_is_ejected_is_asked_before_who_was_wrong(self) -> None:
        """One may be well again; what the other one sends is most likely wrong again, and that shows at its end."""
        rig = self.rig(Refusing(), Good(), Good())
        rig.words[1] = EJECTED_WORD
        asked = rig.ask(wrong=1)
        self.answered(asked, 1, 0.0)
        self.assertEqual(0, rig.requests(2))

    def test_who_was_wrong_is_asked_at_last(self) -> None:
        rig = self.rig(Refusing(), Refusing(), Good())
        rig.words[1] = EJECTED_WORD
        self.answered(rig.ask(wrong=1), 2, 0.0)

    def test_who_had_no_time_to_answer_has_not_failed(self) -> None:
        """A sibling's budget may be nearly used up; a kept-alive connection has no other deadline."""
        for within, told in ((1.0, []), (5.0, [(0, Outcome.NO_HEAD)])):
            rig = self.rig(Once(b"ok"))
            rig.ask()
            asked = rig.ask(within=within)
            rig.seconds(6)
            self.failed(asked, HeadTimedOut, within)
            self.assertEqual(told, rig.told)
            self.quiet(rig)

    def test_the_ejected_are_asked_as_well_when_the_last_one_takes_as_long_as_one_that_hangs(self) -> None:
        rig = self.rig(Silent(), Good())
        rig.words[1] = EJECTED_WORD
        asked = rig.ask()
        rig.seconds(6)
        self.answered(asked, 1, 5.0, within=COARSE)
        self.assertEqual([(0, Outcome.NO_HEAD)], rig.told, "and whoever is out is probed")
        self.quiet(rig)

    def test_one_that_was_given_up_already_is_not_reported_twice(self) -> None:
        rig = self.rig(Silent(), Silent())
        rig.words[1] = EJECTED_WORD
        asked = rig.ask()
        rig.seconds(13)
        self.failed(asked, HeadTimedOut, 12.0)
        self.assertEqual(1, rig.told.count((0, Outcome.NO_HEAD)))
        self.quiet(rig)

    def test_one_that_is_ejected_is_left_at_once(self) -> None:
        rig = self.rig(Silent(), Good())
        asked = rig.ask()
        rig.seconds(1)
        rig.words[0] = EJECTED_WORD
        asked.quest.ejected(0)
        rig.stage.settle()
        self.answered(asked, 1, 1.0)
        self.assertEqual([], rig.told, "others have told already")
        self.quiet(rig)

    def test_but_not_by_a_post_nor_where_there_is_no_other_choice(self) -> None:
        post = Outbound(b"POST", b"/", [], content=Given(2, b"ok", complete=True), content_length=2)
        for outbound, characters in ((post, (Silent(), Good())), (GET, (Silent(),))):
            rig = self.rig(*characters)
            asked = rig.ask(outbound)
            rig.words[0] = EJECTED_WORD
            asked.quest.ejected(0)
            rig.stage.settle()
            self.assertIn(asked.quest, rig.outlet.quests)
            self.assertEqual(1, len(rig.characters[0].playing))


class ResortTests(QuestTests):
    """All addresses are out of service, and somebody else is asked before them."""

    def test_who_takes_longer_than_there_is_time_is_waited_for_and_nobody_else_is_asked(self) -> None:
        for found in (True, False):
            rig = self.rig(Good())
            rig.words[0] = EJECTED_WORD
            response = rig.ask().response
            asking: Deferred[Response | None] = Deferred()
            asked = rig.ask(within=1.0, resort=Resort(lambda asking=asking: asking))
            rig.seconds(2)
            self.assertIn(asked.quest, rig.outlet.quests)
            asking.callback(response if found else None)
            if found:
                self.assertIs(response, asked.response)
            else:
                self.failed(asked, HeadTimedOut, 2.0)
            self.assertEqual((1, []), (rig.requests(0), rig.told))


class ConnectingTests(QuestTests):
    """Must-show 4: one of the addresses drops packets. RFC 8305."""

    def test_the_next_address_is_connected_to_after_a_quarter_second(self) -> None:
        rig = self.rig(None, Good())
        asked = rig.ask()
        rig.seconds(0.3125, FINE)
        self.answered(asked, 1, 0.25, within=FINE)
        self.assertEqual(0.0, rig.standing.share(rig.addresses[0]), "the others come first meanwhile")
        rig.seconds(2)
        self.assertEqual([(0, Outcome.SLOW_TO_CONNECT), (0, Outcome.CONNECT_TIMED_OUT)], rig.told)
        self.quiet(rig)

    def test_every_method_is_helped_and_sent_once(self) -> None:
        for method in (b"GET", b"POST", b"PUT"):
            rig = self.rig(None, None, Good())
            content = None if method == b"GET" else Given(2, b"ok", complete=True)
            asked = rig.ask(Outbound(method, b"/", [], content=content, content_length=2 if content else None))
            rig.seconds(1, FINE)
            self.answered(asked, 2, 0.5, within=FINE)
            self.assertEqual(1, rig.requests(2))
            rig.seconds(2)
            self.assertEqual(2, len([kind for _, kind in rig.told if kind is Outcome.CONNECT_TIMED_OUT]))

    def test_one_that_refuses_costs_no_time(self) -> None:
        rig = self.rig(Refusing(), Refusing(), Good())
        self.answered(rig.ask(), 2, 0.0)
        self.assertEqual([(0, Outcome.CONNECT_FAILED), (1, Outcome.CONNECT_FAILED)], rig.told)

    def test_all_that_drop_packets(self) -> None:
        rig = self.rig(None, None)
        asked = rig.ask()
        rig.seconds(3)
        self.failed(asked, UpstreamFailed, 2.25)
        self.quiet(rig)

    def test_who_connects_too_late_never_gets_the_request(self) -> None:
        late = Good()
        rig = self.rig(late, Silent())
        rig.stage.hang("192.0.2.0", seconds=1.0)
        rig.ask()
        rig.seconds(0.3125, FINE)
        self.assertEqual((0, 1), (late.connections, rig.requests(1)))
        rig.seconds(1)
        self.assertEqual((1, []), (late.connections, late.asked))
        self.assertEqual([], late.playing, "and it is hung up on")

    def test_but_it_is_asked_after_all_if_the_other_disappoints(self) -> None:
        rig = self.rig(Good(), Silent())
        rig.stage.hang("192.0.2.0", seconds=1.0)
        asked = rig.ask()
        rig.seconds(7)
        # The other connected after a quarter second and owed its head for five; then it took its second again.
        self.answered(asked, 0, 6.25, within=COARSE)


class MovingTests(QuestTests):
    def test_a_reset_moves_on_at_once(self) -> None:
        rig = self.rig(Cutting(), Good())
        self.answered(rig.ask(), 1, 0.0)
        self.assertEqual([(0, Outcome.LOST)], rig.told)
        self.assertEqual(1, rig.counts.get(Counter.MOVES))

    def test_what_may_have_been_received_is_not_sent_again(self) -> None:
        rig = self.rig(Cutting(), Good())
        post = Outbound(b"POST", b"/", [], content=Given(2, b"ok", complete=True), content_length=2)
        self.failed(rig.ask(post), ConnectionLost, 0.0)
        self.assertEqual(0, rig.requests(1))

    def test_an_error_status_is_left_for_a_better_answer(self) -> None:
        for status in (b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout"):
            rig = self.rig(Good(status=status), Good())
            self.answered(rig.ask(), 1, 0.0)
            self.assertEqual([(0, Outcome.ERROR_STATUS)], rig.told)

    def test_a_500_and_a_404_are_answers(self) -> None:
        for status in (b"500 Internal Server Error", b"404 Not Found"):
            rig = self.rig(Good(status=status), Good())
            self.answered(rig.ask(), 0, 0.0)
            self.assertEqual([], rig.told)

    def test_an_error_status_is_better_than_nothing(self) -> None:
        rig = self.rig(Good(status=b"503 Service Unavailable"), Refusing())
        asked = rig.ask()
        self.answered(asked, 0, 0.0)
        assert asked.response is not None
        self.assertEqual(503, asked.response.head.status)

    def test_of_two_error_statuses_the_last_is_the_answer(self) -> None:
        rig = self.rig(Good(status=b"503 Service Unavailable"), Good(status=b"502 Bad Gateway"))
        self.answered(rig.ask(), 1, 0.0)
        self.quiet(rig)

    def test_the_ejected_are_asked_when_nobody_else_is_left(self) -> None:
        rig = self.rig(Refusing(), Good())
        rig.words[1] = EJECTED_WORD
        self.answered(rig.ask(), 1, 0.0)

    def test_all_refuse(self) -> None:
        rig = self.rig(Refusing(), Refusing())
        self.failed(rig.ask(), ConnectFailed, 0.0)
        self.quiet(rig)

    def test_cancelling_ends_all_of_it(self) -> None:
        rig = self.rig(Silent(), Silent())
        rig.history(0.1)
        asked = rig.ask()
        rig.seconds(0.3125)
        asked.cancel()
        rig.stage.settle()
        assert asked.failure is not None
        self.assertTrue(asked.failure.check(CancelledError))
        self.assertEqual(([], []), (rig.characters[0].playing, rig.characters[1].playing))
        self.assertEqual([], rig.told)
        self.quiet(rig)


class BusyTests(QuestTests):
    """It awaits as many heads as it may: its next client waits for its turn, not for an address that hangs."""

    def test_whoever_finds_no_room_waits_for_it(self) -> None:
        silent, ejected = Silent(), Silent()
        rig = self.rig(silent, ejected, awaited_heads=1)
        rig.words[1] = EJECTED_WORD
        first, second = rig.ask(), rig.ask()
        rig.seconds(1)
        self.assertEqual((1, 0), (len(silent.asked), len(ejected.asked)))
        silent.playing[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        rig.seconds(1)
        self.assertIsNotNone(first.response)
        self.assertEqual(2, len(silent.asked))
        silent.playing[-1].send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        rig.stage.settle()
        self.assertIsNotNone(second.response)
        self.quiet(rig)

    def test_but_not_for_longer_than_there_is_time(self) -> None:
        rig = self.rig(Silent(), Silent(), awaited_heads=1, first_byte_seconds=4.0)
        rig.words[1] = EJECTED_WORD
        rig.ask()
        asked = rig.ask()
        rig.seconds(5)
        self.failed(asked, UpstreamFailed, 4.0)
        self.quiet(rig)

    def test_where_nobody_else_is_known_it_fails_at_once(self) -> None:
        rig = self.rig(Silent(), awaited_heads=1)
        rig.ask()
        self.failed(rig.ask(), UpstreamBusy, 0.0)


class FallbackTests(QuestTests):
    """A fallback is asked after a failure, never because a better one is slow."""

    def test_it_is_not_hedged_with_nor_connected_to_meanwhile(self) -> None:
        for slow in (Silent(), None):
            rig = self.rig(slow, Good())
            rig.history(0.1)
            asked = rig.ask(better=1)
            rig.seconds(1)
            self.assertEqual((0, None), (rig.requests(1), asked.response))
            rig.seconds(5)
            self.answered(asked, 1, 2.0 if slow is None else 5.0, within=COARSE)

    def test_equals_of_the_better_one_are(self) -> None:
        rig = self.rig(Silent(), Good(), Good())
        rig.history(0.1)
        asked = rig.ask(better=2)
        rig.seconds(1, FINE)
        self.answered(asked, 1, 0.125, within=FINE)


class Cutting(Character):
    """Closes without a word."""

    def answer(self, asked: Any, player: Any) -> None:
        player.transport.close()


class AllowanceTests(QuestTests):
    def test_the_first_move_is_free_and_further_ones_wait_for_room(self) -> None:
        rig = self.rig(Cutting(), Cutting(), Silent(), attempt_share=0.0, attempt_least=1)
        asked = [rig.ask() for _ in range(3)]
        # The second move of the first quest takes the only place, and hangs.
        self.assertEqual([3, 3, 1], [rig.requests(number) for number in range(3)])
        asked[0].cancel()
        rig.stage.settle()
        self.assertEqual(2, rig.requests(2), "there is room for the next one")
        rig.seconds(13)
        for one in asked:
            self.assertIsNotNone(one.failure, "whoever waits in vain is told in time")
        self.quiet(rig)

    def test_who_waits_for_a_move_waits_once(self) -> None:
        allowance = Allowance(0.0, 1, 0.0)
        taker, waiter = allowance.ticket(), allowance.ticket()
        moved: list[int] = []
        for ticket in (taker, waiter):
            ticket.move(lambda: None)  # free
        taker.move(lambda: None)
        for number in (1, 2):
            waiter.move(lambda number=number: moved.append(number))  # type: ignore[misc]  # bound at once
        taker.settle()
        self.assertEqual([2], moved)
        waiter.close()
        taker.close()
        self.assertEqual((0, 0), (allowance.running, allowance.extra))

    def test_a_share_of_the_running_fills(self) -> None:
        allowance = Allowance(0.2, 3, 0.05)
        tickets = [allowance.ticket() for _ in range(100)]
        moved: list[Ticket] = []
        for ticket in tickets:
            ticket.move(lambda: None)  # free
            ticket.move(lambda ticket=ticket: moved.append(ticket))  # type: ignore[misc]  # bound at once
        self.assertEqual(tickets[:20], moved)
        tickets[0].settle()
        self.assertEqual(tickets[:21], moved)
        tickets[30].stay()
        for ticket in tickets[1:21]:
            ticket.settle()
        self.assertNotIn(tickets[30], moved)
        for ticket in tickets:
            ticket.close()
            ticket.close()
        self.assertEqual((0, 0), (allowance.running, allowance.extra))


class LatencyTests(SynchronousTestCase):
    def test_too_few_say_nothing(self) -> None:
        latencies = Latencies(300.0)
        for _ in range(LEAST_SAMPLES - 1):
            latencies.record(0.1, 1000.0)
        self.assertIsNone(latencies.p95(1000.0))
        latencies.record(0.1, 1001.0)
        self.assertIsNotNone(latencies.p95(1001.0))

    def test_enough_say_something_at_once(self) -> None:
        """A burst may fill the history within the second in which it was asked for before."""
        latencies = Latencies(300.0)
        for _ in range(LEAST_SAMPLES):
            self.assertIsNone(latencies.p95(1000.0))
            latencies.record(0.1, 1000.0)
        self.assertIsNotNone(latencies.p95(1000.0))

    def test_p95_is_met_within_a_ninth(self) -> None:
        for scale in (0.002, 0.05, 1.0, 20.0):
            latencies = Latencies(300.0)
            for number in range(1, 101):
                latencies.record(scale * number / 100, 1000.0)
            found = latencies.p95(1001.0)
            assert found is not None
            self.assertGreaterEqual(found, 0.95 * scale * 0.999)
            self.assertLessEqual(found, 0.95 * scale * 1.1)

    def test_what_is_older_than_the_window_is_forgotten(self) -> None:
        latencies = Latencies(300.0)
        for _ in range(100):
            latencies.record(10.0, 1000.0)
        for _ in range(100):
            latencies.record(0.01, 1250.0)
        self.assertGreater(latencies.p95(1250.0) or 0, 9)
        self.assertLess(latencies.p95(1320.0) or 99, 0.02)
        self.assertIsNone(latencies.p95(2000.0))
