"""
One node of the simulated fleet: the project's :class:`Member`, a disk, records with floors, and fills.

The disk keeps the durability rules of :mod:`edgecache.store.control`; records and fills those of DESIGN 9.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from edgecache.rules.membership import Membership
from edgecache.rules.spreading import Member
from edgecache.words.purging import Entry, LogName, Position, Positions, TooOld
from edgecache.words.spreading import (
    FENCED,
    Admit,
    Adopt,
    Changed,
    Copy,
    Effect,
    Message,
    Publish,
    Renounce,
    Send,
)

if TYPE_CHECKING:
    from tests.siblings.simulation import World


def said(entry: Entry) -> tuple[int, int]:
    """:return: key and version of what was purged."""
    key, version = entry.content.split(b":")
    return int(key), int(version)


@define(eq=False)
class Disk:
    """A control environment. :ivar last: epoch of the last purge of a key; of everything under ``None``."""

    own: LogName
    keep: int = 1000
    admitted: bool = False
    positions: dict[LogName, int] = field(init=False)
    oldest: dict[LogName, int] = field(factory=dict)
    entries: dict[LogName, dict[int, Entry]] = field(factory=dict)
    epoch: int = 0
    last: dict[int | None, int] = field(factory=dict)

    @positions.default
    def _own_only(self) -> dict[LogName, int]:
        return {self.own: 0}

    def purged(self, key: int) -> int:
        """:return: epoch of the last purge that selects ``key``."""
        return max(self.last.get(key, 0), self.last.get(None, 0))

    def add(self, entry: Entry) -> bool:
        """:return: whether it is here now; a gap keeps it out."""
        head = self.positions.get(entry.log, 0)
        if entry.sequence <= head:
            return True
        if entry.sequence > head + 1:
            return False
        self.positions[entry.log] = entry.sequence
        self.invalidate(said(entry)[0])
        kept = self.entries.setdefault(entry.log, {})
        kept[entry.sequence] = entry
        if len(kept) > self.keep:
            oldest = min(kept)
            del kept[oldest]
            self.oldest[entry.log] = oldest
        return True

    def adopt(self, positions: Positions, everything: bool) -> None:
        if everything:
            self.invalidate(None)
        for log, sequence in positions.items():
            if self.positions.get(log, -1) < sequence:
                self.positions[log] = self.oldest[log] = sequence
                self.entries[log] = {}

    def invalidate(self, key: int | None) -> None:
        self.epoch += 1
        self.last[key] = self.epoch

    def read_from(self, position: Position, most: int = 1000) -> list[Entry] | TooOld:
        oldest = self.oldest.get(position.log, 0)
        if position.sequence < oldest:
            return TooOld(Position(position.log, oldest))
        kept = self.entries.get(position.log, {})
        last = min(self.positions.get(position.log, 0), position.sequence + most)
        return [kept[number] for number in range(position.sequence + 1, last + 1)]


@define(eq=False)
class Fill:
    key: int
    floor: int
    positions: Positions
    validating: bool
    waiting: list[int] = field(factory=list)


@define(eq=False)
class Host:
    """
    :ivar rate: of its clock against true time.
    :ivar small: key to version and floor.
    :ivar flaws: guards of records and fills that this host lacks.
    """

    world: World
    id: str
    membership: Membership
    disk: Disk
    rate: float
    offset: float
    flaws: frozenset[str] = frozenset()
    up: bool = True
    resumes: float = 0.0
    lives: int = 0
    life: int = 0
    wall_offset: float = 0.0
    fresh_until: float = FENCED
    member: Member = field(init=False)
    small: dict[int, tuple[int, int]] = field(factory=dict)
    fills: dict[int, Fill] = field(factory=dict)
    _queue: list[Copy | Adopt | Admit | Entry] = field(factory=list)
    _committing: bool = False

    def __attrs_post_init__(self) -> None:
        self.start()

    @property
    def now(self) -> float:
        return self.offset + self.rate * self.world.time

    @property
    def wall(self) -> float:
        return self.world.time + self.wall_offset

    @property
    def awake(self) -> bool:
        """Neither down nor standing still (a paused machine, until ``resumes``)."""
        return self.up and self.resumes <= self.world.time

    @property
    def fenced(self) -> bool:
        return self.now >= self.fresh_until

    # A life.

    def start(self) -> None:
        self.up = True
        self.member = self.world.flaw.member.begin(
            self.disk.own,
            self.membership,
            self.disk,
            positions=dict(self.disk.positions),
            admitted=self.disk.admitted,
            life=f"{self.id}-{self.lives}",
            page_octets=self.world.page_octets,
        )
        self.world.flaw.spoil(self.member, self)

    def stop(self) -> None:
        """As kill -9: what is on disk stays, what control was asked for is lost."""
        self.up = False
        self.lives += 1
        self.life += 1
        self._queue.clear()
        self._committing = False
        self.fills.clear()
        if "the lease outlives its process" not in self.flaws:
            self.fresh_until = FENCED

    def tick(self) -> None:
        self.do(self.member.tick(self.now, self.wall))

    def came(self, peer: str, message: Message, token: int) -> None:
        self.do(self.member.came(peer, message, self.now, token))

    def configure(self, membership: Membership) -> None:
        self.membership = membership
        if self.up:
            self.do(self.member.configured(membership, self.now))

    def purge(self, purge_id: str, content: bytes) -> None:
        if self.member.accepts:
            # Its number is given when it is committed.
            self._ask(Entry(self.disk.own, 0, 0, 0, purge_id, b"", content))

    # Effects.

    def do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self.world.send(self, effect)
                case Publish():
                    self.fresh_until = effect.fresh_until
                case Changed():
                    self.world.oracle.claimed(self, effect)
                case Copy() | Adopt() | Admit():
                    self._ask(effect)
                case Renounce():
                    self.world.oracle.renounced(self)

    def _ask(self, change: Copy | Adopt | Admit | Entry) -> None:
        self._queue.append(change)
        if not self._committing:
            self._committing = True
            self.world.after(self.world.commit_seconds(), self._commit, self)

    def _commit(self) -> None:
        """What was asked for by now is on disk and published, in one transaction."""
        changes, self._queue, self._committing = self._queue, [], False
        if self.world.disk_fails():
            self.do(self.member.failed(self.now))
            return
        before = dict(self.disk.positions)
        own, admitted, failed = [], False, False
        for change in changes:
            match change:
                case Copy():
                    for entry in change.entries:
                        if self.disk.add(entry):
                            self.world.oracle.applied(self, entry)
                        else:
                            failed = True
                case Adopt():
                    self.disk.adopt(change.positions, change.everything)
                    if change.everything:
                        self.world.oracle.revalidated(self)
                case Admit():
                    self.disk.admitted = admitted = True
                case Entry():
                    numbered = evolve(change, sequence=self.disk.positions[self.disk.own] + 1)
                    self.disk.add(numbered)
                    self.world.oracle.applied(self, numbered)
                    own.append(numbered)
        self.world.oracle.moved(self, before)
        if admitted:
            self.world.oracle.admitted(self)
            self.do(self.member.became_admitted(self.now))
        moved = {log: at for log, at in self.disk.positions.items() if before.get(log, -1) < at}
        if own:
            self.do(self.member.appended(own, self.now))
        if moved:
            self.do(self.member.stored(moved, self.now))
        if failed:
            self.do(self.member.failed(self.now))

    # Content.

    def hit(self, key: int) -> int | None:
        """:return: the version that is served as fresh without asking anybody."""
        found = self.small.get(key)
        if self.fenced or found is None:
            return None
        version, floor = found
        return version if floor >= self.disk.purged(key) else None

    def request(self, key: int) -> None:
        version = self.hit(key)
        floor = self.world.oracle.floor(self, key)
        if version is not None:
            self.world.oracle.served(self, key, version, floor)
            return
        fenced = self.fenced
        if not fenced or "a fenced request joins" in self.flaws:
            for fill in self.fills.values():
                if fill.key != key or (fill.validating and "a fenced request joins" not in self.flaws):
                    continue
                if "a fill is joined after a purge" in self.flaws or fill.floor >= self.disk.purged(key):
                    fill.waiting.append(floor)
                    return
        number = self.world.number()
        fill = Fill(key, self.disk.epoch, self.member.positions, fenced, [floor])
        self.fills[number] = fill
        peers = sorted(self.member.membership.others)
        if peers and not fenced and self.world.random.random() < 0.5:
            asked = self.world.hosts.get(self.world.random.choice(peers))
            if asked is not None:
                self.world.call(self, asked, asked.asked, key, fill.positions, self, number)
            self.world.after(1.0, self._from_origin, self, number)
        else:
            self._from_origin(number)

    def asked(self, key: int, positions: Positions, asker: Host, number: int) -> None:
        """A sibling asks for content."""
        version = self.hit(key)
        if "a fenced sibling answers" in self.flaws and key in self.small:
            version = self.small[key][0]
        if "positions of an asker are ignored" not in self.flaws and not self.member.covers(positions):
            version = None
            self.do(self.member.catch_up(asker.id, self.now))
        self.world.call(self, asker, asker.answered, number, version)

    def answered(self, number: int, version: int | None) -> None:
        fill = self.fills.get(number)
        if fill is None:
            return
        if version is None:
            self._from_origin(number)
        else:
            self._filled(number, version)

    def _from_origin(self, number: int) -> None:
        if number in self.fills:
            self.world.after(self.world.origin_seconds(), self._origin_reads, self, number)

    def _origin_reads(self, number: int) -> None:
        fill = self.fills.get(number)
        if fill is not None:
            self.world.after(self.world.origin_seconds(), self._filled, self, number, self.world.origin[fill.key])

    def _filled(self, number: int, version: int) -> None:
        fill = self.fills.pop(number, None)
        if fill is None:
            return
        floor = self.disk.epoch if "the floor is taken at the end" in self.flaws else fill.floor
        held = self.small.get(fill.key)
        if held is None or held[1] <= floor:
            self.small[fill.key] = (version, floor)
        for wanted in fill.waiting:
            self.world.oracle.served(self, fill.key, version, wanted)
