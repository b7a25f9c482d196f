"""
Composition of a voter (DESIGN 9): a member of the fleet that has the purge log and votes, and nothing else.

It keeps control and no content, has no workers and no site, and listens to siblings and operators alone.
"""

# Note [what a voter keeps]
#
# It copies the others' logs as every member does, epochs included, though nothing here is ever compared with
# them: by epochs it is known what may be forgotten, so that its control stays as small as theirs.

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from edgecache.admin.address import ADMIN_FILE
from edgecache.admin.parts import AdminParts, ReloadState
from edgecache.admin.site import listen
from edgecache.admin.tokens import Tokens
from edgecache.common import PAGE, RUN
from edgecache.fleet import Fleet, entry_octets
from edgecache.member import MemberService
from edgecache.preparing import shown
from edgecache.processes.timers import LoopTimers, boot_clock
from edgecache.rules.sites import Sites
from edgecache.siblings.purger import Purger
from edgecache.store.control import Control
from edgecache.store.environment import Environment
from edgecache.store.environments import open_control
from edgecache.store.pagewriter import PageWriter
from edgecache.store.threads import OneThread
from edgecache.words.config import Config
from edgecache.words.ports import Timers

_log = Logger()


@define(eq=False, repr=False)
class Voter:
    """:ivar control: all that is on disk."""

    config: Config
    control: Control
    page: PageWriter
    _environment: Environment
    _thread: OneThread
    _fleet: Fleet
    _purger: Purger
    _timers: Timers
    _reactor: Any
    _reloaded: Callable[[], ReloadState | None]
    _parts: AdminParts = field(init=False)
    _ports: list[IListeningPort] = field(factory=list)
    _unready: str | None = "The voter is starting."

    @classmethod
    def open(cls, config: Config, reactor: Any, timers: Timers, reloaded: Callable[[], ReloadState | None]) -> Voter:
        """
        Open control.

        :param reloaded: how the last reload went.

        :raises EdgeError: it cannot be opened, or certificates or members cannot be used.
        """
        assert config.siblings is not None
        environment, incarnation = open_control(config.node.data)
        page = PageWriter.create(os.path.join(config.node.data, RUN, PAGE), 0)
        thread = OneThread.named(reactor, "control")
        control = Control.open(environment, page, thread, node_id=config.node.id, incarnation=incarnation)
        fleet = Fleet.open(config, control, page, reactor, timers, boot_clock)
        # Others' purges are known here, and how far they have come; its own it has none.
        purger = Purger(
            control,
            Sites(config),
            config.purge,
            timers,
            time.time,
            spread=fleet.mesh,
            entry_octets=entry_octets(config.siblings),
        )
        return cls(config, control, page, environment, thread, fleet, purger, timers, reactor, reloaded)

    async def start(self, admin: list[socket.socket], siblings: list[socket.socket]) -> None:
        """
        Vote, and answer operators.

        :param admin: sockets of the admin listener; they are closed here.
        :param siblings: of the listener for siblings' calls, likewise.
        """
        self._thread.start()
        tokens = Tokens(self.control, os.path.join(self.config.node.data, ADMIN_FILE))
        await tokens.load()
        await self._fleet.start(siblings)
        parts = self._parts = AdminParts(
            config=self.config,
            control=self.control,
            page=self.page,
            purger=self._purger,
            tokens=tokens,
            collector=None,
            timers=self._timers,
            wall=time.time,
            workers=list,
            lease=lambda: self.page.fresh_until - boot_clock(),
            siblings=self._fleet.siblings,
            reloaded=self._reloaded,
            # Only who is admitted vouches for anything.
            ready=lambda: self._unready or self._fleet.mesh.refuses(),
        )
        self._ports += listen(parts, self._reactor, admin)
        self._unready = None

    @property
    def spent(self) -> str | None:
        """See :class:`~edgecache.member.MemberService`."""
        return self._environment.spent

    async def follow(self, config: Config) -> None:
        """
        Other members, certificates or operators' settings.

        :raises ConfigError: they cannot be used; all is as it was.
        """
        sites = Sites(config)
        await self._fleet.follow(config, sites)
        self._purger.configured(sites, config.purge)
        self.config = self._parts.config = config

    async def stop(self) -> None:
        """What is on disk stays; nobody is answered any more."""
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await self._fleet.stop()
        await self.control.close()
        self._thread.stop()
        self._environment.env.close()
        self.page.close()


@define(eq=False, repr=False)
class VoterService(MemberService):
    """A voter as twistd runs it."""

    voter: Voter = field(init=False)

    def open(self) -> None:
        """See :class:`~edgecache.member.MemberService`."""
        config, prepared = self.config, self.prepared
        where = f" in {config.node.region}" if config.node.region else ""
        _log.info(
            "voter {id}{where}, control in {data}: siblings on {siblings}, admin on {admin}, nothing for clients",
            id=config.node.id,
            where=where,
            data=config.node.data,
            siblings=" ".join(map(shown, prepared.siblings)),
            admin=" ".join(map(shown, prepared.admin)) or "nothing",
        )
        self.voter = Voter.open(config, self.reactor, LoopTimers(self.loop), lambda: self.reloads.last)

    def spent(self) -> str | None:
        """See :class:`~edgecache.member.MemberService`."""
        return self.voter.spent

    async def run(self) -> None:
        """See :class:`~edgecache.member.MemberService`."""
        await self.voter.start(self.prepared.admin, self.prepared.siblings)
        _log.info("ready: voting")

    async def take_over(self, config: Config) -> None:
        """See :class:`~edgecache.member.MemberService`."""
        await self.voter.follow(config)
        self.config = config

    def stopService(self) -> Deferred[None]:
        """Nobody is being served, so there is nothing to wait for."""
        super().stopService()  # type: ignore[no-untyped-call]  # Twisted has no types here
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        _log.info("stopping")
        await self.reloads.stop()
        self._thread.stop()
        await self.voter.stop()
        _log.info("stopped")
