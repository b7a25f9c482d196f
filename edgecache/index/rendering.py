"""
HTML of a page (PEP 503, 592, 629, 658, 708, 714, 740, 792) from what it is in JSON.

Nothing of the page gets into it unescaped, quotes, line breaks and other control characters included. The same
input gives the same octets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from edgecache.rules.indexpaths import normalised_name

_SPECIAL = re.compile("[&<>\"'\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A name that is its own path, as most are.
_NORMAL = re.compile("[a-z0-9]+(?:-[a-z0-9]+)*")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_SPACES: Final = "\t\n\r\u2028\u2029"
# After sha256: those that installers verify, the best first; a link can name only one.
_PREFERRED: Final = ("sha512", "sha384", "sha224", "sha1", "md5")


def render_list(page: dict[str, Any]) -> bytes:
    """:param page: canonical document of a list."""
    anchors = []
    for project in page["projects"]:
        name = project["name"]
        if _NORMAL.fullmatch(name) is not None:
            anchors.append(f'<a href="{name}/">{name}</a><br>\n')
        else:
            path = quote(normalised_name(name.encode()), safe="")
            anchors.append(f'<a href="{path}/">{escaped(name)}</a><br>\n')
    return _page(page, "Simple index", anchors)


def render_project(page: dict[str, Any]) -> bytes:
    """:param page: canonical document of a project, with links as clients are to get them."""
    return _page(page, f"Links for {page['name']}", map(_anchor, page["files"]))


def escaped(text: str) -> str:
    """:return: the text for an element or a quoted attribute; what HTML cannot have becomes U+FFFD."""
    # Tried first: nearly all texts are so, and this takes half as long.
    if text.isprintable() and not ("&" in text or "<" in text or ">" in text or '"' in text or "'" in text):
        return text
    return _SPECIAL.sub(_entity, text)


def _entity(matched: re.Match[str]) -> str:
    character = matched[0]
    return _ENTITIES.get(character) or (f"&#{ord(character)};" if character in _SPACES else "\N{REPLACEMENT CHARACTER}")


def _page(page: dict[str, Any], title: str, anchors: Iterable[str]) -> bytes:
    title = escaped(title)
    serial = page["meta"].get("_last-serial")
    parts = [
        "<!DOCTYPE html>\n<html>\n<head>\n",
        *(f'<meta name="{name}" content="{escaped(content)}">\n' for name, content in _metas(page)),
        f"<title>{title}</title>\n</head>\n<body>\n<h1>{title}</h1>\n",
        *anchors,
        "</body>\n</html>\n",
    ]
    if type(serial) is int:
        parts.append(f"<!--SERIAL {serial}-->\n")
    return "".join(parts).encode()


def _metas(page: dict[str, Any]) -> list[tuple[str, str]]:
    meta = page["meta"]
    found = [("pypi:repository-version", meta["api-version"])]
    status = page.get("project-status")
    if type(status) is str:
        status = {"status": status}
    if type(status) is dict:
        for key, name in (("status", "pypi:project-status"), ("reason", "pypi:project-status-reason")):
            if type(status.get(key)) is str:
                found.append((name, status[key]))
    for urls, name in (
        (meta.get("tracks"), "pypi:tracks"),
        (page.get("alternate-locations"), "pypi:alternate-locations"),
    ):
        if type(urls) is list:
            found += ((name, url) for url in urls if type(url) is str)
    return found


def _anchor(file: dict[str, Any]) -> str:
    link, _, rest = file["url"].partition("#")
    digest = _digest(file["hashes"])
    fragment = f"{digest}&{rest}" if digest and rest else digest or rest
    if fragment:
        link = f"{link}#{fragment}"
    more = ""
    requires = file.get("requires-python")
    if requires:
        more = f' data-requires-python="{escaped(requires)}"'
    metadata = file.get("core-metadata", False)
    if metadata is not False:
        told = escaped(_digest(metadata)) if metadata is not True else ""
        # Installers of before PEP 714 know the second name only.
        more += ' data-core-metadata="{0}" data-dist-info-metadata="{0}"'.format(told or "true")
    yanked = file.get("yanked")
    if yanked:
        more += f' data-yanked="{escaped(yanked) if yanked is not True else ""}"'
    signed = file.get("gpg-sig")
    if signed is not None:
        more += ' data-gpg-sig="true"' if signed else ' data-gpg-sig="false"'
    provenance = file.get("provenance")
    if provenance and type(provenance) is str:
        more += f' data-provenance="{escaped(provenance)}"'
    return f'<a href="{escaped(link)}"{more}>{escaped(file["filename"])}</a><br>\n'


def _digest(hashes: dict[str, str]) -> str:
    if "sha256" in hashes:
        return f"sha256={hashes['sha256']}"
    for name in _PREFERRED:
        if name in hashes:
            return f"{name}={hashes[name]}"
    for name, value in hashes.items():
        return f"{name}={value}"
    return ""
