"""SIGSTOP and SIGKILL of each kind of process, one after the other, while clients ask and operators purge."""

from __future__ import annotations

import os
import random
import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.nursery import NAME
from tests.system import processes
from tests.system.clients import Answer, ask
from tests.system.harness import Node
from tests.system.meddling import meddled
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import Traffic, artifact_of, lost, reply_to

SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))
KNOWN = "/packages/8192/known.whl"


class StoppedTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-stopped-")
        self.addCleanup(directory.cleanup)
        self.origin = Origin(reply_to).start()
        self.addCleanup(self.origin.stop)
        self.node = Node(Path(directory.name), self.origin.url, size="4GiB")
        self.addCleanup(self.node.end)
        self.node.start()
        until(lambda: self.node.ask(KNOWN).hit, KNOWN)
        self.traffic = Traffic(self.node.url, random.Random(SEED))
        self.acknowledged: list[str] = []

    def nursery(self) -> int:
        return next(pid for pid in self.node.family() if processes.name(pid) == NAME.decode())

    def is_served(self, seconds: float = 3.0) -> bool:
        """By every worker: its socket is drawn by the kernel. Within so many seconds each."""
        try:
            answers: list[Answer] = [ask(self.node.url, KNOWN, seconds=seconds) for _ in range(12)]
        except OSError:
            return False
        return all(answer.content == artifact_of(KNOWN).whole() for answer in answers)

    def purge(self, number: int) -> None:
        purge_id = f"purge-{number}"
        self.node.purge(urls=[f"{self.node.url}/packages/700/purged-{number}"], id=purge_id)
        self.acknowledged.append(purge_id)

    def test_whatever_kind_is_killed_or_stopped_the_node_comes_back_by_itself(self) -> None:
        node, traffic = self.node, self.traffic
        traffic.start()
        try:
            traffic.wait_received(1_000_000)
            self.purge(0)
            # All workers go with it, and come back from a new one.
            before = set(node.worker_pids())
            processes.kill_now([self.nursery()])
            until(lambda: len(set(node.worker_pids()) - before) == 2, "other workers, from another nursery")
            until(self.is_served, "answers")
            self.purge(1)
            # The node process stands still: workers serve on.
            leader = node.twistd_pid()
            os.kill(leader, signal.SIGSTOP)
            workers = node.worker_pids()
            self.assertTrue(self.is_served(seconds=60.0))
            traffic.wait_received(1_000_000)
            os.kill(leader, signal.SIGCONT)
            self.purge(2)
            self.assertEqual(workers, node.worker_pids(), "nobody is killed for what the node process missed")
            # One worker stands still, and what it came from, too.
            victim = workers[0]
            os.kill(self.nursery(), signal.SIGSTOP)
            os.kill(victim, signal.SIGSTOP)
            self.purge(3)
            until(lambda: victim not in node.worker_pids() and len(node.worker_pids()) == 2, "another worker")
            until(self.is_served, "answers")
            self.assertIn(workers[1], node.worker_pids())
            # The node process dies, and with it all others, whatever they are about.
            os.kill(node.worker_pids()[0], signal.SIGSTOP)
            processes.kill_now([leader])
            until(lambda: not [pid for pid in workers if pid in node.family()], "the end of all")
            node.kill()
            node.start()
            until(self.is_served, "answers")
        finally:
            traffic.stop()
        self.assertEqual([], lost(node.url, traffic.committed), f"EDGECACHE_SEED={SEED}")
        for purge_id in self.acknowledged:
            self.assertEqual(200, node.admin("GET", f"/purge/{purge_id}").status, purge_id)
        self.assertNotIn("Traceback", node.log)


# Whoever looks the name up asks this process to stop, and has no answer until the file "answer" is there.
_NO_ANSWER = """
import os, signal, socket, time
real = socket.getaddrinfo
def waiting(host, *more, **named):
    if host == "origin.example":
        os.kill(os.getpid(), signal.SIGTERM)
        while not os.path.exists("answer"):
            time.sleep(0.01)
        host = "127.0.0.1"
    return real(host, *more, **named)
socket.getaddrinfo = waiting
"""


class StartingTests(SynchronousTestCase):
    def test_one_that_is_to_stop_while_names_are_looked_up_first_stops_and_has_no_workers(self) -> None:
        """Whether name servers answer just then, or never."""
        for answering in (True, False):
            directory = tempfile.TemporaryDirectory(prefix="edgecache-names-")
            self.addCleanup(directory.cleanup)
            root = Path(directory.name)
            node = Node(root, "http://origin.example", prefix=meddled(root / "first", _NO_ANSWER))
            self.addCleanup(node.end)
            node.launch()
            until(lambda node=node: "stopping; " in node.log, "its stopping")  # type: ignore[misc]
            if answering:
                (root / "answer").touch()
            until(lambda node=node: not node.family(), "its end")  # type: ignore[misc]
            node.stop()
            self.assertIn("it was asked to stop before it had any workers", node.log)
            for unwanted in ("worker", "AdminSite", "#error", "#critical"):
                self.assertNotIn(unwanted, node.log.partition("SIGTERM")[2].replace("any workers", ""))

    def test_operators_are_answered_while_a_worker_does_not_get_up(self) -> None:
        """They are to see why, and to purge: nothing else tells them, and siblings are served already."""
        directory = tempfile.TemporaryDirectory(prefix="edgecache-starting-")
        self.addCleanup(directory.cleanup)
        node = Node(Path(directory.name), "http://127.0.0.1:9", workers=1)
        self.addCleanup(node.end)
        node.launch()

        def stopped() -> bool:
            nurseries = [pid for pid in node.family() if processes.name(pid) == NAME.decode()]
            for pid in nurseries:
                os.kill(pid, signal.SIGSTOP)
            return bool(nurseries)

        until(stopped, "what workers are forked from", looks=4000, pause_seconds=0.005)

        def answer() -> Answer | None:
            try:
                return node.admin("GET", "/readyz", token=False, seconds=1)
            except OSError:
                return None

        said = until(answer, "an answer to operators")
        self.assertEqual((503, []), (said.status, node.worker_pids()))
        node.purge(urls=[f"{node.url}/x"], id="early")
        until(lambda: [os.kill(pid, signal.SIGCONT) or pid for pid in node.family()], "")
        node.wait_ready()
