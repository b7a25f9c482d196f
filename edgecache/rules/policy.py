"""
The caching policy as questions: the one place that callers import them from (RFC 9111 §3, §4).

::

    asked = request.asked or ask(request, sites)                    # asking: Asked | Refuse
    on_request(asked, stored, purged, fenced, now, vary_miss=...)   # Reuse | Forward | Refuse
    at_once(asked, stored, now)                                     # Reuse | None: the same where little is left to ask
    on_response(asked, forward, head, length=..., ...)              # Store | Freshen | ServeStale | Again | Pass
    on_failure(asked, forward, now, failure)                        # Reuse | Refuse
    stale_first(asked, forward, now)                                # Reuse | None
    may_share(waiter, leader, plan, now)                            # bool
    other_variant(asked, plan)                                      # bytes | None: where what it selects lies
    invalidated(asked, head)                                        # tuple[Selector, ...]

``on_response`` may answer ``Again``: a 304 about something else, to be asked once more without conditions, or a
sibling's response that is older than what is stored, to be asked of the origin.
``Pass`` carries the serialised head for the client and the record that a HEAD freshens. ``Reuse.behind`` is the
refresh to start behind a stale answer. ``Store.own`` is what the client whose request was forwarded is shown.
"""

from edgecache.rules.reusing import at_once, on_failure, on_request, stale_first
from edgecache.rules.sharing import invalidated, may_share, other_variant
from edgecache.rules.storing import on_response

__all__ = [
    "at_once",
    "invalidated",
    "may_share",
    "on_failure",
    "on_request",
    "on_response",
    "other_variant",
    "stale_first",
]
