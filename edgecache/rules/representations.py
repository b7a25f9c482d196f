"""
Which form of an index page a client is sent (PEP 691; RFC 9110 §12.5): one page is stored, all forms derive from it.
"""

from __future__ import annotations

import enum
from functools import lru_cache

from attrs import frozen

from edgecache.rules.indexpaths import PageKind
from edgecache.rules.negotiation import ranked
from edgecache.words.messages import Fields, field_values


class Media(enum.Enum):
    """Media type of a page, as sent in Content-Type (charset added where it is text)."""

    JSON = b"application/vnd.pypi.simple.v1+json"
    HTML = b"application/vnd.pypi.simple.v1+html"
    TEXT = b"text/html"
    PLAIN_JSON = b"application/json"
    """``/pypi/<name>/json``, which has no other form."""
    SOURCE = b"application/vnd.edgecache.page+json"
    """The stored page itself, with the origin's links: what siblings get."""


class Coding(enum.Enum):
    """Content coding of a page."""

    IDENTITY = b"identity"
    GZIP = b"gzip"
    ZSTD = b"zstd"


ANYWHERE = b"\x01"
"""Stands for the base where that is filled in; no URL has it."""


@frozen(cache_hash=True)
class Representation:
    """
    One form of a page.

    :ivar base: ``http://authority`` before links where they must be absolute although none is configured
        (``/pypi/<name>/json``); ``b""`` everywhere else.
    :ivar filled_in: nobody has configured that authority: :attr:`form` is derived and stored, one for all of them, and
        ``base`` comes into what is sent. Uncoded, for that.
    """

    media: Media
    coding: Coding
    base: bytes = b""
    filled_in: bool = False

    @property
    def form(self) -> Representation:
        """What is derived and stored for it."""
        return Representation(self.media, self.coding, ANYWHERE) if self.filled_in else self

    @property
    def name(self) -> bytes:
        """Stable octets: part of the derived content's key and of its ETag."""
        return b" ".join((self.media.value, self.coding.value, self.base))


SOURCE = Representation(Media.SOURCE, Coding.IDENTITY)

_ALIASES = {
    b"application/vnd.pypi.simple.latest+json": Media.JSON.value,
    b"application/vnd.pypi.simple.latest+html": Media.HTML.value,
}
# With the ranges that mean each, most specific first. A client that takes anything gets text/html: browsers and old
# installers know nothing else (PEP 691).
_OFFERED = (
    (Media.JSON, (b"application/*",)),
    (Media.HTML, (b"application/*",)),
    (Media.TEXT, (b"text/*", b"*/*")),
)
_CODINGS = {b"gzip": Coding.GZIP, b"x-gzip": Coding.GZIP, b"zstd": Coding.ZSTD, b"identity": Coding.IDENTITY}
# Of equal weight, the smaller and cheaper to unpack comes first.
_PREFERENCE = {Coding.ZSTD: 2, Coding.GZIP: 1, Coding.IDENTITY: 0}


def representation_of(kind: PageKind, fields: Fields, base: bytes, *, configured: bool = True) -> Representation:
    """
    :param fields: of the request.
    :param base: scheme and authority under which the client knows this node.
    :param configured: there is only a limited number of those.
    :return: what it is sent; text/html to whoever accepts nothing that there is, as PEP 691 allows.
    """
    if kind is PageKind.RELEASES and not configured:
        return Representation(Media.PLAIN_JSON, Coding.IDENTITY, base, filled_in=True)
    codings = b",".join(field_values(fields, b"accept-encoding"))
    if kind is PageKind.RELEASES:
        return Representation(Media.PLAIN_JSON, coding_of(codings), base)
    return _form(b",".join(field_values(fields, b"accept")), codings)


# Installers of one kind send the same; a client that makes them up only has them read again.
@lru_cache(maxsize=128)
def _form(accept: bytes, codings: bytes) -> Representation:
    return Representation(media_of(accept), coding_of(codings))


def media_of(accept: bytes) -> Media:
    """:return: the best offered media type of an Accept field (RFC 9110 §12.5.1); text/html where it names none."""
    weights: dict[bytes, float] = {}
    for kind, weight in ranked(accept):
        weights.setdefault(_ALIASES.get(kind, kind), weight)
    best, found = (0.0, 0), Media.TEXT
    for media, ranges in _OFFERED:
        for specific, kind in ((2, media.value), *((1, one) for one in ranges)):
            if kind in weights:
                # Of equal weight, one that is named; of those, the first, which says most.
                if weights[kind] > 0.0 and (weights[kind], specific) > best:
                    best, found = (weights[kind], specific), media
                break
    return found


def coding_of(accept_encoding: bytes) -> Coding:
    """:return: a coding that the field names as acceptable (not by ``*``); identity where it names none."""
    best, found = (0.0, 0), Coding.IDENTITY
    for name, weight in ranked(accept_encoding):
        coding = _CODINGS.get(name)
        if coding is not None and weight > 0.0 and (weight, _PREFERENCE[coding]) > best:
            best, found = (weight, _PREFERENCE[coding]), coding
    return found
