"""GETs through a node's public listener, as any client's: what ``edgecache warm`` and ``verify --refetch`` do."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from attrs import define, field, frozen
from OpenSSL.crypto import Error
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.error import ConnectError, TimeoutError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers

from edgecache.admin.address import AdminFailed
from edgecache.admin.secured import Secured, reason

CONNECT_SECONDS = 5.0
STALL_SECONDS = 30.0
"""Without head, or between two pieces of content; the whole may take as long as it takes."""

PAGE_OCTETS = 64 << 20
"""Of a page that is read; a file is never kept."""

_LOST = (
    ConnectError,
    ResponseNeverReceived,
    ResponseFailed,
    CancelledError,
    TimeoutError,
    PotentialDataLoss,
    OSError,
    SchemeNotSupported,
    ValueError,
)
_BEGIN = b"-----BEGIN CERTIFICATE-----"
# What may stand in a URL as it is; the rest is a list's own spelling.
_SAFE = "/?&=%:@!$'()*+,;~-._"


@frozen
class Fetched:
    """
    How one GET went.

    :ivar status: 0: there was no answer.
    :ivar octets: of content.
    :ivar hit: the node had it stored.
    :ivar problem: why it counts as failed; empty when it does not.
    :ivar content: if it was to be kept.
    """

    target: str
    status: int
    octets: int = 0
    hit: bool = False
    problem: str = ""
    content: bytes = field(default=b"", repr=False)


@define(eq=False, repr=False)
class Fetcher:
    """
    :ivar url: of the public listener.
    :ivar at_a_time: requests.
    """

    url: str
    at_a_time: int
    _reactor: Any
    _agent: Any
    _authorization: str = ""
    _turns: DeferredSemaphore = field(init=False)

    @_turns.default
    def _bound(self) -> DeferredSemaphore:
        return DeferredSemaphore(self.at_a_time)

    @classmethod
    def of(
        cls, reactor: Any, url: str, *, at_a_time: int = 8, authorization: str = "", authorities: str | None = None
    ) -> Fetcher:
        """
        :param authorization: of a client of sites that are for their clients only.
        :param authorities: file of the certificates to trust in the place of the system's.
        :raises AdminFailed: that file cannot be used.
        """
        pool = HTTPConnectionPool(reactor)  # type: ignore[no-untyped-call]  # Twisted has no types here
        pool.maxPersistentPerHost = at_a_time
        pool._factory.noisy = False
        policy = _policy(authorities)
        agent = Agent(reactor, policy, connectTimeout=CONNECT_SECONDS, pool=pool)  # type: ignore[no-untyped-call]  # the same
        return cls(url.rstrip("/"), at_a_time, reactor, agent, authorization)

    def get(
        self, target: str, host: str = "", *, keep: bool = False, fields: Mapping[str, str] | None = None
    ) -> Deferred[Fetched]:
        """
        :param target: path and query.
        :param host: value of Host; empty: as the URL has it.
        :param keep: it is a page that is to be read.
        :param fields: further ones.
        :return: fires when its turn has come and it is over; never fails.
        """
        return self._turns.run(lambda: Deferred.fromCoroutine(self._get(target, host, keep, fields or {})))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._agent._pool.closeCachedConnections()

    async def _get(self, target: str, host: str, keep: bool, fields: Mapping[str, str]) -> Fetched:
        headers = Headers({name: [value] for name, value in fields.items()})
        if host:
            headers.setRawHeaders("Host", [host])
        if self._authorization:
            headers.setRawHeaders("Authorization", [self._authorization])
        body = _Body(self._reactor, PAGE_OCTETS if keep else 0)
        try:
            url = (self.url + quote(target, safe=_SAFE)).encode("ascii")
            response = await self._agent.request(b"GET", url, headers).addTimeout(STALL_SECONDS, self._reactor)
            response.deliverBody(body)
            await body.ended
            content = _plain(bytes(body.kept), response.headers.getRawHeaders("content-encoding"))
        except (*_LOST, EOFError, zlib.error) as error:
            return Fetched(target, 0, body.octets, problem=reason(error))
        # The node's own is the last one (RFC 9211 §2).
        status = (response.headers.getRawHeaders("cache-status") or ("",))[-1]
        problem = "" if 200 <= response.code < 300 else f"status {response.code}"
        return Fetched(target, response.code, body.octets, "; hit" in status, problem, content)


class _Body(Protocol):
    """Takes the content; only so much of it is kept."""

    def __init__(self, reactor: Any, most: int) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self._give_up())
        self.octets = 0
        self.kept = bytearray()
        self._most = most
        self._reactor = reactor
        self._timer: Any = None

    def connectionMade(self) -> None:
        self._timer = self._reactor.callLater(STALL_SECONDS, self._stalled)

    def dataReceived(self, data: bytes) -> None:
        self.octets += len(data)
        self.kept += data[: self._most - len(self.kept)]
        if self._timer is not None:
            self._timer.reset(STALL_SECONDS)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self.ended.called:
            return
        if reason.check(ResponseDone):  # type: ignore[no-untyped-call]  # Twisted has no types here
            self.ended.callback(None)
        else:
            self.ended.errback(reason)

    def _stalled(self) -> None:
        self.ended.errback(TimeoutError(f"nothing came for {STALL_SECONDS:g} s"))  # type: ignore[no-untyped-call]  # the same
        self._give_up()

    def _give_up(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()


def _policy(authorities: str | None) -> Secured:
    if authorities is None:
        return Secured()  # type: ignore[no-untyped-call]  # Twisted has no types here
    try:
        with open(authorities, "rb") as file:
            blocks = file.read().split(_BEGIN)[1:]
        found = [ssl.Certificate.loadPEM(_BEGIN + block) for block in blocks]
    except (OSError, ValueError, Error) as error:
        raise AdminFailed(f"--ca {authorities}: {error}") from error
    return Secured(ssl.trustRootFromCertificates(found))  # type: ignore[no-untyped-call]  # the same


def _plain(content: bytes, codings: Any) -> bytes:
    return gzip.decompress(content) if codings == ["gzip"] and content else content
