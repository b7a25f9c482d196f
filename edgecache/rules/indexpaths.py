"""What the paths of a Python package index mean (PEP 503, PEP 691; FIELD 3)."""

from __future__ import annotations

import re

_FILE_SUFFIXES = (
    b".whl",
    b".tar.gz",
    b".zip",
    b".tar.bz2",
    b".tar.xz",
    b".tar.z",
    b".tgz",
    b".egg",
    b".exe",
    b".msi",
    b".rpm",
    b".deb",
    b".dmg",
    b".asc",
    b".sig",
    b".metadata",
    b".provenance",
)

_PAGE_OF_PROJECT = re.compile(rb"/(?:simple/([^/]+)/?|pypi/([^/]+)(?:/[^/]+)?/json)")
_SEPARATORS = re.compile(rb"[-_.]+")


def is_file(path: bytes) -> bool:
    """
    Is it an artifact, or what belongs to one? Everything else is a page: short-lived, to be on the safe side.

    :param path: without query.
    """
    return path.lower().endswith(_FILE_SUFFIXES)


def project_of_page(path: bytes) -> bytes | None:
    """:return: the normalised name of the project that a page is about (PEP 503), ``None`` for other paths."""
    matched = _PAGE_OF_PROJECT.fullmatch(path)
    return None if matched is None else normalised_name(matched[1] or matched[2])


def normalised_name(name: bytes) -> bytes:
    """
    :return: a project's normalised name (PEP 503).

    >>> normalised_name(b"Zope.Interface")
    b'zope-interface'
    """
    return _SEPARATORS.sub(b"-", name).lower()


def project_tag(name: bytes) -> bytes:
    """:return: the tag by which everything about a project is purged."""
    return b"project/" + normalised_name(name)


_JSON = b"application/vnd.pypi.simple.v1+json"
_KNOWN_TYPES = {
    _JSON: _JSON,
    b"application/vnd.pypi.simple.latest+json": _JSON,
    b"application/vnd.pypi.simple.v1+html": b"application/vnd.pypi.simple.v1+html",
    b"application/vnd.pypi.simple.latest+html": b"application/vnd.pypi.simple.v1+html",
    b"text/html": b"text/html",
    b"application/json": b"application/json",
}


def page_accept(ranked: list[tuple[bytes, float]]) -> bytes:
    """
    The few Accept values that an index is asked with (PEP 691), so that pages are stored once per kind of client.

    :param ranked: media types that the client accepts, with weights, best first.
    :return: the known ones in the client's order; ``*/*`` if it has named none of them.
    """
    kinds: list[bytes] = []
    for kind, _ in ranked:
        known = _KNOWN_TYPES.get(kind)
        if known is not None and known not in kinds:
            kinds.append(known)
    if not kinds:
        return b"*/*"
    return b", ".join(kind if place == 0 else b"%b;q=0.%d" % (kind, 9 - place) for place, kind in enumerate(kinds))
