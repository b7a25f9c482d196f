"""
Misses that are stored: one worker of a node against nginx's proxy_cache with one worker, alternating, every URL new.

``python benchmarks/miss.py`` takes under two minutes. nginx writes files and syncs nothing; a node commits
synchronously. The CPU is that of the serving process with all its threads, so our writer threads count.
After each run everything is written to disk, so that neither side pays for what the other left to do; "on disk" is the
rate with that time. ``--tls-upstream``: the origin speaks TLS 1.3, and both check its certificate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import frozen

from benchmarks.load import FILE_FIELDS, PAGE_FIELDS, Load, require_hit, run
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Side, artifact
from benchmarks.tables import table
from tests.system import processes
from tests.system.certificates import make_certificate
from tests.system.watching import MemoryWatch

MIB = 1 << 20

# More of them hold more octets at a time than there are cores to move them, on both sides.
LARGE_CONNECTIONS = 8


@frozen
class Run:
    """One run of wrk, and how long it took after that until everything was on disk."""

    load: Load
    sync_seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 16 * MIB], help="octets of each content")
    parser.add_argument("--connections", type=int, default=32, help=f"large contents: at most {LARGE_CONNECTIONS}")
    parser.add_argument("--profile", choices=("index", "plain"), default="index")
    parser.add_argument("--tls-upstream", action="store_true")
    options = parser.parse_args()
    sizes: list[int] = options.sizes
    rounds: dict[int, list[dict[str, Run]]] = {size: [] for size in sizes}

    with tempfile.TemporaryDirectory(prefix="edgecache-miss-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", sizes, tls=(certificate, key) if options.tls_upstream else None)
        stops = [origin.stop]
        try:
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            ours = EdgeNode(root / "edgecache", origin, certificate, key, profile=options.profile, size="24GiB")
            stops.append(ours.stop)
            sides: list[Side] = [nginx, ours]
            before = processes.anonymous_octets(ours.family())
            with MemoryWatch(ours) as watch:
                for size in sizes:
                    for number in range(options.rounds + 1):
                        # The first round warms pools and directories, and is not counted.
                        order = sides if number % 2 == 0 else sides[::-1]
                        seconds = options.seconds if number else 1
                        loads = one_round(order, size, number, seconds, options.connections)
                        if number:
                            rounds[size].append(loads)
        finally:
            for stop in reversed(stops):
                stop()

    rows = [["octets", "", "nginx", "edgecache", "ratio"]]
    for size in sizes:
        large = size >= MIB
        theirs, mine = ([figures(each[name], size) for each in rounds[size]] for name in ("nginx", "edgecache"))
        labels = ("CPU ms/miss", "MiB/s", "MiB/s on disk") if large else ("CPU µs/miss", "misses/s", "on disk")
        for which, label in enumerate(labels):
            ratio = statistics.median(a[which] / b[which] for a, b in zip(mine, theirs, strict=True))
            medians = (f"{statistics.median(each[which] for each in side):.1f}" for side in (theirs, mine))
            rows.append([str(size), label, *medians, f"{ratio:.2f}"])
    origin_is = "TLS" if options.tls_upstream else "plain"
    print(f"medians of {options.rounds} rounds of {options.seconds} s, profile {options.profile}, {origin_is} origin\n")
    print(table(rows))
    print(f"\nRssAnon of all our processes grew by at most {(watch.most - before) / MIB:.1f} MiB")
    return 0


def one_round(sides: list[Side], size: int, number: int, seconds: int, connections: int) -> dict[str, Run]:
    """:return: what each side did under the same load, one after the other."""
    runs = {}
    fields = PAGE_FIELDS if size < MIB else FILE_FIELDS
    for side in sides:
        target = f"/miss/{size}/{number}-"
        load = run(
            side,
            False,
            target,
            connections=connections if size < MIB else min(connections, LARGE_CONNECTIONS),
            seconds=seconds,
            fields=fields,
            numbered=True,
        )
        began = time.monotonic()
        os.sync()
        runs[side.name] = Run(load, time.monotonic() - began)
        # It was stored: one from the middle of the run is there. A large one may have been cut off by the run's end.
        middle = f"{target}{max(1, load.requests // 2)}"
        require_hit(side, False, middle, fields, artifact(size), requests=1 if size < MIB else 3)
    return runs


def figures(of: Run, size: int) -> tuple[float, float, float]:
    """
    :return: CPU of a miss, the rate, and the rate with the time until all is on disk; in ms and MiB/s where contents
        are large, else in µs and misses/s.
    """
    load = of.load
    answers = load.answers(size)
    cpu, rate, on_disk = load.cpu_seconds / answers, answers / load.seconds, answers / (load.seconds + of.sync_seconds)
    return (cpu * 1e3, rate * size / MIB, on_disk * size / MIB) if size >= MIB else (cpu * 1e6, rate, on_disk)


if __name__ == "__main__":
    sys.exit(main())
