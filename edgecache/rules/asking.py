"""A request, parsed for the caching rules: once per distinct head (``request.asked`` keeps it)."""

from __future__ import annotations

from attrs import define

from edgecache.rules.conditions import Conditions, RangeAsked
from edgecache.rules.decisions import Refuse
from edgecache.rules.sites import Site, Sites
from edgecache.words.messages import Fields, Request


@define(eq=False)
class RequestDirectives:
    """Cache-Control of a request, and Pragma without one (RFC 9111 §5.2.1, §5.4). Seconds; ``None``: not given."""

    max_age: int | None = None
    min_fresh: int | None = None
    # Any staleness is accepted: infinite.
    max_stale: float | None = None
    stale_if_error: int | None = None
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False


@define(eq=False)
class Asked:
    """
    What the rules need to know about a request. Nothing of one exchange is written here: it is shared by
    every request with the same head.

    :ivar key: the cache key (site, authority if it is sent, target, and on an index the allowed fields).
    :ivar key_hash: 32 octets of ``key``: where its record lies.
    :ivar conditions: ``None`` without any.
    :ivar range: the single range asked for, ``None`` without a usable one.
    :ivar authorized: the request has Authorization (RFC 9111 §3.5).
    :ivar joinable: GET or HEAD without content: the store may answer it. (Only a GET fills.)
    :ivar fills: it may start or join a fill: joinable and a GET.
    :ivar simple: GET or HEAD without conditions, range and directives: the straight path.
    :ivar unsafe: its success invalidates (RFC 9111 §4.4).
    :ivar selectors: hashes of all, its URL, its path prefixes: what a purge can name before the head is known.
    :ivar upstream_fields: end-to-end fields to send, less conditions, Range, Via and CDN-Loop.
    """

    request: Request
    site: Site
    method: bytes
    head: bool
    key: bytes
    key_hash: bytes
    directives: RequestDirectives
    conditions: Conditions | None
    range: RangeAsked | None
    authorized: bool
    joinable: bool
    fills: bool
    simple: bool
    unsafe: bool
    selectors: tuple[int, ...]
    upstream_fields: Fields


def ask(request: Request, sites: Sites) -> Asked | Refuse:
    """
    Parse ``request`` for the rules; the caller keeps the answer in ``request.asked``.

    :return: :class:`Refuse` for a host of no site (421), a loop (508, RFC 8586), and what an index does not
        take: other methods (405), GET or HEAD with content (400).
    """
    raise NotImplementedError
