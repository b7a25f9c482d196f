"""Which fills ask siblings, with what request, and what becomes of a sibling's own look-up here (DESIGN 9, misses)."""

from __future__ import annotations

from attrs import evolve

from edgecache.rules.asking import MIN_SERIAL, Asked
from edgecache.rules.decisions import Forward, OnRequest, Refuse, Reuse
from edgecache.rules.lookups import BUDGET, FALLBACK, FRESH, POSITIONS, REFUSED, SELECTORS, selectors_value
from edgecache.rules.outbound import conditions_for
from edgecache.words.config import FillAt
from edgecache.words.messages import Outbound, without
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag, Stored

PATIENCE_SECONDS = 0.3
"""Within this, or three round trips, a sibling is heard of ..."""
_ROUND_TRIPS = 3
BEAT_SECONDS = 1.0
"""... and then this often, with 102 as long as it has no head (RFC 2518 §10.1) ..."""
MISSED_BEATS = 2
"""... of which so many may not be missing in a row."""

MARGIN_SECONDS = 0.5
"""By this much a sibling's ladder has to be over before the asker's own time is."""
LEAST_SECONDS = 1.0
"""With less left a sibling is not asked."""

COPIES = 4
"""Siblings that are asked for what they have stored, one after the other, when the origin gives nothing."""
COPY_SECONDS = 2 * PATIENCE_SECONDS
"""Each of them has it at hand or not; of a request's time so much is kept for the first."""

_LONG = 10.0**10
_CACHE_CONTROL = (b"cache-control", b"pragma")


def patience_seconds(round_trip: float) -> float:
    """
    :param round_trip: seconds, 0.0 while unknown.
    :return: how long to wait for the first sign of a sibling that is connected to.

    >>> patience_seconds(0.02), patience_seconds(0.2)
    (0.3, 0.6000000000000001)
    """
    return max(PATIENCE_SECONDS, _ROUND_TRIPS * round_trip)


# The asker's side


def may_ask_siblings(asked: Asked, forward: Forward) -> bool:
    """
    May siblings be asked for what this fill is about?

    Not for a sibling, which would be forwarding to a third; not for what nobody can share; not for what was
    deleted or locally invalidated, of which siblings may know nothing; not for who named no host (HTTP/1.0): a look-up
    must name one, and the sibling's own may be that of another site there.
    """
    if not asked.request.authority:
        return False
    return asked.fills and not forward.alone and not forward.at_origin and asked.sibling is None


def fills_at_home(asked: Asked) -> bool:
    """Is the key's home asked before the origin?"""
    settings = asked.site.settings
    page = asked.site.index and not asked.file
    return (settings.page_fill if page else settings.fill) is FillAt.HOME


def look_up(asked: Asked, forward: Forward, positions: bytes) -> Outbound:
    """
    The fill's request as a sibling gets it: as the client's, so that the sibling finds site and key.

    A ``no-cache`` that a purge put there is not in it: the positions say as much, and more siblings than one may
    share what the home validates.

    :param positions: taken after the fill's floor, so that whatever is before the floor is before them.
    """
    request = asked.request
    fields = without(asked.upstream_fields, _CACHE_CONTROL)
    fields += [line for line in request.fields if line[0] in _CACHE_CONTROL]
    if forward.stored is not None:
        fields += conditions_for(forward.stored)
    if asked.min_serial is not None:
        fields.append((MIN_SERIAL, b"%d" % asked.min_serial))
    fields.append((POSITIONS, positions))
    method = b"GET" if asked.head and not asked.head_only else request.method
    return Outbound(method, request.target, fields, authority=request.authority)


def with_budget(outbound: Outbound, seconds: float) -> Outbound:
    """:param seconds: from now to the head."""
    return evolve(outbound, fields=[*outbound.fields, (BUDGET, b"%d" % (seconds * 1000))])


def only_if_cached(outbound: Outbound, *, stale: bool) -> Outbound:
    """
    :param outbound: a look-up.
    :param stale: a stale response is better than none.
    :return: the look-up of what is stored (RFC 9111 §5.2.1.7).
    """
    wanted = b"only-if-cached, max-stale" if stale else b"only-if-cached"
    return evolve(outbound, fields=[*without(outbound.fields, _CACHE_CONTROL), (b"cache-control", wanted)])


# The side that is asked


def for_sibling(asked: Asked, decision: OnRequest, stored: Stored | None) -> OnRequest:
    """
    What the store may do for a sibling.

    Nothing stale, unless that was asked for: the sibling may have as much itself, and others to ask.
    """
    if isinstance(decision, Reuse):
        if not decision.stale or asked.directives.max_stale is not None:
            # Whether it is to be refreshed is for our own clients to cause.
            return evolve(decision, behind=None) if decision.behind is not None else decision
        if asked.directives.only_if_cached:
            return Refuse(504, "What is stored here is stale.")
        decision = decision.behind or Forward(ForwardReason.STALE, stored)
    if isinstance(decision, Forward):
        return evolve(decision, stale_allowed=False)
    return decision


def marked(refuse: Refuse) -> Refuse:
    """:return: an error of ours as a sibling can tell it from the origin's."""
    return evolve(refuse, fields=(*refuse.fields, (REFUSED, b"%d" % refuse.status)))


def record_lines(asked: Asked, stored: Stored, age: int) -> bytes:
    """
    :param age: of ``stored`` in seconds, now.
    :return: field lines for a sibling's own record of it.
    """
    known = frozenset(asked.selectors)
    left = min(max(stored.fresh_until - stored.generated_at - age, -_LONG), _LONG)
    lines = b"%b: %d\r\n" % (FRESH, left)
    lines += b"%b: %b\r\n" % (SELECTORS, selectors_value(tuple(one for one in stored.selectors if one not in known)))
    if stored.flags & Flag.FALLBACK:
        lines += FALLBACK + b": 1\r\n"
    return lines
