"""Which of several stored responses a request selects (RFC 9111 §4.1)."""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.words.messages import Head


def nominated(head: Head) -> tuple[bytes, ...] | None:
    """
    Names in Vary, lower case, sorted, without duplicates; ``()`` without Vary.

    :return: ``None`` if ``*`` is among them: the response selects nothing but itself.
    """
    raise NotImplementedError


def variant_of(asked: Asked, nominated: tuple[bytes, ...]) -> bytes:
    """The request's values of the nominated fields, normalised; ``b""`` for ``()``."""
    raise NotImplementedError


def variant_hash(key_hash: bytes, variant: bytes) -> bytes:
    """32 octets: where the record of that variant lies; ``key_hash`` itself for ``b""``."""
    raise NotImplementedError
