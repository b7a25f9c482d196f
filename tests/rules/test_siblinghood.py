"""Which misses ask siblings, with what, and what a sibling is answered (DESIGN 9, misses)."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import ask
from edgecache.rules.decisions import Again, Forward, Refuse, Reuse, ServeStale, Store
from edgecache.rules.lookups import (
    MOST_OCTETS,
    Told,
    from_sibling,
    positions_value,
    selectors_value,
    stripped,
    told_by,
)
from edgecache.rules.policy import on_request, on_response
from edgecache.rules.presenting import head_of, present
from edgecache.rules.selectors import tag_selector
from edgecache.rules.siblinghood import (
    fills_at_home,
    for_sibling,
    look_up,
    may_ask_siblings,
    only_if_cached,
    patience_seconds,
    with_budget,
)
from edgecache.words.config import FillAt, Profile
from edgecache.words.messages import Fields, Head, combined
from edgecache.words.purging import LogName
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag, Stored
from tests.rules.build import INDEX, NOW, PLAIN, asked, head, request, sites

LOG = LogName("eu-1", b"\xab" * 16)
SIBLING = ("Edgecache-Positions: eu-1:" + "ab" * 16 + ":7", "Edgecache-Budget: 9000")
MISS = Forward(ForwardReason.URI_MISS)


def stored_of(*lines: str, floor: int = 0, **more: Any) -> Stored:
    """What is stored of an origin's answer."""
    decision = on_response(
        asked(),
        MISS,
        head(*lines),
        length=3,
        delimited_by_close=False,
        requested_at=NOW,
        responded_at=NOW,
        floor=floor,
        **more,
    )
    assert isinstance(decision, Store), decision
    return decision.stored


class MayAskTests(SynchronousTestCase):
    def test_a_miss_that_others_may_share_asks(self) -> None:
        self.assertTrue(may_ask_siblings(asked(), MISS))

    def test_a_siblings_own_request_is_never_forwarded_to_a_third(self) -> None:
        self.assertFalse(may_ask_siblings(asked(*SIBLING), MISS))

    def test_what_was_deleted_or_invalidated_here_is_asked_of_the_origin(self) -> None:
        self.assertFalse(may_ask_siblings(asked(), evolve(MISS, at_origin=True)))

    def test_what_goes_upstream_alone_does_not(self) -> None:
        self.assertFalse(may_ask_siblings(asked(), evolve(MISS, alone=True)))
        self.assertFalse(may_ask_siblings(asked(method="HEAD"), MISS))
        self.assertFalse(may_ask_siblings(asked(method="POST"), MISS))
        self.assertFalse(may_ask_siblings(asked("Cache-Control: no-store"), MISS))

    def test_who_names_no_host_could_be_asking_for_another_site_there(self) -> None:
        """RFC 9112 §3.2: HTTP/1.0 may leave Host out"""
        self.assertFalse(may_ask_siblings(asked(authority=""), MISS))

    def test_files_and_all_of_a_plain_site_are_filled_at_home_pages_at_the_origin(self) -> None:
        self.assertTrue(fills_at_home(asked()))
        self.assertTrue(fills_at_home(asked(of=INDEX, target="/files/a/-/a-1.whl")))
        self.assertFalse(fills_at_home(asked(of=INDEX, target="/simple/a/")))
        at_home = sites(profile=Profile.INDEX, page_fill=FillAt.HOME, fill=FillAt.ORIGIN)
        self.assertTrue(fills_at_home(asked(of=at_home, target="/simple/a/")))
        self.assertFalse(fills_at_home(asked(of=at_home, target="/files/a/-/a-1.whl")))


