"""Handshakes that take longer than a call does: the one that is being made serves whoever comes next (DESIGN 9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor  # noqa: TID251  (tests run on the reactor itself)
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory
from twisted.protocols.portforward import ProxyClient, ProxyClientFactory, ProxyFactory, ProxyServer
from twisted.trial.unittest import TestCase

from edgecache.siblings.connections import HANDSHAKE_SECONDS
from edgecache.siblings.dialing import MOST_UNDER_WAY
from edgecache.siblings.identity import Identity
from edgecache.siblings.transport import Call, CallFailed, CallTimedOut, Message
from tests.siblings.fleet import CALL_SECONDS, Certificates, Node


@define(eq=False)
class Answering:
    """Says what it is told. :ivar hold: not before this."""

    hold: Deferred[None] | None = None
    reached: Deferred[None] = field(factory=Deferred)
    asked: list[Message] = field(factory=list)

    async def answer(self, asker: str, message: Message) -> Message:
        self.asked.append(message)
        if not self.reached.called:
            self.reached.callback(None)
        if self.hold is not None:
            await self.hold
        return message


class Inner(ProxyClient):  # type: ignore[misc]  # Twisted has no types here
    """What the node answers is kept until it is let go."""

    def dataReceived(self, data: bytes) -> None:
        door = self.peer.door
        if door.open:
            super().dataReceived(data)
        else:
            door.kept += data
            if not door.reached.called:
                door.reached.callback(None)


class InnerFactory(ProxyClientFactory):  # type: ignore[misc]  # the same
    protocol = Inner
    noisy = False


class Outer(ProxyServer):  # type: ignore[misc]  # the same
    clientProtocolFactory = InnerFactory

    def connectionMade(self) -> None:
        self.door = Door(self)
        self.factory.doors.append(self.door)
        super().connectionMade()

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        self.door.closed.callback(None)


@define(eq=False)
class Door:
    """One connection. :ivar reached: the node has answered; :ivar closed: it has ended."""

    _outer: Any
    open: bool = False
    kept: bytes = b""
    reached: Deferred[None] = field(factory=Deferred)
    closed: Deferred[None] = field(factory=Deferred)

    def let_go(self) -> None:
        self.open = True
        self._outer.transport.write(self.kept)


@define(eq=False)
class Place:
    port: int
    identity: Identity


class HandshakeTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        certificates = Certificates(Path(self.mktemp()))
        self.answering = Answering()
        self.home = Node(certificates.issue("home"), {Call.PULL: self.answering.answer}).start()
        self.asker = Node(certificates.issue("asker"), {}).start()
        factory = ProxyFactory("127.0.0.1", self.home.port)
        factory.protocol, factory.noisy, factory.doors = Outer, False, []  # type: ignore[attr-defined]
        self.doors: list[Door] = factory.doors  # type: ignore[attr-defined]
        self.listening: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]

    async def _end(self) -> None:
        await self.asker.stop()
        await self.home.stop()
        await self.listening.stopListening()
        for door in self.doors:
            await door.closed

    def tearDown(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._end())

    def call(self, **message: Any) -> Deferred[Message]:
        return Deferred.fromCoroutine(self.asker.caller.call("home", Call.PULL, message))

    async def late(self) -> None:
        """A call whose handshake is under way when its time is over."""
        calling = self.call()
        await self.arrived(len(self.doors) + 1)
        await self.doors[-1].reached
        self.asker.clock.advance(CALL_SECONDS)
        await self.assertFailure(calling, CallTimedOut)

    async def arrived(self, count: int) -> None:
        while len(self.doors) < count:
            turned: Deferred[None] = Deferred()
            reactor.callLater(0, turned.callback, None)  # type: ignore[attr-defined]
            await turned

    def test_one_that_is_too_late_for_its_call_serves_the_next(self) -> Deferred[None]:
        """Where machines are busy, no call would ever be answered: each would begin anew."""

        async def body() -> None:
            await self.asker.know(Place(self.listening.getHost().port, self.home.identity))
            await self.late()
            calling = self.call(n=1)
            self.doors[0].let_go()
            _, first = await DeferredList([self.doors[0].closed, calling], fireOnOneCallback=True)
            self.assertEqual(1, first, "it was not hung up on")
            self.assertEqual({"n": 1}, await calling)
            # And it is kept for those that follow.
            self.assertEqual({"n": 2}, await self.call(n=2))

        return Deferred.fromCoroutine(body())

    def test_a_later_call_waits_not_only_for_one_that_may_never_end(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(Place(self.listening.getHost().port, self.home.identity))
            await self.late()
            calling = self.call(n=1)
            await self.arrived(2)
            self.doors[1].let_go()
            self.assertEqual({"n": 1}, await calling)

        return Deferred.fromCoroutine(body())

    def test_a_later_call_is_told_what_became_of_its_own_while_an_older_one_never_ends(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(Place(self.listening.getHost().port, self.home.identity))
            await self.late()
            await self.listening.stopListening()
            self.listening = reactor.listenTCP(0, Factory())  # type: ignore[attr-defined]
            refused = await self.assertFailure(self.call(n=1), CallFailed)
            self.assertIn("refused", str(refused))
            self.assertFalse(self.doors[0].closed.called)

        return Deferred.fromCoroutine(body())

    def test_other_calls_that_are_under_way_have_their_own_time(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(self.home)
            first = self.call(n=0)
            await self.answering.reached
            self.asker.clock.advance(CALL_SECONDS / 2)
            self.answering.reached = Deferred()
            second = self.call(n=1)
            await self.answering.reached
            self.asker.clock.advance(CALL_SECONDS / 2)
            await self.assertFailure(first, CallTimedOut)
            self.answering.hold.callback(None)
            self.assertEqual({"n": 1}, await second)
            self.assertEqual([{"n": 0}, {"n": 1}], self.answering.asked, "nobody was asked again")

        self.answering.hold = Deferred()
        return Deferred.fromCoroutine(body())

    def test_a_call_over_one_that_was_cut_just_now_is_made_over_another(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(self.home)
            await self.call(n=0)
            (sibling,) = self.asker.caller._siblings.values()
            sibling.cut()
            self.assertEqual({"n": 1}, await self.call(n=1))

        return Deferred.fromCoroutine(body())

    def test_what_is_closed_makes_no_call_again(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(self.home)
            calling = self.call(n=0)
            await self.answering.reached
            await self.asker.caller.close()
            self.answering.hold.callback(None)
            await self.assertFailure(calling, CallFailed)
            self.assertEqual([{"n": 0}], self.answering.asked)

        self.answering.hold = Deferred()
        return Deferred.fromCoroutine(body())

    def test_one_that_takes_as_long_as_no_handshake_does_is_given_up(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(Place(self.listening.getHost().port, self.home.identity))
            await self.late()
            self.asker.clock.advance(HANDSHAKE_SECONDS - CALL_SECONDS)
            await self.doors[0].closed
            self.assertEqual([], self.asker.clock.getDelayedCalls())

        return Deferred.fromCoroutine(body())

    def test_so_many_are_under_way_and_no_more(self) -> Deferred[None]:
        async def body() -> None:
            await self.asker.know(Place(self.listening.getHost().port, self.home.identity))
            self.asker.clock.advance(1)
            for _ in range(3):
                calls = [self.call() for _ in range(MOST_UNDER_WAY // 2)]
                before = len(self.doors)
                await self.arrived(before + len(calls))
                self.asker.clock.advance(CALL_SECONDS)
                for call in calls:
                    await self.assertFailure(call, CallFailed)
            (sibling,) = self.asker.caller._siblings.values()
            self.assertLess(len(repr(sibling.endpointForURI(None))), 200, "which is made for each")
            for door in self.doors[: MOST_UNDER_WAY // 2]:
                await door.closed
            self.assertEqual(MOST_UNDER_WAY, sum(not door.closed.called for door in self.doors))

        return Deferred.fromCoroutine(body())
