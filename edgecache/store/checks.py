"""Checksums of chunks and pieces: put on when written, taken off by every read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import lmdb
from xxhash import xxh3_64, xxh3_64_intdigest

from edgecache.store import layout
from edgecache.store.layout import CHUNK, CHUNK_VALUE, PLACE

_FIELD = layout.CHECKSUM_FIELD
_U64 = 0xFFFFFFFFFFFFFFFF


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


def verify(
    txn: lmdb.Transaction, chunks: Any, content_id: bytes, index: int, count: int, views: list[memoryview]
) -> str:
    """
    Like :func:`payload` for full chunks, written out: those calls would cost a tenth of a copy.

    :param txn: with buffers.
    :param chunks: the database.
    :param views: of the good ones, from ``index`` on, are appended.
    :return: what is wrong with the one after those; ``""``: all of ``count`` are good.
    """
    values: Iterable[Any]
    if count == 1:
        found: Any = txn.get(PLACE.pack(content_id, index), None, chunks)
        values = () if found is None else (found,)
    else:
        cursor: Any = txn.cursor(chunks)
        # Chunks of one content are neighbours. Where one is missing the next key's is another's, and
        # fails its checksum, which is bound to the place.
        cursor.set_range(PLACE.pack(content_id, index))
        values = islice(cursor.iternext(False, True), count)
    seed = layout.seed(content_id, index)
    for value in values:
        view = value[:CHUNK]
        if len(value) != CHUNK_VALUE:
            return "length"
        if xxh3_64_intdigest(view, seed) != _FIELD.unpack_from(value, CHUNK)[0]:
            return "checksum"
        views.append(view)
        seed = seed + 1 & _U64
    return "missing" if len(views) < count else ""
