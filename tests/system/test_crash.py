"""
kill -9 of a worker and of the whole node in the middle of fills and commits.

``EDGECACHE_CRASHES`` says how often (default 6, half of each kind), ``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.harness import Node
from tests.system.origins import Origin, text
from tests.system.traffic import Traffic, lost, reply_to

CRASHES = int(os.environ.get("EDGECACHE_CRASHES", "6"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))


class CrashTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-crash-")
        self.addCleanup(directory.cleanup)
        self.origin = Origin(reply_to).start()
        self.addCleanup(self.origin.stop)
        self.node = Node(Path(directory.name), self.origin.url, size="4GiB")
        self.addCleanup(self.node.end)
        self.random = random.Random(SEED)
        self.node.start()

    def _crash_often(self, crash: str, times: int) -> None:
        traffic = Traffic(self.node.url, random.Random(self.random.random()))
        for number in range(times):
            where = f"crash {number} of {times}, EDGECACHE_SEED={SEED}"
            traffic.start()
            try:
                traffic.wait_received(self.random.randrange(1, 12_000_000))
                getattr(self, crash)()
                # Back: clients that never stopped asking are answered again.
                traffic.wait_received(100_000)
            finally:
                traffic.stop()
            missing = lost(self.node.url, traffic.committed)
            self.assertEqual([], missing, f"{where}: lost of {len(traffic.committed)}")
            self.assertNotIn("Traceback", self.node.log, where)
        self.assertGreater(len(traffic.committed), 0, "no hit was seen, so nothing was shown")

    def _a_worker(self) -> None:
        victim = self.random.choice(self.node.worker_pids())
        processes.kill_now([victim])
        processes.until(self._all_workers_without(victim), "the dead worker's successor")
        self.node.require_alive()

    def _all_workers_without(self, victim: int):  # type: ignore[no-untyped-def]
        def look() -> bool:
            alive = self.node.worker_pids()
            return victim not in alive and len(alive) == self.node.workers

        return look

    def _everything(self) -> None:
        self.node.kill(self.random)
        self.node.start()

    def test_a_killed_worker_is_replaced_and_nothing_committed_is_lost(self) -> None:
        self._crash_often("_a_worker", max(1, CRASHES // 2))

    def test_a_killed_node_starts_again_and_nothing_committed_is_lost(self) -> None:
        self._crash_often("_everything", max(1, CRASHES - CRASHES // 2))


def _namespaces_allowed() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    tried = subprocess.run([unshare, "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@unittest.skipUnless(_namespaces_allowed(), "needs `unshare --pid`, which needs privileges here")
class ContainerRootTests(SynchronousTestCase):
    """The node is PID 1, as in a container, where every start has the same pid."""

    def test_killed_as_pid_1_it_starts_again_over_its_own_stale_pidfile(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-root-")
        self.addCleanup(directory.cleanup)
        root = Path(directory.name)
        unshare = str(shutil.which("unshare"))
        with Origin() as origin:
            origin.serve("/a", text("octets that stay"))
            node = Node(root, origin.url, prefix=(unshare, "--pid", "--fork", "--kill-child", "--mount-proc"))
            self.addCleanup(node.end)
            node.start()
            node.ask("/a")
            processes.until(lambda: node.ask("/a").hit, "the stored response")
            self.assertEqual("1", _pid_inside(node.twistd_pid()))

            processes.kill_now([node.twistd_pid()])
            node.kill()
            # What twistd would have left behind; pid 1 exists again, and it is the new node itself.
            (root / "twistd.pid").write_text("1")
            node.start()

            self.assertEqual("1", _pid_inside(node.twistd_pid()))
            again = node.ask("/a")
            self.assertTrue(again.hit, str(again))
            self.assertEqual(1, origin.count("/a"))
            # SIGTERM ends it as PID 1, too.
            node.stop()


def _pid_inside(pid: int) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1]
    return ""
