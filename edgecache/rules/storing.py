"""What becomes of a response: stored, freshened, passed on (RFC 9111 §3, §4.3)."""

from __future__ import annotations

from attrs import evolve

from edgecache.rules import fallback as fallbacks
from edgecache.rules.asking import Asked
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Again, Forward, Freshen, OnResponse, Pass, ServeStale, Store
from edgecache.rules.directives import ResponseDirectives, response_directives
from edgecache.rules.fields import named_by_connection, opaque_tag, parsed, serialised
from edgecache.rules.freshness import HEURISTICALLY_CACHEABLE, Freshness, date_of, freshness_of
from edgecache.rules.lookups import Told
from edgecache.rules.reusing import RETRY_AFTER, stale_reuse
from edgecache.rules.selectors import MAX_TAGS, tag_selector
from edgecache.rules.tags import TAG_FIELDS, has_tags, tags_of, tags_of_path
from edgecache.rules.varying import nominated, variant_hash, variant_of
from edgecache.words.messages import Fields, Head, combined, field_values
from edgecache.words.stored import Flag, Stored

SERVER_ERRORS = frozenset((500, 502, 503, 504))
"""Answers that are as good as none where something is stored (RFC 9111 §4.3.3, RFC 5861 §4)."""

NEVER_STORED = frozenset((206, 304, 428, 429, 431, 511))
"""Parts, answers to a condition, and what is about one request or one network only (RFC 6585 §3 to §6)."""

UNDERSTOOD = frozenset((200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 406, 409, 410))
"""Statuses whose caching requirements are implemented (RFC 9111 §5.2.2.3)."""

INDEX_STATUSES = frozenset((200, 301, 308, 404, 410))
"""All that is stored of an index (DESIGN 12)."""

WITHOUT_CONTENT = frozenset((204, 304))


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
    if asked.head:
        update = None
        if stored is not None and not fallback and not stored.flags & Flag.FALLBACK:
            update = updated_by_head(asked, stored, head, length, requested_at, responded_at, floor)
        return _passed(asked, head, length, responded_at, update=update)
    if not asked.joinable or forward.alone:
        return _passed(asked, head, length, responded_at)
    if head.status == 304 and stored is not None:
        return _freshened(asked, forward, stored, head, requested_at, responded_at, floor, fallback, told)
    directives = response_directives(head.fields)
    freshness = freshness_of(asked.site, asked.file, head, directives, requested_at, responded_at)
    unknown = told is not None and told.selectors is None
    if told is not None:
        freshness = _as_told(freshness, told, responded_at)
    names = nominated(head)
    tags = _tags(asked, head)
    seconds = asked.site.settings.fallback_seconds
    worse = kept or (stored is not None and head.status >= 500 and fallbacks.is_good(stored))
    # Cut short, it would look just the same (DESIGN 8).
    unsure = delimited_by_close and length is None
    if (
        worse
        or unsure
        or unknown
        or names is None
        or len(tags) > MAX_TAGS
        or not storable(asked, head, directives, freshness)
    ):
        remember = head.status < 500 and head.status not in (206, 304) and not fallback
        superseded = None if stored is None or worse or not _supersedes(head.status) else _never_stale(stored)
        if fallback:
            until = min(freshness.fresh_until, responded_at + seconds)
            head = evolve(head, fields=fallbacks.capped(head.fields, max(0, int(until - freshness.generated_at))))
        return _passed(asked, head, length, responded_at, remember=remember, update=superseded)
    if asked.site.index:
        # All that reaches an index is in the key already.
        names = ()
    variant = variant_of(asked, names)
    size = 0 if head.status in WITHOUT_CONTENT else -1 if length is None else length
    own = Stored(
        site=asked.site.id,
        key=asked.key,
        status=head.status,
        flags=_flags(freshness, asked, head, length),
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
        selectors=_selectors(asked, tags, told),
        head=_stored_head(asked, head, size, responded_at, frozenset()),
        variant=variant,
    )
    others = own
    if directives.withheld:
        others = evolve(own, head=_stored_head(asked, head, size, responded_at, directives.withheld))
    if fallback:
        shared = others is own
        own = fallbacks.limited(own, responded_at, seconds)
        others = own if shared else fallbacks.limited(others, responded_at, seconds)
    return Store(others, variant_hash(asked.key_hash, variant), names or None, own)


