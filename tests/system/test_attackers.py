"""
Clients that are slow, or many, on purpose: each has gone when its time is over, and everybody else is served.

Deadlines are short here; that they are kept exactly is tests/wire/test_deadlines.py. ``EDGECACHE_CROWD`` says how many
connections a crowd has (default 1000), ``EDGECACHE_CHURN`` how many come and go (default 2000).
"""

from __future__ import annotations

import os
import resource
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.attackers import LARGE, SMALL, Attack
from tests.system.clients import Together
from tests.system.harness import Node
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import check, reply_to
from tests.system.watching import MemoryWatch

CROWD = int(os.environ.get("EDGECACHE_CROWD", "1000"))
CHURN = int(os.environ.get("EDGECACHE_CHURN", "2000"))
KIB, MIB = 1 << 10, 1 << 20

LIMITS = f"""
[limits]
connections = {2 * CROWD // 5}
connections_per_client = {CROWD // 5}
head_seconds = 1.0
head_octets = 1024
idle_seconds = 2.0
stall_seconds = 1.0
slow_window_seconds = 1.0
tls_handshake_seconds = 1.0
"""
SLOW = {
    "silent": 20,
    "half a word": 20,
    "head octet by octet": 20,
    "head field by field": 20,
    "endless head": 20,
    "head too large at once": 20,
    "content octet by octet": 20,
    "chunks octet by octet": 20,
    "never reads what is large": 20,
    "reads what is large by octets": 20,
    "asks on and never reads": 5,
}
BUSY = {"asks on and on": 3, "comes and goes": 10}

# One that sends, and one that pipelines: 96 KiB of what it is sent, 64 KiB ahead (DESIGN 13); and a node's own.
MOST_EACH = 160 * KIB
MOST_OWN = 64 * MIB
# Each worker accepts 64 at once, and those that are pushed out are closed a moment later.
FEW = 200


def descriptors(node: Node) -> int:
    """Of all processes of the node."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in node.family())


class AttackersTests(SynchronousTestCase):
    """A plain node with two workers, known artifacts, and honest clients that ask for them all the time."""

    node: Node

    @classmethod
    def setUpClass(cls) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        directory = tempfile.TemporaryDirectory(prefix="edgecache-attackers-")
        cls.addClassCleanup(directory.cleanup)
        origin = Origin(reply_to).start()
        cls.addClassCleanup(origin.stop)
        root = Path(directory.name)
        configuration = root / "edgecache.toml"
        configuration.write_text(LIMITS)
        cls.node = Node(root / "node", origin.url, arguments=("--config", str(configuration)), cold=True)
        cls.addClassCleanup(cls.node.end)
        cls.node.start()
        for target in (SMALL, LARGE):
            until(lambda target=target: cls.node.ask(target).hit, target)

    @contextmanager
    def everybody_else_is_served(self) -> Iterator[None]:
        """:raises AssertionError: an honest client was not, or what it got was not right."""
        over, clients = threading.Event(), Together()
        asked: list[str] = []

        def ask() -> None:
            number = 0
            while not over.is_set():
                number += 1
                # Known, and never asked for before.
                for target in (SMALL, f"/packages/700/{id(over)}-{number}"):
                    answer = self.node.ask(target)
                    self.assertTrue(check(target, answer), f"{target}: {answer}")
                asked.append(target)

        clients.start(ask)
        try:
            yield
            until(lambda: len(asked) >= 5 or clients.failures, "honest clients' answers")
        finally:
            over.set()
            clients.join()

    def settled(self, before: int) -> None:
        """Nothing of the attack has stayed."""
        until(lambda: descriptors(self.node) < before + FEW, f"descriptors as before, {before}")
        self.assertNotIn("Traceback", self.node.log)
        self.assertEqual(self.node.workers, len(self.node.worker_pids()))

    def test_who_is_slow_goes_when_his_time_is_over_and_everybody_else_is_served(self) -> None:
        before, memory = descriptors(self.node), processes.anonymous_octets(self.node.family())
        with (
            MemoryWatch(self.node) as watch,
            self.everybody_else_is_served(),
            Attack(self.node.url, BUSY, again=True, addresses=4),
            Attack(self.node.url, SLOW, addresses=4) as slow,
        ):
            until(lambda: not slow.left(), "the end of all slow clients")
            told = slow.told()
        self.settled(before)
        # A machine that stood still before the first octet was sent has made silent ones of these.
        statuses = {kind: {*each["statuses"]} - {"closed"} for kind, each in told.items()}
        # Whose head never ends is told so, where there is somebody who reads.
        for kind in ("half a word", "head octet by octet"):
            self.assertEqual({"408"}, statuses[kind], kind)
        self.assertEqual({"431"}, statuses["head too large at once"])
        # Of these it is the machine's pace that says which comes first.
        self.assertLessEqual(statuses["endless head"] | statuses["head field by field"], {"408", "431"})
        most = MOST_OWN + (sum(SLOW.values()) + sum(BUSY.values())) * MOST_EACH
        self.assertLess(watch.most - memory, most, told)

    def test_who_holds_more_connections_than_there_may_be_locks_nobody_out(self) -> None:
        before, memory = descriptors(self.node), processes.anonymous_octets(self.node.family())
        with (
            MemoryWatch(self.node) as watch,
            Attack(self.node.url, {"silent": CROWD}, again=True, addresses=20) as crowd,
        ):
            until(lambda: crowd.told()["silent"]["made"] > CROWD, "connections that were pushed out")
            with self.everybody_else_is_served():
                until(lambda: crowd.told()["silent"]["made"] > 2 * CROWD, "as many once more")
                self.assertLess(descriptors(self.node) - before, 4 * CROWD // 5 + FEW)
        self.settled(before)
        self.assertLess(watch.most - memory, MOST_OWN + 4 * KIB * CROWD)

    def test_one_address_has_so_many_and_the_others_do_not_notice(self) -> None:
        # Two workers, each of which counts its own.
        most, before = 2 * (CROWD // 5), descriptors(self.node)
        with Attack(self.node.url, {"silent": CROWD}, addresses=1) as crowd:
            until(lambda: crowd.told()["silent"]["left"] <= most, "who is turned away")
            with self.everybody_else_is_served():
                told = crowd.told()["silent"]
                self.assertLess(descriptors(self.node) - before, most + FEW)
        # Whoever was let in, and was silent for too long, is closed, and leaves room for one who was to be turned away.
        self.assertLessEqual({"503"}, set(told["statuses"]))
        self.assertLessEqual(set(told["statuses"]), {"503", "closed"})
        self.assertLessEqual(told["connected"], most)
        if "closed" not in told["statuses"]:
            self.assertEqual(CROWD - most, told["statuses"]["503"])

    def test_connections_that_come_and_go_leave_nothing(self) -> None:
        before, memory = descriptors(self.node), processes.anonymous_octets(self.node.family())
        with (
            MemoryWatch(self.node) as watch,
            self.everybody_else_is_served(),
            Attack(self.node.url, {"comes and goes": 50}, again=True, addresses=20) as churn,
        ):
            until(lambda: churn.told()["comes and goes"]["made"] >= CHURN, "as many as that", looks=10_000)
            self.assertEqual({"200"}, set(churn.told()["comes and goes"]["statuses"]))
        self.settled(before)
        self.assertLess(watch.most - memory, 16 * MIB)
