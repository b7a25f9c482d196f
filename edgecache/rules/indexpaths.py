"""What the paths of a Python package index mean (PEP 503, PEP 691; FIELD 3)."""

from __future__ import annotations

import enum
import re
from functools import lru_cache
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

_PAGE_OF_PROJECT = re.compile(
    rb"/(?:simple/([^/]+)/?|pypi/([^/]+)(?:/[^/]+)?/json|(?:packages/)?files/([^/]+)/[^/]+/[^/]+)"
)
_SEPARATORS = re.compile(rb"[-_.]+")
_NAME = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""Of a project, as clients may spell it (PEP 508)."""


def is_file(path: bytes) -> bool:
    """
    Is it an artifact, or what belongs to one? Everything else is a page: short-lived, to be on the safe side.

    :param path: without query.
    """
    return path.lower().endswith(_FILE_SUFFIXES)


def project_of_page(path: bytes) -> bytes | None:
    """
    :return: the normalised name of the project (PEP 503) that a page, or a file by a path of ours, belongs to;
        ``None`` for other paths.
    """
    matched = _PAGE_OF_PROJECT.fullmatch(path)
    return None if matched is None else normalised_name(matched[1] or matched[2] or matched[3])


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
    ``/files/<project>/<sha256 or ->/<filename>``, also below ``/packages``: a file as pages of ours name it.

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

RELEASED_FILES = b"/packages/files/"
"""The same files, for links of releases documents: bandersnatch takes none that begins otherwise than ``/packages``."""

_RELEASES = re.compile(rb"/pypi/([^/]+)((?:/[^/]+)?)/json")
_DOTS = (b"/.", b"/..")
_PROJECT = re.compile(rb"/simple/([^/]+)(/?)")
_ARTIFACT = re.compile(rb"(?:/packages)?/files/([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)/([0-9a-f]{64}|-)/([^/]+)")
_COMPANIONS = (b".metadata", b".asc")


def page_of(path: bytes) -> PageAsked | None:
    """
    :param path: below the site's own path, without query.
    :return: which page it is; ``None`` for every other path, and for one that :func:`redirected` leads to a page.
    """
    if path == b"/simple/":
        return PageAsked(PageKind.LIST)
    matched = _PROJECT.fullmatch(path)
    if matched is not None:
        return PageAsked(PageKind.PROJECT, matched[1]) if matched[2] and _is_normal(matched[1]) else None
    matched = _RELEASES.fullmatch(path)
    if matched is None or not _is_normal(matched[1]) or matched[2] in _DOTS or unescaped(path) != path:
        return None
    return PageAsked(PageKind.RELEASES, matched[1])


def redirected(path: bytes) -> bytes | None:
    """
    :param path: below the site's own path, without query.
    :return: relative reference to the page that is meant (PEP 503: one slash at the end, the project's name
        normalised); ``None`` where it is there already, or is no page.

    >>> redirected(b"/simple/Foo_Bar"), redirected(b"/pypi/Foo.Bar/1.0/json"), redirected(b"/simple/foo/")
    (b'./foo-bar/', b'../../foo-bar/1.0/json', None)
    """
    if path == b"/simple":
        return b"./simple/"
    matched = _PROJECT.fullmatch(path)
    if matched is not None:
        name = _normalised(matched[1])
        if name is None or (matched[2] and name == matched[1]) or (not matched[2] and is_file(path)):
            return None
        return (b"../" if matched[2] else b"./") + name + b"/"
    matched = _RELEASES.fullmatch(path)
    if matched is not None and matched[2] not in _DOTS:
        name = _normalised(matched[1])
        if name is not None and name != matched[1]:
            return (b"../../" if matched[2] else b"../") + name + matched[2] + b"/json"
    return None


def straightened(path: bytes) -> bytes | None:
    """
    Origins answer odd spellings of a page as well (an index URL that ends in a slash gives ``//simple/foo/``), but what
    they answer has their own links, and no purge of the project would name it.

    :param path: below the site's own path, without query, of no page or artifact.
    :return: reference to the page or artifact that is meant; ``None`` for what is none. It is relative, but where the
        path has empty segments: clients do not agree on what leads out of them.

    >>> straightened(b"/simple/./%66oo/"), straightened(b"//simple/foo/"), straightened(b"/a//b")
    (b'../../simple/foo/', b'/simple/foo/', None)
    """
    if _ODD.search(path) is None:
        return None
    plain = b"/" + b"/".join(_resolved(unescaped(path)))
    if plain == path or place_of(plain) == Place(file=is_file(plain)):
        return None
    if b"//" in path:
        return plain
    up = len(_resolved(path[: path.rindex(b"/") + 1])) - 1
    return (b"../" * up or b"./") + plain[1:]


_ODD = re.compile(rb"/[./]|%")


def _resolved(path: bytes) -> list[bytes]:
    """:return: segments without empty ones and dots (RFC 3986 §5.2.4); the last one is empty for a directory."""
    steps: list[bytes] = []
    segment = b""
    for segment in path.split(b"/"):
        if segment == b"..":
            del steps[-1:]
        elif segment not in (b"", b"."):
            steps.append(segment)
    return [*steps, b""] if segment in (b"", b".", b"..") else steps


_ESCAPED = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def unescaped(target: bytes) -> bytes:
    """
    :return: with escapes of unreserved characters undone, and others in upper case (RFC 3986 §6.2.2).

    >>> unescaped(b"/%7ea%2f")
    b'/~a%2F'
    """
    return _ESCAPED.sub(_unescaped, target) if b"%" in target else target


def _unescaped(matched: re.Match[bytes]) -> bytes:
    octet = int(matched[1], 16)
    return bytes((octet,)) if octet in _UNRESERVED else matched[0].upper()


def _normalised(spelt: bytes) -> bytes | None:
    name = unquote_to_bytes(spelt)
    return normalised_name(name) if _NAME.fullmatch(name) else None


def _is_normal(name: bytes) -> bool:
    return _normalised(name) == name


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


_BELOW_A_PROJECT = re.compile(rb"(?:/packages)?(/files/(?:[^/]+/.*)?)|(/pypi/[^/]+/.*)")


def canonical_prefix(path: bytes) -> bytes:
    """
    :param path: what paths of pages and files begin with, to the end of a segment.
    :return: what those that are meant are stored under.

    >>> canonical_prefix(b"/packages/files/Foo_Bar/"), canonical_prefix(b"/pypi/Foo.Bar/1.0/")
    (b'/files/foo-bar/', b'/pypi/foo-bar/1.0/')
    """
    matched = _BELOW_A_PROJECT.fullmatch(path)
    if matched is None:
        return path
    _, directory, project, *rest = (matched[1] or matched[2]).split(b"/")
    return b"/".join((b"", directory, _normalised(project) or project, *rest))


@frozen
class Place:
    """
    What a path of an index means.

    :ivar reference: of :func:`redirected`, or of :func:`straightened`, which may begin with a slash: below the site.
    :ivar file: it is an artifact, or belongs to one (:func:`is_file`).
    :ivar canonical: the one target by which that page or artifact is stored; ``b""`` for anything else.
    """

    reference: bytes | None = None
    artifact: ArtifactAsked | None = None
    page: PageAsked | None = None
    file: bool = False
    canonical: bytes = b""


NOWHERE = Place()
"""What is not of an index."""

_MOST_OCTETS = 512
"""Of a path that is remembered; paths of the public index have 50 to 250."""


def place_of(path: bytes) -> Place:
    """:param path: below the site's own path, without query."""
    return _remembered_place(path) if len(path) <= _MOST_OCTETS else _place(path)


def _place(path: bytes) -> Place:
    artifact = artifact_of(path)
    if artifact is not None:
        canonical = artifact_path(artifact.project, artifact.sha256, artifact.filename + artifact.companion)
        return Place(artifact=artifact, file=True, canonical=canonical)
    page = page_of(path)
    if page is not None:
        return Place(page=page, file=is_file(path), canonical=path)
    return Place(redirected(path) or straightened(path), file=is_file(path))


# All clients ask for the same paths, with heads of many kinds. At worst six megabytes.
_remembered_place = lru_cache(maxsize=2048)(_place)


_JSON = b"application/vnd.pypi.simple.v1+json"
_KNOWN_TYPES = {
    _JSON: _JSON,
    b"application/vnd.pypi.simple.latest+json": _JSON,
    b"application/vnd.pypi.simple.v1+html": b"application/vnd.pypi.simple.v1+html",
    b"application/vnd.pypi.simple.latest+html": b"application/vnd.pypi.simple.v1+html",
    b"text/html": b"text/html",
    b"application/json": b"application/json",
}

SIMPLE_ACCEPT = _JSON + b", application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
"""What an index is asked for pages with (PEP 691): one stored page serves all clients, and JSON says most."""


def page_accept(ranked: list[tuple[bytes, float]]) -> bytes:
    """
    The few Accept values that an index is asked with for what looks like a page and is none of ours, so that it is
    stored once per kind of client.

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
