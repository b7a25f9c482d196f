"""Connections and requests of the control listener: twisted.web's, with bounds, and with the id of who asks."""

from __future__ import annotations

import datetime
from typing import Any, Protocol, cast

from attrs import frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from edgecache.siblings.bounded import BoundedChannel, BoundedRequest
from edgecache.siblings.identity import BadCertificate, named_id
from edgecache.siblings.tls import Verdict, refused_by_peer, said, verdict_of

HANDSHAKE_SECONDS = 10.0


@frozen
class Peer:
    """
    Who has shown a certificate of the fleet.

    :ivar id: the node that it names; ``None`` where that is not clear: ``problem`` says why.
    :ivar not_after: when it expires.
    """

    id: str | None
    not_after: datetime.datetime
    problem: str = ""


class Listening(Protocol):
    """What a connection needs of its site."""

    def arrived(self, channel: SiblingChannel) -> None:
        """It is open."""

    def known(self, channel: SiblingChannel) -> None:
        """Its handshake is done."""

    def left(self, channel: SiblingChannel, problem: str | None) -> None:
        """It is closed. :param problem: why, if its handshake failed."""

    def most_content(self, channel: SiblingChannel) -> int:
        """:return: octets of content that are kept for this peer."""


class SiblingRequest(BoundedRequest):
    """:ivar gone: who asked has left."""

    channel: SiblingChannel
    gone = False

    def most_content(self) -> int:
        """:return: what the site allows this peer."""
        return self.channel.site.most_content(self.channel)

    def connectionLost(self, reason: Failure) -> None:
        """Who asked has gone."""
        self.gone = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted has no types here


@implementer(IHandshakeListener)
class SiblingChannel(BoundedChannel):
    """
    A connection of a sibling; its handshake too has a deadline.

    :ivar peer: ``None`` until the handshake is done.
    """

    site: Listening
    peer: Peer | None = None
    _verdict: Verdict | None = None

    @property
    def host(self) -> str:
        """Where it comes from, for people."""
        where = cast(Any, self.transport).getPeer()
        return str(getattr(where, "host", where))

    def connectionMade(self) -> None:
        """The handshake begins."""
        super().connectionMade()  # type: ignore[no-untyped-call]  # Twisted has no types here
        # Asked now, for after a failed handshake there is no connection to ask.
        self._verdict = verdict_of(self.transport)
        self.end_after(HANDSHAKE_SECONDS)
        self.site.arrived(self)

    def handshakeCompleted(self) -> None:
        """The peer's certificate is one of the fleet."""
        self.in_time()
        certificate = cast(Any, self.transport).getPeerCertificate().to_cryptography()
        try:
            self.peer = Peer(named_id(certificate), certificate.not_valid_after_utc)
        except BadCertificate as error:
            self.peer = Peer(None, certificate.not_valid_after_utc, str(error))
        self.site.known(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # HTTPChannel itself demands the reason
        """It is over."""
        problem = None
        if self.peer is None:
            problem = (self._verdict and self._verdict.problem) or _ended(reason)
        self.site.left(self, problem)
        super().connectionLost(reason)


def _ended(reason: Failure) -> str:
    if isinstance(reason.value, SSL.Error):
        words = said(reason.value)
        return f"it refuses this node's certificate: {words}" if refused_by_peer(reason.value) else words
    return "the handshake was not finished"
