"""
Canonical documents: what is stored of a page of an index, whatever form the origin sent it in.

A canonical document is JSON: PEP 691 (with 700, 708, 714, 740 and 792) for lists and projects, the legacy
``/pypi/<name>/json`` for releases. Links to files are absolute, names normalised, keys that we don't know kept as
they are. It is its own canonical document.

What is refused (:class:`BadPage`, nothing stored): what is neither JSON nor HTML of an index; JSON that is not one
(NaN, invalid UTF-8, lone surrogates), has another shape, nests deeper than 250 levels or has over 2 million values
(a list: 6 million); over 10,000 entries to drop; an api-version whose major is not 1; a page about another project;
HTML that breaks off within a tag, has one of over 128 KiB, over 500,000 of them or a million attributes (a list: 3
million of each), or whose links lead to no file. A page that lists something none of which is usable is refused
too: what would be left of it says that a project has no files.

What is dropped, the rest of the page being kept: a file without a filename that is one segment and printable, or
without a usable URL (``index.links``), or whose sha256 is none; anything about a file that has the wrong type.
``Document.dropped`` counts those files. Files of a quarantined project (PEP 792) are dropped without being counted.

Numbers: integers outside 64 bits become floats in keys that we don't know, and are dropped where we know the key.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import orjson
from attrs import define, frozen

from edgecache.index.errors import BadPage
from edgecache.index.html import read_html
from edgecache.index.links import BadLink, Base, checked_filename
from edgecache.rules.indexpaths import PageKind, normalised_name
from edgecache.rules.representations import Media

__all__ = ["ACTIVE", "QUARANTINED", "BadPage", "Document", "canonical"]

ACTIVE: Final = "active"
QUARANTINED: Final = "quarantined"
"""No files are offered, whatever the origin's page lists (PEP 792)."""

# Commas and brackets: what becomes of one in memory is up to 30 times its size, so the page's size alone is no bound.
# About three times what the largest list has, and six times what 20,000 files have.
MOST_VALUES: Final = {PageKind.LIST: 6_000_000, PageKind.PROJECT: 2_000_000, PageKind.RELEASES: 2_000_000}
MOST_DROPPED: Final = 10_000

_JSON_TYPES: Final = (
    Media.JSON.value,
    b"application/vnd.pypi.simple.latest+json",
    Media.PLAIN_JSON.value,
    Media.SOURCE.value,
)
_HTML_TYPES: Final = (
    Media.HTML.value,
    b"application/vnd.pypi.simple.latest+html",
    Media.TEXT.value,
    b"application/xhtml+xml",
)
# What servers send that were told nothing about the file.
_TELLS_NOTHING: Final = (b"", b"application/octet-stream", b"text/plain")
_CHARSETS: Final = {b"iso-8859-1": "latin-1", b"latin-1": "latin-1", b"windows-1252": "cp1252"}
_CHARSET = re.compile(rb";\s*charset\s*=\s*\"?([A-Za-z0-9_-]+)", re.IGNORECASE)
_BOM: Final = b"\xef\xbb\xbf"

# The keys of a file's digests, in PEP 691 and in the legacy documents.
_HASHES: Final = "hashes"
_DIGESTS: Final = "digests"
_YANKED: Final = (bool, str)

