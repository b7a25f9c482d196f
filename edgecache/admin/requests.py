"""Requests and connections of the admin listener: twisted.web's, with bounds on what a stranger can make it hold."""

from __future__ import annotations

import re
from typing import Protocol

from twisted.python.failure import Failure

from edgecache.siblings.bounded import BoundedChannel, BoundedRequest

_USERINFO = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/]*@")


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
    """A connection of the admin listener."""

    site: Bounds

    @property
    def idle(self) -> bool:
        """Is no request of it being answered?"""
        return not self._handlingRequest

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # HTTPChannel itself demands the reason
        """It is over."""
        self.site.left(self)
        super().connectionLost(reason)
