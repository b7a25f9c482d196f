"""Repr-Digest (RFC 9530), and how much of a content may be shown before its digest is right."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.digests import HELD_BACK, WITHHELD, Digest, repr_digest, repr_digests, showable
from edgecache.words.messages import Head


def member(algorithm: str, value: bytes) -> bytes:
    return algorithm.encode() + b"=:" + base64.b64encode(value) + b":"


SHA_256 = hashlib.sha256(b"abc").digest()
SHA_512 = hashlib.sha512(b"abc").digest()


class ReprDigestTests(SynchronousTestCase):
    """RFC 9530 §3, §5"""

    def digests(self, *values: bytes) -> tuple[Digest, ...]:
        return repr_digests(Head(200, b"", [(b"repr-digest", value) for value in values]))

    def test_sha_256_and_sha_512_are_known(self) -> None:
        self.assertEqual((Digest("sha-256", SHA_256),), self.digests(member("sha-256", SHA_256)))
        self.assertEqual((Digest("sha-512", SHA_512),), self.digests(member("sha-512", SHA_512)))

    def test_the_first_to_be_checked_is_the_same_whatever_the_order(self) -> None:
        one, two = member("sha-256", SHA_256), member("sha-512", SHA_512)
        expected = (Digest("sha-256", SHA_256), Digest("sha-512", SHA_512))
        for values in ((one + b", " + two,), (two + b", " + one,), (two, one)):
            self.assertEqual(expected, self.digests(*values))
            self.assertEqual(expected[0], repr_digest(Head(200, b"", [(b"repr-digest", value) for value in values])))

    def test_parameters_and_other_algorithms_are_ignored(self) -> None:
        value = b"md5=:AAAA:, unixsum=30637, " + member("sha-256", SHA_256) + b";a=1"
        self.assertEqual((Digest("sha-256", SHA_256),), self.digests(value))

    def test_what_is_no_digest_is_ignored(self) -> None:
        for value in (
            b"",
            b"sha-256",
            b"sha-256=abc",
            b'sha-256="abc"',
            b"sha-256=:!!:",
            b"sha-256=(:AAAA:)",
            member("sha-256", SHA_256[:-1]),
            member("sha-256", SHA_512),
            member("SHA-256", SHA_256),
            member("sha-256", SHA_256) + b", =",
        ):
            self.assertEqual((), self.digests(value), value)
        self.assertIsNone(repr_digest(Head(200, b"", [(b"content-digest", member("sha-256", SHA_256))])))

    def test_content_is_right_or_wrong_however_it_comes(self) -> None:
        for digest in (Digest("sha-256", SHA_256), Digest("sha-512", SHA_512)):
            for pieces, right in (((b"abc",), True), ((b"a", b"bc"), True), ((b"ab",), False), ((b"abcd",), False)):
                check = digest.check()
                for piece in pieces:
                    check.update(piece)
                self.assertEqual(right, check.right)

    def test_only_a_digest_of_the_same_algorithm_can_contradict(self) -> None:
        digest = Digest("sha-256", SHA_256)
        self.assertFalse(digest.contradicts(()))
        self.assertFalse(digest.contradicts((digest, Digest("sha-512", b"x" * 64))))
        self.assertTrue(digest.contradicts((Digest("sha-512", SHA_512), Digest("sha-256", b"x" * 32))))


class Rule7Tests(SynchronousTestCase):
    """FIELD 1, rule 7"""

    def test_up_to_1_mib_nothing_is_shown_before_the_end(self) -> None:
        self.assertEqual(1 << 20, WITHHELD)
        for come in (0, 1, WITHHELD - 1, WITHHELD):
            self.assertEqual(0, showable(WITHHELD, come))
            self.assertEqual(0, showable(None, come))

    def test_of_more_the_last_64_kib_are_held_back(self) -> None:
        self.assertEqual(64 << 10, HELD_BACK)
        length = WITHHELD + 1
        self.assertEqual(1, showable(length, 1))
        self.assertEqual(length - HELD_BACK, showable(length, length - HELD_BACK + 1))
        self.assertEqual(length - HELD_BACK, showable(length, length))
        self.assertEqual(length - HELD_BACK, showable(None, length))

    @given(length=st.none() | st.integers(0, 4 << 20), come=st.integers(0, 4 << 20), more=st.integers(0, 1 << 20))
    def test_what_was_shown_stays_shown_and_is_never_all(self, length: int | None, come: int, more: int) -> None:
        if length is not None:
            come, more = min(come, length), min(more, max(0, length - come))
        shown = showable(length, come)
        self.assertTrue(0 <= shown <= come)
        self.assertGreaterEqual(showable(length, come + more), shown)
        if length:
            self.assertLess(shown, length)