def _as_told(freshness: Freshness, told: Told, responded_at: float) -> Freshness:
    """A page's lifetime counts from when we got it, and a fallback's is shorter: at the sibling it began earlier."""
    until = responded_at + told.fresh_seconds
    if freshness.fresh_until <= until:
        return freshness
    window = freshness.stale_while_revalidate_until - freshness.fresh_until
    return evolve(freshness, fresh_until=until, stale_while_revalidate_until=until + window)


def _selectors(asked: Asked, tags: list[bytes], told: Told | None) -> tuple[int, ...]:
    """A sibling's response has its tags no more, but says by what else it can be named."""
    own = asked.selectors + tuple(tag_selector(asked.site.id, tag) for tag in tags)
    if told is None or not told.selectors:
        return own
    return tuple(dict.fromkeys(own + told.selectors))


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
    if directives.private or asked.directives.no_store:
        return False
    if asked.authorized and not (directives.public or directives.must_revalidate or directives.s_maxage):
        return False
    explicit = (
        directives.public
        or directives.lifetime is not None
        or (not directives.targeted and bool(field_values(head.fields, b"expires")))
    )
    if not explicit and status not in HEURISTICALLY_CACHEABLE:
        return False
    return _worth_storing(head, freshness)


def _worth_storing(head: Head, freshness: Freshness) -> bool:
    """What is stale at once and cannot be validated would never be used."""
    reusable = freshness.lifetime > 0 and not freshness.flags & Flag.ALWAYS_VALIDATE
    validator = head.get(b"etag") is not None or freshness.last_modified is not None
    return reusable or validator or freshness.stale_while_revalidate_until > freshness.fresh_until


def _supersedes(status: int) -> bool:
    """Does it say that what was stored is no longer so? (Others are about the request, or about the origin's state.)"""
    return (200 <= status < 400 and status not in (206, 304)) or status in (404, 410)


def _never_stale(stored: Stored) -> Stored:
    """:return: ``stored`` as good for validation only: its resource has another answer, which we may not store."""
    return evolve(stored, flags=int(stored.flags | Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE))


def _tags(asked: Asked, head: Head) -> list[bytes]:
    implied = tags_of_path(asked.request.target.partition(b"?")[0]) if asked.site.index else []
    return list(dict.fromkeys(implied + tags_of(head.fields)))


def _flags(freshness: Freshness, asked: Asked, head: Head, length: int | None) -> int:
    flags = freshness.flags
    if asked.authorized:
        flags |= Flag.AUTHORIZED
    if length is None and head.status not in WITHOUT_CONTENT:
        flags |= Flag.CHUNKED
    coding = head.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        flags |= Flag.CODED
    return int(flags)


# The head that is stored and sent

_RECOMPUTED = TAG_FIELDS | {b"age", b"date", b"via", b"cache-status", b"content-length", b"accept-ranges"}
_NO_INDEX_PAGE = frozenset((b"cache-control", b"expires", b"pragma"))


def _stored_head(asked: Asked, head: Head, size: int, responded_at: float, withheld: frozenset[bytes]) -> bytes:
    """See :class:`~edgecache.words.stored.Stored`; Content-Length, if the size is known, is the last line."""
    site = asked.site
    dropped = named_by_connection(head.fields) | _RECOMPUTED | withheld
    if site.index:
        dropped |= {b"set-cookie", b"set-cookie2"}
        if not asked.file:
            dropped |= _NO_INDEX_PAGE
    fields: Fields = [line for line in head.fields if line[0] not in dropped]
    fields.append((b"date", format_date(date_of(head, responded_at))))
    fields.append((b"via", _via(head, site.via)))
    if site.index and not asked.file:
        fields.append((b"cache-control", b"max-age=%d" % site.settings.client_max_age_seconds))
    if head.status == 200:
        fields.append((b"accept-ranges", b"bytes"))
    return status_line(head) + serialised(fields) + length_line(head.status, size)


