"""
One large artifact, two workers, three clients at once, one of which reads slowly and leaves.

``EDGECACHE_LARGE_OCTETS`` sets the size (default 256 MiB), ``EDGECACHE_SLOW_SECONDS`` how long the slow one stays;
``benchmarks/large.py`` does the same at full length and prints rates.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.clients import Download, Together
from tests.system.contents import Artifact
from tests.system.harness import Node
from tests.system.origins import Origin, Reply
from tests.system.watching import MemoryWatch

MIB = 1 << 20
SIZE = int(os.environ.get("EDGECACHE_LARGE_OCTETS", 256 * MIB))
SLOW_SECONDS = float(os.environ.get("EDGECACHE_SLOW_SECONDS", "3"))
GROWTH_LIMIT = 64 * MIB
TARGET = "/packages/large.whl"


class LargeArtifactTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-large-")
        self.addCleanup(directory.cleanup)
        self.artifact = Artifact("large.whl", SIZE)
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)
        self.origin.serve(TARGET, Reply(self.artifact, etag='"large-1"'))
        self.node = Node(Path(directory.name), self.origin.url, size=f"{4 * SIZE // MIB + 256}MiB", cold=True)
        self.addCleanup(self.node.end)
        self.node.start()

    def test_three_clients_cost_one_request_and_little_memory_and_the_slow_one_disturbs_nobody(self) -> None:
        started_with = processes.anonymous_octets(self.node.family())
        enough = threading.Event()
        slow = Download(self.node.url, TARGET, self.artifact, receive_buffer=64 << 10)
        fast = [Download(self.node.url, TARGET, self.artifact) for _ in range(2)]
        staying, leaving = Together(), Together()
        with MemoryWatch(self.node) as watch:
            # The slow one comes first: it must not set the pace of the fill.
            leaving.start(slow.read_slowly, MIB, enough)
            processes.until(lambda: slow.position > 0, "the slow client's first octet")
            timer = threading.Timer(SLOW_SECONDS, enough.set)
            timer.start()
            for download in fast:
                staying.start(download.read_all)
            staying.join()
            still_slow = slow.position
            leaving.join()
            # The record's commit may come a moment after the last octet.
            processes.until(lambda: self.node.ask(TARGET, method="HEAD").hit, "the stored artifact")
            late = Download(self.node.url, TARGET, self.artifact)
            late.read_all()

        for download in [*fast, late]:
            self.assertTrue(download.exact, str(download))
        self.assertEqual(None, slow.wrong_at, str(slow))
        self.assertLess(still_slow, SIZE)
        self.assertEqual(1, self.origin.count(TARGET))
        self.assertIn("hit", late.cache_status)
        grown = watch.most - started_with
        self.assertLess(grown, GROWTH_LIMIT, f"RssAnon grew by {grown / MIB:.1f} MiB from {started_with / MIB:.1f} MiB")
