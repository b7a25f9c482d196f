"""A :class:`~edgecache.processes.channel.LineChannel` over one end of a socket pair."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from edgecache.processes.channel import LineChannel

_log = Logger()


@implementer(IPushProducer)
@define(eq=False, repr=False)
class ChannelStream(Protocol):
    """
    Carries a channel; both processes use it.

    :ivar channel: what runs over it.
    :ivar congested: much is written that the other side has not read; what can be left unsaid, should.
    """

    _peer: str
    _on_closed: Callable[[], None]
    channel: LineChannel = field(init=False)
    congested: bool = False
    _stream: Any = None

    @channel.default
    def _line_channel(self) -> LineChannel:
        return LineChannel(self._peer, self._write)

    def _write(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)

    def connectionMade(self) -> None:
        stream: Any = self.transport
        self._stream = stream
        stream.registerProducer(self, True)

    def abandon(self) -> None:
        """The other side has ended: whatever it still had to say does not count."""
        if self._stream is not None:
            self._stream.abortConnection()

    def pauseProducing(self) -> None:
        self.congested = True

    def resumeProducing(self) -> None:
        self.congested = False

    def stopProducing(self) -> None:
        """Nothing to stop: messages are written by whoever has one."""

    def dataReceived(self, data: bytes) -> None:
        try:
            self.channel.received(data)
        except ValueError:
            _log.failure("{peer} does not speak our language; closing its channel", peer=self._peer)
            self.abandon()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._stream = None
        self.channel.closed()
        self._on_closed()


def adopt(reactor: Any, sock: socket.socket, peer: str, on_closed: Callable[[], None]) -> ChannelStream:
    """
    Run a channel over ``sock``, which is closed here: the reactor has its own copy.

    :param peer: name of the other side, for the log.
    :param on_closed: called once when the other side has gone.
    """
    stream = ChannelStream(peer, on_closed)
    sock.setblocking(False)
    reactor.adoptStreamConnection(sock.fileno(), socket.AF_UNIX, _Once(stream))
    sock.close()
    return stream


class _Once(Factory):
    """A factory for the one connection that there is already."""

    noisy = False

    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream

    def buildProtocol(self, addr: Any) -> ChannelStream:
        return self._stream
