"""
Hits: one worker of a node against nginx's proxy_cache with one worker, in one run on one machine, alternating.

Whole files of several sizes, 304 answers, and the last 16 KiB of a file, as an installer asks for them that wants to
know what a wheel is. ``python benchmarks/hit.py`` takes five minutes, ``--quick`` one and a half. CPU is user and
system time of the process that serves (nginx's worker; the node's worker), from /proc; what the node's other process
used is given beside it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import define, field, frozen

from benchmarks.load import FILE_FIELDS, PAGE_FIELDS, Load, get, is_hit, require_hit, run
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Side, artifact
from benchmarks.tables import table, told
from tests.system.certificates import make_certificate

KIB, MIB = 1 << 10, 1 << 20

SIZES = {"8K": 8 * KIB, "64K": 64 * KIB, "1M": MIB, "64M": 64 * MIB}

PART = 16 * KIB

# Enough to keep one worker busy; large contents need few.
CONNECTIONS = {8 * KIB: 64, 64 * KIB: 64, MIB: 16, 64 * MIB: 4}

# wrk spins while it waits for handshakes, and so takes the CPU from whom it waits for.
TLS_CONNECTIONS = 16

CPU_GOAL = 1.0
RATE_GOAL = 1.0
P99_GOAL = 2.0


@frozen
class Kind:
    """
    What is asked for again and again.

    :ivar size: of the file.
    :ivar status: of the answers.
    :ivar octets: of content of an answer.
    :ivar by_cpu: the goal is CPU per request; else it is octets per second.
    """

    name: str
    size: int
    status: int
    octets: int
    connections: int

    @property
    def by_cpu(self) -> bool:
        return self.octets < MIB

    @property
    def target(self) -> str:
        return f"/packages/{self.size}.whl"

    @property
    def whole_fields(self) -> dict[str, str]:
        """Of a request for the whole file."""
        return PAGE_FIELDS if self.size < MIB else FILE_FIELDS

    def fields(self, side: Side, tls: bool) -> dict[str, str]:
        """Of the request that is measured."""
        match self.status:
            case 304:
                etag = get(side.url(tls), self.target, self.whole_fields)["etag"]
                return {**self.whole_fields, "If-None-Match": etag}
            case 206:
                return {**self.whole_fields, "Range": f"bytes=-{self.octets}"}
        return self.whole_fields

    def require(self, side: Side, tls: bool) -> str:
        """
        See that the side answers so from its store; gives what TLS agreed on.

        :raises BadRun: it does not.
        """
        content = artifact(self.size)
        agreed = require_hit(side, tls, self.target, self.whole_fields, content)
        if self.status != 200:
            start = self.size - self.octets
            got = get(
                side.url(tls), self.target, self.fields(side, tls), content if self.octets else None, self.status, start
            )
            assert side.name == "nginx" or is_hit(got), got
        return agreed

    def answers(self, load: Load) -> float:
        """How many; large ones count by the octets that came."""
        return load.requests if self.octets < MIB else load.octets / self.octets


def kinds(names: list[str], sizes: list[str]) -> Iterator[Kind]:
    if "whole" in names:
        for name in sizes:
            yield Kind(name, SIZES[name], 200, SIZES[name], CONNECTIONS[SIZES[name]])
    if "304" in names:
        yield Kind("304", 8 * KIB, 304, 0, 64)
    if "range" in names:
        yield Kind("16K of 1M", MIB, 206, PART, 64)


@define
class Comparison:
    """All rounds of one kind, plain or TLS."""

    kind: Kind
    tls: bool
    rounds: list[dict[str, Load]] = field(factory=list)

    @property
    def name(self) -> str:
        return f"{self.kind.name} {'TLS' if self.tls else 'plain'}"

    def measure(self, sides: list[Side], seconds: int) -> None:
        """One more round; who begins takes turns."""
        order = sides if len(self.rounds) % 2 == 0 else sides[::-1]
        self.rounds.append(
            {
                side.name: run(
                    side,
                    self.tls,
                    self.kind.target,
                    connections=min(self.kind.connections, TLS_CONNECTIONS if self.tls else 64),
                    seconds=seconds,
                    fields=self.kind.fields(side, self.tls),
                )
                for side in order
            }
        )

    def ratio(self, figure: str) -> float:
        """Ours to nginx's: the median of the rounds' ratios."""
        pairs = [(self._figure(figure, each["edgecache"]), self._figure(figure, each["nginx"])) for each in self.rounds]
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def median(self, figure: str, name: str) -> float:
        return statistics.median(self._figure(figure, each[name]) for each in self.rounds)

    def _figure(self, figure: str, load: Load) -> float:
        """CPU in microseconds per request, rates per second."""
        answers = self.kind.answers(load)
        match figure:
            case "cpu":
                return load.cpu_seconds / answers * 1e6
            case "besides":
                return load.besides_seconds / answers * 1e6
            case "rate":
                return answers / load.seconds
            case "octets":
                return load.octets / load.seconds
            case "p99":
                return load.p99_seconds
        raise ValueError(figure)

    def row(self) -> list[str]:
        return [
            self.name,
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
            f"{self.ratio('p99'):.2f}",
        ]

    def verdicts(self) -> Iterator[tuple[bool, str]]:
        """Of plain HTTP; with TLS the figures are all that is asked for."""
        if self.tls:
            return
        if self.kind.by_cpu:
            ratio = self.ratio("cpu")
            yield ratio <= CPU_GOAL, f"{self.name}: {ratio:.2f} of nginx's CPU per request (goal: {CPU_GOAL})"
        else:
            ratio = self.ratio("octets")
            yield ratio >= RATE_GOAL, f"{self.name}: {ratio:.2f} of nginx's octets per second (goal: {RATE_GOAL})"
        ratio = self.ratio("p99")
        yield ratio <= P99_GOAL, f"{self.name}: {ratio:.2f} of nginx's p99 (goal: {P99_GOAL})"


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
    "ratio",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of a second each")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--kinds", default="whole,304,range", help="what is asked for")
    parser.add_argument("--sizes", default=",".join(SIZES), help="of whole files, of " + ", ".join(SIZES))
    parser.add_argument("--only", choices=("plain", "tls"))
    parser.add_argument("--profile", choices=("index", "plain"), default="index")
    options = parser.parse_args()
    rounds, seconds = (2, 1) if options.quick else (options.rounds, options.seconds)
    schemes = [tls for tls in (False, True) if options.only in (None, "tls" if tls else "plain")]
    asked = list(kinds(options.kinds.split(","), options.sizes.split(",")))
    comparisons = [Comparison(kind, tls) for kind in asked for tls in schemes]

    with tempfile.TemporaryDirectory(prefix="edgecache-hit-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", sorted({kind.size for kind in asked}))
        stops = [origin.stop]
        try:
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            ours = EdgeNode(root / "edgecache", origin, certificate, key, profile=options.profile)
            stops.append(ours.stop)
            sides: list[Side] = [nginx, ours]
            for each in comparisons:
                for side in sides:
                    agreed = each.kind.require(side, each.tls)
                    if agreed and each.kind is asked[0]:
                        print(f"{side.name}: {agreed}")
            for number in range(rounds):
                for each in comparisons:
                    each.measure(sides, seconds)
                print(f"round {number + 1} of {rounds}", flush=True)
            for each in comparisons:
                for side in sides:
                    each.kind.require(side, each.tls)
        finally:
            for stop in reversed(stops):
                stop()

    print(f"\nmedians of {rounds} rounds of {seconds} s, profile {options.profile}; ratios are ours to nginx's\n")
    print(table([HEAD, *(each.row() for each in comparisons)]), end="\n\n")
    return told([verdict for each in comparisons for verdict in each.verdicts()])


if __name__ == "__main__":
    sys.exit(main())
