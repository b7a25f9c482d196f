"""The transport between siblings in memory: the real one's twin, for tests of what speaks over it."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from edgecache.siblings.transport import Call, CallFailed, CallRefused, CallTimedOut, Handler, Message, Refused
from edgecache.words.ports import Timers


@define(eq=False)
class MemoryFleet:
    """
    Everyone's handlers.

    :ivar cut: pairs (from, to) over which nothing goes.
    :ivar calls: who called, and what for, in order.
    """

    timers: Timers
    call_seconds: float
    message_octets: int
    handlers: dict[str, Mapping[Call, Handler]] = field(factory=dict)
    cut: set[tuple[str, str]] = field(factory=set)
    calls: list[tuple[str, Call]] = field(factory=list)

    def of(self, node_id: str) -> MemoryTransport:
        """:return: how ``node_id`` calls the others."""
        return MemoryTransport(self, node_id)


@define(eq=False)
class MemoryTransport:
    """One node's :class:`~edgecache.siblings.transport.Transport`."""

    _fleet: MemoryFleet
    _id: str

    async def call(self, sibling: str, call: Call, message: Message) -> Message:
        """Messages go through JSON, so that both sides share nothing."""
        fleet = self._fleet
        fleet.calls.append((self._id, call))
        if sibling not in fleet.handlers:
            raise CallFailed(sibling, "is no sibling of this node")
        work = Deferred.fromCoroutine(self._call(sibling, call, orjson.dumps(message)))
        late = False

        def enough() -> None:
            nonlocal late
            late = True
            work.cancel()

        timer = fleet.timers.callLater(fleet.call_seconds, enough)
        try:
            answer = await work
        except CancelledError:
            if not late:
                raise
            raise CallTimedOut(sibling, "no answer") from None
        finally:
            if not late:
                timer.cancel()
        return answer

    async def _call(self, sibling: str, call: Call, content: bytes) -> Message:
        fleet = self._fleet
        if (self._id, sibling) in fleet.cut:
            await Deferred()
        if len(content) > fleet.message_octets:
            raise CallRefused(sibling, "the message has too many octets", 413, "too-large")
        try:
            answer = orjson.dumps(await fleet.handlers[sibling][call](self._id, orjson.loads(content)))
        except KeyError:
            raise CallRefused(sibling, "no such call", 404, "no-such-call") from None
        except Refused as error:
            raise CallRefused(sibling, error.detail, 409, error.code) from None
        if (sibling, self._id) in fleet.cut:
            await Deferred()
        if len(answer) > fleet.message_octets:
            raise CallFailed(sibling, "its answer has too many octets")
        found: Message = orjson.loads(answer)
        return found
