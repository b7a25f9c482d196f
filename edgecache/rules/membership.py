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

import struct
from collections.abc import Iterable, Set
from hashlib import blake2b

from attrs import define, field, frozen

from edgecache.words.errors import EdgeError
from edgecache.words.siblingsettings import Quorum

CLOCK_DRIFT = 0.01
"""A clock gains or loses at most this share: a hundred times what quartz does, so that slewing fits in."""


@define(eq=False, repr=False)
class BadMembership(EdgeError):
    """:ivar problem: one sentence for whoever wrote the configuration."""

    problem: str

    def __str__(self) -> str:
        return self.problem


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
    """
    One set of members and its quorums. See Note [quorums].

    :ivar quorum: ``ANY``: a purge may be on one disk only, so that a lease needs all.
    :ivar lease_seconds: for how long after the start of a round a member may serve what is purgeable as fresh.
    """

    members: frozenset[str]
    quorum: Quorum
    lease_seconds: float

    @property
    def hash(self) -> bytes:
        """:return: what :func:`configuration_hash` says of it."""
        return configuration_hash(self.members, self.quorum.value, self.lease_seconds)

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
    :ivar groups: the members; then, while they change, those of before.
    :ivar hashes: of each group; messages carry all of them, and one in common is enough.
    :ivar everyone: ids of all groups.
    """

    own: str
    groups: tuple[Group, ...]
    hashes: tuple[bytes, ...] = field(init=False)
    everyone: frozenset[str] = field(init=False)
    others: frozenset[str] = field(init=False)

    @hashes.default
    def _hashes(self) -> tuple[bytes, ...]:
        return tuple(group.hash for group in self.groups)

    @everyone.default
    def _everyone(self) -> frozenset[str]:
        return frozenset(each for group in self.groups for each in group.members)

    @others.default
    def _others(self) -> frozenset[str]:
        return self.everyone - {self.own}

    @classmethod
    def of(
        cls,
        own: str,
        members: Iterable[str],
        *,
        quorum: Quorum = Quorum.MAJORITY,
        lease_seconds: float = 10.0,
        previous_members: Iterable[str] = (),
        previous_quorum: Quorum | None = None,
        previous_lease_seconds: float | None = None,
    ) -> Membership:
        """
        :param members: ids of all nodes, this one's included.
        :param previous_members: before the change that is under way; none of them: there is no change.
        :param previous_quorum: where that changes as well; so with the lease.
        :raises BadMembership: this node is not in it, or more than one member changes at once.
        """
        groups = [Group(frozenset(members), quorum, float(lease_seconds))]
        before = frozenset(previous_members)
        if before:
            changed = groups[0].members ^ before
            if len(changed) > 1:
                raise BadMembership(
                    f"Members change one at a time; between previous_members and now, these do: {_listed(changed)}."
                )
            lease = lease_seconds if previous_lease_seconds is None else previous_lease_seconds
            groups.append(Group(before, previous_quorum or quorum, float(lease)))
        if not any(own in group.members for group in groups):
            raise BadMembership(f"This node, {own!r}, is none of the members {_listed(groups[0].members)}.")
        if not all(group.lease_seconds > 0 for group in groups):
            raise BadMembership("A lease must be longer than 0 seconds.")
        return cls(own, tuple(groups))

    @property
    def lease_seconds(self) -> float:
        """How long a lease of this node is: no longer than any member, of now or before, expects."""
        return min(group.lease_seconds for group in self.groups)

    @property
    def bound_seconds(self) -> float:
        """Once a purge is durable, every lease from before is over after this, on this node's clock too."""
        longest = max(group.lease_seconds for group in self.groups)
        # Their clock may be the slowest, ours the fastest.
        return longest * (1 + CLOCK_DRIFT) / (1 - CLOCK_DRIFT)

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


def _listed(ids: Iterable[str]) -> str:
    return ", ".join(sorted(ids))
