"""What the paths of a Python package index mean (PEP 503, PEP 691; FIELD 3)."""

from __future__ import annotations

import enum
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from attrs import frozen

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


class PageKind(enum.Enum):
    """What a page of an index is about."""

    LIST = "list"
    """``/simple/``: all projects."""
    PROJECT = "project"
    """``/simple/<project>/``: its files."""
    RELEASES = "releases"
    """``/pypi/<project>/json`` and ``/pypi/<project>/<version>/json``."""


@frozen
class PageAsked:
    """
    A page that links to files, or lists those that do.

    :ivar project: normalised; ``b""`` for the list.
    """

    kind: PageKind
    project: bytes = b""


@frozen
class ArtifactAsked:
    """
    ``/files/<project>/<sha256 or ->/<filename>``: a file as pages of ours name it.

    :ivar sha256: 32 octets that the *file* hashes to, ``b""`` where the page gives none.
    :ivar filename: of the file as the page names it, percent-decoded.
    :ivar companion: ``b".metadata"`` or ``b".asc"`` if that is asked for and not the file itself, else ``b""``.
    """

    project: bytes
    sha256: bytes
    filename: bytes
    companion: bytes = b""


FILES = b"/files/"
"""Where files are, whatever hosts their pages link to."""

_RELEASES = re.compile(rb"/pypi/([^/]+)(?:/[^/]+)?/json")
_PROJECT = re.compile(rb"/simple/([^/]+)/")
_ARTIFACT = re.compile(rb"/files/([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)/([0-9a-f]{64}|-)/([^/]+)")
_COMPANIONS = (b".metadata", b".asc")


def page_of(path: bytes) -> PageAsked | None:
    """
    :param path: below the site's own path, without query.
    :return: which page it is; ``None`` for every other path.
    """
    if path == b"/simple/":
        return PageAsked(PageKind.LIST)
    matched = _PROJECT.fullmatch(path)
    if matched is not None:
        return PageAsked(PageKind.PROJECT, normalised_name(matched[1]))
    matched = _RELEASES.fullmatch(path)
    return None if matched is None else PageAsked(PageKind.RELEASES, normalised_name(matched[1]))


def artifact_of(path: bytes) -> ArtifactAsked | None:
    """
    :param path: below the site's own path, without query.
    :return: which file it is; ``None`` for a path that no page of ours names.
    """
    matched = _ARTIFACT.fullmatch(path)
    if matched is None:
        return None
    digest = b"" if matched[2] == b"-" else bytes.fromhex(matched[2].decode("ascii"))
    filename = unquote_to_bytes(matched[3])
    for companion in _COMPANIONS:
        if filename.endswith(companion) and len(filename) > len(companion):
            return ArtifactAsked(matched[1], digest, filename.removesuffix(companion), companion)
    return ArtifactAsked(matched[1], digest, filename)


def artifact_path(project: bytes, sha256: bytes, filename: bytes) -> bytes:
    """
    :param filename: as the page names it, not percent-encoded.
    :return: the path by which clients get the file; :func:`artifact_of` reads it.

    >>> artifact_path(b"six", b"", b"six-1.0+local.tar.gz")
    b'/files/six/-/six-1.0%2Blocal.tar.gz'
    """
    name = quote_from_bytes(filename, safe="").encode("ascii")
    return FILES + project + b"/" + (sha256.hex().encode("ascii") or b"-") + b"/" + name


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
