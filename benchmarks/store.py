"""
CPU of the store alone: hits on 8 KiB, whole reads of 64 and 256 KiB, commits of 8 KiB, a large fill.

    python benchmarks/store.py [--records 2000] [--directory DIR]
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from xxhash import xxh3_64_intdigest

from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.store.reading import StoreReader
from edgecache.store.writing import StoreWriter
from edgecache.words.config import GIB, StoreSettings
from edgecache.words.stored import Stored

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.pypi.simple.v1+json\r\n".ljust(500, b"x") + b"\r\n"
PAGE = os.urandom(8192)
FILL = 256 << 20


class Loop:
    """The loop's side of the writer's threads."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        self.calls.put((function, arguments))

    def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            function, arguments = self.calls.get(timeout=60)
            function(*arguments)

    def result(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addCallback(results.append)
        self.until(lambda: results)
        return results[0]


def response(key: bytes) -> Stored:
    return Stored(1, key, 200, 0, 1, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0, None, b'"e"', 0, bytes(16), (1, 2, 3, 4, 5, 6), HEAD)


def best(call: Callable[[], object], times: int) -> float:
    """Microseconds of one call, the best of twenty rounds: the machine is shared."""
    lowest = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(times):
            call()
        lowest = min(lowest, (time.perf_counter() - begun) / times)
    return lowest * 1e6


def anonymous() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--directory")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(dir=options.directory)
    try:
        measure(directory, options.records)
    finally:
        shutil.rmtree(directory)


def measure(directory: str, records: int) -> None:
    environments = Environments.open(f"{directory}/data", StoreSettings(size=4 * GIB), node_process=True)
    page_writer = PageWriter.create(f"{directory}/page", 1)
    page = Page.open(page_writer.path, 0)
    loop = Loop()
    writer = StoreWriter(environments, page, 1, loop)  # type: ignore[arg-type]  # what it uses of a reactor
    reader = StoreReader(environments, page)
    keys = [b"index.example/simple/project-%d/" % number for number in range(records)]
    hashes = [os.urandom(32) for _ in keys]

    commits(loop, writer, keys, hashes)
    for spread in (1, 100, records):
        print(f"hit of 8 KiB, {spread} records: {hits(reader, keys[:spread], hashes[:spread]):.2f} us")
    for size in (64 << 10, 256 << 10):
        whole(loop, writer, reader, size)
    large(loop, writer)
    loop.result(Deferred.fromCoroutine(writer.close()))
    environments.close()
    page.close()
    page_writer.close()


def commits(loop: Loop, writer: StoreWriter, keys: list[bytes], hashes: list[bytes]) -> None:
    waiting = 0

    def told(stored: bool) -> None:
        nonlocal waiting
        assert stored
        waiting -= 1

    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for key, key_hash in zip(keys, hashes, strict=True):
        content = writer.begin()
        content.write(PAGE)
        content.commit(key_hash, response(key)).addCallback(told)
        content.finished()
        waiting += 1
        if waiting > 512:
            loop.until(lambda: waiting <= 256)  # noqa: B023 - it is a variable of the function, not of the loop
    loop.until(lambda: not waiting)
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - begun
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    each = 1e6 / len(keys)
    print(f"store of 8 KiB: {len(keys) / seconds:.0f}/s, CPU {user * each:.0f} us user, {system * each:.0f} us system")


def hits(reader: StoreReader, keys: list[bytes], hashes: list[bytes]) -> float:
    order = list(zip(hashes, keys, strict=True))
    random.shuffle(order)

    def every() -> None:
        for key_hash, key in order:
            stored = reader.look_up(key_hash, key)
            assert isinstance(stored, Stored)
            reader.content(stored)
            reader.done()

    return best(every, max(1, 2000 // len(order))) / len(order)


def whole(loop: Loop, writer: StoreWriter, reader: StoreReader, size: int) -> None:
    key, key_hash, data = b"%d" % size, os.urandom(32), os.urandom(size)
    content = writer.begin()
    content.write(data)
    assert loop.result(content.commit(key_hash, response(key)))
    content.finished()

    def read() -> None:
        stored = reader.look_up(key_hash, key)
        assert isinstance(stored, Stored)
        reader.whole(stored)
        reader.done()

    def copy() -> list[bytes]:
        pieces = []
        for start in range(0, size, 65536):
            view = memoryview(data)[start : start + 65536]
            xxh3_64_intdigest(view)
            pieces.append(view.tobytes())
        return pieces

    one, other = best(read, 100), best(copy, 100)
    print(f"whole {size >> 10} KiB: {one:.1f} us, copy and checksum alone {other:.1f} us, ratio {one / other:.2f}")


def large(loop: Loop, writer: StoreWriter) -> None:
    data, before, most = os.urandom(128 << 10), anonymous(), 0
    processor, begun = time.process_time(), time.perf_counter()
    content = writer.begin()
    while content.written < FILL:
        content.write(data)
        if content.congested:
            most = max(most, anonymous())
            loop.until(lambda: not content.congested)
    assert loop.result(content.commit(os.urandom(32), response(b"large")))
    content.finished()
    processor, seconds = time.process_time() - processor, time.perf_counter() - begun
    print(
        f"fill of {FILL >> 20} MiB: {FILL / seconds / 1e6:.0f} MB/s, CPU {processor / FILL * (1 << 30):.2f} s per GiB, "
        f"RssAnon +{max(0, most - before) >> 10} MiB"
    )


if __name__ == "__main__":
    main()
