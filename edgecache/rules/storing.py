"""What becomes of a response: stored, served stale, passed on (RFC 9111 §3)."""

from __future__ import annotations

from attrs import evolve

from edgecache.rules import fallback as fallbacks
from edgecache.rules.asking import Asked
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Again, Forward, OnResponse, Pass, ServeStale, Store
from edgecache.rules.directives import ResponseDirectives, response_directives
from edgecache.rules.fields import hop_by_hop, parsed, serialised
from edgecache.rules.freshness import ALWAYS_VALIDATE, HEURISTICALLY_CACHEABLE, Freshness, freshness_of
from edgecache.rules.lookups import Told
from edgecache.rules.pages import is_list, is_page
from edgecache.rules.recording import (
    WITHOUT_CONTENT,
    as_told,
    record_flags,
    record_selectors,
    status_line,
    stored_head,
    tags_of_response,
    via_value,
)
from edgecache.rules.reusing import RETRY_AFTER, stale_reuse
from edgecache.rules.selectors import MAX_TAGS
from edgecache.rules.tags import TAG_FIELDS
from edgecache.rules.validating import freshened, supersedes, updated_by_head
from edgecache.rules.varying import nominated, variant_hash, variant_of
from edgecache.words.messages import Head
from edgecache.words.stored import Flag, Stored

SERVER_ERRORS = frozenset((500, 502, 503, 504))
"""Answers that are as good as none where something is stored (RFC 9111 §4.3.3, RFC 5861 §4)."""

NEVER_STORED = frozenset((206, 304, 428, 429, 431, 511))
"""Parts, answers to a condition, and what is about one request or one network only (RFC 6585 §3 to §6)."""

UNDERSTOOD = frozenset((200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 409, 410))
"""Statuses whose caching requirements are implemented (RFC 9111 §5.2.2.3)."""

INDEX_STATUSES = frozenset((200, 301, 308, 404, 410))
"""All that is stored of an index (DESIGN 12)."""


def on_response(
    asked: Asked,
    forward: Forward,
    head: Head,
    *,
    length: int | None,
    delimited_by_close: bool,
    requested_at: float,
    responded_at: float,
    floor: int,
    fallback: bool = False,
    told: Told | None = None,
    copied: bool = False,
) -> OnResponse:
    """
    What becomes of an upstream's final response?

    An error of the origin never takes the place of a good stored response, and the answer of a fallback never
    that of a better origin's: they are served stale, or if that is forbidden, the answer is passed on.

    :param length: the Content-Length that the head announced, for HEAD and 304 too; ``None`` without one.
    :param delimited_by_close: the end of the content is the end of the connection.
    :param requested_at: wall time just before the request was sent.
    :param responded_at: wall time when the head had come.
    :param floor: the epoch taken before the upstream was contacted.
    :param fallback: it comes from an origin that only stands in for a better one.
    :param told: by the sibling whose response it is; ``None``: it is an origin's.
    :param copied: that sibling was asked because no origin answers.
    """
    stored = forward.stored
    kept = stored is not None and fallback and fallbacks.is_better(stored)
    reading = asked.method in (b"GET", b"HEAD")
    if reading and head.status in SERVER_ERRORS:
        reuse = stale_reuse(forward, responded_at)
        if reuse is not None:
            return ServeStale(reuse, f"origin answered {head.status}", head.status)
    if reading and kept:
        reuse = stale_reuse(forward, responded_at)
        if reuse is not None:
            return ServeStale(reuse, fallbacks.ANSWERED)
    if asked.head_only:
        update = None
        if stored is not None and not fallback and not stored.flags & Flag.FALLBACK:
            update = updated_by_head(asked, stored, head, length, requested_at, responded_at, floor)
        return _passed(asked, head, length, responded_at, update=update)
    page = is_page(asked, head.status)
    alone = not asked.joinable or forward.alone
    if alone and not page:
        return _passed(asked, head, length, responded_at)
    if head.status == 304 and stored is not None:
        return freshened(asked, forward, stored, head, requested_at, responded_at, floor, fallback, told)
    directives = response_directives(head)
    freshness = freshness_of(
        asked.site, asked.file, head, directives, requested_at, responded_at, listing=is_list(asked)
    )
    unknown = told is not None and told.selectors is None
    if told is not None and stored is not None and not forward.no_cache and freshness.date <= stored.date:
        # Of several the most recent is to be used (RFC 9111 §4), and whether that is still so only an origin knows. Of
        # the same second neither is. After a purge it is the sibling's, which covers that, whatever their dates say.
        if not copied:
            return Again(evolve(forward, at_origin=True))
        reuse = stale_reuse(forward, responded_at)
        if reuse is not None:
            return ServeStale(reuse, "a sibling has only an older one")
    if told is not None:
        freshness = as_told(freshness, told, responded_at)
    names = nominated(head)
    tags = tags_of_response(asked, head)
    seconds = asked.site.settings.fallback_seconds
    worse = kept or (stored is not None and head.status >= 500 and fallbacks.is_good(stored))
    # Cut short, it would look just the same (DESIGN 8); whether a page is whole, its content tells.
    unsure = delimited_by_close and length is None and not page
    if page:
        length = None
    if (
        worse
        or alone
        or unsure
        or unknown
        or names is None
        or len(tags) > MAX_TAGS
        or not storable(asked, head, directives, freshness)
    ):
        # An error that is about one request says nothing about others; nor does an answer to one's credentials.
        general = supersedes(head.status)
        remember = general and not fallback
        superseded = None if stored is None or worse or not general or asked.authorized else _never_stale(stored)
        if fallback:
            until = min(freshness.fresh_until, responded_at + seconds)
            head = evolve(head, fields=fallbacks.capped(head.fields, max(0, int(until - freshness.generated_at))))
        passed = _passed(asked, head, length, responded_at, remember=remember and not alone, update=superseded)
        if page:
            record = record_of(asked, head, freshness, -1, floor, responded_at, asked.selectors, b"")
            passed.page = evolve(record, head=_unstored(record.head))
        return passed
    if asked.site.index:
        # All that reaches an index is in the key already.
        names = ()
    variant = variant_of(asked, names)
    size = 0 if head.status in WITHOUT_CONTENT else -1 if length is None else length
    own = record_of(asked, head, freshness, size, floor, responded_at, record_selectors(asked, tags, told), variant)
    others = own
    if directives.withheld and not page:
        others = evolve(own, head=stored_head(asked, head, size, own.date, directives.withheld))
    if fallback:
        shared = others is own
        own = fallbacks.limited(own, responded_at, seconds)
        others = own if shared else fallbacks.limited(others, responded_at, seconds)
    return Store(others, variant_hash(asked.key_hash, variant), names or None, own)


