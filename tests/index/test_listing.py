"""Lists of projects: parsed whole or in pieces, and compared."""

from __future__ import annotations

from typing import Any

import orjson
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index import listing
from edgecache.index.listing import BadListing, Changes, Listing, parse


def key_of(name: bytes) -> int:
    return xxhash.xxh3_64_intdigest(name)


def document(projects: dict[str, Any], *, first: bool = False, indent: bool = False, **more: Any) -> bytes:
    """A list. :param first: the projects come before everything else."""
    listed = [{"name": name, "_last-serial": serial} for name, serial in projects.items()]
    meta = {"meta": {"api-version": "1.3", "_last-serial": 9}}
    whole = {"projects": listed, **more, **meta} if first else {**meta, **more, "projects": listed}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 if indent else 0)


def parsed(projects: dict[str, Any], **options: Any) -> Listing:
    return parse(document(projects, **options), key_of)


def changes(before: dict[str, Any], after: dict[str, Any]) -> tuple[set[tuple[int, int]], set[int]]:
    found: Changes = parsed(before).changes(parsed(after))
    return set(found.changed), set(found.vanished)


NAMES = st.text("ab-_.Z", min_size=1, max_size=4)
LISTS = st.dictionaries(NAMES, st.integers(0, 9), max_size=8)


class ChangesTests(SynchronousTestCase):
    def test_a_risen_serial_a_new_project_and_one_that_vanished(self) -> None:
        found = changes({"same": 1, "risen": 2, "gone": 3}, {"same": 1, "risen": 5, "new": 7})
        self.assertEqual(({(key_of(b"risen"), 5), (key_of(b"new"), 7)}, {key_of(b"gone")}), found)

    def test_a_serial_that_fell_is_a_change_as_well(self) -> None:
        self.assertEqual(({(key_of(b"a"), 1)}, set()), changes({"a": 2}, {"a": 1}))

    def test_projects_are_compared_by_their_normalised_names(self) -> None:
        self.assertEqual((set(), set()), changes({"Zope.Interface": 1}, {"zope-interface": 1}))

    def test_of_a_project_that_is_listed_twice_the_highest_serial_counts(self) -> None:
        self.assertEqual((set(), set()), changes({"a_b": 3, "A-B": 5}, {"a-b": 5}))

    @settings(max_examples=200)
    @given(LISTS, LISTS)
    def test_it_is_what_a_comparison_by_name_finds(self, before: dict[str, int], after: dict[str, int]) -> None:
        def plain(listed: dict[str, int]) -> dict[int, int]:
            found: dict[int, int] = {}
            for name, serial in listed.items():
                key = key_of(listing.normalised_name(name.encode()))
                found[key] = max(serial, found.get(key, 0))
            return found

        old, new = plain(before), plain(after)
        expected = {(key, serial) for key, serial in new.items() if old.get(key) != serial}, old.keys() - new.keys()
        self.assertEqual(expected, changes(before, after))


class ParsingTests(SynchronousTestCase):
    MANY = {f"project-{number}": number for number in range(2000)}  # nobody writes to it

    def setUp(self) -> None:
        # So that few projects are many pieces.
        self.patch(listing, "PIECE", 1000)

    def assert_same(self, content: bytes) -> None:
        found = parse(content, key_of)
        self.assertEqual((2000, True), (found.projects, found.complete))
        with_one_piece = Listing(0, 0, found._buckets)
        self.patch(listing, "PIECE", 1 << 30)
        whole = parse(content, key_of)
        self.assertEqual(Changes([], []), with_one_piece.changes(whole))
        self.patch(listing, "PIECE", 1000)

    def test_a_list_in_pieces_says_what_it_says_whole(self) -> None:
        for options in ({}, {"first": True}, {"indent": True}, {"first": True, "indent": True}):
            self.assert_same(document(self.MANY, **options))

    def test_keys_that_are_not_known_disturb_nobody(self) -> None:
        tricky = "}, {"
        self.assert_same(document(self.MANY, note={"projects": [{"a": tricky}, {"b": tricky}]}))
        self.assert_same(document(self.MANY, first=True, tail=[{"x": "]}"}, {"projects": []}]))
        nested = [
            {"name": name, "_last-serial": serial, "x": [{"y": tricky}, {}]} for name, serial in self.MANY.items()
        ]
        self.assert_same(orjson.dumps({"projects": nested}))

    def test_projects_without_a_serial_are_counted(self) -> None:
        for serial in (None, "5", 1.5, -1, True, 1 << 63):
            found = parsed({"a": 1, "b": serial})
            self.assertEqual((2, 1, False), (found.projects, found.without, found.complete), serial)

    def test_what_is_no_list_of_projects_is_refused(self) -> None:
        for content in (
            b"",
            b"<html></html>",
            b"[]",
            b"{}",
            b'{"projects": {}}',
            b'{"projects": [5]}',
            b'{"projects": [{"_last-serial": 5}]}',
            b'{"projects": [{"name": ""}]}',
            b'{"projects": [{"name": 5}]}',
            orjson.dumps({"projects": [{"name": "x" * 2000}]}),
            document(self.MANY)[:-10],
            document(self.MANY)[: len(document(self.MANY)) // 2],
            b'{"projects":' + b"[" * 5000 + b"]" * 5000 + b"}",
        ):
            self.assertRaises(BadListing, parse, content, key_of)
