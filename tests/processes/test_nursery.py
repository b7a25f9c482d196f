"""What workers are forked from: what it has; and when it stands still, nobody could be replaced, no death be told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.forking import WORKER_MODULE
from edgecache.processes.nursery import ALIVE
from edgecache.tap import SHARED
from tests.processes.test_supervising import SupervisorCase

# Of timers that are a hundred times as fast: two seconds, which a busy machine needs.
PATIENCE = 200


def parent(pid: int | None) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


class StandingStillTests(SupervisorCase):
    async def test_one_that_was_stopped_goes_on_and_its_other_workers_with_it(self) -> None:
        # Half of it, after it was told to go on, is the machine's to wake it in.
        supervisor = self.supervisor(patience=3 * PATIENCE)
        await supervisor.start()
        dying, other = (worker.pid for worker in supervisor.workers)
        assert dying is not None
        nursery = parent(dying)
        death = self.deaths(1)
        os.kill(nursery, signal.SIGSTOP)
        os.kill(dying, signal.SIGKILL)
        await death
        successor = (await self.back(supervisor, 0)).pid
        self.assertEqual((nursery, other), (parent(successor), supervisor.workers[1].pid))

    async def test_one_that_does_not_go_on_is_replaced_with_all_its_workers(self) -> None:
        supervisor = self.supervisor(patience=PATIENCE, module="tests.processes.stuck_toy")
        await supervisor.start()
        before = [worker.pid for worker in supervisor.workers]
        assert before[0] is not None
        nursery = parent(before[0])
        deaths = self.deaths(2)
        os.kill(before[0], signal.SIGKILL)
        await deaths
        for index in (0, 1):
            pid = (await self.back(supervisor, index)).pid
            self.assertNotIn(pid, before)
            self.assertNotEqual(nursery, parent(pid))

    async def test_while_it_stands_still_nobody_stands_still_with_it(self) -> None:
        supervisor = self.supervisor(1, patience=PATIENCE)
        await supervisor.start()
        os.kill(parent(supervisor.workers[0].pid), signal.SIGSTOP)
        assert supervisor._forks._nursery is not None
        requests = supervisor._forks._nursery.requests
        with self.assertRaises(BlockingIOError):
            for _ in range(10_000):
                requests.send(ALIVE)


def imported(*modules: str) -> frozenset[str]:
    """:return: all that is there when these are."""
    program = f"import sys, threading, {', '.join(modules)}; print(threading.active_count(), *sys.modules)"
    threads, *found = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    if threads != "1":
        raise AssertionError(f"{threads} threads")
    return frozenset(found)


def ours(modules: frozenset[str]) -> list[str]:
    """:return: those of this project."""
    return sorted(name for name in modules if name.startswith("edgecache"))


class ImportTests(SynchronousTestCase):
    """A start waits for each module, and what has been opened before a fork is shared by every worker."""

    workers: ClassVar[frozenset[str]]
    node: ClassVar[frozenset[str]]

    @classmethod
    def setUpClass(cls) -> None:
        twistd = ("twisted.scripts.twistd", "edgecache.tap")
        cls.workers = imported(*twistd, WORKER_MODULE)
        cls.node = imported(*twistd, "edgecache.service", "edgecache.preparing")

    def test_what_is_forked_from_has_no_reactor_and_nothing_that_only_operators_need(self) -> None:
        for late in ("twisted.internet.reactor", "twisted.web", "klein", "treq", "edgecache.admin"):
            self.assertNotIn(late, self.workers)

    def test_workers_have_nothing_of_the_node_process_and_of_a_fleet_only_what_lookups_need(self) -> None:
        for other in ("edgecache.common", "edgecache.store.folding", "edgecache.upstream.roster", "edgecache.fleet"):
            self.assertNotIn(other, self.workers)
        self.assertNotIn("edgecache.words.spreading", self.workers)

    def test_until_workers_accept_the_node_process_has_nothing_of_the_route(self) -> None:
        for other in ("edgecache.workers", "edgecache.node", "edgecache.fills", "edgecache.wire.connection", "klein"):
            self.assertNotIn(other, self.node)

    def test_what_both_need_is_there_before_the_two_part_and_nothing_else(self) -> None:
        """Else both import it, or one what it has no use for."""
        before = imported("twisted.scripts.twistd", "edgecache.tap", *SHARED)
        self.assertEqual(ours(self.workers & self.node), ours(before))
