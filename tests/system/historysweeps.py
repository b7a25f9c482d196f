"""What binds a node in a history, moment by moment: what was promised, what it has shown, how far its logs were."""

# Note [intervals]
#
# A request happened at some moment between its call and its return. So what was promised binds it if the promise was
# there before the call; and what it shows binds others that were called after its return. Of two that overlap
# nothing is said, and where two moments are equal, the one that binds comes last.
#
# Note [what a death may take]
#
# A page is sent to clients before its record is on the disk. So a node that is killed may come back with what it had
# a moment earlier: what was read ``settled_seconds`` before is there again, what was read later need not be.

# Note [strict]
#
# What is older than a delete, or than a serial that a purge has told, may not be served as stale either by a node
# that has applied that. (One that is cut off knows nothing of it, and says that it serves what is stale.) But a
# delete of any page of a project makes void what was known of its serials: of its other documents something old
# may then be served as stale. From when that delete was asked for, nothing is said of those.

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from attrs import define, field

from tests.system.history import CONTENT, Asked, Claimed, Disturbed, Read, Sampled


@define(eq=False)
class Pass:
    """Moments in their order; see Note [intervals]."""

    _moments: list[tuple[float, int, int, Callable[..., None], tuple[Any, ...]]] = field(factory=list)

    def before(self, moment: float, act: Callable[..., None], *arguments: Any) -> None:
        """What looks at what was so far."""
        self._moments.append((moment, 0, len(self._moments), act, arguments))

    def after(self, moment: float, act: Callable[..., None], *arguments: Any) -> None:
        """What binds from then on."""
        self._moments.append((moment, 1, len(self._moments), act, arguments))

    def run(self) -> None:
        for _, _, _, act, arguments in sorted(self._moments):
            act(*arguments)


@define(eq=False)
class Floors:
    """
    Least versions by node and key, and what bound them: of anything that is served, and of what is served as fresh.

    :ivar published: newest versions at the origin.
    :ivar durable: purges that no death can undo, and what said so.
    """

    published: dict[str, int] = field(factory=dict)
    durable: dict[str, Claimed] = field(factory=dict)
    found: list[str] = field(factory=list)
    _due: dict[str, tuple[dict[str, int], set[str], float]] = field(factory=dict)
    _void: dict[str, float] = field(factory=dict)
    _fresh: dict[tuple[str, str], tuple[int, object]] = field(factory=dict)
    _any: dict[tuple[str, str], tuple[int, object]] = field(factory=dict)

    def asked_for(self, asked: Asked) -> None:
        versions = {key: self.published[key] for key in asked.covers if key in self.published}
        strict = set(asked.covers) if asked.strict else set()
        self._due.setdefault(asked.id, (versions, strict, asked.called))
        for key in asked.voids:
            self._void[key] = asked.called
            for place in [place for place in self._any if place[1] == key]:
                del self._any[place]

    def applied(self, purge_id: str, nodes: list[str], why: object) -> None:
        """These nodes know of it. See Note [strict]."""
        self.bind(purge_id, nodes, why, applied=True)

    def bind(self, purge_id: str, nodes: list[str], why: object, *, applied: bool = False) -> None:
        """Nothing older is served as fresh."""
        versions, strict, called = self._due.get(purge_id, ({}, set(), 0.0))
        for key, version in versions.items():
            kinds = (
                [self._fresh, self._any]
                if applied and key in strict and called > self._void.get(key, 0.0)
                else [self._fresh]
            )
            for kind in kinds:
                for node in nodes:
                    if kind.get((node, key), (0, ""))[0] < version:
                        kind[node, key] = version, why

    def restarted(self, nodes: list[str]) -> None:
        for purge_id, claimed in self.durable.items():
            self.bind(purge_id, nodes, claimed)

    def check(self, read: Read) -> None:
        for kind in (self._any, self._fresh) if read.fresh else (self._any,):
            version, why = kind.get((read.node, read.key), (0, ""))
            if read.version < version:
                self.found.append(f"{read} is older than {version}, due by {why}")
                return


@define(eq=False)
class Seen:
    """What was read of each key at each node, by what; and what of it is on the node's disk by now."""

    found: list[str] = field(factory=list)
    _seen: dict[tuple[str, str], tuple[int, Read]] = field(factory=dict)
    _settled: dict[tuple[str, str], tuple[int, Read]] = field(factory=dict)
    _death: dict[str, float] = field(factory=dict)

    def add(self, read: Read, versions: dict[str, int]) -> None:
        _raise(self._seen, read, versions)

    def settle(self, read: Read, versions: dict[str, int]) -> None:
        if read.returned > self._death.get(read.node, 0.0):
            _raise(self._settled, read, versions)

    def died(self, disturbed: Disturbed) -> None:
        for node in disturbed.nodes:
            self._death[node] = disturbed.gone or disturbed.ended
            kept = (
                {}
                if CONTENT in disturbed.lost
                else {place: each for place, each in self._settled.items() if place[0] == node}
            )
            for known in (self._seen, self._settled):
                for place in [place for place in known if place[0] == node]:
                    del known[place]
                known.update(kept)

    def check(self, read: Read) -> None:
        version, other = self._seen.get((read.node, read.key), (0, read))
        if read.version < version:
            self.found.append(f"{read} is older than {version}, seen by {other}")


def _raise(known: dict[tuple[str, str], tuple[int, Read]], read: Read, versions: dict[str, int]) -> None:
    for key, version in versions.items():
        if known.get((read.node, key), (0, read))[0] < version:
            known[read.node, key] = version, read


@define(eq=False)
class Heads:
    """How far each log is at a node, and who said so."""

    found: list[str] = field(factory=list)
    _least: dict[str, dict[str, tuple[int, object]]] = field(factory=lambda: defaultdict(dict))

    def forget(self, node: str) -> None:
        self._least[node].clear()

    def bind(self, node: str, positions: dict[str, int], why: object) -> None:
        known = self._least[node]
        for log, position in positions.items():
            if known.get(log, (0, ""))[0] < position:
                known[log] = position, why

    def check(self, sampled: Sampled) -> None:
        for log, (position, why) in self._least[sampled.node].items():
            if sampled.positions.get(log, 0) < position:
                self.found.append(f"{sampled} is behind {position} of {log} by {why}")