_PROJECT = re.compile(rb"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_VERSION = re.compile(r"1(?:\.[0-9]{1,9})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
_HASH_VALUE = re.compile(r"[0-9A-Fa-f]{1,256}")
# What a link's fragment may name a digest by (PEP 503); what else it says stays in it.
_ALGORITHMS: Final = frozenset((*hashlib.algorithms_guaranteed, "blake2b_256"))
_HIGHEST = 2**63 - 1


@frozen
class Document:
    """
    A page, canonical.

    :ivar octets: the JSON.
    :ivar serial: of the page, where it tells one; the field ``X-PyPI-Last-Serial`` is the caller's.
    :ivar status: of the project (PEP 792); ``active`` for pages that have none.
    :ivar dropped: how many files or projects of the origin's page are not in it.
    :ivar why_dropped: of the first of them, ``""`` without any.
    """

    octets: bytes
    serial: int | None = None
    status: str = ACTIVE
    dropped: int = 0
    why_dropped: str = ""


@define
class _Dropped:
    count: int = 0
    why: str = ""

    def one(self, why: str) -> None:
        self.count += 1
        self.why = self.why or why
        if self.count > MOST_DROPPED:
            raise BadPage(f"over {MOST_DROPPED} entries that nothing can be made of: {self.why}")


def canonical(kind: PageKind, project: bytes, content: bytes, content_type: bytes, url: bytes) -> Document:
    """
    :param project: normalised, of the page asked for; ``b""`` for the list.
    :param content: as the origin sent it, without content coding.
    :param content_type: the field's value.
    :param url: of the page at the origin, absolute: links are relative to it.
    :raises BadPage: it is no page of an index, or not this one.
    """
    if kind is not PageKind.LIST and _PROJECT.fullmatch(project) is None:
        raise BadPage("asked for under a name that no project has")
    try:
        base = Base.of(url.decode("ascii"))
    except (UnicodeDecodeError, BadLink):
        raise BadPage("asked for by a URL that nothing can be relative to") from None
    page, told_base = _read(kind, content, content_type)
    if told_base is not None:
        try:
            base = Base.of(base.resolve(told_base))
        except BadLink as bad:
            raise BadPage(f"base of its links: {bad.why}") from None
    dropped = _Dropped()
    if kind is PageKind.RELEASES:
        status = ACTIVE
        serial = _whole(page.get("last_serial"))
        _releases(page, project, base, dropped)
    else:
        serial = _whole(_meta(page).get("_last-serial"))
        status = _status(page)
        if kind is PageKind.LIST:
            _projects(page, dropped)
        else:
            _project(page, project, base, status, dropped)
    try:
        octets = orjson.dumps(page)
    except TypeError:
        raise BadPage("nests too deeply") from None
    return Document(octets, serial, status, dropped.count, dropped.why)


def _read(kind: PageKind, content: bytes, content_type: bytes) -> tuple[dict[str, Any], str | None]:
    media = content_type.partition(b";")[0].strip().lower()
    content = content.removeprefix(_BOM)
    if kind is PageKind.RELEASES or media in _JSON_TYPES:
        return _json(kind, content), None
    if media in _HTML_TYPES:
        return read_html(kind, _text(content, content_type))
    if media.startswith(b"application/vnd.pypi.simple."):
        raise BadPage("Content-Type of a version of the API that is not 1")
    if media in _TELLS_NOTHING:
        start = content[:256].lstrip()[:1]
        if start == b"{":
            return _json(kind, content), None
        if start == b"<":
            return read_html(kind, _text(content, content_type))
    raise BadPage("Content-Type of nothing that an index sends")


def _text(content: bytes, content_type: bytes) -> str:
    named = _CHARSET.search(content_type)
    return content.decode(_CHARSETS.get(named[1].lower(), "utf-8") if named else "utf-8", "replace")


def _json(kind: PageKind, content: bytes) -> dict[str, Any]:
    if content.count(b",") + content.count(b"[") + content.count(b"{") > MOST_VALUES[kind]:
        raise BadPage("more values than any index has")
    try:
        page = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadPage(f"not JSON: {error.msg}") from None
    if type(page) is not dict:
        raise BadPage("not a JSON object")
    return page


def _meta(page: dict[str, Any]) -> dict[str, Any]:
    meta = page.setdefault("meta", {})
    if type(meta) is not dict:
        raise BadPage("meta is not an object")
    version = meta.setdefault("api-version", "1.0")
    if type(version) is not str or _VERSION.fullmatch(version) is None:
        raise BadPage("meta.api-version is not 1.x")
    return meta


def _whole(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _HIGHEST else None


def _status(page: dict[str, Any]) -> str:
    told = page.get("project-status")
    if told is None:
        return ACTIVE
    status = told.get("status", ACTIVE) if type(told) is dict else told
    if type(status) is not str:
        raise BadPage("project-status is none")
    return status.strip().lower()


def _projects(page: dict[str, Any], dropped: _Dropped) -> None:
    entries = page.get("projects")
    if type(entries) is not list:
        raise BadPage("a list without projects")
    kept = []
    for entry in entries:
        if type(entry) is not dict:
            dropped.one("project that is not an object")
            continue
        try:
            checked_filename(entry.get("name"))
        except BadLink as bad:
            dropped.one(f"project: {bad.why}")
            continue
        kept.append(entry)
    page["projects"] = kept
    _some_left(entries, kept, dropped)


def _require_about(project: bytes, name: object) -> None:
    if type(name) is not str or (name and normalised_name(name.encode()) != project):
        raise BadPage("about another project")


def _project(page: dict[str, Any], project: bytes, base: Base, status: str, dropped: _Dropped) -> None:
    _require_about(project, page.get("name", ""))
    page["name"] = project.decode("ascii")
    files = page.get("files")
    if type(files) is not list:
        raise BadPage("a project without files")
    if type(page.get("versions", [])) is not list:
        del page["versions"]
    if status == QUARANTINED:
        page["files"] = []
    else:
        page["files"] = _files(files, base, dropped, _HASHES)
        _some_left(files, page["files"], dropped)


def _some_left(told: list[Any], kept: list[Any], dropped: _Dropped) -> None:
    """An empty page says that nothing is there; one of which nothing is usable does not."""
    if told and not kept:
        raise BadPage(f"none of what it lists is usable: {dropped.why}")


def _releases(page: dict[str, Any], project: bytes, base: Base, dropped: _Dropped) -> None:
    information = page.get("info")
    if type(information) is not dict:
        raise BadPage("releases without info")
    _require_about(project, information.get("name", ""))
    urls = page.get("urls")
    if urls is not None:
        if type(urls) is not list:
            raise BadPage("urls are not a list")
        page["urls"] = _files(urls, base, dropped, _DIGESTS)
    releases = page.get("releases")
    if releases is not None:
        if type(releases) is not dict or any(type(files) is not list for files in releases.values()):
            raise BadPage("releases are not lists by version")
        for version, files in releases.items():
            releases[version] = _files(files, base, dropped, _DIGESTS)


def _files(entries: list[Any], base: Base, dropped: _Dropped, hashes: str) -> list[dict[str, Any]]:
    kept = []
    for entry in entries:
        if type(entry) is not dict:
            dropped.one("file that is not an object")
            continue
        try:
            checked_filename(entry.get("filename"))
            url = entry["url"] = base.resolve(entry.get("url"))
            if "#" in url:
                _take_digests(entry, hashes)
            told = entry.get(hashes)
            # Nearly all have this one; the rest is looked at closely.
            if type(told) is not dict or len(told) != 1 or not _is_sha256(told.get("sha256")):
                entry[hashes] = _checked_hashes(told)
            if hashes == _HASHES:
                _check_file(entry)
        except BadLink as bad:
            dropped.one(bad.why)
            continue
        kept.append(entry)
    return kept


def _take_digests(entry: dict[str, Any], hashes: str) -> None:
    """Digests in the link's fragment move to the others; where both name one, the link's is forgotten."""
    url, _, fragment = entry["url"].partition("#")
    if type(entry.get(hashes)) is not dict:
        entry[hashes] = {}
    rest = []
    for part in fragment.split("&"):
        name, told, value = part.partition("=")
        if told and name.lower() in _ALGORITHMS:
            entry[hashes].setdefault(name.lower(), value)
        else:
            rest.append(part)
    entry["url"] = f"{url}#{'&'.join(rest)}" if any(rest) else url


def _check_file(entry: dict[str, Any]) -> None:
    if "dist-info-metadata" in entry:
        # Never sent on in JSON: clients exist that read it wrongly (PEP 714).
        old = entry.pop("dist-info-metadata")
        entry.setdefault("core-metadata", old)
    metadata = entry.get("core-metadata", False)
    if type(metadata) is dict:
        if len(metadata) != 1 or not _is_sha256(metadata.get("sha256")):
            entry["core-metadata"] = _checked_hashes(metadata)
    elif type(metadata) is not bool:
        del entry["core-metadata"]
    if type(entry.get("yanked", False)) not in _YANKED:
        entry["yanked"] = bool(entry["yanked"])
    if type(entry.get("gpg-sig", False)) is not bool:
        del entry["gpg-sig"]
    if type(entry.get("requires-python", "")) is not str:
        del entry["requires-python"]
    if _whole(entry.get("size", 0)) is None:
        del entry["size"]


def _is_sha256(value: object) -> bool:
    return type(value) is str and _SHA256.fullmatch(value) is not None


def _checked_hashes(hashes: object) -> dict[str, str]:
    """:raises BadLink: what it gives for sha256 cannot be one, so that nothing could be verified."""
    kept: dict[str, str] = {}
    if type(hashes) is not dict:
        return kept
    for name, value in hashes.items():
        if name.lower() == "sha256":
            if type(value) is not str or not _is_sha256(value.lower()):
                raise BadLink("sha256 that is none")
            kept["sha256"] = value.lower()
        elif type(value) is str and _HASH_NAME.fullmatch(name) and _HASH_VALUE.fullmatch(value):
            kept[name] = value
    return kept
