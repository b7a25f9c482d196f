"""May a stored response answer (RFC 9111 §4, §5.2.1)?"""

from __future__ import annotations

from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.decisions import Forward, Refuse, Reuse
from edgecache.rules.policy import at_once, on_failure
from edgecache.rules.reusing import SET_BACK_SECONDS
from edgecache.words.errors import ConnectFailed
from edgecache.words.reasons import ForwardReason, PurgeMode
from tests.failures import PROXY_ERRORS, kinds
from tests.rules.build import INDEX, NOW, PLAIN, asked, consider, reused, stored

FRESH = "Cache-Control: max-age=60"


def forwarded(found: object) -> Forward:
    assert isinstance(found, Forward), found
    return found


class StoredTests(SynchronousTestCase):
    def test_a_fresh_response_is_reused_with_its_age_and_what_is_left(self) -> None:
        found = consider(asked(), stored(FRESH), after=20.5)
        assert isinstance(found, Reuse)
        self.assertEqual((20, 39, False, None), (found.age, found.ttl, found.stale, found.behind))

    @given(st.lists(st.integers(-80, 560), min_size=1, max_size=8), st.integers(0, 15))
    @example([8, 2], 5)
    @settings(max_examples=100)
    def test_what_is_remembered_is_what_would_be_said_anew(self, eighths: list[int], aged: int) -> None:
        """Whichever way the clock goes."""
        one = stored(FRESH, at=NOW + aged / 8)
        for moment in (NOW + each / 8 for each in eighths):
            found, anew = at_once(asked(), one, moment), at_once(asked(), evolve(one), moment)
            self.assertEqual(one.validated_at - SET_BACK_SECONDS <= moment < one.fresh_until, found is not None)
            if found is not None and anew is not None:
                self.assertEqual((anew.age, anew.ttl, anew.lines), (found.age, found.ttl, found.lines))
                self.assertEqual(int(one.fresh_until - moment), found.ttl)

    def test_what_was_validated_in_the_future_is_stale_for_the_clock_was_set_back(self) -> None:
        """It would be fresh for an hour longer than its origin has said."""
        one = stored(FRESH)
        found = forwarded(consider(asked(), one, after=-3600))
        self.assertEqual((ForwardReason.STALE, one, True), (found.reason, found.stored, found.stale_allowed))
        self.assertIsNone(at_once(asked(), one, NOW - 3600))
        self.assertTrue(reused(asked(), one, after=-1), "clocks are adjusted all the time")

    def test_a_miss_says_whether_other_variants_are_there(self) -> None:
        self.assertEqual(ForwardReason.URI_MISS, forwarded(consider(asked(), None)).reason)
        self.assertEqual(ForwardReason.VARY_MISS, forwarded(consider(asked(), None, vary_miss=True)).reason)

    def test_a_stale_response_is_validated(self) -> None:
        one = stored(FRESH)
        found = forwarded(consider(asked(), one, after=61))
        self.assertEqual(
            (ForwardReason.STALE, one, False, True), (found.reason, found.stored, found.alone, found.stale_allowed)
        )

    def test_no_cache_validates_what_is_fresh(self) -> None:
        """§5.2.2.4"""
        found = forwarded(consider(asked(), stored("Cache-Control: max-age=60, No-CaChE", 'ETag: "a"')))
        self.assertEqual((ForwardReason.STALE, False), (found.reason, found.stale_allowed))

    def test_a_fresh_get_answers_head(self) -> None:
        self.assertTrue(reused(asked(method="HEAD"), stored(FRESH)))

    def test_head_is_forwarded_on_its_own_and_may_freshen(self) -> None:
        one = stored(FRESH)
        found = forwarded(consider(asked(method="HEAD"), one, after=61))
        self.assertEqual((True, one), (found.alone, found.stored))

    def test_other_methods_are_forwarded(self) -> None:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "M-SEARCH", "get"):
            found = forwarded(consider(asked(method=method), stored(FRESH)))
            self.assertEqual((ForwardReason.METHOD, True, None), (found.reason, found.alone, found.stored))

    def test_a_get_with_content_is_forwarded(self) -> None:
        self.assertTrue(forwarded(consider(asked(has_content=True, content_length=3), stored(FRESH))).alone)

    def test_if_match_is_for_the_origin(self) -> None:
        """§4.3.2"""
        for line in ('If-Match: "a"', "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT"):
            self.assertEqual(ForwardReason.BYPASS, forwarded(consider(asked(line), stored(FRESH))).reason)


