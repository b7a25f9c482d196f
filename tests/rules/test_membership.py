"""Members and quorums (DESIGN 9)."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import CLOCK_DRIFT, BadMembership, Membership, configuration_hash
from edgecache.words.siblingsettings import Quorum

ids = st.sampled_from(["a", "b", "c", "d", "e", "f"])
sets = st.frozensets(ids, min_size=1)


def of(members: str, before: str = "", **settings: object) -> Membership:
    return Membership.of(members[0], members, previous_members=before, **settings)  # type: ignore[arg-type]


class ConfigurationHashTests(SynchronousTestCase):
    def test_the_order_of_members_does_not_matter(self) -> None:
        self.assertEqual(
            configuration_hash(["a", "b"], "majority", 10), configuration_hash(["b", "a", "b"], "majority", 10.0)
        )

    def test_members_quorum_and_lease_all_matter(self) -> None:
        hashes = {
            configuration_hash(["a", "b"], "majority", 10.0),
            configuration_hash(["a", "c"], "majority", 10.0),
            configuration_hash(["ab"], "majority", 10.0),
            configuration_hash(["a", "b"], "any", 10.0),
            configuration_hash(["a", "b"], "majority", 10.5),
        }
        self.assertEqual({16}, {len(each) for each in hashes})
        self.assertEqual(5, len(hashes))


class QuorumTests(SynchronousTestCase):
    @given(sets, st.sampled_from(Quorum))
    def test_a_lease_always_asks_somebody_who_has_the_durable_purge(
        self, members: frozenset[str], quorum: Quorum
    ) -> None:
        membership = Membership.of(min(members), members, quorum=quorum)
        for size in range(len(members) + 1):
            for having in combinations(sorted(members), size):
                if membership.durable(dict.fromkeys(having, 1)):
                    self.assertFalse(membership.groups[0].leased(members - set(having)), having)

    @given(sets, ids, st.data())
    def test_while_members_change_old_and_new_ones_cannot_miss_each_other(
        self, members: frozenset[str], changed: str, data: st.DataObject
    ) -> None:
        after = members ^ {changed}
        if not after:
            return
        old, new = Membership.of(min(members), members), Membership.of(min(after), after)
        having = data.draw(st.frozensets(st.sampled_from(sorted(members))))
        if old.durable(dict.fromkeys(having, 1)):
            self.assertFalse(new.groups[0].leased(after - having))

    def test_a_node_that_lost_its_control_asks_all_but_what_a_durable_purge_can_hide_from(self) -> None:
        self.assertTrue(of("abc").admits({"b", "c"}, set()))
        self.assertFalse(of("abc").admits({"b"}, set()))
        self.assertTrue(of("abc").admits({"b"}, {"c"}))
        self.assertTrue(of("abc").admits(set(), {"b", "c"}))
        self.assertTrue(of("abcde").admits({"b", "c", "d"}, set()))
        self.assertFalse(of("abcde").admits({"b", "c"}, {"d"}))

    def test_a_lone_node_is_admitted_at_once(self) -> None:
        self.assertTrue(of("a").admits(set(), set()))
        self.assertTrue(of("a").leased(set()))

    def test_one_disk_suffices_only_where_any_is_chosen(self) -> None:
        self.assertTrue(of("ab", quorum=Quorum.ANY).one_disk_suffices)
        self.assertFalse(of("ab").one_disk_suffices)
        self.assertFalse(of("a").one_disk_suffices)
        self.assertFalse(of("abc", "ab", previous_quorum=Quorum.ANY).one_disk_suffices)


class ChangeTests(SynchronousTestCase):
    def test_both_sets_must_have_a_purge_and_answer_a_round(self) -> None:
        membership = of("abcd", "abc")
        self.assertEqual(0, membership.durable({"a": 5, "d": 5}))
        self.assertEqual(0, membership.durable({"a": 5, "b": 5}))
        self.assertEqual(5, membership.durable({"a": 5, "b": 6, "d": 7}))
        self.assertFalse(membership.leased({"b"}))
        self.assertTrue(membership.leased({"b", "d"}))

    def test_one_member_changes_at_a_time(self) -> None:
        self.assertRaises(BadMembership, of, "abcd", "abe")
        self.assertRaises(BadMembership, of, "abde", "abc")
        self.assertRaises(BadMembership, Membership.of, "z", ["a", "b"])

    def test_a_node_that_leaves_is_a_member_until_the_change_is_over(self) -> None:
        self.assertEqual({"a", "b"}, Membership.of("c", ["a", "b"], previous_members=["a", "b", "c"]).others)

    def test_neighbours_in_a_change_understand_each_other_and_others_do_not(self) -> None:
        old, between, new = of("abc"), of("abcd", "abc"), of("abcd")
        self.assertTrue(old.understands(between.hashes))
        self.assertTrue(between.understands(old.hashes))
        self.assertTrue(between.understands(new.hashes))
        self.assertFalse(old.understands(new.hashes))

    def test_while_the_lease_changes_the_shorter_is_taken_and_the_longer_is_waited_for(self) -> None:
        membership = of("abc", "abc", lease_seconds=4.0, previous_lease_seconds=10.0)
        self.assertEqual(4.0, membership.lease_seconds)
        self.assertGreater(membership.bound_seconds, 10.0)

    def test_the_bound_outlasts_a_lease_on_the_slowest_clock_measured_by_the_fastest(self) -> None:
        longest = 10.0 / (1 - CLOCK_DRIFT)
        self.assertGreaterEqual(of("abc").bound_seconds / (1 + CLOCK_DRIFT), longest - 1e-9)
