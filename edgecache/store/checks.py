"""Checksums of chunks and pieces: put on when written, taken off by every read."""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_64, xxh3_64_intdigest

from edgecache.store import layout

_FIELD = layout.CHECKSUM_FIELD


def sealed(parts: Sequence[bytes | memoryview], seed: int) -> bytes:
    """:return: the parts in one, with their checksum at the end; each octet is copied once."""
    return b"".join((*parts, _FIELD.pack(checksum(parts, seed))))


def checksum(parts: Sequence[bytes | memoryview], seed: int = 0) -> int:
    """:return: xxh3_64 of all parts."""
    if len(parts) == 1:
        return xxh3_64_intdigest(parts[0], seed)
    hasher = xxh3_64(seed=seed)
    for part in parts:
        hasher.update(part)
    return hasher.intdigest()


def payload(value: memoryview, octets: int, seed: int) -> memoryview | None:
    """
    :return: the first ``octets`` of ``value``, a view into the map: copy it before the transaction
        ends. ``None`` if ``value`` has another length or its checksum is wrong.
    """
    if len(value) != octets + layout.CHECKSUM:
        return None
    content = value[:octets]
    if xxh3_64_intdigest(content, seed) != _FIELD.unpack_from(value, octets)[0]:
        return None
    return content