class LookUpTests(SynchronousTestCase):
    def test_it_is_the_clients_request_with_positions(self) -> None:
        found = look_up(asked("Accept: text/html", target="/x?y", authority="files.test"), MISS, b"p")
        self.assertEqual((b"GET", b"/x?y", b"files.test"), (found.method, found.target, found.authority))
        self.assertEqual(b"p", combined(found.fields, b"edgecache-positions"))
        self.assertEqual(b"text/html", combined(found.fields, b"accept"))
        self.assertEqual(b"edge-1", combined(found.fields, b"cdn-loop"))

    def test_the_no_cache_of_a_purge_is_said_by_positions(self) -> None:
        found = look_up(asked(), evolve(MISS, no_cache=True), b"p")
        self.assertIsNone(combined(found.fields, b"cache-control"))

    def test_the_no_cache_of_a_client_is_passed_on_also_on_an_index(self) -> None:
        for of in (PLAIN, INDEX):
            found = look_up(asked("Cache-Control: max-age=0", of=of, target="/simple/a/"), MISS, b"p")
            self.assertEqual([b"max-age=0"], [value for name, value in found.fields if name == b"cache-control"])

    def test_and_so_is_the_serial_that_a_client_demands(self) -> None:
        found = look_up(asked("Edgecache-Min-Serial: 7", of=INDEX, target="/simple/a/"), MISS, b"p")
        self.assertEqual(b"7", combined(found.fields, b"edgecache-min-serial"))

    def test_what_is_stored_is_validated(self) -> None:
        found = look_up(asked(), evolve(MISS, stored=stored_of("Cache-Control: max-age=9", 'ETag: "1"')), b"p")
        self.assertEqual(b'"1"', combined(found.fields, b"if-none-match"))

    def test_the_budget_is_in_milliseconds(self) -> None:
        self.assertEqual([(b"edgecache-budget", b"1500")], with_budget(look_up(asked(), MISS, b"p"), 1.5).fields[-1:])

    def test_for_stored_copies_the_cache_alone_is_asked(self) -> None:
        question = look_up(asked("Cache-Control: max-age=5"), MISS, b"p")
        self.assertEqual(b"only-if-cached", combined(only_if_cached(question, stale=False).fields, b"cache-control"))
        stale = only_if_cached(question, stale=True)
        self.assertEqual(b"only-if-cached, max-stale", combined(stale.fields, b"cache-control"))

    def test_three_round_trips_are_never_too_long(self) -> None:
        self.assertEqual([0.3, 0.3, 1.5], [patience_seconds(one) for one in (0.0, 0.05, 0.5)])


