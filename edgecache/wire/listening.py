"""
Accepting connections from a listening socket, TCP or Unix.

We accept ourselves: a connection over the caps costs neither a transport nor
a TLS handshake, one in its handshake is counted, and running out of
descriptors pauses accepting instead of spinning.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from edgecache.wire.connection import Connection
from edgecache.wire.listener import Listener
from edgecache.wire.securing import Buffers, SecureTransport

_log = Logger()

BATCH = 8
"""Connections accepted in one turn of the loop: each takes a tenth of a millisecond."""

MOST_WAITING = 1024
"""In the kernel, for one socket: its backlog. Who comes later is not waited for; others may go on coming for ever."""

STRANGERS = 128
"""
Handshakes at a time where only siblings are let in: whoever has no certificate is one of them, and they are not counted
by address. One more, and the oldest has to go.
"""

PAUSE_SECONDS = 1.0
"""When there are no descriptors left, some close meanwhile."""

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def client_of(address: Any) -> tuple[bytes, bytes]:
    """
    :param address: as ``accept`` gives it.
    :return: the address as text, and what counts as one client: of IPv6, the 64 bits of the
        network, since a host has all addresses of it.
    """
    if not isinstance(address, tuple):
        return b"", b""
    host = str(address[0]).partition("%")[0]
    if ":" not in host:
        return host.encode(), host.encode()
    packed = socket.inet_pton(socket.AF_INET6, host)
    if packed.startswith(b"\0" * 10 + b"\xff\xff"):
        mapped = socket.inet_ntop(socket.AF_INET, packed[12:]).encode()
        return mapped, mapped
    return host.encode(), packed[:8]


@define(eq=False, repr=False)
class _Handshake:
    """See :class:`edgecache.wire.listener.Shaking`."""

    _transport: SecureTransport
    _connection: Connection

    def push_out(self) -> None:
        self._transport.abort()
        self._connection.never_made()


@define(eq=False, repr=False)
class Server:
    """Accepts from one socket."""

    _loop: asyncio.AbstractEventLoop
    _listener: Listener
    _sock: socket.socket
    _tls: ssl.SSLContext | None
    _open: bool = True
    _opening: set[asyncio.Future[Any]] = field(factory=set)
    _shaking: dict[SecureTransport, _Handshake] = field(factory=dict)
    _buffers: Buffers = field(factory=Buffers)

    def start(self) -> None:
        """Begin to accept."""
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Accept nothing more; connections stay, and handshakes go on. The socket stays open: it is its owner's."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._sock)

    def finish(self) -> None:
        """Accept who waits already, and then nobody: the socket is closed, so that clients go elsewhere at once."""
        if self._open:
            for _ in range(1 + MOST_WAITING // BATCH):
                if not self._accept():
                    break
        self.close()
        self._sock.close()

    def stop(self) -> None:
        """Accept nothing more, and break handshakes off."""
        self.close()
        for opening in list(self._opening):
            opening.cancel()
        for transport in list(self._shaking):
            transport.abort()

    def _accept(self) -> bool:
        """:return: may more be waiting?"""
        for _ in range(BATCH):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.warn("accepting nothing for {seconds} s: {error}", seconds=PAUSE_SECONDS, error=error)
                self._loop.remove_reader(self._sock)
                self._listener.timers.callLater(PAUSE_SECONDS, self._resume)
                return False
            sock.setblocking(False)
            peer, client = client_of(address)
            if self._listener.admit(client):
                self._make(sock, peer, client)
            else:
                self._turn_away(sock)
        return True

    def _resume(self) -> None:
        if self._open:
            self._loop.add_reader(self._sock, self._accept)

    def _make(self, sock: socket.socket, peer: bytes, client: bytes) -> None:
        listener = self._listener
        make = listener.make or Connection
        connection = make(listener, peer, lambda: listener.release(client))
        if self._tls is not None:
            self._secure(sock, self._tls, connection, peer)
            return
        opening = asyncio.ensure_future(self._loop.connect_accepted_socket(lambda: connection, sock), loop=self._loop)
        self._opening.add(opening)
        opening.add_done_callback(lambda done: self._made(done, connection))

    def _secure(self, sock: socket.socket, tls: ssl.SSLContext, connection: Connection, peer: bytes) -> None:
        # As the loop has it for those that it makes. Else the first answer waits until the client's kernel has
        # acknowledged what ends the handshake, and that waits 40 ms for something to go along with.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        seconds = self._listener.limits.tls_handshake_seconds

        def over(transport: SecureTransport, made: bool) -> None:
            self._listener.shaking.pop(self._shaking.pop(transport), None)
            if not made:
                self._listener.unshaken(peer, transport.problem)
                connection.never_made()

        turns = self._listener.handshakes
        transport = SecureTransport(self._loop, sock, tls, self._buffers, connection, seconds, turns, over)
        self._shaking[transport] = handshake = _Handshake(transport, connection)
        waiting = self._listener.shaking
        waiting[handshake] = self._listener.now
        if self._listener.trusted and len(waiting) > STRANGERS:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.push_out()

    def _made(self, opening: asyncio.Future[Any], connection: Connection) -> None:
        """A client that leaves at once is its own affair: counted, not logged."""
        self._opening.discard(opening)
        if opening.cancelled() or opening.exception() is not None:
            connection.never_made()

    def _turn_away(self, sock: socket.socket) -> None:
        """Too many connections: say so if that can be said at once."""
        try:
            if self._tls is None:
                head, content = self._listener.refusal(503, "too many connections")
                sock.send(head + b"Connection: close\r\n\r\n" + content)
        except OSError:
            _log.debug("a client left before it could be turned away")
        finally:
            sock.close()


def start_server(
    loop: asyncio.AbstractEventLoop, listener: Listener, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> Deferred[Server]:
    """Accept connections from the listening ``sock`` for ``listener``."""
    server = Server(loop, listener, sock, tls)
    server.start()
    return succeed(server)
