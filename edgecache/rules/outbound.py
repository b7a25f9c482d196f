"""The request that goes upstream, built anew (RFC 9110 §7.6)."""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward
from edgecache.words.messages import Outbound
from edgecache.words.ports import Source


def outbound(asked: Asked, forward: Forward, *, content: Source | None = None) -> Outbound:
    """
    End-to-end fields of the client, Via and CDN-Loop; conditions from ``forward.stored``.

    A fill (not ``forward.alone``) is always for the whole representation: a GET without the client's
    conditions and range.
    """
    raise NotImplementedError


def interim_head(status: int, reason: bytes, fields: list[tuple[bytes, bytes]], asked: Asked) -> bytes:
    """A 1xx response to pass on to the client (RFC 9110 §15.2), serialised as ``Downstream.interim`` wants it."""
    raise NotImplementedError
