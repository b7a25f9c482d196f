"""Accepting connections from a listening socket, TCP or Unix."""

from __future__ import annotations

import asyncio
import socket
import ssl

from attrs import define
from twisted.internet.defer import Deferred, succeed

from edgecache.wire.listener import Listener


@define(eq=False)
class Server:
    """Accepts from one socket."""

    def close(self) -> None:
        """Accept nothing more; connections stay. The socket stays open: it is its owner's."""


def start_server(
    loop: asyncio.AbstractEventLoop, listener: Listener, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> Deferred[Server]:
    """Accept connections from the listening ``sock`` for ``listener``."""
    return succeed(Server())
