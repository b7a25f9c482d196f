"""
The node process keeps its workers alive.

A worker is exec'ed, never forked with open environments. It is given its descriptors in the order
that :func:`descriptors` says, told what to do over its channel, watched, and replaced when it dies.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone
from twisted.internet.process import reapAllProcesses
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from edgecache.processes.background import background
from edgecache.processes.channel import CallRefused, Channel, ChannelClosed, Payload
from edgecache.processes.streams import ChannelStream, adopt
from edgecache.words.errors import StartError
from edgecache.words.ports import Timer, Timers

_log = Logger()

CHANNEL, LOCK, SOCKETS = 3, 4, 5
"""Descriptors of a worker: its channel, the data directory's lock, then its listening sockets."""

TICK_SECONDS = 1.0
SILENT_TICKS = 8
"""A worker whose loop has not turned for so many ticks is killed: less than a client's 12 s to the first byte."""
STARTING_TICKS = 60
"""The same while it starts: a cold disk and a busy machine take their time."""
KILL_SECONDS = 5.0
"""What a worker has beyond its drain deadline to end its store cleanly."""

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


@define(eq=False)
class Supervised:
    """
    One place for a worker, and the process that fills it now.

    :ivar index: of the place.
    :ivar sockets: inherited by every process that takes it.
    :ivar spawn: number of the present process, random so that no earlier life's is met again.
    :ivar pid: of the present process, ``None`` while there is none.
    :ivar ready: it has said that it accepts.
    """

    index: int
    sockets: list[socket.socket]
    spawn: int = 0
    pid: int | None = None
    ready: bool = False
    starts: int = 0
    stream: ChannelStream | None = None
    born: float = 0.0
    waited: float = 0.0
    silent: int = 0
    last_beat: float = 0.0
    restart: Timer | None = None

    @property
    def channel(self) -> Channel | None:
        """To the present process."""
        return None if self.stream is None else self.stream.channel


