"""
Do two workers serve twice as much as one, when each has a quarter of a core?

One node with one worker and one with two serve the same hits; each worker is held to a quarter of a core by a control
group of its own, so that two fit onto any machine beside the load. ``python benchmarks/quarters.py``: a minute;
needs root and the kernel's ``cpu`` controller (version 1 or 2).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import define

from benchmarks.load import PAGE_FIELDS, require_hit, run
from benchmarks.servers import OriginServer, artifact
from benchmarks.tables import table
from tests.system.harness import Node

SHARE = 0.25
PERIOD_MICROSECONDS = 10_000
"""Short, so that answers don't wait long for the next share."""

SIZES = (8 << 10, 64 << 10)
GOAL = 1.8

_GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def held(pids: list[int]) -> Iterator[None]:
    """
    Each process in a group of its own, which gets :data:`SHARE` of a core.

    :raises OSError: without root, or without the controller.
    """
    first = (_GROUPS / "cpu").is_dir()
    quota = int(SHARE * PERIOD_MICROSECONDS)
    groups: list[Path] = []
    try:
        for pid in pids:
            group = (_GROUPS / "cpu" if first else _GROUPS) / f"edgecache-quarter-{pid}"
            group.mkdir()
            groups.append(group)
            if first:
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (group / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
            (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for pid, group in zip(pids, groups, strict=False):
            (group.parent / "cgroup.procs").write_text(str(pid))
            group.rmdir()


@define
class Workers:
    """One node: a side of the comparison."""

    node: Node
    name: str

    def url(self, tls: bool) -> str:
        return self.node.url

    def counted(self, tls: bool) -> list[int]:
        return self.node.worker_pids()

    def besides(self, tls: bool) -> list[int]:
        return []

    def stop(self) -> None:
        self.node.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    options = parser.parse_args()
    rates: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    used: dict[int, list[float]] = {size: [] for size in SIZES}
    with tempfile.TemporaryDirectory(prefix="edgecache-quarters-") as name:
        root = Path(name)
        origin = OriginServer(root / "origin", list(SIZES))
        stops = [origin.stop]
        try:
            sides = []
            for count in (1, 2):
                node = Node(root / str(count), origin.url, profile="index", workers=count)
                stops.append(node.end)
                sides.append(Workers(node.start(), f"{count} worker"))
            for size in SIZES:
                for side in sides:
                    require_hit(side, False, f"/packages/{size}.whl", PAGE_FIELDS, artifact(size))
            with held([pid for side in sides for pid in side.counted(False)]):
                for number in range(options.rounds):
                    for size in SIZES:
                        rate = {}
                        for side in sides if number % 2 else sides[::-1]:
                            load = run(
                                side,
                                False,
                                f"/packages/{size}.whl",
                                connections=64,
                                seconds=options.seconds,
                                fields=PAGE_FIELDS,
                            )
                            rate[side.name] = load.answers(size) / load.seconds
                            used[size].append(load.cpu_seconds / (load.seconds * SHARE * len(side.counted(False))))
                        rates[size].append((rate["1 worker"], rate["2 worker"]))
        finally:
            for stop in reversed(stops):
                stop()
    rows = [["octets", "one worker, answers/s", "two workers", "ratio", "share that was used"]]
    reached = True
    for size, pairs in rates.items():
        ratio = statistics.median(two / one for one, two in pairs)
        reached = reached and ratio >= GOAL
        one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
        rows.append([str(size), f"{one:.0f}", f"{two:.0f}", f"{ratio:.2f}", f"{min(used[size]):.2f}"])
    print(f"each worker held to {SHARE} of a core; medians of {options.rounds} rounds of {options.seconds} s\n")
    print(table(rows), end="\n\n")
    print("Where less than nearly all of the share was used, wrk was the bottleneck: the machine is too busy.")
    print(f"{'reached' if reached else 'MISSED '}  two workers serve at least {GOAL} times as much as one")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
