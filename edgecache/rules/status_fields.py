"""Cache-Status (RFC 9211), Proxy-Status (RFC 9209) and the errors that we answer ourselves."""

from __future__ import annotations

from edgecache.rules.decisions import Refuse, Reuse
from edgecache.rules.sites import Site
from edgecache.words.reasons import ForwardReason


def hit(site: Site, reuse: Reuse, detail: str = "") -> bytes:
    """Cache-Status of an answer from the store."""
    raise NotImplementedError


def forwarded(
    site: Site,
    reason: ForwardReason,
    *,
    status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl: int | None = None,
    detail: str = "",
) -> bytes:
    """
    Cache-Status of an answer that had to be asked for.

    :param status: what the upstream answered, where the client sees another one (RFC 9211 §2.3).
    """
    raise NotImplementedError


def with_cache_status(head: bytes, cache_status: bytes) -> bytes:
    """``head`` of a :class:`~edgecache.rules.decisions.Pass` with our member of Cache-Status."""
    raise NotImplementedError


def refusal(site: Site | None, node_id: bytes, refuse: Refuse, cache_status: bytes = b"") -> tuple[bytes, bytes]:
    """:return: head and content of an error of ours, for ``Downstream.send`` (HEAD: leave the content away)."""
    raise NotImplementedError
