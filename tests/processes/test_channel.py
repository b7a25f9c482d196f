"""The control channel: calls are answered, notices are not, and nobody waits for a process that is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes import channel
from edgecache.processes.channel import CallRefused, Channel, ChannelClosed, LineChannel, pair
from edgecache.words.errors import StartError


@define(eq=False)
class Turns:
    """A loop that turns when it is told to."""

    waiting: list[Callable[[], None]] = field(factory=list)

    def later(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def turn(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class ContractTests(SynchronousTestCase):
    """What either implementation of the port does; here the one within a process."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.node: Channel
        self.worker: Channel
        self.node, self.worker = pair(self.turns.later)

    def test_a_call_is_answered_with_what_the_handler_returns(self) -> None:
        self.worker.on("double", lambda number: {"is": 2 * number})
        answer = self.node.call("double", number=21)
        self.turns.turn()
        self.assertEqual({"is": 42}, self.successResultOf(answer))

    def test_a_handler_may_take_its_time_and_others_are_answered_meanwhile(self) -> None:
        slow: Deferred[dict[str, Any]] = Deferred()
        self.worker.on("slow", lambda: slow)
        self.worker.on("fast", dict)
        first, second = self.node.call("slow"), self.node.call("fast")
        self.turns.turn()
        self.assertNoResult(first)
        self.assertEqual({}, self.successResultOf(second))
        slow.callback({"done": True})
        self.turns.turn()
        self.assertEqual({"done": True}, self.successResultOf(first))

    def test_a_handler_that_is_a_coroutine_is_waited_for(self) -> None:
        async def handler() -> dict[str, Any]:
            return {"x": 1}

        self.worker.on("op", handler)
        answer = self.node.call("op")
        self.turns.turn()
        self.assertEqual({"x": 1}, self.successResultOf(answer))

    def test_nothing_is_delivered_within_the_senders_own_call(self) -> None:
        heard: list[int] = []
        self.node.on("say", lambda what: heard.append(what))
        self.worker.notify("say", what=1)
        self.assertEqual([], heard)
        self.turns.turn()
        self.assertEqual([1], heard)

    def test_messages_arrive_in_order(self) -> None:
        heard: list[int] = []
        self.node.on("say", lambda what: heard.append(what))
        for number in range(5):
            self.worker.notify("say", what=number)
        self.turns.turn()
        self.assertEqual([0, 1, 2, 3, 4], heard)

    def test_a_refusal_tells_why_and_is_no_bug_to_log(self) -> None:
        def handler() -> None:
            raise StartError("no room")

        self.worker.on("op", handler)
        answer = self.node.call("op")
        self.turns.turn()
        self.assertEqual("no room", self.failureResultOf(answer, CallRefused).value.detail)

    def test_a_bug_in_a_handler_is_logged_and_answered(self) -> None:
        self.worker.on("op", lambda: 1 // 0)
        answer = self.node.call("op")
        self.turns.turn()
        self.failureResultOf(answer, CallRefused)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_what_nobody_serves_is_refused(self) -> None:
        answer = self.node.call("unheard-of")
        self.turns.turn()
        self.failureResultOf(answer, CallRefused)


class LineTests(SynchronousTestCase):
    """Over octets."""

    def setUp(self) -> None:
        self.written: list[bytes] = []
        self.channel = LineChannel("a test", self.written.append)

    def test_a_call_fails_when_the_other_side_goes(self) -> None:
        answer = self.channel.call("op")
        self.channel.closed()
        self.failureResultOf(answer, ChannelClosed)

    def test_a_call_to_a_side_that_is_gone_fails_at_once(self) -> None:
        self.channel.closed()
        self.failureResultOf(self.channel.call("op"), ChannelClosed)
        self.channel.notify("op")
        self.assertEqual([], self.written)

    def test_a_slow_handlers_answer_is_dropped_when_the_caller_has_gone(self) -> None:
        slow: Deferred[dict[str, Any]] = Deferred()
        self.channel.on("op", lambda: slow)
        self.channel.received(b'{"op":"op","call":1,"with":{}}\n')
        self.channel.closed()
        slow.callback({})
        self.assertEqual([], self.written)

    def test_a_message_without_end_is_not_gathered_for_ever(self) -> None:
        self.patch(channel, "LINE_OCTETS", 100)
        self.channel.received(b"x" * 100)
        self.assertRaises(ValueError, self.channel.received, b"x")

    @given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5), st.data())
    @settings(max_examples=50)
    def test_however_octets_are_cut_the_messages_are_the_same(self, messages: list[dict[str, str]], data: Any) -> None:
        written: list[bytes] = []
        sender = LineChannel("x", written.append)
        for message in messages:
            sender.notify("op", message=message)
        octets = b"".join(written)
        heard: list[dict[str, str]] = []
        receiver = LineChannel("y", written.append)
        receiver.on("op", lambda message: heard.append(message))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
        for start, stop in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            receiver.received(octets[start:stop])
        self.assertEqual(messages, heard)
