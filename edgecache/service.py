"""
The node process: what a node has once, and the supervision of its workers (DESIGN 4).

:mod:`edgecache.preparing` does what must be done before twistd goes into the background and sheds its
privileges; :class:`NodeService` does the rest, or :class:`edgecache.voting.VoterService`.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger

from edgecache.admin.parts import WorkerState
from edgecache.common import Common
from edgecache.inside import Insiders
from edgecache.member import MemberService
from edgecache.preparing import shown
from edgecache.processes.background import background
from edgecache.processes.channel import Payload
from edgecache.processes.forking import WORKER_MODULE, Nursery
from edgecache.processes.loop import reap_children
from edgecache.processes.memory import collect_frozen
from edgecache.processes.running import Running
from edgecache.processes.supervising import Supervisor
from edgecache.processes.timers import LoopTimers
from edgecache.store.crashing import SIGNALS, condemn_after
from edgecache.upstream.dialing import LoopDialer
from edgecache.words.config import GIB, Access, Config
from edgecache.words.endpoints import origin_url
from edgecache.words.errors import EdgeError, StartError
from edgecache.words.ports import Timer
from edgecache.words.reading import plain

_log = Logger()

RENEW_SECONDS = 60.0
"""At least so long between two new stores: a disk that damages what is written must not keep workers from serving."""

OPERATORS_WAIT_SECONDS = 3.0
"""So long until every worker accepts; then operators are answered all the same: one of them may never get up."""


@define(eq=False, repr=False)
class NodeService(MemberService):
    """
    A node that serves.

    :ivar nursery: where its first workers are forked from, if it was started already.
    """

    nursery: Nursery | None = None
    common: Common = field(init=False)
    _supervisor: Supervisor | None = None
    _insiders: Insiders | None = None
    _stopping: bool = False
    _hurried: bool = False
    _renewing: bool = False
    # Seconds of the loop.
    _renewed_at: float = -math.inf
    _tried_at: float = -math.inf
    # When the worker of a place was replaced for what LMDB has given up in it; infinity while it is.
    _exchanged_at: dict[int, float] = field(factory=dict)
    # Until operators are answered.
    _operators_wait: Timer | None = None

    def open(self) -> None:
        """See :class:`MemberService`."""
        self._introduce()
        self.common = Common.open(
            self.config,
            self.reactor,
            LoopTimers(self.loop),
            LoopDialer(self.loop),
            spawns=self._spawns,
            workers=self._states,
            reloaded=lambda: self.reloads.last,
            tell=self._tell,
        )
        self.common.collector.damaged = self._damaged
        self.common.given_up = self._given_up

    def spent(self) -> str | None:
        """See :class:`MemberService`."""
        return self.common.environments.spent

    async def run(self) -> None:
        """See :class:`MemberService`."""
        reap_children(self.loop)
        await self.common.start(self.prepared.siblings)
        if self._stopping:
            # What workers would need is closed, or about to be.
            raise StartError("it was asked to stop before it had any workers")
        self._operators_wait = self._timers.callLater(
            OPERATORS_WAIT_SECONDS, lambda: maybeDeferred(self._operate).addErrback(self._crashed)
        )
        if self.config.node.workers:
            self._supervisor = self._supervise()
            await self._supervisor.start()
        else:
            self._insiders = Insiders(self.common, self.prepared, lambda: self.config, self.reactor, self.loop)
            await self._insiders.start()
        self._operate()
        self.common.ready()
        _log.info("ready: {public}", public=" ".join(self.prepared.public.addresses))

    def _operate(self) -> None:
        """Answer operators, unless they are answered already, or the node goes down."""
        waiting, self._operators_wait = self._operators_wait, None
        if waiting is not None:
            waiting.cancel()
            self.common.operate(self.prepared.admin)

    def _supervise(self) -> Supervisor:
        prepared = self.prepared
        owned = [prepared.owners.of(index) for index in range(self.config.node.workers)]
        return Supervisor(
            reactor=self.reactor,
            timers=LoopTimers(self.loop),
            module=WORKER_MODULE,
            lock=prepared.lock.descriptor,
            sockets=[
                [*own, *content, *([owner] if owner else [])]
                for own, content, owner in zip(
                    prepared.public.by_worker, prepared.content.by_worker, owned, strict=True
                )
            ],
            greeting=self._greeting,
            serve=self.common.serve,
            beat=self.common.page.beat,
            gone=self._gone,
            nursery=self.nursery,
            crashed=self._crashed_in,
        )

    def _greeting(self, index: int, block: int, spawn: int) -> Payload:
        return {
            "config": plain(self.config),
            "index": index,
            "block": block,
            "count": self.config.node.workers,
            "spawn": spawn,
            "data": self.config.node.data,
            "page": self.common.page.path,
            "owner_paths": self.prepared.owners.paths,
            "content": len(self.prepared.content.addresses),
        }

    def _gone(self, block: int) -> None:
        """A worker has ended: nobody else can tell what it held."""
        self.common.page.clear(block)

    def _crashed_in(self, running: Running, number: int) -> None:
        """LMDB ends who meets certain damaged pages (:mod:`edgecache.store.crashing`)."""
        # What it had open may have been moved aside since it began, or just now.
        if number not in SIGNALS or self._renewing or running.born < self._renewed_at:
            return
        condemned = condemn_after(self.config.node.data, running.words, f"worker {running.index}")
        if condemned == "control":
            # All that a node does depends on it, and no worker could live.
            self._give_up(StartError("control is damaged: it is moved aside at the next start, which is due now"))

    def _damaged(self) -> None:
        """Small or blobs is condemned: begin anew, without a restart."""
        if not self._renewing and self._timers.seconds() >= self._tried_at + RENEW_SECONDS:
            self._renewing = True
            self.reloads.between(self._renew)

    async def _renew(self) -> None:
        try:
            self._staying = None
            try:
                await self.common.collector.renew()
            finally:
                self._note_files()
            self._tried_at = self._renewed_at = self._timers.seconds()
            _log.warn("store: begun anew; workers are replaced, so that they use it")
            await self._replace(range(max(1, self.config.node.workers)), [])
        except EdgeError as error:
            self._tried_at = self._timers.seconds()
            _log.error("store: {error}; if it is still damaged, it is tried again", error=error)
        finally:
            self._renewing = False

    def _given_up(self, index: int, name: str) -> None:
        """In one worker; the others can use it."""
        now = self._timers.seconds()
        if now >= self._exchanged_at.get(index, -math.inf) + RENEW_SECONDS:
            self._exchanged_at[index] = math.inf
            _log.error("store: LMDB has given up {name} in worker {index}, which is replaced", name=name, index=index)
            self.reloads.between(lambda: self._exchange(index))

    async def _exchange(self, index: int) -> None:
        try:
            await self._replace([index], [])
        except EdgeError as error:
            _log.error("store: {error}; worker {index} is replaced later", error=error, index=index)
        finally:
            self._exchanged_at[index] = self._timers.seconds()

    @property
    def _timers(self) -> LoopTimers:
        return LoopTimers(self.loop)

    def _spawns(self) -> set[int]:
        if self._supervisor is not None:
            return self._supervisor.spawns()
        return set() if self._insiders is None else self._insiders.spawns()

    def _tell(self, op: str, **payload: Any) -> None:
        if self._supervisor is not None:
            self._supervisor.tell(op, **payload)
        elif self._insiders is not None:
            self._insiders.tell(op, **payload)

    def _states(self) -> list[WorkerState]:
        if self._supervisor is None:
            return [WorkerState(0, os.getpid(), self._insiders is not None and self._insiders.serving is not None)]
        now, wall = LoopTimers(self.loop).seconds(), time.time()
        return [
            WorkerState(place.index, place.pid, place.ready, wall - (now - place.born), place.deaths)
            for place in self._supervisor.workers
        ]

    async def take_over(self, config: Config) -> None:
        """See :class:`MemberService`. Every worker is replaced, also when only certificates were renewed."""
        before, replaced = self.config, list[int]()
        places = range(max(1, config.node.workers))
        await self.common.follow(config, before)
        self.config = config
        try:
            await self._replace(places, replaced)
        except Exception:
            self.config = before
            if self._stopping:
                raise
            await self.common.follow(before, config)
            if replaced:
                await self._replace(replaced, [])
            await self.common.follow(before)
            raise
        if self._stopping:
            return
        await self.common.follow(config)
        if self._supervisor is None:
            collect_frozen()

    async def _replace(self, places: Iterable[int], replaced: list[int]) -> None:
        seconds = self.config.limits.drain_seconds
        if self._supervisor is not None:
            await self._supervisor.replace(places, seconds, replaced)
        elif self._insiders is not None:
            await self._insiders.replace(seconds, replaced)

    def _introduce(self) -> None:
        """Who this is, in a few lines."""
        config, prepared = self.config, self.prepared
        where = f" in {config.node.region}" if config.node.region else ""
        _log.info("node {id}{where}, data in {data}", id=config.node.id, where=where, data=config.node.data)
        for site in config.sites:
            _log.info(
                "site {name} ({profile}) for {clients}{hosts}: {origins}",
                name=site.name,
                profile=site.profile.value,
                clients="" if site.access is Access.OPEN else "its clients at ",
                hosts=" ".join(host + site.path for host in site.hosts),
                origins=" ".join(origin_url(url).shown for url in site.origins),
            )
        _log.info(
            "artifacts on {scheme}://{public}, admin on {admin}",
            scheme="https" if config.tls else "http",
            public=" ".join(prepared.public.addresses),
            admin=" ".join(shown(sock) for sock in prepared.admin) or "nothing",
        )
        _log.info(
            "store of {size:.1f} GiB, {workers}",
            size=config.store.size / GIB,
            workers=f"{config.node.workers} workers" if config.node.workers else "no worker processes",
        )

    def stopService(self) -> Deferred[None]:
        """Drain, at most for ``[limits] drain_seconds``; a second SIGTERM or SIGINT ends that."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has no types here
        on_stop_signals(self._hurry)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        seconds = self.config.limits.drain_seconds
        _log.info("stopping; connections may take {seconds:g} s to finish", seconds=seconds)
        self.common.page.set_draining(True)
        if self._operators_wait is not None:
            self._operators_wait.cancel()
            self._operators_wait = None
        ends: list[Deferred[Any]] = []
        if self._supervisor is not None:
            ends.append(self._supervisor.stop(seconds))
        if self._insiders is not None:
            ends.append(Deferred.fromCoroutine(self._insiders.drain(seconds)))
        # Workers let in who waits already, and close theirs: new connections are refused, and go elsewhere.
        self.prepared.release()
        # It has nobody to wait for any longer than we do, and must not find anything closed.
        ends.append(Deferred.fromCoroutine(self.reloads.stop()))
        await gatherResults(ends)
        if self._insiders is not None:
            await self._insiders.stop()
        self.prepared.owners.close()
        self._thread.stop()
        await self.common.stop()
        _log.info("stopped")

    def _hurry(self) -> None:
        """Asked twice to stop: do not wait for clients any longer."""
        if self._supervisor is None:
            # As a kill, which loses nothing that is committed.
            os._exit(1)
        if not self._hurried:
            self._hurried = True
            background(self._supervisor.stop(0.0), "stop at once")


def on_stop_signals(act: Callable[[], None]) -> None:
    """
    From now on a SIGTERM or SIGINT is this.

    A plain function is what is installed: at the end twistd puts the default back, and Python then writes out the old
    handler (of which it keeps nothing). With a method that is all that the node has in memory, for minutes.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())
