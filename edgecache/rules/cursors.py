"""Where a reader of the change feed is: a place in every log, as one opaque string that any node of the fleet reads."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping

import xxhash

from edgecache.words.purging import LogName

Places = Mapping[int, int]
"""Number of a log (:func:`log_number`) to the sequence up to which a reader has it."""

MOST_LOGS = 1000
"""Each node has one, and one more for each control that was ever lost."""

_VERSION = b"\x01"
_PLACE = struct.Struct(">QQ")
_CHECK_OCTETS = 4


def log_number(log: LogName) -> int:
    """:return: what stands for a log in cursors, on every node."""
    return xxhash.xxh3_64_intdigest(log.incarnation + log.id.encode())


def cursor_of(places: Places) -> str:
    """:return: the string that :func:`places_of` reads; equal places give equal strings."""
    content = _VERSION + b"".join(_PLACE.pack(log, place) for log, place in sorted(places.items()))
    return base64.urlsafe_b64encode(content + _check(content)).rstrip(b"=").decode("ascii")


def places_of(cursor: str) -> dict[int, int] | None:
    """:return: ``None`` for what :func:`cursor_of` has not made, as far as can be told."""
    if len(cursor) > MOST_LOGS * 24:
        return None
    try:
        octets = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        return None
    content, check = octets[:-_CHECK_OCTETS], octets[-_CHECK_OCTETS:]
    if content[:1] != _VERSION or check != _check(content) or (len(content) - 1) % _PLACE.size:
        return None
    return dict(_PLACE.iter_unpack(content[1:]))


def _check(content: bytes) -> bytes:
    """Against strings that were cut short or mistyped; nobody gains anything by making one up."""
    return xxhash.xxh32_digest(content)
