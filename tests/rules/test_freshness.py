"""How long a stored response is fresh, and how old it is said to be (RFC 9111 §4.2)."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Pass, Reuse, Store
from edgecache.rules.reusing import SET_BACK_SECONDS
from edgecache.words.config import Profile
from edgecache.words.stored import Flag
from tests.rules.build import INDEX, NOW, asked, changed, consider, head, respond, reused, sites, stored


def date(after: float) -> str:
    return format_date(NOW + after).decode()


class LifetimeTests(SynchronousTestCase):
    """RFC 9111 §4.2.1"""

    def test_each_source_of_a_lifetime(self) -> None:
        for lines, lifetime in (
            (("Cache-Control: max-age=3600",), 3600),
            (("Cache-Control: s-maxage=60, max-age=3600",), 60),
            (("Cache-Control: max-age=3600", f"Expires: {date(-7200)}"), 3600),
            (("Cache-Control: max-age=3600", "Expires: 0"), 3600),
            (("Cache-Control: max-age=0, s-maxage=3600", f"Expires: {date(-10)}"), 3600),
            ((f"Expires: {date(300)}",), 300),
            ((f"Expires: {date(300)}", f"Date: {date(100)}"), 200),
            ((f"Expires: {date(10)}", "Date: foo"), 10),
            (("CDN-Cache-Control: max-age=60", "Cache-Control: max-age=1"), 60),
            (("CDN-Cache-Control: max-age=60", "Expires: 0"), 60),
        ):
            found = stored(*lines)
            self.assertEqual(lifetime, found.fresh_until - found.generated_at, lines)

    def test_what_is_no_lifetime_makes_stale(self) -> None:
        for lines in (
            ("Cache-Control: max-age=0", f"Expires: {date(3600)}"),
            ("Cache-Control: max-age=x", f"Expires: {date(3600)}"),
            (f"Expires: {date(-1)}",),
            (f"Expires: {date(0)}",),
            ("Expires: 0",),
            (f"Expires: {date(300)}", f"Date: {date(400)}"),
            (f"Expires: {date(300)}", f"Expires: {date(301)}"),
            ("CDN-Cache-Control: max-age=0", f"Expires: {date(3600)}"),
        ):
            self.assertFalse(reused(asked(), stored(*lines, 'ETag: "a"')), lines)

    def test_a_response_is_stale_from_the_second_of_its_lifetime_on(self) -> None:
        one = stored("Cache-Control: max-age=60")
        self.assertTrue(reused(asked(), one, after=59.9))
        self.assertFalse(reused(asked(), one, after=60))


class AgeTests(SynchronousTestCase):
    """RFC 9111 §4.2.3, §5.1"""

    def age(self, *lines: str, after: float = 0.0, took: float = 0.0) -> int | None:
        found = consider(asked(), stored("Cache-Control: max-age=10000", *lines, took=took), after=after)
        return found.age if isinstance(found, Reuse) else None

    def test_age_in_every_shape(self) -> None:
        for lines, age in (
            ((), 0),
            (("Age: 30",), 30),
            (("Age: 7200, 0",), 7200),
            (("Age: 0, 7200",), 0),
            (("Age: 7200", "Age: 0"), 7200),
            (("Age: 0", "Age: 7200"), 0),
            (("Age: 3600", "Age: 3600"), 3600),
            (("Age: abc",), 0),
            (("Age: -7200",), 0),
            (("Age: 7200.0",), 0),
            (("Age: 7200;foo=bar",), 0),
            (("Age: 2147483647",), None),
            (("Age: 2147483649",), None),
            (("Age: " + "9" * 100,), None),
        ):
            self.assertEqual(age, self.age(*lines), lines)

    def test_it_grows_in_the_store(self) -> None:
        self.assertEqual(33, self.age("Age: 30", after=3.9))

    def test_a_slow_exchange_counts(self) -> None:
        self.assertEqual(35, self.age("Age: 30", took=5))

    def test_the_larger_of_apparent_and_announced_age_counts(self) -> None:
        self.assertEqual(50, self.age("Age: 30", f"Date: {date(-50)}"))
        self.assertEqual(30, self.age("Age: 30", f"Date: {date(-10)}"))
        self.assertEqual(30, self.age("Age: 30", f"Date: {date(+10)}"))

    def test_an_age_above_the_lifetime_is_stale_on_arrival(self) -> None:
        for lines in (
            ("Cache-Control: max-age=3600", "Age: 7200"),
            ("CDN-Cache-Control: max-age=3600", "Age: 7200"),
            (f"Date: {date(-10)}", f"Expires: {date(10)}", "Age: 25"),
            (f"Date: {date(10)}", f"Expires: {date(20)}", "Age: 15"),
            ("Cache-Control: max-age=3600", f"Date: {date(-7200)}"),
        ):
            self.assertFalse(reused(asked(), stored(*lines)), lines)

    def test_a_clock_that_is_adjusted_never_makes_a_negative_age(self) -> None:
        found = consider(asked(), stored("Cache-Control: max-age=60"), after=-SET_BACK_SECONDS)
        assert isinstance(found, Reuse)
        self.assertEqual(0, found.age)


class HeuristicTests(SynchronousTestCase):
    """RFC 9111 §4.2.2"""

    def test_only_with_last_modified_and_a_status_that_allows_it(self) -> None:
        modified = f"Last-Modified: {date(-86400)}"
        for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501):
            self.assertTrue(reused(asked(), stored(modified, status=status), after=60), status)
        for status in (201, 202, 302, 403, 500, 502, 503, 504, 599):
            self.assertIsInstance(respond(asked(), head(modified, status=status)), Pass, status)

    def test_public_allows_any_status(self) -> None:
        one = stored(f"Last-Modified: {date(-86400)}", "Cache-Control: public", status=599)
        self.assertTrue(reused(asked(), one, after=60))

    def test_a_tenth_of_the_time_since_the_change_and_a_day_at_most(self) -> None:
        self.assertEqual(NOW + 360, stored(f"Last-Modified: {date(-3600)}").fresh_until)
        self.assertEqual(NOW + 86400, stored(f"Last-Modified: {date(-(10**8))}").fresh_until)
        self.assertTrue(stored(f"Last-Modified: {date(-3600)}").flags & Flag.HEURISTIC)

    def test_never_beside_an_explicit_lifetime(self) -> None:
        modified = f"Last-Modified: {date(-86400)}"
        for line in ("Expires: 0", "Cache-Control: max-age=0", "Cache-Control: max-age=bad"):
            self.assertFalse(reused(asked(), stored(modified, line), after=1), line)

    def test_without_lifetime_and_validator_nothing_is_stored(self) -> None:
        self.assertIsInstance(respond(asked(), head()), Pass)

    def test_a_validator_alone_is_worth_storing(self) -> None:
        found = respond(asked(), head('ETag: "a"'))
        self.assertIsInstance(found, Store)
        self.assertFalse(reused(asked(), stored('ETag: "a"')))


class WindowTests(SynchronousTestCase):
    """RFC 5861"""

    def test_the_windows_end_after_the_lifetime(self) -> None:
        one = stored("Cache-Control: max-age=10, stale-while-revalidate=20, stale-if-error=30")
        self.assertEqual(
            (NOW + 10, NOW + 30, NOW + 40),
            (one.fresh_until, one.stale_while_revalidate_until, one.stale_if_error_until),
        )

    def test_without_directives_none_and_for_ever(self) -> None:
        one = stored("Cache-Control: max-age=10")
        self.assertEqual((one.fresh_until, math.inf), (one.stale_while_revalidate_until, one.stale_if_error_until))


class TimeTests(SynchronousTestCase):
    """Time only makes older."""

    @given(
        st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.floats(0, 10**6, allow_nan=False),
        st.floats(0, 10**6, allow_nan=False),
    )
    @settings(max_examples=150)
    def test_a_stale_response_never_becomes_fresh_by_waiting(
        self, lifetime: int, age: int, first: float, more: float
    ) -> None:
        one = stored(f"Cache-Control: max-age={lifetime}", f"Age: {age}", 'ETag: "a"')
        before, after = consider(asked(), one, after=first), consider(asked(), one, after=first + more)
        if not isinstance(before, Reuse):
            self.assertNotIsInstance(after, Reuse)
        elif isinstance(after, Reuse):
            self.assertGreaterEqual(after.age, before.age)
            self.assertLessEqual(after.ttl, before.ttl)

    @given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 10**6, allow_nan=False))
    @settings(max_examples=100)
    def test_a_hit_is_never_older_than_its_lifetime(self, lifetime: int, age: int, after: float) -> None:
        found = consider(asked(), stored(f"Cache-Control: max-age={lifetime}", f"Age: {age}", 'ETag: "a"'), after=after)
        if isinstance(found, Reuse):
            self.assertLessEqual(found.age, lifetime)
            self.assertGreaterEqual(found.age, age)


class IndexLifetimeTests(SynchronousTestCase):
    """DESIGN 10: a page's lifetime is ours, an artifact is kept."""

    def test_a_page_lives_ten_seconds_whatever_the_origin_says(self) -> None:
        page = asked(of=INDEX, target="/simple/foo/")
        for line in (
            "X: y",
            "Cache-Control: max-age=600, stale-while-revalidate=300",
            "Cache-Control: no-cache",
            "Cache-Control: max-age=0",
            "Expires: 0",
        ):
            one = stored(line, by=page)
            self.assertTrue(reused(page, one, after=9.9), line)
            self.assertFalse(reused(page, one, after=10), line)

    def test_its_time_counts_from_when_it_came_not_from_an_age_upstream(self) -> None:
        page = asked(of=INDEX, target="/simple/foo/")
        one = stored("Age: 500", by=page)
        self.assertTrue(reused(page, one, after=9))
        found = consider(page, one, after=9)
        assert isinstance(found, Reuse)
        self.assertEqual(509, found.age)

    def test_pages_that_purges_cover_live_for_a_day(self) -> None:
        covered = sites(profile=Profile.INDEX, purged=True)
        page = asked(of=covered, target="/simple/foo/")
        self.assertTrue(reused(page, stored(by=page), after=86399))

    def test_an_artifact_is_kept_where_the_origin_says_nothing(self) -> None:
        file = asked(of=INDEX, target="/packages/foo-1.0-py3-none-any.whl")
        self.assertTrue(reused(file, stored(by=file), after=300 * 86400))
        self.assertFalse(reused(file, stored("Cache-Control: max-age=60", by=file), after=61))

    def test_what_is_not_there_is_asked_for_again_soon(self) -> None:
        for target in ("/simple/foo/", "/packages/foo-1.0.tar.gz"):
            gone = asked(of=INDEX, target=target)
            one = stored("Cache-Control: max-age=3600", by=gone, status=404)
            self.assertTrue(reused(gone, one, after=9.9))
            self.assertFalse(reused(gone, one, after=10))

    def test_pip_gets_a_page_that_was_validated_just_now(self) -> None:
        """pip up to 26.1 sends max-age=0 with every request for a page (FIELD 3)."""
        pip = asked("Cache-Control: max-age=0", of=INDEX, target="/simple/foo/")
        one = changed(stored(by=pip), generated_at=NOW - 100)
        self.assertTrue(reused(pip, one, after=2))
        self.assertFalse(reused(pip, one, after=2.1))

    def test_pip_gets_any_fresh_page_that_purges_cover(self) -> None:
        covered = sites(profile=Profile.INDEX, purged=True)
        pip = asked("Cache-Control: max-age=0", of=covered, target="/simple/foo/")
        self.assertTrue(reused(pip, stored(by=pip), after=80000))

    def test_reloads_of_an_artifact_are_not_forwarded(self) -> None:
        """fast-deps reads ranges of wheels with no-cache (FIELD 3)."""
        for line in ("Cache-Control: no-cache", "Cache-Control: max-age=0", "Pragma: no-cache"):
            file = asked(line, of=INDEX, target="/packages/foo-1.0-py3-none-any.whl")
            self.assertTrue(reused(file, stored(by=file), after=1000), line)
        refresh = asked("Cache-Control: no-cache", of=INDEX, target="/simple/foo/")
        self.assertFalse(reused(refresh, stored(by=refresh), after=1))
