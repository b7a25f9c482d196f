"""What fields look like: dates, seconds, lists, directives."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil
from types import ModuleType

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import edgecache.rules
from edgecache.rules.dates import MOST_SECONDS, format_date, parse_date, parse_seconds
from edgecache.rules.directives import request_directives, response_directives
from edgecache.rules.fields import members, unquoted
from edgecache.words.messages import Head
from tests.rules.build import NOW, fields_of


def head_of(lines: tuple[str, ...]) -> Head:
    return Head(200, b"OK", fields_of(lines))


class ExamplesTests(SynchronousTestCase):
    """The examples in docstrings."""

    def test_docstrings_tell_the_truth(self) -> None:
        tried = 0
        for found in pkgutil.iter_modules(edgecache.rules.__path__):
            module: ModuleType = importlib.import_module(f"edgecache.rules.{found.name}")
            result = doctest.testmod(module)
            self.assertEqual(0, result.failed, found.name)
            tried += result.attempted
        self.assertGreater(tried, 8)


class DateTests(SynchronousTestCase):
    """RFC 9110 §5.6.7"""

    def test_the_three_forms_and_any_case_are_dates(self) -> None:
        for text, seconds in (
            (b"Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
            (b"SUN, 06 nov 1994 08:49:37 gmt", 784111777),
            (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
            (b"Sun Nov  6 08:49:37 1994", 784111777),
            (b"Sun Nov 06 08:49:37 1994", 784111777),
            (b"Thursday, 18-Aug-50 02:01:18 GMT", 2544400878),
            (b"Sun, 21 Nov 2286 04:46:39 GMT", 10000039599),
            (b"Sat, 31 Dec 2016 23:59:60 GMT", 1483228799),
        ):
            self.assertEqual(seconds, parse_date(text, NOW), text)

    def test_nothing_else_is_a_date(self) -> None:
        for text in (
            b"",
            b"0",
            b"-1",
            b"1700000000",
            b"Sun, 06 Nov 1994 08:49:37 UTC",
            b"Sun, 06 Nov 1994 08:49:37 AEST",
            b"Sun, 06 Nov 1994 08:49:37",
            b"Sun, 06 Nov 94 08:49:37 GMT",
            b"Sun 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06  Nov  1994 08:49:37 GMT",
            b"Sun, 06-Nov-1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 08.49.37 GMT",
            b"Sun, 6 Nov 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 8:49:37 GMT",
            b"Sun, 31 Feb 1994 08:49:37 GMT",
            b"Sun, 06 Foo 1994 08:49:37 GMT",
            b"Sun, 06 Nov 1994 24:49:37 GMT",
            b"Sun, 06 Nov 1994 08:49:37 GMT ",
            b"Sun, 06 Nov 0000 08:49:37 GMT",
        ):
            self.assertIsNone(parse_date(text, NOW), text)

    def test_a_two_digit_year_is_at_most_50_years_ahead(self) -> None:
        ahead = parse_date(b"Monday, 06-Nov-73 08:49:37 GMT", NOW)
        past = parse_date(b"Monday, 06-Nov-74 08:49:37 GMT", NOW)
        assert ahead is not None and past is not None
        self.assertEqual((2073, 1974), (1970 + int(ahead // 31556952), 1970 + int(past // 31556952)))

    @given(st.integers(0, 253402300799))
    @settings(max_examples=100)
    def test_what_is_written_is_read(self, seconds: int) -> None:
        self.assertEqual(float(seconds), parse_date(format_date(seconds), NOW))


class SecondsTests(SynchronousTestCase):
    """RFC 9111 §1.2.2"""

    def test_digits_only_and_never_too_many(self) -> None:
        for text, seconds in (
            (b"0", 0),
            (b"003600", 3600),
            (b"2147483647", 2147483647),
            (b"2147483649", MOST_SECONDS),
            (b"9" * 5000, MOST_SECONDS),
            (b"0" * 5000 + b"7", 7),
            (b"", None),
            (b"-1", None),
            (b"+1", None),
            (b"1.0", None),
            (b" 1", None),
            (b"1 ", None),
            (b"1e3", None),
            ("٣".encode(), None),
        ):
            self.assertEqual(seconds, parse_seconds(text), text[:20])


class ListTests(SynchronousTestCase):
    """RFC 9110 §5.6.1"""

    def test_commas_in_quoted_strings_do_not_separate(self) -> None:
        for text, expected in (
            (b"a,b ,, c", [b"a", b"b", b"c"]),
            (b"", []),
            (b" , ", []),
            (b'a="1, 2", b', [b'a="1, 2"', b"b"]),
            (b'a="\\", b", c', [b'a="\\", b"', b"c"]),
        ):
            self.assertEqual(expected, members(text), text)

    def test_an_open_quote_hides_nothing(self) -> None:
        self.assertEqual([b'private="a', b"no-store"], members(b'private="a, no-store'))

    @given(st.binary(max_size=60))
    @settings(max_examples=200)
    def test_any_octets_are_split_into_clean_members(self, value: bytes) -> None:
        for member in members(value):
            self.assertEqual(member.strip(b" \t"), member)
            self.assertTrue(member)

    def test_a_quoted_string_means_its_content(self) -> None:
        self.assertEqual(b'a"b\\', unquoted(b'"a\\"b\\\\"'))


class RequestDirectivesTests(SynchronousTestCase):
    """RFC 9111 §5.2.1, §5.4"""

    def test_directives_are_read(self) -> None:
        found = request_directives(
            fields_of(
                (
                    'Cache-Control: Max-Age=5, MIN-fresh="7", max-stale=9',
                    "cache-control: no-cache, no-store, only-if-cached",
                )
            )
        )
        self.assertEqual((5, 7, 9), (found.max_age, found.min_fresh, found.max_stale))
        self.assertEqual((True, True, True), (found.no_cache, found.no_store, found.only_if_cached))

    def test_max_stale_without_value_accepts_any(self) -> None:
        self.assertEqual(math.inf, request_directives(fields_of(("Cache-Control: max-stale",))).max_stale)

    def test_invalid_values_count_as_absent(self) -> None:
        found = request_directives(fields_of(("Cache-Control: max-age=x, min-fresh=-1, max-stale=1.5",)))
        self.assertEqual((None, None, None), (found.max_age, found.min_fresh, found.max_stale))

    def test_pragma_counts_only_without_cache_control(self) -> None:
        self.assertTrue(request_directives(fields_of(("Pragma: no-cache",))).no_cache)
        self.assertFalse(request_directives(fields_of(("Pragma: no-cache", "Cache-Control: x"))).no_cache)
        self.assertFalse(request_directives(fields_of(("Pragma: foo",))).no_cache)


class ResponseDirectivesTests(SynchronousTestCase):
    """RFC 9111 §5.2.2, RFC 9213 §2"""

    def test_the_lifetime_of_max_age_in_every_shape(self) -> None:
        for value, lifetime in (
            ("max-age=3600", 3600),
            ("MaX-aGe=3600", 3600),
            ("foobar, max-age=3600", 3600),
            ('max-age="3600"', 3600),
            ("max-age=003600", 3600),
            ("max-age=99999999999", MOST_SECONDS),
            ("max-age=1, s-maxage=60", 60),
            ("s-maxage=60, max-age=1", 60),
            ('extension="max-age=3600", max-age=1', 1),
            ('max-age=1, extension="max-age=3600"', 1),
            ("max-age=1, max-age=1800", 1),
            ("max-age=1800, max-age=1", 1800),
            ("max-age=", 0),
            ("max-age", 0),
            ("max-age=-3600", 0),
            ("max-age='3600'", 0),
            ("max-age=3600a", 0),
            ("max-age=3600.0", 0),
            ("max-age= 3600", 0),
            ("max-age =3600", None),
            ("public", None),
        ):
            self.assertEqual(lifetime, response_directives(head_of((f"Cache-Control: {value}",))).lifetime, value)

    def test_lines_are_one_list(self) -> None:
        found = response_directives(head_of(("Cache-Control: max-age=5", "Cache-Control: No-StOrE")))
        self.assertEqual((5, True), (found.lifetime, found.no_store))

    def test_what_forbids_counts_in_what_is_no_directive_too(self) -> None:
        for value, no_store, private, no_cache in (
            ("no-cache; no-store", True, False, True),
            ("max-age=60;Private", False, True, False),
            ("no-cache no-store must-revalidate", True, False, True),
            ('private ="set-cookie"', False, True, False),
            ("no-store;", True, False, False),
            ('no-cache="Set-Cookie"; no-store', True, False, True),
            ('max-age="60" private', False, True, False),
            ("no-store =1", True, False, False),
            ('x="a; no-store", max-age=60', False, False, False),
            ("x=no-store, max-age=60; no-stores", False, False, False),
            ('private="a; b", no-cache="no-store c"', False, False, False),
        ):
            found = response_directives(head_of((f"Cache-Control: {value}",)))
            self.assertEqual((no_store, private, no_cache), (found.no_store, found.private, found.no_cache), value)

    def test_the_qualified_forms_only_withhold_fields(self) -> None:
        found = response_directives(head_of(('Cache-Control: private="Set-Cookie, A", no-cache="b"',)))
        self.assertEqual((False, False), (found.private, found.no_cache))
        self.assertEqual({b"set-cookie", b"a", b"b"}, found.withheld)

    def test_an_empty_argument_does_not_weaken_private_and_no_cache(self) -> None:
        found = response_directives(head_of(('Cache-Control: private="", no-cache=',)))
        self.assertEqual((True, True), (found.private, found.no_cache))

    def test_said_twice_private_and_no_cache_withhold_all_that_either_says(self) -> None:
        """An application and what is in front of it may each add one; the first must not weaken the second."""
        for value in ('private="a", private, no-cache="b", no-cache', 'private, private="a", no-cache, no-cache="b"'):
            found = response_directives(head_of((f"Cache-Control: max-age=5, {value}",)))
            self.assertEqual((True, True), (found.private, found.no_cache), value)
        found = response_directives(head_of(('Cache-Control: private="a"', 'Cache-Control: private="b, c"')))
        self.assertEqual((False, {b"a", b"b", b"c"}), (found.private, found.withheld))

    def test_the_targeted_field_replaces_cache_control(self) -> None:
        found = response_directives(head_of(("Cache-Control: no-store", "CDN-Cache-Control: max-age=60")))
        self.assertEqual((60, False, True), (found.lifetime, found.no_store, found.targeted))
        found = response_directives(head_of(("Cache-Control: max-age=60", "CDN-Cache-Control: private")))
        self.assertEqual((None, True), (found.lifetime, found.private))

    def test_an_invalid_or_empty_targeted_field_is_as_if_absent(self) -> None:
        for value in (
            "",
            "max-age=10000, &&&&&",
            'max-age="10000"',
            "MaX-aGe=3600",
            "max-age =100",
            "max-age=1.5",
            "max-age",
        ):
            found = response_directives(head_of(("Cache-Control: max-age=5", f"CDN-Cache-Control: {value}")))
            self.assertEqual((5, False), (found.lifetime, found.targeted), value)

    def test_a_negative_targeted_lifetime_is_stale(self) -> None:
        self.assertEqual(0, response_directives(head_of(("CDN-Cache-Control: max-age=-5",))).lifetime)

    def test_false_switches_a_targeted_directive_off(self) -> None:
        self.assertFalse(response_directives(head_of(("CDN-Cache-Control: private=?0, max-age=5",))).private)
