"""A fallback's answers never replace better ones, and live seconds (FIELD 1, FIELD 3)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Again, Forward, Freshen, OnResponse, Pass, ServeStale, Store
from edgecache.rules.fallback import capped
from edgecache.rules.presenting import complete
from edgecache.words.config import Policy, Profile
from edgecache.words.messages import Head
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag, Stored
from tests.rules.build import (
    CONTENT_ID,
    NOW,
    asked,
    changed,
    consider,
    field_lines,
    fields_of,
    head,
    respond,
    reused,
    sites,
    status_of,
    stored,
)

SECONDS = 5.0
FRESH = "Cache-Control: max-age=600"
PLAIN = sites(policy=Policy.FALLBACK, fallback_seconds=SECONDS)
INDEX = sites(policy=Policy.FALLBACK, fallback_seconds=SECONDS, profile=Profile.INDEX)
LATER = NOW + 700
BETTER = stored(FRESH, 'ETag: "a"')


def wants(*lines: str, **more: str) -> Asked:
    return asked(*lines, of=PLAIN, **more)


def after_fallback(head: Head, one: Stored | None = None, *, by: Asked | None = None, stale: bool = True) -> OnResponse:
    """What becomes of a fallback's answer, 700 s after NOW."""
    reason = ForwardReason.URI_MISS if one is None else ForwardReason.STALE
    by = by or wants()
    forward = Forward(reason, one, alone=by.head, stale_allowed=stale and one is not None)
    return respond(by, head, forward=forward, at=LATER, fallback=True)


def kept_of(head: Head, one: Stored | None = None, *, by: Asked | None = None) -> Stored:
    found = after_fallback(head, one, by=by)
    assert isinstance(found, Store), found
    return complete(found.stored, 10, CONTENT_ID)


def later(*lines: str, status: int = 200) -> Head:
    return head(*lines, status=status, date=LATER)


class MissTests(SynchronousTestCase):
    """Nothing is stored: it is better than nothing, for seconds."""

    def test_it_is_marked_and_fresh_for_seconds(self) -> None:
        one = kept_of(later(FRESH))
        self.assertEqual((LATER + SECONDS, int(Flag.FALLBACK)), (one.fresh_until, one.flags))
        self.assertTrue(reused(wants(), one, after=704.9))
        self.assertFalse(reused(wants(), one, after=705))

    def test_what_is_fresh_for_less_stays_so(self) -> None:
        self.assertEqual(LATER + 2, kept_of(later("Cache-Control: max-age=2")).fresh_until)

    def test_age_upstream_is_no_reason_to_keep_it_for_longer(self) -> None:
        one = kept_of(later(FRESH, "Age: 100"))
        self.assertEqual((LATER - 100, LATER + SECONDS), (one.generated_at, one.fresh_until))
        self.assertEqual("max-age=105", field_lines(one.head)["cache-control"])

    def test_no_window_lets_it_come_back_when_the_first_origin_does(self) -> None:
        one = kept_of(later(f"{FRESH}, stale-while-revalidate=600"))
        found = consider(wants(), one, after=706)
        assert isinstance(found, Forward)
        self.assertEqual((one, True), (found.stored, found.stale_allowed))

    def test_caches_downstream_keep_it_for_no_longer(self) -> None:
        lines = (
            "Cache-Control: public, max-age=31536000, immutable",
            "Expires: Mon, 11 Jan 2038 11:11:11 GMT",
            "CDN-Cache-Control: max-age=3600, stale-if-error=60",
        )
        shown = field_lines(kept_of(later(*lines)).head)
        self.assertEqual(
            ("public, max-age=5", None, "max-age=5"),
            (shown["cache-control"], shown.get("expires"), shown["cdn-cache-control"]),
        )

    def test_what_it_withholds_from_others_it_withholds(self) -> None:
        found = after_fallback(later('Cache-Control: max-age=600, private="Set-Cookie"', "Set-Cookie: s"))
        assert isinstance(found, Store)
        self.assertEqual([None, "s"], [field_lines(one.head).get("set-cookie") for one in (found.stored, found.own)])
        self.assertEqual(
            [(LATER + SECONDS, Flag.FALLBACK)] * 2, [(one.fresh_until, one.flags) for one in (found.stored, found.own)]
        )

    def test_a_page_and_a_file_of_an_index_live_seconds_too(self) -> None:
        for target in ("/simple/a/", "/packages/a-1.tar.gz"):
            one = kept_of(later(), by=asked(of=INDEX, target=target))
            self.assertEqual((LATER + SECONDS, True), (one.fresh_until, bool(one.flags & Flag.FALLBACK)), target)

    def test_clients_of_an_index_are_told_to_ask_us_again(self) -> None:
        one = kept_of(later(FRESH), by=asked(of=INDEX, target="/simple/a/"))
        self.assertEqual("max-age=0", field_lines(one.head)["cache-control"])

    def test_what_may_not_be_stored_is_passed_on_and_nobody_remembers_that(self) -> None:
        found = after_fallback(later("Cache-Control: private, max-age=600"))
        assert isinstance(found, Pass)
        self.assertEqual((False, "private, max-age=5"), (found.remember, field_lines(found.head)["cache-control"]))

    def test_content_length_stays_the_last_line(self) -> None:
        self.assertTrue(kept_of(later("X: y", 'ETag: "a"')).head.endswith(b"content-length: 10\r\n"))


