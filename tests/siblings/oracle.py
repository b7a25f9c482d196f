"""What is true of the simulated fleet, against which every claim and every answer is checked (DESIGN 9)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from attrs import define, field

from edgecache.words.purging import Entry, LogName, PurgeState
from edgecache.words.spreading import Changed

from .host import Host, said

if TYPE_CHECKING:
    from tests.siblings.simulation import World


class Violation(AssertionError):
    """An invariant of DESIGN 9 does not hold."""


@define(eq=False)
class Oracle:
    """
    :ivar durable_at: (log, sequence) to the true time of the first claim that it is durable.
    :ivar lost: hosts whose control was lost and that are not admitted again, with what they had.
    """

    world: World
    entries: dict[tuple[LogName, int], Entry] = field(factory=dict)
    durable_at: dict[tuple[LogName, int], float] = field(factory=dict)
    durable_ids: set[str] = field(factory=set)
    lost: dict[str, dict[LogName, int]] = field(factory=dict)
    counts: Counter[str] = field(factory=Counter)
    _claimed: dict[tuple[str, LogName, PurgeState], int] = field(factory=dict)
    _applied: dict[tuple[str, int], int] = field(factory=dict)
    _everywhere: dict[int, int] = field(factory=dict)
    _revalidated: dict[str, dict[LogName, int]] = field(factory=dict)
    _bounds: list[tuple[float, int, int]] = field(factory=list)

    def applied(self, host: Host, entry: Entry) -> None:
        """``host`` has it on disk and published."""
        key, version = said(entry)
        if entry.log.id in self.world.strangers and host.id not in self.world.strangers:
            raise Violation(f"{host.id} applied an entry of {entry.log.id}, which is no member")
        known = self.entries.setdefault((entry.log, entry.sequence), entry)
        if known.purge_id != entry.purge_id:
            raise Violation(f"{entry.log.id} {entry.sequence} is both {known.purge_id} and {entry.purge_id}")
        self._applied[host.id, key] = max(version, self._applied.get((host.id, key), 0))

    def revalidated(self, host: Host) -> None:
        """``host`` has invalidated everything: that does what any purge until now would have done."""
        done = self._revalidated.setdefault(host.id, {})
        for log, sequence in self.entries:
            done[log] = max(sequence, done.get(log, 0))

    def moved(self, host: Host, before: dict[LogName, int]) -> None:
        for log, sequence in before.items():
            if host.disk.positions[log] < sequence:
                raise Violation(f"{host.id} went back in {log.id}")
            kept = host.disk.entries.get(log, {})
            oldest = host.disk.oldest.get(log, 0)
            if len(kept) != host.disk.positions[log] - oldest:
                raise Violation(f"{host.id} has a gap in {log.id}")

    def lost_control(self, host: Host) -> None:
        self.lost[host.id] = dict(host.disk.positions)
        for name, key in list(self._applied):
            # It has lost all content as well.
            if name == host.id:
                del self._applied[name, key]

    def admitted(self, host: Host) -> None:
        self.lost.pop(host.id, None)

    def renounced(self, host: Host) -> None:
        if not self.world.backups:
            raise Violation(f"{host.id} renounces a control that is not old")

    def claimed(self, host: Host, claim: Changed) -> None:
        """A member says that a log has come so far."""
        at = (host.id, claim.log, claim.state)
        first = self._claimed.get(at, 0) + 1
        if claim.sequence < first:
            return
        self._claimed[at] = claim.sequence
        self.counts[claim.state.value] += 1
        membership = host.member.membership
        match claim.state:
            case PurgeState.DURABLE:
                for group in membership.groups:
                    if sum(self._keeps(each, claim.log, claim.sequence) for each in group.members) < group.writes:
                        raise Violation(f"{host.id} says durable of {claim.log.id} {claim.sequence}: too few have it")
            case PurgeState.COMPLETE:
                for each in membership.everyone:
                    if each not in self.world.gone and not self._has(each, claim.log, claim.sequence):
                        raise Violation(f"{host.id} says complete of {claim.log.id} {claim.sequence}: not {each}")
            case PurgeState.EFFECTIVE:
                for each in membership.everyone:
                    other = self.world.hosts.get(each)
                    if other is not None and not other.fenced and not self._has(each, claim.log, claim.sequence):
                        raise Violation(
                            f"{host.id} says effective of {claim.log.id} {claim.sequence}: {each} is not fenced"
                        )
        for sequence in range(first, claim.sequence + 1):
            self._holds(claim.log, sequence, everywhere=claim.state is not PurgeState.DURABLE)

    def _keeps(self, member: str, log: LogName, sequence: int) -> bool:
        """Will ``member`` tell it to others, as far as one lost control goes?"""
        host = self.world.hosts.get(member) or self.world.gone.get(member)
        if host is None:
            return False
        # A lost control counts until it is replaced: who joins asks those that still have the entry.
        positions = host.disk.positions if host.disk.admitted else self.lost.get(member, {})
        return positions.get(log, 0) >= sequence

    def _has(self, member: str, log: LogName, sequence: int) -> bool:
        host = self.world.hosts.get(member) or self.world.gone.get(member)
        if host is None:
            return False
        # Without control it has no content either, and it must learn all before it vouches again.
        known = (host.disk.positions, self.lost.get(member, {}), self._revalidated.get(member, {}))
        return any(each.get(log, 0) >= sequence for each in known)

    def _holds(self, log: LogName, sequence: int, everywhere: bool) -> None:
        entry = self.entries.get((log, sequence))
        if entry is None:
            # Forgotten by all before this node heard of it, which then revalidated everything.
            return
        key, version = said(entry)
        if everywhere:
            self._everywhere[key] = max(version, self._everywhere.get(key, 0))
        if (log, sequence) not in self.durable_at:
            self.durable_at[log, sequence] = self.world.time
            self.durable_ids.add(entry.purge_id)
            self._bounds.append((self.world.time + self.world.bound, key, version))

    def floor(self, host: Host, key: int) -> int:
        """:return: the oldest version that ``host`` may serve as fresh to a request that comes now."""
        floor = max(self._applied.get((host.id, key), 0), self._everywhere.get(key, 0))
        while self._bounds and self._bounds[0][0] < self.world.time:
            _, of, version = self._bounds.pop(0)
            self._everywhere[of] = max(version, self._everywhere.get(of, 0))
        return max(floor, self._everywhere.get(key, 0))

    def served(self, host: Host, key: int, version: int, floor: int) -> None:
        self.counts["served"] += 1
        if version < floor:
            raise Violation(f"{host.id} served version {version} of {key} at {self.world.time:.2f}, {floor} was purged")

    def check_agreement(self) -> None:
        """Faults have stopped two rounds ago."""
        seen = {frozenset(host.disk.positions.items()) for host in self.world.hosts.values()}
        if len(seen) > 1:
            raise Violation("positions differ after two rounds")

    def check_end(self) -> None:
        """Faults have stopped for long."""
        hosts = list(self.world.hosts.values())
        self.check_agreement()
        for host in hosts:
            if not host.disk.admitted:
                raise Violation(f"{host.id} is still joining")
            if host.fenced:
                raise Violation(f"{host.id} is still fenced")
            for key in self.world.origin:
                version = host.hit(key)
                if version is not None:
                    self.served(host, key, version, self.floor(host, key))
            for log, sequence in self.durable_at:
                if host.disk.positions.get(log, 0) < sequence and not self.world.one_disk:
                    raise Violation(f"{host.id} lacks {log.id} {sequence}, which was durable")
