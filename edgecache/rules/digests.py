"""Digests of a representation: what its content must add up to (RFC 9530)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import http_sf
from attrs import frozen

from edgecache.words.messages import Head

SHA256 = "sha-256"
# The one that is checked comes first: processors do it fastest. Others are deprecated, or no digests (RFC 9530 §5).
_ALGORITHMS = {SHA256: "sha256", "sha-512": "sha512"}


@frozen
class Digest:
    """
    What the octets of a whole representation, its content coding applied, must hash to.

    :ivar algorithm: ``sha-256`` or ``sha-512`` (RFC 9530 §5).
    """

    algorithm: str
    value: bytes

    def check(self) -> Check:
        """:return: a check of content that is still to come."""
        return Check(self)

    def fits(self, content: bytes) -> bool:
        """Is ``content`` exactly what it names?"""
        check = self.check()
        check.update(content)
        return check.right

    @property
    def field(self) -> bytes:
        """Value of Repr-Digest (RFC 9530 §3)."""
        return b"%b=:%b:" % (self.algorithm.encode("ascii"), base64.b64encode(self.value))

    def contradicts(self, others: tuple[Digest, ...]) -> bool:
        """Is one of ``others`` for other content? One by another algorithm says nothing."""
        return any(other.algorithm == self.algorithm and other.value != self.value for other in others)


class Check:
    """The octets of one content, put to its digest as they come."""

    __slots__ = ("_hash", "digest")

    def __init__(self, digest: Digest) -> None:
        self.digest = digest
        self._hash = hashlib.new(_ALGORITHMS[digest.algorithm])

    def update(self, *parts: bytes | memoryview) -> None:
        """The next octets. Memory that is handed over must stay as it is for as long as it is referred to."""
        for part in parts:
            self._hash.update(part)

    @property
    def right(self) -> bool:
        """Is what has come exactly what the digest names?"""
        return self._hash.digest() == self.digest.value

    @property
    def came(self) -> str:
        """What has come hashes to, in hex."""
        return self._hash.hexdigest()


def repr_digests(head: Head) -> tuple[Digest, ...]:
    """
    :return: the digests of Repr-Digest (RFC 9530 §3) that we can check, the fastest first; none if the field is
        not a dictionary, and without members that are no digests.
    """
    value = head.get(b"repr-digest")
    if value is None:
        return ()
    try:
        members: Any = http_sf.parse(value, tltype="dictionary")
    except http_sf.StructuredFieldError:
        return ()
    found = []
    for algorithm, name in _ALGORITHMS.items():
        octets = members.get(algorithm, (None,))[0]
        if isinstance(octets, bytes) and len(octets) == hashlib.new(name).digest_size:
            found.append(Digest(algorithm, octets))
    return tuple(found)


def repr_digest(head: Head) -> Digest | None:
    """:return: the digest that the whole content of this response is checked against; ``None`` without a usable one."""
    found = repr_digests(head)
    return found[0] if found else None


WITHHELD = 1 << 20
"""Content with a digest of up to so many octets is shown when the digest is right, not earlier."""

HELD_BACK = 64 << 10
"""Of longer content, so many octets at the end wait for that."""


def showable(length: int | None, come: int) -> int:
    """
    :param length: complete length in octets, ``None`` while unknown.
    :param come: octets that have come, the last one not among them as far as we know.
    :return: how many of them a client may have before the digest is known to be right, so that none ever has
        wrong content as a complete one (FIELD 1, rule 7).
    """
    if length is None:
        return come - HELD_BACK if come > WITHHELD else 0
    return min(come, length - HELD_BACK) if length > WITHHELD else 0
