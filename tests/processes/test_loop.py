"""The loop under Twisted's connections: one that the other side broke off ends, whatever is done to it then."""

from __future__ import annotations

import socket
import struct

from twisted.internet import reactor  # noqa: TID251  (tests run on the reactor itself)
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Answering(Protocol):
    """Tells what came and when the connection ended."""

    def __init__(self) -> None:
        self.came: Deferred[bytes] = Deferred()
        self.ended: Deferred[type[BaseException] | None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.came.callback(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.ended.callback(reason.type)


class BrokenOffTests(TestCase):
    """
    A peer's last octets and its reset that are there at once.

    The loop reads the octets, and forgets the descriptor without a word about the reset.
    """

    def setUp(self) -> None:
        self.protocol = _Answering()
        port = reactor.listenTCP(0, Factory.forProtocol(lambda: self.protocol), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        # Nothing of the loop runs before both are there.
        peer = socket.create_connection(("127.0.0.1", port.getHost().port))
        peer.sendall(b"last words")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        peer.close()

    async def test_it_ends_by_itself(self) -> None:
        self.assertEqual(b"last words", await self.protocol.came)
        self.assertIs(ConnectionLost, await self.protocol.ended)

    async def test_what_is_written_then_ends_it(self) -> None:
        self.assertEqual(b"last words", await self.protocol.came)
        await deferLater(reactor, 0)
        assert self.protocol.transport is not None
        self.protocol.transport.write(b"an answer")
        self.assertIs(ConnectionLost, await self.protocol.ended)

    async def test_reading_again_ends_it(self) -> None:
        await self.protocol.came
        await deferLater(reactor, 0)
        self.protocol.transport.pauseProducing()  # type: ignore[union-attr]
        self.protocol.transport.resumeProducing()  # type: ignore[union-attr]
        self.assertIs(ConnectionLost, await self.protocol.ended)
