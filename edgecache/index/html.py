"""
Pages in HTML (PEP 503) read into what the same page is in JSON (PEP 691).

Read are anchors (``href``, text, ``data-requires-python``, ``data-yanked``, ``data-core-metadata`` and its old name
``data-dist-info-metadata``, ``data-gpg-sig``, ``data-provenance``), ``base``, the ``pypi:`` metas of PEP 629, 708
and 792, and the serial that the legacy index writes as ``<!--SERIAL 123-->``. Nothing else of a page is looked at,
and nothing of it is ever sent on as markup.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any, Final

from attrs import define, field

from edgecache.index.errors import BadPage
from edgecache.index.links import BadLink, filename_of
from edgecache.rules.indexpaths import PageKind, is_file, normalised_name

# Three to a project (anchor, its end, a line break) and room for twice the largest list there is. Each costs
# microseconds of Python, so this also bounds what a hostile page costs.
MOST_TAGS: Final = 5_000_000

# Of an anchor; file names have at most 255.
_LONGEST_TEXT: Final = 512

_SERIAL = re.compile(r"\s*SERIAL\s+([0-9]{1,18})\s*")
_DIGEST = re.compile(r"([a-z0-9_-]{1,32})=([0-9a-f]{1,256})")
# Beside the files they belong to, in plain directories; no page lists them as files.
_COMPANIONS: Final = (b".asc", b".sig", b".metadata", b".provenance")


@define
class _Anchor:
    href: str
    attributes: dict[str, str | None]
    text: str = ""


@define(eq=False)
class _Page(HTMLParser):
    anchors: list[_Anchor] = field(factory=list)
    metas: list[tuple[str, str]] = field(factory=list)
    base: str | None = None
    serial: int | None = None
    _open: _Anchor | None = None

    def __attrs_post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            # The first of two attributes counts, as in browsers.
            attributes = dict(reversed(attrs))
            href = attributes.get("href")
            self._open = None
            if href:
                self._open = _Anchor(href, attributes)
                self.anchors.append(self._open)
        elif tag == "meta":
            attributes = dict(reversed(attrs))
            name = (attributes.get("name") or "").strip().lower()
            if name.startswith("pypi:"):
                self.metas.append((name, (attributes.get("content") or "").strip()))
        elif tag == "base" and self.base is None:
            self.base = dict(reversed(attrs)).get("href")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._open = None

    def handle_data(self, data: str) -> None:
        # No further than names are long: what is appended to again and again is copied each time.
        if self._open is not None and len(self._open.text) < _LONGEST_TEXT:
            self._open.text += data[:_LONGEST_TEXT]

    def handle_comment(self, data: str) -> None:
        matched = _SERIAL.fullmatch(data)
        if matched is not None:
            self.serial = int(matched[1])


def read_html(kind: PageKind, text: str) -> tuple[dict[str, Any], str | None]:
    """
    :return: the page as PEP 691 has it, links as they stand, and what ``base`` says they are relative to.
    :raises BadPage: it breaks off, or is another kind of page altogether.
    """
    if text.count("<") > MOST_TAGS:
        raise BadPage("more tags than any index has")
    page = _Page()
    try:
        page.feed(text)
    except (AssertionError, ValueError):
        # The parser's own words for declarations it does not know, and numbers of too many digits.
        raise BadPage("markup that is none") from None
    # Never close(): it would take what is unfinished for text, at quadratic cost.
    if page.rawdata.startswith("<"):
        raise BadPage("breaks off within a tag")
    found, told = (_projects(page), "projects") if kind is PageKind.LIST else (_files(page), "files")
    metas = dict(reversed(page.metas))
    version = metas.get("pypi:repository-version")
    if page.anchors and not found and version is None:
        raise BadPage("links, but none of an index: some other page")
    # 1.1 and above promise versions and sizes (PEP 700), which HTML has not.
    meta: dict[str, Any] = {"api-version": _spoken(version)}
    if page.serial is not None:
        meta["_last-serial"] = page.serial
    tracks = [content for name, content in page.metas if name == "pypi:tracks"]
    if tracks:
        meta["tracks"] = tracks
    document: dict[str, Any] = {"meta": meta, told: found}
    locations = [content for name, content in page.metas if name == "pypi:alternate-locations"]
    if locations:
        document["alternate-locations"] = locations
    status = metas.get("pypi:project-status")
    if status is not None:
        document["project-status"] = {"status": status}
        if "pypi:project-status-reason" in metas:
            document["project-status"]["reason"] = metas["pypi:project-status-reason"]
    return document, page.base


def _spoken(version: str | None) -> str:
    return "1.0" if version is None or version.startswith("1.") else version


def _projects(page: _Page) -> list[dict[str, Any]]:
    found: dict[str, None] = {}
    for anchor in page.anchors:
        try:
            name = filename_of(anchor.href.partition("#")[0].partition("?")[0].rstrip("/"))
        except BadLink:
            continue
        shown = anchor.text.strip().rstrip("/")
        # Directory listings shorten what they show.
        if _normal(shown) == _normal(name):
            name = shown
        if name not in ("", ".", "..") and not name.endswith(":"):
            found[name] = None
    return [{"name": name} for name in found]


def _normal(name: str) -> bytes:
    return normalised_name(name.encode("utf-8", "replace"))


def _files(page: _Page) -> list[dict[str, Any]]:
    found = []
    for anchor in page.anchors:
        name = _filename(anchor)
        if name is None:
            continue
        file: dict[str, Any] = {"filename": name, "url": anchor.href, "hashes": {}}
        _attributes(file, anchor.attributes)
        found.append(file)
    return found


def _filename(anchor: _Anchor) -> str | None:
    """The last segment of the link, as installers have it; else the text, where that names a file."""
    try:
        name = filename_of(anchor.href.strip(" \t\r\n\f"))
    except BadLink:
        name = ""
    for candidate in (name, anchor.text.strip()):
        octets = candidate.encode("utf-8", "replace").lower()
        if is_file(octets) and not octets.endswith(_COMPANIONS):
            return candidate
    return None


def _attributes(file: dict[str, Any], attributes: dict[str, str | None]) -> None:
    requires = attributes.get("data-requires-python")
    if requires:
        file["requires-python"] = requires
    if "data-yanked" in attributes:
        file["yanked"] = attributes["data-yanked"] or True
    for name in ("data-core-metadata", "data-dist-info-metadata"):
        if name in attributes:
            file["core-metadata"] = _metadata(attributes[name])
            break
    signed = attributes.get("data-gpg-sig")
    if signed is not None:
        file["gpg-sig"] = signed.strip().lower() == "true"
    if attributes.get("data-provenance"):
        file["provenance"] = attributes["data-provenance"]


def _metadata(value: str | None) -> bool | dict[str, str]:
    """What cannot be read is no promise: clients ask for what is promised, and fail when it is not there."""
    value = (value or "true").strip().lower()
    digest = _DIGEST.fullmatch(value)
    return value == "true" if digest is None else {digest[1]: digest[2]}
