"""
How a content that broke off goes on elsewhere, or with the next try (RFC 9110 §13.1.5, §14, §15.3.7; FIELD 1).

Two ways to know that both parts are of one representation: the strong entity tag, demanded by If-Range; or the
digest of the whole, which is checked at the end, so that servers whose entity tags differ can help out.
"""

from __future__ import annotations

from attrs import evolve, frozen

from edgecache.rules.digests import Check, Digest, repr_digests
from edgecache.rules.fields import is_strong
from edgecache.rules.spans import span_of
from edgecache.words.messages import Head, Outbound, without

OVERLAP = 4096
"""Octets before the break that are asked for again and compared."""

_CONDITIONS = frozenset(
    (b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")
)
# What a part says of itself, or leaves out: the first response has said it of the whole.
_OF_THE_PART = frozenset(
    (
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"etag",
        b"transfer-encoding",
    )
)


@frozen
class Known:
    """
    What the rest of a content must agree with (rule 1).

    :ivar length: complete length in octets; ``None`` where it came in chunks: then an answer must tell it.
    :ivar coding: Content-Encoding in lower case, ``b""`` without any.
    :ivar etag: strong entity tag, ``b""`` without one.
    :ivar digest: what the whole will be checked against, ``None``: nothing.
    """

    length: int | None
    coding: bytes
    etag: bytes
    digest: Digest | None

    @property
    def by_digest(self) -> bool:
        """Does the digest decide, whatever the entity tag (rule 6)? Only where the length is known to agree."""
        return self.digest is not None and self.length is not None


@frozen(eq=False, repr=False)
class Broken:
    """
    A content that broke off for good: what its next try goes on with (rule 8).

    :ivar head: of the response that it began with.
    :ivar received: octets that came of it.
    :ivar tail: the last of these, no fewer than :func:`overlap` says.
    :ivar check: it has had all of these; ``None`` without a digest.
    """

    known: Known
    head: Head
    received: int
    tail: bytes
    check: Check | None


@frozen
class Rest:
    """
    It is the rest, or all of it once more.

    :ivar start: position of its first octet in the content.
    :ivar length: complete length; ``None`` where it is still unknown.
    """

    start: int
    length: int | None


@frozen
class NotTheRest:
    """
    Of no use here.

    :ivar wrong: it is not what a server that says so may send, which counts against its address. Having another
        representation is no failure.
    """

    detail: str
    wrong: bool


def known_of(
    outbound: Outbound, head: Head, length: int | None, *, delimited_by_close: bool, digest: Digest | None
) -> Known | None:
    """
    :param outbound: the request that ``head`` answers.
    :param length: the Content-Length of the response.
    :param digest: of the whole content, whoever said so.
    :return: ``None`` if a rest of it can never be told for one (rule 1).
    """
    if outbound.method != b"GET" or outbound.content is not None or head.status != 200 or delimited_by_close:
        return None
    etag = head.get(b"etag") or b""
    if not is_strong(etag):
        etag = b""
    if not etag and (digest is None or length is None):
        return None
    return Known(length, _coding(head), etag, digest)


def overlap(received: int) -> int:
    """:return: how many of ``received`` octets are asked for once more (rule 3)."""
    return min(received, OVERLAP)


def rest_of(outbound: Outbound, known: Known, received: int) -> Outbound:
    """
    :param outbound: what was asked first. Its fields go along, those that Vary names among them, its own
        conditions and range do not.
    :return: a request for what is missing after ``received`` octets (rules 3 and 6).
    """
    fields = without(outbound.fields, _CONDITIONS)
    fields.append((b"range", b"bytes=%d-" % (received - overlap(received))))
    if not known.by_digest:
        fields.append((b"if-range", known.etag))
    return evolve(outbound, fields=fields)


def on_answer(
    known: Known, received: int, head: Head, length: int | None, *, delimited_by_close: bool
) -> Rest | NotTheRest:
    """Is this answer to :func:`rest_of` the rest (rules 4 and 5)?"""
    if head.status == 206:
        return _partial(known, received, head, length)
    if head.status == 200:
        return _whole(known, received, head, length, delimited_by_close)
    return NotTheRest(f"answered {head.status}", wrong=False)


def _partial(known: Known, received: int, head: Head, length: int | None) -> Rest | NotTheRest:
    if (head.get(b"content-type") or b"").lower().startswith(b"multipart/byteranges"):
        return NotTheRest("several parts, where one range was asked for", wrong=True)
    span = span_of(head.get(b"content-range"))
    if span is None:
        return NotTheRest("206 without a valid Content-Range", wrong=True)
    start, complete = span.start, span.complete
    if start != received - overlap(received):
        return NotTheRest(f"begins at {start}, not at {received - overlap(received)}", wrong=True)
    if complete is None:
        return NotTheRest("its complete length is unknown", wrong=False)
    if not span.consistent or (length is not None and length != span.octets):
        return NotTheRest("a Content-Range that contradicts itself", wrong=True)
    if complete != known.length if known.length is not None else complete < received:
        # If-Range has found that it is the same: then it cannot be of another length.
        return NotTheRest(f"complete length {complete}, not {known.length}", wrong=not known.by_digest)
    if span.stop != complete:
        return NotTheRest("only a part of the rest", wrong=False)
    if not known.by_digest and head.get(b"etag") != known.etag:
        # RFC 9110 §13.1.5: it had to ignore the range; §15.3.7: it had to say its entity tag.
        return NotTheRest("206 for another entity tag than If-Range has", wrong=True)
    return _same(known, head) or Rest(start, complete)


def _whole(known: Known, received: int, head: Head, length: int | None, delimited_by_close: bool) -> Rest | NotTheRest:
    if delimited_by_close:
        return NotTheRest("200 that only the end of the connection would end", wrong=False)
    if known.length is not None:
        agrees = length == known.length
    else:
        agrees = length is None or length >= received
    if not agrees:
        return NotTheRest(f"200 of length {length}, not {known.length}", wrong=False)
    if not known.by_digest and head.get(b"etag") != known.etag:
        return NotTheRest("200 with another entity tag", wrong=False)
    return _same(known, head) or Rest(0, length)


def _same(known: Known, head: Head) -> NotTheRest | None:
    """What both kinds of answers must agree in."""
    if _coding(head) != known.coding:
        # A 206 may leave the field out (RFC 9110 §15.3.7), but so do servers that tag all codings alike.
        return NotTheRest("another content coding", wrong=False)
    if known.digest is not None and known.digest.contradicts(repr_digests(head)):
        return NotTheRest("another digest", wrong=False)
    return None


def combined_head(first: Head, answer: Head) -> Head:
    """
    :param first: of the 200 that broke off, some time ago.
    :param answer: with which the rest comes, or all of it once more.
    :return: what is to be said of the whole now (RFC 9111 §3.4): age, lifetime and all else that has changed
        are those of ``answer``.
    """
    if answer.status == 200:
        return answer
    newer = without(answer.fields, _OF_THE_PART)
    replaced = frozenset(name for name, _ in newer) | {b"age", b"date"}
    return Head(first.status, first.reason, without(first.fields, replaced) + newer)


def _coding(head: Head) -> bytes:
    coding = (head.get(b"content-encoding") or b"").strip().lower()
    return b"" if coding == b"identity" else coding
