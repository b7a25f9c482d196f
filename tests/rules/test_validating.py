"""Validation: what is asked, and what a 304 or a HEAD does to the stored response (RFC 9111 §4.3)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import Asked
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Again, Forward, Freshen, Pass, Store
from edgecache.rules.outbound import outbound
from edgecache.rules.selectors import tag_selector
from edgecache.rules.varying import variant_hash
from edgecache.words.messages import field_values
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag, Stored
from tests.rules.build import INDEX, NOW, PLAIN, asked, changed, consider, field_lines, head, respond, reused, stored

LATER = NOW + 100


def validated(one: Stored, *lines: str, by: Asked | None = None, floor: int = 8) -> Stored:
    found = respond(
        by or asked(),
        head(*lines, status=304, date=LATER),
        forward=Forward(ForwardReason.STALE, one),
        at=LATER,
        floor=floor,
    )
    assert isinstance(found, Freshen), found
    return found.stored


class QuestionTests(SynchronousTestCase):
    """RFC 9111 §4.3.1"""

    def conditions(self, *lines: str, by: Asked | None = None, alone: bool = False) -> dict[bytes, list[bytes]]:
        by = by or asked()
        fields = outbound(by, Forward(ForwardReason.STALE, stored(*lines, by=asked()), alone=alone)).fields
        return {
            name: field_values(fields, name)
            for name in (b"if-none-match", b"if-modified-since")
            if field_values(fields, name)
        }

    def test_validators_go_out_as_they_came_in(self) -> None:
        modified = "Sunday, 06-Nov-94 08:49:37 GMT"
        self.assertEqual(
            {b"if-none-match": [b'W/"a"'], b"if-modified-since": [modified.encode()]},
            self.conditions("Cache-Control: max-age=1", 'ETag: W/"a"', f"Last-Modified: {modified}"),
        )

    def test_without_validators_it_is_a_plain_get(self) -> None:
        self.assertEqual({}, self.conditions("Cache-Control: max-age=1"))
        self.assertEqual({}, self.conditions("Cache-Control: max-age=1", "Last-Modified: yesterday"))

    def test_a_date_that_may_be_that_of_two_contents_validates_neither(self) -> None:
        """RFC 9110 §8.8.2.2: what was uploaded, fetched and uploaded again in one second, and then purged."""
        for before, lines, expected in (
            (0, (), set()),
            (1, (), {b"if-modified-since"}),
            (0, ('ETag: "a"',), {b"if-none-match", b"if-modified-since"}),
        ):
            modified = f"Last-Modified: {format_date(NOW - before).decode()}"
            self.assertEqual(expected, set(self.conditions("Cache-Control: max-age=1", modified, *lines)), before)

    def test_the_client_s_own_conditions_are_replaced(self) -> None:
        by = asked(
            'If-None-Match: "mine"',
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
            'If-Range: "x"',
            "Range: bytes=0-1",
        )
        self.assertEqual({b"if-none-match": [b'"a"']}, self.conditions("Cache-Control: max-age=1", 'ETag: "a"', by=by))
        fields = dict(outbound(by, Forward(ForwardReason.URI_MISS)).fields)
        self.assertEqual([], [name for name in fields if name.startswith(b"if-") or name == b"range"])

    def test_forwarded_on_its_own_they_are_kept(self) -> None:
        by = asked('If-None-Match: "mine"', "Range: bytes=0-1")
        self.assertEqual(
            {b"if-none-match": [b'"mine"']}, self.conditions("Cache-Control: max-age=1", 'ETag: "a"', by=by, alone=True)
        )
        self.assertIn((b"range", b"bytes=0-1"), outbound(by, Forward(ForwardReason.BYPASS, alone=True)).fields)


class FreshenTests(SynchronousTestCase):
    """RFC 9111 §3.2, §4.3.4"""

    def setUp(self) -> None:
        self.one = stored(
            "Cache-Control: max-age=10",
            'ETag: "a"',
            "X: old",
            "Y: kept",
            "Content-Type: text/plain",
            "Surrogate-Key: t",
        )

    def test_it_is_fresh_again_and_the_same_content(self) -> None:
        fresh = validated(self.one)
        self.assertEqual((LATER, LATER + 10, LATER), (fresh.generated_at, fresh.fresh_until, fresh.validated_at))
        self.assertEqual(
            (self.one.content_id, self.one.size, b'"a"', 8), (fresh.content_id, fresh.size, fresh.etag, fresh.floor)
        )
        self.assertTrue(reused(asked(), fresh, after=109))

    def test_fields_of_the_304_replace_stored_ones_and_others_stay(self) -> None:
        fresh = field_lines(
            validated(
                self.one, "X: new", "Content-Type: text/html", "Set-Cookie: s", "Cache-Control: max-age=3600"
            ).head
        )
        self.assertEqual(
            ("new", "kept", "text/html", "s", "max-age=3600"),
            tuple(fresh[name] for name in ("x", "y", "content-type", "set-cookie", "cache-control")),
        )

    def test_what_describes_the_stored_content_stays(self) -> None:
        lines = ("Content-Encoding: gzip", "Content-Digest: all", "Vary: Foo")
        one = stored("Cache-Control: max-age=10", 'ETag: "a"', *lines, by=asked("Foo: 1"))
        said = ("Content-Length: 99", "Content-Encoding: br", "Content-Digest: none", "Content-Range: x", "Vary: foo")
        shown = field_lines((fresh := validated(one, *said, by=asked("Foo: 1"))).head)
        self.assertEqual(
            ("10", "gzip", "all", "Foo"),
            tuple(shown[name] for name in ("content-length", "content-encoding", "content-digest", "vary")),
        )
        self.assertNotIn("content-range", shown)
        self.assertTrue(fresh.flags & Flag.CODED)

    def test_content_length_stays_the_last_line(self) -> None:
        self.assertTrue(validated(self.one, "X: new").head.endswith(b"content-length: 10\r\n"))

    def test_directives_of_the_304_count(self) -> None:
        fresh = validated(self.one, "Cache-Control: max-age=5, must-revalidate")
        self.assertEqual((LATER + 5, int(Flag.NEVER_STALE)), (fresh.fresh_until, fresh.flags))

    def test_age_of_the_304_counts(self) -> None:
        self.assertEqual(LATER - 4, validated(self.one, "Age: 4").generated_at)

    def test_the_last_modified_of_the_304_is_the_validator_from_now_on(self) -> None:
        one = stored("Cache-Control: max-age=1", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
        self.assertEqual(784111777.0, validated(one).last_modified)
        self.assertEqual(784111778.0, validated(one, "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT").last_modified)

    def test_its_floor_never_goes_back(self) -> None:
        self.assertEqual(7, validated(self.one, floor=3).floor)

    def test_tags_stay_unless_new_ones_come(self) -> None:
        site = PLAIN.all[0].id
        self.assertEqual(self.one.selectors, validated(self.one).selectors)
        self.assertEqual(
            (*asked().selectors, tag_selector(site, b"u")), validated(self.one, "Surrogate-Key: u").selectors
        )

    def test_one_with_more_tags_than_are_kept_must_not_be_used_again(self) -> None:
        """A purge of one that is left out would not reach it."""
        for count, expected in ((64, True), (65, False)):
            fresh = validated(self.one, "Surrogate-Key: " + " ".join(f"t{n}" for n in range(count)))
            self.assertEqual(expected, reused(asked(), fresh, after=101), count)
            again = validated(fresh, "Cache-Control: max-age=60")
            self.assertEqual(expected, reused(asked(), again, after=101), "one without tags brings none back")
            self.assertTrue(reused(asked(), validated(again, "Surrogate-Key: t1"), after=101))

    def test_via_is_not_doubled(self) -> None:
        self.assertEqual("1.1 edge-1", field_lines(validated(validated(self.one)).head)["via"])
        self.assertEqual("1.1 o, 1.1 edge-1", field_lines(validated(self.one, "Via: 1.1 o").head)["via"])

    def test_a_variant_stays_where_it_lies(self) -> None:
        by = asked("Foo: 1")
        one = stored("Cache-Control: max-age=1", 'ETag: "a"', "Vary: Foo", by=by)
        found = respond(by, head(status=304), forward=Forward(ForwardReason.STALE, one))
        assert isinstance(found, Freshen)
        self.assertEqual(
            (variant_hash(by.key_hash, one.variant), one.variant), (found.record_hash, found.stored.variant)
        )
        self.assertNotEqual(by.key_hash, found.record_hash)

    def test_no_store_on_a_304_ends_its_reuse(self) -> None:
        for value in ("no-store", "private"):
            self.assertFalse(
                reused(asked(), validated(self.one, f"Cache-Control: {value}, max-age=60"), after=101), value
            )

    def test_another_tag_is_the_origin_s_mistake_when_only_a_tag_was_asked_for(self) -> None:
        fresh = validated(self.one, 'ETag: "b"')
        self.assertEqual((b'"a"', '"a"'), (fresh.etag, field_lines(fresh.head)["etag"]))

    def test_a_weak_twin_is_the_same_tag(self) -> None:
        self.assertEqual(b'"a"', validated(self.one, 'ETag: W/"a"').etag)

    def test_a_200_replaces_it(self) -> None:
        found = respond(
            asked(), head("Cache-Control: max-age=1"), forward=Forward(ForwardReason.STALE, self.one), at=LATER
        )
        self.assertIsInstance(found, Store)


class SupersededTests(SynchronousTestCase):
    """The origin has answered something else, which may not be stored: the old must not come back as stale."""

    def after(self, *lines: str, status: int = 200) -> Stored | None:
        one = stored("Cache-Control: max-age=10", 'ETag: "a"')
        found = respond(
            asked(), head(*lines, status=status), forward=Forward(ForwardReason.STALE, one, stale_allowed=True)
        )
        assert isinstance(found, Pass)
        return found.update

    def test_a_success_a_redirect_and_a_loss(self) -> None:
        for status in (200, 201, 302, 404, 410):
            update = self.after("Cache-Control: private", status=status)
            assert update is not None, status
            found = consider(asked(), update, after=1)
            assert isinstance(found, Forward)
            self.assertEqual((False, update), (found.stale_allowed, found.stored))

    def test_not_what_is_about_the_request_or_the_moment(self) -> None:
        for status in (206, 400, 401, 403, 429, 431, 501):
            self.assertIsNone(self.after("Cache-Control: no-store", status=status), status)


class AgainTests(SynchronousTestCase):
    """A 304 that is not about what is stored is asked about once more, without conditions (RFC 9111 §4.3.3)."""

    def again(self, one: Stored, *lines: str, by: Asked | None = None) -> None:
        forward = Forward(ForwardReason.STALE, one, no_cache=True, stale_allowed=True)
        found = respond(by or asked(), head(*lines, status=304), forward=forward)
        assert isinstance(found, Again), found
        self.assertEqual(
            (None, True, False), (found.forward.stored, found.forward.no_cache, found.forward.stale_allowed)
        )

    def test_another_tag_where_the_date_may_have_matched(self) -> None:
        self.again(
            stored("Cache-Control: max-age=1", 'ETag: "a"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"), 'ETag: "b"'
        )

    def test_nothing_had_been_asked(self) -> None:
        self.again(stored("Cache-Control: max-age=1"))

    def test_other_fields_select_it_now(self) -> None:
        self.again(
            stored("Cache-Control: max-age=1", 'ETag: "a"', "Vary: Foo", by=asked("Foo: 1")),
            "Vary: Bar",
            by=asked("Foo: 1"),
        )
        self.again(stored("Cache-Control: max-age=1", 'ETag: "a"'), "Vary: *")

    def test_asked_again_without_success_it_is_passed_on_once(self) -> None:
        found = respond(asked(), head(status=304), forward=Forward(ForwardReason.STALE))
        assert isinstance(found, Pass)
        self.assertFalse(found.remember)


class HeadTests(SynchronousTestCase):
    """RFC 9111 §4.3.5"""

    def setUp(self) -> None:
        self.one = stored("Cache-Control: max-age=10", 'ETag: "a"', "X: old")

    def after_head(
        self, *lines: str, status: int = 200, length: int | None = 10, one: Stored | None = None
    ) -> Stored | None:
        forward = Forward(ForwardReason.STALE, one or self.one, alone=True)
        found = respond(
            asked(method="HEAD"),
            head(*lines, status=status, date=LATER),
            forward=forward,
            at=LATER,
            length=length,
            floor=9,
        )
        assert isinstance(found, Pass)
        if found.update is not None:
            self.assertEqual(asked().key_hash, found.update_hash)
        return found.update

    def test_it_freshens_what_it_agrees_with(self) -> None:
        update = self.after_head('ETag: "a"', "X: new", "Cache-Control: max-age=50")
        assert update is not None
        self.assertEqual((LATER + 50, "new", 9), (update.fresh_until, field_lines(update.head)["x"], update.floor))
        self.assertTrue(reused(asked(), update, after=120))

    def test_without_validator_it_freshens_but_vouches_for_no_purge(self) -> None:
        update = self.after_head("Cache-Control: max-age=50")
        assert update is not None
        self.assertEqual((LATER + 50, 7), (update.fresh_until, update.floor))

    def test_what_differs_makes_stale(self) -> None:
        fresh = changed(self.one, fresh_until=NOW + 1000)
        modified = stored("Cache-Control: max-age=1000", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
        for update in (
            self.after_head('ETag: "b"', one=fresh),
            self.after_head('ETag: "a"', length=11, one=fresh),
            self.after_head("Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT", one=modified),
            self.after_head(status=410, one=fresh),
        ):
            assert update is not None
            self.assertFalse(reused(asked(), update, after=101))

    def test_an_error_or_a_304_says_nothing(self) -> None:
        for status in (304, 500, 503):
            self.assertIsNone(self.after_head(status=status), status)

    def test_on_a_miss_there_is_nothing_to_update(self) -> None:
        found = respond(asked(method="HEAD"), head("Cache-Control: max-age=5"))
        assert isinstance(found, Pass)
        self.assertIsNone(found.update)


class IndexTests(SynchronousTestCase):
    """A page's lifetime and Cache-Control stay ours through a validation (DESIGN 10)."""

    def test_a_validated_page_lives_ten_seconds_more(self) -> None:
        page = asked(of=INDEX, target="/simple/a/")
        one = stored('ETag: "a"', "Cache-Control: max-age=600, must-revalidate", by=page)
        for lines in ((), ("Cache-Control: max-age=600",)):
            fresh = validated(one, *lines, by=page)
            self.assertEqual((LATER + 10, "max-age=0"), (fresh.fresh_until, field_lines(fresh.head)["cache-control"]))

    def test_a_304_that_says_nothing_leaves_must_revalidate(self) -> None:
        page = asked(of=INDEX, target="/simple/a/")
        one = stored('ETag: "a"', "Cache-Control: must-revalidate", by=page)
        found = consider(page, validated(one, by=page), after=200)
        assert isinstance(found, Forward)
        self.assertFalse(found.stale_allowed)
