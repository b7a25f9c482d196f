"""What nodes use while a soak goes on, and whether it grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

from attrs import field, frozen

from benchmarks.tables import table
from tests.system import processes
from tests.system.fleet import Fleet

MIB = 1 << 20


@frozen
class Figures:
    """
    One look at one node.

    :ivar each: octets of RssAnon of each process: the node's, the nursery, the worker.
    :ivar temporary: rows of contents that no record has (yet).
    :ivar shares: how full small and blobs are.
    """

    each: tuple[int, ...]
    descriptors: int
    files: int
    temporary: int
    shares: tuple[float, ...]

    @property
    def anonymous(self) -> int:
        """Of all together."""
        return sum(self.each)


@frozen
class Look:
    """
    At everything.

    :ivar waits: of small hits since the last look, seconds.
    """

    second: float
    requests_per_second: float
    octets_per_second: float
    waits: Sequence[float] = field(converter=sorted)
    nodes: dict[str, Figures]

    def wait(self, share: float) -> float:
        """Milliseconds, of this share of the small hits."""
        return 1e3 * self.waits[int(share * (len(self.waits) - 1))] if self.waits else 0.0

    def row(self) -> list[str]:
        """For the table."""
        each = list(self.nodes.values())
        return [
            f"{self.second:.0f}",
            f"{self.requests_per_second:.0f}",
            f"{self.octets_per_second / MIB:.0f}",
            f"{self.wait(0.5):.1f}",
            f"{self.wait(0.99):.1f}",
            " ".join("/".join(f"{100 * share:.0f}" for share in node.shares) for node in each),
            " ".join("/".join(f"{octets / MIB:.0f}" for octets in node.each) for node in each),
            " ".join(str(node.descriptors) for node in each),
            " ".join(str(node.files) for node in each),
            " ".join(str(node.temporary) for node in each),
        ]


HEAD = ["s", "requests/s", "MiB/s", "p50 ms", "p99 ms", "full %", "RssAnon MiB", "descriptors", "files", "temporary"]


def figures(fleet: Fleet, name: str) -> Figures | None:
    """:return: ``None`` of a node that is not there just now."""
    node = fleet.nodes[name]
    try:
        store = list(fleet.status(node)["store"]["environments"].values())
    except (OSError, AssertionError):
        return None
    pids = node.family()
    return Figures(
        tuple(processes.anonymous_octets([pid]) for pid in pids),
        sum(_descriptors(pid) for pid in pids),
        sum(len(names) for _, _, names in os.walk(node.data)),
        sum(each["entries"].get("orphans", 0) for each in store),
        tuple(each["share"] for each in store),
    )


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def growth(values: Sequence[float]) -> float:
    """:return: how much larger the median of the last third is than that of the second; the first is warming up."""
    third = len(values) // 3
    return statistics.median(values[-third:]) - statistics.median(values[third : 2 * third])


def text(looks: Sequence[Look]) -> str:
    """The table, for people."""
    return table([HEAD, *(look.row() for look in looks)])
