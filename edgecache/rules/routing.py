"""In which order upstreams are asked (DESIGN 5, 8)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from edgecache.words.config import Policy

T = TypeVar("T", bound=Hashable)

_GOLDEN = 0.6180339887498949


def candidates(
    origins: Sequence[Sequence[T]],
    policy: Policy,
    turn: int,
    share: Callable[[T], float] = lambda _: 1.0,
    ejected: Callable[[T], bool] = lambda _: False,
) -> list[T]:
    """
    :param origins: of each origin of a site, in configured order, its addresses.
    :param turn: grows by one with each request, so that round-robin takes the next origin and address.
    :param share: how much of its share of requests an address is to get, 0 to 1.
    :param ejected: is the address to be asked only when nothing else is left?
    :return: every address once, the one to ask first at the head.
    """
    if policy is Policy.ROUND_ROBIN and origins:
        # The addresses of an origin turn once all origins had their turn: else some pairs would never meet.
        within = turn // len(origins)
        origins = _rotated(origins, turn)
    else:
        within = turn
    # The addresses of one name are equals whatever the policy says of the names.
    ordered = [address for addresses in origins for address in _rotated(addresses, within)]
    lot = turn * _GOLDEN % 1.0

    def rank(address: T) -> int:
        wanted = share(address)
        if wanted >= 1.0 or lot < wanted:
            return 0
        return 3 if ejected(address) else 2 if wanted <= 0.0 else 1

    if policy is Policy.FALLBACK and origins:
        # Others than the first origin are for when that fails, not for when it is slow.
        first = set(origins[0])
        return sorted(ordered, key=lambda address: (ejected(address), address not in first, rank(address)))
    return sorted(ordered, key=rank)


def _rotated(items: Sequence[T], turn: int) -> list[T]:
    if not items:
        return []
    first = turn % len(items)
    return [*items[first:], *items[:first]]
