"""Who belongs to the fleet, and how many of them must have said something for it to count (DESIGN 9)."""

# Note [quorums]
#
# A purge is durable when `writes` members have it on disk. A lease needs a round that
# `leases` members answered, and writes + leases > n: at least one of them has the purge,
# or answered before it was durable. A member whose control was lost may have been one of
# the `writes`; the others of those are writes - 1 of its n - 1 siblings, so that any
# n - writes + 1 siblings include one that still knows.
#
# While members change, all of that must hold in the old set and in the new one.

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Set
from hashlib import blake2b

from attrs import define, field, frozen

from edgecache.words.errors import EdgeError


@define(eq=False)
class BadMembership(EdgeError):
    """:ivar problem: one sentence for whoever wrote the configuration."""

    problem: str

    def __str__(self) -> str:
        return self.problem


class Quorum(enum.Enum):
    """How many members must have a purge on disk."""

    MAJORITY = "majority"
    ANY = "any"
    """One is enough, and a lease needs all: two nodes that are cut off from each other both validate."""


def configuration_hash(members: Iterable[str], quorum: str, lease_seconds: float) -> bytes:
    """
    What two members must agree on before they listen to each other.

    :param members: ids, in any order; twice is once.
    :param quorum: value of a :class:`Quorum`.
    :return: 16 octets.
    """
    told = blake2b(digest_size=16)
    for octets in (
        quorum.encode(),
        struct.pack(">d", lease_seconds),
        *(each.encode() for each in sorted(set(members))),
    ):
        # With the length first, no two lists read the same.
        told.update(struct.pack(">I", len(octets)))
        told.update(octets)
    return told.digest()


@frozen
class Group:
    """One set of members and its quorums. See Note [quorums]."""

    members: frozenset[str]
    quorum: Quorum

    @property
    def writes(self) -> int:
        """So many members must have a purge on disk."""
        return 1 if self.quorum is Quorum.ANY else len(self.members) // 2 + 1

    @property
    def leases(self) -> int:
        """So many members, the asker included, must have answered a round."""
        return len(self.members) if self.quorum is Quorum.ANY else len(self.members) // 2 + 1

    def leased(self, answered: Set[str]) -> bool:
        """:param answered: admitted members that answered and whose purges are here, the asker included."""
        return len(self.members & answered) >= self.leases

    def admits(self, own: str, admitted: Set[str], joining: Set[str]) -> bool:
        """
        Does a member whose control is new know all that was durable?

        :param admitted: members that answered its round, and whose purges are here.
        :param joining: members that answered that they are new themselves.
        """
        others = self.members - {own}
        if len(others & admitted) >= len(self.members) - self.writes + 1:
            return True
        return others <= (admitted | joining)


@frozen
class Membership:
    """
    The members as one node's configuration names them.

    :ivar own: id of this node.
    :ivar previous: the members before the change that is under way; ``None`` without one.
    :ivar lease_seconds: for how long after the start of a round a node may serve what is purgeable as fresh.
    """

    own: str
    members: frozenset[str]
    previous: frozenset[str] | None = None
    quorum: Quorum = Quorum.MAJORITY
    lease_seconds: float = 10.0
    groups: tuple[Group, ...] = field(init=False)
    hashes: tuple[bytes, ...] = field(init=False)
    everyone: frozenset[str] = field(init=False)
    others: frozenset[str] = field(init=False)

    @groups.default
    def _groups(self) -> tuple[Group, ...]:
        return tuple(Group(members, self.quorum) for members in self._sets)

    @hashes.default
    def _hashes(self) -> tuple[bytes, ...]:
        """The new set's first; both are accepted."""
        return tuple(configuration_hash(members, self.quorum.value, self.lease_seconds) for members in self._sets)

    @everyone.default
    def _everyone(self) -> frozenset[str]:
        return frozenset().union(*self._sets)

    @others.default
    def _others(self) -> frozenset[str]:
        return self.everyone - {self.own}

    @property
    def _sets(self) -> tuple[frozenset[str], ...]:
        return (self.members,) if self.previous is None else (self.members, self.previous)

    @classmethod
    def of(
        cls,
        own: str,
        members: Iterable[str],
        *,
        previous: Iterable[str] | None = None,
        quorum: str = Quorum.MAJORITY.value,
        lease_seconds: float = 10.0,
    ) -> Membership:
        """
        :param members: ids of all nodes, this one's included.
        :raises BadMembership: this node is not in it, or more than one member changes at once.
        """
        present = frozenset(members)
        before = None if previous is None else frozenset(previous)
        if own not in present and (before is None or own not in before):
            raise BadMembership(f"This node, {own!r}, is none of the members {', '.join(sorted(present))}.")
        if before is not None and len(present ^ before) > 1:
            changed = ", ".join(sorted(present ^ before))
            raise BadMembership(f"Members change one at a time; between previous_members and now, these do: {changed}.")
        if quorum not in (each.value for each in Quorum):
            raise BadMembership(f"quorum must be majority or any, not {quorum!r}.")
        if not lease_seconds > 0:
            raise BadMembership(f"lease_seconds must be positive, not {lease_seconds!r}.")
        return cls(own, present, before, Quorum(quorum), float(lease_seconds))

    @property
    def lone(self) -> bool:
        """There is nobody else, and nobody else is on the way out."""
        return not self.others

    @property
    def one_disk_suffices(self) -> bool:
        """A purge can be durable on one disk only, so that a lost control may have been its only one."""
        return not self.lone and all(group.writes == 1 for group in self.groups)

    def durable(self, sequences: dict[str, int]) -> int:
        """
        :param sequences: for each member that can be believed, the sequence up to which it has a log on disk.
        :return: up to which the log is durable.
        """
        lowest = []
        for group in self.groups:
            ordered = sorted((sequences.get(each, 0) for each in group.members), reverse=True)
            lowest.append(ordered[group.writes - 1])
        return min(lowest)

    def leased(self, answered: Set[str]) -> bool:
        """:param answered: see :meth:`Group.leased`; this node counts by itself."""
        return all(group.leased(answered | {self.own}) for group in self.groups)

    def admits(self, admitted: Set[str], joining: Set[str]) -> bool:
        """:return: see :meth:`Group.admits`."""
        return all(group.admits(self.own, admitted, joining) for group in self.groups)

    def understands(self, hashes: Iterable[bytes]) -> bool:
        """:param hashes: those that a message carries: one, or two while its sender changes members."""
        return not set(self.hashes).isdisjoint(hashes)
