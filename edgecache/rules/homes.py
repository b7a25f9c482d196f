"""
Which sibling is the home of a key: weighted rendezvous hashing (DESIGN 9).

Each node has a score for each key, and the highest is the key's home. A node that comes or goes moves only the keys
that become or were its own. All nodes of a fleet, of all releases, must agree: docs/SIBLINGS.md has test vectors.
"""

from __future__ import annotations

import math
from collections.abc import Container

import xxhash
from attrs import field, frozen
from attrs.validators import gt, le

_BITS = 52
"""With the half that is added a double has no room for more: it would be rounded to 1, which has no score."""


@frozen
class HomeNode:
    """
    A node that can be the home of keys; a voter is none.

    :ivar id: its name, not its address: a node that moves keeps its keys.
    :ivar weight: its share of keys, against the others' weight.
    """

    id: str
    weight: float = field(default=1.0, validator=[gt(0), le(1e6)])
    region: str = ""


def share(node_id: str, key: bytes) -> float:
    """
    :return: a number above 0 and below 1, evenly spread over nodes and keys.

    It is (h + 1/2) / 2^52, where h is the upper 52 bits of XXH3_64 of ``key``, seeded with XXH3_64 of ``node_id``
    in UTF-8, which is seeded with 0.
    """
    return _unit(xxhash.xxh3_64_intdigest(key, seed=_seed(node_id)))


def score(node: HomeNode, key: bytes) -> float:
    """
    :return: above 0; the node with the highest is the home.

    With this formula a node's share of all keys is its share of all weight.
    """
    return -node.weight / math.log(share(node.id, key))


def _seed(node_id: str) -> int:
    return xxhash.xxh3_64_intdigest(node_id.encode())


def _unit(digest: int) -> float:
    return ((digest >> (64 - _BITS)) + 0.5) / (1 << _BITS)


@frozen
class Homes:
    """
    The nodes of a fleet that have content.

    :ivar nodes: all of them, this one too, whatever state they are in.
    :ivar region: whose nodes come before all others; ``None``: regions don't matter. All nodes of a region have to
        say the same, or they send the misses of one key to several homes.
    """

    nodes: tuple[HomeNode, ...]
    region: str | None = None
    # What is the same for every key: is it far, its id, its weight, its seed.
    _rows: tuple[tuple[bool, str, float, int], ...] = field(init=False, repr=False, eq=False)

    @_rows.default
    def _all_rows(self) -> tuple[tuple[bool, str, float, int], ...]:
        far = self.region is not None
        return tuple((far and node.region != self.region, node.id, node.weight, _seed(node.id)) for node in self.nodes)

    def order(self, key: bytes) -> list[str]:
        """
        :param key: the hash of the cache key.
        :return: ids of all nodes, the home first, then who would be it without those before.
        """
        log, digest = math.log, xxhash.xxh3_64_intdigest
        # Scores with the sign turned, so that the highest comes first, and of equal ones the first id.
        scored = [
            (far, weight / log(_unit(digest(key, seed=seed))), node_id) for far, node_id, weight, seed in self._rows
        ]
        scored.sort()
        return [node_id for _, _, node_id in scored]

    def home(self, key: bytes, out: Container[str] = ()) -> str | None:
        """
        :param out: ids of nodes that are ejected or draining. They keep their places, and get their keys back
            when they return; meanwhile only their keys are someone else's.
        :return: the first that is not out; ``None`` when all are.
        """
        return next((node_id for node_id in self.order(key) if node_id not in out), None)
