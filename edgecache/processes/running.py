"""One worker process, as the supervisor sees it: how it is started, spoken to, watched and ended."""

from __future__ import annotations

import enum
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from edgecache.processes.channel import Channel, ChannelClosed
from edgecache.processes.streams import ChannelStream, adopt
from edgecache.words.errors import StartError

_log = Logger()

CHANNEL, LOCK, SOCKETS = 3, 4, 5
"""Descriptors of a worker: its channel, the data directory's lock, then its listening sockets."""

SILENT_TICKS = 8
"""A worker whose loop has not turned for so many ticks is killed: less than a client's 12 s to the first byte."""
STARTING_TICKS = 60
"""The same while it starts: a cold disk and a busy machine take their time."""


class Stage(enum.Enum):
    """Of a worker process's life."""

    STARTING = enum.auto()
    SERVING = enum.auto()
    """It has said that it accepts."""
    LEAVING = enum.auto()
    """It finishes what it has, and ends."""


@define(eq=False)
class Running:
    """
    :ivar index: of the place it is in.
    :ivar block: of the mapped page, its own.
    :ivar spawn: its number, random so that no earlier life's is met again.
    :ivar stream: its channel.
    :ivar born: monotonic seconds.
    :ivar accepts: of whoever waits for that: fires when it accepts; fails with ``StartError`` when it never will.
    :ivar gone: fires when it has ended.
    """

    index: int
    block: int
    spawn: int
    stream: ChannelStream
    born: float
    pid: int = 0
    stage: Stage = Stage.STARTING
    accepts: Deferred[None] | None = None
    gone: Deferred[None] = field(factory=Deferred)
    silent: int = 0
    last_beat: float = 0.0

    @property
    def channel(self) -> Channel:
        """To it."""
        return self.stream.channel

    def serves(self) -> None:
        """It has said so."""
        self.stage = Stage.SERVING
        accepts, self.accepts = self.accepts, None
        if accepts is not None:
            accepts.callback(None)

    def failed(self, why: str) -> None:
        """It will not accept."""
        accepts, self.accepts = self.accepts, None
        if accepts is not None:
            accepts.errback(StartError(why))

    async def end(self, seconds: float, quiet_seconds: float, *, last: bool) -> None:
        """
        Have it finish and end; whoever calls this kills it when it takes longer.

        :param seconds: clients may take so long.
        :param quiet_seconds: see :meth:`edgecache.wire.listener.Listener.drain`.
        :param last: nobody is to take its place.
        """
        self.stage = Stage.LEAVING
        try:
            said = await self.channel.call("drain", seconds=seconds, quiet_seconds=quiet_seconds, last=last)
            if said.get("cut"):
                _log.warn(
                    "worker {index} (process {pid}): {cut} connections were cut after {seconds:g} s",
                    index=self.index,
                    pid=self.pid,
                    cut=said["cut"],
                    seconds=seconds,
                )
            await self.channel.call("stop")
        except ChannelClosed:
            return  # it has ended, one way or the other

    def kill(self) -> None:
        """At once."""
        _log.warn("killing worker {index} (process {pid})", index=self.index, pid=self.pid)
        os.kill(self.pid, signal.SIGKILL)

    def watch(self, beat: float) -> None:
        """
        Kill it if its loop stands still, for only then do its clients get away from it. Called once a tick.

        :param beat: what it last wrote to say that it lives.
        """
        self.silent = 0 if beat != self.last_beat else self.silent + 1
        self.last_beat = beat
        if self.silent >= (STARTING_TICKS if self.stage is Stage.STARTING else SILENT_TICKS):
            _log.error("worker {index} (process {pid}) stands still", index=self.index, pid=self.pid)
            self.silent = 0
            self.kill()


Ended = Callable[[Running, Failure], None]
"""Told once that a process has ended, and how; everything that it said has been read."""


def run(reactor: Any, running: Running, theirs: socket.socket, given: list[int], module: str, ended: Ended) -> None:
    """
    Start the process of ``running``.

    :param theirs: its end of the channel.
    :param given: further descriptors, in the order of :data:`LOCK` and :data:`SOCKETS`.
    :raises OSError: there are too many processes, or the program may not be run.
    """
    descriptors = [theirs.fileno(), *given]
    with open(os.devnull, "rb") as nothing:
        process = reactor.spawnProcess(
            _WorkerProcess(running, ended),
            sys.executable,
            # -P: the working directory is no place to import from.
            [sys.executable, "-P", "-m", module, str(len(given) - 1)],
            # A worker sees the same modules as we do, wherever those came from.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            childFDs={0: nothing.fileno(), 1: 1, 2: "r", **dict(enumerate(descriptors, CHANNEL))},
        )
    running.pid = int(process.pid)
    running.channel.on("log", lambda level, text: _worker_says(running.index, level, text))


def channel_to(reactor: Any, index: int) -> tuple[ChannelStream, socket.socket]:
    """:return: our end of a new worker's channel, and its own."""
    ours, theirs = socket.socketpair()
    return adopt(reactor, ours, f"worker {index}", lambda: None), theirs


def how(reason: Failure) -> str:
    """:return: for people, how a process ended."""
    value = reason.value
    number, status = getattr(value, "signal", None), getattr(value, "exitCode", None)
    return f"signal {number}" if number else f"exit status {status}"


def _worker_says(index: int, level: str, text: str) -> None:
    logger = Logger(namespace=f"worker-{index}")
    logger.emit(LogLevel.levelWithName(level), "{text}", text=text)


@define(eq=False)
class _WorkerProcess(ProcessProtocol):
    """What the reactor tells about one process; its standard error are a crash's last words."""

    _running: Running
    _ended: Ended
    _said: bytes = b""

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, rest = (self._said + data).split(b"\n")
        self._said = rest[-4096:]
        for line in lines:
            self._say(line)

    def processEnded(self, reason: Failure) -> None:
        self._say(self._said)
        self._ended(self._running, reason)

    def _say(self, line: bytes) -> None:
        if line.strip():
            _log.warn("worker {index}: {line}", index=self._running.index, line=line.decode("utf-8", "replace"))
