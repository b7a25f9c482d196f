"""
The caching policy as two questions: :func:`on_request` and :func:`on_response` (RFC 9111 §3, §4).

The one place that callers import decisions from::

    asked = request.asked or ask(request, sites)                    # asking: Asked | Refuse
    on_request(asked, stored, purged, fenced, now, vary_miss=...)   # Reuse | Forward | Refuse
    on_response(asked, forward, head, length=..., ...)              # Store | Freshen | ServeStale | Again | Pass
    on_failure(asked, forward, now, failure)                        # Reuse | Refuse
    may_share(waiter, leader, plan, now)                            # bool
    invalidated(asked, head)                                        # tuple[Selector, ...]

Differences from what was agreed first: ``on_response`` may answer ``Again`` (a 304 about something else:
ask once more without conditions); ``Pass`` carries the serialised head for the client and the record that a
HEAD freshens; ``Reuse.behind`` is the refresh to start behind a stale answer; ``on_failure`` takes the
failure and reads ``forward.stale_allowed`` instead of the purge mode.
"""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Freshen, OnFailure, OnRequest, OnResponse, Store
from edgecache.rules.selectors import Selector
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Head
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Stored


def on_request(
    asked: Asked,
    stored: Stored | None,
    purged: PurgeMode | None,
    fenced: bool,
    now: float,
    *,
    vary_miss: bool = False,
) -> OnRequest:
    """
    May ``stored`` answer (RFC 9111 §4)?

    :param stored: the record that the look-up selected (its key and variant are this request's).
    :param purged: strictest purge of any selector of ``stored`` later than its floor.
    :param fenced: this node cannot vouch for being up to date: validate first.
    :param now: wall time, seconds since the epoch.
    :param vary_miss: something is stored for the key, but no variant of it is this request's.
    """
    raise NotImplementedError


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
) -> OnResponse:
    """
    What becomes of an upstream's final response (RFC 9111 §3, §4.3)?

    :param length: the Content-Length that the head announced, for HEAD and 304 too; ``None`` without one.
    :param delimited_by_close: the end of the content is the end of the connection.
    :param requested_at: wall time just before the request was sent.
    :param responded_at: wall time when the head had come.
    :param floor: the epoch taken before the upstream was contacted.
    """
    raise NotImplementedError


def on_failure(asked: Asked, forward: Forward, now: float, failure: UpstreamFailed | None) -> OnFailure:
    """No upstream gave a usable head: the stored response as stale (RFC 9111 §4.2.4), or an error of ours."""
    raise NotImplementedError


def may_share(waiter: Asked, leader: Asked, plan: Store | Freshen, now: float) -> bool:
    """May ``waiter``, who has joined ``leader``'s fill, have the response that ``plan`` is about?"""
    raise NotImplementedError


def invalidated(asked: Asked, head: Head) -> tuple[Selector, ...]:
    """Selectors that the non-error answer to an unsafe request invalidates (RFC 9111 §4.4, RFC 9875 §3)."""
    raise NotImplementedError
