"""
Pages in HTML (PEP 503) read into what the same page is in JSON (PEP 691).

Read are anchors (``href``, text, ``data-requires-python``, ``data-yanked``, ``data-core-metadata`` and its old name
``data-dist-info-metadata``, ``data-gpg-sig``, ``data-provenance``), ``base``, the ``pypi:`` metas of PEP 629, 708
and 792, and the serial that the legacy index writes as ``<!--SERIAL 123-->``. Nothing else of a page is looked at,
and nothing of it is ever sent on as markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any, Final

from attrs import define, field

from edgecache.index.errors import BadPage
from edgecache.index.links import BadLink, filename_of
from edgecache.rules.indexpaths import PageKind, is_file, normalised_name

# Three to a project or file (anchor, its end, a line break), and room for more than the largest there are. Each costs
# microseconds of Python, as does each attribute, so this also bounds what a hostile page costs.
MOST_TAGS: Final = {PageKind.LIST: 3_000_000, PageKind.PROJECT: 500_000}
MOST_ATTRIBUTES: Final = {PageKind.LIST: 3_000_000, PageKind.PROJECT: 1_000_000}
# The parser is given that much at a time. What it cannot make sense of until it has more is a tag or a comment longer
# than any index has: it would be looked at again and again, and its attributes be gigabytes.
_PIECE: Final = 65_536
_LONGEST_TAG: Final = 2 * _PIECE

# Of an anchor; file names have at most 255.
_LONGEST_TEXT: Final = 512

_SERIAL = re.compile(r"\s*SERIAL\s+([0-9]{1,18})\s*")
# Of a project (PEP 508): a page has other links too, such as the one up.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DIGEST = re.compile(r"([a-z0-9_-]{1,32})=([0-9a-f]{1,256})")
# Beside the files they belong to, in plain directories; no page lists them as files.
_COMPANIONS: Final = (b".asc", b".sig", b".metadata", b".provenance")


@define
class _Anchor:
    href: str
    attributes: dict[str, str | None]
    text: str = ""


@define(eq=False, repr=False)
class _Page(HTMLParser):
    """
    :ivar take: what an anchor means, ``None`` for one that means nothing here.
    :ivar found: what the anchors so far mean.
    :ivar anchors: how many there were.
    """

    take: Callable[[_Anchor], dict[str, Any] | None]
    most_attributes: int
    found: list[dict[str, Any]] = field(factory=list)
    anchors: int = 0
    metas: list[tuple[str, str]] = field(factory=list)
    base: str | None = None
    serial: int | None = None
    _open: _Anchor | None = None
    _attributes: int = 0

    def __attrs_post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes += len(attrs)
        if self._attributes > self.most_attributes:
            raise BadPage("more attributes than any index has")
        # The first of two attributes of one name counts, as in browsers.
        if tag == "a":
            self.finish()
            attributes = dict(reversed(attrs))
            href = attributes.get("href")
            if href:
                self._open = _Anchor(href, attributes)
        elif tag == "meta":
            attributes = dict(reversed(attrs))
            name = (attributes.get("name") or "").strip().lower()
            if name.startswith("pypi:"):
                self.metas.append((name, (attributes.get("content") or "").strip()))
        elif tag == "base" and self.base is None:
            self.base = dict(reversed(attrs)).get("href")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.finish()

    def handle_data(self, data: str) -> None:
        # No further than names are long: what is appended to again and again is copied each time.
        if self._open is not None and len(self._open.text) < _LONGEST_TEXT:
            self._open.text += data[:_LONGEST_TEXT]

    def handle_comment(self, data: str) -> None:
        matched = _SERIAL.fullmatch(data)
        if matched is not None:
            self.serial = int(matched[1])

    def finish(self) -> None:
        """The anchor that is open, if one is, ends here."""
        anchor, self._open = self._open, None
        if anchor is not None:
            self.anchors += 1
            found = self.take(anchor)
            if found is not None:
                self.found.append(found)

    def read(self, text: str) -> None:
        """
        All of a page.

        :raises BadPage: it breaks off, or is nothing that the parser can read.
        """
        for start in range(0, len(text), _PIECE):
            try:
                self.feed(text[start : start + _PIECE])
            except (AssertionError, ValueError):
                # The parser's own words for declarations it does not know, and numbers of too many digits.
                raise BadPage("markup that is none") from None
            if len(self.rawdata) > _LONGEST_TAG:
                raise BadPage("a tag or a comment of over 128 KiB")
        # Never close(): it would take what is unfinished for text.
        if self.rawdata.startswith("<"):
            raise BadPage("breaks off within a tag")
        self.finish()


def read_html(kind: PageKind, text: str) -> tuple[dict[str, Any], str | None]:
    """
    :return: the page as PEP 691 has it, links as they stand, and what ``base`` says they are relative to.
    :raises BadPage: it breaks off, or is another kind of page altogether.
    """
    if text.count("<") > MOST_TAGS[kind]:
        raise BadPage("more tags than any index has")
    page = _Page(_project if kind is PageKind.LIST else _file, MOST_ATTRIBUTES[kind])
    page.read(text)
    metas = dict(reversed(page.metas))
    version = metas.get("pypi:repository-version")
    if page.anchors and not page.found and version is None:
        raise BadPage("links, but none of an index: some other page")
    # 1.1 and above promise versions and sizes (PEP 700), which HTML has not.
    meta: dict[str, Any] = {"api-version": _spoken(version)}
    if page.serial is not None:
        meta["_last-serial"] = page.serial
    tracks = [content for name, content in page.metas if name == "pypi:tracks"]
    if tracks:
        meta["tracks"] = tracks
    document: dict[str, Any] = {"meta": meta}
    if kind is PageKind.LIST:
        document["projects"] = list({project["name"]: project for project in page.found}.values())
    else:
        document["files"] = page.found
    locations = [content for name, content in page.metas if name == "pypi:alternate-locations"]
    if locations:
        document["alternate-locations"] = locations
    status = metas.get("pypi:project-status")
    if status is not None:
        document["project-status"] = {"status": status}
        if "pypi:project-status-reason" in metas:
            document["project-status"]["reason"] = metas["pypi:project-status-reason"]
    # An empty one means the page itself, and is the first one all the same.
    return document, page.base or None


def _spoken(version: str | None) -> str:
    return "1.0" if version is None or version.startswith("1.") else version


def _project(anchor: _Anchor) -> dict[str, Any] | None:
    try:
        name = filename_of(anchor.href.partition("#")[0].partition("?")[0].rstrip("/"))
    except BadLink:
        return None
    shown = anchor.text.strip().rstrip("/")
    # Directory listings shorten what they show.
    if shown != name and _normal(shown) == _normal(name):
        name = shown
    return {"name": name} if _NAME.fullmatch(name) else None


def _normal(name: str) -> bytes:
    return normalised_name(name.encode("utf-8", "replace"))


def _file(anchor: _Anchor) -> dict[str, Any] | None:
    name = _filename(anchor)
    if name is None:
        return None
    file: dict[str, Any] = {"filename": name, "url": anchor.href, "hashes": {}}
    _attributes(file, anchor.attributes)
    return file


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
