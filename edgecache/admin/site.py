"""
The admin listener as a whole: what twistd listens with. It is never on the path of an artifact.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import unquote_to_bytes

from klein import Klein
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from edgecache.admin.access import Access
from edgecache.admin.answers import Problem, refuse
from edgecache.admin.application import Admin
from edgecache.admin.parts import AdminParts
from edgecache.admin.requests import AdminChannel, AdminRequest
from edgecache.siblings.accepting import listen_on

_log = Logger()

CONNECTIONS = 256
"""Open at a time; dashboards and scrapers need few."""

IDLE_SECONDS = 60
"""Between two requests."""

_UNKNOWN_OCTETS = 4096
"""Of content, from somebody without a token: it will be refused anyway."""

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"DELETE", b"PURGE"))


class Gate(Resource):
    """In front of all routes: what none of them has, or could read, never reaches the router."""

    isLeaf = True

    def __init__(self, app: Klein, purging: Klein) -> None:
        """:param purging: has the one route of ``PURGE``, whose target is no path of ours."""
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._routes = app.resource()
        self._purging = purging.resource()

    def render(self, request: AdminRequest) -> bytes | int:
        """Answer ``request``."""
        if request.method not in _METHODS:
            detail = f"{request.method.decode('latin-1')} is for nothing here."
            allowed = (("Allow", "DELETE, GET, HEAD, POST, PURGE"),)
            return refuse(request, Problem(405, "method-not-allowed", detail, allowed))
        try:
            unquote_to_bytes(request.path).decode()
        except UnicodeDecodeError:
            return refuse(request, Problem(400, "invalid-path", f"The path {request.path!r} is not UTF-8."))
        # The routes are the same whatever we are called, and the router chokes on some names.
        request.host_lines = list(request.requestHeaders.getRawHeaders(b"host") or ())
        request.requestHeaders.setRawHeaders(b"host", [b"admin"])
        if request.method == b"PURGE":
            request.path, request.postpath = b"/", [b""]
            self._purging.render(request)
        else:
            self._routes.render(request)
        return NOT_DONE_YET


class AdminSite(Site):
    """:ivar channels: open now, the oldest first."""

    requestFactory = AdminRequest
    displayTracebacks = False
    protocol = AdminChannel  # type: ignore[assignment]  # HTTP/1 only, so without Twisted's wrapper for both

    def __init__(self, resource: Resource, access: Access, body_octets: int, reactor: Any) -> None:
        super().__init__(resource, timeout=IDLE_SECONDS, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self.channels: dict[AdminChannel, None] = {}
        self._full = False  # which was logged
        self._access = access
        self._body_octets = body_octets

    def most_content(self, request: AdminRequest) -> int:
        """:return: octets of content that are kept for this request."""
        return self._body_octets if self._access.knows(request) else min(_UNKNOWN_OCTETS, self._body_octets)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Who holds connections pushes out the oldest one that waits for nothing.

        :return: ``None``, which closes the new one, when all of them wait for an answer.
        """
        if len(self.channels) >= CONNECTIONS:
            idle = next((channel for channel in self.channels if channel.idle), None)
            if idle is None:
                if not self._full:
                    _log.warn(
                        "admin: all of {count} connections wait for answers; another was closed", count=CONNECTIONS
                    )
                self._full = True
                return None
            # Its end may be told of a little later.
            self.left(idle)
            idle.abort()
        channel = super().buildProtocol(addr)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self.channels[channel] = None
        return channel

    def left(self, channel: AdminChannel) -> None:
        """It is closed."""
        self._full = False
        self.channels.pop(channel, None)

    def startFactory(self) -> None:
        """No access log: purges and tokens are audited where they are done."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """Not logged."""


def listen(parts: AdminParts, reactor: Any, sockets: list[socket.socket]) -> list[IListeningPort]:
    """
    :param sockets: closed here; the reactor has its own copies.
    :return: what to stop.
    """
    site = admin_site(parts, reactor)
    site.noisy = False
    return [listen_on(reactor, sock, site) for sock in sockets]


def admin_site(parts: AdminParts, reactor: Any) -> AdminSite:
    """
    :param reactor: its timers close what is idle or late.
    :return: what to listen with, on every admin address.
    """
    admin = Admin(parts)
    return AdminSite(Gate(admin.application(), admin.purging()), parts.access, parts.config.purge.body_octets, reactor)
