"""One pool for each address: its idle connections, the last used first, and the heads it owes us."""

from __future__ import annotations

from collections import deque
from math import inf

from attrs import define, field

from edgecache.upstream.addresses import Address
from edgecache.upstream.connection import Connection
from edgecache.words.config import UpstreamSettings

# A request must not cross the closing of the peer that announced this.
MARGIN_SECONDS = 1.0
# However long a peer announces: something between us forgets a silent connection.
LONGEST_SECONDS = 300.0


@define(eq=False, repr=False)
class Pool:
    """
    LIFO, so that what is not needed goes unused and expires.

    A connection is handed out only within what its peer announced less
    :data:`MARGIN_SECONDS`, or ``idle_seconds`` where it announced nothing.

    :ivar awaited: heads awaited from this address; the client counts them.
    :ivar awaited_with_content: of these, to requests with content.
    """

    address: Address
    settings: UpstreamSettings
    awaited: int = 0
    awaited_with_content: int = 0
    _idle: deque[Connection] = field(factory=deque, init=False)

    @property
    def idle(self) -> int:
        """Idle connections."""
        return len(self._idle)

    @property
    def unused(self) -> bool:
        """Does nothing depend on this pool, so that it may be forgotten?"""
        return not self._idle and not self.awaited

    def take(self, now: float) -> Connection | None:
        """:return: an open connection, no longer idle; ``None`` without one."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now < connection.usable_until and connection.open and connection.undisturbed:
                return connection
            connection.close()
        return None

    def put(self, connection: Connection, announced: int | None, now: float) -> None:
        """
        Keep ``connection``, or close it if it would be too soon of no use.

        :param announced: ``timeout`` of its peer's Keep-Alive field, seconds.
        """
        seconds = self.settings.idle_seconds if announced is None else announced - MARGIN_SECONDS
        if seconds <= 0 or not self.settings.idle_connections:
            connection.close()
            return
        connection.user = None
        # The last octets may have been more than their taker wanted at once; the next exchange is another's.
        connection.read(True)
        connection.usable_until = now + min(seconds, LONGEST_SECONDS)
        self._idle.append(connection)
        connection.expect(connection.usable_until)
        if len(self._idle) > self.settings.idle_connections:
            self._idle.popleft().close()

    def discard(self, connection: Connection) -> None:
        """``connection`` was closed; it may not have been idle here at all."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close all that are idle."""
        while self._idle:
            connection = self._idle.pop()
            connection.expect(inf)
            connection.close()
