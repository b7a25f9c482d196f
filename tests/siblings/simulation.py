"""
A fleet under faults, played from a seed: the project's own protocol, an in-memory control, clients and publishers.

``python -m tests.siblings.simulation [FLAW] [SEEDS]`` plays seeds and prints the violations (``-`` for no flaw).
"""

from __future__ import annotations

import heapq
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from edgecache.rules.membership import CLOCK_DRIFT, Membership
from edgecache.rules.spreading import Member
from edgecache.siblings.messages import from_document, to_document
from edgecache.words.purging import LogName
from edgecache.words.siblingsettings import Quorum
from edgecache.words.spreading import Message, Send

from .host import Disk, Host
from .oracle import Oracle, Violation

LEASE = 2.0
TICK = 0.5
STORM = 6.5
"""Faults happen until then."""
CALM = 2.5

DELAYS = (0.002, 0.02, 0.1, 0.5, 1.5)


@define(eq=False)
class Flaw:
    """
    One guard less.

    :ivar member: what takes the place of :class:`Member`.
    :ivar spoil: removes a guard further inside.
    :ivar flaws: guards that records, fills, disk or shell lack.
    """

    name: str = "-"
    member: type[Member] = Member
    spoil: Callable[[Member, Host], None] = lambda member, host: None
    flaws: frozenset[str] = frozenset()


SOUND = Flaw()


