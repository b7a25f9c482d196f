"""
What would have been missed: requests of a trace, answered from caches of several sizes with several policies.

    python benchmarks/replay.py [TRACE --format oracle|csv|plain] [--sizes 5GB 20GB | --shares 0.01 0.1] [--requests N]
    python benchmarks/replay.py --through small --requests 60000

Without a trace, one is made that is like a package index (``--write FILE`` keeps it). "ours" is the collector's code
(:mod:`edgecache.rules.eviction`, counters that collide, ghosts in a table of fixed size) on queues in memory. Beside it
FIFO, LRU and S3-FIFO of libCacheSim, the oracle, which has to be installed for that (``pip install libcachesim``; it is
GPL: it serves this tool and nothing else). The oracle stores nothing that is larger than its small queue, and until it
evicts for the first time it fills that queue, then main; "as the oracle" is ours with these two rules, which the node
does not have.

The second form answers the requests from the store itself, with things made so small that it need not be large: what
its collector evicts must be what was planned in memory. It takes longer.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from attrs import define, field
from tables import table
from throughstore import ENVIRONMENTS, fitted, through, weighed
from traces import FORMATS, Trace, artifacts, read

from edgecache.rules.eviction import GHOST_SHARE, HITS, PROBATION_SHARE, Entry, Queue, Standing, plan, queue_of_new
from edgecache.rules.ghosts import Ghosts, octets_for

SLOTS = 1 << 22
GHOSTS = 1 << 20
BATCH = 64

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}

Cache = Callable[[int, int], bool]
"""Key and octets of a request: is it a hit? If not, it is stored now."""


@define(eq=False)
class Thing(Entry):
    key: int = 0


@define(eq=False)
class Ours:
    """
    The policy of the collector, on queues in memory.

    :ivar as_oracle: the oracle's rules for what is large, and for where things begin before anything was evicted.
    """

    capacity: int
    pages: frozenset[int] = frozenset()
    as_oracle: bool = False
    standing: Standing = field(factory=Standing)
    _octets: dict[int, int] = field(factory=dict)
    _queues: dict[Queue, OrderedDict[int, None]] = field(factory=lambda: {queue: OrderedDict() for queue in Queue})
    _queue_of: dict[int, Queue] = field(factory=dict)
    _hits: bytearray = field(factory=lambda: bytearray(SLOTS))
    _ghosts: Ghosts = field(factory=lambda: Ghosts(memoryview(bytearray(octets_for(GHOSTS)))))
    _hashes: dict[int, bytes] = field(factory=dict)

    def __call__(self, key: int, octets: int) -> bool:
        if key in self._queue_of:
            slot = self._slot(key)
            if self._hits[slot] < HITS:
                self._hits[slot] += 1
            return True
        if octets > (PROBATION_SHARE * self.capacity if self.as_oracle else self.capacity):
            return False
        while (needed := self.standing.octets + octets - self.capacity) > 0:
            self._make_room(needed)
        known = self._ghosts.take(self._hash(key), int(GHOST_SHARE * self.capacity))
        self._octets[key] = octets
        self._stand(key, self._queue_of_new(known))
        return False

    def oldest(self, queue: Queue) -> Iterator[Thing]:
        for key in self._queues[queue]:
            yield Thing(self._octets[key], self._hits[self._slot(key)], key in self.pages, key)

    def _queue_of_new(self, known: bool) -> Queue:
        if self.as_oracle and not self.standing.evicting:
            return Queue.MAIN if self.standing.probation >= int(PROBATION_SHARE * self.capacity) else Queue.PROBATION
        return queue_of_new(known, self.standing)

    def _make_room(self, needed: int) -> None:
        for step in plan(self, self.standing, self.capacity, needed, BATCH):
            key, octets = step.entry.key, step.entry.octets
            was = self._queue_of.pop(key)
            del self._queues[was][key]
            self.standing.add(was, -octets)
            self._hits[self._slot(key)] = step.hits
            if step.to is not None:
                self._stand(key, step.to)
            else:
                self.standing.evicting = True
                if step.remembered:
                    self._ghosts.add(self._hash(key), octets)

    def _stand(self, key: int, queue: Queue) -> None:
        self._queue_of[key] = queue
        self._queues[queue][key] = None
        self.standing.add(queue, self._octets[key])

    def _slot(self, key: int) -> int:
        return int.from_bytes(self._hash(key)[:3], "little") & SLOTS - 1

    def _hash(self, key: int) -> bytes:
        found = self._hashes.get(key)
        if found is None:
            found = self._hashes[key] = blake2b(key.to_bytes(8, "little"), digest_size=32).digest()
        return found


@define(eq=False)
class Lru:
    """Least recently used first; or, where hits change nothing, the oldest."""

    capacity: int
    moves: bool = True
    _held: int = 0
    _octets: OrderedDict[int, int] = field(factory=OrderedDict)

    def __call__(self, key: int, octets: int) -> bool:
        if key in self._octets:
            if self.moves:
                self._octets.move_to_end(key)
            return True
        if octets > self.capacity:
            return False
        while self._held + octets > self.capacity:
            self._held -= self._octets.popitem(last=False)[1]
        self._octets[key] = octets
        self._held += octets
        return False


def oracle(name: str, capacity: int) -> Cache | None:
    """:return: libCacheSim's policy of that name; ``None`` if it is not installed."""
    try:
        library: Any = importlib.import_module("libcachesim")
    except ImportError:
        return None
    cache, request = getattr(library, name)(capacity), library.Request()

    def get(key: int, octets: int) -> bool:
        request.obj_id, request.obj_size = key, octets
        return bool(cache.get(request))

    return get