@define(eq=False)
class Supervisor:
    """
    Starts, watches, restarts and stops the workers.

    :ivar module: what they run.
    :ivar greeting: what worker ``index`` with number ``spawn`` is told first.
    :ivar serve: puts the node's handlers on a new worker's channel, and tells it what it must know beyond the greeting.
    :ivar beat: what the worker of this place last wrote to say that it lives (any changing number).
    :ivar gone: told the index of a place whose process has ended, before it is filled again.
    """

    reactor: Any
    timers: Timers
    module: str
    lock: int
    sockets: Sequence[list[socket.socket]]
    greeting: Callable[[int, int], Payload]
    serve: Callable[[Channel], None]
    beat: Callable[[int], float]
    gone: Callable[[int], None]
    workers: list[Supervised] = field(init=False)
    _stopped: list[Deferred[None]] = field(factory=list)
    _stopping: bool = False
    _tick: Timer | None = None
    _all_ready: Deferred[None] | None = None

    @workers.default
    def _places(self) -> list[Supervised]:
        return [Supervised(index, own) for index, own in enumerate(self.sockets)]

    def start(self) -> Deferred[None]:
        """
        Start every worker.

        Fires when all of them accept for the first time; fails with ``StartError`` when one says that it cannot.
        """
        started = self._all_ready = Deferred()
        for worker in self.workers:
            self._spawn(worker)
        self._tick = self.timers.callLater(TICK_SECONDS, self._watch)
        return started

    def tell(self, op: str, **payload: Any) -> None:
        """Notify every worker that there is."""
        for worker in self.workers:
            if worker.channel is not None:
                worker.channel.notify(op, **payload)

    def spawns(self) -> set[int]:
        """:return: the numbers of all processes that may still write."""
        return {worker.spawn for worker in self.workers if worker.pid is not None}

    def stop(self, seconds: float) -> Deferred[None]:
        """
        Drain the workers, at most for ``seconds``, and end them.

        Fires when all are gone. Called again, it only shortens the time.
        """
        self._stopping = True
        for worker in self.workers:
            if worker.restart is not None:
                worker.restart.cancel()
                worker.restart = None
            if worker.pid is not None:
                background(self._end(worker, seconds), f"end worker {worker.index}")
                self.timers.callLater(seconds + KILL_SECONDS, self._kill, worker, worker.spawn)
        if not self.spawns():
            self._rest()
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        return stopped

    async def _end(self, worker: Supervised, seconds: float) -> None:
        channel = worker.channel
        if channel is None:
            return
        try:
            await channel.call("drain", seconds=seconds)
            await channel.call("stop")
        except ChannelClosed:
            return  # it has ended, one way or the other

    def _kill(self, worker: Supervised, spawn: int) -> None:
        if worker.pid is not None and worker.spawn == spawn:
            _log.warn("killing worker {index} (process {pid})", index=worker.index, pid=worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    def _spawn(self, worker: Supervised) -> None:
        worker.restart = None
        worker.spawn = secrets.randbits(63)
        worker.born = self.timers.seconds()
        worker.silent, worker.last_beat, worker.ready = 0, 0.0, False
        worker.starts += 1
        ours, theirs = socket.socketpair()
        worker.stream = adopt(self.reactor, ours, f"worker {worker.index}", lambda: None)
        with theirs:
            try:
                worker.pid = self._execute(worker, theirs)
            except OSError as error:
                worker.stream.abandon()
                worker.stream = None
                self._refused(worker, f"cannot run {sys.executable}: {error.strerror}")
                return
        channel = worker.stream.channel
        channel.on("log", lambda level, text: self._worker_says(worker, level, text))
        background(self._greet(worker, channel), f"start worker {worker.index}")
        # After the first words were written: what is told here comes after them.
        self.serve(channel)

    def _execute(self, worker: Supervised, channel: socket.socket) -> int:
        """
        :return: the process id.
        :raises OSError: there are too many processes, or the program may not be run.
        """
        given = [channel.fileno(), self.lock, *(sock.fileno() for sock in worker.sockets)]
        with open(os.devnull, "rb") as nothing:
            process = self.reactor.spawnProcess(
                _WorkerProcess(self, worker),
                sys.executable,
                # -P: the working directory is no place to import from.
                [sys.executable, "-P", "-m", self.module, str(len(worker.sockets))],
                # A worker sees the same modules as we do, wherever those came from.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                childFDs={0: nothing.fileno(), 1: 1, 2: "r", **dict(enumerate(given, CHANNEL))},
            )
        return int(process.pid)

    async def _greet(self, worker: Supervised, channel: Channel) -> None:
        try:
            await channel.call("start", **self.greeting(worker.index, worker.spawn))
        except ChannelClosed:
            return  # it has died; that is seen and said elsewhere
        except CallRefused as refused:
            self._refused(worker, refused.detail)
            return
        worker.ready = True
        _log.info("worker {index} serves (process {pid})", index=worker.index, pid=worker.pid)
        if self._all_ready is not None and all(other.ready for other in self.workers):
            self._all_ready.callback(None)
            self._all_ready = None

    def _refused(self, worker: Supervised, why: str) -> None:
        """It cannot start. At the node's own start that is the operator's to mend; later, time may mend it."""
        if self._all_ready is not None:
            waiting, self._all_ready = self._all_ready, None
            waiting.errback(StartError(why))
            return
        _log.error("worker {index} cannot start: {why}", index=worker.index, why=why)
        if worker.pid is None:
            worker.restart = self.timers.callLater(_LAST_RESTART, self._spawn, worker)
        self._kill(worker, worker.spawn)

    def _worker_says(self, worker: Supervised, level: str, text: str) -> None:
        logger = Logger(namespace=f"worker-{worker.index}")
        logger.emit(LogLevel.levelWithName(level), "{text}", text=text)

    def _watch(self) -> None:
        """
        Kill whoever's loop stands still, for only then do its clients get away from it.

        Ticks are counted, not seconds: after this process itself has slept, one tick has passed.
        """
        self._tick = self.timers.callLater(TICK_SECONDS, self._watch)
        # A death is told by a signal; who else may have its hands on signals, we do not know.
        reapAllProcesses()
        for worker in self.workers:
            if worker.pid is None:
                continue
            beat = self.beat(worker.index)
            worker.silent = 0 if beat != worker.last_beat else worker.silent + 1
            worker.last_beat = beat
            if worker.silent >= (SILENT_TICKS if worker.ready else STARTING_TICKS):
                _log.error("worker {index} (process {pid}) stands still", index=worker.index, pid=worker.pid)
                worker.silent = 0
                self._kill(worker, worker.spawn)

    def _rest(self) -> None:
        """There is nobody left to watch."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def ended(self, worker: Supervised, reason: Failure) -> None:
        """The process of this place has ended, and everything that it said has been read."""
        pid, worker.pid, worker.ready = worker.pid, None, False
        if worker.stream is not None:
            worker.stream.abandon()
            worker.stream = None
        lived = self.timers.seconds() - worker.born
        self.gone(worker.index)
        if not self._stopping:
            worker.waited = restart_after(worker.waited, lived)
            _log.error(
                "worker {index} (process {pid}) died ({how}); a new one starts in {seconds:g} s",
                index=worker.index,
                pid=pid,
                how=_how(reason),
                seconds=worker.waited,
            )
            worker.restart = self.timers.callLater(worker.waited, self._spawn, worker)
        elif not isinstance(reason.value, ProcessDone):
            _log.warn("worker {index} (process {pid}) ended: {how}", index=worker.index, pid=pid, how=_how(reason))
        if self._stopping and not self.spawns():
            self._rest()
            waiting, self._stopped = self._stopped, []
            for stopped in waiting:
                stopped.callback(None)


@define(eq=False)
class _WorkerProcess(ProcessProtocol):
    """What the reactor tells about one process; its standard error are a crash's last words."""

    _supervisor: Supervisor
    _worker: Supervised
    _said: bytes = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._said + data).split(b"\n")
        self._said = rest[-4096:]
        for line in lines:
            self._say(line)

    def processEnded(self, reason: Failure) -> None:
        self._say(self._said)
        self._supervisor.ended(self._worker, reason)

    def _say(self, line: bytes) -> None:
        if line.strip():
            _log.warn("worker {index}: {line}", index=self._worker.index, line=line.decode("utf-8", "replace"))


def _how(reason: Failure) -> str:
    value = reason.value
    number, status = getattr(value, "signal", None), getattr(value, "exitCode", None)
    return f"signal {number}" if number else f"exit status {status}"
