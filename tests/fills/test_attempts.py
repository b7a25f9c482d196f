"""Who is asked, in which order, and how often (DESIGN 8, decision 60)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.routing import candidates
from edgecache.words.config import Policy
from tests.fills.rig import Exchange, RigCase


class CandidateTests(SynchronousTestCase):
    ORIGINS = (("a1", "a2"), ("b1",), ("c1", "c2"))

    def test_every_address_once_whatever_the_turn(self) -> None:
        for policy in Policy:
            for turn in range(7):
                found = candidates(self.ORIGINS, policy, turn)
                self.assertEqual(["a1", "a2", "b1", "c1", "c2"], sorted(found))

    def test_round_robin_begins_with_each_origin_in_turn(self) -> None:
        begins = [candidates(self.ORIGINS, Policy.ROUND_ROBIN, turn)[0][0] for turn in range(6)]
        self.assertEqual(["a", "b", "c", "a", "b", "c"], begins)

    def test_an_order_is_kept_and_the_addresses_of_a_name_take_turns(self) -> None:
        self.assertEqual(
            [["a1", "a2", "b1", "c1", "c2"], ["a2", "a1", "b1", "c2", "c1"]],
            [candidates(self.ORIGINS, Policy.ORDERED, turn) for turn in (0, 1)],
        )

    def test_origins_and_their_addresses_meet_in_every_pair(self) -> None:
        pairs = {tuple(candidates((("a1", "a2"), ("b1", "b2")), Policy.ROUND_ROBIN, turn)[:2]) for turn in range(4)}
        self.assertEqual({("a1", "a2"), ("a2", "a1"), ("b1", "b2"), ("b2", "b1")}, pairs)

    def test_a_fallback_comes_after_the_first_origin_unless_that_is_ejected(self) -> None:
        origins = (("a1", "a2"), ("b",))
        for turn in range(9):
            slow = candidates(origins, Policy.FALLBACK, turn, {"a1": 0.0, "a2": 0.1, "b": 1.0}.__getitem__)
            self.assertEqual("b", slow[2])
            shares = {"a1": 0.0, "a2": 0.0, "b": 1.0}.__getitem__
            self.assertEqual("b", candidates(origins, Policy.FALLBACK, turn, shares, lambda one: one != "b")[0])

    def test_the_ejected_come_last_and_those_slow_to_connect_before_them(self) -> None:
        share = {"a1": 0.0, "b1": 0.0}.get
        for policy in (Policy.ROUND_ROBIN, Policy.ORDERED):
            for turn in range(6):
                found = candidates(self.ORIGINS, policy, turn, lambda one: share(one, 1.0), "b1".__eq__)
                self.assertEqual(["a1", "b1"], found[-2:])

    def test_one_that_came_back_is_asked_first_for_its_share_of_requests(self) -> None:
        for wanted in (0.1, 0.5, 0.9):
            first = [
                candidates((("a",), ("b",)), Policy.ROUND_ROBIN, turn, {"a": wanted, "b": 1.0}.__getitem__)[0]
                for turn in range(2000)
            ]
            self.assertLess(abs(first.count("a") - 1000 * wanted), 20, wanted)

    def test_nothing_known_is_nobody(self) -> None:
        self.assertEqual([], candidates(((), ()), Policy.ROUND_ROBIN, 3))


class LostConnectionTests(RigCase):
    def test_an_idle_connection_lost_under_a_get_is_asked_again_once(self):
        async def test():
            async def once(exchange: Exchange):
                if exchange.target == "/first" or self.origin.count("/next") > 1:
                    await exchange.answer(b"abc")
                else:
                    exchange.cut()

            self.origin.scripts["/first"] = self.origin.scripts["/next"] = once
            await self.ask("/first")
            self.assertEqual((200, b"abc"), ((answer := await self.ask("/next")).status, answer.content))
            self.assertEqual(2, self.origin.count("/next"))

        return self.run_async(test())

    def test_a_post_is_sent_once(self):
        async def test():
            async def cutting(exchange: Exchange):
                if exchange.target == "/first":
                    await exchange.answer(b"abc")
                else:
                    exchange.cut()

            self.origin.scripts["/first"] = self.origin.scripts["/post"] = cutting
            await self.ask("/first")
            self.assertEqual(503, (await self.ask("/post", method="POST", content=b"x")).status)
            self.assertEqual(1, self.origin.count("/post"))

        return self.run_async(test())

    def test_a_new_connection_that_is_lost_is_a_failure(self):
        async def test():
            async def cutting(exchange: Exchange):
                exchange.cut()

            self.origin.scripts["/a"] = cutting
            self.assertEqual(503, (await self.ask("/a")).status)
            self.assertEqual(1, self.origin.count("/a"))

        return self.run_async(test())
