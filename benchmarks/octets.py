"""
Octets of hits on large contents, with a client that is no bottleneck: one worker against nginx's proxy_cache with one.

``python benchmarks/octets.py`` takes a minute. ``hit.py`` asks with wrk, which copies all content out of the kernel,
8 KiB at a time, and needs three times nginx's CPU for that: what it shows of nginx's rate is wrk's. Here the kernel
drops the content at the client (:mod:`benchmarks.mixclient`). Each side has one CPU, the client and the origin another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.index import OneNode
from benchmarks.load import FILE_FIELDS, require_hit
from benchmarks.mixload import MixLoad, drive, head_of, pinned
from benchmarks.servers import NginxCache, OriginServer, Side, artifact
from benchmarks.tables import table, told
from tests.system.certificates import make_certificate
from tests.system.harness import Node

MIB = 1 << 20
CONNECTIONS = {1: 16, 64: 4}
RATE_GOAL = 1.0


def rate(load: MixLoad) -> float:
    return load.octets / load.seconds / 1e6


def cost(load: MixLoad) -> float:
    return load.cpu_seconds / load.octets * 1e9


def busy(load: MixLoad) -> float:
    return load.generator_seconds / load.seconds * 100


def ratio(figure: Callable[[MixLoad], float], own: list[MixLoad], theirs: list[MixLoad]) -> float:
    return statistics.median(figure(one) / figure(two) for one, two in zip(own, theirs, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    options = parser.parse_args()
    cpus = os.sched_getaffinity(0)
    serving = {min(cpus)} if len(cpus) > 1 else cpus
    loads: dict[tuple[int, str], list[MixLoad]] = {}

    with tempfile.TemporaryDirectory(prefix="edgecache-octets-") as name, ExitStack() as ends:
        root = Path(name)
        ends.enter_context(pinned(cpus - serving or cpus))
        origin = OriginServer(root / "origin", [size * MIB for size in CONNECTIONS])
        ends.callback(origin.stop)
        certificate, key = make_certificate(root / "certificate")
        with pinned(serving):
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            ends.callback(nginx.stop)
            ours = OneNode(Node(root / "node", origin.url, profile="index", workers=1, size="2GiB"))
            ends.callback(ours.stop)
            ours.node.start()
        sides: list[Side] = [nginx, ours]
        for size in CONNECTIONS:
            for side in sides:
                require_hit(side, False, f"/packages/{size * MIB}.whl", FILE_FIELDS, artifact(size * MIB))
        for number in range(options.rounds):
            for size, connections in CONNECTIONS.items():
                for side in sides if number % 2 else sides[::-1]:
                    url = side.url(False)
                    head = head_of(url, f"/packages/{size * MIB}.whl", FILE_FIELDS)
                    load = drive(
                        url, side.counted(False), root / "load", [head], [head], [1], connections, options.seconds
                    )
                    loads.setdefault((size, side.name), []).append(load)

    rows = [["", "ns/octet nginx", "ours", "ratio", "MB/s nginx", "ours", "ratio", "client %, nginx", "ours"]]
    results = []
    for size in CONNECTIONS:
        theirs, own = loads[size, nginx.name], loads[size, ours.name]
        row = [f"{size} MiB"]
        for figure, digits in ((cost, 3), (rate, 0)):
            row += [f"{statistics.median(map(figure, each)):.{digits}f}" for each in (theirs, own)]
            row.append(f"{ratio(figure, own, theirs):.2f}")
        row += [f"{statistics.median(map(busy, each)):.0f}" for each in (theirs, own)]
        rows.append(row)
        found = ratio(rate, own, theirs)
        results.append(
            (found >= RATE_GOAL, f"{size} MiB: {found:.2f} of nginx's octets per second (goal: {RATE_GOAL})")
        )
    print(f"\nHits, plain, medians of {options.rounds} rounds of {options.seconds} s; ratios are ours to nginx's\n")
    print(table(rows), end="\n\n")
    return told(results)


if __name__ == "__main__":
    sys.exit(main())