class BetterTests(SynchronousTestCase):
    """A better origin's response is stored."""

    def test_it_is_served_stale_instead(self) -> None:
        for status in (200, 301, 304, 404, 410, 501):
            found = after_fallback(later(FRESH, status=status), BETTER)
            assert isinstance(found, ServeStale), status
            self.assertEqual(
                (700, True, "only a fallback answered", None),
                (found.reuse.age, found.reuse.stale, found.detail, found.received),
            )

    def test_a_loss_that_the_first_origin_said_is_better_too(self) -> None:
        """FIELD 3: its 404 is authoritative."""
        self.assertIsInstance(after_fallback(later(FRESH), stored(FRESH, status=404)), ServeStale)

    def test_an_error_that_it_said_is_not(self) -> None:
        self.assertIsInstance(after_fallback(later(FRESH), stored(FRESH, status=599)), Store)

    def test_where_staleness_is_forbidden_the_answer_is_passed_on_and_replaces_nothing(self) -> None:
        for status in (200, 404):
            found = after_fallback(later(FRESH, status=status), BETTER, stale=False)
            assert isinstance(found, Pass), status
            self.assertEqual((status, None, False), (status_of(found.head), found.update, found.remember))
            self.assertEqual("max-age=5", field_lines(found.head)["cache-control"])

    def test_after_the_window_of_stale_if_error_too(self) -> None:
        one = stored("Cache-Control: max-age=600, stale-if-error=60")
        self.assertIsInstance(after_fallback(later(FRESH), one), Pass)

    def test_what_it_may_not_store_supersedes_nothing(self) -> None:
        found = after_fallback(later("Cache-Control: no-store"), BETTER, stale=False)
        assert isinstance(found, Pass)
        self.assertIsNone(found.update)

    def test_where_staleness_is_forbidden_a_304_is_good_for_seconds(self) -> None:
        one = stored(f"{FRESH}, must-revalidate, stale-while-revalidate=60", 'ETag: "a"')
        found = after_fallback(later('ETag: "a"', "Cache-Control: max-age=9000", "X: y", status=304), one, stale=False)
        assert isinstance(found, Freshen)
        fresh = found.stored
        self.assertEqual(
            (LATER + SECONDS, LATER + SECONDS, one.generated_at, one.validated_at, one.floor, one.flags, one.head),
            (
                fresh.fresh_until,
                fresh.stale_while_revalidate_until,
                fresh.generated_at,
                fresh.validated_at,
                fresh.floor,
                fresh.flags,
                fresh.head,
            ),
        )

    def test_a_304_about_something_else_is_asked_again_for_each_client_on_its_own(self) -> None:
        one = stored(FRESH, 'ETag: "a"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
        found = after_fallback(later('ETag: "b"', status=304), one, stale=False)
        assert isinstance(found, Again)
        self.assertEqual((None, True), (found.forward.stored, found.forward.alone))

    def test_a_head_says_nothing_about_it(self) -> None:
        by = wants(method="HEAD")
        self.assertIsInstance(after_fallback(later('ETag: "b"'), BETTER, by=by), ServeStale)
        found = after_fallback(later('ETag: "b"'), BETTER, by=by, stale=False)
        assert isinstance(found, Pass)
        self.assertIsNone(found.update)

    def test_an_unsafe_request_is_not_answered_from_the_store(self) -> None:
        by = wants(method="POST")
        found = respond(by, later(), forward=Forward(ForwardReason.METHOD, alone=True), at=LATER, fallback=True)
        self.assertIsInstance(found, Pass)

    @given(
        status=st.integers(200, 599),
        lines=st.lists(
            st.sampled_from(
                (
                    FRESH,
                    "Cache-Control: no-store",
                    "Cache-Control: private",
                    'ETag: "a"',
                    'ETag: "b"',
                    "Vary: *",
                    "Age: 9",
                )
            ),
            max_size=3,
        ),
        stale=st.booleans(),
        method=st.sampled_from(("GET", "HEAD")),
    )
    @settings(max_examples=200)
    def test_whatever_it_answers_it_replaces_nothing(
        self, status: int, lines: list[str], stale: bool, method: str
    ) -> None:
        found = after_fallback(later(*lines, status=status), BETTER, by=wants(method=method), stale=stale)
        self.assertNotIsInstance(found, Store)
        if isinstance(found, Pass):
            self.assertIsNone(found.update)
        if isinstance(found, Freshen):
            self.assertEqual((BETTER.content_id, BETTER.head), (found.stored.content_id, found.stored.head))
            self.assertLessEqual(found.stored.fresh_until, LATER + SECONDS)


class MarkedTests(SynchronousTestCase):
    """What a fallback said is stored, and stale by now."""

    ONE = changed(stored(FRESH, 'ETag: "f"', by=wants()), flags=int(Flag.FALLBACK), fresh_until=NOW + SECONDS)

    def ask_first(self, head: Head, *, by: Asked | None = None) -> OnResponse:
        """The first origin is back."""
        by = by or wants()
        forward = Forward(ForwardReason.STALE, self.ONE, alone=by.head, stale_allowed=True)
        return respond(by, head, forward=forward, at=LATER)

    def test_a_better_answer_replaces_it_and_bears_no_mark(self) -> None:
        found = self.ask_first(later(FRESH))
        assert isinstance(found, Store)
        self.assertEqual((0, LATER + 600), (found.stored.flags, found.stored.fresh_until))

    def test_an_error_of_the_better_one_does_not(self) -> None:
        self.assertIsInstance(self.ask_first(later(FRESH, status=503)), ServeStale)
        self.assertIsInstance(self.ask_first(later(FRESH, status=599)), Pass)

    def test_the_first_origin_cannot_validate_it(self) -> None:
        """A later date of the fallback's would make old content good."""
        for lines in ((), ('ETag: "f"',)):
            found = self.ask_first(later(*lines, status=304))
            assert isinstance(found, Again)
            self.assertEqual((None, False), (found.forward.stored, found.forward.alone))

    def test_nor_does_a_head(self) -> None:
        found = self.ask_first(later('ETag: "f"', FRESH), by=wants(method="HEAD"))
        assert isinstance(found, Pass)
        self.assertIsNone(found.update)

    def test_another_answer_of_a_fallback_replaces_it(self) -> None:
        self.assertEqual(LATER + SECONDS, kept_of(later(FRESH), self.ONE).fresh_until)

    def test_a_fallback_validates_it_for_seconds(self) -> None:
        found = after_fallback(later('ETag: "f"', "Cache-Control: max-age=9000", status=304), self.ONE)
        assert isinstance(found, Freshen)
        self.assertEqual(
            (LATER + SECONDS, LATER + SECONDS, int(Flag.FALLBACK), "max-age=5"),
            (
                found.stored.fresh_until,
                found.stored.stale_while_revalidate_until,
                found.stored.flags,
                field_lines(found.stored.head)["cache-control"],
            ),
        )
        self.assertTrue(found.stored.head.endswith(b"content-length: 10\r\n"))

    def test_it_is_served_stale_when_nobody_answers(self) -> None:
        self.assertIsInstance(after_fallback(later(status=503), self.ONE), ServeStale)


class CappedTests(SynchronousTestCase):
    """What caches downstream are told."""

    def test_lifetimes_are_cut_and_everything_else_stays(self) -> None:
        for before, after in (
            ("max-age=600", "max-age=9"),
            ("max-age=3", "max-age=3"),
            ("max-age=0, s-maxage=600", "max-age=0, s-maxage=9"),
            ('max-age="600"', "max-age=9"),
            ("max-age=soon", "max-age=0"),
            ("Max-Age=600, No-Store", "Max-Age=9, No-Store"),
            ('no-cache="a, b", max-age=600, stale-if-error=7', 'no-cache="a, b", max-age=9'),
        ):
            found = capped(fields_of((f"Cache-Control: {before}", "X: y")), 9)
            self.assertEqual([(b"cache-control", after.encode()), (b"x", b"y")], found)

    def test_what_says_nothing_gets_a_limit(self) -> None:
        """A cache downstream would guess (RFC 9111 §4.2.2)."""
        self.assertEqual([(b"cache-control", b"max-age=9"), (b"x", b"y")], capped(fields_of(("X: y", "Expires: 0")), 9))
        self.assertEqual(
            [(b"cache-control", b"max-age=9"), (b"cache-control", b"public")],
            capped(fields_of(("Cache-Control: public",)), 9),
        )
