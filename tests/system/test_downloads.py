"""
Downloads by many kinds of clients over three real nodes: the counts are exact, and add up (DESIGN 10).

``EDGECACHE_DOWNLOADS`` says how many downloads, about a hundred by default.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import struct
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Together
from tests.system.contents import Artifact
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.origins import Origin, Reply
from tests.system.processes import kill_now, until

DOWNLOADS = int(os.environ.get("EDGECACHE_DOWNLOADS", "120"))
THREADS = 8

AGENTS = (
    'pip/24.0 {"installer":{"name":"pip","version":"24.0"},"python":"3.12.1","system":{"name":"Linux"},"ci":true}',
    'uv/0.5.11 {"installer":{"name":"uv","version":"0.5.11"},"python":"3.13.0","system":{"name":"Darwin"},"ci":null}',
    "poetry/1.8.3 CPython/3.12.3 Linux/6.8.0",
    "bandersnatch/6.5.0 (cpython 3.11.4-final0, Linux x86_64) (aiohttp 3.9.1)",
)
INSTALLERS = ("pip", "uv", "poetry", "bandersnatch")

# More than sockets hold on both sides: who leaves in its middle has not been sent all of it.
LARGE = "/packages/large-1.0-py3-none-any.whl"
LARGE_OCTETS = 24_000_000
FILES = {
    "/packages/tiny-1.0-py3-none-any.whl": 4_000,
    "/packages/small-1.0.tar.gz": 30_000,
    "/packages/medium-2.0-py3-none-any.whl": 400_000,
    LARGE: LARGE_OCTETS,
}
SMALLER = [path for path in FILES if path != LARGE]
KILLED, RESTARTED = "/packages/killed-1.0.tar.gz", "/packages/restarted-1.0.tar.gz"
ALSO_OCTETS = 40_000


class Visitor:
    """One client: an address and a User-Agent of its own, one connection at a time."""

    def __init__(self, node: Node, number: int, agent: str) -> None:
        parts = urlsplit(node.url)
        self._to = (str(parts.hostname), parts.port or 80)
        self._from = f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"
        self._agent = agent
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, path: str, method: str = "GET", **fields: str) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._to, timeout=120, source_address=(self._from, 0))
        headers = {"User-Agent": self._agent, **{name.replace("_", "-"): value for name, value in fields.items()}}
        self._connection.request(method, path, headers=headers)
        return self._connection.getresponse()

    def read(self, path: str, method: str = "GET", **fields: str) -> int:
        """:return: octets."""
        return len(self.ask(path, method, **fields).read())

    def leave(self) -> None:
        """At once, with what is not read yet: the other side hears of it by a reset."""
        assert self._connection is not None
        sock = self._connection.sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@define(eq=False)
class Ways:
    """How clients take a file. Each returns how many downloads that is."""

    path: str
    size: int
    chance: random.Random

    def whole(self, visitor: Visitor) -> int:
        assert visitor.read(self.path) == self.size
        return 1

    def twice(self, visitor: Visitor) -> int:
        return self.whole(visitor) + self.whole(visitor)

    def parts(self, visitor: Visitor) -> int:
        """A download manager: three ranges that overlap, in any order."""
        third = self.size // 3
        ranges = [f"bytes=0-{third + 5}", f"bytes={third}-{2 * third + 5}", f"bytes={2 * third}-"]
        self.chance.shuffle(ranges)
        for one in ranges:
            visitor.read(self.path, Range=one)
        return 1

    def poetry(self, visitor: Visitor) -> int:
        """The last octets, then all of it."""
        visitor.read(self.path, Range="bytes=-10000")
        return self.whole(visitor)

    def lazily(self, visitor: Visitor) -> int:
        """pip's fast-deps: the end, and what the end points to."""
        visitor.read(self.path, "HEAD")
        for first in (self.size - 2000, self.size - 3500):
            visitor.read(self.path, Range=f"bytes={first}-{first + 999}")
        return 0

    def nothing(self, visitor: Visitor) -> int:
        """What is no download."""
        visitor.read(self.path, "HEAD")
        visitor.read(self.path, If_None_Match='"1"')
        visitor.read(self.path + ".metadata")
        visitor.read(self.path + ".asc")
        visitor.read(self.path.replace("/packages/", "/missing/"))
        visitor.read(self.path, Range=f"bytes={self.size + 5}-")
        return 0


