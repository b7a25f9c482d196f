"""One worker process, as the supervisor sees it: how it is started, spoken to, watched and ended."""

from __future__ import annotations

import enum
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogLevel

from edgecache.processes.channel import Channel, ChannelClosed
from edgecache.processes.streams import ChannelStream, adopt
from edgecache.words.errors import StartError

_log = Logger()

CHANNEL, LOCK, SOCKETS = 3, 4, 5
"""Descriptors of a worker: its channel, the data directory's lock, then its listening sockets."""

TICK_SECONDS = 1.0
"""Between two looks at whether workers live."""
SILENT_TICKS = 8
"""A worker whose loop has not turned for so many ticks is killed: less than a client's 12 s to the first byte."""
STARTING_TICKS = 60
"""The same while it starts: a cold disk and a busy machine take their time."""

MOST_WORDS = 1000
"""Lines that a worker said last, which are kept: where all its threads were when it died."""


class Stage(enum.Enum):
    """Of a worker process's life."""

    STARTING = enum.auto()
    SERVING = enum.auto()
    """It has said that it accepts."""
    LEAVING = enum.auto()
    """It finishes what it has, and ends."""


@define(eq=False, repr=False)
class Running:
    """
    :ivar index: of the place it is in.
    :ivar block: of the mapped page, its own.
    :ivar pid: 0 until it is born.
    :ivar spawn: its number, random so that no earlier life's is met again.
    :ivar stream: its channel.
    :ivar born: monotonic seconds.
    :ivar accepts: of whoever waits for that: fires when it accepts; fails with ``StartError`` when it never will.
    :ivar gone: fires when it has ended.
    :ivar words: what it said last, on its standard error.
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
    words: list[str] = field(factory=list)
    _doomed: bool = False

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

    def born_as(self, pid: int) -> None:
        """The nursery says so, maybe after the worker itself has said something."""
        self.pid = pid
        if self._doomed:
            self.kill()

    def kill(self) -> None:
        """At once, or as soon as it is born."""
        if not self.pid:
            self._doomed = True
            return
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


def channel_to(reactor: Any, index: int) -> tuple[ChannelStream, socket.socket]:
    """:return: our end of a new worker's channel, and its own."""
    ours, theirs = socket.socketpair()
    return adopt(reactor, ours, f"worker {index}", lambda: None), theirs


def listen(running: Running) -> None:
    """Log what it says, over its channel."""
    logger = Logger(namespace=f"worker-{running.index}")

    def say(level: str, text: str) -> None:
        logger.emit(LogLevel.levelWithName(level), "{text}", text=text)

    running.channel.on("log", say)


def last_words(running: Running) -> Callable[[bytes], None]:
    """:return: what takes the lines of its standard error: only a crash says anything there."""

    def take(line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        _log.warn("worker {index}: {line}", index=running.index, line=text)
        running.words = [*running.words, text][-MOST_WORDS:]

    return take
