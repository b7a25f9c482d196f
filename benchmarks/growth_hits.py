"""What a hit costs a node's worker while its store grows (one object after the other, never a new store)."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from benchmarks.load import PAGE_FIELDS, Load, require_hit, run
from benchmarks.stock import Stock
from tests.system.contents import Artifact
from tests.system.harness import Node

OBJECT = 1024
# All of them fit into what a worker remembers of requests and records: what is left is the store's own growth.
HOT = 1000
_SIZE = "16GiB"
_ROUNDS = 4


@frozen
class Hits:
    """
    :ivar hot: microseconds of the worker's CPU per hit, :data:`HOT` objects being asked for, however many there are.
    :ivar all: likewise, each object being as likely as any other.
    """

    objects: int
    hot: float
    all: float
    p99_seconds: float


class OneWorker:
    """A :class:`~benchmarks.servers.Side`."""

    name = "edgecache"

    def __init__(self, node: Node) -> None:
        self._node = node

    def url(self, tls: bool) -> str:
        return self._node.url

    def counted(self, tls: bool) -> list[int]:
        return self._node.worker_pids()

    def besides(self, tls: bool) -> list[int]:
        return []

    def stop(self) -> None:
        self._node.end()


def lightest(side: OneWorker, below: int, seconds: int) -> Load:
    """:return: of several runs the one that others on this machine have disturbed least."""
    runs = [
        run(side, False, "/o/", connections=16, seconds=seconds, fields=PAGE_FIELDS, below=below)
        for _ in range(_ROUNDS)
    ]
    return min(runs, key=per_hit)


def per_hit(load: Load) -> float:
    """Microseconds of CPU."""
    return load.cpu_seconds / load.requests * 1e6


def measure(root: Path, sizes: list[int], seconds: int) -> list[Hits]:
    """For each number of objects in ``sizes``, which grow."""
    origin = "http://127.0.0.1:1"
    content = Artifact("growth", OBJECT)
    node = Node(root, origin, workers=1, size=_SIZE)
    found, there = [], 0
    for objects in sizes:
        stock = Stock(node.data, origin, _SIZE)
        stock.put((b"/o/%d" % number, content) for number in range(there, objects))
        stock.close()
        there = objects
        node.start()
        try:
            side = OneWorker(node)
            require_hit(side, False, f"/o/{objects - 1}", PAGE_FIELDS, content, requests=1)
            hot, every = (lightest(side, below, seconds) for below in (HOT, objects))
            found.append(Hits(objects, per_hit(hot), per_hit(every), every.p99_seconds))
            node.stop()
        finally:
            node.end()
    return found
