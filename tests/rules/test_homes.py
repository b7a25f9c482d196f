"""Homes: weighted rendezvous hashing, whose values other nodes and other releases must get too (DESIGN 9)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.homes import HomeNode, Homes, _unit, score, share

DOCS = Path(__file__).parent.parent.parent / "docs" / "SIBLINGS.md"
FLEET = (
    HomeNode("eu-1", 1.0, "eu"),
    HomeNode("eu-2", 2.0, "eu"),
    HomeNode("us-1", 1.0, "us"),
    HomeNode("ap-1", 0.5, "ap"),
)

nodes = st.lists(
    st.builds(
        HomeNode,
        st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
        st.floats(0.01, 100),
        st.sampled_from(["", "eu", "us"]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda node: node.id,
).map(tuple)
keys = st.binary(min_size=32, max_size=32)


def key(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=32).digest()


class PublishedVectorTests(SynchronousTestCase):
    """The table in docs/SIBLINGS.md."""

    def rows(self) -> list[list[str]]:
        found = re.findall(r"^\| ((?:`[0-9a-f]+`|\(none\)) .*) \|$", DOCS.read_text(), re.MULTILINE)
        return [row.split(" | ") for row in found]

    def test_the_numbers_are_as_published(self) -> None:
        rows = self.rows()
        self.assertEqual(4, len(rows))
        for row in rows:
            octets = b"" if row[0] == "(none)" else bytes.fromhex(row[0].strip("`"))
            self.assertEqual(row[1:5], [f"{share(node.id, octets):.12f}" for node in FLEET])
            self.assertEqual(row[5], ", ".join(Homes(FLEET).order(octets)))
            self.assertEqual(row[6], ", ".join(Homes(FLEET, "us").order(octets)))

    def test_the_order_is_that_of_the_scores(self) -> None:
        for number in range(200):
            by_score = sorted(FLEET, key=lambda node: -score(node, key(number)))
            self.assertEqual([node.id for node in by_score], Homes(FLEET).order(key(number)))


class OrderTests(SynchronousTestCase):
    @given(nodes, keys)
    def test_every_node_is_in_it_once(self, fleet: tuple[HomeNode, ...], octets: bytes) -> None:
        self.assertEqual(sorted(node.id for node in fleet), sorted(Homes(fleet).order(octets)))

    @given(nodes, keys, st.randoms())
    def test_in_whatever_order_a_configuration_names_them(
        self, fleet: tuple[HomeNode, ...], octets: bytes, random: st.Random
    ) -> None:
        shuffled = list(fleet)
        random.shuffle(shuffled)
        self.assertEqual(Homes(fleet).order(octets), Homes(tuple(shuffled)).order(octets))

    @given(nodes, keys)
    def test_who_goes_leaves_the_order_of_the_others_as_it_was(
        self, fleet: tuple[HomeNode, ...], octets: bytes
    ) -> None:
        gone = fleet[0].id
        remaining = [node_id for node_id in Homes(fleet).order(octets) if node_id != gone]
        self.assertEqual(remaining, Homes(fleet[1:]).order(octets))

    @given(nodes, keys)
    def test_a_larger_weight_never_costs_a_node_a_key(self, fleet: tuple[HomeNode, ...], octets: bytes) -> None:
        before = Homes(fleet).order(octets).index(fleet[0].id)
        heavier = (evolve(fleet[0], weight=fleet[0].weight * 2), *fleet[1:])
        self.assertLessEqual(Homes(heavier).order(octets).index(fleet[0].id), before)

    @given(nodes, keys)
    def test_nodes_of_the_region_come_first_and_each_part_keeps_its_order(
        self, fleet: tuple[HomeNode, ...], octets: bytes
    ) -> None:
        region = {node.id: node.region for node in fleet}
        plain = Homes(fleet).order(octets)
        near = [node_id for node_id in plain if region[node_id] == "eu"]
        far = [node_id for node_id in plain if region[node_id] != "eu"]
        self.assertEqual(near + far, Homes(fleet, "eu").order(octets))


class HomeTests(SynchronousTestCase):
    def test_it_is_the_first(self) -> None:
        self.assertEqual(Homes(FLEET).order(key(1))[0], Homes(FLEET).home(key(1)))

    def test_who_is_out_is_passed_over_and_no_other_key_moves(self) -> None:
        homes = Homes(FLEET)
        for number in range(300):
            before, after = homes.home(key(number)), homes.home(key(number), {"eu-2"})
            expected = homes.order(key(number))[1] if before == "eu-2" else before
            self.assertEqual(expected, after)

    def test_when_all_are_out_there_is_none(self) -> None:
        self.assertIsNone(Homes(FLEET).home(key(1), {node.id for node in FLEET}))

    def test_without_nodes_there_is_none(self) -> None:
        self.assertIsNone(Homes(()).home(key(1)))


class ShareTests(SynchronousTestCase):
    def test_keys_are_spread_by_weight(self) -> None:
        """Of 9,000 keys each node has its share within five standard deviations: the keys are fixed, so is this."""
        homes = Homes(FLEET)
        count = 9_000
        found = Counter(homes.home(key(number)) for number in range(count))
        for node in FLEET:
            expected = node.weight / 4.5
            deviation = (count * expected * (1 - expected)) ** 0.5
            self.assertLess(abs(count * expected - found[node.id]), 5 * deviation)

    @given(st.text(min_size=1, max_size=64), st.binary(max_size=64))
    def test_a_share_has_a_logarithm_that_is_not_zero(self, node_id: str, octets: bytes) -> None:
        self.assertTrue(0.0 < share(node_id, octets) < 1.0)

    def test_the_extreme_hashes_have_scores(self) -> None:
        """A double between them and 1 would be rounded to 1."""
        for digest in (0, (1 << 64) - 1):
            self.assertTrue(0.0 < _unit(digest) < 1.0)
