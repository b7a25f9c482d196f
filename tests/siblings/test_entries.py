"""Purges as octets in logs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.purging import PurgeAsked
from edgecache.rules.selectors import Selector
from edgecache.siblings.entries import BadEntry, PurgeEntry, digest
from edgecache.words.reasons import PurgeMode


class EntryTests(SynchronousTestCase):
    @settings(max_examples=50)
    @given(
        st.lists(st.binary(max_size=40)),
        st.sampled_from(PurgeMode),
        st.dictionaries(st.text("abc-", max_size=5), st.integers(0, 2**53)),
        st.floats(0, 1e10),
        st.text("abc ü", max_size=9),
    )
    def test_what_was_written_is_read(
        self, selectors: list[bytes], mode: PurgeMode, serials: dict[str, int], at: float, by: str
    ) -> None:
        entry = PurgeEntry(tuple(selectors), mode, serials, at, by)
        self.assertEqual(entry, PurgeEntry.unpack(entry.pack()))

    def test_a_selector_hashes_the_same_from_the_log_as_from_its_parts(self) -> None:
        selector = Selector("url", 7, "/ü?x".encode())
        entry = PurgeEntry((selector.canonical,), PurgeMode.DELETE, {}, 0.0, "")
        self.assertEqual([(selector.canonical, selector.hash, 3)], PurgeEntry.unpack(entry.pack()).rows())

    def test_what_another_release_wrote_is_refused_not_guessed(self) -> None:
        good = PurgeEntry((b"all 1 ",), PurgeMode.SOFT, {}, 0.0, "").pack()
        for content in (
            b"",
            b"[]",
            b"{}",
            good.replace(b'"version":1', b'"version":2'),
            good.replace(b"soft", b"harsh"),
            good.replace(b'["all 1 "]', b"[5]"),
            good.replace(b'"serials":{}', b'"serials":{"six":-1}'),
            good.replace(b'"serials":{}', b'"serials":{"six":"1"}'),
            good.replace(b'["all 1 "]', '["\u20ac"]'.encode()),
        ):
            self.assertRaises(BadEntry, PurgeEntry.unpack, content)

    def test_a_selector_of_another_release_is_refused_where_its_meaning_matters(self) -> None:
        entry = PurgeEntry((b"nonsense",), PurgeMode.DELETE, {}, 0.0, "")
        self.assertRaises(BadEntry, PurgeEntry.unpack(entry.pack()).demands)

    def test_the_digest_tells_purges_apart_but_not_their_order(self) -> None:
        one, two = Selector("url", 1, b"/a"), Selector("url", 1, b"/b")
        same = PurgeAsked((one, two), PurgeMode.SOFT, {}, "x")
        self.assertEqual(digest(same), digest(PurgeAsked((two, one), PurgeMode.SOFT, {}, "y")))
        for other in (
            PurgeAsked((one,), PurgeMode.SOFT, {}, "x"),
            PurgeAsked((one, two), PurgeMode.DELETE, {}, "x"),
            PurgeAsked((one, two), PurgeMode.SOFT, {"p": 1}, "x"),
        ):
            self.assertNotEqual(digest(same), digest(other))
