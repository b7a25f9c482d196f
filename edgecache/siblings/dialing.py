"""
Connections to one sibling for calls: whichever is ready first, for whoever waits longest (DESIGN 9).

A handshake costs milliseconds of CPU on both sides, and seconds where machines are busy. So none belongs to a call: one
that is too late for its own call is there for the next, and a fleet that is slow to speak to each other does speak.
"""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import WeakSet

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from edgecache.siblings.connections import HANDSHAKE_SECONDS
from edgecache.siblings.tls import CallerTLS
from edgecache.words.ports import Timer, Timers

_IDLE = "QUIESCENT"
"""State of twisted.web's protocol between two requests."""

MOST_UNDER_WAY = 16
"""Connections to one sibling that are being made; one more, and the oldest has to go."""


# twisted.web shows an endpoint for each connection that it asks for: not with all that is under way.
@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class Dialing:
    """
    TLS to one sibling.

    :ivar plain: connects, without TLS.
    :ivar call_seconds: as long as a call waits. What takes longer to be made is still waited for, but not alone.
    """

    _plain: Any
    _tls: CallerTLS
    _reactor: Any
    _timers: Timers
    _call_seconds: float
    _under_way: list[_Dial] = field(factory=list)
    _ready: deque[_Dial] = field(factory=deque)
    _waiting: dict[Deferred[Any], Any] = field(factory=dict)
    _factories: WeakSet[TLSMemoryBIOFactory] = field(factory=WeakSet)
    _closed: bool = False

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """:return: fires with a protocol whose handshake is done. Cancelling it ends no handshake."""
        if self._closed:
            return fail(ConnectionAborted())
        waiting: Deferred[Any] = Deferred(self._waiting.pop)
        self._waiting[waiting] = protocolFactory
        if self._ready:
            self._serve(self._ready.popleft())
        elif self._young < len(self._waiting):
            self._dial()
        return waiting

    def cut(self) -> None:
        """Close all connections over which nothing is asked."""
        for secured in self._secured:
            protocol = secured.wrappedProtocol
            if protocol in self._ready or getattr(protocol, "state", None) == _IDLE:
                secured.abortConnection()

    def close(self) -> None:
        """Close all connections: calls over them, and whoever waits, fail; and so does who comes later."""
        self._closed = True
        for dial in list(self._under_way):
            dial.give_up(ConnectionAborted())
        for secured in self._secured:
            secured.abortConnection()

    # _Dial

    def done(self, dial: _Dial) -> None:
        """Its handshake is."""
        dial.rest()
        self._under_way.remove(dial)
        self._serve(dial)

    def lost(self, dial: _Dial, reason: Failure | Exception) -> None:
        """It is closed, or there was never a connection."""
        dial.rest()
        if dial in self._ready:
            # The next call makes another one, and hears what is wrong.
            self._ready.remove(dial)
        if dial in self._under_way:
            young = self._is_young(dial)
            self._under_way.remove(dial)
            # What was made for a call that waits is not made up for by one that may never end.
            if (self._young if young else len(self._under_way)) < len(self._waiting):
                waiting = next(iter(self._waiting))
                del self._waiting[waiting]
                waiting.errback(reason)

    @property
    def _secured(self) -> list[Any]:
        return [secured for factory in self._factories for secured in factory.protocols]

    @property
    def _young(self) -> int:
        return sum(map(self._is_young, self._under_way))

    def _is_young(self, dial: _Dial) -> bool:
        """Was it begun for a call that may still wait?"""
        return dial.began > self._timers.seconds() - self._call_seconds

    def _dial(self) -> None:
        dial = _Dial(self, self._timers.seconds())
        self._under_way.append(dial)
        if len(self._under_way) > MOST_UNDER_WAY:
            self._under_way[0].give_up(ConnectionAborted())
        dial.timer = self._timers.callLater(HANDSHAKE_SECONDS, dial.expired)
        factory = TLSMemoryBIOFactory(self._tls, True, _Of(dial), self._reactor)
        # A line for each connection says nothing that an operator can use.
        factory.noisy = False
        # As long as a connection is there, its factory is.
        self._factories.add(factory)
        dial.connecting = self._plain.connect(factory)
        dial.connecting.addErrback(lambda failure: self.lost(dial, failure))

    def _serve(self, dial: _Dial) -> None:
        """Give it to whoever waits longest."""
        if not self._waiting:
            self._ready.append(dial)
            return
        waiting = next(iter(self._waiting))
        factory, secured = self._waiting.pop(waiting), dial.transport
        protocol = factory.buildProtocol(secured.getPeer())
        # As twisted.web itself does where TLS has chosen a protocol.
        secured.wrappedProtocol = protocol
        protocol.makeConnection(secured)
        waiting.callback(protocol)


@implementer(IHandshakeListener)
@define(eq=False, repr=False, slots=False)
class _Dial(Protocol):
    """
    One connection, until a call takes it.

    :ivar began: monotonic seconds.
    """

    _dialing: Dialing
    began: float
    connecting: Any = None
    timer: Timer | None = None
    # Its transport is the secured one; Twisted has no types here.
    transport: Any = None

    def handshakeCompleted(self) -> None:
        """It can be used."""
        self._dialing.done(self)

    def dataReceived(self, data: bytes) -> None:
        """Nobody has asked for anything."""
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Protocol's own has a default
        """It is closed."""
        self._dialing.lost(self, reason)

    def expired(self) -> None:
        """The other side has given it up as well."""
        self.timer = None
        self.give_up(TimeoutError(f"no handshake within {HANDSHAKE_SECONDS:g} s"))

    def give_up(self, reason: Exception) -> None:
        """It is not waited for any longer."""
        # Told now: what is said of a connection that was cut within its handshake explains nothing.
        self._dialing.lost(self, reason)
        if self.transport is None:
            self.connecting.cancel()
        else:
            self.transport.abortConnection()

    def rest(self) -> None:
        """No timer of it runs any longer."""
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()


@define(eq=False, repr=False, slots=False)
class _Of(Factory):
    """Of one protocol that is there already."""

    _dial: _Dial
    noisy = False

    def buildProtocol(self, addr: object) -> _Dial:
        """:return: that."""
        return self._dial