class FieldTests(SynchronousTestCase):
    @given(
        st.dictionaries(
            st.builds(
                LogName, st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True), st.binary(min_size=16, max_size=16)
            ),
            st.integers(0, 10**18 - 1),
            max_size=20,
        )
    )
    def test_positions_are_read_as_they_were_written(self, positions: dict[LogName, int]) -> None:
        value = positions_value(positions)
        assert value is not None
        found = from_sibling([(b"edgecache-positions", value), (b"edgecache-budget", b"250")])
        assert found is not None
        self.assertEqual((positions, 0.25), (found.positions, found.budget_seconds))

    def test_positions_that_no_head_has_room_for_are_not_sent(self) -> None:
        many = {LogName(f"node-{number}", b"\0" * 16): 1 for number in range(MOST_OCTETS // 40)}
        self.assertIsNone(positions_value(many))

    def test_other_requests_are_no_siblings(self) -> None:
        self.assertIsNone(from_sibling([(b"accept", b"*/*")]))

    def test_malformed_ones_are_refused(self) -> None:
        good: Fields = [(b"edgecache-positions", b""), (b"edgecache-budget", b"1")]
        assert from_sibling(good) is not None
        for name, value in (
            (b"edgecache-positions", b"eu-1"),
            (b"edgecache-positions", b"eu-1:ab:1"),
            (b"edgecache-positions", b"eu-1:" + b"ab" * 16 + b":-1"),
            (b"edgecache-budget", b"-1"),
            (b"edgecache-budget", b"soon"),
            (b"edgecache-budget", b"1" * 10),
        ):
            fields = [(name, value), *(line for line in good if line[0] != name)]
            self.assertRaises(ValueError, from_sibling, fields)
        self.assertRaises(ValueError, from_sibling, good[:1])

    def test_malformed_positions_are_answered_400(self) -> None:
        refused = ask(request("Edgecache-Positions: ?", "Edgecache-Budget: 1"), PLAIN)
        self.assertIsInstance(refused, Refuse)

    def test_what_a_sibling_says_is_read_and_taken_off(self) -> None:
        answer = Head(
            200,
            b"OK",
            [(b"a", b"b"), (b"edgecache-selectors", selectors_value((255, 1))), (b"edgecache-fresh", b"-3")],
        )
        self.assertEqual(Told((255, 1), -3.0), told_by(answer))
        self.assertEqual([(b"a", b"b")], stripped(answer).fields)

    def test_what_cannot_be_read_is_not_stored(self) -> None:
        for selectors, fresh in ((b"xyz", b"1"), (b"1 " * 65, b"1"), (b"1", b"soon")):
            answer = Head(200, b"OK", [(b"edgecache-selectors", selectors), (b"edgecache-fresh", fresh)])
            self.assertEqual(Told(), told_by(answer))
        self.assertEqual(Told(), told_by(Head(200, b"OK", [])))


class AnswerTests(SynchronousTestCase):
    """What the store does for a sibling."""

    def decide(self, stored: Stored | None, *lines: str, now: float) -> Any:
        question = asked(*SIBLING, *lines)
        return for_sibling(question, on_request(question, stored, None, False, now), stored)

    def test_what_is_fresh_answers(self) -> None:
        self.assertIsInstance(self.decide(stored_of("Cache-Control: max-age=9"), now=NOW + 1), Reuse)

    def test_what_may_be_served_stale_meanwhile_is_not(self) -> None:
        stored = stored_of("Cache-Control: max-age=9, stale-while-revalidate=60")
        decision = self.decide(stored, now=NOW + 10)
        self.assertEqual((stored, False), (decision.stored, decision.stale_allowed))

    def test_nothing_is_served_stale_when_nobody_answers(self) -> None:
        decision = self.decide(stored_of("Cache-Control: max-age=9", 'ETag: "1"'), now=NOW + 10)
        self.assertEqual(False, decision.stale_allowed)

    def test_unless_that_was_asked_for(self) -> None:
        stored = stored_of("Cache-Control: max-age=9", 'ETag: "1"')
        self.assertIsInstance(self.decide(stored, "Cache-Control: only-if-cached, max-stale", now=NOW + 10), Reuse)
        refused = self.decide(stored, "Cache-Control: only-if-cached", now=NOW + 10)
        self.assertEqual(504, refused.status)

    def test_a_record_is_sent_with_what_it_can_be_named_by_and_how_long_it_lives(self) -> None:
        stored = stored_of("Cache-Control: max-age=9", "Surrogate-Key: apples")
        question = asked(*SIBLING)
        lines = head_of(question, stored, present(question, stored), age=4, cache_status=b"x").split(b"\r\n")
        self.assertIn(b"edgecache-fresh: 5", lines)
        self.assertIn(b"edgecache-selectors: %x" % tag_selector(question.site.id, b"apples"), lines)

    def test_clients_see_none_of_it(self) -> None:
        stored = stored_of("Cache-Control: max-age=9", "Surrogate-Key: apples")
        self.assertNotIn(b"edgecache-", head_of(asked(), stored, present(asked(), stored), age=4, cache_status=b"x"))


class RecordTests(SynchronousTestCase):
    """What becomes of a sibling's response."""

    def test_it_is_named_by_what_the_sibling_says_besides_its_url(self) -> None:
        stored = stored_of("Cache-Control: max-age=9", told=Told((1, 2), 9.0))
        self.assertEqual((*asked().selectors, 1, 2), stored.selectors)

    def test_it_is_never_fresher_than_there(self) -> None:
        self.assertEqual(NOW + 4, stored_of("Cache-Control: max-age=9", told=Told((), 4.0)).fresh_until)
        self.assertEqual(NOW + 9, stored_of("Cache-Control: max-age=9", told=Told((), 40.0)).fresh_until)

    def answered(self, decision: Any, ours: float, theirs: float, **more: Any) -> Any:
        """:param ours: Date of what is stored here and has to be validated; and the sibling's of another one."""
        stored = evolve(stored_of("Cache-Control: max-age=9", 'ETag: "1"'), date=NOW + ours)
        found = on_response(
            asked(),
            Forward(ForwardReason.STALE, stored, **more.pop("forward", {})),
            head("Cache-Control: max-age=9", 'ETag: "2"', date=NOW + theirs),
            length=3,
            delimited_by_close=False,
            requested_at=NOW + 9,
            responded_at=NOW + 9,
            floor=0,
            told=Told((), 9.0),
            **more,
        )
        self.assertIsInstance(found, decision)
        return found

    def test_the_most_recent_of_two_is_used_and_the_origin_says_whether_it_is_good(self) -> None:
        """RFC 9111 §4. The sibling may not have heard of what was published, if it was not purged yet."""
        for theirs in (0, 4, 5):
            again = self.answered(Again, 5, theirs)
            self.assertTrue(again.forward.at_origin and again.forward.stored is not None)
        self.answered(Store, 5, 6)

    def test_where_no_origin_answers_the_most_recent_is_served_stale_if_it_may_be(self) -> None:
        self.answered(ServeStale, 5, 4, copied=True, forward={"stale_allowed": True})
        self.answered(Store, 5, 6, copied=True, forward={"stale_allowed": True})
        self.answered(Store, 5, 4, copied=True)

    def test_after_a_purge_it_is_the_siblings_which_covers_that(self) -> None:
        """Of the same second may be the page before an upload and the one after it."""
        for copied in (False, True):
            self.answered(Store, 5, 5, copied=copied, forward={"stale_allowed": True, "no_cache": True})

    def test_what_the_sibling_could_not_store_is_not_stored_here(self) -> None:
        self.assertRaises(AssertionError, stored_of, "Cache-Control: max-age=9", told=Told())

    def test_a_fallbacks_is_marked(self) -> None:
        stored = stored_of("Cache-Control: max-age=9", told=Told((), 9.0, True), fallback=True)
        self.assertTrue(stored.flags & Flag.FALLBACK)
