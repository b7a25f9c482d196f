"""What a purge names, and what a stored response can be named by (DESIGN 9): canonical octets and their hashes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from edgecache.rules.sites import Sites
from edgecache.words.reasons import PurgeMode

MAX_PREFIX_SEGMENTS = 16
MAX_TAGS = 64


@frozen
class Selector:
    """
    One thing that a purge names on one site.

    :ivar kind: ``all``, ``url``, ``prefix`` or ``tag``.
    :ivar site: the site's id.
    :ivar value: path and query, path prefix ending in ``/``, tag, or empty.
    """

    kind: str
    site: int
    value: bytes

    @property
    def canonical(self) -> bytes:
        """The octets that are stored in control and hashed."""
        raise NotImplementedError

    @property
    def hash(self) -> int:
        """64-bit hash of :attr:`canonical`: in records and purge tables."""
        raise NotImplementedError


@frozen
class PurgeAsked:
    """
    A purge request, understood.

    :ivar selectors: without duplicates.
    :ivar serials: project (normalised) to the serial that made it necessary.
    :ivar id: the caller's idempotency id, ``""`` without one.
    """

    selectors: tuple[Selector, ...]
    mode: PurgeMode
    serials: dict[str, int]
    id: str


@frozen
class BadPurge:
    """:ivar problem: one sentence that names the offending entry."""

    problem: str


def all_selector(site_id: int) -> int:
    """Hash of the selector of everything on a site."""
    raise NotImplementedError


def url_selector(site_id: int, path_and_query: bytes) -> int:
    """Hash of the selector of one URL, all its variants."""
    raise NotImplementedError


def prefix_selectors(site_id: int, path: bytes) -> tuple[int, ...]:
    """Hashes for each prefix of ``path`` that ends in ``/``, at most 16."""
    raise NotImplementedError


def tag_selector(site_id: int, tag: bytes) -> int:
    """Hash of the selector of a tag."""
    raise NotImplementedError


def parse_purge(document: Any, sites: Sites, *, most: int = 10_000) -> PurgeAsked | BadPurge:
    """
    The JSON document of ``POST /purge`` (DESIGN 11).

    :param most: selectors that one purge may have.
    """
    raise NotImplementedError


def selectors_of_url(url: bytes, sites: Sites) -> Sequence[Selector] | None:
    """Selectors for a path (every site) or an absolute URL (the sites it names); ``None`` if it is neither."""
    raise NotImplementedError
