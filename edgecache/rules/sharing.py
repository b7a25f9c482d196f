"""Who else may have the response of a fill, and what an unsafe request invalidates (RFC 9111 §4, §4.4)."""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Freshen, Store
from edgecache.rules.fields import parsed
from edgecache.rules.reusing import satisfies
from edgecache.rules.selectors import MAX_TAGS, Selector, normal_target
from edgecache.rules.sites import without_default_port
from edgecache.rules.tags import groups
from edgecache.rules.varying import nominated, variant_hash, variant_of
from edgecache.words.messages import Head
from edgecache.words.stored import Flag


def may_share(waiter: Asked, leader: Asked, plan: Store | Freshen, now: float, *, after: bool = False) -> bool:
    """
    May ``waiter``, who has joined ``leader``'s fill, have the response that ``plan`` is about?

    :param after: ``waiter`` came before ``leader`` was forwarded: if that has demanded the newest as well, this is it.

    Only what the store could give it as well: selected by Vary, fresh, and as young as the request demands.
    Whether others than the leader may have it at all (private, Authorization) was decided when it was stored.
    """
    stored = plan.stored
    if stored.flags & Flag.ALWAYS_VALIDATE or now >= stored.fresh_until:
        return False
    if not waiter.joinable or waiter.bypass or waiter.key != leader.key:
        return False
    newest = after and leader.directives.no_cache
    return other_variant(waiter, plan) is None and satisfies(waiter, stored, now, newest=newest)


def other_variant(asked: Asked, plan: Store | Freshen) -> bytes | None:
    """:return: where the variant that ``asked`` selects would lie; ``None``: it is this one, or there are none."""
    stored = plan.stored
    if not stored.variant:
        return None
    names = plan.nominated if isinstance(plan, Store) else nominated(Head(0, b"", parsed(stored.head)))
    variant = variant_of(asked, names or ())
    return None if variant == stored.variant else variant_hash(asked.key_hash, variant)


def invalidated(asked: Asked, head: Head) -> tuple[Selector, ...]:
    """
    What the answer to an unsafe request invalidates: its URL, those of Location and Content-Location on the
    same origin, and groups (RFC 9111 §4.4, RFC 9875 §3). Nothing if it is an error.
    """
    if not asked.unsafe or not 200 <= head.status < 400:
        return ()
    site = asked.site.id
    target = normal_target(asked.target)
    found = {Selector("url", site, target): None}
    for name in (b"location", b"content-location"):
        for reference in head.values(name)[:1]:
            other = _same_origin(asked, reference)
            if other is not None:
                found[Selector("url", site, normal_target(other))] = None
    named = groups(head, b"cache-group-invalidation")
    if len(named) > MAX_TAGS:
        # Each costs an epoch, of which there are so many for all sites: more than a response may have mean all of it.
        found[Selector("all", site, b"")] = None
    for group in named[:MAX_TAGS]:
        found[Selector("tag", site, group)] = None
    return tuple(found)


def parted(
    selectors: tuple[Selector, ...], shares: frozenset[int]
) -> tuple[tuple[Selector, ...], tuple[Selector, ...]]:
    """
    :param selectors: what :func:`invalidated` says.
    :param shares: ids of the sites whose groups siblings are told of (``[[site]] share_invalidation``, DESIGN 9).
    :return: what is invalidated on this node alone, and the groups of which siblings are told.
    """
    shared = tuple(one for one in selectors if one.kind == "tag" and one.site in shares)
    return tuple(one for one in selectors if one not in shared), shared


def _same_origin(asked: Asked, reference: bytes) -> bytes | None:
    """:return: path and query of a URI reference, below the site's path; ``None`` for what is not there."""
    reference = reference.partition(b"#")[0]
    scheme, colon, rest = reference.partition(b"://")
    if colon and scheme.lower() in (b"http", b"https"):
        return _with_authority(asked, scheme.lower(), rest)
    if reference.startswith(b"//"):
        return _with_authority(asked, b"", reference[2:])
    if reference.startswith(b"/"):
        return asked.site.below(reference)
    target = asked.target.partition(b"?")[0]
    if not reference:
        return asked.target
    if reference.startswith(b"?"):
        return target + reference
    if b":" in reference.partition(b"/")[0]:
        return None
    return target[: target.rfind(b"/") + 1] + reference


def _with_authority(asked: Asked, scheme: bytes, rest: bytes) -> bytes | None:
    end = min((place for place in (rest.find(b"/"), rest.find(b"?")) if place >= 0), default=len(rest))
    authority = without_default_port(scheme, rest[:end].rpartition(b"@")[2].lower())
    path = rest[end:] if rest[end : end + 1] == b"/" else b"/" + rest[end:]
    own = asked.request.authority
    if authority == own or authority == without_default_port(b"https" if asked.request.secure else b"http", own):
        return asked.site.below(path)
    known = [asked.site.known(prefix, path) for origin, prefix in asked.site.origins if authority == origin]
    return next((below for below in known if below is not None), None)