def status_line(head: Head) -> bytes:
    """:return: the status line of HTTP/1.1 that goes downstream."""
    return b"HTTP/1.1 %03d %b\r\n" % (head.status, head.reason)


def length_line(status: int, size: int) -> bytes:
    """:return: the field line, empty where the size is unknown or the status allows none (RFC 9110 §8.6)."""
    return b"" if size < 0 or status in WITHOUT_CONTENT else b"content-length: %d\r\n" % size


def _via(head: Head, ours: bytes) -> bytes:
    before = combined(head.fields, b"via")
    return ours if before is None else before + b", " + ours


def _passed(
    asked: Asked,
    head: Head,
    length: int | None,
    responded_at: float,
    *,
    remember: bool = False,
    update: Stored | None = None,
) -> Pass:
    dropped = named_by_connection(head.fields) | TAG_FIELDS | {b"via", b"content-length"}
    if asked.site.index:
        dropped |= {b"set-cookie", b"set-cookie2"}
    fields = [line for line in head.fields if line[0] not in dropped]
    if not any(name == b"date" for name, _ in fields):
        fields.append((b"date", format_date(responded_at)))
    fields.append((b"via", _via(head, asked.site.via)))
    if asked.site.index and head.status == 504:
        # Installers try again after 503, and never after 504 (FIELD 3).
        head = Head(503, b"Service Unavailable", fields)
        fields = [line for line in fields if line[0] != b"retry-after"] + [RETRY_AFTER]
    octets = status_line(head) + serialised(fields)
    if length is not None and head.status != 204:
        octets += b"content-length: %d\r\n" % length
    update_hash = b"" if update is None else variant_hash(asked.key_hash, update.variant)
    return Pass(octets, remember, update, update_hash)


# Validation

_NOT_UPDATED = frozenset(
    (b"content-encoding", b"content-length", b"content-range", b"content-md5", b"etag", b"vary", b"transfer-encoding")
)
"""What a 304 or a HEAD does not change: it describes the content that is stored (RFC 9111 §3.2)."""


def _freshened(
    asked: Asked,
    forward: Forward,
    stored: Stored,
    head: Head,
    requested_at: float,
    responded_at: float,
    floor: int,
    fallback: bool,
    told: Told | None,
) -> Freshen | Again:
    kept = fallback and fallbacks.is_better(stored)
    # A better origin's 304 may mean only that a date of the fallback's is later than its own.
    foreign = not fallback and stored.flags & Flag.FALLBACK
    if foreign or not _is_about(stored, head):
        return Again(evolve(forward, stored=None, stale_allowed=False, alone=kept))
    seconds = asked.site.settings.fallback_seconds
    if kept:
        # Of a purge since then it knows nothing: the floor stays, and so does all that the better origin said.
        fresh = evolve(stored, fresh_until=responded_at + seconds, stale_while_revalidate_until=responded_at + seconds)
    else:
        fresh = updated(asked, stored, head, requested_at, responded_at, floor, told)
        if fallback:
            fresh = fallbacks.limited(fresh, responded_at, seconds)
    return Freshen(fresh, variant_hash(asked.key_hash, stored.variant))


def _is_about(stored: Stored, head: Head) -> bool:
    """
    Is the 304 about what is stored (RFC 9111 §4.3.4)?

    It answers If-None-Match with one tag. Another tag in it is taken for the origin's mistake, unless it may
    have compared only the dates that were sent along.
    """
    if not stored.etag and stored.last_modified is None:
        return False
    if field_values(head.fields, b"vary") and nominated(head) != nominated(Head(0, b"", parsed(stored.head))):
        return False
    etag = head.get(b"etag")
    if etag is not None and stored.etag and opaque_tag(etag) != opaque_tag(stored.etag):
        return stored.last_modified is None
    return True


