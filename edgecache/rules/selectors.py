"""What a purge names, and what a stored response can be named by (DESIGN 9): canonical octets and their hashes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import xxhash
from attrs import frozen

from edgecache.rules.indexpaths import canonical_prefix, place_of, project_tag, unescaped
from edgecache.rules.sites import Site, Sites, host_octets, without_default_port
from edgecache.words.purging import Row
from edgecache.words.reasons import PurgeMode

MAX_PREFIX_SEGMENTS = 16
MAX_TAGS = 64

_PROJECT = project_tag(b"")


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
        return _canonical(self.kind.encode("ascii"), self.site, self.value)

    @classmethod
    def of(cls, canonical: bytes) -> Selector:
        """
        :return: what :attr:`canonical` says.
        :raises ValueError: it is no selector.
        """
        kind, site, value = canonical.split(b" ", 2)
        return cls(kind.decode("ascii"), int(site, 16), value)

    @property
    def hash(self) -> int:
        """64-bit hash of :attr:`canonical`: in records and purge tables."""
        return xxhash.xxh3_64_intdigest(self.canonical)


def _canonical(kind: bytes, site: int, value: bytes) -> bytes:
    return b"%b %016x %b" % (kind, site, value)


_TAG_OF_SITE = len(_canonical(b"tag", 0, b""))


def all_selector(site_id: int) -> int:
    """Hash of the selector of everything on a site."""
    return xxhash.xxh3_64_intdigest(_canonical(b"all", site_id, b""))


def url_selector(site_id: int, path_and_query: bytes) -> int:
    """Hash of the selector of one URL, all its variants."""
    return xxhash.xxh3_64_intdigest(_canonical(b"url", site_id, normal_target(path_and_query)))


def prefix_selectors(site_id: int, path: bytes) -> tuple[int, ...]:
    """Hashes for each prefix of ``path`` that ends in ``/`` and has at most 16 segments."""
    path = normal_target(path).partition(b"?")[0]
    before = _canonical(b"prefix", site_id, b"")
    found: list[int] = []
    end = path.find(b"/") + 1
    while end and len(found) <= MAX_PREFIX_SEGMENTS:
        found.append(xxhash.xxh3_64_intdigest(before + path[:end]))
        end = path.find(b"/", end) + 1
    return tuple(found)


def tag_selector(site_id: int, tag: bytes) -> int:
    """Hash of the selector of a tag."""
    return xxhash.xxh3_64_intdigest(_canonical(b"tag", site_id, tag))


def any_tag_selector(site_id: int) -> int:
    """Hash of what every purge of a tag on a site names besides: before a head came, its tags are unknown."""
    return tag_selector(site_id, b"")


def rows_of(selectors: Iterable[bytes], mode: PurgeMode) -> list[Row]:
    """
    :param selectors: canonical octets.
    :return: what control applies for a purge of them.
    """
    named = list(selectors)
    # Kind and site of each tag, with no tag: see any_tag_selector.
    sites = dict.fromkeys(selector[:_TAG_OF_SITE] for selector in named if selector.startswith(b"tag "))
    return [(selector, xxhash.xxh3_64_intdigest(selector), int(mode)) for selector in (*named, *sites)]


def everything(sites: Sites) -> list[Row]:
    """:return: rows that invalidate all that is stored."""
    return [row for rows in each_site(sites).values() for row in rows]


def each_site(sites: Sites) -> dict[int, list[Row]]:
    """:return: by its id, rows that invalidate all that is stored of a site."""
    return {site.id: rows_of([Selector("all", site.id, b"").canonical], PurgeMode.REVALIDATE) for site in sites.all}


def selectors_of_target(site_id: int, target: bytes) -> tuple[int, ...]:
    """Hashes of everything by which a purge can name a URL before its response is known."""
    return (all_selector(site_id), url_selector(site_id, target), *prefix_selectors(site_id, target))


def normal_target(target: bytes) -> bytes:
    """
    :return: path and query as a purge must find them however they were spelt (RFC 3986 §6.2.2): escapes of
        unreserved characters undone, dot segments resolved. Cache keys are not normalised, only selectors.

    >>> normal_target(b"/%7ea/./b/../c%2f?x=%41")
    b'/~a/c%2F?x=A'
    """
    target = unescaped(target)
    if b"/." not in target:
        return target
    path, mark, query = target.partition(b"?")
    kept: list[bytes] = []
    segments = path.split(b"/")
    for place, segment in enumerate(segments):
        if segment in (b".", b".."):
            if segment == b".." and len(kept) > 1:
                kept.pop()
            if place == len(segments) - 1:
                kept.append(b"")
        else:
            kept.append(segment)
    return b"/".join(kept) + mark + query


_ABSOLUTE = re.compile(rb"(https?)://([^/?#]+)([^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)


def named_by_url(url: bytes, sites: Sites, kind: str = "url") -> list[Selector] | None:
    """
    :param url: as clients know it: a path (selects it on every site) or an absolute URL (on the sites that it names,
        if any). A prefix that a site's own path begins with selects everything there.
    :return: ``None`` if it is neither.
    """
    if url.startswith(b"/"):
        path = normal_target(_escaped(url.partition(b"#")[0]))
        below = [(site, site.selected(path, prefix=kind == "prefix")) for site in sites.all]
        return [Selector(kind, site.id, _meant(kind, site, target)) for site, target in below if target is not None]
    matched = _ABSOLUTE.fullmatch(url)
    if matched is None:
        return None
    authority = host_octets(matched[2].rpartition(b"@")[2].decode("utf-8", "replace"))
    authority = without_default_port(matched[1].lower(), authority)
    rest = matched[3] if matched[3].startswith(b"/") else b"/" + matched[3]
    named = sites.named(authority, normal_target(_escaped(rest)), prefix=kind == "prefix")
    return [Selector(kind, site.id, _meant(kind, site, path)) for site, path in named]


_RAW = re.compile(rb"[^\x21-\x7e]")


def _escaped(target: bytes) -> bytes:
    """What no request has as it is, people write so all the same."""
    return _RAW.sub(lambda matched: b"%%%02X" % matched[0][0], target)


def _meant(kind: str, site: Site, target: bytes) -> bytes:
    """Pages and files of an index are stored by one path each, however they are asked for."""
    if not site.index:
        return target
    path = target.partition(b"?")[0]
    place = place_of(path)
    while place.reference is not None:
        above = b"" if place.reference.startswith(b"/") else path[: path.rindex(b"/") + 1]
        path = normal_target(above + place.reference)
        place = place_of(path)
    return place.canonical or (canonical_prefix(target) if kind == "prefix" else target)


def named_by_tag(tag: bytes, sites: Sites) -> list[Selector]:
    """:return: the tag on every site; of an index also as its pages have it, whose projects' names are normalised."""
    found = [Selector("tag", site.id, tag) for site in sites.all]
    if tag.startswith(_PROJECT):
        normal = project_tag(tag.removeprefix(_PROJECT))
        found += (Selector("tag", site.id, normal) for site in sites.all if site.index and normal != tag)
    return found
