"""
One large artifact through a node with two workers: two fast clients, with and without a slow one that reads 1 MB/s for
20 s and leaves.

``python benchmarks/large.py`` takes one to two minutes. Every octet is compared as it comes. Printed: the fast clients'
seconds with and without the slow one, origin requests, and how much RssAnon of all processes grew.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import frozen

from benchmarks.servers import OriginServer, artifact
from benchmarks.tables import table
from tests.system import processes
from tests.system.clients import Download, Together
from tests.system.harness import Node
from tests.system.watching import MemoryWatch

MIB = 1 << 20


@frozen
class Outcome:
    """
    One artifact for two fast clients, the node being empty at first.

    :ivar seconds: until the later of the two had everything.
    """

    seconds: float
    origin_requests: int
    grown: int
    slow_octets: int


def deliver(root: Path, size: int, slow_seconds: float) -> Outcome:
    """``slow_seconds`` of 0 is without the slow client."""
    origin = OriginServer(root / "origin", [size], access=True)
    node = Node(root / "node", origin.url, size=f"{3 * size // MIB + 512}MiB")
    target = f"/packages/{size}.whl"
    due = artifact(size)
    enough = threading.Event()
    try:
        node.start()
        before = processes.anonymous_octets(node.family())
        slow = Download(node.url, target, due, receive_buffer=64 << 10)
        fast = [Download(node.url, target, due) for _ in range(2)]
        staying, leaving = Together(), Together()
        with MemoryWatch(node) as watch:
            if slow_seconds:
                leaving.start(slow.read_slowly, 1_000_000, enough)
                processes.until(lambda: slow.position > 0, "the slow client's first octet")
                threading.Timer(slow_seconds, enough.set).start()
            for download in fast:
                staying.start(download.read_all)
            staying.join()
            leaving.join()
        for download in fast:
            if not download.exact:
                raise AssertionError(str(download))
        if slow.wrong_at is not None:
            raise AssertionError(str(slow))
        seconds = max(download.seconds for download in fast)
        return Outcome(seconds, origin.requests(), watch.most - before, slow.position)
    finally:
        node.end()
        origin.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octets", type=int, default=1024 * MIB)
    parser.add_argument("--slow-seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = [["", "without: s", "with: s", "ratio", "origin requests", "RssAnon grew MiB", "slow one got MB"]]
    ratios, worst = [], 0
    with tempfile.TemporaryDirectory(prefix="edgecache-large-") as name:
        for number in range(options.rounds):
            alone = deliver(Path(name) / f"{number}-alone", options.octets, 0)
            beside = deliver(Path(name) / f"{number}-beside", options.octets, options.slow_seconds)
            ratios.append(beside.seconds / alone.seconds)
            worst = max(worst, alone.grown, beside.grown)
            asked = f"{alone.origin_requests}, {beside.origin_requests}"
            grown = f"{alone.grown / MIB:.1f}, {beside.grown / MIB:.1f}"
            words = (f"{alone.seconds:.2f}", f"{beside.seconds:.2f}", f"{ratios[-1]:.2f}", asked, grown)
            rows.append([f"round {number + 1}", *words, f"{beside.slow_octets / 1e6:.1f}"])
    print(f"{options.octets} octets, two workers, two fast clients\n\n{table(rows)}\n")
    print(f"the fast clients' time with the slow one, to that without: {statistics.median(ratios):.2f}")
    print(f"most that RssAnon of all processes grew: {worst / MIB:.1f} MiB (goal: under 64)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
