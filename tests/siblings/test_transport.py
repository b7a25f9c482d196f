"""Calls between siblings: one contract, run on the real transport and on its twin in memory (DESIGN 9)."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from edgecache.siblings.transport import Call, CallFailed, CallRefused, CallTimedOut, Message, Refused, Transport
from tests.siblings.fleet import CALL_SECONDS, MESSAGE_OCTETS, Certificates, Node
from tests.siblings.memory import MemoryFleet


@define(eq=False)
class Character:
    """A sibling that answers as it is told to."""

    asked: list[tuple[str, Message]] = field(factory=list)
    reached: Deferred[None] = field(factory=Deferred)
    silent: Deferred[None] = field(factory=Deferred)

    async def good(self, asker: str, message: Message) -> Message:
        self.asked.append((asker, message))
        return {"echo": message}

    async def refusing(self, asker: str, message: Message) -> Message:
        raise Refused("other-configuration", "members differ")

    async def hanging(self, asker: str, message: Message) -> Message:
        self.reached.callback(None)
        await self.silent
        return {}

    async def wordy(self, asker: str, message: Message) -> Message:
        return {"much": "x" * MESSAGE_OCTETS}


class Contract:
    """What :class:`~edgecache.siblings.transport.Transport` promises. ``home`` is asked by ``asker``."""

    clock: Clock
    character: Character

    async def between(self, **handlers: Any) -> Transport:
        raise NotImplementedError

    def run_async(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        return Deferred.fromCoroutine(work)

    def test_the_answer_is_the_handlers(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.good)
            answer = await transport.call("home", Call.PULL, {"positions": [1, {"a": None}], "text": "\u00e9"})
            self.assertEqual({"echo": {"positions": [1, {"a": None}], "text": "\u00e9"}}, answer)

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_the_handler_learns_who_asks_from_the_transport_not_from_the_message(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PUSH=self.character.good)
            await transport.call("home", Call.PUSH, {"from": "someone-else"})
            self.assertEqual([("asker", {"from": "someone-else"})], self.character.asked)

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_a_refusal_has_the_handlers_words(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.refusing)
            error = await self.assertFailure(Deferred.fromCoroutine(transport.call("home", Call.PULL, {})), CallRefused)
            self.assertEqual(("home", "other-configuration", 409), (error.sibling, error.code, error.status))
            self.assertIn("members differ", error.problem)

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_a_call_without_a_handler_is_refused(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.good)
            error = await self.assertFailure(
                Deferred.fromCoroutine(transport.call("home", Call.STATE, {})), CallRefused
            )
            self.assertEqual((404, "no-such-call"), (error.status, error.code))

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_a_sibling_that_is_silent_costs_the_time_of_one_call(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.hanging, PUSH=self.character.good)
            calling = Deferred.fromCoroutine(transport.call("home", Call.PULL, {}))
            await self.character.reached
            self.clock.advance(CALL_SECONDS - 0.01)
            self.assertNoResult(calling)
            self.clock.advance(0.01)
            await self.assertFailure(calling, CallTimedOut)
            self.assertEqual({"echo": {}}, await transport.call("home", Call.PUSH, {}))

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_an_answer_ends_the_deadline(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.good)
            await transport.call("home", Call.PULL, {})
            self.assertEqual([], self.clock.getDelayedCalls())

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_nobody_else_can_be_called(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.good)
            error = await self.assertFailure(
                Deferred.fromCoroutine(transport.call("stranger", Call.PULL, {})), CallFailed
            )
            self.assertEqual("stranger: is no sibling of this node", str(error))

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_a_message_that_is_too_large_is_refused_and_the_handler_does_not_see_it(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PUSH=self.character.good)
            much = {"much": "x" * MESSAGE_OCTETS}
            error = await self.assertFailure(
                Deferred.fromCoroutine(transport.call("home", Call.PUSH, much)), CallRefused
            )
            self.assertEqual((413, "too-large", []), (error.status, error.code, self.character.asked))

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_an_answer_that_is_too_large_is_none(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.wordy)
            await self.assertFailure(Deferred.fromCoroutine(transport.call("home", Call.PULL, {})), CallFailed)

        return self.run_async(body())  # type: ignore[no-any-return]

    def test_who_no_longer_waits_ends_the_call(self: Any) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.hanging)
            calling = Deferred.fromCoroutine(transport.call("home", Call.PULL, {}))
            await self.character.reached
            calling.cancel()
            await self.assertFailure(calling, CancelledError)
            self.assertEqual([], self.clock.getDelayedCalls())

        return self.run_async(body())  # type: ignore[no-any-return]


class TLSTransportTests(Contract, TestCase):
    """HTTP over TLS, on loopback."""

    timeout = 120
    host = "127.0.0.1"

    async def between(self, **handlers: Any) -> Transport:
        directory = Path(self.mktemp())
        certificates = Certificates(directory)
        home = Node(
            certificates.issue("home", self.host), {Call[name]: handler for name, handler in handlers.items()}
        ).start()
        asker = Node(certificates.issue("asker"), {}, clock=self.clock).start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop(asker, home)))
        await asker.know(home, host=self.host)
        return asker.caller

    async def stop(self, *nodes: Node) -> None:
        for node in nodes:
            await node.stop()

    def setUp(self) -> None:
        self.clock, self.character = Clock(), Character()

    async def late(self, transport: Transport) -> None:
        """A call whose time is over before anything has happened fails as any that takes too long."""
        calling = Deferred.fromCoroutine(transport.call("home", Call.PULL, {}))
        self.clock.advance(CALL_SECONDS)
        error = await self.assertFailure(calling, CallTimedOut)
        self.assertIn("no answer to pull within", error.problem)
        self.assertEqual({"echo": {}}, await transport.call("home", Call.PULL, {}))

    def test_a_deadline_that_passes_while_the_request_is_written_is_one(self) -> Deferred[None]:
        async def body() -> None:
            transport = await self.between(PULL=self.character.good)
            # The next one is written at once, on the same connection.
            await transport.call("home", Call.PULL, {})
            await self.late(transport)

        return self.run_async(body())

    def test_a_deadline_that_passes_while_a_connection_is_made_is_one(self) -> Deferred[None]:
        async def body() -> None:
            await self.late(await self.between(PULL=self.character.good))

        return self.run_async(body())

    def test_a_deadline_that_passes_while_a_name_is_looked_up_is_one(self) -> Deferred[None]:
        async def body() -> None:
            self.host = "localhost"
            await self.late(await self.between(PULL=self.character.good))

        return self.run_async(body())


class MemoryTransportTests(Contract, TestCase):
    """What other tests use in its place."""

    def setUp(self) -> None:
        self.clock, self.character = Clock(), Character()

    async def between(self, **handlers: Any) -> Transport:
        fleet = MemoryFleet(self.clock, CALL_SECONDS, MESSAGE_OCTETS)
        fleet.handlers["home"] = {Call[name]: handler for name, handler in handlers.items()}
        return fleet.of("asker")
