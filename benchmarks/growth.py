"""
How cost grows: hits with the objects in the store, purges with the live selectors, misses with the siblings.

``python benchmarks/growth.py`` takes eight minutes, ``--most 100000`` three. ``--svg DIR`` writes the plots.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import growth_hits, growth_misses, growth_purges
from benchmarks.plots import Line, bars, svg
from benchmarks.tables import table

PARTS = ("hits", "purges", "misses")
SIBLINGS = [1, 3, 10, 30]


def show(title: str, across: str, unit: str, rows: list[list[str]], lines: dict[str, Line], out: Path | None) -> None:
    """Table, picture, and how much more the last point costs than the first."""
    print(f"\n{title}\n")
    if rows:
        print(table(rows), end="\n\n")
    print(bars(lines, unit), end="\n\n")
    for name, line in lines.items():
        (least, first), (most, last) = line[0], line[-1]
        print(f"{name}: {last / first:.2f} times the cost at {most / least:,.0f} times the {across}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        name = title.partition(":")[0].lower().replace(" ", "-")
        (out / f"growth-{name}.svg").write_text(svg(title, across, unit, lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=1_000_000, help="objects and selectors")
    parser.add_argument("--seconds", type=int, default=2, help="of each run of wrk")
    parser.add_argument("--parts", default=",".join(PARTS), help="of " + ", ".join(PARTS))
    parser.add_argument("--svg", type=Path, help="a folder for the plots")
    parser.add_argument("--directory", help="where stores lie; default: for temporary files")
    options = parser.parse_args()
    grown = [number for number in (10**power for power in range(3, 10)) if number <= options.most]
    parts = options.parts.split(",")
    with tempfile.TemporaryDirectory(prefix="edgecache-growth-", dir=options.directory) as name:
        root = Path(name)
        if "hits" in parts:
            hits = growth_hits.measure(root / "hits", grown, options.seconds)
            show(
                "Hits: CPU of the worker",
                "objects in the store",
                "µs",
                [
                    ["objects", f"µs, {growth_hits.HOT} of them", "µs, all of them", "p99 ms"],
                    *(
                        [f"{one.objects:,}", f"{one.hot:.1f}", f"{one.all:.1f}", f"{one.p99_seconds * 1e3:.2f}"]
                        for one in hits
                    ),
                ],
                {
                    f"{growth_hits.HOT} hot ones": [(one.objects, one.hot) for one in hits],
                    "all alike": [(one.objects, one.all) for one in hits],
                },
                options.svg,
            )
        if "purges" in parts:
            purges = growth_purges.measure(root / "purges", grown, options.seconds)
            show(
                "Purges: POST to complete, one node",
                "live selectors",
                "ms",
                [
                    ["live selectors", "purge p50 ms", "p99 ms", "hit µs"],
                    *(
                        [f"{one.selectors:,}", f"{one.p50 * 1e3:.2f}", f"{one.p99 * 1e3:.2f}", f"{one.hit:.1f}"]
                        for one in purges
                    ),
                ],
                {"a purge": [(one.selectors, one.p50 * 1e3) for one in purges]},
                options.svg,
            )
            show(
                "After purges: CPU of a hit on what is older",
                "live selectors",
                "µs",
                [],
                {"a hit": [(one.selectors, one.hit) for one in purges]},
                options.svg,
            )
        if "misses" in parts:
            misses = growth_misses.measure(root / "misses", SIBLINGS, options.seconds)
            show(
                "Misses: CPU of the asking worker, both storing",
                "siblings",
                "µs",
                [
                    ["siblings", "µs", "p99 ms"],
                    *([f"{one.siblings}", f"{one.cpu:.0f}", f"{one.p99_seconds * 1e3:.1f}"] for one in misses),
                ],
                {"a miss": [(one.siblings, one.cpu) for one in misses]},
                options.svg,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
