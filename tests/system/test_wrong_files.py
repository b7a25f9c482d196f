"""pip, and a file of which one of two upstreams has one octet flipped (must show 4 of the Python index)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.indexpaths import artifact_path
from tests.system.harness import Node
from tests.system.index_nodes import index_node, site
from tests.system.installing import PIP, Pip, missing
from tests.system.packages import Package, wheel
from tests.system.serial_index import SerialIndex

SMALL = wheel("small", "1.0", padding=200_000)
LARGE = wheel("large", "1.0", padding=3_000_000)
BRIEF = Pip(PIP.requirement, ("--retries", "0", "--resume-retries", "1"))


def flipped(package: Package) -> bytes:
    """Its content with one bit of one octet changed, in the middle."""
    middle = len(package.content) // 2
    octet = package.content[middle] ^ 1
    return package.content[:middle] + bytes((octet,)) + package.content[middle + 1 :]


class WrongFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-wrong-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.wrong, self.right = SerialIndex(), SerialIndex()
        for index in (self.wrong, self.right):
            index.upload(SMALL)
            index.upload(LARGE)
            index.start()
            self.addCleanup(index.stop)
        for package in (SMALL, LARGE):
            self.wrong.serve_instead(package, flipped(package))

    def start(self, *indexes: SerialIndex) -> Node:
        node = index_node(self.root / "node", site("", *(index.url for index in indexes), policy="ordered"))
        self.addCleanup(node.end)
        return node.start()

    def logged(self, node: Node, package: Package) -> bool:
        """One line says what was expected and what came."""
        return any(package.sha256 in line and package.filename in line for line in node.log.splitlines())

    def test_pip_gets_the_right_file_from_the_other_upstream(self) -> None:
        """Above 1 MiB part of the wrong one has been sent: pip comes again by itself."""
        node = self.start(self.wrong, self.right)
        for package in (SMALL, LARGE):
            home = self.root / package.project
            ran, target = PIP.install(home, f"{node.url}/simple/", package.project)
            self.assertEqual(0, ran.returncode, f"{ran.stdout}{ran.stderr}{node.log[-3000:]}")
            self.assertEqual([], missing(target, [package]))
            self.assertTrue(self.logged(node, package), node.log)
            path = f"/packages/{package.project}/{package.filename}"
            self.assertGreaterEqual(self.wrong.origin.count(path), 1, "nobody was wrong")

    def test_with_the_wrong_one_alone_nobody_completes_it(self) -> None:
        node = self.start(self.wrong)
        for package in (SMALL, LARGE):
            home = self.root / package.project
            ran, target = BRIEF.install(home, f"{node.url}/simple/", package.project)
            self.assertNotEqual(0, ran.returncode, f"{ran.stdout}{ran.stderr}")
            self.assertFalse(list(target.glob("*")) if target.exists() else [])
            self.assertTrue(self.logged(node, package), node.log)
            # Nothing was stored: who asks again makes the node ask again.
            path = f"/packages/{package.project}/{package.filename}"
            before = self.wrong.origin.count(path)
            digest = bytes.fromhex(package.sha256)
            answer = node.ask(artifact_path(package.project.encode(), digest, package.filename.encode()).decode())
            self.assertFalse(answer.status == 200 and answer.complete, answer)
            self.assertGreater(self.wrong.origin.count(path), before)
