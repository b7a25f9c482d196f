"""
Siblings that stand still, in part or whole, or sleep: what was purged meanwhile is not served as fresh (DESIGN 9).

Workers know how long they may serve without asking; nobody has to tell them that nobody tells them anything any more.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.system.clients import Together
from tests.system.fleetcase import ONE, OTHER, PAGES, FleetTestCase, Scene
from tests.system.harness import Node
from tests.system.meddling import meddled
from tests.system.processes import until

# CLOCK_BOOTTIME of a node, and nothing else, is so many seconds ahead.
_AHEAD = """
import time
real = time.clock_gettime
def shifted(clock):
    ahead = float(open({path!r}).read()) if clock == time.CLOCK_BOOTTIME else 0.0
    return real(clock) + ahead
time.clock_gettime = shifted
"""


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Meanwhile these processes stand still; they go on in this order."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class StoppedSiblingTests(FleetTestCase):
    clock: Path

    @classmethod
    def opened(cls) -> Scene:
        directory = TemporaryDirectory(prefix="edgecache-ahead-")
        cls.addClassCleanup(directory.cleanup)
        cls.clock = Path(directory.name) / "clock"
        cls.clock.write_text("0")
        ahead = meddled(Path(directory.name), _AHEAD.format(path=str(cls.clock)))
        return Scene.open(workers=1, of=lambda name: {"prefix": ahead} if name == "n3" else {})

    def setUp(self) -> None:
        super().setUp()
        self.node = self.fleet.nodes["n3"]
        self.family = self.node.family()
        self.fill()
        until(self.fresh, "a lease")

    def fresh(self) -> bool:
        """Is it served without anybody being asked?"""
        return self.node.ask(OTHER.target).hit

    def again(self) -> None:
        """It has a lease, and every purge; nobody had to be replaced."""
        self.fleet.wait_leased(self.node)
        self.fleet.wait_agreed()
        for page in PAGES:
            until(lambda page=page: self.node.ask(page.target).hit, page.target)  # type: ignore[misc]
        self.check_all("n3")
        self.assertEqual(self.family, self.node.family())

    def test_workers_without_their_node_process_validate_once_the_lease_has_ended(self) -> None:
        with stopped([self.node.twistd_pid()]):
            self.assertTrue(self.fresh())
            found = self.purge("n1", 0, "durable")
            self.assertEqual(("durable", ["n3"]), (found["state"], found["pending"]))
            while time.time() <= found["effective_by"]:
                self.readers.check("n3", ONE)
            # What was purged is new, and of what was not, nobody knows that it was not.
            self.assertEqual(self.versions.version, self.readers.check("n3", ONE))
            self.assertEqual([False] * 3, [self.fresh() for _ in range(3)])
            self.assertEqual("effective", self.state("n1", found)["state"])
        self.require(self.state("n1", found, "complete"), "complete")
        self.again()

    def test_a_node_that_slept_serves_nothing_old_to_whom_it_finds_waiting(self) -> None:
        pids = [*self.node.worker_pids(), *(pid for pid in self.family if pid not in self.node.worker_pids())]
        answers: list[int] = []
        waiting = Together()
        with stopped(pids):
            found = self.purge("n1", 0, "effective")
            self.assertEqual(("effective", ["n3"]), (found["state"], found["pending"]))
            for _ in range(4):
                waiting.start(lambda: answers.append(self.readers.check("n3", ONE)))
        waiting.join()
        self.assertEqual([self.versions.version] * 4, answers)
        self.require(self.state("n1", found, "complete"), "complete")
        self.again()

    def test_time_that_only_the_clock_of_the_machine_has_seen_pass_counts(self) -> None:
        """A machine that sleeps stops the monotonic clock with all its processes."""
        others: list[Node] = [self.fleet.nodes[name] for name in ("n1", "n2")]
        with stopped([node.twistd_pid() for node in others]):
            self.assertTrue(self.fresh())
            self.clock.with_suffix(".new").write_text("3600")
            self.clock.with_suffix(".new").rename(self.clock)
            self.assertFalse(self.fresh())
        self.again()
