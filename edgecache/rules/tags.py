"""Tags by which a response can be purged (DESIGN 9; RFC 9875), taken out of what clients see."""

from __future__ import annotations

from typing import Any

import http_sf

from edgecache.rules.fields import members
from edgecache.rules.indexpaths import project_of_page, project_tag
from edgecache.words.messages import Head

TAG_FIELDS = frozenset((b"surrogate-key", b"cache-tag", b"cache-groups"))


def has_tags(head: Head) -> bool:
    """Does the origin say anything about tags?"""
    return not TAG_FIELDS.isdisjoint(head.by_name)


def tags_of(head: Head) -> list[bytes]:
    """:return: tags that the origin gave, without duplicates."""
    if not has_tags(head):
        return []
    found: dict[bytes, None] = {}
    for value in head.values(b"surrogate-key"):
        found.update(dict.fromkeys(value.split()))
    for value in head.values(b"cache-tag"):
        found.update(dict.fromkeys(members(value)))
    found.update(dict.fromkeys(groups(head, b"cache-groups")))
    return list(found)


def tags_of_path(path: bytes) -> list[bytes]:
    """:return: tags that an index's path implies."""
    project = project_of_page(path)
    return [] if project is None else [project_tag(project)]


def groups(head: Head, name: bytes) -> list[bytes]:
    """:return: a structured list of strings (RFC 9875 §2); nothing if the field is invalid. Others are left out."""
    values = head.values(name)
    if not values:
        return []
    try:
        parsed: Any = http_sf.parse(b", ".join(values), tltype="list")
    except http_sf.StructuredFieldError:
        return []
    # A token is a subclass of str, and is no group.
    return [value.encode("ascii") for value, _ in parsed if type(value) is str]
