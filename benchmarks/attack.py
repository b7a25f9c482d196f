"""
What clients that mean harm do to others, beside nginx's proxy_cache with one worker under the same attack.

Attackers, honest clients (8 KiB, at a fixed rate) and servers are processes of their own. Each attack is made several
times on each server in turn, and what honest clients see counts from the moment that it begins. Shown: the median of
these rounds' p50 and p99 (with TLS where that is attacked), the least and the most p99, how many requests that was, how
many were sent too late by their own client to count, how many failed, and RssAnon of the worker: before, at most, and
what is left.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from attrs import define, field

from benchmarks.load import FILE_FIELDS, require_hit
from benchmarks.others import Others, Seen
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Side, artifact
from benchmarks.tables import table, told
from tests.system import processes
from tests.system.attackers import KINDS, Attack
from tests.system.certificates import make_certificate

MIB = 1 << 20
SIZES = (700, 8 << 10, 8 << 20)
TARGET = f"/packages/{SIZES[1]}.whl"
TLS_KINDS = ("silent in its handshake", "half a handshake", "handshake octet by octet")
MANY = {"silent": 5000, "comes and goes": 50, "asks on and on": 8, "asks on and never reads": 50}
"""How many of these; of others 300."""
PAUSE_SECONDS = 0.3
"""Between rounds: the attackers of the last one go all at once."""
GONE_SECONDS = 2.0
"""What a crowd took is given back within the seconds after it."""
OTHERS_GOAL = 2.0
"""Times nginx's p99 under the same attack, at most."""


@define(eq=False)
class Figures:
    """One attack on one side, over all rounds."""

    kind: str
    side: Side
    rounds: list[Seen] = field(factory=list)
    start: int = 0
    most: int = 0
    made: int = 0

    @property
    def tls(self) -> bool:
        return self.kind in TLS_KINDS

    @property
    def p99(self) -> float:
        """Median of the rounds'."""
        return statistics.median(seen.p99 for seen in self.rounds)

    @property
    def failed(self) -> float:
        """Share of the worst round."""
        return max(seen.failed for seen in self.rounds)

    def memory(self) -> int:
        """RssAnon of who serves, now."""
        return processes.anonymous_octets(self.side.counted(self.tls))

    def row(self) -> list[str]:
        """For the table; what is left is what is left now."""
        p99s = sorted(1e3 * seen.p99 for seen in self.rounds)
        return [
            self.kind,
            self.side.name,
            f"{1e3 * statistics.median(seen.p50 for seen in self.rounds):.2f}",
            f"{1e3 * self.p99:.1f}",
            f"{p99s[0]:.1f} to {p99s[-1]:.1f}",
            f"{sum(seen.samples for seen in self.rounds)}",
            f"{sum(seen.late for seen in self.rounds)}",
            f"{100 * self.failed:.1f}",
            *(f"{octets / MIB:.0f}" for octets in (self.start, self.most, self.memory())),
            f"{self.made}",
        ]


HEAD = ["", "", "p50 ms", "p99", "of rounds", "requests", "late", "failed %", "MiB", "most", "left", "connections"]


def attack(figures: Figures, count: int, options: argparse.Namespace) -> None:
    """One round: who is thrown out comes back."""
    figures.start = figures.start or figures.memory()
    url, over = figures.side.url(figures.tls), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            figures.most = max(figures.most, figures.memory())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        with Others(url, TARGET, options.rate) as honest:
            honest.begin()
            with Attack(url, {figures.kind: count}, again=True, addresses=20) as attackers:
                processes.until(lambda: attackers.told()[figures.kind]["made"] >= count, f"all of {figures.kind}")
                time.sleep(options.seconds)
                figures.rounds.append(honest.end())
                figures.made += int(attackers.told()[figures.kind]["made"])
    finally:
        over.set()
        watching.join()


def verdicts(all_figures: list[tuple[Figures, Figures]]) -> list[tuple[bool, str]]:
    """Ours against nginx's, attack by attack."""
    found = []
    for theirs, ours in all_figures:
        ratio = ours.p99 / theirs.p99
        failed = f"{100 * ours.failed:.1f} % failed"
        text = f"{ours.kind}: others' p99 {ratio:.2f} times nginx's (goal: {OTHERS_GOAL:g}), {failed}"
        found.append((ratio <= OTHERS_GOAL and not ours.failed, text))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--rate", type=float, default=300.0, help="of the others, per second")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round, from when all attackers are there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the attackers")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    found: list[tuple[Figures, Figures]] = []
    rows = [HEAD]
    with tempfile.TemporaryDirectory(prefix="edgecache-attack-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", list(SIZES))
        for size in SIZES:
            # As the attackers ask for it.
            (root / "origin" / "files" / "packages" / str(size)).mkdir()
            (root / "origin" / "files" / "packages" / str(size) / "1").symlink_to(f"../{size}.whl")
        stops = [origin.stop]
        try:
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            ours = EdgeNode(root / "edgecache", origin, certificate, key, profile="plain")
            stops.append(ours.stop)
            for side in (nginx, ours):
                require_hit(side, False, TARGET, FILE_FIELDS, artifact(SIZES[1]))
                for size in SIZES:
                    require_hit(side, False, f"/packages/{size}/1", FILE_FIELDS, artifact(size))
                require_hit(side, True, TARGET, FILE_FIELDS, artifact(SIZES[1]))
            for kind in options.kinds:
                count = max(1, int(MANY.get(kind, 300) * options.share))
                both = (Figures(kind, nginx), Figures(kind, ours))
                for number in range(options.rounds):
                    for figures in both if number % 2 == 0 else reversed(both):
                        attack(figures, count, options)
                        time.sleep(PAUSE_SECONDS)
                time.sleep(GONE_SECONDS)
                found.append(both)
                for figures in both:
                    rows.append(figures.row())
                    print(*rows[-1], sep="  ", flush=True)
        finally:
            for stop in reversed(stops):
                stop()

    print()
    print(table(rows), end="\n\n")
    return told(verdicts(found))


if __name__ == "__main__":
    sys.exit(main())
