"""
How long a purge takes until the last of several nodes has applied it, beside what the disk takes for two commits.

``python benchmarks/purge.py`` takes a minute. Nodes are real, on loopback, with certificates; each purge goes to the
next of them, over a connection that lasts, and ``wait=complete`` answers when every node has said that it has it on
disk and published: so a figure includes the way of that word, and of the answer. One after the other, so that no purge
shares a commit with another. After each, two serial synced commits of a small row are timed on the same disk; before
it, one request that does nothing.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lmdb
import orjson
from attrs import define, field

from benchmarks.tables import table
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.origins import Origin

# DESIGN 13: besides a round trip and the two commits.
_ALLOWED_MS = 5.0
_UNLIMITED = "[purge]\nper_second = 1000000.0\ntoken_per_second = 1000000.0"
# Connections are made, pages of the files are there.
_WARM_UP = 20
_ROW = bytes(300)


class BadRun(Exception):
    """A purge was not complete: its figure would be that of something else."""


@define(eq=False)
class Operator:
    """A client of one node's admin listener."""

    node: Node
    _connection: http.client.HTTPConnection = field(init=False)

    @_connection.default
    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.node.admin_url.removeprefix("http://"), timeout=60)

    def purge(self, number: int) -> float:
        """
        :return: milliseconds until it was complete.
        :raises BadRun: it was not.
        """
        content = orjson.dumps({"urls": [f"/simple/project-{number}/"]})
        fields = {"Authorization": f"Bearer {self.node.token}", "Content-Type": "application/json"}
        begun = time.perf_counter()
        self._connection.request("POST", "/purge?wait=complete&timeout=30", content, fields)
        response = self._connection.getresponse()
        document = orjson.loads(response.read())
        milliseconds = (time.perf_counter() - begun) * 1e3
        if document.get("state") != "complete":
            raise BadRun(f"{response.status} {document}")
        return milliseconds

    def nothing(self) -> float:
        """:return: milliseconds of a request that does nothing: the round trip of this client."""
        begun = time.perf_counter()
        self._connection.request("GET", "/healthz")
        self._connection.getresponse().read()
        return (time.perf_counter() - begun) * 1e3


class Disk:
    """An environment like control, beside the nodes' own."""

    def __init__(self, path: Path) -> None:
        self._env = lmdb.open(str(path), map_size=64 << 20)
        self._numbers = itertools.count()

    def two_commits(self) -> float:
        """:return: milliseconds."""
        begun = time.perf_counter()
        for _ in range(2):
            with self._env.begin(write=True) as txn:
                txn.put(b"%d" % (next(self._numbers) % 1000), _ROW)
        return (time.perf_counter() - begun) * 1e3


@define
class Figures:
    """Milliseconds of each."""

    purges: list[float] = field(factory=list)
    commits: list[float] = field(factory=list)
    nothing: list[float] = field(factory=list)


def measure(root: Path, nodes: int, workers: int, purges: int) -> Figures:
    """
    :raises BadRun: a purge was not complete.
    """
    figures = Figures()
    with Origin() as origin:
        fleet = Fleet(root, nodes, origin.url, workers=workers, more=_UNLIMITED)
        try:
            fleet.start()
            disk = Disk(root / "disk")
            operators = [Operator(node) for node in fleet.nodes.values()]
            for number in range(_WARM_UP + purges):
                operator = operators[number % nodes]
                nothing, purge, commits = operator.nothing(), operator.purge(number), disk.two_commits()
                if number >= _WARM_UP:
                    figures.nothing.append(nothing)
                    figures.purges.append(purge)
                    figures.commits.append(commits)
        finally:
            fleet.end()
    return figures


def share(values: list[float], part: float) -> float:
    """:return: the value that ``part`` of all are not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--purges", type=int, default=500, help="of each number of workers")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--directory", help="where the nodes' data lie: on the disk that is to be measured")
    options = parser.parse_args()
    rows = [["workers", "", "p50 ms", "p90 ms", "p99 ms", "most"]]
    ratios = []
    for workers in options.workers:
        with tempfile.TemporaryDirectory(prefix="edgecache-purge-", dir=options.directory) as name:
            figures = measure(Path(name), options.nodes, workers, options.purges)
        for label, values in (
            ("purge complete", figures.purges),
            ("two commits", figures.commits),
            ("no-op request", figures.nothing),
        ):
            rows.append([str(workers), label, *(f"{share(values, part):.2f}" for part in (0.5, 0.9, 0.99, 1.0))])
        allowed = share(figures.commits, 0.99) + share(figures.nothing, 0.99) + _ALLOWED_MS
        ratio = share(figures.purges, 0.99) / allowed
        ratios.append(f"--workers {workers}: p99 is {ratio:.2f} times the {allowed:.1f} ms that DESIGN 13 allows here")
    print(f"{options.nodes} nodes, {options.purges} purges one after the other, milliseconds\n")
    print(table(rows))
    print("\n" + "\n".join(ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
