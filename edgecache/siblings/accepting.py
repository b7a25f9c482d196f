"""
Listening ports of the Twisted side (admin, siblings' calls) that stand still when no connection can be accepted.

Twisted's own asks again at once when there are no descriptors or no memory: a loop that is busy with nothing else, and
a line of the log for each turn, which fills the disk.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port

PAUSE_SECONDS = 0.25
"""Until it is tried again; somebody closes meanwhile. A client that left in the queue costs others so long, too."""


class PausingPort(Port):
    """One that is read again only after a pause, when it told of a connection and there was none to be had."""

    def doRead(self) -> None:
        """Accept who waits."""
        before = self.sessionno
        super().doRead()  # type: ignore[no-untyped-call]  # Twisted has no types here
        if self.sessionno == before and self.connected:
            self.stopReading()  # type: ignore[no-untyped-call]  # as above
            # The reactor's own timers are moved by steps of the wall clock.
            reactor: Any = self.reactor
            loop: asyncio.AbstractEventLoop = reactor._asyncioEventloop
            loop.call_later(PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if self.connected:
            self.startReading()  # type: ignore[no-untyped-call]  # as above


def listen_on(reactor: Any, sock: socket.socket, factory: Any) -> IListeningPort:
    """
    :param sock: listening; closed here, the port has its own copy.
    :return: what to stop.
    """
    make: Any = PausingPort
    port = make._fromListeningDescriptor(reactor, sock.fileno(), sock.family, factory)
    sock.close()
    port.startListening()
    listening: IListeningPort = port
    return listening
