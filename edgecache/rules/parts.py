"""
Partial content that is stored: the beginning or the ending of a content (RFC 9111 §3.3, §3.4).

A part is a 206 under a hash of its own, so that nobody who looks for the whole ever finds it. A range within it is
answered by it, while it is fresh; a beginning is completed by asking for the rest.
"""

# Note [nothing unverified twice]
#
# Of a content with a digest no part answers anybody: its octets are known to be right only once all have come, and an
# upstream that lies shall not be believed for longer than it is asked. Its beginning is completed, and then checked.

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Part, Store
from edgecache.rules.digests import SHA256, Digest, repr_digest
from edgecache.rules.directives import response_directives
from edgecache.rules.fields import is_strong, parsed
from edgecache.rules.freshness import freshness_of
from edgecache.rules.partrecords import as_part, part_hash, place_of
from edgecache.rules.recording import record_selectors, tags_of_response
from edgecache.rules.resuming import OVERLAP
from edgecache.rules.selectors import MAX_TAGS
from edgecache.rules.spans import Span, span_of
from edgecache.rules.storing import record_of, storable
from edgecache.rules.varying import nominated, variant_hash, variant_of
from edgecache.words.messages import Head, without
from edgecache.words.stored import Flag, Stored

ASIDE_OCTETS = 8 << 20
"""A part that somebody asks for is stored as it passes if it has no more; larger ones are parts of nobody's routine."""


# What a 206 says of its own octets (RFC 9530 §2): neither what lies within it nor the whole has the same.
_OF_THE_PART = (b"content-range", b"content-length", b"content-digest", b"content-md5")


def may_answer(asked: Asked, forward: Forward) -> bool:
    """May a part answer ``asked``, which nothing whole does?"""
    if asked.range is None or asked.sibling is not None:
        return False
    return forward.stored is None and not (forward.at_origin or forward.no_cache)


def answers(span: Span, part: Part) -> bool:
    """Are all octets of ``part`` among those?"""
    return span.start <= part.start and part.stop <= span.stop


def is_same(whole: Stored, other: Stored) -> bool:
    """Are both of one representation, as far as anybody has said (RFC 9110 §8.8.1)?"""
    if whole.size != other.size:
        return False
    digest = digest_of(whole)
    return (is_strong(whole.etag) and whole.etag == other.etag) or (digest is not None and digest == digest_of(other))


# The beginning of what broke off, or was not wanted any longer


def beginning_of(plan: Store, octets: int) -> Stored | None:
    """
    :param plan: how the whole was to be stored.
    :param octets: that came of it.
    :return: the record of these; ``None`` if nothing would ever go on with them.
    """
    stored = plan.stored
    validated = stored.digest or is_strong(stored.etag) or b"\nrepr-digest: " in stored.head
    if stored.status != 200 or not validated or not OVERLAP < octets < stored.size:
        return None
    return as_part(stored, Span(0, octets, stored.size))


def first_head(whole: Stored) -> Head:
    """:return: of the response that a stored beginning came with, as far as it is known still."""
    # Via has this node in it already, and is the newer response's anyway.
    return Head(200, b"OK", without(parsed(whole.head), (b"via", b"content-length", b"accept-ranges")))


def digest_of(whole: Stored) -> Digest | None:
    """:return: what the whole content has to hash to, if anybody has said so."""
    return Digest(SHA256, whole.digest) if whole.digest else repr_digest(first_head(whole))


def plan_of(asked: Asked, whole: Stored) -> Store:
    """:return: how the whole is to be stored, when its beginning is gone on with for ``asked``."""
    names = tuple(line.partition(b":")[0] for line in whole.variant.split(b"\n")) if whole.variant else ()
    return Store(whole, variant_hash(asked.key_hash, whole.variant), names or None, whole)


# What somebody asked for


def passing_part(
    asked: Asked,
    head: Head,
    length: int | None,
    requested_at: float,
    responded_at: float,
    floor: int,
) -> Store | None:
    """
    May a 206 that passes through be stored, for others who ask for a range within it?

    :param head: of an origin's answer to a client who had asked for a range.
    :return: how, under the hash of its place; ``None``: it may not, or would be of no use.
    """
    span = span_of(head.get(b"content-range"))
    place = None if span is None else place_of(span)
    if span is None or place is None or length != span.octets or span.octets > ASIDE_OCTETS:
        return None
    if (head.get(b"content-type") or b"").lower().startswith(b"multipart/byteranges"):
        return None
    if head.status != 206 or asked.method != b"GET" or asked.range is None or asked.site.index:
        return None
    # As if it were the whole: of that the rules speak.
    whole = Head(200, b"OK", without(head.fields, _OF_THE_PART))
    directives = response_directives(whole)
    freshness = freshness_of(asked.site, asked.file, whole, directives, requested_at, responded_at)
    names, tags = nominated(whole), tags_of_response(asked, whole)
    if (
        names is None
        or len(tags) > MAX_TAGS
        or directives.withheld
        or not storable(asked, whole, directives, freshness)
    ):
        return None
    # See Note [nothing unverified twice]. What is stale is of no use: nobody asks whether a part is still so.
    if repr_digest(whole) is not None or freshness.lifetime <= 0 or freshness.flags & Flag.ALWAYS_VALIDATE:
        return None
    variant = variant_of(asked, names)
    size = span.complete
    assert size is not None
    record = record_of(asked, whole, freshness, size, floor, responded_at, record_selectors(asked, tags, None), variant)
    part = as_part(record, span)
    return Store(part, part_hash(variant_hash(asked.key_hash, variant), place), names or None, part)
