"""Requests and connections of the admin listener: twisted.web's, with bounds on what a stranger can make it hold."""

from __future__ import annotations

from io import BytesIO
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

JSON = b"application/json"

REQUEST_SECONDS = 30.0
"""From the first octet of a request to its last."""


class Bounds(Protocol):
    """What a connection needs of its site."""

    connections: int

    def most_content(self, request: AdminRequest) -> int:
        """:return: octets of content that are kept for this request."""


class AdminRequest(Request):
    """
    A request whose content is bounded; what is too much is read and dropped, so that the answer arrives.

    :ivar body: its content.
    :ivar too_large: content was dropped.
    :ivar local: it comes from this machine; set at the gate.
    """

    channel: AdminChannel
    body: BytesIO
    too_large = False
    local = False
    _most = 0

    def parseCookies(self) -> None:
        """There are none: a browser must not be able to lend anybody its authority."""

    def gotLength(self, length: int | None) -> None:
        """The head is there."""
        self._most = self.channel.site.most_content(self)
        self.body = self.content = BytesIO()
        self.too_large = length is not None and length > self._most

    def handleContentChunk(self, data: bytes) -> None:
        """Content came."""
        if not self.too_large and self.body.tell() + len(data) > self._most:
            self.too_large = True
            self.body = self.content = BytesIO()
        if not self.too_large:
            self.body.write(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        if self.media_type() != JSON:
            # Else twisted.web would parse forms, of any size, before anybody is asked for a token.
            self.body = self.content = BytesIO()
        super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def media_type(self) -> bytes:
        """:return: of the content, lower case, without parameters; empty when it is not told."""
        given = self.field(b"content-type")
        return given.partition(b";")[0].strip().lower()

    def field(self, name: bytes) -> bytes:
        """:return: all lines of a field joined with commas (RFC 9110 §5.3); empty without any."""
        return b", ".join(self.requestHeaders.getRawHeaders(name) or ())


class AdminChannel(HTTPChannel):
    """A connection with a deadline for each request: an octet now and then does not keep it open."""

    site: Bounds
    _deadline: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        """Octets came."""
        if self._deadline is None and not self._handlingRequest:
            self._deadline = self.callLater(REQUEST_SECONDS, self._late)  # type: ignore[no-untyped-call]  # Twisted has no types here
        super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def allContentReceived(self) -> None:
        """A request is complete."""
        self._forget()
        super().allContentReceived()  # type: ignore[no-untyped-call]  # Twisted has no types here

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # HTTPChannel itself demands the reason
        """It is over."""
        self._forget()
        self.site.connections -= 1
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self.forceAbortClient()  # type: ignore[no-untyped-call]  # Twisted has no types here
