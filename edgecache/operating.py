"""What operators and publishers have of a node: the admin listener, and what its workers pass on for them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort

from edgecache.admin.parts import AdminParts
from edgecache.admin.publicbypass import PublicBypass
from edgecache.admin.publicpurges import PublicPurges
from edgecache.admin.uploads import Uploads
from edgecache.processes.channel import Channel


@define(eq=False, repr=False)
class Operating:
    """
    :ivar parts: what the admin API shows, and does.
    """

    parts: AdminParts
    _reactor: Any
    _purges: PublicPurges
    _bypass: PublicBypass
    _uploads: Uploads
    _ports: list[IListeningPort] = field(factory=list)
    _unready: str | None = "The node is starting."

    @classmethod
    def of(cls, parts: AdminParts, reactor: Any, tell: Callable[..., None]) -> Operating:
        """
        :param tell: notifies every worker.
        :return: with the history of the last hour begun, and nothing listening yet.
        """
        bypass = PublicBypass.of(parts)
        parts.tokens.changed = lambda: tell("bypass-tokens", digests=bypass.digests)
        parts.history.start()
        operating = cls(parts, reactor, PublicPurges.of(parts), bypass, Uploads(parts))
        parts.ready = lambda: operating._unready
        return operating

    def serve(self, channel: Channel) -> None:
        """Answer a new worker, and tell it what it must know."""
        channel.on("purge", self._purges.purge)
        channel.on("bypass", self._bypass.ask)
        channel.on("uploaded", self._uploads.uploaded)
        channel.notify("bypass-tokens", digests=self._bypass.digests)

    def listen(self, sockets: list[socket.socket]) -> None:
        """:param sockets: of the admin listener; they are closed here, the reactor has its own copies."""
        # A tenth of a start, and no client has to wait for it.
        from edgecache.admin.site import listen

        self._ports += listen(self.parts, self._reactor, sockets)

    def ready(self) -> None:
        """Every worker accepts."""
        self._unready = None

    async def stop(self) -> None:
        """Answer nobody any more."""
        self.parts.history.stop()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
