"""
What an index's list of projects says (PEP 691): each project's serial; and what differs from one list to the next.

A public index lists 700,000 projects in 30 MB, several times a minute. So a list is kept as 16 octets for each, and
parsed in pieces: a thread that does so lets the others run in between.
"""

# Note [pieces]
#
# A list is cut where one object of the array ends and the next begins, as far as that can be seen without parsing. If
# that was within a string, or within an object, no piece on either side is JSON: then all of it is parsed at once.

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import orjson
from attrs import define, frozen

from edgecache.rules.indexpaths import normalised_name
from edgecache.words.errors import EdgeError

PIECE = 256 << 10
"""Octets that are parsed at once: about a millisecond."""

MOST_NAME = 1024
"""Octets of a project's name."""

_BUCKETS = 256
_KEY_OCTETS = 8
_RECORD_OCTETS = 16
_RECORD = struct.Struct(">QQ")
_MOST_SERIAL = 1 << 63

_ARRAY = re.compile(rb'"projects"\s*:\s*\[')
_BETWEEN = re.compile(rb"\}(\s*,\s*)\{")

KeyOf = Callable[[bytes], int]
"""Normalised name to 64 bits that stand for the project."""


@define(eq=False, repr=False)
class BadListing(EdgeError):
    """It is no list of projects. :ivar why: in a few words."""

    why: str


@frozen(eq=False, repr=False)
class Listing:
    """
    One list.

    :ivar projects: how many it has.
    :ivar without: how many of them have no serial.
    """

    projects: int
    without: int
    _buckets: tuple[bytes, ...]

    @property
    def complete(self) -> bool:
        """Does it tell of every project's changes?"""
        return self.without == 0

    def changes(self, later: Listing) -> Changes:
        """:return: what is another in ``later``."""
        changed: list[tuple[int, int]] = []
        vanished: list[int] = []
        for before, after in zip(self._buckets, later._buckets, strict=True):
            if before == after:
                continue
            old, new = set(_records(before)), set(_records(after))
            changed += (_unpacked(record) for record in new - old)
            vanished += _keys(old - new) - _keys(new)
        return Changes(changed, vanished)


@frozen
class Changes:
    """
    :ivar changed: key and serial of each project that has another serial now, or is new.
    :ivar vanished: keys of those that are not listed any more.
    """

    changed: list[tuple[int, int]]
    vanished: list[int]


def parse(content: bytes, key_of: KeyOf) -> Listing:
    """
    :param content: JSON (PEP 691).
    :raises BadListing: it is none, or no list of projects.
    """
    found = _split(content) if len(content) > PIECE else None
    if found is not None:
        try:
            return _listing(_pieces(content, *found), key_of)
        except orjson.JSONDecodeError:
            # See Note [pieces].
            pass
    return _listing(_array(_loaded(content)), key_of)


def _listing(projects: Iterable[Any], key_of: KeyOf) -> Listing:
    buckets: list[list[bytes]] = [[] for _ in range(_BUCKETS)]
    count = without = 0
    for project in projects:
        if not isinstance(project, dict) or not isinstance(project.get("name"), str):
            raise BadListing("a project without a name")
        name = project["name"].encode("utf-8", "surrogateescape")
        if not name or len(name) > MOST_NAME:
            raise BadListing("a project's name of no usable length")
        serial = project.get("_last-serial")
        count += 1
        if type(serial) is not int or not 0 <= serial < _MOST_SERIAL:
            without += 1
            continue
        record = _RECORD.pack(key_of(normalised_name(name)), serial)
        buckets[record[_KEY_OCTETS - 1]].append(record)
    return Listing(count, without, tuple(map(_packed, buckets)))


def _pieces(content: bytes, start: int, end: int) -> Iterator[Any]:
    """:raises orjson.JSONDecodeError: it was cut where it must not be."""
    while start < end:
        between = _BETWEEN.search(content, min(start + PIECE, end), end)
        last = end if between is None else between.start(1)
        yield from orjson.loads(b"[%b]" % content[start:last])
        start = end if between is None else between.end(1)


def _split(content: bytes) -> tuple[int, int] | None:
    """:return: where the objects of the array begin and end, if that can be told without parsing them."""
    array = _ARRAY.search(content)
    end = content.rfind(b"}")
    while array is not None and end > array.end():
        rest = content[end + 1 :].lstrip()
        if rest.startswith(b"]"):
            try:
                document = orjson.loads(content[: array.end()] + rest)
            except orjson.JSONDecodeError:
                document = None
            if isinstance(document, dict) and document.get("projects") == []:
                return array.end(), end + 1
        if len(content) - end > PIECE:
            break
        end = content.rfind(b"}", 0, end)
    return None


def _loaded(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BadListing(f"no JSON ({error})") from error


def _array(document: Any) -> list[Any]:
    projects = document.get("projects") if isinstance(document, dict) else None
    if not isinstance(projects, list):
        raise BadListing("no list of projects")
    return projects


def _packed(records: list[bytes]) -> bytes:
    """Sorted; of a project that is listed twice its highest serial."""
    highest = {record[:_KEY_OCTETS]: record for record in sorted(records)}
    return b"".join(highest.values())


def _records(bucket: bytes) -> Iterator[bytes]:
    return (bucket[at : at + _RECORD_OCTETS] for at in range(0, len(bucket), _RECORD_OCTETS))


def _keys(records: set[bytes]) -> set[int]:
    return {_unpacked(record)[0] for record in records}


def _unpacked(record: bytes) -> tuple[int, int]:
    key, serial = _RECORD.unpack(record)
    return key, serial
