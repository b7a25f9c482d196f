"""Workers as real processes: started, watched, replaced, drained."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from typing import Any, cast

from twisted.internet import reactor as installed  # noqa: TID251  # spawns real processes
from twisted.internet.defer import Deferred, succeed
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from edgecache.processes import supervising
from edgecache.processes.channel import Channel
from edgecache.processes.forking import Child, Nursery
from edgecache.processes.loop import install_reactor
from edgecache.processes.running import SILENT_TICKS, Running
from edgecache.processes.supervising import Supervisor
from edgecache.words.errors import StartError

TOY = "tests.processes.toy_worker"


class Beats:
    """What the mapped page says of each worker's loop."""

    def __init__(self) -> None:
        self.still: set[int] = set()
        self.turns = 0.0

    def of(self, index: int) -> float:
        if index in self.still:
            return 0.0
        self.turns += 1.0
        return self.turns


class QuickTimers:
    """The loop's timers, a hundred times as fast: what is tested is what follows what, not how long it takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def seconds(self) -> float:
        return self.loop.time() * 100

    def callLater(self, delay: float, callable: Any, *args: object) -> Any:
        return self.loop.call_later(delay / 100, callable, *args)


class Refusing:
    """Nothing can be forked here; who asked is told when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Child] = []

    def fork(self, child: Child, say: Any, descriptors: list[int]) -> None:
        self.asked.append(child)

    def watch(self) -> None:
        """It answers."""

    def stop(self) -> Deferred[None]:
        return succeed(None)


class SupervisorCase(TestCase):
    timeout = 300

    def setUp(self) -> None:
        self.reactor, self.loop = install_reactor()
        assert self.reactor is installed
        self.beats = Beats()
        self.gone: list[int] = []
        self.gone_waits: list[tuple[int, Deferred[None]]] = []
        self.greeting: dict[str, Any] = {}
        self.lock = os.open(self.mktemp(), os.O_CREAT | os.O_RDWR)
        self.addCleanup(os.close, self.lock)

    def supervisor(
        self,
        workers: int = 2,
        timers: Any = None,
        patience: int = 1 << 20,
        module: str = TOY,
        nursery: Nursery | None = None,
    ) -> Supervisor:
        sockets = []
        for _ in range(workers):
            sock = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(sock.close)
            sockets.append([sock])
        made = Supervisor(
            reactor=self.reactor,
            timers=timers or QuickTimers(self.loop),
            module=module,
            lock=self.lock,
            sockets=sockets,
            greeting=lambda index, block, spawn: {"index": index, **self.greeting},
            serve=lambda channel: None,
            beat=self.beats.of,
            gone=self.on_gone,
            patience=patience,
            nursery=nursery,
        )
        self.addCleanup(made.stop, 0.0)
        return made

    def on_gone(self, index: int) -> None:
        self.gone.append(index)
        waits, self.gone_waits = self.gone_waits, []
        for count, waiting in waits:
            if len(self.gone) >= count:
                waiting.callback(None)
            else:
                self.gone_waits.append((count, waiting))

    def deaths(self, count: int) -> Deferred[None]:
        """Fires once so many workers have ended."""
        waiting: Deferred[None] = Deferred()
        self.gone_waits.append((count, waiting))
        return waiting

    async def back(self, supervisor: Supervisor, index: int) -> Running:
        """The worker of a place, once a new process accepts there."""
        while not supervisor.workers[index].ready:
            pause: Deferred[None] = Deferred()
            self.reactor.callLater(0.01, pause.callback, None)
            await pause
        return self.present(supervisor, index)

    def present(self, supervisor: Supervisor, index: int) -> Running:
        found = supervisor.workers[index].present
        assert found is not None
        return found

    def channel(self, supervisor: Supervisor, index: int) -> Channel:
        return self.present(supervisor, index).channel


