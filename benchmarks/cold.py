"""
What lies on disk only: what clients of cold files do to the others, beside nginx; and how soon a full store serves.

``python benchmarks/cold.py`` takes three minutes. A disk is slowed down by a control group, for which it must be root.
``--store 20GiB`` fills a store of that size first, with one artifact for each MiB and a page for each 64 KiB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import frozen

from benchmarks.disks import SlowDisk, forget
from benchmarks.load import PAGE_FIELDS, get, is_hit
from benchmarks.servers import NginxCache, OriginServer, Side
from benchmarks.stock import Stock
from benchmarks.tables import table
from edgecache.words.reading import octets
from tests.system import processes
from tests.system.certificates import make_certificate
from tests.system.contents import Artifact
from tests.system.harness import Node

KIB, MIB = 1 << 10, 1 << 20
HOT = 8 * KIB
PACE_SECONDS = 0.01
READ = 128 * KIB
"""What one read brings at least, if it is read on."""
STARTS = 3


@frozen
class Beside:
    """
    How one who asks for what is in memory fared while others read cold files.

    :ivar waits: seconds of each answer.
    :ivar octets: that the others got.
    """

    waits: list[float]
    octets: int
    seconds: float

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return sorted(self.waits)[int(share * (len(self.waits) - 1))] * 1e3


class Cold(Side, Protocol):
    """A side whose store can leave memory."""

    def chill(self) -> None: ...


class ColdNode:
    """A node with one worker."""

    name = "edgecache"

    def __init__(self, root: Path, origin: OriginServer, certificate: Path, key: Path) -> None:
        self._node = Node(root, origin.url, workers=1, size="8GiB").start()

    def url(self, tls: bool) -> str:
        return self._node.url

    def counted(self, tls: bool) -> list[int]:
        return self._node.worker_pids()

    def besides(self, tls: bool) -> list[int]:
        return sorted(set(self._node.family()) - set(self.counted(tls)))

    def chill(self) -> None:
        """Pages that are mapped stay: only a stopped node's can go."""
        self._node.stop()
        forget(self._node.data)
        self._node.start()

    def stop(self) -> None:
        self._node.end()


class ColdNginx(NginxCache):
    def __init__(self, root: Path, origin: OriginServer, certificate: Path, key: Path) -> None:
        super().__init__(root, origin, certificate, key)
        self._cache = root / "cache"

    def chill(self) -> None:
        forget(self._cache)


class Readers:
    """So many clients; each reads one cold file after the other until told to stop."""

    def __init__(self, side: Side, targets: list[str], count: int) -> None:
        self.octets = 0
        self._url = urlsplit(side.url(False))
        self._targets = iter(targets)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            with self._lock:
                target = next(self._targets, None)
            if target is None:
                return
            connection = HTTPConnection(str(self._url.hostname), self._url.port, timeout=60)
            connection.request("GET", target)
            response = connection.getresponse()
            while not self._over.is_set() and (piece := response.read1(1 << 18)):
                with self._lock:
                    self.octets += len(piece)
            connection.close()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def watch(side: Side, seconds: float, targets: list[str], readers: int) -> Beside:
    """One client asks for what is in memory, every :data:`PACE_SECONDS`, while others read ``targets``."""
    url = urlsplit(side.url(False))
    connection = HTTPConnection(str(url.hostname), url.port, timeout=60)
    waits: list[float] = []
    cold = Readers(side, targets, readers)
    begun = due = time.perf_counter()
    while due < begun + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        asked = time.perf_counter()
        connection.request("GET", hot_target(), headers=PAGE_FIELDS)
        connection.getresponse().read()
        now = time.perf_counter()
        waits.append(now - asked)
        due = max(due + PACE_SECONDS, now)
    given, taken = cold.octets, time.perf_counter() - begun
    cold.stop()
    connection.close()
    return Beside(waits, given, taken)


def hot_target() -> str:
    return f"/packages/{HOT}.whl"


def fetch(side: Side, targets: list[str]) -> None:
    """Have them stored."""
    urls = [f"{side.url(False)}{target}" for target in targets]
    for start in range(0, len(urls), 50):
        words = [word for url in urls[start : start + 50] for word in ("-o", "/dev/null", url)]
        subprocess.run(["curl", "-sf", *words], check=True)


