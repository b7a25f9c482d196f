"""
Composition of one worker: reader, writer, upstream client, route and listeners.

The same function starts a worker in its own process and, with ``--workers 0``, inside the node process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from edgecache.processes.channel import Channel
from edgecache.words.config import Config

_log = Logger()


@frozen(eq=False)
class WorkerParts:
    """
    Everything that a worker gets from the node process.

    :ivar index: which of the ``count`` workers; it owns the keys whose hash says so.
    :ivar spawn: number of this incarnation, in no other worker's life again; orphan rows carry it.
    :ivar data: the data directory; its lock is held by this process too.
    :ivar page: the mapped page, opened for block ``index``.
    :ivar channel: to the node process.
    :ivar sockets: listening sockets of the public listener, one per address, this worker's own.
    :ivar owner_socket: listening Unix socket on which other workers ask this one, ``None`` for a lone worker.
    :ivar owner_paths: path of each worker's ``owner_socket``, by index; empty for a lone worker.
    """

    config: Config
    index: int
    count: int
    spawn: int
    data: str
    page: Any
    channel: Channel
    sockets: list[socket.socket]
    owner_socket: socket.socket | None
    owner_paths: list[str]
    reactor: Any
    loop: asyncio.AbstractEventLoop


class _Constant(asyncio.Protocol):
    """Stand-in: one constant answer per chunk received."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")


@define(eq=False)
class Worker:
    """A running worker."""

    _servers: list[asyncio.Server] = field(factory=list)

    def drain(self, seconds: float) -> Deferred[None]:
        """Accept nothing more; fires when the last response is out, or after ``seconds``."""
        for server in self._servers:
            server.close()
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Close everything at once; what is committed stays, fills in progress are lost."""
        for server in self._servers:
            server.close()
        return succeed(None)


async def _start(parts: WorkerParts) -> Worker:
    servers = []
    for sock in parts.sockets:
        server = await Deferred.fromFuture(
            asyncio.ensure_future(parts.loop.create_server(_Constant, sock=sock), loop=parts.loop)
        )
        servers.append(server)
    return Worker(servers)


def start_worker(parts: WorkerParts) -> Deferred[Worker]:
    """Build the worker and begin to accept. Fails with ``StartError`` when it cannot."""
    return Deferred.fromCoroutine(_start(parts))
