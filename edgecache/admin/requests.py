"""Requests and connections of the admin listener: twisted.web's, with bounds on what a stranger can make it hold."""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from edgecache.siblings.bounded import BoundedChannel, BoundedRequest

_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/]*@")

REQUEST_SECONDS = 30.0
"""From the first octet of a request to its last."""


class Bounds(Protocol):
    """What a connection needs of its site."""

    def left(self, channel: AdminChannel) -> None:
        """It is closed."""

    def most_content(self, request: AdminRequest) -> int:
        """:return: octets of content that are kept for this request."""


class AdminRequest(BoundedRequest):
    """
    :ivar host_lines: lines of its Host field, which the router does not get to see.
    :ivar gone: its connection was lost.
    """

    channel: AdminChannel
    host_lines: list[bytes]
    gone = False

    def connectionLost(self, reason: Failure) -> None:
        """There is nobody any more to answer."""
        self.gone = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def most_content(self) -> int:
        """:return: what the site allows."""
        return self.channel.site.most_content(self)

    def media_type(self) -> bytes:
        """:return: of the content, lower case, without parameters; empty when it is not told."""
        given = self.field(b"content-type")
        return given.partition(b";")[0].strip().lower()

    def field(self, name: bytes) -> bytes:
        """:return: all lines of a field joined with commas (RFC 9110 §5.3); empty without any."""
        return b", ".join(self.requestHeaders.getRawHeaders(name) or ())


def named(request: AdminRequest) -> str:
    """
    :return: what was asked for, for logs: without user and password, and without the query, in which people put tokens.
    """
    return _USERINFO.sub(r"\1", request.uri.partition(b"?")[0].decode("utf-8", "backslashreplace"))


class AdminChannel(BoundedChannel):
    """A connection with a deadline for each request: an octet now and then does not keep it open."""

    site: Bounds
    _deadline: IDelayedCall | None = None

    @property
    def idle(self) -> bool:
        """Is no request of it being answered?"""
        return not self._handlingRequest

    def abort(self) -> None:
        """Close it at once."""
        cast(Any, self.transport).abortConnection()

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
        self.site.left(self)
        super().connectionLost(reason)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self.forceAbortClient()  # type: ignore[no-untyped-call]  # Twisted has no types here
