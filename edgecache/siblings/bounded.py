"""Requests and connections of twisted.web that a stranger cannot make hold more than he may."""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

REQUEST_SECONDS = 30.0
"""From the first octet of a request to its last."""


class BoundedRequest(Request):
    """
    A request whose content is bounded; what is too much is read and dropped, so that the answer arrives.

    :ivar body: its content.
    :ivar too_large: content was dropped.
    """

    body: BytesIO
    too_large = False
    _most = 0

    def most_content(self) -> int:
        """:return: octets of content that are kept for this request, whose head is there."""
        raise NotImplementedError

    def parseCookies(self) -> None:
        """There are none: a browser must not be able to lend anybody its authority."""

    def gotLength(self, length: int | None) -> None:
        """The head is there."""
        self._most = self.most_content()
        self.body = BytesIO()
        self.too_large = length is not None and length > self._most
        # What is here twisted.web parses as a form, of any size, before anybody is asked who he is.
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Content came."""
        if not self.too_large and self.body.tell() + len(data) > self._most:
            self.too_large = True
            self.body = BytesIO()
        if not self.too_large:
            self.body.write(data)


class BoundedChannel(HTTPChannel):
    """
    A connection with one request at a time, and with a deadline for each: an octet now and then does not keep it open.

    What is sent ahead waits until the answer before has left, and for a turn of the loop: twisted.web answers all that
    one read has brought at once, whether the client reads or not.
    """

    _turn: IDelayedCall | None = None
    _deadline: IDelayedCall | None = None

    def abort(self) -> None:
        """Close it at once."""
        cast(Any, self.transport).abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Octets came."""
        if self._deadline is None and not self._handlingRequest:
            self.end_after(REQUEST_SECONDS)
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def allContentReceived(self) -> None:
        """A request is complete."""
        self.in_time()
        super().allContentReceived()  # type: ignore[no-untyped-call]  # Twisted has no types here

    def end_after(self, seconds: float) -> None:
        """Close it unless :meth:`in_time` is called before."""
        self._deadline = self.callLater(seconds, self._late)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def in_time(self) -> None:
        """What was waited for is here."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def requestDone(self, request: Any) -> None:
        """An answer was written."""
        # Whatever is here is only kept.
        self.paused = True
        super().requestDone(request)  # type: ignore[no-untyped-call]  # Twisted has no types here
        if self._buffer or self._waitingForTransport:
            self._networkProducer.pauseProducing()
            self._take_turn()
        else:
            self.paused = False

    def resumeProducing(self) -> None:
        """The client has taken what was written."""
        super().resumeProducing()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._take_turn()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # HTTPChannel itself demands the reason
        """It is over."""
        self.in_time()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def _late(self) -> None:
        self._deadline = None
        self.abort()

    def _take_turn(self) -> None:
        if self.paused and self._turn is None and not self._waitingForTransport:
            self._turn = self.callLater(0, self._go_on)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def _go_on(self) -> None:
        self._turn = None
        if self._waitingForTransport:
            return
        self.paused = False
        if self._buffer:
            self.dataReceived(b"")
        if not self.paused and not self._handlingRequest:
            self._networkProducer.resumeProducing()
