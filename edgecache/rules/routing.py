"""In which order upstreams are asked (DESIGN 5, 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from edgecache.words.config import Policy

T = TypeVar("T")


def candidates(origins: Sequence[Sequence[T]], policy: Policy, turn: int) -> list[T]:
    """
    :param origins: of each origin of a site, in configured order, its addresses.
    :param turn: grows by one with each request, so that round-robin takes the next origin and address.
    :return: every address once, the one to ask first at the head.
    """
    if policy is Policy.ROUND_ROBIN:
        origins = _rotated(origins, turn)
    # The addresses of one name are equals whatever the policy says of the names.
    return [address for addresses in origins for address in _rotated(addresses, turn)]


def _rotated(items: Sequence[T], turn: int) -> list[T]:
    if not items:
        return []
    first = turn % len(items)
    return [*items[first:], *items[:first]]
