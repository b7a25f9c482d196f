"""What a 304, or the answer to a HEAD, does to the response that is stored (RFC 9111 §4.3.4, §4.3.5)."""

from __future__ import annotations

from attrs import evolve

from edgecache.rules import fallback as fallbacks
from edgecache.rules.asking import Asked
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Again, Forward, Freshen
from edgecache.rules.directives import ResponseDirectives, response_directives
from edgecache.rules.fields import hop_by_hop, opaque_tag, parsed
from edgecache.rules.freshness import freshness_of
from edgecache.rules.lookups import Told
from edgecache.rules.pages import ABOUT_THE_ORIGINS, PAGE, is_list, serial_field, serial_of, with_serial
from edgecache.rules.recording import NO_INDEX_PAGE, as_told, record_selectors, stored_head, tags_of_response
from edgecache.rules.selectors import MAX_TAGS, tag_selector
from edgecache.rules.sites import Site
from edgecache.rules.tags import has_tags
from edgecache.rules.varying import nominated, variant_hash
from edgecache.words.messages import Fields, Head, combined
from edgecache.words.stored import Flag, Stored

_NOT_UPDATED = frozenset(
    (
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-md5",
        b"content-digest",
        b"etag",
        b"vary",
        b"transfer-encoding",
    )
)
"""What a 304 or a HEAD does not change: it describes the content that is stored (RFC 9111 §3.2)."""


def freshened(
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
    if asked.authorized and not _said(stored, head).for_all:
        # It was validated for these credentials, and what comes with that is for whoever has them (RFC 9111 §3.5).
        return Again(evolve(forward, stored=None, stale_allowed=False, alone=True))
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
    page = stored.flags & PAGE
    if head.values(b"vary") and not page and nominated(head) != nominated(Head(0, b"", parsed(stored.head))):
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
    site = asked.site
    # What named_by_connection says of the stored fields was done when they were stored.
    ignored = hop_by_hop(head) | _NOT_UPDATED
    if stored.flags & PAGE:
        ignored |= ABOUT_THE_ORIGINS
    fields: Fields = [line for line in head.fields if line[0] not in ignored]
    if _forbids(response_directives(head), site):
        # What comes with a response for one client alone must not become part of what others are sent.
        fields = [line for line in fields if line[0] in _ABOUT_CACHING or line[0] == b"date"]
    replaced = frozenset(name for name, _ in fields)
    merged = [line for line in parsed(stored.head) if line[0] not in replaced and line[0] != b"date"] + fields
    if b"date" not in replaced:
        merged.append((b"date", format_date(responded_at)))
    page, says = site.index and not asked.file, has_directives(head)
    if page and not says:
        # The stored Cache-Control is ours, for clients: what the origin had said is in the flags.
        merged = [line for line in merged if line[0] not in NO_INDEX_PAGE]
    whole = Head(stored.status, _reason(stored.head), [line for line in merged if line[0] not in (b"via",)])
    via = head.get(b"via")
    if via is not None:
        whole.fields.append((b"via", via))
    directives = response_directives(whole)
    freshness = freshness_of(site, asked.file, whole, directives, requested_at, responded_at, listing=is_list(asked))
    if told is not None:
        freshness = as_told(freshness, told, responded_at)
    flags = freshness.flags | (stored.flags & (~_OF_FRESHNESS if says or not page else ~0))
    tags = tags_of_response(asked, head) if has_tags(head) else []
    lacks_tags = len(tags) > MAX_TAGS if has_tags(head) else _may_lack_tags(asked, stored)
    if _forbids(directives, site) or lacks_tags:
        # It is good for this request; but it must not be used again, nor without what it can be purged by.
        flags |= Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE
    selectors = stored.selectors
    if has_tags(head):
        selectors = asked.selectors + tuple(tag_selector(site.id, tag) for tag in tags[:MAX_TAGS])
    if told is not None and told.selectors is not None:
        selectors = record_selectors(asked, [], told)
    fresh = evolve(
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
        head=stored_head(asked, whole, stored.size, freshness.date, directives.withheld),
    )
    if stored.flags & PAGE:
        # What we have was as new as it says already; the one who vouches for it may be behind.
        serials = [one for one in (serial_of(stored), serial_field(head)) if one is not None]
        fresh = with_serial(fresh, max(serials, default=None), stored.size)
    return fresh


def _may_lack_tags(asked: Asked, stored: Stored) -> bool:
    """Were some of its tags left out, when they were told? It has as many as are kept, and was not to be used again."""
    both = Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE
    return len(stored.selectors) - len(asked.selectors) >= MAX_TAGS and stored.flags & both == both


_OF_FRESHNESS = Flag.ALWAYS_VALIDATE | Flag.NEVER_STALE | Flag.IMMUTABLE | Flag.HEURISTIC


def supersedes(status: int) -> bool:
    """Does it say that what was stored is no longer so? (Others are about the request, or about the origin's state.)"""
    return (200 <= status < 400 and status not in (206, 304)) or status in (404, 410)


def _said(stored: Stored, head: Head) -> ResponseDirectives:
    """:return: what the stored response says with the fields of ``head`` in it."""
    kept = [line for line in parsed(stored.head) if line[0] not in head.by_name]
    return response_directives(Head(stored.status, b"", kept + head.fields))


def _forbids(directives: ResponseDirectives, site: Site) -> bool:
    """May it not be stored, whoever has asked?"""
    return (directives.no_store and not directives.must_understand) or (directives.private and not site.one_user)


_ABOUT_CACHING = frozenset((b"cache-control", b"cdn-cache-control", b"expires"))


def has_directives(head: Head) -> bool:
    """Does it say anything about caching?"""
    return not _ABOUT_CACHING.isdisjoint(head.by_name)


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
    if not supersedes(head.status) or nominated(head) is None:
        return None
    if asked.authorized and not _said(stored, head).for_all:
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
