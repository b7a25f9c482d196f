"""
Settings of a fleet: what a node is among its siblings, and who these are (:mod:`edgecache.words.config`).

Members, quorum and lease are the same on every node.
"""

from __future__ import annotations

import enum

from attrs import field, frozen
from attrs.validators import and_, ge, gt, le, optional


class Quorum(enum.Enum):
    """How many members must answer, or have a purge on disk, before it counts."""

    MAJORITY = "majority"
    ANY = "any"
    """Of two members: one is enough, and a node that is cut off revalidates everything."""


@frozen
class SiblingsSettings:
    """``[siblings]``: what this node is among its siblings. Members, quorum and lease are the same on every node."""

    # Of the fleet alone: whatever this CA has signed may speak to us.
    ca: str
    certificate: str
    key: str
    # How long a node that is cut off may still serve what was purged elsewhere. Several lost rounds fit into it.
    lease_seconds: float = field(default=10.0, validator=and_(ge(1), le(3600)))
    quorum: Quorum = Quorum.MAJORITY
    # Has the log and votes, and nothing else: no clients, no content, no origin. The third of two nodes.
    voter: bool = False
    # Of this node's share of keys, against the others' weight.
    weight: float = field(default=1.0, validator=and_(gt(0), le(1000)))
    # A key's home is looked for in the own region first: no misses across oceans, one origin fetch per region.
    region_homes: bool = False
    # A purge that was not pushed is found this late; each round is one small call to every sibling.
    pull_seconds: float = field(default=1.0, validator=and_(ge(0.05), le(60.0)))
    # Of one control call, connecting included. A page of entries over a slow line fits into it.
    call_seconds: float = field(default=2.0, validator=and_(gt(0), le(60)))
    # Of one control message, either way: what a node that was away for long catches up with at once.
    message_octets: int = field(default=8 << 20, validator=and_(ge(64 << 10), le(64 << 20)))
    # While members change, one at a time: the ids of all members before, and what else was different then.
    previous_members: tuple[str, ...] = ()
    previous_quorum: Quorum | None = None
    previous_lease_seconds: float | None = field(default=None, validator=optional([ge(1), le(3600)]))


@frozen
class SiblingSettings:
    """``[[sibling]]``: one other member."""

    id: str
    # Where its control listener is reached: https://host:port.
    control_url: str
    # Where its workers answer look-ups; a voter has none.
    content_url: str = ""
    # Where its clients reach it: only an audit asks there, and no node knows from inside how it is called outside.
    public_url: str = ""
    region: str = ""
    voter: bool = False
    # As its own [siblings] weight says.
    weight: float = field(default=1.0, validator=and_(gt(0), le(1000)))
    # One of previous_members, no member any more, but still asked so that both majorities can be had.
    leaving: bool = False
