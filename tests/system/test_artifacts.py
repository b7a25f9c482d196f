"""Real nodes: a file with one flipped octet is never complete at a client, and siblings have what its page names."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.indexpaths import artifact_path
from tests.system.clients import Answer
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.index_nodes import index_node, site
from tests.system.packages import Package, wheel
from tests.system.processes import until
from tests.system.serial_index import SerialIndex

SMALL = wheel("small", "1.0")
LARGE = wheel("large", "1.0", padding=3_000_000)
LATE = wheel("late", "1.0")


def flipped(package: Package) -> bytes:
    """Its content with one octet in the middle changed."""
    middle = len(package.content) // 2
    return package.content[:middle] + bytes((package.content[middle] ^ 1,)) + package.content[middle + 1 :]


def path(package: Package) -> str:
    digest = bytes.fromhex(package.sha256)
    return artifact_path(package.project.encode(), digest, package.filename.encode()).decode()


class IndexCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-files-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)

    def index(self, *, file_host: str = "") -> SerialIndex:
        index = SerialIndex(file_host=file_host).start()
        self.addCleanup(index.stop)
        index.upload(SMALL, LARGE)
        return index

    def start(self, *indexes: SerialIndex) -> Node:
        table = site("", *(index.url for index in indexes), policy="ordered")
        node = index_node(self.root / "node", table)
        self.addCleanup(node.end)
        return node.start()

    def assertFile(self, package: Package, answer: Answer) -> None:
        expected = (200, True, package.sha256)
        self.assertEqual(expected, (answer.status, answer.complete, hashlib.sha256(answer.content).hexdigest()))


class WrongTests(IndexCase):
    """Must show 4 of the Python index: one of two upstreams serves a file with one flipped octet."""

    def test_the_client_gets_the_right_file_a_large_one_on_its_own_retry(self) -> None:
        bad, good = self.index(), self.index()
        for package in (SMALL, LARGE):
            bad.serve_instead(package, flipped(package))
        node = self.start(bad, good)
        self.assertFile(SMALL, node.ask(path(SMALL)))
        first = node.ask(path(LARGE))
        self.assertFalse(first.complete)
        rest = {"Range": f"bytes={len(first.content)}-", "If-Range": first.fields["etag"]}
        self.assertFile(LARGE, node.ask(path(LARGE), fields=rest))
        until(lambda: node.ask(path(LARGE)).hit, "a hit")
        self.assertFile(LARGE, node.ask(path(LARGE)))
        came = hashlib.sha256(flipped(LARGE)).hexdigest()
        self.assertIn(f"sha-256 {LARGE.sha256} was expected, {came} came", node.log)
        self.assertIn(b"edgecache_wrong_contents_total", node.admin("GET", "/metrics").content)

    def test_with_only_the_bad_one_nobody_ever_completes_it_and_nothing_is_stored(self) -> None:
        bad = self.index()
        for package in (SMALL, LARGE):
            bad.serve_instead(package, flipped(package))
        node = self.start(bad)
        for package in (SMALL, LARGE):
            for _ in range(3):
                answer = node.ask(path(package))
                self.assertTrue(answer.status == 503 or not answer.complete, answer.status)
            stored = node.ask(path(package), fields={"Cache-Control": "only-if-cached"})
            self.assertEqual(504, stored.status)
            self.assertIn(f"sha-256 {package.sha256} was expected", node.log)


class LinkTests(IndexCase):
    def test_a_file_on_another_host_is_resolved_watched_and_fetched_there(self) -> None:
        index = self.index(file_host="127.0.0.2")
        node = self.start(index)
        self.assertFile(LARGE, node.ask(path(LARGE)))
        self.assertIn(index.file_origin.url.encode(), node.admin("GET", "/status").content)


class FleetTests(IndexCase):
    """The home has the file by its path, and verifies it like anyone (DESIGN 9, 10)."""

    def test_the_fleet_fetches_a_file_once_and_serves_it_when_the_origin_is_gone(self) -> None:
        index = self.index()
        fleet = Fleet(self.root / "fleet", 2, index.url, profile="index")
        self.addCleanup(fleet.end)
        first, second = fleet.start().nodes.values()
        for package in (SMALL, LARGE):
            self.assertFile(package, first.ask(path(package)))
            self.assertFile(package, second.ask(path(package)))
            asked = [seen for seen in index.origin.seen if seen.target.endswith(package.filename)]
            self.assertEqual(1, len(asked), package.filename)
        index.upload(LATE)
        self.assertFile(LATE, first.ask(path(LATE)))
        index.stop()
        self.assertFile(LATE, second.ask(path(LATE)))