@define
class Missed:
    """Shares of requests, octets and requests for pages."""

    requests: float
    octets: float
    pages: float
    microseconds: float

    @classmethod
    def of(cls, trace: Trace, cache: Cache) -> Missed:
        missed = octets = pages = asked_pages = 0
        known = trace.pages
        begun = time.process_time()
        for key, size in zip(trace.keys, trace.sizes, strict=True):
            page = key in known
            asked_pages += page
            if not cache(key, size):
                missed += 1
                octets += size
                pages += page
        spent = time.process_time() - begun
        count = len(trace.keys)
        return cls(missed / count, octets / sum(trace.sizes), pages / max(1, asked_pages), spent * 1e6 / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", nargs="?")
    parser.add_argument("--format", choices=FORMATS, default="oracle")
    parser.add_argument("--sizes", nargs="+", type=_octets, help="of the caches: 20GB, 512MiB")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.01, 0.03, 0.1, 0.3], help="of the footprint")
    parser.add_argument("--requests", type=int, default=400_000, help="at most")
    parser.add_argument("--seed", type=int, default=1, help="of the trace that is made")
    parser.add_argument("--through", choices=ENVIRONMENTS, help="through the store, all of it in one environment")
    parser.add_argument("--write", metavar="FILE", help="keep the trace, as lines of time, key, size")
    options = parser.parse_args()
    if options.trace is None:
        trace = artifacts(options.requests, options.seed)
    else:
        trace = read(options.trace, options.format, options.requests)
    if options.write is not None:
        with open(options.write, "w") as file:
            requests = enumerate(zip(trace.keys, trace.sizes, strict=True))
            file.writelines(f"{number} {key} {size}\n" for number, (key, size) in requests)
    if options.through is not None:
        trace = fitted(trace, options.through)
    footprint = trace.footprint
    print(
        f"{trace.name}: {len(trace.keys):,} requests for {sum(trace.sizes) / 1e9:.1f} GB, "
        f"{len(set(trace.keys)):,} things of {footprint / 1e9:.1f} GB together"
    )
    for size in options.sizes or [int(footprint * share) for share in options.shares]:
        if options.through is not None:
            _compare_store(trace, options.through, size)
        else:
            _compare(trace, size)
    if oracle("LRU", 1) is None:
        print("\nlibcachesim is not installed: nothing was compared with the oracle")


def _compare(trace: Trace, size: int) -> None:
    caches: dict[str, Cache | None] = {
        "FIFO": Lru(size, moves=False),
        "LRU": Lru(size),
        "oracle's LRU": oracle("LRU", size),
        "oracle's S3-FIFO": oracle("S3FIFO", size),
        "ours, as the oracle": Ours(size, as_oracle=True),
        "ours": Ours(size),
        "ours, pages sheltered": Ours(size, trace.pages) if trace.pages else None,
    }
    found = {name: Missed.of(trace, cache) for name, cache in caches.items() if cache is not None}
    rows = [["", "requests", "of LRU", "octets", "of LRU", "pages", "us each"]]
    for name, missed in found.items():
        lru = found["LRU"]
        rows.append(
            [
                name,
                f"{missed.requests:.4f}",
                f"{missed.requests / lru.requests:.3f}",
                f"{missed.octets:.4f}",
                f"{missed.octets / lru.octets:.3f}",
                f"{missed.pages:.4f}" if trace.pages else "-",
                f"{missed.microseconds:.1f}",
            ]
        )
    print(f"\nmissed with {size / 1e9:.2f} GB\n{table(rows)}")
    reference, ours = found.get("oracle's S3-FIFO"), found["ours, as the oracle"]
    if reference is not None:
        print(
            f"as the oracle / oracle's S3-FIFO: requests {ours.requests / reference.requests:.4f}, "
            f"octets {ours.octets / reference.octets:.4f}"
        )


def _compare_store(trace: Trace, environment: str, size: int) -> None:
    with through(environment, size) as store:
        found = {"the store": Missed.of(trace, store)}
        capacity, peak = store.capacity, store.peak
    counted = weighed(trace, environment)
    caches: dict[str, Cache | None] = {
        "in memory": Ours(capacity),
        "FIFO": Lru(capacity, moves=False),
        "LRU": Lru(capacity),
        "oracle's S3-FIFO": oracle("S3FIFO", capacity),
    }
    found |= {name: Missed.of(counted, cache) for name, cache in caches.items() if cache is not None}
    rows = [["", "requests", "the store / this", "octets", "us each"]]
    for name, missed in found.items():
        ratio = found["the store"].requests / missed.requests
        rows.append(
            [name, f"{missed.requests:.4f}", f"{ratio:.4f}", f"{missed.octets:.4f}", f"{missed.microseconds:.1f}"]
        )
    print(f"\nmissed with {capacity / 1e6:.0f} MB in {environment}, never more than {peak:.1%} of its map used")
    print(table(rows))


def _octets(text: str) -> int:
    for unit, octets in _UNITS.items():
        if text.upper().endswith(unit):
            return int(float(text[: -len(unit)]) * octets)
    return int(text)


if __name__ == "__main__":
    main()
