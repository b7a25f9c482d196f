"""
The answering half of a client's connection: responses out, in the order of the requests (RFC 9112).

Mixed into :class:`~edgecache.wire.connection.Connection`, which receives, and ends what is over.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from edgecache.wire.content import RequestContent
from edgecache.wire.intake import Intake
from edgecache.wire.listener import Listener
from edgecache.wire.requests import Framed
from edgecache.wire.sending import BURST, CRLF, HIGH_WATER, PIECE, InMemory, Pump
from edgecache.wire.states import ANSWERING, READING, SENDING, State
from edgecache.words.counters import Counter
from edgecache.words.latency import MISSES
from edgecache.words.messages import Request
from edgecache.words.ports import HotContent, Reader, Source

BYTES_SENT = int(Counter.BYTES_SENT)

JOINED_OCTETS = 32 << 10
"""Below this, copying into one write costs what a write of three parts does; above, the copy is felt."""

UNCOPIED = 4
"""So many octets that the kernel sends without a copy take as long as one that is verified and copied."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_WITHOUT_CONTENT = (b"204", b"304")


class Answering(asyncio.Protocol):
    """
    The :class:`~edgecache.words.ports.Downstream` of the current exchange.

    :ivar gone: the client has left, or was cut or refused; nothing reaches it any more.
    """

    # fmt: off
    __slots__ = (
        "_asked_at", "_content", "_descriptor", "_framed", "_gone_reader", "_head", "_intake", "_last", "_listener",
        "_octets", "_paused", "_pump", "_reading_paused", "_since", "_socket", "_state", "_straight", "_transport",
        "_written", "gone",
    )
    # fmt: on

    _transport: asyncio.Transport
    _socket: socket.socket | None  # the transport's, only borrowed: it is let go of before that closes it
    _descriptor: int  # of the socket, for writes past the transport; -1 where that cannot be

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.gone = False
        self._state: State = READING
        self._intake = Intake(listener.memo, listener.sections, listener.limits, listener.secure, listener.trusted)
        self._framed: Framed | None = None  # the current exchange's
        self._content: RequestContent | None = None
        self._pump: Pump | None = None
        self._socket = None
        self._gone_reader: Reader | None = None
        self._last = False  # the current response, or the next, is the last one
        self._paused = False  # writing
        self._reading_paused = False  # by us, or because the client has ended its side
        self._since = listener.now  # when this state, or the wait for the next octets, began
        self._written = 0  # octets given to the transport
        self._octets = 0  # of content, in this exchange
        self._head = b""
        self._straight = False  # the current exchange is as simple as can be: :meth:`send` will do
        self._asked_at = 0.0  # monotonic seconds, while an answer takes longer than the call that asked for it

    # Of the other half.

    def _advance(self) -> None:
        """Take requests out of what is here until one of them must be waited for."""
        raise NotImplementedError

    def _end_exchange(self, *, complete: bool) -> None:
        """The current exchange is over."""
        raise NotImplementedError

    def _tell(self, request: Request, head: bytes, octets: int, *, complete: bool) -> None:
        """Say who wants to know that an exchange is over."""
        raise NotImplementedError

    def _close(self, *, reset: bool = False) -> None:
        """After what was written, end our side."""
        raise NotImplementedError

    def _cut(self) -> None:
        """Break a response off so that the client can tell."""
        raise NotImplementedError

    # The straight path.

    def send(self, head: bytes, content: bytes) -> None:
        if self._straight and len(content) <= JOINED_OCTETS:
            response = b"".join((head, CRLF, content))
            self._transport.write(response)
            self._served(head, len(response), len(content))
        elif self._state is ANSWERING:
            self._begin(head, [content])

    def _served(self, head: bytes, octets: int, content_octets: int) -> None:
        """A straight response was written as a whole."""
        listener = self._listener
        self._straight = False
        listener.counters.add(BYTES_SENT, octets)
        if self._paused:
            # How fast it leaves is told by differences: what was written before does not matter.
            self._head, self._octets = head, content_octets
            self._state = SENDING
            return
        framed, self._framed = self._framed, None
        if framed is not None and (listener.downloads is not None or listener.on_done is not None):
            self._tell(framed.request, head, content_octets, complete=True)
        self._state = READING
        self._since = listener.now
        if self._intake.pending or self._reading_paused:
            self._advance()

    def _sent(self) -> None:
        """The response is written; the exchange ends when the transport has room for another."""
        listener = self._listener
        if self._octets > HIGH_WATER and listener.downloads is not None and not listener.secure:
            self._wait_for_kernel()
        if self._paused:
            self._state = SENDING
            return
        self._end_exchange(complete=True)
        if self._last:
            self._close()
            return
        self._state = READING
        self._since = self._listener.now
        if self._reading_paused or self._intake.pending:
            self._advance()

    def _wait_for_kernel(self) -> None:
        """A download is one when the kernel has all of it: a kill would take away what is still ours."""
        transport = self._transport
        if not self._paused and transport.get_write_buffer_size():
            # Whatever is left is too much, so we are paused until nothing is.
            transport.set_write_buffer_limits(0)
            transport.set_write_buffer_limits(HIGH_WATER, 0)

    def send_hot(self, head: bytes, content: HotContent, start: int, stop: int) -> None:
        transport, before, octets = self._transport, head + CRLF, stop - start
        turns = self._listener.octets
        if (
            not self._straight
            or self._descriptor < 0
            or transport.get_write_buffer_size()
            or transport.is_closing()
            or (octets > PIECE and not turns.open)
        ):
            # What a slow reader leaves waiting is memory of ours.
            if octets > PIECE:
                self.send_from(head, content.source(), start, stop)
            else:
                self.send_pieces(head, [content.read(start, stop)])
            return
        if octets > PIECE:
            turns.spend(octets // UNCOPIED)
        sock = self._socket
        if sock is None:
            sock = self._socket = socket.socket(fileno=self._descriptor)
        try:
            # In one packet with what follows.
            written = sock.send(before, socket.MSG_MORE)
        except OSError:
            # It takes nothing just now, or is broken: its transport finds out which.
            written = 0
        if written == len(before):
            written += content.write_to(self._descriptor, b"", start, stop)
            if written == len(before) + octets:
                self._served(head, written, octets)
                return
        self.sent(head, written, content.source(), start, stop)

    def straight_socket(self, octets: int) -> int:
        descriptor = self.direct() if self._straight and octets <= BURST else -1
        if descriptor >= 0 and octets > PIECE:
            turns = self._listener.octets
            if not turns.open:
                return -1
            turns.spend(octets)
        return descriptor

    def sent(self, head: bytes, octets: int, rest: Source | None, start: int, stop: int) -> None:
        if rest is None:
            self._served(head, octets, stop - start)
            return
        self._straight = False
        content = max(0, octets - len(head) - len(CRLF))
        self._head = head
        self.put_directly(octets, content)
        self._state = SENDING
        self._since = self._listener.now
        self._pump = Pump(self, self._listener.octets, rest, start + content, stop, chunked=False)
        self._pump.start((head + CRLF)[octets:])

    def _time(self) -> None:
        """The head of an answer that had to be waited for."""
        listener = self._listener
        MISSES.count(listener.counters, listener.timers.seconds() - self._asked_at)
        self._asked_at = 0.0

    # The other ways of answering.

    def send_pieces(self, head: bytes, content: list[bytes]) -> None:
        if self._state is ANSWERING:
            self._begin(head, content)

    def send_from(self, head: bytes, source: Source, start: int, stop: int | None) -> None:
        framed = self._framed
        if self._state is not ANSWERING or framed is None:
            return
        if not _has_content(head, framed):
            self._begin(head, [])
            return
        chunked = stop is None and framed.request.minor >= 1
        if stop is None and not chunked:
            self._last = True  # the end of the connection is the end of the content
        transfer = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        self._begin(head, [transfer], Pump(self, self._listener.octets, source, start, stop, chunked=chunked))

    def _begin(self, head: bytes, content: list[bytes], pump: Pump | None = None) -> None:
        """Write a final head and the content, or with ``pump`` the field that frames what it will write."""
        framed = cast(Framed, self._framed)
        if self._asked_at:
            self._time()
        if not framed.persistent or self._intake.content is not None:
            self._last = True
        if self._last:
            connection = b"Connection: close\r\n"
        elif framed.request.minor == 0:
            connection = b"Connection: keep-alive\r\n"
        else:
            connection = b""
        self._state = SENDING
        self._straight = False
        self._since = self._listener.now
        self._head = head
        if pump is not None:
            self._pump = pump
            pump.start(b"".join((head, connection, *content, CRLF)))
            return
        if not _has_content(head, framed):
            content = []
        elif self._listener.secure and sum(map(len, content)) > PIECE:
            # OpenSSL would keep room for all of it, for as long as the connection lives.
            self._pump = self._pump_of(InMemory(b"".join(content)))
            self._pump.start(b"".join((head, connection, CRLF)))
            return
        self.put([b"".join((head, connection, CRLF)), *content], sum(map(len, content)))
        self._sent()

    def _pump_of(self, source: InMemory) -> Pump:
        return Pump(self, self._listener.octets, source, 0, source.length, chunked=False)

    def put(self, pieces: list[bytes], content_octets: int) -> bool:
        """Write; the pump's too. Is there room for more?"""
        if self._transport.is_closing():
            return False  # lost, but not told yet: the transport would swallow everything
        octets = sum(map(len, pieces))
        self._written += octets
        self._octets += content_octets
        self._listener.counters.add(BYTES_SENT, octets)
        self._transport.writelines(pieces)
        return not self._paused

    def direct(self) -> int:
        """The pump's: see :class:`edgecache.wire.sending.Sink`."""
        transport = self._transport
        if self.gone or transport.is_closing() or transport.get_write_buffer_size():
            return -1
        return self._descriptor

    def put_directly(self, octets: int, content_octets: int) -> None:
        """The pump's: the transport has not seen these."""
        self._written += octets
        self._octets += content_octets
        self._listener.counters.add(BYTES_SENT, octets)

    def pumped(self, complete: bool) -> None:
        """The pump has written all, or its source failed and the client must be able to tell."""
        self._pump = None
        if complete:
            self._sent()
        else:
            self._cut()

    def interim(self, status: int, head: bytes) -> None:
        framed = self._framed
        if self._state is ANSWERING and framed is not None and framed.request.minor >= 1 and status != 101:
            self.put([head, CRLF], 0)

    def close_after(self) -> None:
        self._last, self._straight = True, False

    def request_content(self) -> Source:
        content, framed = self._content, self._framed
        if content is None or framed is None:
            raise ValueError("this request has no content, or is over")
        if framed.expects and not content.received and self._state is ANSWERING:
            self.put([_CONTINUE], 0)
        return content

    def on_gone(self, reader: Reader | None) -> None:
        self._gone_reader, self._straight = reader, False


def _has_content(head: bytes, framed: Framed) -> bool:
    """RFC 9112 §6.3: neither HEAD nor these statuses have any, whatever is sent."""
    return not framed.headless and head[9:12] not in _WITHOUT_CONTENT
