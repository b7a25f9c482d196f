"""The worker of ``--workers 0``: the same one, in the node process, behind the same ports."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.common import Common
from edgecache.preparing import Prepared
from edgecache.processes.channel import Channel, pair
from edgecache.processes.memory import uncollected
from edgecache.processes.supervising import QUIET_SECONDS, REPLACED_QUIET_SECONDS
from edgecache.store.page import Page
from edgecache.words.config import Config
from edgecache.workerparts import WorkerParts

if TYPE_CHECKING:
    from edgecache.workers import Worker


@define(eq=False, repr=False)
class Inside:
    """
    One such worker.

    :ivar block: of the page.
    :ivar spawn: its number, as those of processes are.
    :ivar channel: to it.
    """

    block: int
    spawn: int
    channel: Channel
    page: Page
    sockets: list[socket.socket]
    worker: Worker = field(init=False)

    def close(self) -> None:
        """Let go of the listening sockets."""
        for sock in self.sockets:
            sock.close()


@define(eq=False, repr=False)
class Insiders:
    """
    What :class:`edgecache.processes.supervising.Supervisor` is to processes: there are two for a moment while one is
    replaced.

    :ivar serving: the one that accepts, once it does.
    """

    _common: Common
    _prepared: Prepared
    _config: Callable[[], Config]
    _reactor: Any
    _loop: asyncio.AbstractEventLoop
    serving: Inside | None = None
    _all: list[Inside] = field(factory=list)
    _stopping: bool = False

    async def start(self) -> None:
        """:raises StartError: it cannot be."""
        self.serving = await self._start()

    def spawns(self) -> set[int]:
        """:return: numbers of those that may still write."""
        return {inside.spawn for inside in self._all}

    def tell(self, op: str, **payload: Any) -> None:
        """Notify all."""
        for inside in self._all:
            inside.channel.notify(op, **payload)

    async def replace(self, seconds: float, replaced: list[int]) -> None:
        """
        Another one, with the settings of now, takes its place; unless the node goes down.

        :param seconds: for what the one of before still does.
        :param replaced: its place is added once the new one accepts.
        """
        before = self.serving
        if before is None or self._stopping:
            return
        new = await self._start()
        if self._stopping:
            # What was there is drained already, and stays the one that is waited for.
            await new.worker.drain(seconds, QUIET_SECONDS, last=True)
            await self._end(new)
            return
        self.serving = new
        replaced.append(0)
        draining = Deferred.fromCoroutine(before.worker.drain(seconds, REPLACED_QUIET_SECONDS, last=False))
        # It accepts nothing more; if the node goes down now, nobody may wait in its sockets.
        before.close()
        await draining
        await self._end(before)

    async def drain(self, seconds: float) -> None:
        """The node goes down: accept nothing more, and let what is under way come to its end."""
        self._stopping = True
        if self.serving is not None:
            await self.serving.worker.drain(seconds, QUIET_SECONDS, last=True)

    async def stop(self) -> None:
        """Nobody is left."""
        for inside in list(self._all):
            await self._end(inside)

    async def _start(self) -> Inside:
        # Workers that are processes import it for themselves.
        with uncollected():
            from edgecache.workers import start_worker

        common, config = self._common, self._config()
        ours, theirs = pair(self._loop.call_soon)
        taken = [other.block for other in self._all]
        block = 1 if 0 in taken else 0
        public, content = self._prepared.public.by_worker[0], self._prepared.content.by_worker[0]
        # The loop knows one reader for each descriptor.
        sockets = [sock.dup() for sock in (*public, *content)]
        inside = Inside(block, secrets.randbits(63), ours, Page.open(common.page.path, block), sockets)
        self._all.append(inside)
        parts = WorkerParts(
            config=config,
            index=0,
            count=1,
            spawn=inside.spawn,
            data=config.node.data,
            page=inside.page,
            environments=common.environments.as_they_are(),
            channel=theirs,
            sockets=inside.sockets[: len(public)],
            owner_socket=None,
            owner_paths=[],
            reactor=self._reactor,
            loop=self._loop,
            content=inside.sockets[len(public) :],
        )
        starting = Deferred.fromCoroutine(start_worker(parts))
        # After it has said what it listens to on the channel.
        common.serve(ours)
        try:
            inside.worker = await starting
        except BaseException:
            self._gone(inside)
            raise
        return inside

    async def _end(self, inside: Inside) -> None:
        await inside.worker.stop()
        self._gone(inside)

    def _gone(self, inside: Inside) -> None:
        self._all.remove(inside)
        inside.close()
        self._common.page.clear(inside.block)
