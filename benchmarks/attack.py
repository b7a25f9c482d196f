"""
What clients that mean harm do to others, beside nginx's proxy_cache with one worker under the same attack.

Attackers, honest clients (8 KiB, at a fixed rate) and servers are processes of their own. Shown: others' p50 and p99
before and during each attack (with TLS where that is attacked), how many of them failed, and RssAnon of the worker:
before, at most, and what is left.
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

from attrs import frozen

from benchmarks.load import FILE_FIELDS, require_hit
from benchmarks.others import Seen, others
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
OTHERS_GOAL = 2.0
"""Times nginx's p99 under the same attack, at most."""


@frozen
class Figure:
    """One attack on one side."""

    kind: str
    side: str
    before: Seen
    during: Seen
    memory: tuple[int, int, int]
    made: int

    def row(self) -> list[str]:
        """For the table."""
        milliseconds = [f"{1e3 * value:.1f}" for seen in (self.before, self.during) for value in (seen.p50, seen.p99)]
        start, most, left = (f"{octets / MIB:.0f}" for octets in self.memory)
        return [
            self.kind,
            self.side,
            *milliseconds,
            f"{100 * self.during.failed:.1f}",
            start,
            most,
            left,
            f"{self.made}",
        ]


HEAD = ["", "", "p50 ms", "p99", "p50 during", "p99", "failed %", "MiB", "most", "left", "connections"]


def attacked(side: Side, kind: str, count: int, options: argparse.Namespace) -> Figure:
    """One attack: everything is measured while it goes on, and everybody who is thrown out comes back."""
    tls = kind in TLS_KINDS
    before = others(side.url(tls), TARGET, options.rate, options.seconds)
    start = most = processes.anonymous_octets(side.counted(tls))
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.1):
            most = max(most, processes.anonymous_octets(side.counted(tls)))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        with Attack(side.url(tls), {kind: count}, again=True, addresses=20) as attack:
            processes.until(lambda: attack.told()[kind]["made"] >= count, f"all of {kind}")
            during = others(side.url(tls), TARGET, options.rate, options.seconds)
            made = int(attack.told()[kind]["made"])
    finally:
        over.set()
        watching.join()
    # What a crowd took is given back within the next seconds.
    time.sleep(2.0)
    return Figure(kind, side.name, before, during, (start, most, processes.anonymous_octets(side.counted(tls))), made)


def verdicts(figures: list[Figure]) -> list[tuple[bool, str]]:
    """Ours against nginx's, attack by attack."""
    found = []
    for kind in dict.fromkeys(figure.kind for figure in figures):
        p99s = {
            side: statistics.median(each.during.p99 for each in figures if (each.kind, each.side) == (kind, side))
            for side in ("nginx", "edgecache")
        }
        ratio = p99s["edgecache"] / p99s["nginx"]
        failed = max(each.during.failed for each in figures if (each.kind, each.side) == (kind, "edgecache"))
        text = f"{kind}: others' p99 {ratio:.2f} times nginx's (goal: {OTHERS_GOAL:g}), {100 * failed:.1f} % failed"
        found.append((ratio <= OTHERS_GOAL and not failed, text))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--rate", type=float, default=200.0, help="of the others, per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the attackers")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    figures: list[Figure] = []
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
            for _ in range(options.rounds):
                for kind in options.kinds:
                    for side in (nginx, ours):
                        count = max(1, int(MANY.get(kind, 300) * options.share))
                        figures.append(attacked(side, kind, count, options))
                        print(*figures[-1].row(), sep="  ", flush=True)
        finally:
            for stop in reversed(stops):
                stop()

    print()
    print(table([HEAD, *(each.row() for each in figures)]), end="\n\n")
    print(f"late by themselves, p99 of the others: {1e3 * max(each.during.late for each in figures):.1f} ms at most")
    return told(verdicts(figures))


if __name__ == "__main__":
    sys.exit(main())
