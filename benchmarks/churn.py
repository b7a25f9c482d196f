"""
A store that is full and stays so: artifacts of all sizes come at a steady rate, as many are evicted.

``python benchmarks/churn.py`` takes a minute and a half. Two processes write and read as workers do, this one collects
as the node process does. Printed over time: how long a put takes, what was refused, how full both environments are, how
large their files, and each process's memory. ``--rate 0`` writes as fast as the disk takes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from benchmarks.store import Loop, response
from benchmarks.tables import table
from edgecache.store.collecting import Collector
from edgecache.store.environments import Environments
from edgecache.store.filling import ContentWriter
from edgecache.store.layout import CHUNK
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.store.reading import StoreReader
from edgecache.store.writing import StoreWriter
from edgecache.words.config import StoreSettings
from edgecache.words.reading import octets
from edgecache.words.stored import Stored
from tests.system import processes

KIB, MIB = 1 << 10, 1 << 20
WORKERS = 2
AT_ONCE = 6
"""Fills of one worker that run at the same time."""
STEP = 128 * KIB
KNOWN = 4000
LOOKS = 4
"""Contents that are read for each that is written."""


def size_of(chance: random.Random, most: int) -> int:
    """As artifacts are (FIELD 3): pages, metadata, many small files, few large ones; 1 MB in the mean."""
    return min(most, int(chance.lognormvariate(11.0, 2.2)))


@define(eq=False)
class Put:
    """
    One content on its way.

    :ivar begun: when it was begun; ``committing``: when its last octet was there.
    """

    key: bytes
    key_hash: bytes
    size: int
    writer: ContentWriter
    begun: float
    committing: float = 0.0


@define(eq=False)
class Writing:
    """One worker's part: puts at a rate, and reads."""

    _writer: StoreWriter
    _reader: StoreReader
    _loop: Loop
    _chance: random.Random
    _most: int
    _octets_per_second: float
    _data: bytes
    _running: list[Put] = field(factory=list)
    _keys: deque[tuple[bytes, bytes]] = field(factory=lambda: deque(maxlen=KNOWN))
    _seen: dict[str, Any] = field(factory=dict)
    _written: int = 0
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._seen = {"puts": 0, "octets": 0, "small": [], "large": [], "full": 0, "refused": {}, "hits": 0, "looks": 0}

    def run(self, out: IO[str]) -> None:
        """Until our input ends; a line of JSON each second."""
        begun = told = time.monotonic()
        while True:
            now = time.monotonic()
            if now - told >= 1.0:
                told = now
                out.write(json.dumps(self._seen) + "\n")
                out.flush()
                self._reset()
            behind = not self._octets_per_second or self._written < self._octets_per_second * (now - begun)
            if behind and len(self._running) < AT_ONCE:
                self._begin(now)
            moved = sum(map(self._write, list(self._running)))
            self._turn(0.0 if moved or behind else 0.005)

    def _turn(self, seconds: float) -> None:
        """Hear what the writer's threads have to say."""
        if seconds and self._loop.calls.empty():
            time.sleep(seconds)
        elif self._running and all(put.committing or put.writer.congested for put in self._running):
            function, arguments = self._loop.calls.get(timeout=60)
            function(*arguments)
        while not self._loop.calls.empty():
            function, arguments = self._loop.calls.get()
            function(*arguments)

    def _begin(self, now: float) -> None:
        self._number += 1
        key = b"%d/%d" % (os.getpid(), self._number)
        size = size_of(self._chance, self._most)
        key_hash = hashlib.blake2b(key, digest_size=32).digest()
        self._running.append(Put(key, key_hash, size, self._writer.begin(), now))
        for _ in range(LOOKS):
            self._look()

    def _write(self, put: Put) -> bool:
        """:return: it went on."""
        writer = put.writer
        if put.committing or writer.congested:
            return False
        step = min(STEP, put.size - writer.written)
        if step:
            writer.write(self._data[:step])
            self._written += step
        if writer.written == put.size:
            put.committing = time.monotonic()
            _ = writer.commit(put.key_hash, response(put.key)).addCallback(self._done, put)
        return True

    def _done(self, stored: bool, put: Put) -> None:
        self._running.remove(put)
        put.writer.finished()
        seen = self._seen
        if not stored:
            detail = "" if put.writer.failed is None else put.writer.failed.detail
            seen["full"] += "MAP_FULL" in detail
            seen["refused"][detail] = seen["refused"].get(detail, 0) + 1
            return
        seen["puts"] += 1
        seen["octets"] += put.size
        seen["small" if put.size < CHUNK else "large"].append(time.monotonic() - put.committing)
        self._keys.append((put.key, put.key_hash))

    def _look(self) -> None:
        """Something popular, or something else; like a hit, but for the network."""
        if not self._keys:
            return
        at = int(len(self._keys) * self._chance.random() ** 3)
        key, key_hash = self._keys[-1 - at]
        reader = self._reader
        found = reader.look_up(key_hash, key)
        self._seen["looks"] += 1
        if isinstance(found, Stored):
            self._seen["hits"] += 1
            if found.size < CHUNK:
                reader.content(found)
        reader.done()


def write(data: str, page_path: str, number: int, rate: float, most: int) -> None:
    """What a worker process of this benchmark runs."""
    page = Page.open(page_path, number)
    environments = Environments.open(data, StoreSettings(), node_process=False)
    loop = Loop()
    writer = StoreWriter(environments, page, number + 1, loop)  # type: ignore[arg-type]  # what it uses of a reactor
    chance = random.Random(number)
    Writing(writer, StoreReader(environments, page), loop, chance, most, rate, chance.randbytes(STEP)).run(sys.stdout)


