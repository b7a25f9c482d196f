"""Preconditions and ranges from what is stored (RFC 9110 §13, §14)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.dates import format_date
from edgecache.rules.decisions import NOT_MODIFIED, UNSATISFIABLE, WHOLE, Part, Presentation
from edgecache.rules.presenting import REMEMBERED_OCTETS, head_of, present, shown
from edgecache.rules.status_fields import lines_of
from edgecache.words.stored import Flag
from tests.rules.build import NOW, asked, field_lines, head, plan_for, status_of, stored

FRESH = "Cache-Control: max-age=60"


def date(after: float) -> str:
    return format_date(NOW + after).decode()


def span(found: Presentation) -> tuple[int, int] | None:
    return (found.start, found.stop) if isinstance(found, Part) else None


class ConditionTests(SynchronousTestCase):
    """RFC 9110 §13.2.2"""

    def test_if_none_match_compares_weakly(self) -> None:
        for etag, wanted, expected in (
            ('"a"', '"a"', True),
            ('"a"', 'W/"a"', True),
            ('W/"a"', 'W/"a"', True),
            ('W/"a"', '"a"', True),
            ('"a"', '"b"', False),
            ('"a"', '"a", "1", "2"', True),
            ('"a"', '"1", "a", "2"', True),
            ('"a"', '"1","2","a"', True),
            ('"a,b"', '"a,b"', True),
            ('"a"', "*", True),
            ('"a"', '"A"', False),
            ("a", "a", True),
            ('w/"a"', 'w/"a"', True),
            ('"abcdef\xfc"', '"abcdef\xfc"', True),
        ):
            found = present(asked(f"If-None-Match: {wanted}"), stored(FRESH, f"ETag: {etag}"))
            self.assertEqual(expected, found is NOT_MODIFIED, (etag, wanted))

    def test_what_has_no_tag_matches_only_the_star(self) -> None:
        self.assertIs(WHOLE, present(asked('If-None-Match: "a"'), stored(FRESH)))
        self.assertIs(NOT_MODIFIED, present(asked("If-None-Match: *"), stored(FRESH)))

    def test_if_modified_since_in_any_form_of_date(self) -> None:
        one = stored(FRESH, f"Last-Modified: {date(-3000)}")
        for value, expected in (
            (date(-3000), True),
            (date(-2000), True),
            (date(-3001), False),
            ("Tuesday, 14-Nov-23 21:23:20 GMT", True),
            ("Tue Nov 14 21:23:20 2023", True),
            ("yesterday", False),
        ):
            self.assertEqual(expected, present(asked(f"If-Modified-Since: {value}"), one) is NOT_MODIFIED, value)

    def test_without_last_modified_the_date_is_compared(self) -> None:
        """RFC 9111 §4.3.2"""
        self.assertIs(NOT_MODIFIED, present(asked(f"If-Modified-Since: {date(0)}"), stored(FRESH)))
        self.assertIs(WHOLE, present(asked(f"If-Modified-Since: {date(-1)}"), stored(FRESH)))

    def test_if_none_match_has_precedence(self) -> None:
        one = stored(FRESH, 'ETag: "a"', f"Last-Modified: {date(-5000)}")
        self.assertIs(NOT_MODIFIED, present(asked('If-None-Match: "a"', f"If-Modified-Since: {date(-9000)}"), one))
        for tags in (' "b"', "", ","):
            self.assertIs(WHOLE, present(asked(f"If-None-Match:{tags}", f"If-Modified-Since: {date(0)}"), one), tags)

    def test_conditions_are_about_a_200(self) -> None:
        """RFC 9110 §13.2.1"""
        for status in (404, 301, 204):
            self.assertIs(
                WHOLE, present(asked('If-None-Match: "a"'), stored(FRESH, 'ETag: "a"', status=status)), status
            )

    def test_head_is_conditional_too(self) -> None:
        self.assertIs(NOT_MODIFIED, present(asked('If-None-Match: "a"', method="HEAD"), stored(FRESH, 'ETag: "a"')))

    def test_a_304_has_the_fields_that_guide_caches_and_none_about_content(self) -> None:
        """RFC 9110 §15.4.5"""
        one = stored(
            FRESH,
            'ETag: "a"',
            "Vary: Foo",
            "Content-Location: /b",
            "Content-Type: a/b",
            "Content-Encoding: gzip",
            "X-PyPI-Last-Serial: 5",
            by=asked("Foo: 1"),
        )
        octets = head_of(asked("Foo: 1"), one, NOT_MODIFIED, age=4, cache_status=b"edge-1; hit")
        shown = field_lines(octets)
        self.assertEqual(304, status_of(octets))
        for name in (
            "date",
            "etag",
            "vary",
            "cache-control",
            "content-location",
            "via",
            "age",
            "cache-status",
            "x-pypi-last-serial",
        ):
            self.assertIn(name, shown)
        for name in ("content-length", "content-type", "content-encoding", "accept-ranges"):
            self.assertNotIn(name, shown)

    def test_what_is_remembered_of_heads_is_what_all_answers_have_in_common(self) -> None:
        one = stored(FRESH, 'ETag: "a"')
        for presentation, expected in (
            (NOT_MODIFIED, (304, None)),
            (Part(2, 5), (206, "bytes 2-4/10")),
            (Part(0, 9), (206, "bytes 0-8/10")),
            (NOT_MODIFIED, (304, None)),
        ):
            octets = head_of(asked(), one, presentation, age=4, cache_status=b"edge-1; hit")
            self.assertEqual(expected, (status_of(octets), field_lines(octets).get("content-range")))
        self.assertNotEqual(head_of(asked(), one, NOT_MODIFIED, age=4, cache_status=b"a"), one.head_of_304)


class RememberedTests(SynchronousTestCase):
    """What is remembered with a request's head is what :func:`head_of` says."""

    def test_it_is_the_same_head_and_the_same_octets(self) -> None:
        record = stored(FRESH, 'ETag: "a"')
        for fields, span_of_it in (
            ((), (0, 10)),
            (("Range: bytes=2-4",), (2, 5)),
            (("Range: bytes=20-",), (0, 0)),
            (('If-None-Match: "a"',), (0, 0)),
            (('If-None-Match: "b"', "Range: bytes=-1"), (9, 10)),
        ):
            request = asked(*fields)
            for _ in range(2):
                show = shown(request, record, 7)
                self.assertEqual(span_of_it, (show.start, show.stop))
                lines = lines_of(7, b"x; hit")
                self.assertEqual(head_of(request, record, present(request, record), 7, b"x; hit"), show.head + lines)
                self.assertEqual(present(request, record) is NOT_MODIFIED, show.not_modified)
                self.assertIs(show, request.shown)

    def test_it_is_good_for_one_record_alone(self) -> None:
        request = asked("Range: bytes=-2")
        one, other = stored(FRESH), stored(FRESH, size=5)
        self.assertIs(one, shown(request, one, 0).stored)
        self.assertEqual((other, 3, 5), ((show := shown(request, other, 0)).stored, show.start, show.stop))

    def test_where_the_age_matters_nothing_is_remembered(self) -> None:
        request, record = asked('If-Range: "a"', "Range: bytes=-2"), stored(FRESH, 'ETag: "a"')
        record.flags |= Flag.DOUBTED
        self.assertEqual((0, 10), ((show := shown(request, record, 10)).start, show.stop))
        self.assertIsNone(request.shown)
        self.assertEqual((8, 10), ((show := shown(request, record, 700)).start, show.stop))

    def test_large_heads_are_not_remembered_with_each_request_s(self) -> None:
        """They may have 64 KiB, and thousands of requests' heads are remembered."""
        large = stored('ETag: "a"', f"X: {'x' * REMEMBERED_OCTETS}")
        for line in ("X: y", "Range: bytes=0-1", 'If-None-Match: "a"'):
            request = asked(line)
            self.assertIn(b"xxx", shown(request, large, 0).head)
            self.assertIsNone(request.shown)


