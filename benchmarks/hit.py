"""
Hits: one worker of a node against nginx's proxy_cache with one worker, in one run on one machine, alternating.

``python benchmarks/hit.py`` takes three to four minutes, ``--quick`` one. CPU is user and system time of the process
that serves (nginx's worker; the node's worker), from /proc; what the node's other process used is given beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.load import FILE_FIELDS, PAGE_FIELDS, Load, require_hit, run
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Side, artifact
from benchmarks.tables import table
from tests.system.certificates import make_certificate

KIB, MIB = 1 << 10, 1 << 20

SIZES = {"8K": 8 * KIB, "64K": 64 * KIB, "1M": MIB, "64M": 64 * MIB}

# Enough to keep one worker busy; large contents need few.
CONNECTIONS = {8 * KIB: 64, 64 * KIB: 64, MIB: 16, 64 * MIB: 4}

# wrk spins while it waits for handshakes, and so takes the CPU from whom it waits for.
TLS_CONNECTIONS = 16

CPU_GOAL = 1.3
RATE_GOAL = 0.9


def target_of(size: int) -> str:
    return f"/packages/{size}.whl"


def fields_of(size: int) -> dict[str, str]:
    return PAGE_FIELDS if size < MIB else FILE_FIELDS


class Comparison:
    """All rounds of one size, plain or TLS."""

    def __init__(self, size: int, tls: bool) -> None:
        self.size = size
        self.tls = tls
        self.rounds: list[dict[str, Load]] = []

    def measure(self, sides: list[Side], seconds: int) -> None:
        """One more round; who begins takes turns."""
        order = sides if len(self.rounds) % 2 == 0 else sides[::-1]
        self.rounds.append(
            {
                side.name: run(
                    side,
                    self.tls,
                    target_of(self.size),
                    connections=min(CONNECTIONS[self.size], TLS_CONNECTIONS if self.tls else 64),
                    seconds=seconds,
                    fields=fields_of(self.size),
                )
                for side in order
            }
        )

    def cpu(self, load: Load) -> float:
        """Microseconds per request."""
        return load.cpu_seconds / load.answers(self.size) * 1e6

    def rate(self, load: Load) -> float:
        """Requests per second."""
        return load.answers(self.size) / load.seconds

    def ratio(self, figure: str) -> float:
        """Ours to nginx's: the median of the rounds' ratios."""
        pairs = [(self._figure(figure, each["edgecache"]), self._figure(figure, each["nginx"])) for each in self.rounds]
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def median(self, figure: str, name: str) -> float:
        return statistics.median(self._figure(figure, each[name]) for each in self.rounds)

    def _figure(self, figure: str, load: Load) -> float:
        match figure:
            case "cpu":
                return self.cpu(load)
            case "besides":
                return load.besides_seconds / load.answers(self.size) * 1e6
            case "rate":
                return self.rate(load)
            case "octets":
                return load.octets / load.seconds
            case "p99":
                return load.p99_seconds
        raise ValueError(figure)

    def row(self) -> list[str]:
        name = next(name for name, size in SIZES.items() if size == self.size)
        return [
            f"{name} {'TLS' if self.tls else 'plain'}",
            f"{self.median('cpu', 'nginx'):.1f}",
            f"{self.median('cpu', 'edgecache'):.1f}",
            f"{self.ratio('cpu'):.2f}",
            f"{self.median('besides', 'edgecache'):.2f}",
            f"{self.median('rate', 'nginx'):.0f}",
            f"{self.median('rate', 'edgecache'):.0f}",
            f"{self.ratio('rate'):.2f}",
            f"{self.median('octets', 'nginx') / 1e6:.0f}",
            f"{self.median('octets', 'edgecache') / 1e6:.0f}",
            f"{self.ratio('octets'):.2f}",
            f"{self.median('p99', 'nginx') * 1e3:.2f}",
            f"{self.median('p99', 'edgecache') * 1e3:.2f}",
        ]


HEAD = [
    "",
    "µs/req nginx",
    "ours",
    "ratio",
    "node process",
    "req/s nginx",
    "ours",
    "ratio",
    "MB/s nginx",
    "ours",
    "ratio",
    "p99 ms nginx",
    "ours",
]


def verdicts(comparisons: list[Comparison]) -> list[tuple[bool, str]]:
    found = []
    for each in comparisons:
        kind = "TLS" if each.tls else "plain"
        if each.size == 8 * KIB:
            ratio = each.ratio("cpu")
            found.append((ratio <= CPU_GOAL, f"8K {kind}: {ratio:.2f} of nginx's CPU per request (goal: {CPU_GOAL})"))
        if each.size >= MIB:
            ratio = each.ratio("octets")
            text = f"{each.size // MIB}M {kind}: {ratio:.2f} of nginx's octets per second (goal: {RATE_GOAL})"
            found.append((ratio >= RATE_GOAL, text))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of a second each")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--sizes", default=",".join(SIZES), help="of " + ", ".join(SIZES))
    parser.add_argument("--only", choices=("plain", "tls"))
    parser.add_argument("--profile", choices=("index", "plain"), default="index")
    options = parser.parse_args()
    rounds, seconds = (2, 1) if options.quick else (options.rounds, options.seconds)
    sizes = [SIZES[name] for name in options.sizes.split(",")]
    schemes = [tls for tls in (False, True) if options.only in (None, "tls" if tls else "plain")]
    comparisons = [Comparison(size, tls) for size in sizes for tls in schemes]

    with tempfile.TemporaryDirectory(prefix="edgecache-hit-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", sizes)
        stops = [origin.stop]
        try:
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            ours = EdgeNode(root / "edgecache", origin, certificate, key, profile=options.profile)
            stops.append(ours.stop)
            sides: list[Side] = [nginx, ours]
            for each in comparisons:
                for side in sides:
                    agreed = require_hit(
                        side, each.tls, target_of(each.size), fields_of(each.size), artifact(each.size)
                    )
                    if agreed and each.size == sizes[0]:
                        print(f"{side.name}: {agreed}")
            for number in range(rounds):
                for each in comparisons:
                    each.measure(sides, seconds)
                print(f"round {number + 1} of {rounds}", flush=True)
            for each in comparisons:
                for side in sides:
                    require_hit(side, each.tls, target_of(each.size), fields_of(each.size), artifact(each.size))
        finally:
            for stop in reversed(stops):
                stop()

    print(f"\nmedians of {rounds} rounds of {seconds} s, profile {options.profile}; ratios are ours to nginx's\n")
    print(table([HEAD, *(each.row() for each in comparisons)]), end="\n\n")
    results = verdicts(comparisons)
    for reached, text in results:
        print(f"{'reached' if reached else 'MISSED '}  {text}")
    return 0 if all(reached for reached, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