class SupervisorTests(SupervisorCase):
    async def test_each_worker_has_its_own_socket_and_the_lock_and_nothing_else(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        for worker in supervisor.workers:
            seen = await self.channel(supervisor, worker.index).call("look")
            self.assertEqual(worker.pid, seen["pid"])
            self.assertEqual([worker.sockets[0].getsockname()[1]], seen["ports"])
            self.assertEqual(os.fstat(self.lock).st_ino, seen["lock"])
            self.assertEqual([4], seen["descriptors"])

    async def test_a_killed_worker_is_replaced_on_the_same_socket_under_a_new_number(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        before = self.present(supervisor, 0)
        pid, spawn, port = before.pid, before.spawn, supervisor.workers[0].sockets[0].getsockname()[1]
        death = self.deaths(1)
        os.kill(pid, signal.SIGKILL)
        await death
        self.assertEqual([0], self.gone)
        self.assertNotIn(spawn, supervisor.spawns())
        after = await self.back(supervisor, 0)
        seen = await self.channel(supervisor, 0).call("look")
        self.assertNotEqual((pid, spawn), (after.pid, after.spawn))
        self.assertEqual([port], seen["ports"])
        self.assertEqual(2, len(supervisor.spawns()))

    async def test_the_other_workers_do_not_notice(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        other, dying = supervisor.workers[1].pid, supervisor.workers[0].pid
        assert dying is not None
        death = self.deaths(1)
        os.kill(dying, signal.SIGKILL)
        await death
        self.assertEqual(other, (await self.channel(supervisor, 1).call("look"))["pid"])

    async def test_a_worker_whose_loop_stands_still_is_killed(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        death = self.deaths(1)
        self.beats.still.add(1)
        await death
        self.assertEqual([1], self.gone)

    async def test_a_stopped_worker_is_killed_too(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        death = self.deaths(1)
        self.channel(supervisor, 0).notify("stand_still")
        self.beats.still.add(0)
        await death

    async def test_a_tick_that_saw_a_beat_begins_the_count_anew(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        worker = self.present(supervisor, 0)
        worker.silent = SILENT_TICKS - 1
        while worker.silent:
            pause: Deferred[None] = Deferred()
            self.reactor.callLater(0.005, pause.callback, None)
            await pause
        self.assertEqual([], self.gone)

    async def test_a_worker_that_cannot_start_fails_the_start_of_the_node(self) -> None:
        self.greeting["refuse"] = True
        supervisor = self.supervisor(1)
        with self.assertRaises(StartError) as caught:
            await supervisor.start()
        self.assertEqual("cannot, says the toy", str(caught.exception))

    async def test_a_program_that_cannot_be_run_fails_the_start_of_the_node(self) -> None:
        self.patch(sys, "executable", "/nonexistent/python")
        supervisor = self.supervisor(1)
        with self.assertRaises(StartError) as caught:
            await supervisor.start()
        self.assertIn("cannot run /nonexistent/python: ", str(caught.exception))

    async def test_workers_that_cannot_be_imported_fail_the_start_of_the_node(self) -> None:
        """A broken installation: whoever starts the node is told, and nobody tries again and again."""
        supervisor = self.supervisor(2, module="tests.processes.no_such_module")
        with self.assertRaises(StartError) as caught:
            await supervisor.start()
        self.assertEqual(
            "cannot be forked: what they need cannot be imported (exit status 1); the log above says why",
            str(caught.exception),
        )

    async def test_one_that_crashes_while_it_starts_is_tried_again(self) -> None:
        self.greeting["crash"] = True
        supervisor = self.supervisor(1)
        started = supervisor.start()
        await self.deaths(2)
        self.greeting["crash"] = False
        await started
        self.assertGreaterEqual(supervisor.workers[0].deaths, 2)

    async def test_workers_are_replaced_also_when_what_they_are_forked_from_has_died(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        before = [self.present(supervisor, at).pid for at in (0, 1)]
        with open(f"/proc/{before[0]}/stat") as file:
            nursery = int(file.read().rpartition(")")[2].split()[1])
        self.assertNotEqual(os.getpid(), nursery)
        deaths = self.deaths(2)
        os.kill(nursery, signal.SIGKILL)
        await deaths
        for at in (0, 1):
            await self.back(supervisor, at)
            seen = await self.channel(supervisor, at).call("look")
            self.assertNotIn(seen["pid"], before)

    async def test_one_that_was_started_before_and_died_before_the_first_worker_is_started_anew(self) -> None:
        dead = Nursery.executed(TOY)
        os.kill(dead.pid, signal.SIGKILL)
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        supervisor = self.supervisor(nursery=dead)
        await supervisor.start()
        self.assertEqual([True, True], [place.ready for place in supervisor.workers])

    async def test_a_worker_that_could_not_be_asked_for_is_not_waited_for(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        forks = supervisor._forks
        before = dict(forks._children)
        child = Child(lambda pid: None, lambda status: None, lambda why: None)
        none = (1 << 31) - 1
        self.assertRaises(OSError, forks.fork, child, lambda line: None, [none])
        self.assertEqual(before, forks._children)

    async def test_a_worker_s_last_words_are_logged_before_its_death(self) -> None:
        told: list[str] = []
        globalLogPublisher.addObserver(observer := lambda event: told.append(str(formatEvent(event))))
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        supervisor = self.supervisor(1)
        await supervisor.start()
        self.greeting["crash"] = True
        with self.assertRaises(StartError):
            await supervisor.replace((0,), 1.0, [])
        words = next(at for at, text in enumerate(told) if text == "worker 0: last words")
        self.assertIn("died (exit status 3)", next(text for text in told[words:] if "died" in text))

    async def test_stopping_ends_every_worker(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        pids = [worker.pid for worker in supervisor.workers]
        await supervisor.stop(1.0)
        self.assertEqual(set(), supervisor.spawns())
        for pid in pids:
            assert pid is not None
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)
        self.assertEqual(sorted(self.gone), [0, 1])

    async def test_one_that_does_not_end_is_killed_after_its_time(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        self.channel(supervisor, 0).notify("stand_still")
        await supervisor.stop(0.0)
        self.assertEqual(set(), supervisor.spawns())

    async def test_stopping_while_a_dead_worker_waits_for_its_restart(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        pid = supervisor.workers[0].pid
        assert pid is not None
        death = self.deaths(1)
        os.kill(pid, signal.SIGKILL)
        await death
        await supervisor.stop(0.0)
        self.assertIsNone(supervisor.workers[0].restart)

    async def test_without_descriptors_for_its_channel_a_worker_is_tried_again_later(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        before = self.present(supervisor, 0)

        def full(*_: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        undo = self.patch(supervising, "channel_to", full)
        with self.assertRaises(StartError):
            await supervisor.replace((0,), 1.0, [])
        self.assertEqual([before], supervisor.workers[0].running)
        death = self.deaths(1)
        os.kill(before.pid, signal.SIGKILL)
        await death
        # Its first restart is tried in vain.
        for _ in range(4):
            pause: Deferred[None] = Deferred()
            self.reactor.callLater(0.005, pause.callback, None)
            await pause
        undo.restore()
        self.assertNotEqual(before.pid, (await self.back(supervisor, 0)).pid)

    async def test_stopping_while_one_is_being_forked_that_cannot_be(self) -> None:
        supervisor = self.supervisor(1)
        supervisor._forks = forks = Refusing()  # type: ignore[assignment]  # a kernel without room
        started = supervisor.start()
        stopping = supervisor.stop(0.0)
        forks.asked[0].refused("Cannot allocate memory")
        await stopping
        self.assertEqual((set(), None), (supervisor.spawns(), supervisor.workers[0].restart))
        self.assertFalse(started.called)

    async def test_one_that_is_to_be_killed_before_its_process_id_is_known_is_killed_then(self) -> None:
        worker = Running(0, 0, 1, cast(Any, None), 0.0)
        with subprocess.Popen(["sleep", "60"]) as process:
            worker.kill()
            worker.born_as(process.pid)
            self.assertEqual(-signal.SIGKILL, process.wait())

    async def test_a_worker_ends_when_its_channel_closes(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        death = self.deaths(1)
        self.present(supervisor, 0).stream.abandon()
        await death


class ReplacingTests(SupervisorCase):
    async def test_every_worker_is_another_process_on_the_same_socket(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        before = [self.present(supervisor, at) for at in (0, 1)]
        replaced: list[int] = []
        await supervisor.replace((0, 1), 1.0, replaced)
        after = [self.present(supervisor, at) for at in (0, 1)]
        self.assertEqual([0, 1], replaced)
        self.assertEqual({one.spawn for one in after}, supervisor.spawns())
        self.assertTrue({one.pid for one in before}.isdisjoint(one.pid for one in after))
        for place in supervisor.workers:
            seen = await self.channel(supervisor, place.index).call("look")
            self.assertEqual([place.sockets[0].getsockname()[1]], seen["ports"])
            self.assertEqual(0, place.deaths)

    async def test_the_one_that_comes_has_a_block_of_its_own_and_the_next_one_the_first_again(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        blocks = []
        for _ in range(3):
            blocks.append([self.present(supervisor, at).block for at in (0, 1)])
            await supervisor.replace((0, 1), 1.0, [])
        self.assertEqual([[0, 1], [2, 3], [0, 1]], blocks)
        # The two that leave together end in any order.
        self.assertEqual([{0, 1}, {2, 3}, {0, 1}], [set(self.gone[at : at + 2]) for at in (0, 2, 4)])

    async def test_the_old_one_stays_until_the_new_one_accepts_and_when_that_fails(self) -> None:
        supervisor = self.supervisor()
        await supervisor.start()
        before = [self.present(supervisor, at) for at in (0, 1)]
        self.greeting["refuse"] = True
        replaced: list[int] = []
        with self.assertRaises(StartError) as caught:
            await supervisor.replace((0, 1), 1.0, replaced)
        self.assertEqual(("cannot, says the toy", []), (str(caught.exception), replaced))
        self.assertEqual(before, [self.present(supervisor, at) for at in (0, 1)])
        self.assertEqual(before[0].pid, (await self.channel(supervisor, 0).call("look"))["pid"])

    async def test_a_new_one_that_crashes_leaves_the_old_one_in_place(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        before = self.present(supervisor, 0)
        self.greeting["crash"] = True
        with self.assertRaises(StartError) as caught:
            await supervisor.replace((0,), 1.0, [])
        self.assertEqual("it ended with exit status 3 while it started", str(caught.exception))
        self.assertEqual(([before], None), (supervisor.workers[0].running, supervisor.workers[0].restart))

    async def test_one_that_does_not_end_in_its_time_is_killed(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        self.channel(supervisor, 0).notify("stand_still")
        await supervisor.replace((0,), 0.0, [])
        self.assertEqual([0], self.gone)

    async def test_an_old_one_that_dies_meanwhile_is_not_started_again(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        before = self.present(supervisor, 0)
        replacing = Deferred.fromCoroutine(supervisor.replace((0,), 1.0, []))
        os.kill(before.pid, signal.SIGKILL)
        await replacing
        self.assertEqual(1, len(supervisor.workers[0].running))
        self.assertNotEqual(before.pid, self.present(supervisor, 0).pid)
        self.assertIsNone(supervisor.workers[0].restart)

    async def test_a_worker_that_was_waited_for_is_started_now(self) -> None:
        supervisor = self.supervisor(1)
        await supervisor.start()
        death = self.deaths(1)
        os.kill(self.present(supervisor, 0).pid, signal.SIGKILL)
        await death
        await supervisor.replace((0,), 1.0, [])
        self.assertEqual((1, None), (len(supervisor.workers[0].running), supervisor.workers[0].restart))
