"""May a stored response answer (RFC 9111 §4)?"""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, OnFailure, OnRequest, Refuse, Reuse
from edgecache.rules.indexpaths import PageKind
from edgecache.rules.pages import lacks_serial
from edgecache.rules.status_fields import hit, lines_of
from edgecache.words.errors import UpstreamFailed
from edgecache.words.reasons import ForwardReason, PurgeMode
from edgecache.words.stored import Flag, Stored

# Operations on IntFlag members take a microsecond each; the hit path has none.
_ALWAYS_VALIDATE = int(Flag.ALWAYS_VALIDATE)
_NOT_STALE = int(Flag.NEVER_STALE | Flag.ALWAYS_VALIDATE)
_IMMUTABLE, _FALLBACK = int(Flag.IMMUTABLE), int(Flag.FALLBACK)

SET_BACK_SECONDS = 5.0
"""What was validated so much later than now, was validated before the wall clock was set back: nobody knows when."""

RETRY_AFTER = (b"retry-after", b"5")
"""Installers sleep as long as this says (FIELD 3): short."""


def on_request(
    asked: Asked,
    stored: Stored | None,
    purged: PurgeMode | None,
    fenced: bool,
    now: float,
    *,
    vary_miss: bool = False,
    followed: bool = False,
) -> OnRequest:
    """
    May ``stored`` answer?

    :param stored: the record that the look-up selected (its key and variant are this request's).
    :param purged: strictest purge of any selector of ``stored`` later than its floor.
    :param fenced: this node cannot vouch for being up to date: validate first.
    :param now: wall time, seconds since the epoch.
    :param vary_miss: something is stored for the key, but no variant of it is this request's.
    :param followed: what changed at the origin is invalidated here, as where purges are pushed, for now.
    """
    if stored is not None and purged is None and not fenced and asked.simple:
        reuse = at_once(asked, stored, now)
        if reuse is not None:
            return reuse
    return _considered(asked, stored, purged, fenced, now, vary_miss, followed)


def at_once(asked: Asked, stored: Stored, now: float) -> Reuse | None:
    """
    :func:`on_request` where nothing but freshness is left to decide.

    :param asked: a simple one.
    :param stored: nothing that names it was purged since, and this node can vouch for that.
    :return: ``None``: it is not fresh, or must be validated all the same. It is remembered as long as its numbers,
        whole seconds, stay the same: what is asked for often is asked for many times in a second.
    """
    # Both bounds: the wall clock may be set back.
    if stored.reuse_from <= now < stored.reuse_until:
        reuse: Reuse = stored.reuse
        return reuse
    left = stored.fresh_until - now
    if left <= 0.0 or stored.flags & _ALWAYS_VALIDATE or _was_set_back(asked, stored, now):
        return None
    age, ttl = _age(stored, now), int(left)
    stored.reuse = reuse = Reuse(age, ttl)
    reuse.lines = lines_of(age, hit(asked.site, reuse))
    stored.reuse_from, stored.reuse_until = now, min(stored.generated_at + age + 1, stored.fresh_until - ttl)
    return reuse


def covered_until(asked: Asked, stored: Stored) -> float:
    """
    :return: until when a response is fresh while the origin's project list is followed: of what that list tells about,
        as long as where purges are pushed. That is no property of the record: it ends when following does.
    """
    page = asked.page
    if page is None or page.kind is PageKind.LIST or stored.status != 200 or stored.flags & _FALLBACK:
        return stored.fresh_until
    return max(stored.fresh_until, stored.validated_at + asked.site.settings.purged_page_seconds)


def _age(stored: Stored, now: float) -> int:
    """RFC 9111 §4.2.3; the wall clock may have been set back."""
    age = int(now - stored.generated_at)
    return age if age > 0 else 0


def _was_set_back(asked: Asked, stored: Stored, now: float) -> bool:
    """
    :return: the wall clock was set back since it was validated. It would be fresh for as much longer; a file's digest
        lasts, whatever the clock says.
    """
    return now + SET_BACK_SECONDS < stored.validated_at and not (stored.digest and asked.artifact is not None)


def _left(against: ForwardReason, stored: Stored, now: float) -> int:
    """:return: seconds of freshness that are left: none, whatever its time says, of what was purged or is fenced."""
    left = int(stored.fresh_until - now)
    return min(left, 0) if against is ForwardReason.STALE else left


def _considered(
    asked: Asked,
    stored: Stored | None,
    purged: PurgeMode | None,
    fenced: bool,
    now: float,
    vary_miss: bool,
    followed: bool,
) -> OnRequest:
    if not asked.joinable:
        return Forward(ForwardReason.METHOD, alone=True)
    if asked.bypass:
        if asked.directives.only_if_cached:
            return _only_cached()
        return Forward(ForwardReason.BYPASS, alone=True)
    if fenced and stored is not None and asked.artifact is not None and stored.digest:
        # Its path has its digest: what it may have missed is that its page does not name it any more (DESIGN 9).
        fenced = False
    suspect = purged is not None or fenced
    if purged is PurgeMode.DELETE:
        stored = None
    if stored is None:
        if asked.directives.only_if_cached:
            return _only_cached()
        reason = ForwardReason.VARY_MISS if vary_miss else ForwardReason.URI_MISS
        no_cache = suspect or asked.directives.no_cache or asked.min_serial is not None
        return Forward(reason, alone=asked.head_only, no_cache=no_cache)
    until = covered_until(asked, stored) if followed else stored.fresh_until
    against = _against(asked, stored, purged, fenced, now, until)
    if against is None:
        return Reuse(_age(stored, now), int(until - now))
    lacking = lacks_serial(asked, stored)
    forward = Forward(
        against,
        stored,
        alone=asked.head_only,
        no_cache=suspect or asked.directives.no_cache or lacking,
        stale_allowed=not (stored.flags & _NOT_STALE or lacking),
    )
    if against is ForwardReason.STALE and not fenced and _is_within_window(asked, stored, purged, now):
        behind = Forward(against, stored, no_cache=forward.no_cache, stale_allowed=forward.stale_allowed)
        return Reuse(_age(stored, now), _left(against, stored, now), True, behind)
    if against is ForwardReason.STALE and not suspect and _is_accepted_stale(asked, stored, now):
        return Reuse(_age(stored, now), int(stored.fresh_until - now), True)
    return _only_cached() if asked.directives.only_if_cached else forward


