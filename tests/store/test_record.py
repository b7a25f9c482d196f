"""Records as octets: what goes in comes out, and nothing else passes for a record."""

from __future__ import annotations

import math

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store import layout
from edgecache.store.record import NOMINATED_SETS, Damaged, merged, pack, pack_variants, unpack, with_floor
from edgecache.words.stored import Stored, Variants
from tests.store.rooms import response

U64 = st.integers(0, 2**64 - 1)
TIMES = st.floats(allow_nan=False)
NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"," not in name and b"\n" not in name)

RESPONSES = st.builds(
    Stored,
    site=U64,
    key=st.binary(max_size=300),
    status=st.integers(100, 999),
    flags=st.integers(0, 2**32 - 1),
    floor=U64,
    generated_at=TIMES,
    fresh_until=TIMES,
    stale_while_revalidate_until=TIMES,
    stale_if_error_until=TIMES,
    validated_at=TIMES,
    date=TIMES,
    last_modified=st.none() | TIMES,
    etag=st.binary(max_size=40),
    size=U64,
    content_id=st.binary(min_size=16, max_size=16),
    selectors=st.lists(U64, max_size=200).map(tuple),
    head=st.binary(max_size=600),
    variant=st.binary(max_size=40),
    digest=st.binary(max_size=32),
)


def octets_of(stored: Stored, sequence: int = 1) -> bytes:
    return b"".join(pack(stored, sequence))


class RecordTests(SynchronousTestCase):
    def parts(self, value: bytes) -> tuple[Stored, int, int, bytes]:
        """:return: record, sequence, checksum of the content, the content."""
        record, sequence, octets, checksum = unpack(value)
        assert isinstance(record, Stored)
        return record, sequence, checksum, value[octets:]

    @settings(max_examples=150)
    @given(stored=RESPONSES, sequence=U64, checksum=U64, content=st.binary(max_size=50))
    def test_every_field_comes_back(self, stored: Stored, sequence: int, checksum: int, content: bytes) -> None:
        value = b"".join((*pack(stored, sequence, checksum), content))
        found, *numbers, end = self.parts(value)
        self.assertEqual(attrs.asdict(stored), attrs.asdict(found))
        self.assertEqual(([sequence, checksum], content), (numbers, end))
        self.assertEqual(sequence, layout.sequence_of(value))

    @settings(max_examples=50)
    @given(
        key=st.binary(max_size=300),
        nominated=st.lists(st.lists(NAMES, max_size=4).map(tuple), min_size=1, max_size=5),
        sequence=U64,
    )
    def test_nominated_names_come_back_in_order(
        self, key: bytes, nominated: list[tuple[bytes, ...]], sequence: int
    ) -> None:
        found, got, _, _ = unpack(b"".join(pack_variants(Variants(key, nominated), sequence)))
        assert isinstance(found, Variants)
        self.assertEqual((key, nominated, sequence), (found.key, found.nominated, got))

    def test_an_infinite_time_stays_infinite_and_no_last_modified_stays_none(self) -> None:
        found, *_ = self.parts(octets_of(response(stale_if_error_until=math.inf, last_modified=None)))
        self.assertEqual((math.inf, None), (found.stale_if_error_until, found.last_modified))

    def test_any_octet_changed_is_damage(self) -> None:
        value = octets_of(response(selectors=(1, 2), head=b"head"))
        ignored = {2, 3}  # padding of the prefix
        for at in set(range(len(value))) - ignored:
            for change in (1, 0x80, 0xFF):
                changed = bytearray(value)
                changed[at] ^= change
                self.assertRaises(Damaged, unpack, bytes(changed))

    def test_cut_anywhere_it_is_damage(self) -> None:
        for value in (octets_of(response()), b"".join(pack_variants(Variants(b"key", [(b"accept",)]), 1))):
            for stop in range(len(value)):
                self.assertRaises(Damaged, unpack, value[:stop])

    def test_zeros_are_damage(self) -> None:
        self.assertRaises(Damaged, unpack, bytes(4096))

    @settings(max_examples=50)
    @given(stored=RESPONSES, floor=U64, content=st.binary(max_size=50))
    def test_another_floor_changes_nothing_else(self, stored: Stored, floor: int, content: bytes) -> None:
        value = with_floor(b"".join((*pack(stored, 7, 8), content)), floor)
        found, *rest = self.parts(value)
        self.assertEqual(attrs.asdict(attrs.evolve(stored, floor=floor)), attrs.asdict(found))
        self.assertEqual([7, 8, content], rest)


class MergingTests(SynchronousTestCase):
    """RFC 9111 §4.1: which fields select is said by the newest response first."""

    @given(
        newer=st.lists(st.sampled_from([(b"a",), (b"b",), (b"c",), (b"a", b"b")]), min_size=1, max_size=3),
        older=st.lists(st.sampled_from([(b"a",), (b"b",), (b"c",), (b"d",)]), max_size=4),
    )
    @settings(max_examples=50)
    def test_the_newer_come_first_none_twice_and_not_too_many(
        self, newer: list[tuple[bytes, ...]], older: list[tuple[bytes, ...]]
    ) -> None:
        sets = merged(Variants(b"key", newer), Variants(b"key", older)).nominated
        self.assertEqual(newer[0], sets[0])
        self.assertEqual(len(sets), len(set(sets)))
        self.assertLessEqual(set(sets), {*newer, *older})
        self.assertEqual(min(NOMINATED_SETS, len({*newer, *older})), len(sets))
