"""What a purge, and a hit after it, cost while more and more selectors are remembered as purged."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from attrs import frozen

from benchmarks.growth_hits import OneWorker, lightest, per_hit
from benchmarks.stock import Stock
from tests.system.contents import Artifact
from tests.system.harness import Node

OBJECTS = 1000
_AT_ONCE = 1000
_SIZE = "1GiB"


@frozen
class Purges:
    """
    :ivar p50: seconds of one purge of one URL, from POST to the answer that it is complete; ``p99`` as well.
    :ivar hit: microseconds of the worker's CPU per hit; every one of these records has an older floor.
    """

    selectors: int
    p50: float
    p99: float
    hit: float


def measure(root: Path, numbers: list[int], seconds: int, purges: int = 200) -> list[Purges]:
    """For each number of live selectors in ``numbers``, which grow."""
    origin = "http://127.0.0.1:1"
    node = Node(root, origin, workers=1, size=_SIZE)
    stock = Stock(node.data, origin, _SIZE)
    stock.put((b"/o/%d" % number, Artifact("growth", 1024)) for number in range(OBJECTS))
    stock.close()
    node.start()
    try:
        found, live = [], 0
        for wanted in numbers:
            while live < wanted:
                count = min(_AT_ONCE, wanted - live)
                node.purge(urls=[f"/purged/{live + number}" for number in range(count)])
                live += count
            waits = []
            for number in range(purges):
                begun = time.perf_counter()
                # One that is remembered already: their number stays.
                node.purge(urls=[f"/purged/{number * live // purges}"])
                waits.append(time.perf_counter() - begun)
            hit = per_hit(lightest(OneWorker(node), OBJECTS, seconds))
            waits.sort()
            found.append(Purges(live, statistics.median(waits), waits[int(0.99 * len(waits))], hit))
        node.stop()
        return found
    finally:
        node.end()
