"""
The node process keeps its workers alive, and replaces them one after the other when the settings change.

A worker is forked from a process that has opened nothing (:mod:`edgecache.processes.forking`). It is given its
descriptors in the order that :mod:`edgecache.processes.running` says, told what to do over its channel, watched, and
replaced when it dies.
"""

# Note [replacing]
#
# The new process of a place gets the same listening sockets as the old one, and accepts from them before the old one
# stops: at no time does nobody accept. Of one place there are at most two processes, so each has a block of the page.

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.process import reapAllProcesses
from twisted.logger import Logger

from edgecache.processes.background import background
from edgecache.processes.channel import CallRefused, Channel, ChannelClosed, Payload
from edgecache.processes.forking import Child, Forks, Nursery, how
from edgecache.processes.running import SILENT_TICKS, TICK_SECONDS, Running, Stage, channel_to, last_words, listen
from edgecache.words.errors import StartError
from edgecache.words.ports import Timer, Timers

_log = Logger()

KILL_SECONDS = 5.0
"""What a worker has beyond its drain deadline to end its store cleanly."""

QUIET_SECONDS = 1.0
"""When the node goes down, a client that has just been answered may ask once more so long: it does not see that yet."""
REPLACED_QUIET_SECONDS = 5.0
"""The same when a worker is replaced: nobody waits for its end."""

_FIRST_RESTART, _LAST_RESTART = 0.1, 10.0
_STEADY_SECONDS = 10.0


def restart_after(previous: float, lived: float) -> float:
    """
    :param previous: seconds waited before the last start, 0.0 for the first.
    :param lived: seconds that the worker lived after it.
    :return: seconds to wait before the next start. One that was steady is replaced at once.
    """
    if lived >= _STEADY_SECONDS:
        return 0.0
    return min(_LAST_RESTART, max(_FIRST_RESTART, 2 * previous))


@define(eq=False, repr=False)
class Supervised:
    """
    One place for a worker, and the processes that are in it.

    :ivar index: of the place.
    :ivar sockets: inherited by every process that takes it.
    :ivar running: the oldest first; none while one that died is yet to be replaced.
    :ivar deaths: processes that ended unasked.
    """

    index: int
    sockets: list[socket.socket]
    running: list[Running] = field(factory=list)
    deaths: int = 0
    waited: float = 0.0
    restart: Timer | None = None

    @property
    def present(self) -> Running | None:
        """Who serves; while nobody does, who is about to."""
        staying = [one for one in self.running if one.stage is not Stage.LEAVING]
        return next((one for one in staying if one.stage is Stage.SERVING), staying[0] if staying else None)

    @property
    def ready(self) -> bool:
        """Does somebody accept?"""
        return any(one.stage is Stage.SERVING for one in self.running)

    @property
    def pid(self) -> int | None:
        """Of :attr:`present`, once it has one."""
        return None if self.present is None else self.present.pid or None

    @property
    def born(self) -> float:
        """Monotonic seconds, of :attr:`present`."""
        return 0.0 if self.present is None else self.present.born