def resumed(visitor: Visitor, chance: random.Random) -> int:
    """A cut in the middle, then the rest."""
    response = visitor.ask(LARGE)
    got = len(response.read(chance.randrange(1000, 300_000)))
    visitor.leave()
    rest = visitor.ask(LARGE, Range=f"bytes={got}-", If_Range='"1"')
    assert rest.status == 206
    assert len(rest.read()) == LARGE_OCTETS - got
    return 1


def aborted(visitor: Visitor, chance: random.Random) -> int:
    visitor.ask(LARGE).read(chance.randrange(1000, 300_000))
    visitor.leave()
    return 0


@define(eq=False)
class Crowd:
    """
    Clients that take what chance says, on several threads.

    :ivar due: downloads by node, file and installer.
    """

    nodes: dict[str, Node]
    due: Counter[tuple[str, str, str]] = field(factory=Counter)
    _together: Together = field(factory=Together)

    def run(self, downloads: int) -> None:
        for thread in range(THREADS):
            self._together.start(self._visit, thread, downloads // THREADS)
        self._together.join(600)

    def _visit(self, thread: int, visits: int) -> None:
        chance = random.Random(thread)
        own: Counter[tuple[str, str, str]] = Counter()
        for number in range(visits):
            name = chance.choice(list(self.nodes))
            kind = chance.randrange(len(AGENTS))
            visitor = Visitor(self.nodes[name], thread * visits + number, AGENTS[kind])
            path, count = self._one(visitor, chance)
            visitor.close()
            own[name, path, INSTALLERS[kind]] += count
        self.due += own

    def _one(self, visitor: Visitor, chance: random.Random) -> tuple[str, int]:
        # Large ones cost most.
        if chance.random() < 0.02:
            return LARGE, chance.choice((resumed, aborted))(visitor, chance)
        path = chance.choice(SMALLER)
        ways = Ways(path, FILES[path], chance)
        way = chance.choice((ways.whole, ways.whole, ways.twice, ways.parts, ways.poetry, ways.lazily, ways.nothing))
        return path, way(visitor)


class DownloadsTests(SynchronousTestCase):
    fleet: Fleet
    origin: Origin

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-downloads-")
        cls.addClassCleanup(directory.cleanup)
        cls.origin = Origin().start()
        cls.addClassCleanup(cls.origin.stop)
        for path, size in FILES.items():
            cls.origin.serve(path, Reply(Artifact(path, size), etag='"1"'))
            cls.origin.serve(path + ".metadata", Reply(Artifact("metadata", 900), etag='"1"'))
            cls.origin.serve(path + ".asc", Reply(Artifact("asc", 300), etag='"1"'))
        for path in (KILLED, RESTARTED):
            cls.origin.serve(path, Reply(Artifact(path, ALSO_OCTETS), etag='"1"'))
        cls.fleet = Fleet(
            Path(directory.name),
            3,
            cls.origin.url,
            workers=2,
            profile="index",
            size="256MiB",
            siblings="lease_seconds = 3.0\npull_seconds = 0.2\ncall_seconds = 1.0",
            more='[index]\ndownload_log = "downloads.log"\nlog_pages = true',
        )
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()

    def rows(self, by: str) -> dict[str, list[dict[str, Any]]]:
        """What each node has counted."""
        found = {}
        for name, node in self.fleet.nodes.items():
            answer = node.admin("GET", f"/downloads?by={by}")
            self.assertEqual(200, answer.status, answer)
            document = orjson.loads(answer.content)
            self.assertEqual((name, False, 0), (document["node"], document["behind"], document["lost"]))
            found[name] = document["rows"]
        return found

    def counted(self) -> Counter[tuple[str, str, str]]:
        return Counter(
            {
                (name, f"/packages/{row['filename']}", row["installer"]): row["downloads"]
                for name, rows in self.rows("filename,installer").items()
                for row in rows
            }
        )

    def told_by_the_command(self, *flags: str) -> Any:
        """``edgecache downloads``, of all nodes."""
        words = ["downloads", "--json"]
        for node in self.fleet.nodes.values():
            words += ["--node", f"{node.admin_url},{node.data / 'admin.token'}"]
        ran = self.fleet.nodes["n1"].edgecache(*words, *flags)
        self.assertEqual(0, ran.returncode, ran.stderr)
        return orjson.loads(ran.stdout)

    def wait_counted(self, due: Counter[tuple[str, str, str]], *paths: str) -> None:
        """What a worker's turn still holds is written when that turn ends."""
        found: Counter[tuple[str, str, str]] = Counter()

        def all_there() -> bool:
            found.clear()
            found.update({key: count for key, count in self.counted().items() if key[1] in paths})
            return found.total() >= due.total()

        try:
            until(all_there, "all counts")
        finally:
            self.assertEqual({}, {key: (due[key], found[key]) for key in {*due, *found} if due[key] != found[key]})

    def test_the_counts_are_exact_on_every_node_and_merged(self) -> None:
        crowd = Crowd(self.fleet.nodes)
        crowd.run(DOWNLOADS)
        due = +crowd.due
        self.assertGreater(due.total(), DOWNLOADS // 2)
        self.wait_counted(due, *FILES)
        merged = self.told_by_the_command("--by", "filename,installer", "--node", self.fleet.nodes["n1"].admin_url)
        ours = [row["downloads"] for row in merged["rows"] if f"/packages/{row['filename']}" in FILES]
        self.assertEqual((["n1", "n2", "n3"], {}, due.total()), (merged["nodes"], merged["not_answered"], sum(ours)))
        for name in self.fleet.nodes:
            log = (self.fleet.configuration(name).parent / "downloads.log").read_text().splitlines()
            expected = sum(count for (node, _, _), count in due.items() if node == name)
            self.assertEqual(expected, sum(line.split("|")[3] in FILES for line in log))

    def test_a_worker_that_is_killed_loses_at_most_what_finished_in_that_turn(self) -> None:
        node = self.fleet.nodes["n1"]
        done = [0] * THREADS
        enough = DOWNLOADS // 2

        def visit(thread: int) -> None:
            visitor = Visitor(node, 60_000 + thread, AGENTS[0])
            while sum(done) < 2 * enough:
                try:
                    if visitor.read(KILLED) == ALSO_OCTETS:
                        done[thread] += 1
                except (OSError, http.client.HTTPException):
                    # The worker is gone: another connection, to one that lives.
                    visitor.close()
            visitor.close()

        together = Together()
        for thread in range(THREADS):
            together.start(visit, thread)
        until(lambda: sum(done) >= enough, "half of them")
        kill_now(node.worker_pids()[:1])
        together.join()
        key, total = ("n1", KILLED, "pip"), sum(done)
        until(lambda: self.counted()[key] >= total - THREADS, "the counts")
        until(lambda: not self.held(node), "no more events")
        self.assertLessEqual(self.counted()[key], total)

    def held(self, node: Node) -> bool:
        """Is there an event that is not counted yet?"""
        return bool(orjson.loads(node.admin("GET", "/downloads").content)["behind"])

    def test_a_node_that_is_killed_has_its_counts_after_the_next_start(self) -> None:
        node = self.fleet.nodes["n2"]
        for number in range(60):
            visitor = Visitor(node, 61_000 + number, AGENTS[1])
            self.assertEqual(ALSO_OCTETS, visitor.read(RESTARTED))
            visitor.close()
        node.kill()
        node.start()
        # One client, so at most one download was in a turn; nothing was waited for before the kill.
        self.assertIn(self.counted()["n2", RESTARTED, "uv"], (59, 60))
