"""
Content of known length is read from the socket into the memory of whoever keeps it (DESIGN 13).

Otherwise each octet is copied twice on its way: out of the loop's buffer, and into the store's.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Protocol

from edgecache.upstream.connection import Connection, User

# Note [the last octets]
#
# What is read this way is always less than all that is left. The last octets come the ordinary way, where it is
# seen whether more follow them than there should be.

# Note [TLS]
#
# A read of TLS is many records of up to 16 KiB. Each call of ours costs more than a copy of a chunk: they are gathered,
# in memory that belongs to nobody between the loop's two calls.

LEAST = 256 << 10
"""Of less than so many octets, all come the ordinary way: in a read or two."""

_GATHERED = memoryview(bytearray(256 << 10))


class Taker(User, Protocol):
    """For whom a connection reads at the moment: an exchange."""

    def room(self) -> list[memoryview]:
        """:return: see :meth:`edgecache.upstream.responses.Roomy.room`; less than all that is left."""

    def filled(self, octets: int) -> None:
        """See :meth:`edgecache.upstream.responses.Roomy.filled`. It may end the direct reading."""


class DirectReading(asyncio.BufferedProtocol):
    """In place of ``connection`` until :meth:`stop`."""

    __slots__ = ("_connection", "_descriptor", "_room", "_taker", "_tls")

    def __init__(self, connection: Connection, taker: Taker) -> None:
        self._connection = connection
        self._taker = taker
        self._room: list[memoryview] = []
        transport = connection.transport
        assert transport is not None
        self._tls = transport.get_extra_info("ssl_object") is not None
        sock = None if self._tls else transport.get_extra_info("socket")
        self._descriptor = -1 if sock is None else sock.fileno()
        transport.set_protocol(self)

    def stop(self) -> None:
        """Octets come the ordinary way again."""
        transport = self._connection.transport
        if transport is not None and not transport.is_closing():
            transport.set_protocol(self._connection)

    def get_buffer(self, sizehint: int) -> memoryview:
        room = self._room = self._taker.room() if self._connection.user is self._taker else []
        if not room:
            return _GATHERED
        return _GATHERED[: sum(map(len, room))] if self._tls else room[0]

    def buffer_updated(self, nbytes: int) -> None:
        room, self._room = self._room, []
        if not room:
            self._connection.data_received(bytes(_GATHERED[:nbytes]))
            return
        if self._tls:
            _scatter(_GATHERED[:nbytes], room)
        elif nbytes == len(room[0]) and len(room) > 1 and self._descriptor >= 0:
            # There is likely more. After an error, as after an end, the transport's next read finds the end.
            with suppress(OSError):
                nbytes += os.readv(self._descriptor, room[1:])
        self._taker.filled(nbytes)

    # All else is the connection's.

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def _scatter(data: memoryview, room: list[memoryview]) -> None:
    for view in room:
        part = data[: len(view)]
        view[: len(part)] = part
        data = data[len(part) :]
        if not data:
            break
