"""
Records as octets: pack and unpack what is stored under a key hash (:mod:`edgecache.store.layout`).

A record is :data:`layout.RECORD_PREFIX`, then for a response ``_FIXED``, the selectors (u64 each), key,
etag, head, variant and digest; for nominated fields the key and the sets of names. Inline content may follow.
"""

from __future__ import annotations

import math
import struct

from attrs import define
from xxhash import xxh3_64_intdigest

from edgecache.store import layout
from edgecache.words.errors import EdgeError
from edgecache.words.stored import Stored, Variants

# site, status, flags, floor, six times, last_modified (NaN: none), size, content id,
# octets of key, etag, head, variant, digest, count of selectors, checksum of inline content.
_FIXED = struct.Struct("<QHxxIQ6ddQ16sIIIIHHQ")
_START = layout.RECORD_PREFIX.size
_VARIABLE = _START + _FIXED.size
_FLOOR = struct.Struct("<Q")
_FLOOR_AT = _START + 16
_SELECTORS = tuple(struct.Struct(f"<{count}Q") for count in range(128))
_KEY_LENGTH = struct.Struct("<I")

NOMINATED_SETS = 4
"""How many sets of nominated names are kept: an origin that names new ones each time must not grow a record."""


@define(eq=False, repr=False)
class Damaged(EdgeError):
    """These octets are not a record that we wrote."""

    why: str


Unpacked = tuple[Stored | Variants, int, int, int]
"""
What a value under a key hash says: the record, its sequence, its octets (inline content follows), and the xxh3_64
of the inline content (meaningless without any). A plain tuple: it is made on hits.
"""


def pack(stored: Stored, sequence: int, checksum: int = 0) -> tuple[bytes, bytes]:
    """
    :param checksum: xxh3_64 of the content that will follow, if any does.
    :return: the record of ``stored``, in two parts.
    """
    selectors = stored.selectors
    count = len(selectors)
    packed = _SELECTORS[count] if count < len(_SELECTORS) else struct.Struct(f"<{count}Q")
    last_modified = stored.last_modified
    key, etag, head, variant, digest = stored.key, stored.etag, stored.head, stored.variant, stored.digest
    fixed = _FIXED.pack(
        stored.site,
        stored.status,
        stored.flags,
        stored.floor,
        stored.generated_at,
        stored.fresh_until,
        stored.stale_while_revalidate_until,
        stored.stale_if_error_until,
        stored.validated_at,
        stored.date,
        math.nan if last_modified is None else last_modified,
        stored.size,
        stored.content_id,
        len(key),
        len(etag),
        len(head),
        len(variant),
        len(digest),
        count,
        checksum,
    )
    body = b"".join((fixed, packed.pack(*selectors), key, etag, head, variant, digest))
    return _sealed(layout.KIND_STORED, sequence, body)


def pack_variants(variants: Variants, sequence: int) -> tuple[bytes, bytes]:
    """:return: the record of ``variants``, in two parts."""
    sets = b"\n".join(b",".join(names) for names in variants.nominated)
    return _sealed(layout.KIND_VARIANTS, sequence, _KEY_LENGTH.pack(len(variants.key)) + variants.key + sets)


def _sealed(kind: int, sequence: int, body: bytes) -> tuple[bytes, bytes]:
    prefix = layout.RECORD_PREFIX.pack(
        layout.RECORD_VERSION, kind, _START + len(body), xxh3_64_intdigest(body, sequence), sequence
    )
    return prefix, body


def unpack(value: bytes) -> Unpacked:
    """:raises Damaged: wrong checksum, unknown version."""
    try:
        version, kind, octets, checksum, sequence = layout.RECORD_PREFIX.unpack_from(value)
    except struct.error as error:
        raise Damaged(f"{len(value)} octets") from error
    if version != layout.RECORD_VERSION or octets > len(value):
        raise Damaged(f"version {version}, {octets} of {len(value)} octets")
    if xxh3_64_intdigest(value[_START:octets], sequence) != checksum:
        raise Damaged("checksum")
    if kind == layout.KIND_STORED:
        return _unpack_stored(value, sequence, octets)
    if kind == layout.KIND_VARIANTS:
        return _unpack_variants(value, octets), sequence, octets, 0
    raise Damaged(f"kind {kind}")


def _unpack_stored(record: bytes, sequence: int, octets: int) -> Unpacked:
    (
        site,
        status,
        flags,
        floor,
        generated_at,
        fresh_until,
        while_revalidate,
        if_error,
        validated_at,
        date,
        last_modified,
        size,
        content_id,
        key_octets,
        etag_octets,
        head_octets,
        variant_octets,
        digest_octets,
        count,
        checksum,
    ) = _FIXED.unpack_from(record, _START)
    selectors = _SELECTORS[count] if count < len(_SELECTORS) else struct.Struct(f"<{count}Q")
    key_at = _VARIABLE + 8 * count
    etag_at = key_at + key_octets
    head_at = etag_at + etag_octets
    variant_at = head_at + head_octets
    digest_at = variant_at + variant_octets
    stored = Stored(
        site,
        record[key_at:etag_at],
        status,
        flags,
        floor,
        generated_at,
        fresh_until,
        while_revalidate,
        if_error,
        validated_at,
        date,
        # NaN is the one number that differs from itself.
        last_modified if last_modified == last_modified else None,
        record[etag_at:head_at],
        size,
        content_id,
        selectors.unpack_from(record, _VARIABLE),
        record[head_at:variant_at],
        record[variant_at:digest_at],
        record[digest_at : digest_at + digest_octets],
    )
    return stored, sequence, octets, checksum


def _unpack_variants(record: bytes, octets: int) -> Variants:
    (key_octets,) = _KEY_LENGTH.unpack_from(record, _START)
    key_at = _START + _KEY_LENGTH.size
    names_at = key_at + key_octets
    sets = [tuple(line.split(b",")) if line else () for line in record[names_at:octets].split(b"\n")]
    return Variants(record[key_at:names_at], sets)


def merged(newer: Variants, older: Variants | None) -> Variants:
    """:return: sets of both, ``newer``'s first, at most :data:`NOMINATED_SETS`."""
    nominated = list(dict.fromkeys(newer.nominated + (older.nominated if older is not None else [])))
    return Variants(newer.key, nominated[:NOMINATED_SETS])


def with_floor(value: bytes, floor: int) -> bytes:
    """:return: the intact record ``value`` of a response, inline content included, with another floor."""
    _, kind, octets, _, sequence = layout.RECORD_PREFIX.unpack_from(value)
    body = value[_START:_FLOOR_AT] + _FLOOR.pack(floor) + value[_FLOOR_AT + _FLOOR.size : octets]
    return b"".join((*_sealed(kind, sequence, body), value[octets:]))
