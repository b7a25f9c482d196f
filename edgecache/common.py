"""
What a node has once, whatever the number of its workers: store, page, purges, resolver, admin API.

It lives in the node process and knows nothing of how workers are run.
"""

from __future__ import annotations

import math
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from edgecache.admin.parts import AdminParts, UpstreamCounts, UpstreamState, WorkerState
from edgecache.admin.publicbypass import PublicBypass
from edgecache.admin.publicpurges import PublicPurges
from edgecache.admin.site import listen
from edgecache.admin.tokens import ADMIN_FILE, Tokens
from edgecache.admin.uploads import Uploads
from edgecache.fleet import Fleet, entry_octets
from edgecache.following import Followers
from edgecache.processes.background import background
from edgecache.processes.channel import Channel, Payload
from edgecache.processes.timers import boot_clock
from edgecache.rules.health import State
from edgecache.rules.sites import Sites
from edgecache.siblings.content import content_origins
from edgecache.siblings.groups import GroupSharing
from edgecache.siblings.pace import Pace
from edgecache.siblings.purger import LoneNode, Purger
from edgecache.store.collecting import Collector
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.folding import Downloads
from edgecache.store.page import FREE, PageWriter
from edgecache.store.threads import OneThread
from edgecache.upstream.addresses import origins_of
from edgecache.upstream.client import Client
from edgecache.upstream.dialing import Dialer
from edgecache.upstream.linkhosts import LINK_SLOTS, LinkHosts
from edgecache.upstream.resolving import Resolver, thread_look_up
from edgecache.upstream.roster import Roster
from edgecache.upstream.watching import Watch
from edgecache.words.config import Config
from edgecache.words.ports import Timers

_log = Logger()

RUN = "run"
"""Below the data directory: what means nothing after this life of the node."""

_RESOLVING_THREADS = 8
_LINK_THREADS = 4
_FIRST_NAMES_SECONDS = 3.0
"""Workers begin without addresses when names take longer than this."""


