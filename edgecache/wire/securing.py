"""
TLS of accepted connections, with OpenSSL's buffers shared by all of them.

An event loop's own TLS gives each connection two buffers between OpenSSL and the socket, which grow with what was
ever in them and stay, and 256 KiB for what is read. Here an idle connection has none
(docs/decisions/0184-shared-tls-buffers.md).
"""

# Note [shared buffers]
#
# One thread serves all connections, and each call leaves both buffers empty: what OpenSSL has written goes to the
# socket, or waits in the connection's own list; what it has not read is kept by the connection that stopped reading.

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from attrs import define, field

from edgecache.wire.states import LINGER_OCTETS
from edgecache.wire.turns import Turns

RECEIVED = 64 << 10
"""Octets taken from a socket at once."""

RECORD = 16 << 10
"""Octets of content in one record, at most: what one read of OpenSSL gives."""

_NOBODY = asyncio.Protocol()

_IDLE = frozenset((ssl.SSLWantReadError, ssl.SSLWantWriteError))


@define(eq=False, repr=False)
class Buffers:
    """See Note [shared buffers]."""

    incoming: ssl.MemoryBIO = field(factory=ssl.MemoryBIO)
    outgoing: ssl.MemoryBIO = field(factory=ssl.MemoryBIO)


class SecureTransport(asyncio.Transport):
    """
    The transport of one connection; its protocol sees it once the handshake is done.

    To the protocol it is as asyncio's: nothing is called from within a call of it, except ``pause_writing``.

    :ivar problem: why the handshake failed; ``None``: its client left, or took too long.
    """

    # fmt: off
    __slots__ = (
        "_buffer", "_buffered", "_buffers", "_closing", "_descriptor", "_discarded", "_ended", "_high", "_loop",
        "_lost", "_low", "_paused", "_protocol", "_reading", "_shaken", "_sock", "_timer", "_tls", "_turns", "_unread",
        "_writing", "problem",
    )
    # fmt: on

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        context: ssl.SSLContext,
        buffers: Buffers,
        protocol: asyncio.Protocol,
        seconds: float,
        turns: Turns,
        shaken: Callable[[SecureTransport, bool], None],
    ) -> None:
        """
        Begin the handshake.

        :param sock: accepted, and this transport's from now on.
        :param seconds: the handshake may take.
        :param turns: of handshakes' steps to which OpenSSL has an answer: it may be a signature.
        :param shaken: called once with whether it succeeded: after that comes ``connection_made``, or nothing.
        """
        self._loop = loop
        self._sock = sock
        self._descriptor = sock.fileno()
        self._buffers = buffers
        self._tls = context.wrap_bio(buffers.incoming, buffers.outgoing, server_side=True)
        self._protocol = protocol
        self._turns = turns
        self._shaken: Callable[[SecureTransport, bool], None] | None = shaken
        self._timer: asyncio.TimerHandle | None = loop.call_later(seconds, self.abort)
        self._buffer: deque[bytes] = deque()  # for the socket
        self._buffered = 0
        self._unread = b""  # from the socket
        self._high, self._low = 64 << 10, 16 << 10
        self._paused = False  # the protocol, because of what is buffered
        self._writing = False  # the loop tells when there is room
        self._reading = True
        self._closing = False
        self._lost = False
        self._ended = False  # the client has ended its side
        self._discarded = 0
        self.problem: ssl.SSLError | None = None
        self._watch()

    # Reading.

    def _readable(self) -> None:
        if self._shaken is not None and not self._turns.open:
            # The loop tells in each turn what is here and was not read.
            return
        try:
            data = self._sock.recv(RECEIVED)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if self._closing:
            self._discard(data)
        elif data:
            self._take(self._unread + data if self._unread else data)
        else:
            self._ended = True
            self._loop.remove_reader(self._descriptor)
            self._reading = False
            if self._shaken is not None:
                self._lose(None)
            elif not self._protocol.eof_received():
                self.close()

    def _take(self, data: bytes) -> None:
        """Have OpenSSL read these octets, and the protocol what they say. See Note [shared buffers]."""
        self._unread = b""
        incoming, outgoing, tls = self._buffers.incoming, self._buffers.outgoing, self._tls
        incoming.write(data)
        try:
            if self._shaken is not None:
                tls.do_handshake()
                self._over(True)
                self._flush()
                self._protocol.connection_made(self)
            while self._reading and not self._closing and (incoming.pending or tls.pending()):
                content = tls.read(RECORD)
                if outgoing.pending:
                    # OpenSSL answers some records itself, and what is called now may write to another connection.
                    self._flush()
                if not content:
                    # Its close_notify.
                    if not self._protocol.eof_received():
                        self.close()
                    break
                # The protocol may write to another connection, which reads nothing by that.
                self._protocol.data_received(content)
        except ssl.SSLError as error:
            # Half a record, or half a handshake, or octets that are none; then OpenSSL has an alert for the client.
            if self._shaken is not None and outgoing.pending:
                self._turns.spend(1)
            self._flush()
            if type(error) not in _IDLE:
                self._lose(error)
        except BaseException:
            # The loop logs it. A connection whose protocol is in the middle of something is of no more use.
            self._lose(None)
            raise
        finally:
            if incoming.pending:
                self._unread = incoming.read()
            if outgoing.pending:
                self._flush()

    def _over(self, made: bool) -> None:
        """The handshake is."""
        timer, self._timer = self._timer, None
        shaken, self._shaken = self._shaken, None
        if timer is not None and shaken is not None:
            timer.cancel()
            shaken(self, made)
        # Its traceback holds us.
        self.problem = None

    def pause_reading(self) -> None:
        if self._reading and not self._lost:
            self._reading = False
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        if not self._reading and not self._lost and not self._ended:
            self._reading = True
            self._watch()
            if self._unread or self._tls.pending():
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._reading and not self._closing:
            self._take(self._unread)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def _watch(self) -> None:
        # A loop may have a cheaper way for who finds out by itself that its peer has gone.
        add: Any = getattr(self._loop, "add_careful_reader", self._loop.add_reader)
        add(self._descriptor, self._readable)

    # Writing.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            # What it had written by then is half of something, and nobody else's.
            self._buffers.outgoing.read()
            self._lose(error)
            return
        self._flush()

    def writelines(self, list_of_data: Any) -> None:
        # Together they are fewer records, and one write.
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        """Send what OpenSSL has written, now or later."""
        data = self._buffers.outgoing.read()
        if not data or self._lost:
            return
        if not self._buffer:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._lose(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._writing = True
            self._loop.add_writer(self._descriptor, self._writable)
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def _writable(self) -> None:
        while self._buffer:
            data = self._buffer[0]
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                break
            except OSError as error:
                self._lose(error)
                return
            self._buffered -= sent
            if sent < len(data):
                self._buffer[0] = data[sent:]
                break
            self._buffer.popleft()
        else:
            self._writing = False
            self._loop.remove_writer(self._descriptor)
        if self._paused and self._buffered <= self._low:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer and not self._lost:
            self._end()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = (64 << 10) if high is None else high
        self._low = self._high // 4 if low is None else low
        if self._buffered > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def can_write_eof(self) -> bool:
        return False

    # Ends.

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """After what is buffered, end our side; the rest is the peer's to end, or :meth:`abort`."""
        if self._closing:
            return
        incoming = self._buffers.incoming
        # It looks for the peer's close_notify; what is there is of another connection, within a call of which we are.
        others = incoming.read() if incoming.pending else b""
        # It does not find it, and nobody waits for it here: there is nothing to be resumed.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        if others:
            incoming.write(others)
        self._flush()
        self._closing = True
        if not self._buffer:
            self._end()

    def _end(self) -> None:
        """
        No more from us. What the client still sends is read and thrown away: a socket closed with unread octets is
        reset, and takes the last response away (RFC 9112 §9.6).
        """
        if self._ended:
            self._lose(None)
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)
            return
        if not self._reading and not self._lost:
            self._reading = True
            self._watch()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > LINGER_OCTETS or (not data and not self._buffer):
            self._lose(None)
        elif not data:
            # The client may still read what is buffered.
            self._ended = True
            self._reading = False
            self._loop.remove_reader(self._descriptor)

    def abort(self) -> None:
        """Close at once."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        if self._shaken is not None and isinstance(error, ssl.SSLError):
            self.problem = error
        self._loop.remove_reader(self._descriptor)
        if self._writing:
            self._loop.remove_writer(self._descriptor)
        self._buffer.clear()
        self._buffered = 0
        self._loop.call_soon(self._gone, error)

    def _gone(self, error: OSError | None) -> None:
        self._sock.close()
        # They would hold each other until the collector comes, and it seldom comes.
        protocol, self._protocol = self._protocol, _NOBODY
        if self._shaken is not None:
            self._over(False)
        else:
            protocol.connection_lost(error)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "socket":
                return self._sock
            case "ssl_object":
                return self._tls
            case "cipher":
                return self._tls.cipher()
            case "peername":
                return self._sock.getpeername()
            case _:
                return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)
