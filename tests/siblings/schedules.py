"""Directed schedules: for one flaw each, the interleaving that shows it. Without the flaw nothing happens."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

from edgecache.rules.membership import Membership
from edgecache.words.siblingsettings import Quorum

from .flaws import FLAWS
from .host import Host
from .simulation import LEASE, TICK, Flaw, World

Schedule = Callable[[Flaw], None]

OVER = 1.1 * LEASE
"""After this no lease from before is left."""


class Stage:
    """A fleet whose messages take 5 ms, whose commits take 1 ms, and whose faults are told to it."""

    def __init__(
        self, flaw: Flaw, hosts: int, *, keep: int = 1000, page_octets: int = 1 << 20, **settings: object
    ) -> None:
        self.world = World(random.Random(0), flaw, page_octets=page_octets)
        self.names = [f"n{number + 1}" for number in range(hosts)]
        self.keep = keep
        for name in self.names:
            self.add(name, self.members(name, **settings), admitted=True)
        self.run(3 * TICK)

    def members(self, own: str, names: list[str] | None = None, **settings: object) -> Membership:
        return Membership.of(own, names or self.names, **({"lease_seconds": LEASE} | settings))  # type: ignore[arg-type]

    def add(self, name: str, membership: Membership, *, admitted: bool) -> Host:
        host = self.world.add(name, membership, admitted=admitted, keep=self.keep)
        host.rate = 1.0
        return host

    def __getitem__(self, name: str) -> Host:
        return self.world.hosts[name]

    def run(self, seconds: float) -> None:
        self.world.run(self.world.time + seconds)

    def store(self, *names: str, key: int = 0) -> None:
        """Each of them has the present version."""
        for name in names:
            self[name].request(key)
            self.run(0.1)

    def purge(self, name: str, key: int = 0) -> None:
        self.world.origin[key] += 1
        self[name].purge(f"p{self.world.number()}", b"%d:%d" % (key, self.world.origin[key]))

    def part(self, one: list[str], *others: str) -> None:
        """Those of ``one`` and ``others`` do not reach each other."""
        self.world.cut |= {pair for a in one for b in others for pair in ((a, b), (b, a))}

    def join(self, one: list[str], *others: str) -> None:
        self.world.cut -= {pair for a in one for b in others for pair in ((a, b), (b, a))}

    def take(self, a: str, b: str) -> list[tuple[Any, ...]]:
        """:return: what was held on its way from ``a`` to ``b``; from now on nothing is held."""
        return self.world.held.pop((a, b))

    def deliver(self, late: list[tuple[Any, ...]]) -> None:
        """It arrives, whatever is cut off now."""
        for _, _, act, arguments in late:
            act(*arguments)

    def lose_control(self, name: str) -> None:
        self[name].stop()
        self.world.lose_control(self[name])
        self.world.restart(self[name])


def _minority(flaw: Flaw) -> None:
    stage = Stage(flaw, 5)
    stage.store("n1")
    stage.part(["n1", "n2"], "n3", "n4", "n5")
    stage.purge("n3")
    stage.run(OVER)
    stage["n1"].request(0)
    stage.run(1.0)


def _quorum_changes(flaw: Flaw) -> None:
    """Of two nodes with quorum any, one is told first of a voter that makes it a majority of three."""
    stage = Stage(flaw, 2, quorum=Quorum.ANY)
    stage.store("n1")
    stage.part(["n2"], "n1", "n3")
    change = {"quorum": Quorum.MAJORITY, "previous_members": ["n1", "n2"], "previous_quorum": Quorum.ANY}
    stage.names.append("n3")
    stage["n1"].configure(stage.members("n1", **change))
    stage.add("n3", stage.members("n3", **change), admitted=True)
    stage.purge("n2")
    stage.run(OVER)
    stage["n1"].request(0)


def _lease_grows(flaw: Flaw) -> None:
    stage = Stage(flaw, 3)
    stage["n3"].configure(
        stage.members("n3", lease_seconds=4 * LEASE, previous_members=stage.names, previous_lease_seconds=LEASE)
    )
    stage.run(2 * TICK)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    stage.purge("n1")
    stage.run(OVER)
    stage["n3"].request(0)


def _first_answer(flaw: Flaw) -> None:
    """The only sibling that a new control can ask knows nothing; the one that knows is cut off."""
    stage = Stage(flaw, 3)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    stage.purge("n1")
    stage.run(0.1)
    stage.part(["n1"], "n2")
    stage.lose_control("n2")
    stage.join(["n3"], "n2")
    stage.run(OVER)
    stage["n3"].request(0)


def _one_disk(flaw: Flaw) -> None:
    stage = Stage(flaw, 2, quorum=Quorum.ANY)
    stage.world.one_disk = True
    stage.store("n2")
    stage.part(["n1"], "n2")
    stage.purge("n1")
    stage.run(OVER)
    stage.lose_control("n1")
    stage.join(["n1"], "n2")
    stage.run(6 * TICK)
    stage["n2"].request(0)


def _another_lease(flaw: Flaw) -> None:
    stage = Stage(flaw, 3)
    stage["n3"].configure(stage.members("n3", lease_seconds=10 * LEASE))
    stage.run(2 * TICK)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    stage.purge("n1")
    stage.run(OVER)
    stage["n3"].request(0)


def _late_answers(flaw: Flaw) -> None:
    """Answers of before the purge are on their way for most of a lease."""
    stage = Stage(flaw, 3)
    stage.store("n3")
    stage.world.hold("n1", "n3")
    stage.world.cut.add(("n2", "n3"))
    stage.run(1.1 * TICK)
    late = stage.take("n1", "n3")
    stage.part(["n3"], "n1", "n2")
    stage.purge("n1")
    stage.run(0.7 * LEASE)
    stage.deliver(late)
    stage.run(OVER - 0.7 * LEASE)
    stage["n3"].request(0)


def _first_page(flaw: Flaw) -> None:
    stage = Stage(flaw, 3, page_octets=1)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    for key in (1, 1, 0):
        stage.purge("n1", key)
        stage.run(0.1)
    stage.run(OVER)
    stage.join(["n3"], "n1", "n2")
    while len(stage["n3"].disk.positions) < 3 or not any(stage["n3"].disk.positions.values()):
        stage.run(0.001)
    stage.part(["n3"], "n1", "n2")
    stage.run(0.02)
    stage["n3"].request(0)


def _earlier_life(flaw: Flaw) -> None:
    """The answer to the first round of one life comes in the first round of the next."""
    stage = Stage(flaw, 3)
    stage.store("n3")
    stage["n3"].stop()
    stage.world.hold("n1", "n3")
    stage.part(["n3"], "n2")
    stage.world.restart(stage["n3"])
    stage.run(0.1)
    stage["n3"].stop()
    late = stage.take("n1", "n3")
    stage.part(["n3"], "n1")
    stage.purge("n1")
    stage.run(OVER)
    stage.world.restart(stage["n3"])
    stage.deliver(late)
    stage["n3"].request(0)


def _vouching_life(flaw: Flaw, *, before_it_is_noted: bool) -> None:
    """
    An acknowledgement arrives after its sender's control was lost, and after that was admitted again.

    :param before_it_is_noted: one of those that admit it forgets that it has a new log.
    """
    stage = Stage(flaw, 5)
    stage.store("n4")
    stage.world.hold("n2", "n1")
    stage.part(["n1", "n2"], "n3", "n4", "n5")
    stage.purge("n1")
    stage.run(0.02)
    # n2 has it, and n1 has not heard of that yet.
    late = stage.take("n2", "n1")
    stage["n2"].stop()
    stage.part(["n2"], "n1")
    stage.join(["n2"], "n3", "n4", "n5")
    if before_it_is_noted:
        stage.part(["n3"], "n4", "n5")
    stage.world.lose_control(stage["n2"])
    stage.world.restart(stage["n2"])
    if before_it_is_noted:
        # It answers in 5 ms and would have the name on disk in 6.
        stage.run(0.0055)
        stage["n3"].stop()
        stage.run(0.01)
        stage.part(["n3"], "n2")
        stage.world.restart(stage["n3"])
    stage.run(4 * TICK)
    stage.join(["n3"], "n1")
    stage.part(["n3"], "n2", "n4", "n5")
    stage.deliver(late)
    stage.run(2 * TICK)
    stage.deliver(late)
    stage.run(OVER)
    stage["n4"].request(0)


def _known_life(flaw: Flaw) -> None:
    _vouching_life(flaw, before_it_is_noted=False)


def _forgotten_life(flaw: Flaw) -> None:
    _vouching_life(flaw, before_it_is_noted=True)


def _standing_still(flaw: Flaw) -> None:
    stage = Stage(flaw, 3)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    stage.world.stand_still(stage["n3"], OVER)
    stage.purge("n1")
    stage.run(OVER + 0.01)
    stage["n3"].request(0)


def _asleep(flaw: Flaw) -> None:
    """The machine stands still while no process of the node is there to see it."""
    stage = Stage(flaw, 3)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    stage["n3"].stop()
    stage.purge("n1")
    stage.run(OVER)
    stage["n3"].offset -= OVER
    stage.world.restart(stage["n3"])
    stage["n3"].request(0)


def _trimmed(flaw: Flaw) -> None:
    stage = Stage(flaw, 3, keep=2)
    stage.store("n3")
    stage.part(["n3"], "n1", "n2")
    for key in (0, 1, 1, 1):
        stage.purge("n1", key)
        stage.run(0.1)
    stage.run(OVER)
    stage.join(["n3"], "n1", "n2")
    stage.run(3 * TICK)
    stage["n3"].request(0)


def _backup(flaw: Flaw) -> None:
    stage = Stage(flaw, 3)
    stage.world.backups = True
    older = stage["n1"].disk
    stage["n1"].disk = copy.deepcopy(older)
    stage["n1"].stop()
    stage.world.restart(stage["n1"])
    stage.run(3 * TICK)
    stage.purge("n1", 0)
    stage.run(0.1)
    stage["n1"].stop()
    stage["n1"].disk = older
    stage.world.restart(stage["n1"])
    stage.run(3 * TICK)
    stage.purge("n1", 1)
    stage.run(0.1)


def _stranger(flaw: Flaw) -> None:
    stage = Stage(flaw, 3)
    stage.world.strangers = frozenset({"n4"})
    stage.add("n4", stage.members("n4", [*stage.names, "n4"]), admitted=True)
    stage.purge("n4")
    stage.run(3 * TICK)


def _joining_copy(flaw: Flaw) -> None:
    """A node that is joining has copied a purge; its sibling must not take that for the second disk."""
    stage = Stage(flaw, 3)
    stage.part(["n3"], "n1", "n2")
    stage.lose_control("n2")
    stage.run(3 * TICK)
    stage.purge("n1")
    stage.run(3 * TICK)


def _new_member(flaw: Flaw) -> None:
    """All but one know of a new member, which has a lease; that one must wait for it too."""
    stage = Stage(flaw, 3)
    names = [*stage.names, "n4"]
    for name in ("n2", "n3"):
        stage[name].configure(stage.members(name, names, previous_members=stage.names))
    stage.add("n4", stage.members("n4", names, previous_members=stage.names), admitted=True)
    stage.run(6 * TICK)
    stage.store("n4")
    stage.part(["n4"], "n1", "n2", "n3")
    stage.purge("n1")
    stage.run(0.1)
    stage["n4"].request(0)


def _leaving_member(flaw: Flaw) -> None:
    stage = Stage(flaw, 4)
    for name in stage.names:
        stage[name].configure(stage.members(name, stage.names[:3], previous_members=stage.names))
    stage.run(2 * TICK)
    stage.store("n4")
    stage.part(["n4"], "n1", "n2", "n3")
    stage.purge("n1")
    stage.run(0.1)
    stage["n4"].request(0)


def _slow_fill(flaw: Flaw) -> None:
    """A fill from before the purge is still under way when the lease is over."""
    stage = Stage(flaw, 3)
    stage.world.slow = 3 * LEASE
    stage["n3"]._origin_reads(_fill(stage["n3"]))
    stage.part(["n3"], "n1", "n2")
    stage.purge("n1")
    stage.run(OVER)
    stage["n3"].request(0)
    stage.run(3 * LEASE)


def _fill(host: Host) -> int:
    """:return: of a fill that asks the origin."""
    host.world.random = random.Random(1)
    host.request(0)
    return next(iter(host.fills))


SCHEDULES: dict[str, Schedule] = {
    "a lease needs one sibling": _minority,
    "only the new members' majority counts": _quorum_changes,
    "a longer lease is used at once": _lease_grows,
    "the first answer admits": _first_answer,
    "a new log under quorum any changes nothing": _one_disk,
    "any configuration is understood": _another_lease,
    "a lease counts from the answer": _late_answers,
    "the first page suffices": _first_page,
    "rounds of an earlier life count": _earlier_life,
    "answers of joining nodes count": _first_answer,
    "nobody need know the new log": _forgotten_life,
    "wall time may jump": _standing_still,
    "a trimmed log revalidates nothing": _trimmed,
    "a joining node vouches": _first_answer,
    "a new control is admitted": _first_answer,
    "a backup is unnoticed": _backup,
    "anybody's entries count": _stranger,
    "old lives are believed": _known_life,
    "joining nodes are believed": _joining_copy,
    "only own members are waited for": _new_member,
    "members of before are not waited for": _leaving_member,
    "the lease outlives its process": _asleep,
    "a fenced request joins": _slow_fill,
}
"""By the name of the flaw. Seeds find the others."""

assert SCHEDULES.keys() <= FLAWS.keys()
