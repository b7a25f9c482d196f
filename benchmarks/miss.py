"""
Misses that are stored: one worker of a node against nginx's proxy_cache with one worker, alternating, every URL new.

``python benchmarks/miss.py`` takes under a minute. nginx writes files and syncs nothing; a node commits synchronously.
The CPU is that of the serving process with all its threads, so our writer thread counts.
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

MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--octets", type=int, default=8192, help="of each content")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", choices=("index", "plain"), default="index")
    options = parser.parse_args()
    size: int = options.octets
    fields = PAGE_FIELDS if size < MIB else FILE_FIELDS
    rounds: list[dict[str, Load]] = []

    with tempfile.TemporaryDirectory(prefix="edgecache-miss-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", [size])
        stops = [origin.stop]
        try:
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            ours = EdgeNode(root / "edgecache", origin, certificate, key, profile=options.profile)
            stops.append(ours.stop)
            sides: list[Side] = [nginx, ours]
            for number in range(options.rounds + 1):
                loads = {}
                for side in sides if number % 2 == 0 else sides[::-1]:
                    target = f"/miss/{size}/{number}-"
                    # The first round warms pools and directories, and is not counted.
                    seconds = options.seconds if number else 1
                    loads[side.name] = run(
                        side,
                        False,
                        target,
                        connections=options.connections,
                        seconds=seconds,
                        fields=fields,
                        numbered=True,
                    )
                    # It was stored: one from the middle of the run is there.
                    require_stored(side, f"{target}{loads[side.name].requests // 2}", fields, size)
                if number:
                    rounds.append(loads)
        finally:
            for stop in reversed(stops):
                stop()

    def figures(name: str) -> tuple[list[float], list[float]]:
        loads = [each[name] for each in rounds]
        return [x.cpu_seconds / x.answers(size) * 1e6 for x in loads], [x.answers(size) / x.seconds for x in loads]

    ours_cpu, ours_rate = figures("edgecache")
    theirs_cpu, theirs_rate = figures("nginx")
    rows = [["", "nginx", "edgecache", "ratio"]]
    for label, theirs, mine in (("CPU µs/miss", theirs_cpu, ours_cpu), ("misses/s", theirs_rate, ours_rate)):
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        rows.append([label, f"{statistics.median(theirs):.1f}", f"{statistics.median(mine):.1f}", f"{ratio:.2f}"])
    print(f"{size} octets, medians of {len(rounds)} rounds of {options.seconds} s, profile {options.profile}\n")
    print(table(rows))
    return 0


def require_stored(side: Side, target: str, fields: dict[str, str], size: int) -> None:
    """
    Asked once, it is a hit at once.

    :raises BadRun: it is not.
    """
    require_hit(side, False, target, fields, artifact(size), requests=1)


if __name__ == "__main__":
    sys.exit(main())
