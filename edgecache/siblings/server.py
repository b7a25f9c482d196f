"""
The listener of control calls: TLS with a client certificate of the fleet, HTTP, JSON each way (docs/SIBLINGS.md).

It knows nothing of purges: each call has a handler.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from edgecache.siblings.accepting import listen_on
from edgecache.siblings.connections import Peer, SiblingChannel, SiblingRequest
from edgecache.siblings.identity import Identity
from edgecache.siblings.problems import Problems
from edgecache.siblings.tls import ListenerTLS, context_of
from edgecache.siblings.transport import Call, Handler, Message, Refused
from edgecache.words.ports import Timers

_log = Logger()

PREFIX = "/siblings/"

STRANGERS = 128
"""Connections whose handshake is not done; one more, and the oldest has to go."""
PER_MEMBER = 64
"""Connections of one member: a caller of ours needs few."""
IDLE_SECONDS = 300
"""Between two requests; a caller that pulls comes each second."""


@define(eq=False, repr=False)
class Answering:
    """
    From a request to its answer.

    :ivar members: ids that are answered.
    """

    _handlers: Mapping[Call, Handler]
    _wall: Callable[[], float]
    _problems: Problems
    members: frozenset[str]

    def refusal(self, peer: Peer) -> tuple[str, str] | None:
        """:return: word and sentence of why this peer gets no answer."""
        if peer.id is None:
            return "wrong-certificate", peer.problem
        if peer.not_after.timestamp() <= self._wall():
            return "certificate-expired", f"the certificate of {peer.id} has expired"
        if peer.id not in self.members:
            return "not-a-member", f"{peer.id} is no member of this node's fleet"
        return None

    async def answer(self, request: SiblingRequest) -> None:
        """Never fails: what goes wrong is in the answer, and in the log."""
        channel = request.channel
        peer = channel.peer
        assert peer is not None
        refusal = self.refusal(peer)
        if refusal is not None:
            self._problems.tell(channel.host, refusal[1])
            _send(request, 403, _problem(*refusal), last=True)
            return
        assert peer.id is not None
        status, answer = await self._outcome(peer.id, request)
        if not request.gone:
            _send(request, status, answer, last=status == 413)

    async def _outcome(self, asker: str, request: SiblingRequest) -> tuple[int, Message]:
        path = request.path.decode("latin-1")
        handler = self._handlers.get(_CALLS[path]) if path in _CALLS else None
        if handler is None:
            return 404, _problem("no-such-call", f"{path} is no call of this release")
        if request.method != b"POST":
            request.responseHeaders.setRawHeaders(b"allow", [b"POST"])
            return 405, _problem("method", "calls are made with POST")
        if request.too_large:
            return 413, _problem("too-large", "the message has too many octets")
        try:
            message = orjson.loads(request.body.getvalue())
        except orjson.JSONDecodeError as error:
            return 400, _problem("not-json", str(error))
        if not isinstance(message, dict):
            return 400, _problem("not-json", "the message is no JSON object")
        try:
            return 200, await handler(asker, message)
        except Refused as error:
            return 409, _problem(error.code, error.detail)
        except Exception:  # noqa: BLE001  # whatever a message does to a handler, the next one is answered
            _log.failure("siblings: failed to answer {path} of {asker}", path=path, asker=asker)
            return 500, _problem("failed", "the log of this node says why")


_CALLS = {f"{PREFIX}{call.value}": call for call in Call}


def _problem(code: str, detail: str) -> Message:
    return {"error": code, "detail": detail}


def _send(request: Any, status: int, answer: Message, last: bool) -> None:
    content = orjson.dumps(answer)
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Content-Length", b"%d" % len(content))
    if last:
        request.setHeader(b"Connection", b"close")
        # The field alone only tells the other side.
        request.channel.persistent = False
    request.write(content)
    request.finish()


class _Routes(Resource):
    isLeaf = True

    def __init__(self, answering: Answering) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self._answering = answering

    def render(self, request: Any) -> int:
        """Answer ``request``, some time."""
        answered = Deferred.fromCoroutine(self._answering.answer(request))
        _ = answered.addErrback(lambda failure: self._failed(failure, request))
        return NOT_DONE_YET

    def _failed(self, failure: Any, request: SiblingRequest) -> None:
        # Not even an answer could be made: a handler's answer is no JSON.
        _log.failure("siblings: failed to answer {path}", failure, path=request.path)
        if not request.gone:
            request.channel.abort()


class ControlSite(Site):
    """Which connections are open."""

    requestFactory = SiblingRequest
    displayTracebacks = False
    protocol = SiblingChannel  # type: ignore[assignment]  # HTTP/1 only, so without Twisted's wrapper for both

    def __init__(self, answering: Answering, problems: Problems, message_octets: int, reactor: Any) -> None:
        super().__init__(_Routes(answering), timeout=IDLE_SECONDS, reactor=reactor)  # type: ignore[no-untyped-call]  # Twisted has no types here
        self.channels: dict[SiblingChannel, None] = {}
        self.stopping: list[Deferred[None]] = []
        self._strangers: dict[SiblingChannel, None] = {}
        self._answering = answering
        self._problems = problems
        self._message_octets = message_octets

    def arrived(self, channel: SiblingChannel) -> None:
        """Whoever holds connections without a certificate pushes out his own kind, never a member."""
        self.channels[channel] = self._strangers[channel] = None
        if len(self._strangers) > STRANGERS:
            next(iter(self._strangers)).abort()

    def known(self, channel: SiblingChannel) -> None:
        """
        It has shown a certificate of the fleet.

        Its oldest connection goes, not its newest: a network that loses connections without a word leaves them here.
        """
        del self._strangers[channel]
        peer = channel.peer
        assert peer is not None
        same = [other for other in self.channels if other.peer and other.peer.id == peer.id]
        if len(same) > PER_MEMBER:
            same[0].abort()

    def left(self, channel: SiblingChannel, problem: str | None) -> None:
        """It is closed."""
        self.channels.pop(channel, None)
        self._strangers.pop(channel, None)
        if problem is not None and not self.stopping:
            self._problems.tell(channel.host, problem)
        if not self.channels:
            for waiting in self.stopping:
                waiting.callback(None)
            self.stopping = []

    def most_content(self, channel: SiblingChannel) -> int:
        """:return: nothing is kept for who is refused."""
        peer = channel.peer
        return 0 if peer is None or self._answering.refusal(peer) is not None else self._message_octets

    def startFactory(self) -> None:
        """No access log: there are calls each second."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """Not logged."""


@define(eq=False, repr=False)
class ControlListener:
    """``[listen] siblings``, as the node process has it."""

    _site: ControlSite
    _identity: Identity
    _tls: ListenerTLS
    _answering: Answering
    _reactor: Any
    _ports: list[IListeningPort] = field(factory=list)

    @classmethod
    def make(
        cls,
        identity: Identity,
        members: frozenset[str],
        handlers: Mapping[Call, Handler],
        *,
        message_octets: int,
        reactor: Any,
        timers: Timers,
        wall: Callable[[], float],
    ) -> ControlListener:
        """
        :param members: ids that are answered; this node's own is none.
        :param handlers: of the calls that there are.
        :param wall: seconds since the epoch, for certificates that expire while a connection lasts.
        """
        problems = Problems(timers)
        answering = Answering(handlers, wall, problems, members)
        site = ControlSite(answering, problems, message_octets, reactor)
        site.noisy = False
        return cls(site, identity, ListenerTLS(context_of(identity)), answering, reactor)

    def listen(self, sockets: list[socket.socket]) -> None:
        """:param sockets: listening; they are closed here, the reactor has its own copies."""
        factory = TLSMemoryBIOFactory(self._tls, False, self._site, self._reactor)
        factory.noisy = False
        self._ports += [listen_on(self._reactor, sock, factory) for sock in sockets]

    def follow(self, identity: Identity, members: frozenset[str]) -> None:
        """
        From now on another certificate, other CAs and other members.

        Who was let in by what was before has to show again who it is: callers do that by themselves.

        :raises ConfigError: TLS does not take the certificate; all is as it was.
        """
        self._tls.context = context_of(identity)
        self._answering.members = members
        if not identity.same(self._identity):
            for channel in list(self._site.channels):
                channel.abort()
        self._identity = identity

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._site.channels)

    async def stop(self) -> None:
        """Close all; waits until they are."""
        await gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        self._ports.clear()
        if self._site.channels:
            closed: Deferred[None] = Deferred()
            self._site.stopping.append(closed)
            for channel in list(self._site.channels):
                channel.abort()
            await closed
