"""Which parts of a content are stored, where, and what they answer (RFC 9110 §14.4, RFC 9111 §3.3)."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.decisions import Forward, Part, Store
from edgecache.rules.partrecords import Place, as_part, as_whole, part_hash, place_of
from edgecache.rules.parts import (
    ASIDE_OCTETS,
    answers,
    beginning_of,
    digest_of,
    first_head,
    is_same,
    passing_part,
    plan_of,
)
from edgecache.rules.policy import on_response
from edgecache.rules.resuming import OVERLAP
from edgecache.rules.spans import Span, span_of
from edgecache.rules.varying import variant_hash
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag
from tests.rules.build import INDEX, NOW, asked, head

SIZE = 1_000_000
DIGEST = "Repr-Digest: sha-256=:" + "A" * 43 + "=:"


def plan(*fields: str, size: int | None = SIZE, request: tuple[str, ...] = ()) -> Store:
    """How a whole is stored."""
    found = on_response(
        asked(*request),
        Forward(ForwardReason.URI_MISS),
        head("Cache-Control: max-age=60", *fields),
        length=size,
        delimited_by_close=False,
        requested_at=NOW,
        responded_at=NOW,
        floor=7,
    )
    assert isinstance(found, Store), found
    return found


class ContentRangeTests(SynchronousTestCase):
    def test_what_it_says(self) -> None:
        for value, span in (
            (b"bytes 0-4/10", Span(0, 5, 10)),
            (b"BYTES  5-9/*", Span(5, 10, None)),
            (b"bytes 4-9/8", Span(4, 10, 8)),
            (b"bytes */10", None),
            (b"bytes 0-4", None),
            (b"bytes 0-4/10 ", None),
            (b"octets 0-4/10", None),
            (b"bytes 0-4/1" + b"0" * 18, None),
            (None, None),
        ):
            self.assertEqual(span, span_of(value), value)

    def test_inconsistent_it_is_of_no_use(self) -> None:
        for span, consistent in (
            (Span(0, 10, 10), True),
            (Span(5, 9, None), True),
            (Span(5, 11, 10), False),
            (Span(6, 6, 10), False),
        ):
            self.assertEqual(consistent, span.consistent, span)

    @given(st.integers(0, 1 << 40), st.integers(1, 1 << 40), st.none() | st.integers(0, 1 << 50))
    def test_written_and_read_it_is_the_same(self, start: int, octets: int, complete: int | None) -> None:
        span = Span(start, start + octets, complete)
        self.assertEqual(span, span_of(span.field))


class PlaceTests(SynchronousTestCase):
    def test_beginnings_and_endings_have_one(self) -> None:
        for span, place in (
            (Span(0, 5, 10), Place.BEGINNING),
            (Span(5, 10, 10), Place.ENDING),
            (Span(3, 7, 10), None),
            (Span(0, 10, 10), None),
            (Span(0, 5, None), None),
            (Span(5, 11, 10), None),
        ):
            self.assertIs(place, place_of(span), span)

    def test_neither_lies_where_the_other_or_the_whole_or_a_variant_lies(self) -> None:
        """Also where a response varies by a field of that name"""
        key = bytes(32)
        found = {key, *(part_hash(key, place) for place in Place)}
        found |= {variant_hash(key, place.value) for place in Place}
        self.assertEqual(5, len(found))
        self.assertEqual({32}, set(map(len, found)))


class RecordTests(SynchronousTestCase):
    def test_of_a_part_the_whole_is_known_again(self) -> None:
        stored = plan('ETag: "one"', "Content-Type: text/plain", "Surrogate-Key: a", "Via: 1.0 before").stored
        span = Span(0, 5_000, SIZE)
        part = as_part(stored, span)
        self.assertEqual((206, 5_000), (part.status, part.size))
        self.assertIn(b"content-range: bytes 0-4999/1000000\r\ncontent-length: 5000\r\n", part.head)
        found = as_whole(part)
        assert found is not None
        whole, again = found
        self.assertEqual(span, again)
        for name in ("head", "status", "size", "etag", "selectors", "floor", "key", "fresh_until", "flags"):
            self.assertEqual(getattr(stored, name), getattr(whole, name), name)

    def test_what_is_none_is_taken_for_none(self) -> None:
        stored = plan('ETag: "one"').stored
        part = as_part(stored, Span(0, 5_000, SIZE))
        for other in (
            stored,
            evolve(part, size=4_999),
            evolve(part, status=200),
            evolve(part, head=part.head.replace(b"content-range", b"content-rang")),
            evolve(part, head=part.head.replace(b"/1000000", b"/*")),
        ):
            self.assertIsNone(as_whole(other))

    @given(st.integers(0, 99), st.integers(1, 100), st.integers(0, 99), st.integers(1, 100))
    def test_it_answers_what_lies_within_it(self, start: int, stop: int, first: int, last: int) -> None:
        within = set(range(first, last)) <= set(range(start, stop))
        if first < last and start < stop:
            self.assertEqual(within, answers(Span(start, stop, 100), Part(first, last)))

    def test_of_one_representation_are_those_of_one_length_and_strong_tag_or_digest(self) -> None:
        one = plan('ETag: "one"').stored
        self.assertTrue(is_same(one, plan('ETag: "one"').stored))
        for other in (plan('ETag: "two"'), plan('ETag: W/"one"'), plan('ETag: "one"', size=SIZE + 1)):
            self.assertFalse(is_same(one, other.stored))
        weak = plan('ETag: W/"one"').stored
        self.assertFalse(is_same(weak, weak))
        self.assertTrue(is_same(plan(DIGEST).stored, plan(DIGEST, 'ETag: "one"').stored))
        self.assertFalse(is_same(plan(DIGEST).stored, plan(DIGEST.replace("AAA", "AAB", 1)).stored))


class BeginningTests(SynchronousTestCase):
    def test_it_is_stored_where_a_rest_can_be_told_for_one(self) -> None:
        for fields, octets, size, stored in (
            (('ETag: "one"',), 5_000, SIZE, True),
            ((DIGEST,), 5_000, SIZE, True),
            ((), 5_000, SIZE, False),
            (('ETag: W/"one"',), 5_000, SIZE, False),
            (('ETag: "one"',), OVERLAP, SIZE, False),
            (('ETag: "one"',), SIZE, SIZE, False),
            (('ETag: "one"',), 5_000, None, False),
        ):
            part = beginning_of(plan(*fields, size=size), octets)
            self.assertEqual(stored, part is not None, (fields, octets, size))

    def test_an_error_has_no_beginning(self) -> None:
        missing = evolve(plan('ETag: "one"'), stored=evolve(plan('ETag: "one"').stored, status=404))
        self.assertIsNone(beginning_of(missing, 5_000))

    def test_what_goes_on_with_it_has_the_first_head_but_what_is_ours(self) -> None:
        stored = plan('ETag: "one"', DIGEST, "X-First: here", "Via: 1.0 before").stored
        fields = dict(first_head(stored).fields)
        self.assertEqual((b'"one"', b"here"), (fields[b"etag"], fields[b"x-first"]))
        self.assertEqual([], [name for name in (b"via", b"content-length", b"accept-ranges") if name in fields])

    def test_its_digest_is_the_records_or_the_heads(self) -> None:
        self.assertIsNone(digest_of(plan('ETag: "one"').stored))
        for stored in (evolve(plan().stored, digest=bytes(32)), plan(DIGEST).stored):
            digest = digest_of(stored)
            assert digest is not None
            self.assertEqual(("sha-256", bytes(32)), (digest.algorithm, digest.value))

    def test_a_variants_plan_is_the_variants(self) -> None:
        request = ("Accept-Language: de",)
        before = plan('ETag: "one"', "Vary: Accept-Language, X-None", request=request)
        after = plan_of(asked(*request), before.stored)
        self.assertEqual((before.record_hash, before.nominated), (after.record_hash, after.nominated))
        self.assertIsNone(plan_of(asked(), plan('ETag: "one"').stored).nominated)


class PassingTests(SynchronousTestCase):
    def part(
        self, *fields: str, request: tuple[str, ...] = (), length: int | None = 5, status: int = 206
    ) -> Store | None:
        """How a part that passes is stored."""
        return passing_part(asked("Range: bytes=-5", *request), head(*fields, status=status), length, NOW, NOW, 7)

    RIGHT = "Content-Range: bytes 5-9/10"
    FRESH = "Cache-Control: max-age=60"

    def test_it_is_stored_as_the_part_of_a_whole(self) -> None:
        found = self.part(self.FRESH, 'ETag: "one"', self.RIGHT, "Surrogate-Key: a")
        assert found is not None
        self.assertEqual(part_hash(asked().key_hash, Place.ENDING), found.record_hash)
        stored = found.stored
        self.assertEqual((206, 5, 7, b'"one"'), (stored.status, stored.size, stored.floor, stored.etag))
        self.assertEqual(NOW + 60, stored.fresh_until)
        self.assertEqual(set(plan("Surrogate-Key: a").stored.selectors), set(stored.selectors))
        whole = as_whole(stored)
        assert whole is not None
        self.assertEqual(Span(5, 10, 10), whole[1])

    def test_a_variants_part_lies_at_the_variants(self) -> None:
        found = self.part(self.FRESH, self.RIGHT, "Vary: Accept-Language", request=("Accept-Language: de",))
        assert found is not None
        self.assertEqual((b"accept-language",), found.nominated)
        self.assertEqual(b"accept-language:de", found.stored.variant)

    def test_what_would_not_be_stored_as_a_whole_is_not_as_a_part(self) -> None:
        for fields, request in (
            (("Cache-Control: no-store",), ()),
            (("Cache-Control: private",), ()),
            (('Cache-Control: max-age=60, private="X"', "X: y"), ()),
            (("Vary: *",), ()),
            ((self.FRESH,), ("Cache-Control: no-store",)),
            ((self.FRESH,), ("Authorization: Basic eA==",)),
            # Nobody would ask whether a part is still good.
            (("Cache-Control: max-age=0",), ()),
            (("Cache-Control: no-cache",), ()),
            # Nothing unverified twice.
            ((self.FRESH, DIGEST), ()),
        ):
            self.assertIsNone(self.part(*fields, 'ETag: "one"', self.RIGHT, request=request), (fields, request))

    def test_what_contradicts_itself_is_not_stored(self) -> None:
        for content_range, length in (
            ("bytes 4-9/10", 5),
            ("bytes 5-9/*", 5),
            ("bytes 5-9/9", 5),
            ("bytes 5-9/10", 6),
            ("bytes 5-9/10", None),
            ("bytes 3-7/10", 5),
        ):
            self.assertIsNone(self.part(self.FRESH, f"Content-Range: {content_range}", length=length), content_range)
        self.assertIsNone(self.part(self.FRESH, self.RIGHT, status=200))

    def test_what_it_says_of_its_own_octets_is_said_of_no_others(self) -> None:
        """Neither of what lies within it nor of the whole that is completed from it"""
        own = "Content-Digest: sha-256=:AAAA:", "Content-MD5: AAAA"
        found = self.part(self.FRESH, 'ETag: "one"', "Content-Range: bytes 0-4/10", *own)
        assert found is not None
        whole = as_whole(found.stored)
        assert whole is not None
        names = {name for name, _ in first_head(whole[0]).fields}
        self.assertIn(b"etag", names)
        self.assertEqual(set(), names & {b"content-digest", b"content-md5"})

    def test_several_parts_are_none(self) -> None:
        several = "Content-Type: multipart/byteranges; boundary=x"
        self.assertIsNone(self.part(self.FRESH, 'ETag: "one"', self.RIGHT, several))

    def test_a_large_one_passes_only(self) -> None:
        for octets, stored in ((ASIDE_OCTETS, True), (ASIDE_OCTETS + 1, False)):
            content_range = Span(SIZE, SIZE + octets, SIZE + octets).field.decode()
            found = self.part(self.FRESH, f"Content-Range: {content_range}", length=octets)
            self.assertEqual(stored, found is not None)

    def test_of_an_index_none_is_stored(self) -> None:
        request = asked("Range: bytes=-5", of=INDEX, target="/files/a/b")
        self.assertIsNone(passing_part(request, head(self.FRESH, self.RIGHT, status=206), 5, NOW, NOW, 7))

    def test_it_is_not_flagged_as_what_it_is_not(self) -> None:
        found = self.part(self.FRESH, self.RIGHT)
        assert found is not None
        self.assertFalse(found.stored.flags & (Flag.CHUNKED | Flag.PAGE | Flag.FALLBACK))
