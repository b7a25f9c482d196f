"""
A write of LMDB's head that fails, after which LMDB opens no transaction in that process any more: another takes over.

A disk does this, or a file system that writes nothing in place and is full. Here a descriptor takes nothing any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.store.lmdbpages import LEAF, PAGE, Tree
from tests.system.clients import Answer
from tests.system.harness import Node
from tests.system.meddling import meddled
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import check, reply_to

KNOWN = "/packages/700/known.whl"

# On SIGUSR2, heads of the environment that the file "heads" names are written by a descriptor for reading.
_NO_HEADS = """
import fcntl, os, signal
def take_away(*_):
    named = open("heads").read() + "/data.mdb"
    for number in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if path.endswith(named) and fcntl.fcntl(int(number), fcntl.F_GETFL) & os.O_DSYNC:
            reading = os.open(path, os.O_RDONLY)
            os.dup2(reading, int(number), inheritable=False)
            os.close(reading)
signal.signal(signal.SIGUSR2, take_away)
"""


class GivenUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-given-up-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        origin = Origin(reply_to).start()
        self.addCleanup(origin.stop)
        self.node = Node(self.root, origin.url, prefix=meddled(self.root / "first", _NO_HEADS))
        self.addCleanup(self.node.end)
        self.node.start()
        until(lambda: self.ask(KNOWN).hit, KNOWN)

    def ask(self, target: str) -> Answer:
        """:return: its answer, which is whole and right."""
        answer = self.node.ask(target)
        self.assertTrue(check(target, answer), f"{answer}\n{self.node.log[-2000:]}")
        return answer

    def take_away(self, name: str, *pids: int) -> None:
        (self.root / "heads").write_text(name)
        for pid in pids:
            os.kill(pid, signal.SIGUSR2)

    def test_in_a_worker_that_is_replaced_the_other_is_not_and_nobody_is_answered_wrongly(self) -> None:
        node, leader, (first, second) = self.node, self.node.twistd_pid(), self.node.worker_pids()
        self.take_away("small", first)
        targets = [f"/packages/{size}/new-{number}.whl" for number in range(4) for size in (700, 9_000)]

        def replaced() -> bool:
            for target in (KNOWN, *targets):
                self.ask(target)
            return len(node.worker_pids()) == 2 and first not in node.worker_pids()

        until(replaced, "another worker")
        for target in (KNOWN, *targets):
            until(lambda target=target: self.ask(target).hit, target)  # type: ignore[misc]
        self.assertEqual(leader, node.twistd_pid())
        self.assertIn(second, node.worker_pids())
        self.assertIn("LMDB has given up small in worker ", node.log)
        self.assertNotIn("Traceback", node.log)

    def test_in_the_node_process_the_node_ends_to_begin_anew_and_has_every_acknowledged_purge(self) -> None:
        node = self.node
        node.purge(urls=[node.url + "/x"], id="kept")
        self.take_away("control", node.twistd_pid())
        until(lambda: self.refused(), "a purge that is refused")

        until(node.has_failed, "its end")
        self.assertIn("LMDB has given up control", node.log)
        node.start()
        self.assertTrue(self.ask(KNOWN).hit)
        self.assertEqual(200, node.admin("GET", "/purge/kept").status)
        self.assertEqual(200, node.purge(urls=[node.url + "/x"], id="later").status)

    def test_a_control_that_was_damaged_is_left_behind_and_purges_are_taken_again(self) -> None:
        node = self.node
        node.purge(all=True)
        with (node.data / "control" / "data.mdb").open("r+b") as file:
            for number in Tree.of(Path(file.name)).some("epochs", LEAF):
                os.pwrite(file.fileno(), bytes(PAGE), number * PAGE)
        with contextlib.suppress(OSError):
            # One that is acknowledged all the same holds: the next life uses nothing of what is stored.
            node.admin("POST", "/purge", {"all": True})
        until(node.has_failed, "its end")
        self.assertIn("control is damaged, and moved aside at the next start", node.log)
        node.start()
        self.assertFalse(self.ask(KNOWN).hit)
        node.purge(all=True)

    def refused(self) -> bool:
        """A purge is 503; or it is too late for that, and nobody answers."""
        try:
            return self.node.admin("POST", "/purge?wait=durable", {"urls": [self.node.url + "/x"]}).status == 503
        except OSError:
            return True
