"""A tunnel to an origin through a proxy: CONNECT, for ``http`` and ``https`` origins alike (RFC 9110 §9.3.6)."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus

from twisted.internet.defer import Deferred

from edgecache.upstream.addresses import Origin
from edgecache.upstream.connection import Connection
from edgecache.upstream.heads import FramingError, HeadBuffer
from edgecache.words.config import UpstreamSettings
from edgecache.words.endpoints import Endpoint, ProxyURL

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])[ \r]")


class ProxyRefused(OSError):
    """
    The proxy did not connect us; the text says why, in words of ours.

    Nothing that the proxy said is in it: a reason phrase may repeat the credentials.
    """


def connect_head(origin: Origin, proxy: ProxyURL) -> bytes:
    """:return: the request for a tunnel to ``origin``: its authority always with the port (RFC 9112 §3.2.3)."""
    authority = str(Endpoint(origin.host, origin.port)).encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % authority, b"Host: %b" % authority]
    if proxy.authorization is not None:
        lines.append(b"Proxy-Authorization: " + proxy.authorization)
    return b"\r\n".join((*lines, b"", b""))


def tunnel(
    connection: Connection, origin: Origin, proxy: ProxyURL, settings: UpstreamSettings
) -> Deferred[asyncio.Transport]:
    """
    Make of ``connection``, which leads to ``proxy``, one that leads to ``origin``.

    :return: fires with the connection's transport; then it has no user any more. Fails with
        :class:`ProxyRefused`. There is no deadline here; whoever cancels it closes the connection.
    """
    transport = connection.transport
    assert transport is not None
    asking = _Asking(connection, settings)
    if connection.open:
        connection.user = asking
        transport.write(connect_head(origin, proxy))
    else:
        asking.ended()
    return asking.made


class _Asking:
    """The user of a connection while the proxy is asked (:class:`edgecache.upstream.connection.User`)."""

    def __init__(self, connection: Connection, settings: UpstreamSettings) -> None:
        self.made: Deferred[asyncio.Transport] = Deferred()
        self._connection = connection
        self._heard = HeadBuffer(settings.head_octets)
        self._limit = settings.head_octets
        self._interims = settings.interim_responses

    def received(self, data: bytes) -> None:
        """See :meth:`edgecache.upstream.connection.User.received`."""
        try:
            while data:
                head, data = self._heard.feed(data)
                if head is None:
                    return
                self._heard = HeadBuffer(self._limit)
                if self._final(_status(head), data):
                    return
        except FramingError as error:
            self._refuse(str(error))

    def ended(self) -> None:
        """See :meth:`edgecache.upstream.connection.User.ended`."""
        self._refuse("closed without an answer")

    def lost(self, error: Exception | None) -> None:
        """See :meth:`edgecache.upstream.connection.User.lost`."""
        self._refuse("closed without an answer" if error is None else str(error) or type(error).__name__)

    def expired(self) -> None:
        """See :meth:`edgecache.upstream.connection.User.expired`."""
        raise AssertionError("who asks for a tunnel has the deadline")

    def writable(self, may: bool) -> None:
        """See :meth:`edgecache.upstream.connection.User.writable`."""

    def _final(self, status: int, rest: bytes) -> bool:
        """Is this the answer, and not an interim one? Fields of a 2xx, its framing included, mean nothing."""
        if 100 <= status < 200 and status != 101:
            self._interims -= 1
            if self._interims < 0:
                raise FramingError("too many interim responses")
            return False
        if not 200 <= status < 300:
            self._refuse(f"answered {_named(status)}")
        elif rest:
            # No origin speaks first: taken for an answer, these octets would be one to a request not yet sent.
            self._refuse("sent octets after its answer")
        else:
            transport = self._connection.transport
            assert transport is not None
            self._finish()
            self.made.callback(transport)
        return True

    def _refuse(self, why: str) -> None:
        self._finish()
        self.made.errback(ProxyRefused(why))

    def _finish(self) -> None:
        self._connection.user = None


def _status(head: bytes) -> int:
    matched = _STATUS.match(head)
    if matched is None:
        raise FramingError("no status line of HTTP/1.0 or HTTP/1.1")
    return int(matched[1])


def _named(status: int) -> str:
    """The status and its usual name."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
