"""
What came of a large content before its client left, or the node went down, is never fetched twice.

``EDGECACHE_PARTIAL_OCTETS`` sets the size of the content (default 48 MiB).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Download
from tests.system.contents import Artifact, Octets
from tests.system.harness import Node, environment
from tests.system.origins import Hold, Origin, Reply
from tests.system.packages import wheel
from tests.system.processes import until

MIB = 1 << 20
SIZE = int(os.environ.get("EDGECACHE_PARTIAL_OCTETS", 48 * MIB))
CAME = SIZE // 3
TARGET = "/large.iso"


def counted(node: Node, name: str) -> float:
    """:return: a counter, of all workers together."""
    lines = node.admin("GET", "/metrics").content.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"edgecache_{name}_total{{"))


class PartialCase(SynchronousTestCase):
    profile = "plain"
    # Alone, a worker sees at once that its client has left, also while nothing comes.
    workers = 1

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-partial-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)
        self.hold = Hold(CAME)
        hasty = self.root / "hasty.toml"
        hasty.write_text("[limits]\ndrain_seconds = 0.2\n")
        size, arguments = f"{4 * SIZE // MIB + 64}MiB", ("--config", str(hasty))
        self.node = Node(
            self.root, self.origin.url, profile=self.profile, workers=self.workers, size=size, arguments=arguments
        )
        self.addCleanup(self.hold.release)
        self.addCleanup(self.node.end)
        self.node.start()


class PlainTests(PartialCase):
    def setUp(self) -> None:
        super().setUp()
        self.artifact = Artifact("large.iso", SIZE)
        self.origin.serve(TARGET, Reply(self.artifact, etag='"large"', hold=self.hold))

    def begun(self) -> Download:
        """:return: somebody who has got all that the origin has sent so far."""
        download = Download(self.node.url, TARGET, self.artifact)
        self.addCleanup(download.close)
        download.read_up_to(CAME)
        return download

    def test_after_a_client_that_left_a_restart_and_kill_9_only_the_rest_is_fetched(self) -> None:
        self.begun().reset()
        until(lambda: counted(self.node, "stored_parts"), "a part in the store")
        self.node.stop()
        self.node.start()
        self.node.kill()
        self.node.start()
        within = self.node.ask(TARGET, fields={"Range": f"bytes=1000-{MIB}"})
        self.assertEqual((206, True), (within.status, within.hit))
        self.assertEqual(self.artifact.whole()[1000 : MIB + 1], within.content)
        self.assertEqual(1, self.origin.count(TARGET))
        self.require_only_the_rest()
        self.assertEqual(2, self.origin.count(TARGET))

    def test_what_was_on_its_way_when_the_node_was_stopped_goes_on_after_its_start(self) -> None:
        """Its clients are cut at the end of the drain; what came stays."""
        self.begun()
        self.node.stop()
        self.node.start()
        self.require_only_the_rest()

    def require_only_the_rest(self) -> None:
        """The next client gets exactly the content, and the origin sends what had not come."""
        self.hold.release()
        before = counted(self.node, "fetched_bytes")
        download = Download(self.node.url, TARGET, self.artifact)
        download.read_all()
        self.assertTrue(download.exact, str(download))
        rest = self.origin.seen[-1]
        came = int(rest.fields["range"].removeprefix("bytes=").removesuffix("-")) + 4096
        self.assertEqual('"large"', rest.fields["if-range"])
        self.assertGreater(came, CAME - 4 * MIB)
        self.assertEqual(SIZE - came, counted(self.node, "fetched_bytes") - before)
        until(lambda: self.node.ask(TARGET, method="HEAD").hit, "the whole in the store")


class IndexTests(PartialCase):
    profile = "index"
    workers = 2

    def test_pip_is_killed_the_node_restarted_and_the_next_pip_gets_the_wheel_for_its_rest(self) -> None:
        package = wheel("large", "1.0", padding=SIZE)
        page = f'<!DOCTYPE html><a href="/{package.filename}#sha256={package.sha256}">{package.filename}</a>'
        self.origin.serve("/simple/large/", Reply(Octets(page.encode()), fields=(("Content-Type", "text/html"),)))
        self.origin.serve(f"/{package.filename}", Reply(Octets(package.content), etag='"wheel"', hold=self.hold))
        first = self.pip("first")
        self.hold.wait_reached()
        first.kill()
        first.wait()
        self.node.stop()
        self.node.start()
        self.hold.release()
        before = counted(self.node, "fetched_bytes")
        self.assertEqual(0, self.pip("second").wait())
        self.assertEqual(package.content, (self.root / "second" / package.filename).read_bytes())
        rest = self.origin.seen[-1]
        came = int(rest.fields["range"].removeprefix("bytes=").removesuffix("-")) + 4096
        self.assertGreater(came, CAME - 4 * MIB)
        # The page is asked for again as well, and it is short.
        self.assertLess(counted(self.node, "fetched_bytes") - before - (len(package.content) - came), 4096)

    def pip(self, name: str) -> subprocess.Popen[bytes]:
        """A download by pip, which has nothing from before."""
        words = ["download", "--no-input", "--no-deps", "--no-cache-dir", "--retries", "0"]
        words += ["--dest", str(self.root / name), "--index-url", f"{self.node.url}/simple/", "large"]
        process = subprocess.Popen([sys.executable, "-m", "pip", *words], env=environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process