class RequestDirectiveTests(SynchronousTestCase):
    """RFC 9111 §5.2.1"""

    def test_what_each_directive_accepts(self) -> None:
        """(directive, seconds after, does the store answer?) for max-age=60"""
        for directive, after, expected in (
            ("max-age=0", 1.0, False),
            ("max-age=1", 3.0, False),
            ("max-age=5", 5.0, True),
            ("max-age=5", 6.0, False),
            ("max-age=100", 59.0, True),
            ("max-age=100", 61.0, False),
            ("min-fresh=30", 30.0, True),
            ("min-fresh=30", 31.0, False),
            ("max-stale", 10_000.0, True),
            ("max-stale=10", 70.0, True),
            ("max-stale=10", 71.0, False),
            ("max-stale=10, max-age=65", 70.0, False),
            ("max-stale, no-cache", 70.0, False),
            ("max-stale, min-fresh=1", 70.0, False),
            ("no-cache", 0.0, False),
            ("no-store", 0.0, False),
            ("only-if-cached", 59.0, True),
            ("nothing-to-see-here", 59.0, True),
        ):
            self.assertEqual(
                expected, reused(asked(f"Cache-Control: {directive}"), stored(FRESH), after=after), (directive, after)
            )

    def test_the_reason_is_the_request(self) -> None:
        found = forwarded(consider(asked("Cache-Control: no-cache"), stored(FRESH)))
        self.assertEqual((ForwardReason.REQUEST, True, True), (found.reason, found.no_cache, found.stale_allowed))

    def test_max_stale_does_not_move_must_revalidate(self) -> None:
        """§5.2.2.2"""
        for directive in ("must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"):
            one = stored(f"Cache-Control: max-age=60, {directive}", 'ETag: "a"')
            self.assertFalse(reused(asked("Cache-Control: max-stale"), one, after=61), directive)

    def test_only_if_cached_asks_nobody(self) -> None:
        """§5.2.1.7"""
        request = asked("Cache-Control: only-if-cached")
        for one, after in ((None, 0), (stored(FRESH), 61)):
            found = consider(request, one, after=after)
            assert isinstance(found, Refuse)
            self.assertEqual(504, found.status)

    def test_only_if_cached_goes_before_everything_that_is_forwarded(self) -> None:
        found = consider(asked("Cache-Control: only-if-cached, no-store"), stored(FRESH))
        assert isinstance(found, Refuse)
        self.assertEqual(504, found.status)

    def test_immutable_is_not_reloaded_while_fresh(self) -> None:
        """RFC 8246 §2: but a forced reload is one."""
        one = stored("Cache-Control: max-age=60, immutable")
        self.assertTrue(reused(asked("Cache-Control: max-age=0"), one, after=5))
        self.assertFalse(reused(asked("Cache-Control: no-cache"), one, after=5))
        self.assertFalse(reused(asked("Cache-Control: max-age=0"), one, after=61))


class StaleWhileRevalidateTests(SynchronousTestCase):
    """RFC 5861 §3"""

    LINES = ("Cache-Control: max-age=10, stale-while-revalidate=20", 'ETag: "a"')

    def test_within_the_window_it_is_sent_and_refreshed_behind(self) -> None:
        one = stored(*self.LINES)
        found = consider(asked(), one, after=20)
        assert isinstance(found, Reuse) and found.behind is not None
        self.assertEqual((True, -10, one, False), (found.stale, found.ttl, found.behind.stored, found.behind.alone))

    def test_after_the_window_it_is_validated(self) -> None:
        self.assertFalse(reused(asked(), stored(*self.LINES), after=30))

    def test_not_where_staleness_is_forbidden(self) -> None:
        for directive in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=10"):
            one = stored(f"Cache-Control: max-age=10, stale-while-revalidate=20, {directive}", 'ETag: "a"')
            self.assertFalse(reused(asked(), one, after=11), directive)

    def test_not_for_a_request_that_wants_it_younger(self) -> None:
        for directive in ("no-cache", "max-age=5", "min-fresh=1"):
            self.assertFalse(reused(asked(f"Cache-Control: {directive}"), stored(*self.LINES), after=15), directive)

    def test_a_head_refreshes_with_a_get(self) -> None:
        found = consider(asked(method="HEAD"), stored(*self.LINES), after=15)
        assert isinstance(found, Reuse) and found.behind is not None
        self.assertFalse(found.behind.alone)


