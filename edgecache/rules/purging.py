"""The document of a purge request, understood or refused with a reason (DESIGN 9, 11)."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from edgecache.rules.indexpaths import project_tag
from edgecache.rules.selectors import MAX_PREFIX_SEGMENTS, Selector, named_by_tag, named_by_url
from edgecache.rules.sites import Sites
from edgecache.words.reasons import PurgeMode

MODES = {"soft": PurgeMode.SOFT, "revalidate": PurgeMode.REVALIDATE, "delete": PurgeMode.DELETE}

MAX_VALUE = 8192
"""Octets of one entry."""

MAX_ID = 200
"""Characters of the caller's id."""

MOST_SERIAL = 1 << 63
"""Serials are below it."""


@frozen
class PurgeAsked:
    """
    A purge request, understood.

    :ivar selectors: without duplicates, in the order named; empty if URLs name no site of ours.
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


class _Bad(Exception):
    """Becomes a :class:`BadPurge`."""


def parse_purge(document: Any, sites: Sites, *, most: int = 10_000) -> PurgeAsked | BadPurge:
    """
    The JSON document of ``POST /purge`` (DESIGN 11).

    :param most: selectors that one purge may have.
    """
    try:
        return _parsed(document, sites, most)
    except _Bad as bad:
        return BadPurge(str(bad))


_KEYS = ("urls", "prefixes", "tags", "all", "serials", "mode", "id")


def _parsed(document: Any, sites: Sites, most: int) -> PurgeAsked:
    if not isinstance(document, dict):
        raise _Bad("The body must be a JSON object.")
    for key in document:
        if key not in _KEYS:
            raise _Bad(f"Unknown key {key!r}; known are {', '.join(_KEYS)}.")
    mode = document.get("mode", "revalidate")
    if not isinstance(mode, str) or mode not in MODES:
        raise _Bad(f"mode must be one of {', '.join(MODES)}, not {mode!r}.")
    purge_id = document.get("id", "")
    if not isinstance(purge_id, str) or len(purge_id) > MAX_ID or not purge_id.isprintable():
        raise _Bad(f"id must be a printable string of at most {MAX_ID} characters.")
    everything = document.get("all", False)
    if not isinstance(everything, bool):
        raise _Bad(f"all must be true or false, not {everything!r}.")
    entries = sum(len(document[key]) for key in ("urls", "prefixes", "tags", "serials") if _has_length(document, key))
    if not everything and entries == 0:
        raise _Bad("Nothing is named: give urls, prefixes, tags, serials, or all.")
    if entries > most:
        raise _Bad(f"{entries} entries are more than the {most} that one purge may have.")
    found: dict[Selector, None] = {}
    for url in _strings(document, "urls"):
        found.update(dict.fromkeys(_by_url("urls", url, sites)))
    for prefix in _strings(document, "prefixes"):
        found.update(dict.fromkeys(_by_prefix(prefix, sites)))
    for tag in _strings(document, "tags"):
        found.update(dict.fromkeys(named_by_tag(tag.encode(), sites)))
    serials = _serials(document)
    for project in serials:
        tag_octets = project_tag(project.encode())
        found.update(dict.fromkeys(Selector("tag", site.id, tag_octets) for site in sites.all))
    if everything:
        found.update(dict.fromkeys(Selector("all", site.id, b"") for site in sites.all))
    if len(found) > most:
        raise _Bad(f"{len(found)} selectors are more than the {most} that one purge may have.")
    return PurgeAsked(tuple(found), MODES[mode], serials, purge_id)


def _has_length(document: dict[str, Any], key: str) -> bool:
    value = document.get(key)
    if value is None:
        return False
    if not isinstance(value, dict if key == "serials" else list):
        raise _Bad(f"{key} must be {'an object' if key == 'serials' else 'a list of strings'}, not {value!r}.")
    return True


def _strings(document: dict[str, Any], key: str) -> list[str]:
    values = document.get(key) or []
    for value in values:
        if not isinstance(value, str) or not value or not value.isprintable() or len(value.encode()) > MAX_VALUE:
            raise _Bad(f"{key}: {value!r} is no printable string of 1 to {MAX_VALUE} octets.")
    return list(values)


def _by_url(key: str, url: str, sites: Sites, kind: str = "url") -> list[Selector]:
    named = named_by_url(url.encode(), sites, kind)
    if named is None:
        raise _Bad(f"{key}: {url!r} is neither a path beginning with / nor an http or https URL.")
    return named


def _by_prefix(prefix: str, sites: Sites) -> list[Selector]:
    if not prefix.endswith("/"):
        raise _Bad(f"prefixes: {prefix!r} does not end in /.")
    if "?" in prefix or "#" in prefix:
        raise _Bad(f"prefixes: {prefix!r} has a query or a fragment; a prefix is of the path.")
    named = _by_url("prefixes", prefix, sites, "prefix")
    for selector in named:
        if selector.value.count(b"/") - 1 > MAX_PREFIX_SEGMENTS:
            raise _Bad(f"prefixes: {prefix!r} has more than {MAX_PREFIX_SEGMENTS} segments.")
    return named


def _serials(document: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for project, serial in (document.get("serials") or {}).items():
        if not project or len(project) > 256 or not project.isascii() or not project.isprintable():
            raise _Bad(f"serials: {project!r} is no project name.")
        if isinstance(serial, bool) or not isinstance(serial, int) or not 0 <= serial < MOST_SERIAL:
            raise _Bad(f"serials: {serial!r} of {project!r} is no serial number.")
        name = project_tag(project.encode())[len("project/") :].decode()
        found[name] = max(serial, found.get(name, 0))
    return found
