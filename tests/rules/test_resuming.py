"""The nine rules for resuming a body, as far as they are decisions (FIELD 1)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.digests import Digest, repr_digest
from edgecache.rules.resuming import Known, NotTheRest, Rest, combined_head, known_of, on_answer, rest_of
from edgecache.words.messages import Fields, Head, Outbound
from tests.upstream.rig import GET, HEAD

L, N = 100_000, 10_000
START = N - 4096
DIGEST = Digest("sha-256", hashlib.sha256(b"it").digest())
REPR = b"sha-256=:" + base64.b64encode(DIGEST.value) + b":"
OTHER_REPR = b"sha-256=:" + base64.b64encode(hashlib.sha256(b"that").digest()) + b":"

BY_TAG = Known(L, b"", b'"one"', None)
BY_DIGEST = Known(L, b"", b'"one"', DIGEST)
CHUNKED = Known(None, b"", b'"one"', None)


def head(status: int = 200, **fields: bytes) -> Head:
    return Head(status, b"", [(name.replace("_", "-").encode(), value) for name, value in fields.items()])


def known(response: Head, length: int | None = L, outbound: Outbound = GET, **how: Any) -> Known | None:
    how = {"delimited_by_close": False, "digest": repr_digest(response), **how}
    return known_of(outbound, response, length, **how)


def partial(known: Known = BY_TAG, *, length: int | None = L - START, **fields: bytes) -> Rest | NotTheRest:
    """The verdict on a right 206, but for ``fields``."""
    fields = {"etag": b'"one"', "content_range": b"bytes %d-%d/%d" % (START, L - 1, L), **fields}
    fields = {name: value for name, value in fields.items() if value}
    return on_answer(known, N, head(206, **fields), length, delimited_by_close=False)


def whole(known: Known = BY_TAG, *, length: int | None = L, close: bool = False, **fields: bytes) -> Rest | NotTheRest:
    """The verdict on a right 200, but for ``fields``."""
    fields = {"etag": b'"one"', **fields}
    fields = {name: value for name, value in fields.items() if value}
    return on_answer(known, N, head(200, **fields), length, delimited_by_close=close)


class Rule1Tests(SynchronousTestCase):
    """Known: status 200, length, the coding, a strong validator or a digest."""

    def test_a_strong_entity_tag_or_a_digest_makes_it_resumable(self) -> None:
        self.assertEqual(Known(L, b"", b'"one"', None), known(head(etag=b'"one"')))
        self.assertEqual(Known(L, b"", b"", DIGEST), known(head(repr_digest=REPR)))
        self.assertEqual(
            Known(L, b"gzip", b'"one"', DIGEST), known(head(etag=b'"one"', repr_digest=REPR, content_encoding=b"GZip"))
        )

    def test_a_digest_that_is_known_from_elsewhere_counts(self) -> None:
        self.assertEqual(Known(L, b"", b"", DIGEST), known(head(), digest=DIGEST))

    def test_nothing_else_is(self) -> None:
        tagged = head(etag=b'"one"')
        for found in (
            known(head()),
            known(head(etag=b'W/"one"')),
            known(head(etag=b"one")),
            known(head(last_modified=b"Mon, 01 Jan 2024 00:00:00 GMT")),
            known(head(206, etag=b'"one"')),
            known(head(404, etag=b'"one"')),
            known(tagged, outbound=HEAD),
            known(tagged, outbound=Outbound(b"POST", b"/", [])),
            known(tagged, None, delimited_by_close=True),
            known(head(repr_digest=REPR), None),
        ):
            self.assertIsNone(found)

    def test_what_came_in_chunks_is_if_its_validator_is_strong(self) -> None:
        self.assertEqual(CHUNKED, known(head(etag=b'"one"'), None))
        self.assertIsNone(known(head(etag=b'W/"one"'), None))

    def test_identity_is_no_coding(self) -> None:
        self.assertEqual(BY_TAG, known(head(etag=b'"one"', content_encoding=b"identity")))


class Rule3Tests(SynchronousTestCase):
    """Range from 4096 octets before the break, If-Range, and the fields that Vary names."""

    def fields(self, received: int, known: Known = BY_TAG, *fields: tuple[bytes, bytes]) -> Fields:
        return rest_of(evolve(GET, fields=list(fields)), known, received).fields

    def test_the_range_begins_4096_octets_earlier_or_at_the_start(self) -> None:
        for received, start in ((N, START), (4097, 1), (4096, 0), (4095, 0), (1, 0), (0, 0)):
            expected = [(b"range", b"bytes=%d-" % start), (b"if-range", b'"one"')]
            self.assertEqual(expected, self.fields(received))

    def test_all_fields_go_along_but_conditions_and_the_clients_own_range(self) -> None:
        kept = [(b"accept", b"a"), (b"accept-encoding", b"gzip"), (b"authorization", b"x"), (b"via", b"1.1 a")]
        dropped = [
            (name, b"x")
            for name in (
                b"if-none-match",
                b"if-modified-since",
                b"if-match",
                b"if-unmodified-since",
                b"if-range",
                b"range",
            )
        ]
        expected = [*kept, (b"range", b"bytes=%d-" % START), (b"if-range", b'"one"')]
        self.assertEqual(expected, self.fields(N, BY_TAG, *kept, *dropped))

    def test_target_method_and_host_stay(self) -> None:
        asked = evolve(GET, authority=b"a.example")
        found = rest_of(asked, BY_TAG, N)
        self.assertEqual(
            (b"GET", b"/thing", b"a.example", None), (found.method, found.target, found.authority, found.content)
        )
        self.assertEqual([], asked.fields)


class Rule4Tests(SynchronousTestCase):
    """Only a single-part 206 that starts there, of that length, with the same validator and coding."""

    def refused(self, verdict: Rest | NotTheRest, *, wrong: bool) -> None:
        self.assertIsInstance(verdict, NotTheRest)
        assert isinstance(verdict, NotTheRest)
        self.assertEqual(wrong, verdict.wrong, verdict.detail)

    def test_the_right_one(self) -> None:
        self.assertEqual(Rest(START, L), partial())
        self.assertEqual(Rest(START, L), partial(length=None))
        self.assertEqual(Rest(START, L), partial(content_range=b"BYTES %d-%d/%d" % (START, L - 1, L)))

    def test_a_wrong_content_range_counts_against_the_address(self) -> None:
        for content_range in (
            b"",
            b"bytes */%d" % L,
            b"bytes %d-%d/%d" % (START + 1, L - 1, L),
            b"bytes %d-%d/%d" % (START - 1, L - 1, L),
            b"bytes 0-%d/%d" % (L - 1, L),
            b"bytes %d-%d/%d" % (START, L, L),
            b"bytes %d-%d/%d" % (START, START - 1, L),
            b"bytes %d-%d/%d, bytes 1-2/3" % (START, L - 1, L),
            b"octets %d-%d/%d" % (START, L - 1, L),
            b"bytes %d-%d/%d" % (START, 10**30, 10**31),
            b"bytes -%d-%d/%d" % (START, L - 1, L),
        ):
            self.refused(partial(content_range=content_range, length=None), wrong=True)

    def test_a_length_that_contradicts_its_content_range_is_wrong(self) -> None:
        self.refused(partial(length=L - START - 1), wrong=True)
        self.refused(partial(length=L), wrong=True)

    def test_another_complete_length_is_wrong_where_if_range_said_that_it_is_the_same(self) -> None:
        for length in (L - 1, L + 1):
            content_range = b"bytes %d-%d/%d" % (START, length - 1, length)
            self.refused(partial(content_range=content_range, length=None), wrong=True)
            self.refused(partial(BY_DIGEST, content_range=content_range, length=None), wrong=False)

    def test_an_unknown_complete_length_or_a_part_of_the_rest_is_of_no_use(self) -> None:
        self.refused(partial(content_range=b"bytes %d-%d/*" % (START, L - 1)), wrong=False)
        self.refused(partial(content_range=b"bytes %d-%d/%d" % (START, L - 2, L), length=None), wrong=False)

    def test_several_parts_are_wrong(self) -> None:
        self.refused(partial(content_type=b"multipart/byteranges; boundary=x"), wrong=True)
        self.refused(partial(content_type=b"Multipart/ByteRanges"), wrong=True)

    def test_another_entity_tag_or_none_is_wrong(self) -> None:
        for etag in (b'"two"', b'W/"one"', b""):
            self.refused(partial(etag=etag), wrong=True)

    def test_another_coding_is_refused(self) -> None:
        self.refused(partial(content_encoding=b"gzip"), wrong=False)
        self.refused(partial(evolve(BY_TAG, coding=b"gzip")), wrong=False)
        self.assertEqual(Rest(START, L), partial(content_encoding=b"identity"))
        self.assertEqual(Rest(START, L), partial(evolve(BY_TAG, coding=b"gzip"), content_encoding=b"gzip"))

    def test_what_came_in_chunks_learns_its_length(self) -> None:
        self.assertEqual(Rest(START, L), partial(CHUNKED))
        short = b"bytes %d-%d/%d" % (START, N - 2, N - 1)
        self.refused(partial(CHUNKED, content_range=short, length=None), wrong=True)
        self.refused(partial(CHUNKED, content_range=b"bytes %d-%d/*" % (START, L - 1)), wrong=False)

    def test_other_statuses_are_of_no_use(self) -> None:
        for status in (204, 301, 304, 404, 412, 416, 500, 503):
            self.refused(on_answer(BY_TAG, N, head(status, etag=b'"one"'), L, delimited_by_close=False), wrong=False)


class Rule5Tests(SynchronousTestCase):
    """A 200 with the same validator and length is the whole once more."""

    def test_the_same_is_taken(self) -> None:
        self.assertEqual(Rest(0, L), whole())

    def test_another_is_refused_and_no_failure(self) -> None:
        for verdict in (
            whole(etag=b'"two"'),
            whole(etag=b'W/"one"'),
            whole(etag=b""),
            whole(length=L - 1),
            whole(length=None),
            whole(content_encoding=b"gzip"),
            whole(length=None, close=True),
            whole(CHUNKED, length=None, close=True),
            whole(CHUNKED, length=N - 1),
        ):
            self.assertIsInstance(verdict, NotTheRest)
            assert isinstance(verdict, NotTheRest)
            self.assertFalse(verdict.wrong, verdict.detail)

    def test_what_came_in_chunks_may_come_so_again_or_tell_its_length(self) -> None:
        self.assertEqual(Rest(0, None), whole(CHUNKED, length=None))
        self.assertEqual(Rest(0, L), whole(CHUNKED))


class Rule6Tests(SynchronousTestCase):
    """Named by a digest: no If-Range, and the digest decides."""

    def test_no_if_range_is_sent(self) -> None:
        self.assertEqual([(b"range", b"bytes=%d-" % START)], rest_of(GET, BY_DIGEST, N).fields)

    def test_the_entity_tag_does_not_matter(self) -> None:
        for etag in (b'"two"', b'W/"one"', b""):
            self.assertEqual(Rest(START, L), partial(BY_DIGEST, etag=etag))
            self.assertEqual(Rest(0, L), whole(BY_DIGEST, etag=etag))

    def test_the_same_or_no_digest_is_taken_another_is_not(self) -> None:
        self.assertEqual(Rest(START, L), partial(BY_DIGEST, repr_digest=REPR))
        for verdict in (partial(BY_DIGEST, repr_digest=OTHER_REPR), whole(BY_DIGEST, repr_digest=OTHER_REPR)):
            self.assertEqual(NotTheRest("another digest", wrong=False), verdict)

    def test_without_a_length_the_entity_tag_is_still_needed(self) -> None:
        chunked = evolve(BY_DIGEST, length=None)
        self.assertIn((b"if-range", b'"one"'), rest_of(GET, chunked, N).fields)
        self.assertIsInstance(partial(chunked, etag=b'"two"'), NotTheRest)


class CombinedHeadTests(SynchronousTestCase):
    """RFC 9111 §3.4: what is said of a whole whose rest came with a later try"""

    FIRST = head(200, age=b"3", date=b"then", etag=b'"one"', cache_control=b"max-age=1", content_length=b"9", x_a=b"a")

    def combined(self, status: int, **fields: bytes) -> dict[bytes, bytes]:
        found = combined_head(self.FIRST, head(status, **fields))
        self.assertEqual(200, found.status)
        self.assertEqual(len(found.fields), len(dict(found.fields)))
        return {name: value for name, value in found.fields if value != dict(self.FIRST.fields).get(name)}

    def test_what_the_rest_says_is_so_now_and_what_it_does_not_say_stays(self) -> None:
        now = {b"date": b"now", b"cache-control": b"max-age=2", b"x-b": b"b"}
        self.assertEqual(now, self.combined(206, date=b"now", cache_control=b"max-age=2", x_b=b"b"))
        fields = dict(combined_head(self.FIRST, head(206)).fields)
        expected = {b"etag": b'"one"', b"cache-control": b"max-age=1", b"content-length": b"9", b"x-a": b"a"}
        self.assertEqual(expected, fields)

    def test_what_is_about_the_part_alone_is_not_taken(self) -> None:
        rest = {"content_range": b"bytes 4-8/9", "content_length": b"5", "content_digest": b"of it", "etag": b'"two"'}
        self.assertEqual({b"age": b"1"}, self.combined(206, age=b"1", **rest))

    def test_a_whole_says_all_itself(self) -> None:
        whole = head(200, etag=b'"one"', x_b=b"b")
        self.assertIs(whole, combined_head(self.FIRST, whole))


class AnyAnswerTests(SynchronousTestCase):
    """Properties: whatever a server says, what is taken fits."""

    @given(
        start=st.sampled_from([START, 0, START - 1, N]),
        stop=st.sampled_from([L, L - 1, L + 1, 0]),
        complete=st.sampled_from([L, L - 1, L + 1]),
        length=st.sampled_from([None, L, L - START, L - START - 1]),
        etag=st.sampled_from([b'"one"', b'"two"', b""]),
        status=st.sampled_from([200, 206]),
        base=st.sampled_from([BY_TAG, BY_DIGEST, CHUNKED]),
    )
    def test_a_rest_begins_no_later_than_the_break_and_ends_at_the_end(
        self, start: int, stop: int, complete: int, length: int | None, etag: bytes, status: int, base: Known
    ) -> None:
        fields = {"content_range": b"bytes %d-%d/%d" % (start, stop - 1, complete)}
        if etag:
            fields["etag"] = etag
        verdict = on_answer(base, N, head(status, **fields), length, delimited_by_close=False)
        if isinstance(verdict, Rest):
            self.assertIn(verdict.start, (0, START))
            self.assertIn(verdict.length, (base.length, complete, length))
            self.assertTrue(base.length in (None, verdict.length))
            self.assertTrue(etag == b'"one"' or base.by_digest)
            if status == 206:
                self.assertEqual((START, verdict.length), (start, stop))
