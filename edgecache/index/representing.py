"""
What clients get of a page: its canonical document with links to files changed to ours, as JSON or HTML, coded.

Changed are ``files[].url`` (PEP 691), ``urls[].url`` and ``releases[][].url`` (legacy), and the same links in HTML;
a fragment that the origin's link had stays. ``provenance``, PEP 708's URLs and everything else stay as they are.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from typing import Any, Final, assert_never
from urllib.parse import quote

import orjson
import zstandard
from attrs import frozen

from edgecache.index.errors import BadPage
from edgecache.index.rendering import render_list, render_project
from edgecache.rules.indexpaths import FILES, RELEASED_FILES, PageKind
from edgecache.rules.representations import ANYWHERE, Coding, Media, Representation

REWRITER: Final = b"1"
"""Goes into each ETag; another number whenever the same document would give other octets."""

_GZIP_LEVEL: Final = 6
# Pages are digests, most of them twice: the higher levels take longer and make more of them (docs/decisions/0120).
_ZSTD_LEVEL: Final = 1
# zlib's way to ask for a gzip header; it leaves name and time out of it.
_GZIP_WINDOW: Final = 31
# As it is in JSON. Within a string, the quotes would be escaped.
_ANYWHERE: Final = b'"url":' + orjson.dumps(ANYWHERE.decode("ascii"))[:-1]
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._~-]+")


@frozen
class Links:
    """
    Where clients find files.

    :ivar public_url: scheme, authority and maybe a path under which they know this node, no slash at the end;
        ``b""``: links are relative.
    :ivar prefix: the site's own path (``b"/team"``), which comes after that, or after the representation's base
        where links must be absolute all the same.
    """

    public_url: bytes = b""
    prefix: bytes = b""


def derive(kind: PageKind, project: bytes, document: bytes, representation: Representation, links: Links) -> bytes:
    """
    :param project: normalised, ``b""`` for the list.
    :param document: canonical.
    :return: the content that is sent, coded.
    :raises BadPage: the document is not canonical, or the page has no such form.
    """
    return _coded(_content(kind, project, document, representation, links), representation.coding)


def filled_in(content: bytes, base: bytes) -> bytes:
    """
    :param content: derived for :data:`~edgecache.rules.representations.ANYWHERE`, not coded.
    :return: the same as if it had been derived for ``base``.
    """
    return content.replace(_ANYWHERE, b'"url":' + orjson.dumps(base.decode("ascii"))[:-1])


def etag_of(digest: bytes, serial: int | None, representation: Representation, links: Links) -> bytes:
    """
    :param digest: sha256 of the canonical document.
    :param serial: that the answer will tell.
    :return: a strong entity tag in quotes: what has the same tag has the same octets, on whatever node.
    """
    parts = (
        REWRITER,
        digest,
        b"" if serial is None else b"%d" % serial,
        representation.name,
        _coder(representation.coding),
        links.public_url,
        links.prefix,
    )
    framed = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return b'"%b"' % hashlib.sha256(framed).hexdigest()[:32].encode("ascii")


def _content(kind: PageKind, project: bytes, document: bytes, asked: Representation, links: Links) -> bytes:
    media = asked.media
    if media is Media.SOURCE or (kind is PageKind.LIST and media is Media.JSON):
        return document
    if (kind is PageKind.RELEASES) != (media is Media.PLAIN_JSON):
        raise BadPage("no such form of this page")
    try:
        page = orjson.loads(document)
        if kind is PageKind.LIST:
            return render_list(page)
        if kind is PageKind.PROJECT:
            _rewrite(
                page["files"],
                "hashes",
                _start(links.public_url + links.prefix if links.public_url else b"../..", FILES, project),
            )
            return orjson.dumps(page) if media is Media.JSON else render_project(page)
        start = _start((links.public_url or asked.base) + links.prefix, RELEASED_FILES, project)
        _rewrite(page.get("urls") or (), "digests", start)
        for files in (page.get("releases") or {}).values():
            _rewrite(files, "digests", start)
        return orjson.dumps(page)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadPage(f"not a canonical document: {error!r}") from error


def _start(above: bytes, files: bytes, project: bytes) -> str:
    """What every link of a page begins with."""
    return f"{(above + files).decode('ascii')}{quote(project, safe='')}/"


def _rewrite(files: Iterable[dict[str, Any]], hashes: str, start: str) -> None:
    """Links become ``rules.indexpaths.artifact_path``, with the fragment they had."""
    for file in files:
        name = file["filename"]
        if _PLAIN_NAME.fullmatch(name) is None:
            name = quote(name, safe="")
        link = f"{start}{file[hashes].get('sha256') or '-'}/{name}"
        url = file["url"]
        file["url"] = f"{link}#{url.partition('#')[2]}" if "#" in url else link


def _coded(content: bytes, coding: Coding) -> bytes:
    match coding:
        case Coding.IDENTITY:
            return content
        case Coding.GZIP:
            return zlib.compress(content, _GZIP_LEVEL, _GZIP_WINDOW)
        case Coding.ZSTD:
            return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)
        case unexpected:
            assert_never(unexpected)


def _coder(coding: Coding) -> bytes:
    """Compressors of other versions give other octets for the same content."""
    match coding:
        case Coding.IDENTITY:
            return b""
        case Coding.GZIP:
            return zlib.ZLIB_RUNTIME_VERSION.encode()
        case Coding.ZSTD:
            return ".".join(map(str, zstandard.ZSTD_VERSION)).encode()
        case unexpected:
            assert_never(unexpected)
