"""Control calls to siblings: HTTP over TLS on connections that last, one deadline for each call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import orjson
import treq
from attrs import define, field
from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed, DNSLookupError
from twisted.logger import Logger
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from edgecache.siblings.dialing import Dialing
from edgecache.siblings.identity import Identity
from edgecache.siblings.server import IDLE_SECONDS, PREFIX
from edgecache.siblings.tls import CallerTLS, context_of, refused_by_peer, said
from edgecache.siblings.transport import (
    Call,
    CallFailed,
    CallRefused,
    CallTimedOut,
    CertificateRefused,
    Message,
)
from edgecache.words.ports import Timers
from edgecache.words.siblingsettings import SiblingSettings

_log = Logger()

AT_ONCE = 8
"""Calls to one sibling; more wait for their turn, in their own time."""
# Closed by us a little before the other side closes it.
_KEPT_SECONDS = IDLE_SECONDS - 30

_CUT = "protocol is shutdown"
"""What OpenSSL says of a connection that was cut here."""

_SENT = (ResponseNeverReceived, ResponseFailed, RequestTransmissionFailed, RequestGenerationFailed)
_HEADERS = Headers({"Content-Type": ["application/json"], "Accept": ["application/json"]})


@implementer(IAgentEndpointFactory)
@define(eq=False, repr=False)
class Sibling:
    """
    One sibling, as seen from here.

    :ivar problem: why the last call failed; ``None``: it was answered, or there was none.
    :ivar turns: a call takes one.
    """

    id: str
    url: str
    _context: SSL.Context
    _reactor: Any
    _timers: Timers
    _seconds: float
    problem: str | None = None
    turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE))
    tls: CallerTLS = field(init=False)
    _dialing: Dialing = field(init=False)
    _pool: Any = field(init=False)
    client: treq.client.HTTPClient = field(init=False)

    @tls.default
    def _its_tls(self) -> CallerTLS:
        return CallerTLS(self._context, self.id, urlsplit(self.url).hostname or "")

    @_dialing.default
    def _its_dialing(self) -> Dialing:
        # An address needs no resolver, which answers from a thread.
        kind: Any = HostnameEndpoint
        if isIPAddress(self.tls.host):
            kind = TCP4ClientEndpoint
        elif isIPv6Address(self.tls.host):
            kind = TCP6ClientEndpoint
        plain = kind(self._reactor, self.tls.host, urlsplit(self.url).port or 443, timeout=self._seconds)
        return Dialing(plain, self.tls, self._reactor, self._timers, self._seconds)

    @_pool.default
    def _its_pool(self) -> Any:
        pool: Any = HTTPConnectionPool(self._reactor)  # type: ignore[no-untyped-call]  # Twisted has no types here
        pool.maxPersistentPerHost = AT_ONCE
        pool.cachedConnectionTimeout = _KEPT_SECONDS
        # It would repeat no POST; what may be repeated is decided here.
        pool.retryAutomatically = False
        return pool

    @client.default
    def _its_client(self) -> treq.client.HTTPClient:
        return treq.client.HTTPClient(Agent.usingEndpointFactory(self._reactor, self, self._pool))  # type: ignore[no-untyped-call]  # the same

    def endpointForURI(self, uri: Any) -> Any:
        """:return: where to connect: TLS, and that node behind it."""
        return self._dialing

    def cut(self) -> None:
        """
        Close those that nobody uses: where nothing comes over one, nothing can be said of the others. Calls that are
        under way have their own time, and connections that are being made may be what the next call needs.
        """
        self._dialing.cut()

    async def close(self) -> None:
        """Close all connections; calls that run fail."""
        self._dialing.close()
        await self._pool.closeCachedConnections()


@define(eq=False, repr=False)
class Caller:
    """
    The :class:`~edgecache.siblings.transport.Transport` over HTTP and TLS.

    Who called it last decides what is logged: that a sibling cannot be called any more, why, and that it can again.
    """

    _reactor: Any
    _timers: Timers
    _call_seconds: float
    _message_octets: int
    _siblings: dict[str, Sibling] = field(factory=dict)

    async def follow(self, identity: Identity, others: Iterable[SiblingSettings]) -> None:
        """From now on these siblings, with this certificate; connections of before are closed, their calls fail."""
        before = list(self._siblings.values())
        problems = self.problems
        context = context_of(identity)
        self._siblings = {
            other.id: Sibling(
                other.id,
                other.control_url.rstrip("/"),
                context,
                self._reactor,
                self._timers,
                self._call_seconds,
                # Who has heard that it cannot be called wants to hear of the end of that, too.
                problems.get(other.id),
            )
            for other in others
        }
        for sibling in before:
            await sibling.close()

    @property
    def problems(self) -> dict[str, str | None]:
        """Why each sibling's last call failed."""
        return {sibling.id: sibling.problem for sibling in self._siblings.values()}

    async def call(self, sibling: str, call: Call, message: Message) -> Message:
        """
        Ask ``sibling``.

        :raises CallFailed: with its kinds; a sibling that is not configured is one, too.
        """
        known = self._siblings.get(sibling)
        if known is None:
            raise CallFailed(sibling, "is no sibling of this node")
        late = False
        work = Deferred.fromCoroutine(self._call(known, call, orjson.dumps(message)))

        def enough() -> None:
            nonlocal late
            late = True
            work.cancel()

        timer = self._timers.callLater(self._call_seconds, enough)
        try:
            answer = await work
        except (CancelledError, CallFailed) as error:
            # While a name is looked up, a call that is cancelled says that there is no such name.
            if late:
                known.cut()
                problem = f"no answer to {call.value} within {self._call_seconds:g} s"
                self._tell(known, problem)
                raise CallTimedOut(sibling, problem) from None
            if isinstance(error, CallFailed):
                self._tell(known, error.problem)
            raise
        finally:
            if not late:
                timer.cancel()
        self._tell(known, None)
        return answer

    async def close(self) -> None:
        """Close all connections; calls that run fail."""
        siblings, self._siblings = self._siblings, {}
        for sibling in siblings.values():
            await sibling.close()

    async def _call(self, sibling: Sibling, call: Call, content: bytes) -> Message:
        await sibling.turns.acquire()
        try:
            try:
                status, answer = await self._exchange(sibling, call, content)
            except (*_SENT, ConnectionClosed) as error:
                if not _closed(error):
                    raise
                # The other side closed a connection that we kept, or just restarted: once more, on another one.
                status, answer = await self._exchange(sibling, call, content)
        except (
            *_SENT,
            ConnectError,
            ConnectingCancelledError,
            ConnectionClosed,
            DNSLookupError,
            OSError,
            SSL.Error,
        ) as error:
            if any(isinstance(cause, CancelledError | ConnectingCancelledError) for cause in _causes(error)):
                raise CancelledError from error
            raise _translated(sibling, error) from error
        finally:
            sibling.turns.release()
        return _read(sibling, status, answer)

    async def _exchange(self, sibling: Sibling, call: Call, content: bytes) -> tuple[int, bytes]:
        found: list[bytes] = []
        octets = 0

        def collect(piece: bytes) -> None:
            nonlocal octets
            octets += len(piece)
            # What is too much is read to its end all the same, so that the connection can be used again.
            if octets <= self._message_octets:
                found.append(piece)

        url = f"{sibling.url}{PREFIX}{call.value}"
        response = await sibling.client.request("POST", url, headers=_HEADERS, data=content)
        await treq.collect(response, collect)
        if octets > self._message_octets:
            raise CallFailed(sibling.id, f"its answer has more than {self._message_octets} octets")
        return int(response.code), b"".join(found)

    def _tell(self, sibling: Sibling, problem: str | None) -> None:
        if problem == sibling.problem or self._siblings.get(sibling.id) is not sibling:
            return
        if problem is None:
            _log.info("siblings: {id} answers again", id=sibling.id)
        else:
            _log.warn("siblings: {id} cannot be called: {problem}", id=sibling.id, problem=problem)
        sibling.problem = problem


