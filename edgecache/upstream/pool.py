"""Idle connections by address, the last used first."""

from __future__ import annotations

from collections import deque
from math import inf

from edgecache.upstream.addresses import Address
from edgecache.upstream.connection import Connection
from edgecache.words.config import UpstreamSettings
from edgecache.words.ports import Timers

# A request must not cross the closing of the peer that announced this.
MARGIN_SECONDS = 1.0
# However long a peer announces: something between us forgets a silent connection.
LONGEST_SECONDS = 300.0


class Pool:
    """
    LIFO, so that what is not needed goes unused and expires.

    A connection is handed out only within what its peer announced less
    :data:`MARGIN_SECONDS`, or ``idle_seconds`` where it announced nothing.
    """

    def __init__(self, timers: Timers, settings: UpstreamSettings) -> None:
        self._timers = timers
        self._settings = settings
        self._idle: dict[Address, deque[Connection]] = {}

    def take(self, address: Address) -> Connection | None:
        """:return: an open connection to ``address``, no longer idle; ``None`` without one."""
        idle = self._idle.get(address)
        if idle is None:
            return None
        now = self._timers.seconds()
        while idle:
            connection = idle.pop()
            if connection.open and now < connection.usable_until:
                return connection
            connection.close()
        return None

    def put(self, connection: Connection, announced: int | None) -> None:
        """
        Keep ``connection``, or close it if it would be too soon of no use.

        :param announced: ``timeout`` of its peer's Keep-Alive field, seconds.
        """
        seconds = self._settings.idle_seconds if announced is None else announced - MARGIN_SECONDS
        if seconds <= 0 or not self._settings.idle_connections:
            connection.close()
            return
        connection.user = None
        connection.usable_until = self._timers.seconds() + min(seconds, LONGEST_SECONDS)
        idle = self._idle.get(connection.address)
        if idle is None:
            idle = self._idle[connection.address] = deque()
        idle.append(connection)
        connection.expect(connection.usable_until)
        if len(idle) > self._settings.idle_connections:
            idle.popleft().close()

    def discard(self, connection: Connection) -> None:
        """``connection`` was closed; it may not have been idle here at all."""
        idle = self._idle.get(connection.address)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.address]

    def count(self, address: Address) -> int:
        """:return: idle connections to ``address``."""
        return len(self._idle.get(address, ()))

    def close(self) -> None:
        """Close all that are idle."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.expect(inf)
                connection.close()
