"""
One exchange with one address: a request, interim responses, a head, content.

It goes through AWAITING, CONTENT and OVER. AWAITING ends with the asker being told: it is given the exchange
itself, which is the :class:`~edgecache.upstream.responses.Response`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from edgecache.upstream.addresses import Address
from edgecache.upstream.chunked import ChunkedDecoder
from edgecache.upstream.connection import Connection
from edgecache.upstream.delivery import Delivery
from edgecache.upstream.direct import LEAST, DirectReading
from edgecache.upstream.heads import END, FramingError, HeadBuffer, ParsedHead, ends_for_sure, parse_head
from edgecache.upstream.parties import Asker, Keeper, Stage
from edgecache.upstream.requests import ContentPump
from edgecache.upstream.tls import is_refusal, reason
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import BadResponse, ConnectionLost, ContentStalled, HeadTimedOut, TLSFailed, UpstreamFailed
from edgecache.words.messages import Head, Outbound

# Smaller pieces are joined before they are handed over: a call costs more than the copy.
_WORTH_A_CALL = 4096


# Looking a member up in its class costs on every read.
_AWAITING, _CONTENT, _OVER = Stage.AWAITING, Stage.CONTENT, Stage.OVER


class Exchange(Delivery):
    """
    See the module; and :class:`~edgecache.upstream.responses.Response` for what its asker sees.

    What most exchanges never touch has its default on the class.

    :ivar octets: of content, so far.
    """

    head: Head
    length: int | None = None
    empty = False
    delimited_by_close = False
    minor = 1
    octets = 0
    _stage = _AWAITING
    _connection: Connection | None = None
    _pump: ContentPump | None = None
    _heard: HeadBuffer | None = None
    _chunks: ChunkedDecoder | None = None
    _persistent = False
    _idle_seconds: int | None = None
    _interims = 0
    _left = 0
    _direct: DirectReading | None = None

    def __init__(
        self,
        keeper: Keeper,
        address: Address,
        outbound: Outbound,
        asker: Asker,
        settings: UpstreamSettings,
        seconds: Callable[[], float],
        interim: Callable[[Head], None] | None,
        head_seconds: float | None,
    ) -> None:
        self.address = address
        self.outbound = outbound
        # Let go once it is told: it knows us, too.
        self.asker: Asker | None = asker
        self.requested_at = seconds()
        self._keeper = keeper
        self._settings = settings
        self._seconds = seconds
        self._interim = interim
        self._head_seconds = settings.head_seconds if head_seconds is None else head_seconds

    # for the client

    def begin(self, connection: Connection, head: bytes, now: float) -> None:
        """Send the request; ``head`` is its serialised head."""
        transport = connection.transport
        assert transport is not None
        self._connection = connection
        connection.user = self
        connection.used += 1
        transport.write(head)
        content = self.outbound.content
        if content is None:
            connection.expect(now + self._head_seconds)
            return
        self._pump = ContentPump(content, self.outbound.content_length, self)
        # Until a client's content is sent, the upstream may be silent.
        connection.expect(inf)
        self._pump.start(transport)

    def failed(self, failure: UpstreamFailed) -> None:
        """It is over, and this is why; also used before there is a connection."""
        stage = self._stage
        if stage is _OVER:
            return
        self._over(reusable=False)
        if stage is _AWAITING:
            self._tell(failure)
        else:
            self.finish(failure)

    def broken(self, error: BaseException) -> None:
        """No head will come, and not by the upstream's fault: the asker sees ``error`` itself."""
        if self._stage is _AWAITING:
            self._over(reusable=False)
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        asker, self.asker = self.asker, None
        if asker is not None:
            asker.failed(error)

    @property
    def over(self) -> bool:
        """Nothing more comes of it."""
        return self._stage is _OVER

    def since(self) -> float:
        """:return: seconds since it was asked for."""
        return self._seconds() - self.requested_at

    # Response (the rest of it is Delivery's)

    def cancel(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.cancel`."""
        self.drop()
        self.asker = None
        self._over(reusable=False)

    def reading(self, may: bool) -> None:
        """The sink takes more, or has enough for now."""
        if self._stage is _CONTENT and self._connection is not None:
            if may:
                self._expect_more()
            else:
                self._connection.expect(inf)
            self._connection.read(may)

    # connection.User

    def received(self, data: bytes) -> None:
        """See :meth:`edgecache.upstream.connection.User.received`."""
        try:
            if self._stage is _CONTENT:
                self._content(data)
            else:
                self._heads(data)
        except FramingError as error:
            self._refuse(error)

    # direct.Taker

    def room(self) -> list[memoryview]:
        """See :meth:`edgecache.upstream.direct.Taker.room`, and Note [the last octets] there."""
        return self.memory(self._left - 1)

    def filled(self, octets: int) -> None:
        """See :meth:`edgecache.upstream.direct.Taker.filled`."""
        self._left -= octets
        self.octets += octets
        self.taken(octets)
        if self._stage is _CONTENT:
            self._expect_more()
            if self._left < LEAST:
                self._read_ordinarily()

    # connection.User

    def ended(self) -> None:
        """See :meth:`edgecache.upstream.connection.User.ended`."""
        if self._stage is _CONTENT and self.delimited_by_close:
            self._complete(reusable=False)
        else:
            # A worker that ends its side only lives, and breaks off on purpose; one that dies takes both with it.
            connection = self._connection
            hop = self._stage is _CONTENT and self.address.path is not None
            self._lost("closed", given_up=hop and connection is not None and not connection.hung_up)

    def lost(self, error: Exception | None) -> None:
        """See :meth:`edgecache.upstream.connection.User.lost`."""
        if self._unheard and self._connection is not None and self._connection.used == 1 and is_refusal(error):
            refused = TLSFailed(self.address.name, self.since(), f"it refuses this node's certificate: {reason(error)}")
            self._keeper.untrusted(refused)
            self.failed(refused)
            return
        self._lost("closed without an end" if error is None else str(error) or type(error).__name__)

    def expired(self) -> None:
        """See :meth:`edgecache.upstream.connection.User.expired`."""
        timed_out = HeadTimedOut if self._stage is _AWAITING else ContentStalled
        self.failed(timed_out(self.address.name, self.since()))

    def writable(self, may: bool) -> None:
        """See :meth:`edgecache.upstream.connection.User.writable`."""
        if self._pump is None or self._pump.done:
            return
        self._pump.blocked = not may
        if may:
            self._pump.wake()
        else:
            # It takes no more of the content: as silent as one that does not answer.
            self._expect_head()

    # requests.Sender

    def waiting(self) -> None:
        """See :meth:`edgecache.upstream.requests.Sender.waiting`."""
        if self._stage is _AWAITING and self._connection is not None:
            self._connection.expect(inf)

    def sent(self) -> None:
        """See :meth:`edgecache.upstream.requests.Sender.sent`."""
        self._expect_head()
        if self._stage is _CONTENT:
            self._expect_more()

    def unsendable(self, error: Exception) -> None:
        """See :meth:`edgecache.upstream.requests.Sender.unsendable`."""
        if self._stage is _AWAITING:
            self.broken(error)
        else:
            self.failed(ConnectionLost(self.address.name, self.since(), f"request content broke off: {error}"))

    # heads

    def _heads(self, data: bytes) -> None:
        # An interim response may be followed by the next head in the same read, or make the asker leave.
        while data and self._stage is _AWAITING:
            octets: bytes | None
            end = data.find(END) + len(END)
            if self._heard is None and len(END) <= end <= self._settings.head_octets:
                octets, data = data[:end], data[end:]
            else:
                if self._heard is None:
                    self._heard = HeadBuffer(self._settings.head_octets)
                octets, data = self._heard.feed(data)
                if octets is None:
                    return
                self._heard = None
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
        """The head that counts: how its content is framed, then the asker's turn."""
        self._stage = _CONTENT
        status = parsed.status
        self.head = Head(status, parsed.reason, parsed.fields)
        self.minor = parsed.minor
        self.length = parsed.length
        self._persistent = parsed.persistent
        self._idle_seconds = parsed.idle_seconds
        self._keeper.head_came(self)
        if self._pump is not None and not self._pump.done and status >= 300:
            # It does not want the rest; the connection is of no more use then (RFC 9112 §9.6).
            self._pump.stop()
            self._persistent = False
        if not self.address.ours and not ends_for_sure(parsed, self.outbound):
            self._persistent = False
        if status == 204 or status == 304 or self.outbound.method == b"HEAD":
            self.empty = True
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
        if self._stage is _CONTENT:
            if rest:
                self._first_content(rest)
            if self._connection is not None:
                self._connection.expect(inf)
        asker, self.asker = self.asker, None
        if asker is not None:
            asker.answered(self)
        if self._stage is _CONTENT and not self.flowing:
            self.reading(False)

    def _first_content(self, rest: bytes) -> None:
        """What came with the head waits for the sink, also when it shows that the response is broken."""
        try:
            self._content(rest)
        except FramingError as error:
            self._refuse(error)

    # content

    def _content(self, data: bytes) -> None:
        if self._chunks is not None:
            self._chunked(self._chunks, data)
        elif self.delimited_by_close:
            self._take(data)
            self._expect_more()
        else:
            excess = len(data) - self._left
            if excess > 0:
                data = data[: self._left]
            self._left -= len(data)
            self._take(data)
            if self._left:
                self._expect_more()
                if self._left >= LEAST and self._direct is None and self._stage is _CONTENT and self.room():
                    assert self._connection is not None
                    self._direct = DirectReading(self._connection, self)
            else:
                self._complete(reusable=excess <= 0)

    def _chunked(self, chunks: ChunkedDecoder, data: bytes) -> None:
        pieces: list[bytes] = []
        try:
            chunks.feed(data, pieces)
        finally:
            # Good also where a framing error follows.
            if len(pieces) > 1 and len(data) < _WORTH_A_CALL * len(pieces):
                pieces = [b"".join(pieces)]
            for piece in pieces:
                self._take(piece)
        if chunks.ended:
            self._complete(reusable=not chunks.excess)
        else:
            self._expect_more()

    def _take(self, data: bytes) -> None:
        # The sink may have cancelled within the last call.
        if self._stage is _CONTENT:
            self.octets += len(data)
            self.hand_over(data)

    def _read_ordinarily(self) -> None:
        direct, self._direct = self._direct, None
        if direct is not None:
            direct.stop()

    # deadlines

    def _expect_head(self) -> None:
        if self._stage is _AWAITING and self._connection is not None:
            self._connection.expect(self._seconds() + self._head_seconds)

    def _expect_more(self) -> None:
        """The stall clock starts anew; it stands while nobody reads, and while the client still sends."""
        if self._connection is None or not self.flowing or (self._pump is not None and not self._pump.done):
            return
        # A worker that hangs is the watchdog's business; a closed socket is its failure (DESIGN 9).
        if self.address.path is None:
            self._connection.expect(self._seconds() + self._settings.stall_seconds)

    # ends

    def _complete(self, *, reusable: bool) -> None:
        if self._stage is _CONTENT:
            self._over(reusable=reusable)
            self.finish(True)

    def _refuse(self, error: FramingError) -> None:
        self.failed(BadResponse(self.address.name, self.since(), str(error)))

    @property
    def _unheard(self) -> bool:
        """Did not one octet of an answer come?"""
        return self._stage is _AWAITING and self._heard is None and not self._interims

    def _lost(self, detail: str, *, given_up: bool = False) -> None:
        reused = self._unheard and self._connection is not None and self._connection.used > 1
        self.failed(ConnectionLost(self.address.name, self.since(), detail, reused, given_up))

    def _over(self, *, reusable: bool) -> None:
        """Give the connection back, or up; from here on only what is held is handed over."""
        stage, self._stage = self._stage, _OVER
        if stage is _OVER:
            return
        if self._pump is not None and not self._pump.done:
            self._pump.stop()
            reusable = False
        if stage is _AWAITING:
            self._keeper.head_came(self)
            reusable = False
        self._read_ordinarily()
        connection, self._connection = self._connection, None
        if connection is not None and not (reusable and self._persistent and connection.open):
            connection.close()
            connection = None
        self._keeper.over(self, connection, self._idle_seconds)