@define(eq=False)
class Common:
    """
    :ivar page: written here, read by every worker.
    :ivar spawns: numbers of the workers that may still write.
    :ivar workers: what the admin API shows of them.
    :ivar tell: notifies every worker.
    """

    config: Config
    environments: Environments
    page: PageWriter
    control: Control
    collector: Collector
    _timers: Timers
    _reactor: Any
    _threads: list[OneThread]
    _purger: Purger
    _fleet: Fleet | None
    _watch: Watch
    _groups: GroupSharing
    _workers: Callable[[], list[WorkerState]]
    _downloads: Downloads | None
    _pool: ThreadPool = field(factory=lambda: ThreadPool(0, _RESOLVING_THREADS, "resolver"))
    # Names in pages that take long to look up must not keep those of the origins waiting.
    _link_pool: ThreadPool = field(factory=lambda: ThreadPool(0, _LINK_THREADS, "link resolver"))
    _resolver: Resolver = field(init=False)
    _links: LinkHosts = field(init=False)
    _followers: Followers = field(init=False)
    _ports: list[IListeningPort] = field(factory=list)
    _unready: str | None = "The node is starting."
    _public_purges: PublicPurges | None = None
    _bypass: PublicBypass | None = None
    _uploads: Uploads | None = None
    _tell: Callable[..., None] = field(init=False)

    @classmethod
    def open(
        cls,
        config: Config,
        reactor: Any,
        timers: Timers,
        dialer: Dialer,
        *,
        spawns: Callable[[], set[int]],
        workers: Callable[[], list[WorkerState]],
        tell: Callable[..., None],
    ) -> Common:
        """
        Open the store and publish where this node stands; no worker may be running yet.

        :param dialer: for probes of upstreams.
        :raises EdgeError: the store, or control, cannot be opened.
        """
        data = config.node.data
        environments = Environments.open(data, config.store, node_process=True)
        page = PageWriter.create(os.path.join(data, RUN, "page"), config.node.workers)
        committing, collecting = (OneThread.named(reactor, name) for name in ("control", "collector"))
        control = Control.open(
            environments.control, page, committing, node_id=config.node.id, incarnation=environments.incarnation
        )
        collector = Collector(environments, page, config.store, spawns, timers, collecting)
        fleet = None if config.siblings is None else Fleet.open(config, control, page, reactor, timers, boot_clock)
        spread = LoneNode(config.node.id) if fleet is None else fleet.mesh
        most = math.inf if config.siblings is None else entry_octets(config.siblings)
        purger = Purger(control, Sites(config), config.purge, timers, time.time, spread=spread, entry_octets=most)
        groups = GroupSharing(control, purger, timers, Pace(config.purge.shared_groups_per_second))
        roster = Roster(config.sites, config.upstream, content_origins(config))
        watch = Watch(
            roster,
            Client(dialer, timers, config.upstream, siblings=None if fleet is None else fleet.trust),
            timers,
            time.time,
            config.upstream,
            page.set_health,
            tell,
            lambda: random.uniform(-1.0, 1.0),
        )
        counting = OneThread.named(reactor, "downloads")
        downloads = Downloads.of(config, timers, counting) if config.counts_downloads else None
        threads = [committing, collecting, counting]
        common = cls(
            config,
            environments,
            page,
            control,
            collector,
            timers,
            reactor,
            threads,
            purger,
            fleet,
            watch,
            groups,
            workers,
            downloads,
        )

        common._tell = tell

        def named(_: dict[str, Any]) -> None:
            # In this order: a worker that hears of an address finds its own word in the page.
            document = common._addresses()
            watch.follow(document)
            tell("addresses", **document)

        origins = [origin for site in config.sites for origin in origins_of(site)] + content_origins(config)
        common._resolver = Resolver(
            origins,
            timers,
            config.upstream,
            thread_look_up(reactor, common._pool),
            named,
            range(LINK_SLOTS.start),
        )
        linked = Resolver((), timers, config.upstream, thread_look_up(reactor, common._link_pool), named, LINK_SLOTS)
        # A list of 700,000 projects takes a while.
        following = OneThread.named(reactor, "follower")
        if any(site.follow_seconds for site in config.sites):
            threads.append(following)
        common._followers = Followers.of(
            config,
            Client(dialer, timers, config.upstream),
            control,
            page,
            timers,
            boot_clock,
            time.time,
            following,
            common._addresses,
            common._in_service,
        )
        common._links = LinkHosts(frozenset(origin.name for origin in origins), linked, roster, timers)
        return common

    async def start(self, sockets: list[socket.socket], siblings: list[socket.socket]) -> None:
        """
        Begin to collect, to resolve, to speak to siblings and to answer operators.

        :param sockets: of the admin listener; they are closed here, the reactor has its own copies.
        :param siblings: of the listener for siblings' calls, likewise.
        """
        for thread in self._threads:
            thread.start()
        self._pool.start()
        self._link_pool.start()
        if self._fleet is None:
            # A lone node's purges are all its own: whatever it published holds, also once it has siblings.
            await self.control.admit()
            self.page.publish_fresh_until(FREE)
        tokens = Tokens(self.control, os.path.join(self.config.node.data, ADMIN_FILE))
        await tokens.load()
        self.collector.start()
        if self._downloads is not None:
            self._downloads.start()
        if self._fleet is not None:
            await self._fleet.start(siblings)
        parts = AdminParts(
            config=self.config,
            control=self.control,
            page=self.page,
            purger=self._purger,
            tokens=tokens,
            collector=self.collector,
            timers=self._timers,
            wall=time.time,
            workers=self._workers,
            upstreams=self._upstreams,
            upstream_counts=self._upstream_counts,
            lease=lambda: self.page.fresh_until - boot_clock(),
            siblings=list if self._fleet is None else self._fleet.siblings,
            followers=self._followers.views,
            groups=lambda: {outcome.value: count for outcome, count in self._groups.counts.items()},
            ready=lambda: self._unready,
            downloads=self._downloads,
        )
        self._groups.told = lambda answer, new: parts.audit.purged(
            answer, new, peer="", front="Cache-Group-Invalidation"
        )
        self._public_purges = PublicPurges.of(parts)
        bypass = self._bypass = PublicBypass.of(parts)
        self._uploads = Uploads(parts)
        tokens.changed = lambda: self._tell("bypass-tokens", digests=bypass.digests)
        self._ports += listen(parts, self._reactor, sockets)
        await self._first_names()
        self._followers.start()

    def ready(self) -> None:
        """Every worker accepts."""
        self._unready = None

    def serve(self, channel: Channel) -> None:
        """Answer a new worker, and tell it what it must know."""
        channel.on("invalidate", self._invalidate)
        channel.on("share", self._share)
        channel.on("outcomes", self._watch.outcomes)
        channel.on("list", self._followers.hurry)
        if self._fleet is not None:
            channel.on("behind", self._fleet.mesh.catch_up)
        if self._public_purges is not None:
            channel.on("purge", self._public_purges.purge)
        if self._bypass is not None:
            channel.on("bypass", self._bypass.ask)
        if self._uploads is not None:
            channel.on("uploaded", self._uploads.uploaded)
        if self._bypass is not None:
            channel.notify("bypass-tokens", digests=self._bypass.digests)
        channel.on("link", lambda origin: self._links.announce(origin))
        channel.notify("addresses", **self._addresses())

    async def stop(self) -> None:
        """After the last worker: nobody may need anything of this any more."""
        self._followers.stop()
        self._resolver.stop()
        self._links.stop()
        self._watch.stop()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        if self._fleet is not None:
            await self._fleet.stop()
        await self.collector.stop()
        if self._downloads is not None:
            await self._downloads.stop()
        await self.control.close()
        for thread in self._threads:
            thread.stop()
        self._pool.stop()
        self._link_pool.stop()
        self.environments.close()
        self.page.close()

    async def _invalidate(self, rows: list[tuple[str, int, int]]) -> Payload:
        """Of this node only (RFC 9111 §4.4): an unsafe method went through. Answered once it is published."""
        epoch = await self.control.local([(bytes.fromhex(selector), key, mode) for selector, key, mode in rows])
        return {"epoch": epoch}

    async def _share(self, selectors: list[str]) -> None:
        """Of groups that an origin has named, also at the siblings. Answered once it is published here."""
        await self._groups.share([bytes.fromhex(selector) for selector in selectors])

    def _addresses(self) -> dict[str, Any]:
        """Of the origins, and of the hosts that pages link to."""
        return {"origins": {**self._links.addresses, **self._resolver.document["origins"]}}

    async def _first_names(self) -> None:
        """Wait for the first addresses: what is asked meanwhile waits in the listening sockets."""
        waited: Deferred[None] = Deferred()

        def enough(*_: object) -> None:
            if not waited.called:
                waited.callback(None)

        timer = self._timers.callLater(_FIRST_NAMES_SECONDS, enough)
        background(self._resolver.start().addCallback(enough), "resolve origins")
        background(self._links.start(), "resolve hosts that pages link to")
        await waited
        timer.cancel()

    def _in_service(self, slot: int) -> bool:
        condition = self._watch.condition(slot)
        return condition is None or condition.state.in_service

    def _upstreams(self) -> list[UpstreamState]:
        found = self._addresses()["origins"]
        origins = [origin.name for site in self.config.sites for origin in origins_of(site)]
        origins += (origin.name for origin in content_origins(self.config))
        origins += self._links.names
        return [
            self._upstream(origin, host, port, slot)
            for origin in dict.fromkeys(origins)
            for host, port, slot in found.get(origin) or [("", 0, -1)]
        ]

    def _upstream(self, origin: str, host: str, port: int, slot: int) -> UpstreamState:
        if not host:
            return UpstreamState(origin, "", False, "no address is known", state="unresolved")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        condition = self._watch.condition(slot)
        if condition is None:
            # More addresses than the page has room for.
            return UpstreamState(origin, address, state="unwatched")
        # What is monotonic here is wall time for people.
        offset = time.time() - self._timers.seconds()
        probe = condition.next_probe_at
        return UpstreamState(
            origin,
            address,
            condition.state.in_service,
            "" if condition.state is State.HEALTHY else condition.reason,
            state=condition.state.value,
            reason=condition.reason,
            since=offset + condition.since,
            next_probe_at=None if probe is None else offset + probe,
            ejections=condition.ejections,
        )

    def _upstream_counts(self) -> UpstreamCounts:
        return UpstreamCounts(
            {(origin, kind.value): count for (origin, kind), count in self._watch.outcomes_seen.items()},
            {(origin, kind.value): count for (origin, kind), count in self._watch.ejections_seen.items()},
        )
