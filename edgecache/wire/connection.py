"""
One client's connection: octets in, requests to the route, responses out in the same order (RFC 9112).

The straight path is :meth:`Connection.data_received`, :meth:`Connection._ask`, the route, and
:meth:`~edgecache.wire.answering.Answering.send`: four plain calls from packet to packet. The rest is what
happens otherwise. :mod:`edgecache.wire.states` draws the states.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from edgecache.wire.answering import Answering
from edgecache.wire.content import RequestContent
from edgecache.wire.downloads import client_label
from edgecache.wire.fieldlines import RequestRefused
from edgecache.wire.listener import Listener
from edgecache.wire.pace import Pace
from edgecache.wire.requests import Framed
from edgecache.wire.sampling import Sampling
from edgecache.wire.sending import HIGH_WATER
from edgecache.wire.states import (
    ANSWERING,
    CLOSING,
    HOLD_OCTETS,
    HOLD_SECONDS,
    LINGER_OCTETS,
    LINGER_SECONDS,
    PIPELINE_MOST,
    PIPELINE_OCTETS,
    PIPELINE_TURN,
    READING,
    SENDING,
    State,
)
from edgecache.words.counters import Counter
from edgecache.words.errors import ClientGone
from edgecache.words.messages import Request

REQUESTS = int(Counter.REQUESTS)

BROKE_OFF = "the request broke off"

_RESET = struct.pack("ii", 1, 0)


class Connection(Answering):
    """
    Receives, asks the route, and ends what is over or late.

    :ivar peer: the client's address, without port; ``b""`` on a Unix socket.
    """

    # fmt: off
    __slots__ = (
        "_advancing", "_client", "_discarded", "_eof", "_held", "_left", "_pace", "_release", "_started", "_yielding",
        "peer",
    )
    # fmt: on

    def __init__(self, listener: Listener, peer: bytes = b"", release: Callable[[], None] | None = None) -> None:
        """:param release: called once when the connection is closed."""
        super().__init__(listener)
        self._release = release
        self.peer = peer
        self._held: Framed | None = None  # parsed, but more of its content is to come first: HOLD_OCTETS
        self._left = listener.limits.requests_per_connection
        self._eof = False
        self._advancing = False
        self._yielding = False  # what is here waits for our next turn of the loop
        self._pace: Pace | None = None
        self._discarded = 0
        self._started = 0.0
        self._client = b""  # as events of downloads tell it

    # The straight path.

    def data_received(self, data: bytes) -> None:
        intake = self._intake
        if self._state is READING and not intake.pending and intake.content is None:
            framed = self._listener.memo.get(data) or intake.read_whole(data)
            if framed is not None:
                intake.skipped = False
                self._ask(framed)
                return
        self._receive(data)

    def _ask(self, framed: Framed) -> None:
        listener = self._listener
        self._state = ANSWERING
        self._framed = framed
        self._left -= 1
        if self._left <= 0:
            self._last = True
        self._straight = framed.straight and not self._last
        if listener.on_done is not None:
            self._started = listener.wall()
        listener.counters.add(REQUESTS)
        if listener.sampling is None:
            listener.answer(framed.request, self)
        else:
            self._ask_sampled(framed)
        if self._state is ANSWERING:
            # Not from the store: how long that takes is worth a look at the clock.
            self._straight = False
            self._asked_at = listener.timers.seconds()

    def _ask_sampled(self, framed: Framed) -> None:
        """See :mod:`edgecache.wire.sampling`."""
        listener = self._listener
        sampling, listener.sampling = cast(Sampling, listener.sampling), None
        began = listener.timers.seconds()
        listener.answer(framed.request, self)
        sampling.saw(framed.request, None if self._state is ANSWERING else listener.timers.seconds() - began)

    # Receiving.

    def _receive(self, data: bytes) -> None:
        if self._state is CLOSING:
            self._discarded += len(data)
            if self._discarded > LINGER_OCTETS:
                self._transport.abort()
            return
        if self._state is READING and not self._intake.pending and self._held is None:
            self._since = self._listener.now  # the head's deadline runs from its first octet
        try:
            self._intake.feed(data)
        except RequestRefused as refused:
            self._refuse(refused)
            return
        if self._held is not None:
            if not self._is_short():
                self._advance()
        elif self._state is not READING:
            self._advance()
        elif len(self._intake.pending) > PIPELINE_MOST or (self._listener.heads.open and not self._yielding):
            # What waits is memory.
            self._take_turn()
        else:
            self._yield()
            self._regulate()

    def _advance(self) -> None:
        """Take requests out of what is here until one of them must be waited for, or others are to have their turn."""
        if self._advancing or self._yielding:
            return
        self._advancing, more = True, False
        try:
            for _ in range(PIPELINE_TURN):
                framed = self._next() if self._state is READING else None
                if framed is None:
                    break
                self._ask(framed)
            else:
                more = self._state is READING and bool(self._intake.pending)
        finally:
            self._advancing = False
        if more:
            self._yield()
        elif self._eof and self._state is READING:
            if self._intake.pending:
                self._refuse(RequestRefused(400, BROKE_OFF))
            else:
                self._close()
        self._regulate()

    def _yield(self) -> None:
        if not self._yielding:
            self._yielding = True
            self._listener.heads.wait(self._take_turn)

    def _take_turn(self) -> None:
        self._yielding = False
        if self._state is CLOSING:
            # It would keep others waiting for nothing.
            return
        self._listener.heads.spend(1)
        self._advance()

    def _next(self) -> Framed | None:
        """:return: the next request that the route may see."""
        framed, intake = self._held, self._intake
        if self._transport.is_closing():
            return None
        try:
            if framed is None:
                framed = intake.next_head()
                if framed is None:
                    return None
                if not framed.request.has_content:
                    return framed
                self._content = intake.open_content(framed, self._regulate)
                if self._eof and intake.content is not None:
                    raise RequestRefused(400, BROKE_OFF)
        except RequestRefused as refused:
            self._refuse(refused)
            return None
        hold = self._is_short() and not framed.expects and self._listener.passes(framed.request)
        self._held = framed if hold else None
        return None if hold else framed

    def _is_short(self) -> bool:
        """Is there less of the current content than others should see of it at once?"""
        content = self._intake.content
        return content is not None and content.received < HOLD_OCTETS

    def _regulate(self) -> None:
        """Read the client while there is room for what it sends."""
        content, pending = self._content, self._intake.pending
        full = (content is not None and content.full) or len(pending) >= PIPELINE_OCTETS
        answering = self._state in (ANSWERING, SENDING)
        if answering and len(pending) > PIPELINE_MOST:
            # One read can bring four times as much. Nothing of it was looked at: the client may ask again elsewhere.
            self.close_after()
            pending.clear()
        pause = full and (answering or self._yielding)
        if pause and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        elif self._reading_paused and not pause and not self._eof:
            self._reading_paused = False
            self._transport.resume_reading()

    # Ends.

    def _end_exchange(self, *, complete: bool) -> None:
        framed, self._framed = self._framed, None
        self._straight = False
        self._pace = None
        if framed is not None:
            self._tell(framed.request, self._head, self._octets, complete=complete)
        self._head, self._octets = b"", 0
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        reader, self._gone_reader = self._gone_reader, None
        if not complete:
            # Whoever is told below may answer at once.
            self._state = CLOSING
            self.gone = True
        if self._content is not None:
            content, self._content = self._content, None
            content.fail(ClientGone())
        if not complete and reader is not None:
            reader.wake()

    def _tell(self, request: Request, head: bytes, octets: int, *, complete: bool) -> None:
        listener = self._listener
        if listener.on_done is not None:
            listener.on_done(request, head, octets, complete, self._started, self.peer)
        if listener.downloads is not None:
            # What a lost connection was handed went nowhere.
            sent = complete and not self._transport.is_closing()
            listener.downloads.done(request, head, octets, sent, self._client)

    def _refuse(self, refused: RequestRefused) -> None:
        """Answer what is no request, or stopped being one, ourselves; a response under way is cut."""
        listener = self._listener
        # It holds what raised it, and that in turn may hold it.
        refused.__traceback__ = None
        listener.counters.add(Counter.BAD_REQUESTS)
        if self._state is SENDING:
            self._cut()
            return
        head, content = listener.refusal(refused.status, refused.detail)
        if self._framed is None and listener.on_done is not None:
            listener.on_done(None, head, len(content), True, listener.wall(), self.peer)
        self._head = head
        # Who reads the content is told now, and may answer: that would be a second response.
        self._state = CLOSING
        self._end_exchange(complete=False)
        self.put([head, b"Connection: close\r\n\r\n", content], 0)
        self._close()

    def _cut(self) -> None:
        """Break a response off so that the client can tell."""
        self._listener.counters.add(Counter.CUT)
        framed = cast(Framed, self._framed)
        self._end_exchange(complete=False)
        # To HTTP/1.0, the end of the connection may look like the end of the content.
        self._close(reset=framed.request.minor == 0)

    def _close(self, *, reset: bool = False) -> None:
        """After what was written, end our side; ``reset`` throws that away and lets the client know."""
        transport = self._transport
        self._state = CLOSING
        self._since = self._listener.now
        self.gone = True
        self._intake.drop()
        if reset:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        elif self._eof or not transport.can_write_eof():
            transport.close()  # TLS lingers by itself, until the peer's close_notify
        else:
            transport.write_eof()
            self._regulate()

    def shut(self) -> None:
        """For a drain: the next response is the last one; close if idle, and not only since a moment ago."""
        self._last, self._straight = True, False
        if self._state is READING and not self._intake.pending and self._held is None:
            self.check(self._listener.now)

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    @property
    def waits_since(self) -> float | None:
        """See :attr:`edgecache.wire.listener.Swept.waits_since`."""
        waits = self._state is READING and self._held is None and not self._yielding
        return self._since if waits and not self._transport.get_write_buffer_size() else None

    def push_out(self) -> None:
        """Others need its place at once."""
        self.turn_away()
        self.never_made()

    def turn_away(self) -> None:
        """Close at once, and read nothing of what is here already."""
        self._state = CLOSING
        self.gone = True
        self._transport.abort()

    def check(self, now: float) -> None:
        """Once a second: is the client over one of its deadlines?"""
        limits, waited = self._listener.limits, now - self._since
        match self._state:
            case State.READING if self._held is not None:
                self._check_held(self._held, now)
            case State.READING if self._intake.pending:
                if waited >= limits.head_seconds:
                    self._check_head(now)
            case State.READING:
                if waited >= self._listener.idle_seconds:
                    self._close()
            case State.ANSWERING:
                content = self._intake.content
                if content is None or self._reading_paused:
                    self._pace = None
                elif self._crawls(content.received, now):
                    self._late(408)
            case State.SENDING | State.CLOSING:
                unsent = self._transport.get_write_buffer_size()
                if not unsent:
                    self._pace = None
                    if self._state is CLOSING and waited >= LINGER_SECONDS:
                        self._transport.abort()
                elif self._crawls(self._written - unsent, now):
                    self._late(None)

    def _check_head(self, now: float) -> None:
        if self._yielding:
            # What is here came in time: only its turn did not.
            self._take_turn()
        if self._state is READING and self._intake.pending and now - self._since >= self._listener.limits.head_seconds:
            self._late(408)

    def _check_held(self, held: Framed, now: float) -> None:
        content = cast(RequestContent, self._content)
        if self._crawls(content.received, now):
            self._late(408)
        elif now - cast(Pace, self._pace).moved_at >= HOLD_SECONDS:
            self._held = None
            self._ask(held)

    def _crawls(self, moved: int, now: float) -> bool:
        if self._pace is None or self._pace.moved_at <= self._since:
            # That of this state: another counted other octets.
            self._pace = Pace(moved, now)
            return False
        return self._pace.too_slow(moved, now, self._listener.limits)

    def _late(self, status: int | None) -> None:
        self._listener.counters.add(Counter.SLOW_CLIENTS)
        if status is not None:
            self._refuse(RequestRefused(status, "the request took too long"))
            return
        self._end_exchange(complete=False)
        self._close(reset=True)

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Woken only when all is gone, plain connections can go on past the transport: see `direct`. One with TLS has
        # its next piece encrypted only then: the kernel still has enough to send.
        self._transport.set_write_buffer_limits(0 if self._listener.secure else HIGH_WATER, 0)
        sock = None if self._listener.secure else transport.get_extra_info("socket")
        self._descriptor = -1 if sock is None else sock.fileno()
        if self._listener.downloads is not None:
            cipher, protocol = (transport.get_extra_info("cipher") or ("", ""))[:2]
            self._client = client_label(self.peer, protocol.encode(), cipher.encode())
        self._since = self._listener.now
        self._listener.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self._state = CLOSING
        self.gone = True
        self._held = None
        self._intake.drop()
        borrowed, self._socket = self._socket, None
        if borrowed is not None:
            borrowed.detach()
        self._end_exchange(complete=False)
        self.never_made()
        self._listener.lost(self)

    def never_made(self) -> None:
        """It is closed, or its TLS handshake failed: no longer counted as its client's."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def eof_received(self) -> bool:
        """The client ends its side; it may still want the responses (TLS cannot do that)."""
        self._eof = self._reading_paused = True
        if self._state is CLOSING or self._listener.secure:
            return False
        if self._yielding:
            return True
        if self._intake.content is not None or (self._state is READING and self._intake.pending):
            self._refuse(RequestRefused(400, BROKE_OFF))
        elif self._state is READING:
            return False
        return True

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._state is not SENDING:
            return
        if self._pump is not None:
            self._pump.resume()
        else:
            self._sent()
