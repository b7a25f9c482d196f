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
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from twisted.logger import Logger

from edgecache.admin.address import ADMIN_FILE
from edgecache.admin.parts import AdminParts, ReloadState, UpstreamState, WorkerState
from edgecache.admin.tokens import Tokens
from edgecache.following import Followers
from edgecache.looking import Looking
from edgecache.naming import Naming
from edgecache.operating import Operating
from edgecache.processes.channel import Channel
from edgecache.processes.timers import boot_clock
from edgecache.rules.selectors import each_site, everything, rows_of
from edgecache.rules.sites import Sites
from edgecache.siblings.groups import GroupSharing
from edgecache.siblings.origins import content_origins
from edgecache.siblings.pace import Pace
from edgecache.siblings.purger import LoneNode, Purger
from edgecache.store.collecting import Collector
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.folding import Downloads
from edgecache.store.ledger import Ledger
from edgecache.store.owed import Owed
from edgecache.store.pagelayout import FREE
from edgecache.store.pagewriter import PageWriter
from edgecache.store.threads import OneThread
from edgecache.upstream.addresses import Origin, origins_of
from edgecache.upstream.client import Client
from edgecache.upstream.dialing import Dialer
from edgecache.upstream.roster import Roster
from edgecache.upstream.watching import Watch
from edgecache.upstreamstates import upstream_counts, upstream_states
from edgecache.words.config import Config, SiteSettings, UpstreamSettings
from edgecache.words.errors import ControlFailed
from edgecache.words.ports import Timers
from edgecache.words.reasons import PurgeMode

if TYPE_CHECKING:
    from edgecache.fleet import Fleet

_log = Logger()

RUN = "run"
"""Below the data directory: what means nothing after this life of the node."""
PAGE = "page"
"""There: the mapped page."""


