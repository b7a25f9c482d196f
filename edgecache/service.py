"""
The node process: what a node has once, and the supervision of its workers (DESIGN 4).

:func:`prepare` does what must be done before twistd goes into the background and sheds its
privileges; :class:`NodeService` does the rest, or :class:`edgecache.voting.VoterService`.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.admin.parts import WorkerState
from edgecache.common import RUN, Common
from edgecache.fleet import membership
from edgecache.processes.background import background
from edgecache.processes.channel import Channel, Payload, pair
from edgecache.processes.datalock import DataLock, lock_data, make_data
from edgecache.processes.loop import reap_children
from edgecache.processes.sockets import OwnerSockets, PublicSockets, bind_once
from edgecache.processes.supervising import QUIET_SECONDS, Supervisor
from edgecache.processes.timers import LoopTimers
from edgecache.siblings.identity import Identity
from edgecache.store import disk
from edgecache.store.page import Page
from edgecache.upstream.dialing import LoopDialer
from edgecache.upstream.tls import client_context
from edgecache.wire.tls import tls_context
from edgecache.words.config import GIB, Access, Config
from edgecache.words.endpoints import endpoint, origin_url
from edgecache.words.errors import EdgeError, StartError
from edgecache.words.reading import plain
from edgecache.workers import Worker, WorkerParts, start_worker

_log = Logger()

WORKER_MODULE = "edgecache.worker_main"
_INSIDE = secrets.randbits(63)
"""The spawn number of ``--workers 0``: new at each start, as those of processes are."""
_RESERVED_FILES = 1024
"""Descriptors besides clients' connections and the upstreams': environments, pipes, logs, admin."""


@frozen(eq=False)
class Prepared:
    """What :func:`prepare` has taken hold of."""

    config: Config
    lock: DataLock
    public: PublicSockets
    admin: list[Any]
    siblings: list[Any]
    content: PublicSockets
    owners: OwnerSockets

    def release(self) -> None:
        """Listen no more: workers have copies of these sockets."""
        self.public.close()
        self.content.close()
        for sock in self.owners.sockets:
            sock.close()

    @property
    def paths(self) -> list[str]:
        """What was made on disk, directories first."""
        data = self.config.node.data
        return [data, self.lock.path, os.path.join(data, RUN), *self.owners.paths]


def check(config: Config) -> None:
    """
    What ``--check`` looks at besides the settings themselves: the files that they name.

    :raises ConfigError: one cannot be used.
    """
    if config.tls is not None:
        tls_context(config.tls)
    if config.siblings is not None:
        membership(config)
        Identity.load(config.siblings, config.node.id)
    if config.upstream.ca is not None or config.upstream.client_certificate is not None:
        client_context(config.upstream)


def prepare(
    config: Config, *, inspect: Callable[[str], disk.Disk] = disk.inspect, on_wait: Callable[[], None] = lambda: None
) -> Prepared:
    """
    Check and take everything that can be refused: certificate, data directory, ports. Blocks.

    :param on_wait: called when another node holds the data directory and may be going down.
    :raises StartError: one line for the operator.
    """
    check(config)
    data = config.node.data
    make_data(data)
    network = inspect(data).network
    if network is not None:
        raise StartError(f"the data directory {data} is on a network file system ({network}); it must be a local one")
    # Before the ports: those of a node that is going down become free with its lock.
    lock = lock_data(data, config.node.lease_seconds, on_wait=on_wait)
    public = PublicSockets.bind([endpoint(text) for text in config.listen.public], config.node.workers)
    admin = bind_once([endpoint(text) for text in config.listen.admin])
    siblings = bind_once([endpoint(text) for text in config.listen.siblings])
    content = PublicSockets.bind([endpoint(text) for text in config.listen.content], config.node.workers)
    make_data(os.path.join(data, RUN))
    owners = OwnerSockets.bind(os.path.join(data, RUN), config.node.workers)
    _raise_file_limit(config)
    return Prepared(config, lock, public, admin, siblings, content, owners)


def _raise_file_limit(config: Config) -> None:
    """Workers inherit it: a connection is a descriptor, and so is its upstream's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = (config.limits.connections if config.listen.public else 0) + _RESERVED_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.warn(
            "only {hard} files may be open per process; [limits] connections = {connections} may need {wanted}",
            hard=hard,
            connections=config.limits.connections,
            wanted=wanted,
        )


