"""
One exchange with one address: a request, interim responses, a head, content.

It goes through AWAITING, CONTENT and OVER. In AWAITING the asker's Deferred
is open; it fires with the exchange itself, which is the
:class:`~edgecache.upstream.responses.Response`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

from twisted.internet.defer import Deferred

from edgecache.upstream.addresses import Address
from edgecache.upstream.chunked import ChunkedDecoder
from edgecache.upstream.connection import Connection
from edgecache.upstream.heads import FramingError, HeadBuffer, ParsedHead, parse_head
from edgecache.upstream.requests import ContentPump
from edgecache.upstream.responses import Response, Sink
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import BadResponse, ConnectionLost, ContentStalled, HeadTimedOut, UpstreamFailed
from edgecache.words.messages import Head, Outbound

# Smaller pieces are joined before they are handed over: a call costs more than the copy.
_WORTH_A_CALL = 4096


class Stage(enum.Enum):
    """How far an exchange is."""

    AWAITING = "awaiting the head"
    CONTENT = "reading content"
    OVER = "over"


class Keeper(Protocol):
    """Who started an exchange and takes the connection back."""

    def head_came(self, exchange: Exchange) -> None:
        """The exchange awaits no head any more: it has one, failed, or was cancelled. Once."""

    def over(self, exchange: Exchange, connection: Connection | None, *, idle_seconds: int | None) -> None:
        """It is over; ``connection`` may serve another, and is ``None`` where it must not."""


class Exchange:
    """See the module; the attributes are :class:`~edgecache.upstream.responses.Response`'s."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_ending",
        "_flushing",
        "_head_seconds",
        "_heard",
        "_held",
        "_interim",
        "_interims",
        "_keeper",
        "_left",
        "_parsed",
        "_paused",
        "_pump",
        "_seconds",
        "_settings",
        "_sink",
        "_stage",
        "_stall_seconds",
        "address",
        "answer",
        "delimited_by_close",
        "empty",
        "failure",
        "head",
        "length",
        "minor",
        "octets",
        "outbound",
        "requested_at",
    )

    def __init__(
        self,
        keeper: Keeper,
        address: Address,
        outbound: Outbound,
        settings: UpstreamSettings,
        seconds: Callable[[], float],
        *,
        interim: Callable[[Head], None] | None,
        head_seconds: float | None,
    ) -> None:
        self.address = address
        self.outbound = outbound
        self.answer: Deferred[Response] = Deferred(self._cancelled)
        self.requested_at = seconds()
        self.octets = 0
        self.failure: UpstreamFailed | None = None
        self.length: int | None = None
        self.empty = False
        self.delimited_by_close = False
        self.minor = 1
        self._keeper = keeper
        self._settings = settings
        self._seconds = seconds
        self._interim = interim
        self._interims = 0
        self._head_seconds = settings.head_seconds if head_seconds is None else head_seconds
        # A worker that hangs is the watchdog's business; a closed socket is its failure (DESIGN 9).
        self._stall_seconds = settings.stall_seconds if address.path is None else inf
        self._stage = Stage.AWAITING
        self._connection: Connection | None = None
        self._pump: ContentPump | None = None
        self._heard = HeadBuffer(settings.head_octets)
        self._chunks: ChunkedDecoder | None = None
        self._left = 0
        self._sink: Sink | None = None
        self._paused = False
        self._flushing = False
        self._held: deque[bytes] = deque()
        # What the sink is told last: True is a complete end.
        self._ending: UpstreamFailed | bool | None = None

    # for the client

    def begin(self, connection: Connection, head: bytes) -> None:
        """Send the request; ``head`` is its serialised head."""
        assert connection.transport is not None
        self._connection = connection
        connection.user = self
        connection.used += 1
        content = self.outbound.content
        connection.transport.write(head)
        if content is None:
            connection.expect(self._seconds() + self._head_seconds)
            return
        self._pump = ContentPump(content, self.outbound.content_length, self)
        # Until a client's content is sent, the upstream may be silent.
        connection.expect(inf)
        self._pump.start(connection.transport)

    def failed(self, failure: UpstreamFailed) -> None:
        """It is over, and this is why; also used before there is a connection."""
        self.failure = failure
        if self._stage is Stage.AWAITING:
            answer = self.answer
            self._over(reusable=False)
            answer.errback(failure)
        elif self._stage is Stage.CONTENT:
            self._over(reusable=False)
            self._ending = failure
            self._flush()

    def broken(self, error: BaseException) -> None:
        """No head will come, and not by the upstream's fault: the asker sees ``error`` itself."""
        if self._stage is Stage.AWAITING:
            answer = self.answer
            self._over(reusable=False)
            answer.errback(error)

    def since(self) -> float:
        """:return: seconds since it was asked for."""
        return self._seconds() - self.requested_at

    # Response

    def attach(self, sink: Sink) -> None:
        """See :meth:`edgecache.upstream.responses.Response.attach`."""
        self._sink = sink
        if not self._paused:
            self._go_on()

    def pause(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.pause`."""
        if not self._paused:
            self._paused = True
            self._stop_reading()

    def resume(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.resume`."""
        if self._paused:
            self._paused = False
            if self._sink is not None:
                self._go_on()

    def cancel(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.cancel`."""
        self._sink = None
        self._ending = None
        self._held.clear()
        # From now on nothing is handed over, also where a piece is being handed over just now.
        self._paused = True
        self._over(reusable=False)

    # connection.User

    def received(self, data: bytes) -> None:
        """See :meth:`edgecache.upstream.connection.User.received`."""
        try:
            if self._stage is Stage.CONTENT:
                self._content(data)
            else:
                self._heads(data)
        except FramingError as error:
            self.failed(BadResponse(self.address.name, self.since(), str(error)))

    def ended(self) -> None:
        """See :meth:`edgecache.upstream.connection.User.ended`."""
        if self._stage is Stage.CONTENT and self.delimited_by_close:
            self._complete(reusable=False)
        else:
            self._lost("closed")

    def lost(self, error: Exception | None) -> None:
        """See :meth:`edgecache.upstream.connection.User.lost`."""
        self._lost("closed without an end" if error is None else str(error) or type(error).__name__)

    def expired(self) -> None:
        """See :meth:`edgecache.upstream.connection.User.expired`."""
        timed_out = HeadTimedOut if self._stage is Stage.AWAITING else ContentStalled
        self.failed(timed_out(self.address.name, self.since()))

    def writable(self, may: bool) -> None:
        """See :meth:`edgecache.upstream.connection.User.writable`."""
        if self._pump is None or self._pump.done:
            return
        self._pump.blocked = not may
        if may:
            self._pump.wake()
        elif self._stage is Stage.AWAITING and self._connection is not None:
            # It takes no more of the content: as silent as one that does not answer.
            self._connection.expect(self._seconds() + self._head_seconds)

    # requests.Sender

    def waiting(self) -> None:
        """See :meth:`edgecache.upstream.requests.Sender.waiting`."""
        if self._stage is Stage.AWAITING and self._connection is not None:
            self._connection.expect(inf)

    def sent(self) -> None:
        """See :meth:`edgecache.upstream.requests.Sender.sent`."""
        if self._stage is Stage.AWAITING and self._connection is not None:
            self._connection.expect(self._seconds() + self._head_seconds)
        elif self._stage is Stage.CONTENT:
            self._expect_more()

    def unsendable(self, error: Exception) -> None:
        """See :meth:`edgecache.upstream.requests.Sender.unsendable`."""
        if self._stage is Stage.AWAITING:
            self.broken(error)
        else:
            self.failed(ConnectionLost(self.address.name, self.since(), f"request content broke off: {error}"))

    # heads

    def _heads(self, data: bytes) -> None:
        # An interim response may be followed by the next head in the same read, or make the asker leave.
        while data and self._stage is Stage.AWAITING:
            octets, data = self._heard.feed(data)
            if octets is None:
                return
            parsed = parse_head(octets)
            if parsed.status < 200:
                self._one_interim(parsed)
            else:
                self._final(parsed, data)
                return

    def _one_interim(self, parsed: ParsedHead) -> None:
        self._interims += 1
        if parsed.status == 101:
            raise FramingError("101: nobody asked for another protocol")
        if self._interims > self._settings.interim_responses:
            raise FramingError("too many interim responses")
        if self._interim is not None:
            self._interim(Head(parsed.status, parsed.reason, parsed.fields))

    def _final(self, parsed: ParsedHead, rest: bytes) -> None:
        status = parsed.status
        self._parsed = parsed
        self._stage = Stage.CONTENT
        self.head = Head(status, parsed.reason, parsed.fields)
        self.minor = parsed.minor
        self.length = parsed.length
        self._keeper.head_came(self)
        assert self._connection is not None
        self._connection.expect(inf)
        if self._pump is not None and not self._pump.done and status >= 300:
            # It does not want the rest; the connection is of no more use then (RFC 9112 §9.6).
            self._pump.stop()
            parsed.persistent = False
        if self.outbound.method == b"HEAD" or status in (204, 304):
            self.empty = True
            if status == 204 and (parsed.chunked or parsed.length):
                # It means to send what nobody will read.
                parsed.persistent = False
            if status == 204:
                self.length = None
            self._complete(reusable=not rest)
        elif parsed.chunked:
            self._chunks = ChunkedDecoder()
        elif parsed.length is None:
            self.delimited_by_close = True
        else:
            self._left = parsed.length
            if not parsed.length:
                self._complete(reusable=not rest)
        if rest and self._stage is Stage.CONTENT:
            self._first_content(rest)
        answer = self.answer
        answer.callback(self)
        if self._stage is Stage.CONTENT and (self._sink is None or self._paused):
            self._stop_reading()

    def _first_content(self, rest: bytes) -> None:
        """What came with the head waits for the sink, also when it shows that the response is broken."""
        try:
            self._content(rest)
        except FramingError as error:
            self.failed(BadResponse(self.address.name, self.since(), str(error)))

    # content

    def _content(self, data: bytes) -> None:
        if self._chunks is not None:
            self._chunked(self._chunks, data)
            return
        excess = False
        if not self.delimited_by_close:
            excess = len(data) > self._left
            if excess:
                data = data[: self._left]
            self._left -= len(data)
        self._hand_over(data)
        if self._stage is not Stage.CONTENT:
            return
        if self._left or self.delimited_by_close:
            self._expect_more()
        else:
            self._complete(reusable=not excess)

    def _chunked(self, chunks: ChunkedDecoder, data: bytes) -> None:
        pieces: list[bytes] = []
        try:
            chunks.feed(data, pieces)
        finally:
            if len(pieces) > 1 and len(data) < _WORTH_A_CALL * len(pieces):
                pieces = [b"".join(pieces)]
            for piece in pieces:
                self._hand_over(piece)
        if self._stage is not Stage.CONTENT:
            return
        if chunks.ended:
            self._complete(reusable=not chunks.excess)
        else:
            self._expect_more()

    def _expect_more(self) -> None:
        """The stall clock starts anew; it stands while nobody reads, and while the client still sends."""
        if self._sink is None or self._paused or self._connection is None:
            return
        if self._pump is None or self._pump.done:
            self._connection.expect(self._seconds() + self._stall_seconds)

    def _hand_over(self, data: bytes) -> None:
        self.octets += len(data)
        if self._sink is not None and not self._paused and not self._held:
            self._sink.data(data)
        else:
            self._held.append(data)

    def _complete(self, *, reusable: bool) -> None:
        self._over(reusable=reusable)
        self._ending = True
        self._flush()

    def _flush(self) -> None:
        """Hand over what is held, in order, as far as the sink lets us."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._sink is not None and not self._paused and self._held:
                self._sink.data(self._held.popleft())
            if self._sink is None or self._paused or self._held or self._ending is None:
                return
            sink, ending = self._sink, self._ending
            self._ending = self._sink = None
        finally:
            self._flushing = False
        if isinstance(ending, UpstreamFailed):
            sink.fail(ending)
        else:
            sink.end()

    def _go_on(self) -> None:
        self._flush()
        if self._stage is Stage.CONTENT and not self._paused and self._connection is not None:
            self._expect_more()
            self._connection.read(True)

    def _stop_reading(self) -> None:
        if self._stage is Stage.CONTENT and self._connection is not None:
            self._connection.expect(inf)
            self._connection.read(False)

    # ends

    def _cancelled(self, _answer: Deferred[Response]) -> None:
        self.cancel()

    def _lost(self, detail: str) -> None:
        if self._stage is Stage.OVER:
            return
        assert self._connection is not None
        unheard = self._stage is Stage.AWAITING and self._heard.empty and not self._interims
        reused = unheard and self._connection.used > 1
        self.failed(ConnectionLost(self.address.name, self.since(), detail, reused))

    def _over(self, *, reusable: bool) -> None:
        """Give the connection back, or up; from here on only what is held is handed over."""
        stage, self._stage = self._stage, Stage.OVER
        if stage is Stage.OVER:
            return
        if self._pump is not None and not self._pump.done:
            self._pump.stop()
            reusable = False
        connection, self._connection = self._connection, None
        if stage is Stage.AWAITING:
            self._keeper.head_came(self)
            reusable = False
        idle_seconds = None
        if reusable:
            idle_seconds = self._parsed.idle_seconds
            reusable = self._parsed.persistent
        if connection is not None and not (reusable and connection.open):
            connection.close()
            connection = None
        self._keeper.over(self, connection, idle_seconds=idle_seconds)