def compare(root: Path, size: int, disk: SlowDisk | None, options: argparse.Namespace) -> Iterator[list[str]]:
    """A row for each side."""
    certificate, key = make_certificate(root / "certificate")
    origin = OriginServer(root / "origin", [HOT, size])
    # What the disk gives at most, and some more.
    count = 2 * options.readers + min(1500, int(options.seconds * (options.reads or 1000) * READ / size))
    targets = [f"/miss/{size}/cold-{number}" for number in range(count)]
    hot = [hot_target()] * 3
    try:
        for make in (ColdNginx, ColdNode):
            side: Cold = make(root / make.name, origin, certificate, key)
            try:
                fetch(side, [*targets, *hot])
                side.chill()
                fetch(side, hot)
                if disk is not None:
                    disk.take([*side.counted(False), *side.besides(False)])
                alone = watch(side, options.seconds / 2, [], 0)
                beside = watch(side, options.seconds, targets, options.readers)
            finally:
                side.stop()
            waits = [alone.percentile(0.5), alone.percentile(0.99)]
            waits += [beside.percentile(share) for share in (0.5, 0.99, 1.0)]
            rate = beside.octets / beside.seconds / 1e6
            yield [f"{size >> 10} KiB", make.name, *(f"{wait:.1f}" for wait in waits), f"{rate:.1f}"]
    finally:
        origin.stop()


def contents(size: int) -> Iterator[tuple[bytes, Artifact]]:
    """Three quarters of it artifacts of a MiB, a quarter pages, which is how a store shares itself out."""
    artifact, page = Artifact("cold artifact", MIB), Artifact("cold page", 12 * KIB)
    for number in range(size * 3 // 4 // MIB * 9 // 10):
        yield b"/artifact/%d" % number, artifact
        for each in range(16):
            yield b"/page/%d" % (16 * number + each), page


def start(node: Node, content: Artifact | None) -> tuple[float, float]:
    """:return: seconds from the command to the first hit (with ``None``: to an answer), and of CPU until then."""
    begun = time.perf_counter()
    node.launch()

    def answered() -> bool:
        try:
            if content is None:
                return node.ask("/artifact/7").status > 0
            return is_hit(get(node.url, "/artifact/7", PAGE_FIELDS, content))
        except OSError:
            return False

    processes.until(answered, "a hit", looks=5000, pause_seconds=0.01)
    seconds = time.perf_counter() - begun
    cpu = sum(map(processes.cpu_seconds, node.family()))
    node.wait_ready()
    node.stop()
    return seconds, cpu


def starts(root: Path, size: str) -> list[list[str]]:
    """Rows: how long a start takes with nothing stored, and with everything stored, in memory and not."""
    origin = "http://127.0.0.1:1"
    empty, full = (Node(root / name, origin, workers=1, size=size) for name in ("empty", "full"))
    stock = Stock(full.data, origin, size)
    stock.put(contents(octets(size)))
    stock.close()
    artifact = Artifact("cold artifact", MIB)
    start(empty, None)
    rows = [["start", "seconds", "least", "CPU", "least"]]
    for label, node, cold in (("empty", empty, False), ("full, in memory", full, False), ("full, cold", full, True)):
        taken = []
        for _ in range(STARTS):
            if cold:
                forget(node.data)
            taken.append(start(node, None if node is empty else artifact))
        figures = [pick(column) for column in zip(*taken, strict=True) for pick in (statistics.median, min)]
        rows.append([label, *(f"{figure:.2f}" for figure in figures)])
    used = sum(path.stat().st_blocks * 512 for path in full.data.glob("*/data.mdb"))
    rows.append(["", f"{used / (1 << 30):.1f} GiB", "", "", ""])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=200, help="per second from the disk; 0: as it is")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--sizes", default="16384,1048576,67108864", help="of cold files; empty: only starts")
    parser.add_argument("--store", default="1GiB", help="size of the store that is started; empty: no starts")
    parser.add_argument("--directory", help="where all of it lies; default: for temporary files")
    options = parser.parse_args()
    # As installed: nobody compiles anything at a start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows = [["cold files of", "", "alone p50 ms", "p99", "beside p50", "p99", "most", "cold MB/s"]]
    with tempfile.TemporaryDirectory(prefix="edgecache-cold-", dir=options.directory) as name:
        root = Path(name)
        if options.store:
            print(table(starts(root, options.store)), flush=True)
        disk = SlowDisk(root, options.reads) if options.reads and options.sizes else None
        try:
            for size in map(int, options.sizes.split(",") if options.sizes else ()):
                for row in compare(root / f"{size}", size, disk, options):
                    rows.append(row)
                    print(" ".join(row), flush=True)
        finally:
            if disk is not None:
                disk.close()
    if options.sizes:
        print(f"\n{options.reads or 'all'} reads/s from the disk, {options.readers} readers\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
