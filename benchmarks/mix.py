"""
The mix of a package index (FIELD 3) on a node, nginx, Varnish, devpi-server and proxpi, alternating in one run.

``python benchmarks/mix.py`` takes about six minutes, most of which is filling the slower ones; ``--quick`` three. Each
side has one CPU, all its processes together; the client, the origin and the purges have the others. 46 % of requests
are pages of 10 to 500 kB, half of them with the entity tag of what the client has; 54 % are files of 1.4 MB on average:
metadata, wheels from 11 kB to 60 MB, some of 120 and 150 MB. Projects by Zipf; 1 % are files that were never asked
for. Meanwhile pages change and are purged (``--purges`` a second); after each purge that is done, the page is asked for
eight times at once, half with gzip and half without: what is older than the purge is stale. How each side is set up:
``indexes.py``.

CPU per request and megabyte is of all processes of a side. Rates and latencies are of a closed loop with so many
connections: they need a quiet machine with at least two cores.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import Factory, define

from benchmarks.corpus import PROJECTS, Corpus, CorpusOrigin, Project
from benchmarks.indexes import PLAIN_FIELDS, SIDES, IndexSide, missing
from benchmarks.load import PAGE_FIELDS, BadRun
from benchmarks.mixload import THOUSANDS, Driver, MixLoad, Targets, content_of, order, pinned
from benchmarks.peers import leave_at_termination
from benchmarks.tables import table, told
from tests.system import processes
from tests.system.clients import ask

OURS = "edgecache"
LOOKS = 8
"""At a page after each purge."""

MIB = 1 << 20


@define(eq=False)
class Purges:
    """
    Uploads and purges during one run.

    :ivar took: seconds of each purge until the side said that it was done.
    :ivar stale: pages older than a purge that was done before they were asked for.
    """

    corpus: Corpus
    side: IndexSide
    a_second: float
    chance: random.Random
    took: list[float] = Factory(list)
    looked: int = 0
    stale: int = 0
    touched: list[Project] = Factory(list)
    _failure: BaseException | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """:raises Exception: what ended the thread."""
        stop = threading.Event()
        thread = threading.Thread(target=self._until, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _until(self, stop: threading.Event) -> None:
        try:
            while self.a_second > 0 and not stop.wait(1 / self.a_second):
                self._purge(self.chance.choices(self.corpus.projects, self.corpus.popularity)[0])
        except (OSError, HTTPException, AssertionError, BadRun) as error:
            # The one who waits for the thread is told.
            self._failure = error

    def _purge(self, project: Project) -> None:
        revision = self.corpus.publish(project)
        self.touched.append(project)
        began = time.perf_counter()
        self.side.purge(project.name)
        self.took.append(time.perf_counter() - began)
        for look in range(LOOKS):
            fields = PLAIN_FIELDS if look % 2 else PAGE_FIELDS
            answer = ask(self.side.url, self.side.page(project.name), fields=fields)
            if answer.status != 200:
                raise BadRun(f"{self.side.name}: {answer.status} for {project.name} after its purge")
            self.looked += 1
            self.stale += project.revision_of(content_of(answer)) < revision


@define(eq=False)
class Measured:
    """
    One side with all its rounds.

    :ivar asked: requests that reached the origin, in each round.
    :ivar memory: octets of its own, at the end.
    """

    side: IndexSide
    driver: Driver
    first_memory: int
    loads: list[MixLoad] = Factory(list)
    asked: list[int] = Factory(list)
    purges: list[Purges] = Factory(list)
    memory: int = 0

    def values(self, figure: str) -> list[float]:
        return [_figure(figure, load) for load in self.loads]


def _figure(figure: str, load: MixLoad) -> float:
    match figure:
        case "rate":
            return load.requests / load.seconds
        case "cpu":
            return load.cpu_seconds / load.requests * 1e6
        case "octet":
            return load.cpu_seconds / load.octets * 1e9
        case "octets":
            return load.octets / load.seconds / 1e6
        case "each":
            return load.octets / load.requests / 1e6
        case "p50":
            return load.p50_seconds * 1e3
        case "p99":
            return load.p99_seconds * 1e3
        case "large p50":
            return load.large_p50_seconds * 1e3
        case "large p99":
            return load.large_p99_seconds * 1e3
        case "unmodified":
            return load.unmodified / load.requests * 100
        case "generator":
            return load.generator_seconds / load.seconds * 100
    raise ValueError(figure)


@define(eq=False)
class Mix:
    """All of it in one directory."""

    root: Path
    corpus: Corpus
    origin: CorpusOrigin
    serving: set[int]
    found: list[Measured] = Factory(list)

    def start(self, name: str, ends: ExitStack) -> None:
        """Start a side and ask it for everything once; one that cannot be had is left out with a word about it."""
        lacking = missing(name)
        if lacking:
            print(f"{name} is left out: {lacking} is not installed", flush=True)
            return
        began = time.perf_counter()
        try:
            with pinned(self.serving):
                side = SIDES[name](self.root / name, self.origin.url)
        except unittest.SkipTest as reason:
            print(f"{name} is left out: {reason}", flush=True)
            return
        ends.callback(side.stop)
        memory = processes.anonymous_octets(side.pids())
        targets = Targets(side)
        for project in self.corpus.all():
            targets.learn(project)
        for project in (*self.corpus.projects, *self.corpus.giants):
            targets.warm(project)
        cold = [file for project in self.corpus.cold for file in project.files]
        driver = Driver(targets, order(self.corpus), cold, self.root / f"{name}.load")
        self.found.append(Measured(side, driver, memory))
        print(
            f"{name}: started and filled in {time.perf_counter() - began:.0f} s; "
            f"{len(targets.tags)} of {len(self.corpus.all())} pages have a tag that it answers 304 to",
            flush=True,
        )

    def round(self, number: int, *, connections: int, seconds: int, purges: float) -> None:
        """One run of each; who begins takes turns."""
        turn = number % len(self.found)
        for each in self.found[turn:] + self.found[:turn]:
            work = Purges(self.corpus, each.side, purges, random.Random(f"purges {number}"))
            before = self.origin.requests()
            with work.running():
                load = each.driver.run(number * 1000 % (THOUSANDS * 1000), connections=connections, seconds=seconds)
            each.loads.append(load)
            each.asked.append(self.origin.requests() - before)
            each.purges.append(work)
            for project in set(work.touched):
                each.driver.targets.learn(project)
            each.memory = processes.anonymous_octets(each.side.pids())
            print(f"round {number + 1} {each.side.name}: {_figure('rate', load):.0f} requests/s", flush=True)


def rows_of(found: list[Measured]) -> list[list[str]]:
    ours = next((each for each in found if each.side.name == OURS), None)
    rows = [HEAD]
    for each in found:
        took = sorted(second for work in each.purges for second in work.took)

        def ratio(figure: str, each: Measured = each) -> str:
            if ours is None:
                return "-"
            pairs = zip(ours.values(figure), each.values(figure), strict=True)
            return f"{statistics.median(a / b for a, b in pairs):.2f}"

        def median(figure: str, digits: int = 0, each: Measured = each) -> str:
            return f"{statistics.median(each.values(figure)):.{digits}f}"

        rows.append(
            [
                each.side.name,
                *(median("rate"), ratio("rate"), median("cpu"), ratio("cpu"), median("octet", 2), ratio("octet")),
                *(median("octets"), median("each", 2), median("unmodified")),
                *(median("p50", 1), median("p99", 1), median("large p50", 1), median("large p99")),
                f"{sum(each.asked) / sum(load.requests for load in each.loads) * 100:.1f}",
                str(sum(load.failed for load in each.loads)),
                f"{statistics.median(took) * 1e3:.0f} / {took[-1] * 1e3:.0f}" if took else "-",
                f"{sum(work.stale for work in each.purges)} of {sum(work.looked for work in each.purges)}",
                f"{each.memory / MIB:.0f} (+{(each.memory - each.first_memory) / MIB:.0f})",
                median("generator"),
            ]
        )
    return rows


HEAD = [
    "",
    *("req/s", "ours to it", "µs/req", "ours to it", "ns/octet", "ours to it", "MB/s", "MB/req", "304 %"),
    *("p50 ms", "p99", "large p50 ms", "p99"),
    *("to origin %", "failed", "purge ms, p50 / worst", "stale after", "MiB", "client %"),
]


def verdicts(found: list[Measured]) -> list[tuple[bool, str]]:
    ours = next((each for each in found if each.side.name == OURS), None)
    if ours is None:
        return []
    stale, failed = sum(work.stale for work in ours.purges), sum(load.failed for load in ours.loads)
    looked = sum(work.looked for work in ours.purges)
    return [
        (stale == 0, f"ours served {stale} stale pages of {looked} after a purge (goal: none)"),
        (failed == 0, f"ours failed {failed} requests (goal: none)"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds of 3 s, a third of the projects")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6, help="of each run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--projects", type=int, default=PROJECTS)
    parser.add_argument("--purges", type=float, default=2.0, help="a second; 0: none")
    parser.add_argument("--sides", default=",".join(SIDES), help="of " + ", ".join(SIDES))
    parser.add_argument("--cpus", action="store_true", help="let all share all CPUs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.projects = 2, 3, 100
    leave_at_termination()
    cpus = os.sched_getaffinity(0)
    serving = {min(cpus)} if len(cpus) > 1 and not options.cpus else cpus

    with tempfile.TemporaryDirectory(prefix="edgecache-mix-") as name, ExitStack() as ends:
        root = Path(name)
        corpus = Corpus(root / "corpus", options.projects)
        if serving != cpus:
            ends.enter_context(pinned(cpus - serving))
        origin = CorpusOrigin(root / "origin", corpus)
        ends.callback(origin.stop)
        mix = Mix(root, corpus, origin, serving)
        for side in options.sides.split(","):
            mix.start(side, ends)
        for number in range(options.rounds):
            mix.round(number, connections=options.connections, seconds=options.seconds, purges=options.purges)
        found = mix.found

    print(
        f"\nmedians of {options.rounds} rounds of {options.seconds} s, {options.connections} connections, "
        f"{options.projects} projects, {options.purges} purges a second\n"
    )
    print(table(rows_of(found)), end="\n\n")
    for each in found:
        if each.side.memory:
            print(f"{each.side.name}'s memory holds {each.side.memory}")
        if each.driver.exhausted:
            print(f"{each.side.name} was so fast that cold files were asked for again: fewer than 1 % were misses")
    return told(verdicts(found))


if __name__ == "__main__":
    sys.exit(main())