class RangeTests(SynchronousTestCase):
    """RFC 9110 §14"""

    def test_single_ranges_of_ten_octets(self) -> None:
        for value, expected in (
            ("bytes=0-1", (0, 2)),
            ("bytes=1-", (1, 10)),
            ("bytes=-1", (9, 10)),
            ("bytes=-10", (0, 10)),
            ("bytes=-99", (0, 10)),
            ("bytes=0-99", (0, 10)),
            ("bytes=9-9", (9, 10)),
            ("Bytes=0-1", (0, 2)),
            ("bytes= 0-1", (0, 2)),
            ("bytes=0-9999999999999999999", (0, 10)),
        ):
            self.assertEqual(expected, span(present(asked(f"Range: {value}"), stored(FRESH))), value)

    def test_beyond_the_end_is_416(self) -> None:
        for value in ("bytes=10-", "bytes=10-20", "bytes=-0", "bytes=9999999999999999999-"):
            one = stored(FRESH)
            found = present(asked(f"Range: {value}"), one)
            self.assertIs(UNSATISFIABLE, found, value)
            octets = head_of(asked(f"Range: {value}"), one, found, age=1, cache_status=b"x")
            self.assertEqual(
                (416, "bytes */10", "0"),
                (status_of(octets), field_lines(octets)["content-range"], field_lines(octets)["content-length"]),
            )

    def test_nothing_of_empty_content_can_be_had(self) -> None:
        for value in ("bytes=0-", "bytes=0-0", "bytes=-1"):
            self.assertIs(UNSATISFIABLE, present(asked(f"Range: {value}"), stored(FRESH, size=0)), value)

    def test_what_is_not_one_valid_range_is_ignored(self) -> None:
        for value in (
            "bytes=0-1,3-4",
            "bytes=" + "0-1," * 5000 + "0-1",
            "bytes=5-2",
            "bytes=-",
            "bytes=a-b",
            "bytes=",
            "lines=0-1",
            "0-1",
            "bytes=+1-2",
            "bytes=0-" + "9" * 20,
            "bytes=1-2 3",
            "bytes 0-1",
        ):
            self.assertIs(WHOLE, present(asked(f"Range: {value}"), stored(FRESH)), value[:30])
        self.assertIs(WHOLE, present(asked("Range: bytes=0-1", "Range: bytes=2-3"), stored(FRESH)))

    def test_only_get_and_only_a_200_have_parts(self) -> None:
        self.assertIs(WHOLE, present(asked("Range: bytes=0-1", method="HEAD"), stored(FRESH)))
        self.assertIs(WHOLE, present(asked("Range: bytes=0-1"), stored(FRESH, status=404)))

    def test_content_of_unknown_length_is_sent_whole(self) -> None:
        self.assertIs(WHOLE, present(asked("Range: bytes=0-1"), plan_for(asked(), head(FRESH), length=None).stored))

    def test_a_condition_comes_first(self) -> None:
        self.assertIs(
            NOT_MODIFIED, present(asked("Range: bytes=0-1", 'If-None-Match: "a"'), stored(FRESH, 'ETag: "a"'))
        )

    def test_if_range_compares_strongly(self) -> None:
        """RFC 9110 §13.1.5"""
        modified = date(-3000)
        for lines, value, expected in (
            (('ETag: "a"',), '"a"', True),
            (('ETag: "a"',), '"b"', False),
            (('ETag: "a"',), 'W/"a"', False),
            (('ETag: W/"a"',), 'W/"a"', False),
            (("ETag: a",), "a", False),
            ((), '"a"', False),
            ((f"Last-Modified: {modified}",), modified, True),
            ((f"Last-Modified: {modified}",), date(-2999), False),
            ((f"Last-Modified: {modified}",), date(-1), False),
            ((f"Last-Modified: {date(0)}",), date(0), False),
            ((), date(0), False),
            (('ETag: "a"',), "garbage", False),
        ):
            found = present(asked("Range: bytes=0-1", f"If-Range: {value}"), stored(FRESH, *lines))
            self.assertEqual(expected, isinstance(found, Part), (lines, value))

    def test_a_part_s_head(self) -> None:
        one = stored(FRESH, "A: 1", 'ETag: "a"', "Content-Range: from the origin")
        octets = head_of(asked(), one, Part(2, 5), age=4, cache_status=b"x")
        shown = field_lines(octets)
        self.assertEqual(206, status_of(octets))
        self.assertEqual(
            ("bytes 2-4/10", "3", "1", '"a"', "4"),
            tuple(shown[name] for name in ("content-range", "content-length", "a", "etag", "age")),
        )

    def test_a_digest_of_the_content_is_with_all_of_the_content_only(self) -> None:
        """RFC 9530 §2; Repr-Digest is the whole's, whatever of it is sent."""
        one = stored(FRESH, "Content-Digest: sha-256=:a=:", "Content-MD5: b", "Repr-Digest: sha-256=:c=:", 'ETag: "a"')
        for presentation, expected in ((WHOLE, True), (Part(2, 5), False), (NOT_MODIFIED, False)):
            shown = field_lines(head_of(asked(), one, presentation, age=4, cache_status=b"x"))
            self.assertEqual(
                (expected, expected, True),
                ("content-digest" in shown, "content-md5" in shown, "repr-digest" in shown),
            )

    @given(st.integers(0, 50), st.one_of(st.none(), st.integers(0, 60)), st.one_of(st.none(), st.integers(0, 60)))
    @settings(max_examples=150)
    def test_a_part_is_what_slicing_gives(self, size: int, first: int | None, last: int | None) -> None:
        value = f"bytes={'' if first is None else first}-{'' if last is None else last}"
        found = present(asked(f"Range: {value}"), stored(FRESH, size=size))
        octets = bytes(range(size))
        if (first is None and last is None) or (first is not None and last is not None and first > last):
            self.assertIs(WHOLE, found)
        elif first is None:
            expected = octets[-last:] if last else b""
            self.assertEqual(expected, octets[found.start : found.stop] if isinstance(found, Part) else b"")
        else:
            expected = octets[first:] if last is None else octets[first : last + 1]
            self.assertEqual(expected, octets[found.start : found.stop] if isinstance(found, Part) else b"")
        self.assertEqual(isinstance(found, Part), found not in (WHOLE, UNSATISFIABLE))