@define(eq=False, repr=False)
class Common:
    """
    :ivar page: written here, read by every worker.
    :ivar spawns: numbers of the workers that may still write.
    :ivar workers: what the admin API shows of them.
    :ivar reloaded: and of the last reload.
    :ivar tell: notifies every worker.
    :ivar given_up: told, again and again, of a worker and an environment that LMDB has given up in it.
    """

    config: Config
    environments: Environments
    page: PageWriter
    control: Control
    collector: Collector
    _timers: Timers
    _dialer: Dialer
    _reactor: Any
    _threads: list[OneThread]
    _purger: Purger
    _fleet: Fleet | None
    _roster: Roster
    _watch: Watch
    _groups: GroupSharing
    _workers: Callable[[], list[WorkerState]]
    _reloaded: Callable[[], ReloadState | None]
    _downloads: Downloads | None
    _tell: Callable[..., None]
    # A list of 700,000 projects takes a while.
    _following: OneThread
    _naming: Naming = field(init=False)
    _followers: Followers = field(init=False)
    _looking: Looking = field(init=False)
    _owed: Owed = field(init=False)
    _operating: Operating | None = None
    given_up: Callable[[int, str], None] = lambda index, name: None
    _stopped: bool = False

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
        reloaded: Callable[[], ReloadState | None],
        tell: Callable[..., None],
    ) -> Common:
        """
        Open the store and publish where this node stands; no worker may be running yet.

        :param dialer: for probes of upstreams.
        :raises EdgeError: the store, or control, cannot be opened.
        """
        data = config.node.data
        environments = Environments.open(data, config.store, node_process=True)
        page = PageWriter.create(os.path.join(data, RUN, PAGE), config.node.workers)
        committing, collecting = (OneThread.named(reactor, name) for name in ("control", "collector"))
        control = Control.open(
            environments.control, page, committing, node_id=config.node.id, incarnation=environments.incarnation
        )
        collector = Collector(environments, page, config.store, spawns, timers, collecting)
        fleet, most = None, math.inf
        if config.siblings is not None:
            # A node without siblings starts without what speaks to them, either.
            from edgecache.fleet import Fleet, entry_octets

            fleet = Fleet.open(config, control, page, reactor, timers, boot_clock)
            most = entry_octets(config.siblings)
        spread = LoneNode(config.node.id) if fleet is None else fleet.mesh
        purger = Purger(control, Sites(config), config.purge, timers, time.time, spread=spread, entry_octets=most)
        groups = GroupSharing(control, purger, timers, Pace(config.purge.shared_groups_per_second))
        roster = Roster(config.sites, config.upstream, content_origins(config))
        watch = Watch(
            roster,
            _prober(config, dialer, timers, fleet),
            timers,
            time.time,
            config.upstream,
            page.set_health,
            tell,
            lambda: random.uniform(-1.0, 1.0),
        )
        if fleet is not None:
            fleet.mesh.when_heard_again(watch.heard_again)
        counting = OneThread.named(reactor, "downloads")
        downloads = Downloads.of(config, timers, counting) if config.counts_downloads else None
        following = OneThread.named(reactor, "follower")
        common = cls(
            config,
            environments,
            page,
            control,
            collector,
            timers,
            dialer,
            reactor,
            [committing, collecting, counting, following],
            purger,
            fleet,
            roster,
            watch,
            groups,
            workers,
            reloaded,
            downloads,
            tell,
            following,
        )
        common._naming = Naming.of(reactor, timers, config.upstream, _origins(config), roster, common._named)
        common._followers = common._followers_of(config)
        common._owed = Owed(control.local, page, timers, committing, everything(Sites(config)), Ledger.opened(data))
        common._looking = Looking.of(
            lambda: common.config,
            environments,
            control.read,
            page.path,
            reactor,
            timers,
            time.time,
            boot_clock,
            lambda: common._naming.document["origins"],
        )
        return common

    async def start(self, siblings: list[socket.socket]) -> None:
        """
        Begin to collect, to resolve and to speak to siblings; then workers can be started.

        :param siblings: of the listener for their calls; they are closed here, the reactor has its own copies.
        """
        for thread in self._threads:
            thread.start()
        self._owed.start()
        self._naming.open()
        if self._fleet is None:
            # A lone node's purges are all its own: whatever it published holds, also once it has siblings.
            if not self.control.read.admitted():
                await self.control.admit()
            self.page.publish_fresh_until(FREE)
        await self.control.serve(each_site(Sites(self.config)))
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
            upstream_counts=lambda: upstream_counts(self._watch),
            reloaded=self._reloaded,
            lease=lambda: self.page.fresh_until - boot_clock(),
            siblings=list if self._fleet is None else self._fleet.siblings,
            # Those of now: a reload makes others.
            followers=lambda: self._followers.views(),
            groups=lambda: {outcome.value: count for outcome, count in self._groups.counts.items()},
            downloads=self._downloads,
            scrubbing=self._looking.scrubbing,
            explain=self._looking.explain,
            objects=self._looking.objects,
        )
        self._groups.told = lambda answer, new: parts.audit.purged(
            answer, new, peer="", front="Cache-Group-Invalidation"
        )
        self._operating = Operating.of(parts, self._reactor, self._tell)
        await self._naming.start()
        if not self._stopped:
            self._followers.start()

    def operate(self, sockets: list[socket.socket]) -> None:
        """:param sockets: of the admin listener; they are closed here, the reactor has its own copies."""
        assert self._operating is not None, "started"
        self._looking.start()
        self._operating.listen(sockets)

    def ready(self) -> None:
        """Every worker accepts."""
        assert self._operating is not None, "started"
        self._operating.ready()

    def serve(self, channel: Channel) -> None:
        """Answer a new worker, and tell it what it must know."""
        channel.on("outdated", self._outdated)
        channel.on("share", self._share)
        channel.on("outcomes", self._watch.outcomes)
        channel.on("popular", self._looking.objects.popular)
        channel.on("unstored", self._looking.unstored)
        channel.on("given-up", lambda index, name: self.given_up(index, name))
        channel.on("list", lambda site: self._followers.hurry(site))
        if self._fleet is not None:
            channel.on("behind", self._fleet.mesh.catch_up)
        if self._operating is not None:
            self._operating.serve(channel)
        channel.on("link", self._naming.announce)
        channel.notify("addresses", **self._naming.document)

    async def follow(self, config: Config, leaving: Config | None = None) -> None:
        """
        From now on these settings, as far as a running node can take them over (:mod:`edgecache.words.changes`).

        :param leaving: workers that are yet to be replaced have these, and must lack nothing. Then call it once more.
        :raises ConfigError: certificates or members cannot be used; all is as it was.
        :raises ControlFailed: with ``leaving``: sites are others, and that cannot be written; all is as it was.
        """
        configs = [config] if leaving is None else [config, leaving]
        origins = [origin for each in configs for origin in _origins(each)]
        siblings = dict.fromkeys(origin for each in configs for origin in content_origins(each))
        sites = dict.fromkeys(site for each in configs for site in each.sites)
        named = evolve(config, sites=tuple({site.name: site for site in reversed(sites)}.values()))
        # Before a worker serves one that is new; and before anything else, as that may have to be refused.
        purged = await self._serve(Sites(named), last=leaving is None)
        if self._fleet is not None:
            await self._fleet.follow(config, purged)
        self._roster.configured(tuple(sites), config.upstream, tuple(siblings))
        self._watch.configured(config.upstream, _prober(config, self._dialer, self._timers, self._fleet))
        self._purger.configured(purged, config.purge)
        self._groups.pace = Pace(config.purge.shared_groups_per_second)
        if self._downloads is not None:
            self._downloads.configured(named)
        if leaving is not None and _followed(leaving) != _followed(config):
            # Workers take the word about a site by its place among all, which may be another one for each of them.
            self._followers.stop()
            self._followers = self._followers_of(None)
        self.config = config
        if self._operating is not None:
            self._operating.parts.config = config
        await self._naming.follow(origins, config.upstream)
        self._named()
        if leaving is None and self._followers.empty:
            self._followers = self._followers_of(config)
            self._followers.start()

    async def _serve(self, sites: Sites, *, last: bool) -> Sites:
        """
        :param last: all of them are known already.
        :return: those that purges are for from now on.
        """
        try:
            await self.control.serve(each_site(sites))
        except ControlFailed as error:
            if not last:
                raise
            _log.error("purges still name sites that are gone, until the next reload: {error}", error=error)
            return self._purger.sites
        return sites

    async def stop(self) -> None:
        """After the last worker: nobody may need anything of this any more."""
        self._stopped = True
        self._followers.stop()
        self._naming.stop()
        self._watch.stop()
        if self._operating is not None:
            await self._operating.stop()
        self._looking.stop()
        if self._fleet is not None:
            await self._fleet.stop()
        await self.collector.stop()
        if self._downloads is not None:
            await self._downloads.stop()
        self._owed.stop()
        await self.control.close()
        for thread in self._threads:
            thread.stop()
        self._owed.close()
        self._naming.close()
        self.environments.close()
        self.page.close()

    async def _outdated(self, rows: list[tuple[str, int, int]]) -> None:
        """
        Of this node only: an unsafe method went through (RFC 9111 §4.4), or documents of a project tell that it has
        moved on. Nobody can take that back. Answered once it is published, or nothing is fresh.
        """
        await self._owed.local([(bytes.fromhex(selector), key, mode) for selector, key, mode in rows])

    async def _share(self, selectors: list[str]) -> None:
        """Of groups that an origin has named, also at the siblings. Answered once it is published here."""
        canonical = [bytes.fromhex(selector) for selector in selectors]
        try:
            await self._groups.share(canonical)
        except ControlFailed:
            await self._owed.local(rows_of(canonical, PurgeMode.DELETE))

    def _named(self) -> None:
        """A name has other addresses. In this order: a worker that hears of one finds its own word in the page."""
        document = self._naming.document
        self._watch.follow(document)
        self._tell("addresses", **document)

    def _followers_of(self, config: Config | None) -> Followers:
        """:param config: ``None``: none, for now."""
        return Followers.of(
            config or evolve(self.config, sites=()),
            Client(self._dialer, self._timers, (config or self.config).upstream),
            self.control,
            self.page,
            self._timers,
            boot_clock,
            time.time,
            self._following,
            lambda: self._naming.document,
            self._in_service,
        )

    def _in_service(self, slot: int) -> bool:
        condition = self._watch.condition(slot)
        return condition is None or condition.state.in_service

    def _upstreams(self) -> list[UpstreamState]:
        names = {origin.name: origin.sibling for origin in _origins(self.config)}
        for linked in self._naming.linked:
            names.setdefault(linked, "")
        offset = time.time() - self._timers.seconds()
        return upstream_states(names, self._naming.document["origins"], self._watch, offset)


def _origins(config: Config) -> list[Origin]:
    """:return: all that are asked, the siblings included."""
    return [origin for site in config.sites for origin in origins_of(site)] + content_origins(config)


def _followed(config: Config) -> tuple[list[tuple[int, SiteSettings]], UpstreamSettings]:
    """:return: what followers are made of."""
    return [(place, site) for place, site in enumerate(config.sites) if site.follow_seconds], config.upstream


def _prober(config: Config, dialer: Dialer, timers: Timers, fleet: Fleet | None) -> Client:
    """:return: the node process's own client, for probes."""
    return Client(dialer, timers, config.upstream, siblings=None if fleet is None else fleet.trust)
