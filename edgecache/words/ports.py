"""
The ports between the layers: who is asked, and who is told.

The implementations live further out; these say only what one side may expect of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Reader(Protocol):
    """Whoever waits for more of a :class:`Source`."""

    def wake(self) -> None:
        """More can be read, or the source has ended or failed. May come without cause."""


WriteTo = Callable[[int, bytes, int, int], int]
"""
A method ``write_to`` of this form lets a :class:`Source` write to a socket without handing the octets to anybody.

Descriptor of a non-blocking socket, octets to write first, position, limit -> octets written of both together.

It writes as much as the socket takes at once of content that is verified; 0 when that is nothing, or when
nothing can be written this way: then :meth:`Source.read` says more.
"""


class Source(Protocol):
    """
    Content that can be read from any position that is still there.

    Stored content, a fill in progress, a response passed through and a
    client's own content all look like this. Reading never waits: an empty
    answer before :meth:`ended` means "not yet", and :class:`Reader` is woken.

    :ivar length: complete length in octets, ``None`` while unknown.
    :ivar failed: why no more will come, ``None`` while it may.
    """

    @property
    def length(self) -> int | None: ...

    @property
    def failed(self) -> Exception | None: ...

    def read(self, position: int, limit: int) -> bytes:
        """
        :return: between 1 and ``limit`` octets from ``position``; ``b""`` when
            none is there yet, at the end, and once ``failed`` is set.
        """

    def ended(self, position: int) -> bool:
        """Is ``position`` the end of complete content?"""

    def attach(self, reader: Reader) -> None:
        """From now on wake ``reader``."""

    def detach(self, reader: Reader) -> None:
        """``reader`` has all it wanted, or has gone. Harmless when it is not attached."""


class HotContent(Protocol):
    """A content in memory, until the call that it was given to has ended."""

    def write_to(self, descriptor: int, before: bytes, start: int, stop: int) -> int:
        """
        Write to a non-blocking socket.

        :param before: written first.
        :return: octets that it took, of ``before`` and the content; 0 also when it is broken, which its transport will
            find out.
        """

    def read(self, start: int, stop: int) -> bytes:
        """:return: a copy of octets ``start`` to ``stop``."""

    def source(self) -> Source:
        """:return: all of it, for longer: to be attached to, or dropped."""


class Downstream(Protocol):
    """
    The client's side of one exchange, whatever the HTTP version.

    A ``head`` is the status line and field lines of HTTP/1.1, each ended by
    CR LF, without the empty line, without Connection and Transfer-Encoding:
    those are the wire's. It has Content-Length whenever the length is known.
    Exactly one of the ``send`` methods is called, once (or :meth:`sent`); all of them do
    nothing when the client has gone.

    :ivar gone: the client has left, or the connection was cut.
    :ivar peer: the client's address, without port; ``b""`` on a Unix socket.
    """

    @property
    def gone(self) -> bool: ...

    @property
    def peer(self) -> bytes: ...

    def interim(self, status: int, head: bytes) -> None:
        """Pass a 1xx response on; ignored for HTTP/1.0."""

    def send(self, head: bytes, content: bytes) -> None:
        """A whole response. For HEAD, 204 and 304 ``content`` is empty."""

    def send_pieces(self, head: bytes, content: list[bytes]) -> None:
        """Like :meth:`send`, with the content in pieces that are not joined."""

    def send_from(self, head: bytes, source: Source, start: int, stop: int | None) -> None:
        """
        A head, then octets ``start`` up to ``stop`` of ``source`` as they come.

        ``stop`` is ``None`` when the length is unknown: the content is then
        framed by the wire. If the source fails, the connection is cut so that
        the client can tell. The source is attached here and detached at the end.
        """

    def send_hot(self, head: bytes, content: HotContent, start: int, stop: int) -> None:
        """Octets ``start`` up to ``stop`` of a content that is in memory, without a copy where that can be."""

    def straight_socket(self, octets: int) -> int:
        """
        :param octets: of content.
        :return: the descriptor of a non-blocking socket to which head, empty line and content may be written now,
            before anything else is done; then :meth:`sent` must follow instead of one of those. -1 if the
            response has to take one of those ways: TLS, something on its way already, framing to be added, too
            much for one turn.
        """

    def sent(self, head: bytes, octets: int, rest: Source | None, start: int, stop: int) -> None:
        """
        The response was written to :meth:`straight_socket`, or the begin of it.

        :param octets: how many of head, empty line and content; 0 if it took none.
        :param rest: whence content comes that is not written yet; ``None`` if all is. Attached here, detached at
            the end.
        :param start: with ``stop`` the part of the content that the response has.
        """

    def close_after(self) -> None:
        """The response of this exchange, yet to be sent, is the last one on its connection."""

    def request_content(self) -> Source:
        """The content of the request; reading it lets more come. Only once per exchange."""

    def on_gone(self, reader: Reader | None) -> None:
        """Wake ``reader`` once the client is gone before the response was sent in full."""


class Timer(Protocol):
    """Something that will happen, unless cancelled."""

    def cancel(self) -> None:
        """Only before it has happened; twice is once too often (Twisted raises)."""


class Timers(Protocol):
    """Monotonic seconds and what happens later; a ``twisted.internet.task.Clock`` in tests."""

    def seconds(self) -> float:
        """:return: monotonic seconds; only differences mean anything."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Timer:
        """Call ``callable(*args)`` once, ``delay`` seconds from now."""


class Counts(Protocol):
    """A worker's own counters (:class:`edgecache.words.counters.Counter`)."""

    def add(self, counter: int, n: int = 1) -> None:
        """Add ``n`` to ``counter``."""
