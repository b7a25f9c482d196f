"""
HTTP messages as values (RFC 9110 §6).

Names of fields are lower case and everything is ``bytes``: bytes become these
values once, at the rim, and no layer above parses again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from attrs import define, field, frozen

from edgecache.words.ports import Source

Fields = list[tuple[bytes, bytes]]
"""Field lines in the order received: (lower-case name, value without outer white space)."""


def field_values(fields: Fields, name: bytes) -> list[bytes]:
    """:return: the value of every field line called ``name``, in order."""
    return [value for key, value in fields if key == name]


def combined(fields: Fields, name: bytes) -> bytes | None:
    """:return: all lines of ``name`` joined with a comma (RFC 9110 §5.3), ``None`` without any."""
    values = [value for key, value in fields if key == name]
    return b", ".join(values) if values else None


def without(fields: Fields, names: Iterable[bytes]) -> Fields:
    """:return: ``fields`` less every line whose name is in ``names``."""
    dropped = frozenset(names)
    return [line for line in fields if line[0] not in dropped]


@define(eq=False, repr=False)
class Request:
    """
    One request as a client sent it, its framing already taken off.

    The same value serves every request whose head has the same bytes (the
    parse memo), so nothing of one exchange is written here.

    :ivar method: as received; methods are case-sensitive (RFC 9110 §9.1).
    :ivar target: origin-form (``/path?query``), or ``*`` for OPTIONS.
    :ivar authority: the Host field, lower case, as validated by the parser.
    :ivar secure: it came over TLS.
    :ivar minor: minor version of HTTP/1; 0 must never be sent an interim response.
    :ivar has_content: content follows the head (its framing is the wire's business).
    :ivar content_length: octets that follow, ``None`` when chunked or without content.
    :ivar asked: what :mod:`edgecache.rules.asking` made of it; computed once.
    :ivar told: memo of :mod:`edgecache.wire.downloads`.
    """

    method: bytes
    target: bytes
    authority: bytes
    fields: Fields
    secure: bool = False
    minor: int = 1
    has_content: bool = False
    content_length: int | None = None
    asked: Any = None
    told: Any = None


@define(eq=False, repr=False)
class Head:
    """
    Head of a response (RFC 9110 §15): of an upstream, or one that we make.

    :ivar fields: without hop-by-hop fields and without framing once it left ``upstream``. Complete before anything is
        looked up: what is found by name is put in order once.
    """

    status: int
    reason: bytes
    fields: Fields = field(factory=list)

    @cached_property
    def by_name(self) -> dict[bytes, list[bytes]]:
        """The value of every field line, in order, by its name."""
        found = {name: [value] for name, value in self.fields}
        if len(found) < len(self.fields):
            # Most have one line of each.
            found = {name: field_values(self.fields, name) for name in found}
        return found

    def values(self, name: bytes) -> Sequence[bytes]:
        """:return: :func:`field_values` of this head's field ``name``."""
        return self.by_name.get(name, ())

    def get(self, name: bytes) -> bytes | None:
        """:return: :func:`combined` of this head's field ``name``."""
        values = self.by_name.get(name)
        return None if values is None else values[0] if len(values) == 1 else b", ".join(values)


@frozen(eq=False, repr=False)
class Outbound:
    """
    A request that we send upstream, built anew and never copied from client bytes.

    :ivar target: origin-form below the upstream's own path prefix.
    :ivar authority: value of the Host field; ``None`` means the upstream's own.
    :ivar fields: end-to-end fields, without Host and without framing.
    :ivar content: the client's content, or ``None``.
    :ivar content_length: octets of ``content``; ``None`` with content means chunked.
    :ivar head_seconds: how long the answer may take once all of it was sent; ``None``: as long as others'.
    """

    method: bytes
    target: bytes
    fields: Fields
    authority: bytes | None = None
    content: Source | None = None
    content_length: int | None = None
    head_seconds: float | None = None

    @property
    def idempotent(self) -> bool:
        """May it be sent again after it may have been received (RFC 9110 §9.2.2)?"""
        return self.method in IDEMPOTENT and self.content is None

    @property
    def hedgeable(self) -> bool:
        """May two origins be asked for it at the same time?"""
        return self.method in (b"GET", b"HEAD") and self.content is None

    @property
    def probe_target(self) -> bytes | None:
        """What may be asked for with GET to see whether an origin is well again; ``None`` if that says nothing."""
        return self.target if self.hedgeable else None


SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE"))
"""Safe methods (RFC 9110 §9.2.1)."""

IDEMPOTENT = SAFE | {b"PUT", b"DELETE"}
"""Idempotent methods (RFC 9110 §9.2.2)."""

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields for one connection only (RFC 9110 §7.6.1), besides those that Connection names."""