def record_of(
    asked: Asked,
    head: Head,
    freshness: Freshness,
    size: int,
    floor: int,
    responded_at: float,
    selectors: tuple[int, ...],
    variant: bytes,
) -> Stored:
    """
    :param size: octets of the content, -1 while they are unknown.
    :return: the record of a response that may be stored.
    """
    return Stored(
        site=asked.site.id,
        key=asked.key,
        status=head.status,
        flags=record_flags(freshness, asked, head, size),
        floor=floor,
        generated_at=freshness.generated_at,
        fresh_until=freshness.fresh_until,
        stale_while_revalidate_until=freshness.stale_while_revalidate_until,
        stale_if_error_until=freshness.stale_if_error_until,
        validated_at=responded_at,
        date=freshness.date,
        last_modified=freshness.last_modified,
        etag=head.get(b"etag") or b"",
        size=size,
        content_id=b"",
        selectors=selectors,
        head=stored_head(asked, head, size, freshness.date, frozenset()),
        variant=variant,
    )


def _unstored(head: bytes) -> bytes:
    """The head of a page that we may not keep: others had better not either."""
    line, _, _ = head.partition(b"\r\n")
    fields = [(name, b"no-store" if name == b"cache-control" else value) for name, value in parsed(head)]
    return line + b"\r\n" + serialised(fields)


def storable(asked: Asked, head: Head, directives: ResponseDirectives, freshness: Freshness) -> bool:
    """May it be stored in a shared cache (RFC 9111 §3), and is there anything to gain?"""
    status = head.status
    if status in NEVER_STORED:
        return False
    if asked.site.index and status not in INDEX_STATUSES:
        return False
    if directives.must_understand:
        if status not in UNDERSTOOD:
            return False
    elif directives.no_store:
        return False
    if (directives.private and not asked.site.one_user) or _own(asked, directives):
        return False
    explicit = (
        directives.public or directives.lifetime is not None or (not directives.targeted and b"expires" in head.by_name)
    )
    if not explicit and status not in HEURISTICALLY_CACHEABLE:
        return False
    return _worth_storing(head, freshness)


def _own(asked: Asked, directives: ResponseDirectives) -> bool:
    """
    Does something of the request alone forbid to store the answer? (What an index is asked has nothing of the client:
    its no-store would keep nobody's secret, only others from the page.)
    """
    return (asked.directives.no_store and not asked.site.index) or (asked.authorized and not directives.for_all)


def _worth_storing(head: Head, freshness: Freshness) -> bool:
    """What is stale at once and cannot be validated would never be used."""
    reusable = freshness.lifetime > 0 and not freshness.flags & ALWAYS_VALIDATE
    validator = head.get(b"etag") is not None or freshness.last_modified is not None
    return reusable or validator or freshness.stale_while_revalidate_until > freshness.fresh_until


def _never_stale(stored: Stored) -> Stored:
    """:return: ``stored`` as good for validation only: its resource has another answer, which we may not store."""
    return evolve(stored, flags=int(stored.flags | Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE))


def _passed(
    asked: Asked,
    head: Head,
    length: int | None,
    responded_at: float,
    *,
    remember: bool = False,
    update: Stored | None = None,
) -> Pass:
    dropped = hop_by_hop(head) | TAG_FIELDS | {b"via", b"content-length"}
    if asked.site.index:
        dropped |= {b"set-cookie", b"set-cookie2"}
    fields = [line for line in head.fields if line[0] not in dropped]
    if b"date" not in head.by_name:
        fields.append((b"date", format_date(responded_at)))
    fields.append((b"via", via_value(head, asked.site.via)))
    if asked.site.index and head.status == 504:
        # Installers try again after 503, and never after 504 (FIELD 3).
        head = Head(503, b"Service Unavailable", fields)
        fields = [line for line in fields if line[0] != b"retry-after"] + [RETRY_AFTER]
    octets = status_line(head) + serialised(fields)
    if length is not None and head.status != 204:
        octets += b"content-length: %d\r\n" % length
    update_hash = b"" if update is None else variant_hash(asked.key_hash, update.variant)
    return Pass(octets, remember, update, update_hash)
