"""What a purge names, what it hits, and what it is refused for (DESIGN 9, 11)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.policy import invalidated
from edgecache.rules.purges import PurgeTable
from edgecache.rules.purging import BadPurge, PurgeAsked, parse_purge
from edgecache.rules.selectors import (
    Selector,
    all_selector,
    normal_target,
    prefix_selectors,
    tag_selector,
    url_selector,
)
from edgecache.rules.sharing import parted
from edgecache.rules.sites import Sites
from edgecache.words.config import Config, NodeSettings, Profile, SiteSettings
from edgecache.words.reasons import PurgeMode
from tests.rules.build import PLAIN, asked, head

TWO = Sites(
    Config(
        NodeSettings("n"),
        (
            SiteSettings("main", Profile.PLAIN, ("http://one.test:8000/base",), hosts=("a.test",)),
            SiteSettings("rest", Profile.INDEX, ("https://two.test",), hosts=("*",)),
        ),
    )
)
A, B = (site.id for site in TWO.all)


def understood(document: Any, sites: Sites = PLAIN, **more: Any) -> PurgeAsked:
    found = parse_purge(document, sites, **more)
    assert isinstance(found, PurgeAsked), found
    return found


class SelectorTests(SynchronousTestCase):
    def test_a_selector_s_hash_is_what_records_carry(self) -> None:
        for selector, number in (
            (Selector("all", A, b""), all_selector(A)),
            (Selector("url", A, b"/x?y"), url_selector(A, b"/x?y")),
            (Selector("prefix", A, b"/x/"), prefix_selectors(A, b"/x/y")[1]),
            (Selector("tag", A, b"t"), tag_selector(A, b"t")),
        ):
            self.assertEqual(number, selector.hash)
            self.assertTrue(0 <= number < 1 << 64)

    def test_kinds_sites_and_values_don_t_collide(self) -> None:
        canonical = {
            Selector(kind, site, value).canonical
            for kind in ("all", "url", "prefix", "tag")
            for site in (A, B)
            for value in (b"/", b"/a", b"/ a")
        }
        self.assertEqual(24, len(canonical))

    def test_every_prefix_of_the_path_and_never_more_than_16_segments(self) -> None:
        hashes = [Selector("prefix", A, value).hash for value in (b"/", b"/a/", b"/a/b/")]
        self.assertEqual(tuple(hashes), prefix_selectors(A, b"/a/b/c?d/e/"))
        self.assertEqual(tuple(hashes), prefix_selectors(A, b"/a/b/"))
        self.assertEqual(17, len(prefix_selectors(A, b"/" + b"s/" * 40)))
        self.assertEqual((), prefix_selectors(A, b"*"))

    def test_one_url_in_its_spellings(self) -> None:
        for spelling in (b"/%61-b%2Fc", b"/a%2db%2fc", b"/x/../a-b%2Fc", b"/./a-b%2fc"):
            self.assertEqual(url_selector(A, b"/a-b%2Fc"), url_selector(A, spelling), spelling)
        for other in (b"/a-b/c", b"/A-b%2Fc", b"/a-b%2Fc?"):
            self.assertNotEqual(url_selector(A, b"/a-b%2Fc"), url_selector(A, other), other)

    def test_dot_segments(self) -> None:
        """RFC 3986 §5.2.4"""
        for target, expected in (
            (b"/a/b/c/./../../g", b"/a/g"),
            (b"/../a", b"/a"),
            (b"/a/..", b"/"),
            (b"/a/.", b"/a/"),
            (b"/.a/..b", b"/.a/..b"),
            (b"/a?x=/../b", b"/a?x=/../b"),
            (b"/%2e%2e/a", b"/a"),
        ):
            self.assertEqual(expected, normal_target(target), target)

    @given(st.binary(max_size=40))
    @settings(max_examples=200)
    def test_normalising_twice_changes_nothing_more(self, path: bytes) -> None:
        once = normal_target(b"/" + path)
        if b"%25" not in once:
            self.assertEqual(once, normal_target(once))


class DocumentTests(SynchronousTestCase):
    """``POST /purge``"""

    def test_a_path_selects_it_on_every_site(self) -> None:
        found = understood({"urls": ["/x?y#z"], "prefixes": ["/p/"], "tags": ["t"]}, TWO)
        expected = {
            Selector(kind, site, value)
            for site in (A, B)
            for kind, value in (("url", b"/x?y"), ("prefix", b"/p/"), ("tag", b"t"))
        }
        self.assertEqual((expected, PurgeMode.REVALIDATE, ""), (set(found.selectors), found.mode, found.id))

    def test_an_absolute_url_selects_the_sites_that_it_names(self) -> None:
        for url, expected in (
            ("http://a.test/x", {(A, b"/x"), (B, b"/x")}),
            ("https://A.test:443/x", {(A, b"/x"), (B, b"/x")}),
            ("http://other.test/x", {(B, b"/x")}),
            ("http://one.test:8000/base/x", {(A, b"/x"), (B, b"/base/x")}),
            ("http://one.test:8000/other/x", {(B, b"/other/x")}),
            ("https://two.test?q", {(B, b"/?q")}),
            ("https://u:p@two.test/x", {(B, b"/x")}),
        ):
            self.assertEqual(
                expected, {(one.site, one.value) for one in understood({"urls": [url]}, TWO).selectors}, url
            )

    def test_a_url_of_nobody_selects_nothing(self) -> None:
        only = Sites(Config(NodeSettings("n"), (SiteSettings("s", Profile.PLAIN, ("http://o",), hosts=("a.test",)),)))
        self.assertEqual((), understood({"urls": ["http://b.test/x"]}, only).selectors)

    def test_everything_and_serials(self) -> None:
        found = understood({"all": True, "serials": {"Foo.Bar": 7, "foo_bar": 9}, "mode": "delete", "id": "x-1"})
        site = PLAIN.all[0].id
        self.assertEqual({Selector("all", site, b""), Selector("tag", site, b"project/foo-bar")}, set(found.selectors))
        self.assertEqual((PurgeMode.DELETE, {"foo-bar": 9}, "x-1"), (found.mode, found.serials, found.id))

    def test_a_project_is_meant_however_its_name_is_spelt(self) -> None:
        """Of an index, whose pages are stored under normalised names (PEP 503): else the purge would name nothing."""
        for document, expected in (
            ({"tags": ["project/Foo.Bar"]}, {("tag", b"project/Foo.Bar"), ("tag", b"project/foo-bar")}),
            ({"urls": ["/simple/Foo_Bar/"]}, {("url", b"/simple/foo-bar/")}),
            ({"urls": ["/simple/foo-bar"]}, {("url", b"/simple/foo-bar/")}),
            ({"urls": ["https://two.test/simple/foo-bar/?x"]}, {("url", b"/simple/foo-bar/")}),
            ({"urls": ["/simple"]}, {("url", b"/simple/")}),
            ({"urls": ["/pypi/Foo.Bar/1.0/json"]}, {("url", b"/pypi/foo-bar/1.0/json")}),
            ({"urls": ["/simple/foo.whl"]}, {("url", b"/simple/foo.whl")}),
            ({"prefixes": ["/simple/Foo_Bar/"]}, {("prefix", b"/simple/foo-bar/")}),
            ({"prefixes": ["/pypi/Foo_Bar/"]}, {("prefix", b"/pypi/foo-bar/")}),
            ({"prefixes": ["/pypi/Foo_Bar/1.0/"]}, {("prefix", b"/pypi/foo-bar/1.0/")}),
            ({"prefixes": ["/files/Foo_Bar/"]}, {("prefix", b"/files/foo-bar/")}),
            ({"prefixes": ["/packages/files/Foo_Bar/-/"]}, {("prefix", b"/files/foo-bar/-/")}),
            ({"prefixes": ["/packages/files/"]}, {("prefix", b"/files/")}),
            ({"prefixes": ["/packages/Foo_Bar/"]}, {("prefix", b"/packages/Foo_Bar/")}),
        ):
            found = {(one.kind, one.value) for one in understood(document, TWO).selectors if one.site == B}
            self.assertEqual(expected, found, document)

    def test_of_a_plain_site_every_name_is_as_it_is_spelt(self) -> None:
        document = {"tags": ["project/Foo.Bar"], "urls": ["/simple/Foo_Bar"], "prefixes": ["/simple/Foo_Bar/"]}
        values = {one.value for one in understood(document, TWO).selectors if one.site == A}
        self.assertEqual({b"project/Foo.Bar", b"/simple/Foo_Bar", b"/simple/Foo_Bar/"}, values)

    def test_duplicates_count_once(self) -> None:
        self.assertEqual(1, len(understood({"urls": ["/a", "/%61", "/a#b"]}).selectors))

    def test_what_is_wrong_is_named(self) -> None:
        for document, named in (
            ([], "object"),
            ({}, "Nothing"),
            ({"urls": []}, "Nothing"),
            ({"all": False}, "Nothing"),
            ({"url": ["/a"]}, "'url'"),
            ({"urls": "/a"}, "urls"),
            ({"urls": [1]}, "1"),
            ({"urls": ["a"]}, "'a'"),
            ({"urls": ["ftp://a/b"]}, "ftp://a/b"),
            ({"urls": ["/a\n"]}, "urls"),
            ({"urls": ["/" + "a" * 9000]}, "8192"),
            ({"urls": [""]}, "urls"),
            ({"prefixes": ["/a"]}, "'/a'"),
            ({"prefixes": ["a/"]}, "'a/'"),
            ({"prefixes": ["/a?b/"]}, "query"),
            ({"prefixes": ["/" + "s/" * 17]}, "16 segments"),
            ({"tags": [""]}, "tags"),
            ({"tags": {"a": 1}}, "tags"),
            ({"all": 1}, "1"),
            ({"all": True, "mode": "hard"}, "'hard'"),
            ({"all": True, "mode": 1}, "1"),
            ({"all": True, "id": 5}, "id"),
            ({"all": True, "id": "x" * 201}, "id"),
            ({"serials": []}, "serials"),
            ({"serials": {"a": "1"}}, "'1'"),
            ({"serials": {"a": True}}, "True"),
            ({"serials": {"a": -1}}, "-1"),
            ({"serials": {"": 1}}, "''"),
        ):
            found = parse_purge(document, PLAIN)
            assert isinstance(found, BadPurge), document
            self.assertIn(named, found.problem, document)

    def test_too_many(self) -> None:
        self.assertEqual(3, len(understood({"tags": ["a", "b", "c"]}, most=3).selectors))
        self.assertIsInstance(parse_purge({"tags": ["a", "b", "c", "d"]}, PLAIN, most=3), BadPurge)
        self.assertIsInstance(parse_purge({"tags": ["a", "b"]}, TWO, most=3), BadPurge)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(("urls", "prefixes", "tags", "all", "serials", "mode", "id", "x")),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=8,
        )
    )
    @settings(max_examples=200)
    def test_any_json_is_understood_or_refused(self, document: Any) -> None:
        self.assertIsInstance(parse_purge(document, TWO), PurgeAsked | BadPurge)


class TableTests(SynchronousTestCase):
    """The newest purges in memory."""

    def test_the_strictest_later_mode_counts(self) -> None:
        table = PurgeTable()
        table.extend(
            [(1, 10, PurgeMode.SOFT), (2, 10, PurgeMode.DELETE), (3, 10, PurgeMode.SOFT), (4, 20, PurgeMode.REVALIDATE)]
        )
        for selectors, floor, expected in (
            ((10,), 0, PurgeMode.DELETE),
            ((10,), 2, PurgeMode.SOFT),
            ((10,), 3, None),
            ((10, 20), 2, PurgeMode.REVALIDATE),
            ((30, 20), 0, PurgeMode.REVALIDATE),
            ((30,), 0, None),
            ((), 0, None),
            ((20,), 4, None),
        ):
            self.assertEqual(expected, table.since(selectors, floor), (selectors, floor))

    def test_what_fell_out_of_the_window_is_said_to_be_unknown(self) -> None:
        table = PurgeTable(capacity=2)
        table.extend([(1, 10, PurgeMode.DELETE), (2, 20, PurgeMode.DELETE), (3, 10, PurgeMode.SOFT)])
        self.assertEqual((1, 3), (table.window_start, table.epoch))
        self.assertEqual(PurgeMode.SOFT, table.since((10,), 1))

    def test_it_begins_where_it_is_told(self) -> None:
        table = PurgeTable(epoch=7)
        self.assertEqual((7, 7), (table.window_start, table.epoch))

    def test_rows_told_twice_count_once(self) -> None:
        table = PurgeTable(capacity=2)
        for _ in range(3):
            table.extend([(1, 10, PurgeMode.DELETE), (2, 20, PurgeMode.SOFT)])
        self.assertEqual((0, PurgeMode.DELETE), (table.window_start, table.since((10,), 0)))

    @given(
        st.lists(st.tuples(st.integers(0, 6), st.sampled_from(list(PurgeMode))), max_size=30),
        st.sets(st.integers(0, 8), max_size=4),
        st.integers(0, 30),
        st.integers(1, 40),
    )
    @settings(max_examples=300)
    def test_within_its_window_it_knows_all_that_happened(
        self, purges: list[tuple[int, PurgeMode]], selectors: set[int], floor: int, capacity: int
    ) -> None:
        table = PurgeTable(capacity=capacity)
        table.extend((epoch, selector, mode) for epoch, (selector, mode) in enumerate(purges, 1))
        self.assertEqual(max(0, len(purges) - capacity), table.window_start)
        if floor >= table.window_start:
            later = [
                mode for epoch, (selector, mode) in enumerate(purges, 1) if epoch > floor and selector in selectors
            ]
            self.assertEqual(max(later, default=None), table.since(tuple(selectors), floor))


class InvalidatedTests(SynchronousTestCase):
    """RFC 9111 §4.4, RFC 9875 §3"""

    def values(self, *lines: str, status: int = 200, method: str = "POST", **more: Any) -> set[tuple[str, bytes]]:
        by = asked(method=method, target=more.pop("target", "/a/b?c"), **more)
        return {(one.kind, one.value) for one in invalidated(by, head(*lines, status=status))}

    def test_the_url_of_every_unsafe_method_that_succeeded(self) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "post"):
            self.assertEqual({("url", b"/a/b?c")}, self.values(method=method), method)
        for status in (201, 204, 303, 399):
            self.assertEqual({("url", b"/a/b?c")}, self.values(status=status), status)

    def test_nothing_after_an_error_or_a_safe_method(self) -> None:
        for status in (400, 404, 500, 503):
            self.assertEqual(set(), self.values("Location: /x", status=status), status)
        for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
            self.assertEqual(set(), self.values("Location: /x", 'Cache-Group-Invalidation: "g"', method=method), method)

    def test_location_and_content_location_of_the_same_origin(self) -> None:
        for reference, expected in (
            ("/x?y#z", b"/x?y"),
            ("x", b"/a/x"),
            ("../x", b"/x"),
            ("?y", b"/a/b?y"),
            ("//edge.test/x", b"/x"),
            ("http://edge.test/x", b"/x"),
            ("http://EDGE.test:80/x", b"/x"),
            ("http://edge.test", b"/"),
            ("http://origin.test:8000/x", b"/x"),
            ("http://other.test/x", None),
            ("//other.test/x", None),
            ("mailto:x", None),
        ):
            for name in ("Location", "Content-Location"):
                found = self.values(f"{name}: {reference}") - {("url", b"/a/b?c")}
                self.assertEqual(set() if expected is None else {("url", expected)}, found, reference)

    def test_groups(self) -> None:
        found = self.values('Cache-Group-Invalidation: "g", "h";x=1, 5, t')
        self.assertEqual({("url", b"/a/b?c"), ("tag", b"g"), ("tag", b"h")}, found)


class SpreadingInvalidationTests(SynchronousTestCase):
    """DESIGN 9: Cache-Group-Invalidation spreads only where a site says so."""

    def parts(self, shares: frozenset[int]) -> tuple[set[bytes], set[bytes]]:
        by = asked(method="POST", target="/a")
        selectors = invalidated(by, head("Location: /b", 'Cache-Group-Invalidation: "g", "h"'))
        here, there = parted(selectors, shares)
        return {one.value for one in here}, {one.value for one in there}

    def test_siblings_are_told_of_groups_and_of_no_urls(self) -> None:
        self.assertEqual(({b"/a", b"/b"}, {b"g", b"h"}), self.parts(frozenset((PLAIN.all[0].id, 7))))

    def test_of_a_site_that_does_not_share_everything_stays_here(self) -> None:
        self.assertEqual(({b"/a", b"/b", b"g", b"h"}, set()), self.parts(frozenset((7,))))
