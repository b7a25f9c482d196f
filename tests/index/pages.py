"""Pages for the tests, as origins would send them."""

from __future__ import annotations

import json
from typing import Any

import orjson

from edgecache.index.documents import Document, canonical
from edgecache.index.representing import Links, derive
from edgecache.rules.indexpaths import PageKind
from edgecache.rules.representations import Coding, Media, Representation

AT = b"https://index.example/simple/six/"
JSON = b"application/vnd.pypi.simple.v1+json"
HTML = b"text/html; charset=utf-8"
SHA256 = "ab" * 32
FILE = "six-1.0.tar.gz"


def file(**changes: Any) -> dict[str, Any]:
    """One file of a PEP 691 page; underscores in names stand for hyphens."""
    given = {"filename": FILE, "url": f"https://files.example/{FILE}", "hashes": {"sha256": SHA256}}
    return given | {name.replace("_", "-"): value for name, value in changes.items()}


def project(*files: object, **changes: Any) -> dict[str, Any]:
    """A PEP 691 page."""
    given: dict[str, Any] = {"meta": {"api-version": "1.1"}, "name": "six", "files": list(files)}
    return given | {name.replace("_", "-"): value for name, value in changes.items()}


def of_json(page: object, kind: PageKind = PageKind.PROJECT) -> Document:
    return canonical(kind, b"" if kind is PageKind.LIST else b"six", json.dumps(page).encode(), JSON, AT)


def of_html(page: str, kind: PageKind = PageKind.PROJECT, url: bytes = AT, content_type: bytes = HTML) -> Document:
    return canonical(kind, b"" if kind is PageKind.LIST else b"six", page.encode(), content_type, url)


def files_of(document: Document) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(document.octets)["files"]
    return found


def derived(
    document: Document,
    media: Media = Media.JSON,
    kind: PageKind = PageKind.PROJECT,
    links: Links | None = None,
    base: bytes = b"",
) -> bytes:
    asked = Representation(media, Coding.IDENTITY, base)
    return derive(kind, b"" if kind is PageKind.LIST else b"six", document.octets, asked, links or Links())