def updated(
    asked: Asked,
    stored: Stored,
    head: Head,
    requested_at: float,
    responded_at: float,
    floor: int,
    told: Told | None = None,
) -> Stored:
    """:return: ``stored`` with the fields of a 304, or of a HEAD's 200, and fresh from now on (RFC 9111 §3.2)."""
    # What named_by_connection says of the stored fields was done when they were stored.
    ignored = named_by_connection(head.fields) | _NOT_UPDATED
    fields: Fields = [line for line in head.fields if line[0] not in ignored]
    replaced = frozenset(name for name, _ in fields)
    merged = [line for line in parsed(stored.head) if line[0] not in replaced and line[0] != b"date"] + fields
    if b"date" not in replaced:
        merged.append((b"date", format_date(responded_at)))
    site = asked.site
    page, says = site.index and not asked.file, has_directives(head.fields)
    if page and not says:
        # The stored Cache-Control is ours, for clients: what the origin had said is in the flags.
        merged = [line for line in merged if line[0] not in _NO_INDEX_PAGE]
    whole = Head(stored.status, _reason(stored.head), [line for line in merged if line[0] not in (b"via",)])
    via = combined(head.fields, b"via")
    if via is not None:
        whole.fields.append((b"via", via))
    directives = response_directives(whole.fields)
    freshness = freshness_of(site, asked.file, whole, directives, requested_at, responded_at)
    if told is not None:
        freshness = _as_told(freshness, told, responded_at)
    flags = freshness.flags | (stored.flags & (~_OF_FRESHNESS if says or not page else ~0))
    if (directives.no_store and not directives.must_understand) or directives.private:
        # It is good for this request; but it must not be used again.
        flags |= Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE
    selectors = stored.selectors
    if has_tags(head.fields):
        tags = _tags(asked, head)[:MAX_TAGS]
        selectors = asked.selectors + tuple(tag_selector(site.id, tag) for tag in tags)
    if told is not None and told.selectors is not None:
        selectors = _selectors(asked, [], told)
    return evolve(
        stored,
        flags=int(flags),
        floor=max(floor, stored.floor),
        generated_at=freshness.generated_at,
        fresh_until=freshness.fresh_until,
        stale_while_revalidate_until=freshness.stale_while_revalidate_until,
        stale_if_error_until=freshness.stale_if_error_until,
        validated_at=responded_at,
        date=freshness.date,
        last_modified=freshness.last_modified,
        selectors=selectors,
        head=_stored_head(asked, whole, stored.size, responded_at, directives.withheld),
    )


_OF_FRESHNESS = Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE | Flag.IMMUTABLE | Flag.HEURISTIC


def has_directives(fields: Fields) -> bool:
    """Does it say anything about caching?"""
    return any(name in (b"cache-control", b"cdn-cache-control", b"expires") for name, _ in fields)


def _reason(head: bytes) -> bytes:
    return head[13 : head.index(b"\r\n")]


def updated_by_head(
    asked: Asked,
    stored: Stored,
    head: Head,
    length: int | None,
    requested_at: float,
    responded_at: float,
    floor: int,
) -> Stored | None:
    """
    :return: the stored GET response freshened or made stale by the answer to a HEAD (RFC 9111 §4.3.5); ``None``
        if it says nothing about it.
    """
    if head.status == 304 or head.status >= 500 or nominated(head) is None:
        return None
    if head.status != stored.status or _differs(stored, head, length):
        return evolve(
            stored,
            flags=int(stored.flags | Flag.ALWAYS_VALIDATE),
            fresh_until=min(stored.fresh_until, responded_at),
            stale_while_revalidate_until=min(stored.stale_while_revalidate_until, responded_at),
        )
    # Without a validator the HEAD cannot vouch for the content: a purge since then still counts.
    vouched = floor if head.get(b"etag") or head.get(b"last-modified") else stored.floor
    return updated(asked, stored, head, requested_at, responded_at, vouched)


def _differs(stored: Stored, head: Head, length: int | None) -> bool:
    etag = head.get(b"etag")
    if etag is not None and opaque_tag(etag) != opaque_tag(stored.etag):
        return True
    modified = combined([line for line in parsed(stored.head) if line[0] == b"last-modified"], b"last-modified")
    theirs = head.get(b"last-modified")
    if theirs is not None and theirs != modified:
        return True
    return length is not None and stored.size >= 0 and length != stored.size