class PurgedTests(SynchronousTestCase):
    """DESIGN 9"""

    def test_revalidate_asks_first_and_may_serve_stale_on_failure(self) -> None:
        one = stored(FRESH)
        found = forwarded(consider(asked(), one, purged=PurgeMode.REVALIDATE))
        self.assertEqual(
            (ForwardReason.STALE, one, True, True), (found.reason, found.stored, found.no_cache, found.stale_allowed)
        )

    def test_what_is_served_all_the_same_is_never_said_to_be_fresh(self) -> None:
        windowed = stored("Cache-Control: max-age=60, stale-while-revalidate=60", 'ETag: "a"')
        soft = consider(asked(), windowed, purged=PurgeMode.SOFT)
        found = [soft]
        for suspicion in ({"purged": PurgeMode.REVALIDATE}, {"purged": PurgeMode.SOFT}, {"fenced": True}):
            forward = forwarded(consider(asked(), stored(FRESH), **suspicion))
            found.append(on_failure(asked(), forward, NOW, ConnectFailed("o", 0.1)))
        for reuse in found:
            assert isinstance(reuse, Reuse)
            self.assertEqual((0, True), (reuse.ttl, reuse.stale))

    def test_delete_forgets_it(self) -> None:
        found = forwarded(consider(asked(), stored(FRESH), purged=PurgeMode.DELETE))
        self.assertEqual(
            (ForwardReason.URI_MISS, None, True, False),
            (found.reason, found.stored, found.no_cache, found.stale_allowed),
        )

    def test_soft_uses_the_window_if_there_is_one(self) -> None:
        windowed = stored("Cache-Control: max-age=60, stale-while-revalidate=60", 'ETag: "a"')
        found = consider(asked(), windowed, purged=PurgeMode.SOFT)
        assert isinstance(found, Reuse) and found.behind is not None
        self.assertEqual((True, True), (found.stale, found.behind.no_cache))
        self.assertFalse(reused(asked(), stored(FRESH), purged=PurgeMode.SOFT))

    def test_other_modes_and_a_fence_don_t_use_the_window(self) -> None:
        windowed = stored("Cache-Control: max-age=60, stale-while-revalidate=60", 'ETag: "a"')
        for mode in (PurgeMode.REVALIDATE, PurgeMode.DELETE):
            self.assertFalse(reused(asked(), windowed, purged=mode, after=70))
        self.assertFalse(reused(asked(), windowed, fenced=True, after=70))
        self.assertFalse(reused(asked(), windowed, fenced=True))

    @given(
        st.sampled_from((PurgeMode.REVALIDATE, PurgeMode.DELETE)),
        st.sampled_from(("x", "max-stale", "only-if-cached", "max-stale, only-if-cached", "max-age=100")),
        st.sampled_from(
            (
                "max-age=60",
                "max-age=60, stale-while-revalidate=60",
                "max-age=60, immutable",
                "max-age=60, stale-if-error=9",
            )
        ),
        st.floats(0, 200, allow_nan=False),
        st.sampled_from(("GET", "HEAD")),
    )
    @settings(max_examples=100)
    def test_nothing_purged_or_fenced_is_ever_reused_unasked(
        self, mode: PurgeMode, wish: str, said: str, after: float, method: str
    ) -> None:
        one = stored(f"Cache-Control: {said}", 'ETag: "a"')
        request = asked(f"Cache-Control: {wish}", method=method)
        self.assertFalse(reused(request, one, purged=mode, after=after))
        self.assertFalse(reused(request, one, fenced=True, after=after))


class FailureTests(SynchronousTestCase):
    """RFC 9111 §4.2.4, RFC 5861 §4, RFC 9209 §2.3"""

    def outcome(self, *lines: str, after: float = 61, wish: str = "x") -> Reuse | Refuse:
        request = asked(f"Cache-Control: {wish}")
        found = forwarded(consider(request, stored(*lines, 'ETag: "a"'), after=after))
        return on_failure(request, found, NOW + after, ConnectFailed("o", 0.1))

    def test_stale_is_better_than_an_error(self) -> None:
        found = self.outcome(FRESH)
        assert isinstance(found, Reuse)
        self.assertEqual((61, -1, True), (found.age, found.ttl, found.stale))

    def test_pip_offline_gets_the_page_though_it_demanded_a_fresh_one(self) -> None:
        self.assertIsInstance(self.outcome(FRESH, after=20, wish="max-age=0"), Reuse)

    def test_not_where_it_is_forbidden(self) -> None:
        for directive in ("must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=60"):
            self.assertIsInstance(self.outcome(f"Cache-Control: max-age=60, {directive}"), Refuse, directive)

    def test_not_after_the_window_of_stale_if_error(self) -> None:
        lines = "Cache-Control: max-age=60, stale-if-error=30"
        self.assertIsInstance(self.outcome(lines, after=89), Reuse)
        self.assertIsInstance(self.outcome(lines, after=90), Refuse)

    def test_a_deleted_response_does_not_come_back(self) -> None:
        found = forwarded(consider(asked(), stored(FRESH), purged=PurgeMode.DELETE))
        self.assertIsInstance(on_failure(asked(), found, NOW, ConnectFailed("o", 0.1)), Refuse)

    def test_the_error_names_its_cause_and_says_when_to_try_again(self) -> None:
        """503 whatever the cause, also for installers, which never try again after 504 (FIELD 3)."""
        for of in (PLAIN, INDEX):
            for kind in kinds():
                found = on_failure(asked(of=of), Forward(ForwardReason.URI_MISS), NOW, kind("o", 1.0))
                assert isinstance(found, Refuse)
                self.assertEqual((503, kind.proxy_error), (found.status, found.proxy_error))
                self.assertIn(b"retry-after", dict(found.fields))

    def test_whatever_failed_what_is_stored_is_served(self) -> None:
        request, one = asked(), stored(FRESH)
        forward = forwarded(consider(request, one, after=61))
        for kind in kinds():
            self.assertIsInstance(on_failure(request, forward, NOW + 61, kind("o", 1.0)), Reuse, kind.__name__)

    def test_the_causes_are_those_that_are_registered(self) -> None:
        """RFC 9209 §2.3"""
        self.assertGreater(len(kinds()), 12)
        self.assertEqual([], [kind.__name__ for kind in kinds() if kind.proxy_error not in PROXY_ERRORS])