@define(eq=False, repr=False)
class Supervisor:
    """
    Starts, watches, restarts, replaces and stops the workers.

    :ivar module: what they run.
    :ivar greeting: what a worker is told first, by its place, its block of the page and its number.
    :ivar serve: puts the node's handlers on a new worker's channel, and tells it what it must know beyond the greeting.
    :ivar beat: what the worker of this block last wrote to say that it lives (any changing number).
    :ivar gone: told the block of a process that has ended, before it is another one's.
    :ivar crashed: told who was ended by which signal.
    :ivar patience: ticks that the process may stand still from which workers are forked.
    :ivar nursery: where the first are forked from, if it was started before.
    """

    reactor: Any
    timers: Timers
    module: str
    lock: int
    sockets: Sequence[list[socket.socket]]
    greeting: Callable[[int, int, int], Payload]
    serve: Callable[[Channel], None]
    beat: Callable[[int], float]
    gone: Callable[[int], None]
    patience: int = SILENT_TICKS
    nursery: Nursery | None = None
    crashed: Callable[[Running, int], None] = lambda running, number: None
    workers: list[Supervised] = field(init=False)
    _forks: Forks = field(init=False)
    _stopped: list[Deferred[None]] = field(factory=list)
    _stopping: bool = False
    _tick: Timer | None = None
    _all_ready: Deferred[None] | None = None

    @workers.default
    def _places(self) -> list[Supervised]:
        return [Supervised(index, own) for index, own in enumerate(self.sockets)]

    @_forks.default
    def _from(self) -> Forks:
        return Forks(self.reactor, self.module, self.patience, self.nursery)

    def start(self) -> Deferred[None]:
        """
        Start every worker.

        Fires when all of them accept for the first time; fails with ``StartError`` when one says that it cannot.
        """
        started = self._all_ready = Deferred()
        for place in self.workers:
            self._spawn(place)
        self._tick = self.timers.callLater(TICK_SECONDS, self._watch)
        return started

    def tell(self, op: str, **payload: Any) -> None:
        """Notify every worker that there is."""
        for running in self._all():
            running.channel.notify(op, **payload)

    def spawns(self) -> set[int]:
        """:return: the numbers of all processes that may still write."""
        return {running.spawn for running in self._all()}

    async def replace(self, places: Iterable[int], seconds: float, replaced: list[int]) -> None:
        """
        Put a new process into each of these places, one after the other. See Note [replacing].

        Done when the old ones have ended, at most ``seconds`` (and :data:`KILL_SECONDS`) after they were asked to.

        :param replaced: the places that have a new one are added, also when it fails.
        :raises StartError: a new worker cannot start; it and the later places are as before.
        """
        leaving = []
        for index in places:
            place = self.workers[index]
            for one in [one for one in place.running if one.stage is Stage.LEAVING]:
                await _ended(one)
            if self._stopping:
                return
            if place.restart is not None:
                place.restart.cancel()
                place.restart = None
            old = list(place.running)
            new = self._spawn(place)
            if new is None:
                raise StartError(f"worker {index} cannot be run")
            accepts = new.accepts = Deferred()
            await accepts
            replaced.append(index)
            for running in old:
                self._leave(running, seconds, REPLACED_QUIET_SECONDS, last=False)
                leaving.append(running)
        for running in leaving:
            await _ended(running)

    def stop(self, seconds: float) -> Deferred[None]:
        """
        Drain the workers, at most for ``seconds``, and end them.

        Fires when all are gone. Called again, it only shortens the time.
        """
        self._stopping = True
        for place in self.workers:
            if place.restart is not None:
                place.restart.cancel()
                place.restart = None
            for running in place.running:
                self._leave(running, seconds, QUIET_SECONDS, last=True)
        if not self._all():
            return self._rest()
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    def _all(self) -> list[Running]:
        return [running for place in self.workers for running in place.running]

    def _leave(self, running: Running, seconds: float, quiet_seconds: float, *, last: bool) -> None:
        background(running.end(seconds, quiet_seconds, last=last), f"end worker {running.index}")
        self.timers.callLater(seconds + KILL_SECONDS, self._kill, running)

    def _kill(self, running: Running) -> None:
        if running in self._all():
            running.kill()

    def _spawn(self, place: Supervised) -> Running | None:
        """:return: ``None``: no process can be made; it is tried again."""
        place.restart = None
        taken = [one.block for one in place.running]
        block = next(at for at in range(place.index, sys.maxsize, len(self.workers)) if at not in taken)
        try:
            stream, theirs = channel_to(self.reactor, place.index)
        except OSError as error:
            self._refused(place, None, f"cannot be spoken to: {error.strerror}")
            return None
        running = Running(place.index, block, secrets.randbits(63), stream, self.timers.seconds())
        given = [self.lock, *(sock.fileno() for sock in place.sockets)]
        child = Child(
            running.born_as,
            lambda status: self._ended(running, status),
            lambda why: self._unborn(place, running, why),
        )
        with theirs:
            try:
                self._forks.fork(child, last_words(running), [theirs.fileno(), *given])
            except OSError as error:
                stream.abandon()
                self._refused(place, None, f"cannot run {sys.executable}: {error.strerror}")
                return None
        place.running.append(running)
        listen(running)
        background(self._greet(place, running), f"start worker {place.index}")
        # After the first words were written: what is told here comes after them.
        self.serve(running.channel)
        return running

    def _unborn(self, place: Supervised, running: Running, why: str) -> None:
        """There are too many processes, or too little memory."""
        place.running.remove(running)
        running.stream.abandon()
        running.failed(why)
        running.gone.callback(None)
        if not self._stopping:
            self._refused(place, None, f"cannot be forked: {why}")
        self._perhaps_all_gone()

    async def _greet(self, place: Supervised, running: Running) -> None:
        greeting = self.greeting(running.index, running.block, running.spawn)
        try:
            await running.channel.call("start", **greeting)
        except ChannelClosed:
            return  # it has died; that is seen and said elsewhere
        except CallRefused as refused:
            self._refused(place, running, refused.detail)
            return
        if running.stage is Stage.STARTING:
            running.serves()
        _log.info("worker {index} serves (process {pid})", index=running.index, pid=running.pid)
        if self._all_ready is not None and all(other.ready for other in self.workers):
            waiting, self._all_ready = self._all_ready, None
            waiting.callback(None)

    def _refused(self, place: Supervised, running: Running | None, why: str) -> None:
        """It cannot start. At the node's own start that is the operator's to mend; later, time may mend it."""
        if self._all_ready is not None:
            waiting, self._all_ready = self._all_ready, None
            waiting.errback(StartError(why))
            return
        _log.error("worker {index} cannot start: {why}", index=place.index, why=why)
        if running is not None:
            running.failed(why)
            self._kill(running)
        elif not place.running:
            place.waited = restart_after(place.waited, 0.0)
            place.restart = self.timers.callLater(place.waited, self._spawn, place)

    def _watch(self) -> None:
        """Ticks are counted, not seconds: after this process itself has slept, one tick has passed."""
        self._tick = self.timers.callLater(TICK_SECONDS, self._watch)
        # A death is told by a signal; who else may have its hands on signals, we do not know.
        reapAllProcesses()
        self._forks.watch()
        for running in self._all():
            running.watch(self.beat(running.block))

    def _rest(self) -> Deferred[None]:
        """There is nobody left to watch, once that has ended from which they were forked."""
        return self._forks.stop().addCallback(self._still)

    def _still(self, _: None) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _ended(self, running: Running, status: int) -> None:
        """A process has ended, and everything that it said has been read."""
        place = self.workers[running.index]
        place.running.remove(running)
        running.stream.abandon()
        self.gone(running.block)
        if os.WIFSIGNALED(status):
            self.crashed(running, os.WTERMSIG(status))
        if not self._stopping and running.stage is not Stage.LEAVING:
            self._died(place, running, status)
        elif status:
            _log.warn(
                "worker {index} (process {pid}) ended: {how}", index=place.index, pid=running.pid, how=how(status)
            )
        running.failed(f"it ended with {how(status)} while it started")
        running.gone.callback(None)
        self._perhaps_all_gone()

    def _perhaps_all_gone(self) -> None:
        if self._stopping and not self._all():
            background(self._rest().addCallback(self._all_gone), "end what workers are forked from")

    def _all_gone(self, _: None) -> None:
        waiting, self._stopped = self._stopped, []
        for stopped in waiting:
            stopped.callback(None)

    def _died(self, place: Supervised, running: Running, status: int) -> None:
        """Unasked. Whoever else is in its place goes on; else it is filled again."""
        place.deaths += 1
        alone = place.present is None
        if alone:
            place.waited = restart_after(place.waited, self.timers.seconds() - running.born)
            place.restart = self.timers.callLater(place.waited, self._spawn, place)
        _log.error(
            "worker {index} (process {pid}) died ({how}); {then}",
            index=place.index,
            pid=running.pid,
            how=how(status),
            then=f"a new one starts in {place.waited:g} s" if alone else "another one is there",
        )


def _ended(running: Running) -> Deferred[None]:
    """:return: fires when it has; each call has one of its own."""
    ended: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        ended.callback(None)
        return result

    _ = running.gone.addCallback(tell)
    return ended