@define(eq=False)
class Worker:
    """A process that writes, as seen from here. :ivar told: its lines that were not looked at yet."""

    process: subprocess.Popen[str]
    told: list[dict[str, Any]] = field(factory=list)

    @classmethod
    def start(cls, words: list[str]) -> Worker:
        worker = cls(subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True))
        threading.Thread(target=worker._listen, daemon=True).start()
        return worker

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def take(self) -> list[dict[str, Any]]:
        count = len(self.told)
        taken, self.told[:count] = self.told[:count], []
        return taken


HEAD = [
    "s", "puts/s", "MB/s", "small p50 ms", "p99", "large p99", "refused", "map full", "hits", "small %", "blobs %",
    "files MiB", "own MiB", "evicted/s",
]  # fmt: skip


def percentile(values: list[float], share: float) -> str:
    return f"{sorted(values)[int(share * (len(values) - 1))] * 1e3:.1f}" if values else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="2GiB", help="of the store")
    parser.add_argument("--seconds", type=int, default=60, help="after it was full")
    parser.add_argument("--every", type=int, default=10, help="seconds of each line")
    parser.add_argument("--rate", type=float, default=60.0, help="MB/s of both workers together; 0: all that goes")
    parser.add_argument("--most", default="32MiB", help="size of the largest content")
    parser.add_argument("--directory", help="where the store lies; default: for temporary files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgecache-churn-", dir=options.directory) as name:
        return churn(name, options)


def churn(root: str, options: argparse.Namespace) -> int:
    settings = StoreSettings(size=octets(options.size))
    data = f"{root}/data"
    environments = Environments.open(data, settings, node_process=True)
    page = PageWriter.create(f"{root}/page", WORKERS)
    spawns = {number + 1 for number in range(WORKERS)}
    collector = Collector(environments, page, settings, lambda: spawns, Clock(), maybeDeferred)
    over = threading.Event()

    def collect() -> None:
        while not over.is_set():
            if not collector.turn(time.monotonic()):
                over.wait(0.2)

    thread = threading.Thread(target=collect)
    thread.start()
    rows, p99s, map_full, evicted = [HEAD], [], 0, 0
    workers = start(data, page.path, 0.0, options)
    try:
        # Up to the mark as fast as it goes.
        processes.until(lambda: all(fill.share > 0.84 for fill in collector.fills()), "a full store", looks=6000)
        if options.rate:
            map_full += sum(line["full"] for line in stop(workers))
            workers = start(data, page.path, options.rate, options)
        for second in range(0, options.seconds + 1, options.every):
            time.sleep(options.every)
            told = [line for worker in workers for line in worker.take()]
            map_full += sum(line["full"] for line in told)
            total = collector.collected.evicted_records
            if second:  # what they begin with is not what goes on
                p99s.append(tail(told))
                rows.append(row(second, told, options.every, collector, workers, data, total - evicted))
                print(table([HEAD, rows[-1]]).splitlines()[1], flush=True)
            evicted = total
    finally:
        stop(workers)
        over.set()
        thread.join()
    print(f"\n{table(rows)}\n\ncollector: {collector.collected}")
    flat = max(p99s) / statistics.median(p99s)
    print(f"p99 of small puts: {flat:.2f} times its median at most; MAP_FULL: {map_full} (goal: 0)")
    page.close()
    environments.close()
    return 0 if not map_full and not collector.collected.failures else 1


def start(data: str, page_path: str, rate: float, options: argparse.Namespace) -> list[Worker]:
    """:param rate: MB/s of all together; 0: all that goes."""
    words = [data, page_path, str(rate * 1e6 / WORKERS), str(octets(options.most))]
    return [Worker.start(["--write", str(number), *words]) for number in range(WORKERS)]


def stop(workers: list[Worker]) -> list[dict[str, Any]]:
    """:return: what they have told by then."""
    processes.kill_now(worker.process.pid for worker in workers)
    for worker in workers:
        worker.process.wait()
    return [line for worker in workers for line in worker.take()]


def tail(told: list[dict[str, Any]]) -> float:
    waits = sorted(wait for line in told for wait in line["small"])
    return waits[int(0.99 * (len(waits) - 1))] if waits else 0.0


def row(
    second: int,
    told: list[dict[str, Any]],
    seconds: int,
    collector: Collector,
    workers: list[Worker],
    data: str,
    evicted: int,
) -> list[str]:
    small = [wait for line in told for wait in line["small"]]
    large = [wait for line in told for wait in line["large"]]
    refused: dict[str, int] = {}
    for line in told:
        for detail, count in line["refused"].items():
            refused[detail] = refused.get(detail, 0) + count
    looks = sum(line["looks"] for line in told) or 1
    files = sum(os.stat(f"{data}/{name}/data.mdb").st_blocks * 512 for name in ("small", "blobs"))
    own = [processes.anonymous_octets([pid]) // MIB for pid in (os.getpid(), *(w.process.pid for w in workers))]
    return [
        f"{second}",
        f"{sum(line['puts'] for line in told) / seconds:.0f}",
        f"{sum(line['octets'] for line in told) / seconds / 1e6:.0f}",
        percentile(small, 0.5),
        percentile(small, 0.99),
        percentile(large, 0.99),
        f"{sum(refused.values())}",
        f"{sum(line['full'] for line in told)}",
        f"{sum(line['hits'] for line in told) / looks:.2f}",
        *(f"{fill.share * 100:.1f}" for fill in collector.fills()),
        f"{files / MIB:.0f}",
        " ".join(map(str, own)),
        f"{evicted / seconds:.0f}",
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        index, where, mapped, per_second, largest = sys.argv[2:7]
        write(where, mapped, int(index), float(per_second), int(largest))
    sys.exit(main())