@define(eq=False)
class World:
    """
    :ivar time: true time; every host's clock gains or loses against it.
    :ivar cut: pairs of which the first does not reach the second.
    :ivar loss: share of messages that are lost; delayed, failing: of those that are late, of commits that fail.
    :ivar one_disk: a purge may be durable on one disk that is lost.
    :ivar documents: messages go through their documents.
    :ivar strangers: ids that are members in nobody's configuration but their own.
    :ivar backups: an older control may come back.
    :ivar slow: seconds that the origin takes for each of two steps, when nothing is delayed by chance.
    """

    random: random.Random
    flaw: Flaw = SOUND
    time: float = 0.0
    hosts: dict[str, Host] = field(factory=dict)
    gone: dict[str, Host] = field(factory=dict)
    origin: dict[int, int] = field(factory=lambda: {0: 1, 1: 1, 2: 1})
    page_octets: int = 1 << 20
    oracle: Oracle = field(init=False)
    cut: set[tuple[str, str]] = field(factory=set)
    held: dict[tuple[str, str], list[tuple[Any, ...]]] = field(factory=dict)
    strangers: frozenset[str] = frozenset()
    backups: bool = False
    slow: float = 0.01
    loss: float = 0.0
    delayed: float = 0.0
    failing: float = 0.0
    one_disk: bool = False
    documents: bool = False
    bound: float = LEASE / (1 - CLOCK_DRIFT) + 1e-6
    _heap: list[tuple[float, int, Callable[..., None], Host | None, int, tuple[Any, ...]]] = field(factory=list)
    _count: int = 0

    def __attrs_post_init__(self) -> None:
        self.oracle = Oracle(self)

    # Time.

    def number(self) -> int:
        self._count += 1
        return self._count

    def after(self, seconds: float, act: Callable[..., None], host: Host | None, *arguments: Any) -> None:
        """:param host: if its process ends before, nothing happens."""
        life = 0 if host is None else host.life
        heapq.heappush(self._heap, (self.time + seconds, self.number(), act, host, life, arguments))

    def run(self, until: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.time, _, act, host, life, arguments = heapq.heappop(heap)
            if host is None or host.life == life:
                if host is not None and host.resumes > self.time:
                    self.after(host.resumes - self.time, act, host, *arguments)
                else:
                    act(*arguments)
        self.time = until

    def commit_seconds(self) -> float:
        return self.random.choice((0.001, 0.001, 0.01, 0.1)) if self.delayed else 0.001

    def origin_seconds(self) -> float:
        return self.random.choice((0.01, 0.05, 0.3, 1.5)) if self.delayed else self.slow

    def disk_fails(self) -> bool:
        return self.failing > 0.0 and self.random.random() < self.failing

    # Network.

    def send(self, host: Host, effect: Send) -> None:
        to = self.hosts.get(effect.to)
        if to is None:
            return
        message: Message = effect.message
        if self.documents:
            message = from_document(to_document(message))
        self.call(host, to, to.came, host.id, message, self.number())

    def call(self, host: Host, to: Host, act: Callable[..., None], *arguments: Any) -> None:
        """Over the network: lost, late, twice, to whichever life of ``to`` there is then."""
        chance = self.random.random
        if (host.id, to.id) in self.held:
            self.held[host.id, to.id].append((host, to, act, arguments))
            return
        if (host.id, to.id) in self.cut or (self.loss and chance() < self.loss):
            return
        copies = 2 if self.delayed and chance() < 0.03 else 1
        for _ in range(copies):
            late = self.delayed and chance() < self.delayed
            self.after(self.random.choice(DELAYS) if late else 0.005, self._arrive, None, host, to, act, arguments)

    def _arrive(self, host: Host, to: Host, act: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if to.resumes > self.time:
            self.after(to.resumes - self.time, self._arrive, None, host, to, act, arguments)
        elif to.up and (host.id, to.id) not in self.cut:
            act(*arguments)

    def hold(self, a: str, b: str) -> None:
        """What ``a`` sends to ``b`` from now on waits in :attr:`held`."""
        self.held[a, b] = []

    # Hosts.

    def add(self, name: str, membership: Membership, *, admitted: bool, keep: int) -> Host:
        disk = Disk(LogName(name, self.random.randbytes(16)), keep, admitted)
        drift = self.random.choice((-CLOCK_DRIFT, CLOCK_DRIFT, self.random.uniform(-CLOCK_DRIFT, CLOCK_DRIFT)))
        host = Host(self, name, membership, disk, 1 + drift, self.random.uniform(0, 1e4), self.flaw.flaws)
        self.hosts[name] = host
        self.after(self.random.random() * TICK, self.beat, None, host)
        return host

    def beat(self, host: Host) -> None:
        if self.hosts.get(host.id) is host:
            if host.awake:
                host.tick()
            self.after(TICK / host.rate, self.beat, None, host)

    def restart(self, host: Host) -> None:
        if not host.up:
            host.start()
            host.tick()

    def lose_control(self, host: Host) -> None:
        """While it is down. Records go with it: their floors mean nothing without it."""
        self.oracle.lost_control(host)
        name = (
            host.disk.own
            if "a lost log keeps its name" in self.flaw.flaws
            else LogName(host.id, self.random.randbytes(16))
        )
        host.disk = Disk(name, host.disk.keep, admitted="a new control is admitted" in self.flaw.flaws)
        host.small.clear()

    def stand_still(self, host: Host, seconds: float) -> None:
        """The machine is paused; its CLOCK_BOOTTIME does not notice."""
        host.resumes = self.time + seconds

        def resume() -> None:
            host.offset -= host.rate * seconds
            host.do(host.member.clocks(host.now, host.wall))

        # First of all: what came meanwhile is looked at after it.
        self.after(seconds, resume, None)


@define(eq=False)
class Storm:
    """What happens to a world until :data:`STORM`: clients, publishers, faults, a change of members."""

    world: World
    names: list[str]
    purges: int = 0
    _snapshots: dict[str, dict[int, tuple[int, int]]] = field(factory=dict)

    @property
    def _random(self) -> random.Random:
        return self.world.random

    @property
    def _over(self) -> bool:
        return self.world.time > STORM

    def begin(self) -> None:
        for act in (self._client, self._publisher, self._fault, self._snapshot):
            self.world.after(self._random.random(), act, None)

    def heal(self) -> None:
        world = self.world
        world.cut.clear()
        world.loss = world.delayed = world.failing = 0.0
        for host in world.hosts.values():
            world.restart(host)

    def _client(self) -> None:
        if self._over:
            return
        host = self._random.choice(list(self.world.hosts.values()))
        if host.awake:
            host.request(self._random.randrange(3))
        self.world.after(self._random.expovariate(20), self._client, None)

    def _publisher(self) -> None:
        if self._over:
            return
        key = self._random.randrange(3)
        self.world.origin[key] += 1
        self.purges += 1
        self._purge(str(self.purges), b"%d:%d" % (key, self.world.origin[key]))
        self.world.after(self._random.expovariate(1.5), self._publisher, None)

    def _purge(self, purge_id: str, content: bytes) -> None:
        """Until somebody says that it is durable, somebody is asked."""
        if purge_id in self.world.oracle.durable_ids or self._over:
            return
        host = self._random.choice(list(self.world.hosts.values()))
        if host.awake:
            host.purge(purge_id, content)
        self.world.after(1.5, self._purge, None, purge_id, content)

    def _snapshot(self) -> None:
        for host in self.world.hosts.values():
            self._snapshots[host.id] = dict(host.small)
        self.world.after(self._random.uniform(1, 4), self._snapshot, None)

    def _fault(self) -> None:
        if self._over:
            return
        world, chance = self.world, self._random.random()
        names = list(world.hosts)
        host = world.hosts[self._random.choice(names)]
        if chance < 0.35:
            one_side = {name for name in names if self._random.random() < 0.5}
            one_way = self._random.random() < 0.3
            world.cut = {
                (a, b)
                for a in names
                for b in names
                if (a in one_side and b not in one_side) or (not one_way and b in one_side and a not in one_side)
            }
            world.after(self._random.choice((0.5, 2, 5)), world.cut.clear, None)
        elif chance < 0.45:
            world.cut = world.cut | {(self._random.choice(names), self._random.choice(names))}
            world.after(self._random.uniform(0.5, 5), world.cut.clear, None)
        elif chance < 0.8:
            if host.awake:
                self._crash(host)
        elif chance < 0.88:
            if host.awake:
                world.stand_still(host, min(self._random.choice((1.5, 3)), STORM - world.time))
        else:
            host.wall_offset += self._random.choice((-5, 3600))
        world.after(self._random.expovariate(1.0), self._fault, None)

    def _crash(self, host: Host) -> None:
        host.stop()
        kind = self._random.random()
        if kind < 0.25:
            host.small = dict(self._snapshots.get(host.id, {}))
        elif kind < 0.4:
            host.small.clear()
        elif kind < 0.6 and self._may_lose_control(host):
            self.world.lose_control(host)
        self.world.after(self._random.choice((0.05, 0.5, 1, 4)), self.world.restart, None, host)

    def _may_lose_control(self, host: Host) -> bool:
        """Of a majority, one control may be lost at a time: with two, both copies of a purge may be gone."""
        return host.disk.admitted and not self.world.oracle.lost


def members_of(names: list[str], quorum: Quorum, own: str, before: list[str] | None = None) -> Membership:
    return Membership.of(own, names, quorum=quorum, lease_seconds=LEASE, previous_members=before or ())


def change_members(world: World, names: list[str], keep: int) -> None:
    """One joins or leaves: everybody first learns that both sets count, in any order; then the old one is dropped."""
    chance = world.random
    quorum = Quorum.MAJORITY
    if len(names) < 5 and (len(names) < 4 or chance.random() < 0.5):
        after = [*names, f"n{len(names) + 1}"]
    else:
        after = sorted(chance.sample(names, len(names) - 1))
    begin = chance.uniform(1, 4)
    world.after(begin, _change, None, world, names, after, quorum, keep)


def _change(world: World, names: list[str], after: list[str], quorum: Quorum, keep: int) -> None:
    told = 0.0
    for name in sorted({*names, *after}):
        membership = members_of(after, quorum, name, before=names)
        if name in names:
            moment = world.random.uniform(0, 2)
            world.after(moment, world.hosts[name].configure, None, membership)
            told = max(told, moment)
        else:
            world.add(name, membership, admitted=False, keep=keep)
    world.after(told + 0.01, _finish_change, None, world, names, after, quorum)


def _finish_change(world: World, names: list[str], after: list[str], quorum: Quorum) -> None:
    for name in sorted(set(names) - set(after)):
        gone = world.gone[name] = world.hosts.pop(name)
        world.oracle.lost.pop(name, None)
        gone.stop()
    for name in after:
        moment = world.random.uniform(0, 2)
        world.after(moment, world.hosts[name].configure, None, members_of(after, quorum, name))


def play(seed: int, flaw: Flaw = SOUND) -> World:
    """
    :return: the world at its end.
    :raises Violation: an invariant does not hold.
    """
    chance = random.Random(seed)
    world = World(chance, flaw)
    names = [f"n{number + 1}" for number in range(chance.choice((2, 3, 3, 3, 4, 5)))]
    quorum = Quorum.ANY if len(names) == 2 and chance.random() < 0.7 else Quorum.MAJORITY
    world.one_disk = quorum is Quorum.ANY
    world.page_octets = chance.choice((1, 12, 1 << 20))
    world.loss = chance.choice((0.0, 0.05, 0.2))
    world.delayed = chance.choice((0.05, 0.3))
    world.failing = chance.choice((0.0, 0.0, 0.05))
    world.documents = seed % 10 == 0
    keep = chance.choice((4, 1000))
    admitted = chance.random() < 0.7
    for name in names:
        world.add(name, members_of(names, quorum, name), admitted=admitted, keep=keep)
    if quorum is Quorum.MAJORITY and chance.random() < 0.3:
        change_members(world, names, keep)
    storm = Storm(world, names)
    storm.begin()
    world.run(STORM + 0.5)
    storm.heal()
    joining = any(not host.disk.admitted for host in world.hosts.values())
    healed = world.time
    if not joining:
        world.run(healed + 2 * TICK * (1 + CLOCK_DRIFT) + 0.1)
        world.oracle.check_agreement()
    world.run(healed + CALM)
    world.oracle.check_end()
    return world


def main() -> None:
    from .flaws import FLAWS

    name = sys.argv[1] if len(sys.argv) > 1 else "-"
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    flaw = SOUND if name == "-" else FLAWS[name]
    began = time.process_time()
    found = []
    for seed in range(seeds):
        try:
            play(seed, flaw)
        except Violation as violation:
            found.append((seed, str(violation)))
    milliseconds = 1000 * (time.process_time() - began) / seeds
    told = [f"{flaw.name}: {seeds} seeds, {milliseconds:.1f} ms each, {len(found)} violations", *map(str, found[:5])]
    sys.stdout.write("\n".join(told) + "\n")


if __name__ == "__main__":
    main()
