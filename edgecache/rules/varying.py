"""Which of several stored responses a request selects (RFC 9111 §4.1)."""

from __future__ import annotations

import hashlib

from edgecache.rules.asking import Asked
from edgecache.rules.fields import members
from edgecache.rules.negotiation import normal
from edgecache.words.messages import Head


def nominated(head: Head) -> tuple[bytes, ...] | None:
    """
    Names in Vary, lower case, sorted, without duplicates; ``()`` without Vary.

    :return: ``None`` if ``*`` is among them: the response selects nothing but itself.
    """
    values = head.values(b"vary")
    if not values:
        return ()
    names = {name.lower() for value in values for name in members(value)}
    return None if b"*" in names else tuple(sorted(names))


def variant_of(asked: Asked, nominated: tuple[bytes, ...]) -> bytes:
    """
    The request's values of the nominated fields, normalised; ``b""`` for ``()``.

    What the origin is sent decides, so a field that it is never sent makes no variants: not of an index, and not one
    that Connection names, whose value would then stand for an answer that was made without it.
    """
    if not nominated:
        return b""
    variant = asked.variants.get(nominated)
    if variant is None:
        fields = asked.upstream_fields
        lines: list[bytes] = []
        for name in nominated:
            value = normal(name, fields)
            if value and name in _SECRET:
                value = hashlib.blake2b(value, digest_size=32).hexdigest().encode()
            lines.append(name if value is None else name + b":" + value)
        variant = asked.variants[nominated] = b"\n".join(lines)
    return variant


_SECRET = frozenset((b"authorization", b"cookie"))
"""Fields whose values are in no record: that is kept on disk, and shown to operators."""


def variant_hash(key_hash: bytes, variant: bytes) -> bytes:
    """32 octets: where the record of that variant lies; ``key_hash`` itself for ``b""``."""
    if not variant:
        return key_hash
    return hashlib.blake2b(variant, digest_size=32, key=key_hash).digest()