def _read(sibling: Sibling, status: int, content: bytes) -> Message:
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise CallFailed(sibling.id, f"its answer ({status}) is no JSON object")
    if status == 200:
        return answer
    code, detail = str(answer.get("error", "")), str(answer.get("detail", ""))
    raise CallRefused(sibling.id, f"it refuses ({code}): {detail}", status, code)


def _causes(error: BaseException) -> list[BaseException]:
    reasons = getattr(error, "reasons", None)
    return [error] if reasons is None else [cause for reason in reasons for cause in _causes(reason.value)]


def _closed(error: BaseException) -> bool:
    """Was the connection closed, by either side, with nothing wrong in its TLS?"""
    causes = _causes(error)
    wrong = [cause for cause in causes if isinstance(cause, SSL.Error)]
    if wrong:
        return all(said(cause) == _CUT for cause in wrong)
    return any(isinstance(cause, ConnectionClosed) for cause in causes)


def _translated(sibling: Sibling, error: BaseException) -> CallFailed:
    for cause in _causes(error):
        if isinstance(cause, SSL.Error):
            if sibling.tls.verdict.problem is not None:
                return CertificateRefused(sibling.id, sibling.tls.verdict.problem)
            if refused_by_peer(cause):
                return CertificateRefused(sibling.id, f"it refuses this node's certificate: {said(cause)}")
            return CallFailed(sibling.id, f"TLS failed: {said(cause)}")
    cause = _causes(error)[-1]
    return CallFailed(sibling.id, str(cause) or type(cause).__name__)