def _against(
    asked: Asked, stored: Stored, purged: PurgeMode | None, fenced: bool, now: float, until: float
) -> ForwardReason | None:
    """:return: what keeps a response that is fresh ``until`` then from being reused, ``None`` if nothing does."""
    if purged is not None or fenced or now >= until or stored.flags & _ALWAYS_VALIDATE:
        return ForwardReason.STALE
    if _was_set_back(asked, stored, now):
        return ForwardReason.STALE
    return None if satisfies(asked, stored, now, until) else ForwardReason.REQUEST


def satisfies(asked: Asked, stored: Stored, now: float, until: float = 0.0, *, newest: bool = False) -> bool:
    """
    Do the request's own directives accept this fresh response (RFC 9111 §5.2.1)?

    :param until: when it is fresh for longer than its own time says.
    :param newest: the origin was asked for it since ``asked`` was there.
    """
    directives = asked.directives
    until = max(until, stored.fresh_until)
    if directives.min_fresh is not None and until - now < directives.min_fresh:
        return False
    if lacks_serial(asked, stored):
        return False
    if asked.needed is not None and stored.validated_at < asked.needed.validated_since:
        return False
    site = asked.site
    if site.index and asked.file and stored.flags & _IMMUTABLE:
        # It never changes under its name; installers reload it all the same (FIELD 3).
        return True
    if directives.no_cache and not newest:
        return False
    if directives.max_age is None or _age(stored, now) <= directives.max_age:
        return True
    if stored.flags & _IMMUTABLE:
        return True
    if not site.index or asked.file:
        return False
    # pip demands max-age=0 of every page. Purges cover it, or it was vouched for just now (DESIGN 10).
    settings = site.settings
    covered = settings.purged or until > stored.fresh_until
    return covered or now - stored.validated_at <= settings.recently_validated_seconds


def _is_within_window(asked: Asked, stored: Stored, purged: PurgeMode | None, now: float) -> bool:
    """RFC 5861 §3; a soft purge makes stale what has such a window."""
    if purged not in (None, PurgeMode.SOFT) or stored.flags & _NOT_STALE:
        return False
    if stored.stale_while_revalidate_until <= stored.fresh_until or now >= stored.stale_while_revalidate_until:
        return False
    return _accepts_old(asked, stored, now)


def _is_accepted_stale(asked: Asked, stored: Stored, now: float) -> bool:
    """RFC 9111 §5.2.1.2"""
    accepted = asked.directives.max_stale
    if accepted is None or stored.flags & _NOT_STALE:
        return False
    max_age = asked.directives.max_age
    return (
        now - stored.fresh_until <= accepted
        and not asked.directives.no_cache
        and asked.directives.min_fresh is None
        and (max_age is None or _age(stored, now) <= max_age)
    )


def _accepts_old(asked: Asked, stored: Stored, now: float) -> bool:
    directives = asked.directives
    if directives.no_cache or directives.min_fresh is not None:
        return False
    return directives.max_age is None or _age(stored, now) <= directives.max_age


def _only_cached() -> Refuse:
    return Refuse(504, "Nothing that is stored here satisfies the request, and only that was asked for.")


def stale_reuse(forward: Forward, now: float) -> Reuse | None:
    """:return: the stored response as stale because no upstream gave a good answer (RFC 9111 §4.2.4, RFC 5861 §4)."""
    stored = forward.stored
    if stored is None or not forward.stale_allowed or now >= stored.stale_if_error_until:
        return None
    return Reuse(_age(stored, now), _left(forward.reason, stored, now), True)


def stale_first(asked: Asked, forward: Forward, now: float) -> Reuse | None:
    """
    :return: the stored page of an index, to be sent at once while all upstreams are known to fail; ``None`` for
        what has to wait for the attempt: everything of a plain site, and what was purged.
    """
    if not asked.site.index or not asked.joinable or forward.alone or forward.no_cache:
        return None
    return stale_reuse(forward, now)


def on_failure(asked: Asked, forward: Forward, now: float, failure: UpstreamFailed | None) -> OnFailure:
    """
    No upstream gave a usable head: the stored response as stale, or an error of ours.

    :param failure: the last one; ``None`` where an upstream answered with an error of its own.
    """
    reuse = stale_reuse(forward, now) if asked.joinable else None
    if reuse is not None:
        return reuse
    proxy_error = "" if failure is None else failure.proxy_error
    # Whatever it was, which Proxy-Status says: pip tries again after 503, but not after 504 (FIELD 3).
    return Refuse(503, "No upstream gave a usable response.", proxy_error, (RETRY_AFTER,))
