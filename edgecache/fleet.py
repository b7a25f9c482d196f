"""Composition: what a node needs to be one of several (DESIGN 9). A lone node has none of it."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.logger import Logger

from edgecache.admin.parts import SiblingView
from edgecache.rules.membership import BadMembership, Membership
from edgecache.rules.selectors import everything
from edgecache.rules.sites import Sites
from edgecache.rules.spreading import Member
from edgecache.siblings.caller import Caller
from edgecache.siblings.identity import Identity
from edgecache.siblings.mesh import Mesh
from edgecache.siblings.origins import SiblingTrust
from edgecache.siblings.server import ControlListener
from edgecache.store.control import Control
from edgecache.store.pagewriter import PageWriter
from edgecache.words.config import Config
from edgecache.words.errors import ConfigError
from edgecache.words.ports import Timers
from edgecache.words.siblingsettings import SiblingsSettings

_log = Logger()

_SOON_SECONDS = 30 * 86400.0


def membership(config: Config) -> Membership:
    """
    :return: the members as ``[siblings]`` and every ``[[sibling]]`` name them.
    :raises ConfigError: they contradict each other.
    """
    settings = config.siblings
    assert settings is not None
    try:
        return Membership.of(
            config.node.id,
            [config.node.id, *(other.id for other in config.others if not other.leaving)],
            quorum=settings.quorum,
            lease_seconds=settings.lease_seconds,
            previous_members=settings.previous_members,
            previous_quorum=settings.previous_quorum,
            previous_lease_seconds=settings.previous_lease_seconds,
        )
    except BadMembership as error:
        raise ConfigError("[siblings]", error.problem) from error


def entry_octets(settings: SiblingsSettings) -> int:
    """:return: content of an entry that fits into one message, as base64 and with what is around it."""
    return settings.message_octets * 5 // 8


@define(eq=False, repr=False)
class Fleet:
    """
    :ivar mesh: this node among the others.
    :ivar trust: how they are known where content is asked of them.
    """

    mesh: Mesh
    trust: SiblingTrust
    _config: Config
    _identity: Identity
    _caller: Caller
    _listener: ControlListener
    _boot: Callable[[], float]

    @classmethod
    def open(
        cls,
        config: Config,
        control: Control,
        page: PageWriter,
        reactor: Any,
        timers: Timers,
        boot: Callable[[], float],
    ) -> Fleet:
        """
        :param boot: CLOCK_BOOTTIME seconds.
        :raises ConfigError: certificates or members cannot be used.
        """
        settings = config.siblings
        assert settings is not None
        members = membership(config)
        identity = Identity.load(settings, config.node.id)
        _, positions = control.read.applied()
        member = Member.begin(
            control.name,
            members,
            control,
            positions=positions,
            admitted=control.read.admitted(),
            # An answer to an earlier life must not count in this one.
            life=secrets.token_hex(8),
        )
        caller = Caller(reactor, timers, settings.call_seconds, settings.message_octets)
        mesh = Mesh(
            member,
            control,
            caller,
            timers,
            boot,
            time.time,
            page.publish_fresh_until,
            everything(Sites(config)),
            settings.pull_seconds,
        )
        listener = ControlListener.make(
            identity,
            members.others,
            mesh.handlers,
            message_octets=settings.message_octets,
            reactor=reactor,
            timers=timers,
            wall=time.time,
        )
        return cls(mesh, SiblingTrust.of(settings), config, identity, caller, listener, boot)

    async def start(self, sockets: list[socket.socket]) -> None:
        """:param sockets: of ``[listen] siblings``; they are closed here, the reactor has its own copies."""
        left = self._identity.expires_in(time.time())
        if left < _SOON_SECONDS:
            _log.warn("siblings: this node's certificate expires in {days:.1f} days", days=left / 86400)
        await self._caller.follow(self._identity, self._config.others)
        self._listener.listen(sockets)
        self.mesh.start()

    async def follow(self, config: Config, sites: Sites) -> None:
        """
        The settings are others now, or a certificate was renewed.

        :param sites: that purges are for; those that are about to leave, too.
        :raises ConfigError: certificates or members cannot be used; all is as it was.
        """
        settings = config.siblings
        assert settings is not None
        members, identity = membership(config), Identity.load(settings, config.node.id)
        trust = SiblingTrust.of(settings)
        if not identity.same(self._identity) or config.others != self._config.others:
            await self._caller.follow(identity, config.others)
        self._listener.follow(identity, members.others)
        self.mesh.configured(members, everything(sites), settings.pull_seconds)
        self._config, self._identity, self.trust = config, identity, trust

    async def stop(self) -> None:
        """Fenced from here on; who waits for an answer gets none."""
        self.mesh.stop()
        await self._caller.close()
        await self._listener.stop()

    def siblings(self) -> list[SiblingView]:
        """:return: all others, as they are configured and as far as they are known."""
        known = {state.id: state for state in self.mesh.siblings()}
        offset = time.time() - self._boot()
        views = []
        for other in self._config.others:
            state = known[other.id]
            heard = None if state.heard_at is None else offset + state.heard_at
            views.append(
                SiblingView(
                    other.id,
                    other.region,
                    other.control_url,
                    other.public_url,
                    other.voter,
                    heard,
                    state.joining,
                    state.lacking,
                    state.problem,
                    # Of a node that lost its control, the newest log is the last one.
                    {log.id: sequence for log, sequence in state.positions},
                )
            )
        return views
