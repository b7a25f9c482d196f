"""
What a worker process runs; its argument is the number of its listening sockets.

The supervisor (:mod:`edgecache.processes.running`) passes descriptors and says over the channel
what to do: ``start``, ``drain``, ``stop``. Nobody else starts this.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogBeginner
from zope.interface import implementer

from edgecache.processes.channel import Payload
from edgecache.processes.loop import install_reactor
from edgecache.processes.running import CHANNEL, SOCKETS, TICK_SECONDS
from edgecache.processes.streams import ChannelStream, adopt
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.words.reading import from_plain
from edgecache.workerparts import WorkerParts
from edgecache.workers import Worker, start_worker


@implementer(ILogObserver)
@frozen(eq=False, repr=False)
class _Observer:
    """A function as what Twisted's log wants."""

    _say: Callable[[LogEvent], None]

    def __call__(self, event: LogEvent) -> None:
        self._say(event)


@define(eq=False, repr=False)
class _Main:
    """One worker's life, as the node process commands it."""

    _reactor: Any
    _loop: asyncio.AbstractEventLoop
    _sockets: list[socket.socket]
    _stream: ChannelStream | None = None
    _page: Page | None = None
    _environments: Environments | None = None
    _worker: Worker | None = None
    _ending: bool = False

    def run(self, stream: ChannelStream) -> None:
        for op, handler in (("start", self._start), ("drain", self._drain), ("stop", self._stop)):
            stream.channel.on(op, handler)
        globalLogBeginner.beginLoggingTo([_Observer(self._say)], redirectStandardIO=False)
        # Only now: what was logged before the fork, of which we have a copy, the node process tells.
        self._stream = stream
        # A terminal's Ctrl-C and a service manager's SIGTERM reach every process; the node process decides.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._reactor.run(installSignalHandlers=False)

    def _say(self, event: LogEvent) -> None:
        stream = self._stream
        # Better a lost line than a worker that grows because nobody reads.
        if stream is not None and not stream.congested:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            stream.channel.notify("log", level=event["log_level"].name, text=text)

    def _start(self, **greeting: Any) -> Deferred[Payload]:
        return Deferred.fromCoroutine(self._started(**greeting))

    async def _started(
        self,
        *,
        config: Payload,
        index: int,
        block: int,
        count: int,
        spawn: int,
        data: str,
        page: str,
        owner_paths: list[str],
        content: int,
    ) -> Payload:
        settings = from_plain(config)
        self._page = Page.open(page, block)
        self._beat(self._page, index)
        owner_socket = self._sockets.pop() if owner_paths else None
        public = len(self._sockets) - content
        assert self._stream is not None
        self._environments = Environments.open(data, settings.store, node_process=False)
        parts = WorkerParts(
            config=settings,
            index=index,
            count=count,
            spawn=spawn,
            data=data,
            page=self._page,
            environments=self._environments,
            channel=self._stream.channel,
            sockets=self._sockets[:public],
            content=self._sockets[public:],
            owner_socket=owner_socket,
            owner_paths=owner_paths,
            reactor=self._reactor,
            loop=self._loop,
        )
        self._worker = await start_worker(parts)
        return {}

    def _beat(self, page: Page, index: int) -> None:
        """Tell the watchdog that this loop turns, and the node process if another worker would be better off."""
        page.beat(time.monotonic())
        given_up = None if self._environments is None else self._environments.given_up
        if given_up is not None and self._stream is not None:
            self._stream.channel.notify("given-up", index=index, name=given_up)
        self._loop.call_later(TICK_SECONDS / 2, self._beat, page, index)

    async def _drained(self, seconds: float, quiet_seconds: float, last: bool) -> Payload:
        if self._worker is None:
            return {}
        return {"cut": await self._worker.drain(seconds, quiet_seconds, last=last)}

    def _drain(self, seconds: float, quiet_seconds: float, last: bool) -> Deferred[Payload]:
        return Deferred.fromCoroutine(self._drained(seconds, quiet_seconds, last))

    def _stop(self) -> Deferred[Payload]:
        return Deferred.fromCoroutine(self._stopped())

    def closed(self) -> None:
        """
        The channel has gone, and with the node process whoever could tell this worker what is purged:
        it must not serve another request. Ending cleanly takes time, and LMDB needs none of it.
        """
        os._exit(0 if self._ending else 1)

    async def _stopped(self) -> Payload:
        if self._ending:
            # It was leaving already when the node went down.
            return {}
        self._ending = True
        if self._worker is not None:
            await self._worker.stop()
        # After the answer to this call is written.
        self._loop.call_soon(self._reactor.stop)
        return {}


def main() -> None:
    """Run one worker until the node process stops it, or is gone."""
    count = int(sys.argv[1])
    sockets = [socket.socket(fileno=number) for number in range(SOCKETS, SOCKETS + count)]
    for sock in sockets:
        sock.setblocking(False)
    reactor, loop = install_reactor()
    worker = _Main(reactor, loop, sockets)
    stream = adopt(reactor, socket.socket(fileno=CHANNEL), "the node", worker.closed)
    worker.run(stream)
    # Nothing is left that interpreter shutdown could do better, and threads of a library must not hold it up.
    os._exit(0)