@define(eq=False)
class MemberService(Service, ABC):
    """
    What twistd runs: starts what it is, or says in one line why not.

    :ivar prepared: what was taken before.
    :ivar foreground: an error at the start goes to standard error; in the background twistd tells it.
    """

    prepared: Prepared
    reactor: Any
    loop: asyncio.AbstractEventLoop
    foreground: bool = True

    @property
    def config(self) -> Config:
        """Of this node."""
        return self.prepared.config

    def startService(self) -> None:
        """
        Open the store and start everything.

        :raises SystemExit: the node cannot start; one line was written.
        """
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no types here
        try:
            self.prepared.lock.sign()
            self.open()
        except EdgeError as error:
            self._complain(error)
            if not self.foreground:
                raise
            raise SystemExit(1) from None
        # Signals are the reactor's to set up when it begins to run.
        self.reactor.callWhenRunning(self._begin)

    @abstractmethod
    def open(self) -> None:
        """
        Open what is on disk; nothing runs yet.

        :raises EdgeError: it cannot be.
        """

    @abstractmethod
    async def run(self) -> None:
        """
        Start everything.

        :raises EdgeError: it cannot be.
        """

    def _begin(self) -> None:
        _ = Deferred.fromCoroutine(self._run()).addErrback(self._crashed)

    async def _run(self) -> None:
        signal.signal(signal.SIGHUP, self._reload)
        try:
            await self.run()
        except EdgeError as error:
            self._give_up(error)

    def _crashed(self, failure: Failure) -> None:
        """A bug: half a node is worse than none."""
        _log.failure("the start failed", failure)
        self._give_up(StartError(failure.getErrorMessage()))

    def _reload(self, *_: Any) -> None:
        _log.warn("SIGHUP: settings are read at the start only; restart the node to change them")

    def _complain(self, error: Exception) -> None:
        _log.critical("cannot start: {error}", error=error)
        if self.foreground and sys.__stderr__ is not None:
            # twistd has put its log in the place of sys.stderr.
            sys.__stderr__.write(f"edgecache: {error}\n")
            sys.__stderr__.flush()

    def _give_up(self, error: Exception) -> None:
        """Stop, with exit status 1: twistd itself would end with 0."""
        self._complain(error)
        self.reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self.reactor.stop()


@define(eq=False)
class NodeService(MemberService):
    """A node that serves."""

    common: Common = field(init=False)
    _supervisor: Supervisor | None = None
    _inside: Worker | None = None
    _channel: Channel | None = None
    _hurried: bool = False

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
            tell=self._tell,
        )

    async def run(self) -> None:
        """See :class:`MemberService`."""
        reap_children(self.loop)
        await self.common.start(self.prepared.admin, self.prepared.siblings)
        if self.config.node.workers:
            self._supervisor = self._supervise()
            await self._supervisor.start()
        else:
            await self._start_inside()
        self.common.ready()
        _log.info("ready: {public}", public=" ".join(self.prepared.public.addresses))

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

    def _spawns(self) -> set[int]:
        return {_INSIDE} if self._supervisor is None else self._supervisor.spawns()

    def _tell(self, op: str, **payload: Any) -> None:
        if self._supervisor is not None:
            self._supervisor.tell(op, **payload)
        elif self._channel is not None:
            self._channel.notify(op, **payload)

    def _states(self) -> list[WorkerState]:
        if self._supervisor is None:
            return [WorkerState(0, os.getpid(), self._inside is not None)]
        now, wall = LoopTimers(self.loop).seconds(), time.time()
        return [
            WorkerState(worker.index, worker.pid, worker.ready, wall - (now - worker.born), worker.deaths)
            for worker in self._supervisor.workers
        ]

    async def _start_inside(self) -> None:
        """``--workers 0``: the same worker, in this process."""
        self._channel, theirs = pair(self.loop.call_soon)
        parts = WorkerParts(
            config=self.config,
            index=0,
            count=1,
            spawn=_INSIDE,
            data=self.config.node.data,
            page=Page.open(self.common.page.path, 0),
            environments=self.common.environments,
            channel=theirs,
            sockets=self.prepared.public.by_worker[0],
            owner_socket=None,
            owner_paths=[],
            reactor=self.reactor,
            loop=self.loop,
            content=self.prepared.content.by_worker[0],
        )
        starting = Deferred.fromCoroutine(start_worker(parts))
        # After it has said what it listens to on the channel.
        self.common.serve(self._channel)
        self._inside = await starting

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
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hurry)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        seconds = self.config.limits.drain_seconds
        _log.info("stopping; connections may take {seconds:g} s to finish", seconds=seconds)
        self.common.page.set_draining(True)
        ends: list[Deferred[Any]] = []
        if self._supervisor is not None:
            ends.append(self._supervisor.stop(seconds))
        if self._inside is not None:
            ends.append(Deferred.fromCoroutine(self._inside.drain(seconds, QUIET_SECONDS, last=True)))
        # Workers let in who waits already, and close theirs: new connections are refused, and go elsewhere.
        self.prepared.release()
        await gatherResults(ends)
        if self._inside is not None:
            await self._inside.stop()
        self.prepared.owners.close()
        await self.common.stop()
        _log.info("stopped")

    def _hurry(self, *_: Any) -> None:
        """Asked twice to stop: do not wait for clients any longer."""
        if self._supervisor is None:
            # As a kill, which loses nothing that is committed.
            os._exit(1)
        if not self._hurried:
            self._hurried = True
            background(self._supervisor.stop(0.0), "stop at once")


def shown(sock: Any) -> str:
    """:return: where a socket listens, for people."""
    name = sock.getsockname()
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
