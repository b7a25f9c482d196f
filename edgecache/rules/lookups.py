"""
What siblings add to a look-up of content and to its answer (DESIGN 9), as fields that nobody else gets or may send.

A look-up is a plain GET otherwise, and its answer that of any shared cache.
"""

from __future__ import annotations

import functools
import re

from attrs import frozen

from edgecache.words.messages import Fields, Head, combined
from edgecache.words.purging import LogName, Positions

INTERNAL = b"edgecache-"

POSITIONS = b"edgecache-positions"
"""Of the asker: ``<id>:<incarnation, hex>:<sequence>`` of each log that it has applied, with spaces between."""
BUDGET = b"edgecache-budget"
"""Milliseconds within which the asker has to have a head."""
SELECTORS = b"edgecache-selectors"
"""What purges can name the response by beyond its URL: 64-bit hashes in hex, with spaces between. Only on a response
that may be stored."""
FALLBACK = b"edgecache-fallback"
"""On a response that only stands in for a better origin's."""
FRESH = b"edgecache-fresh"
"""Seconds for which the response stays fresh at the sibling, negative once it is stale there: nobody has it fresher."""
REFUSED = b"edgecache-refused"
"""On an answer of the sibling's own that says nothing about what was asked for: ask somebody else."""

MOST_OCTETS = 8 << 10
"""Of positions. A fleet whose logs need more has to do without look-ups."""
_MOST_SELECTORS = 64

_POSITION = re.compile(rb"([A-Za-z0-9._-]{1,64}):([0-9a-f]{32}):([0-9]{1,18})")
_SECONDS = re.compile(rb"-?[0-9]{1,12}")
_SELECTOR = re.compile(rb"[0-9a-f]{1,16}")


@functools.lru_cache(maxsize=64)
def _positions(text: bytes) -> Positions:
    """
    A sibling says the same with each look-up until a purge comes.

    :raises ValueError: malformed.
    """
    positions: dict[LogName, int] = {}
    for part in text.split():
        matched = _POSITION.fullmatch(part)
        if matched is None:
            raise ValueError("malformed positions")
        positions[LogName(matched[1].decode("ascii"), bytes.fromhex(matched[2].decode("ascii")))] = int(matched[3])
    return positions


@frozen
class FromSibling:
    """
    What makes a request one of a sibling's: it is filled from the origin only, never forwarded to a third.

    :ivar positions: what is older than these must not answer it.
    :ivar budget_seconds: how long it may take to the head.
    """

    positions: Positions
    budget_seconds: float


@frozen
class Told:
    """
    What a sibling's answer says of its record.

    :ivar selectors: beyond those of the URL; ``None``: it is not to be stored, for the sibling could not either.
    :ivar fresh_seconds: how long it stays fresh at most.
    :ivar fallback: it only stands in for a better origin's.
    """

    selectors: tuple[int, ...] | None = None
    fresh_seconds: float = 0.0
    fallback: bool = False


def positions_value(positions: Positions) -> bytes | None:
    """:return: the value of :data:`POSITIONS`; ``None`` if it would be too long."""
    value = b" ".join(
        b"%b:%b:%d" % (log.id.encode("ascii"), log.incarnation.hex().encode("ascii"), sequence)
        for log, sequence in positions.items()
    )
    return value if len(value) <= MOST_OCTETS else None


def from_sibling(fields: Fields) -> FromSibling | None:
    """
    :param fields: of a request that came over a connection on which the fields of this module count.
    :return: ``None`` if it is not a sibling's.
    :raises ValueError: it is malformed.
    """
    text = combined(fields, POSITIONS)
    if text is None:
        return None
    positions = _positions(text)
    budget = combined(fields, BUDGET)
    if budget is None or not budget.isdigit() or len(budget) > 9:
        raise ValueError("malformed budget")
    return FromSibling(positions, int(budget) / 1000)


def selectors_value(selectors: tuple[int, ...]) -> bytes:
    """
    :return: the value of :data:`SELECTORS`.

    >>> selectors_value((255, 1))
    b'ff 1'
    """
    return b" ".join(b"%x" % selector for selector in selectors)


def told_by(head: Head) -> Told:
    """
    :param head: of a sibling's answer.
    :return: what it says; what cannot be read is not there, so that the response is not stored.
    """
    text, fresh = head.get(SELECTORS), head.get(FRESH)
    if text is None or fresh is None or not _SECONDS.fullmatch(fresh):
        return Told()
    parts = text.split()
    if len(parts) > _MOST_SELECTORS or not all(map(_SELECTOR.fullmatch, parts)):
        return Told()
    return Told(tuple(int(part, 16) for part in parts), float(fresh), head.get(FALLBACK) is not None)


def stripped(head: Head) -> Head:
    """:return: ``head`` without the fields that upstreams have no business to send."""
    # One search; that it may find the word within a name costs nothing but the copy.
    if INTERNAL in b"\n".join(head.by_name):
        return Head(head.status, head.reason, [line for line in head.fields if not line[0].startswith(INTERNAL)])
    return head
