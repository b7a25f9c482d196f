"""
The control channel between the node process and one worker.

Messages are JSON objects, one per line. Each side may *call* (an answer comes back)
or *notify* (none does). The same port joins both roles inside one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson
from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.processes.background import background
from edgecache.words.errors import EdgeError

_log = Logger()

LINE_OCTETS = 8 << 20
"""A longer message is a programming error, not load: the biggest are purges' selectors (4 MiB of JSON)."""

Payload = dict[str, Any]
Handler = Callable[..., Any]
"""Called with the payload as keyword arguments; a call's handler returns a dict, or a Deferred of one."""


@define(eq=False, repr=False)
class ChannelClosed(EdgeError):
    """The other process is gone, or going: no answer will come."""


@define(eq=False, repr=False)
class CallRefused(EdgeError):
    """
    The other side's handler failed.

    :ivar detail: its error, for people.
    """

    op: str
    detail: str


class Channel(Protocol):
    """One end of a control channel."""

    def call(self, op: str, **payload: Any) -> Deferred[Payload]:
        """Ask the other side. Fails with :class:`ChannelClosed` or :class:`CallRefused`."""

    def notify(self, op: str, **payload: Any) -> None:
        """Tell the other side; lost without a word when it is gone."""

    def on(self, op: str, handler: Handler) -> None:
        """Let ``handler`` serve ``op`` from now on."""


@define(eq=False, repr=False)
class LineChannel:
    """
    A :class:`Channel` over any pair of byte streams: give it octets, and it writes octets.

    :ivar name: of the other side, for the log.
    """

    name: str
    _write: Callable[[bytes], None]
    _handlers: dict[str, Handler] = field(factory=dict)
    _calls: dict[int, tuple[str, Deferred[Payload]]] = field(factory=dict)
    _next: int = 0
    _buffer: bytearray = field(factory=bytearray)
    _open: bool = True

    def on(self, op: str, handler: Handler) -> None:
        self._handlers[op] = handler

    def notify(self, op: str, **payload: Any) -> None:
        if self._open:
            self._send({"op": op, "with": payload})

    def call(self, op: str, **payload: Any) -> Deferred[Payload]:
        if not self._open:
            return fail(ChannelClosed())
        self._next += 1
        number = self._next
        # A caller that gives up leaves the entry: the late answer then finds a Deferred that ignores it.
        answer: Deferred[Payload] = Deferred()
        self._calls[number] = (op, answer)
        self._send({"op": op, "call": number, "with": payload})
        return answer

    def received(self, data: bytes) -> None:
        """Take octets that came from the other side."""
        # Only the new part can hold the end of the line.
        start = len(self._buffer)
        self._buffer += data
        if b"\n" not in data:
            if len(self._buffer) > LINE_OCTETS:
                raise ValueError(f"a message over {LINE_OCTETS} octets from {self.name}")
            return
        last = self._buffer.rindex(b"\n", start)
        lines = bytes(self._buffer[:last]).split(b"\n")
        del self._buffer[: last + 1]
        for line in lines:
            self._message(orjson.loads(line))

    def closed(self) -> None:
        """The other side is gone: every call that waits fails."""
        self._open = False
        calls, self._calls = self._calls, {}
        for _, answer in calls.values():
            answer.errback(ChannelClosed())

    def _send(self, message: Payload) -> None:
        self._write(orjson.dumps(message) + b"\n")

    def _message(self, message: Payload) -> None:
        if "op" in message:
            self._serve(message["op"], message.get("call"), message["with"])
            return
        op, answer = self._calls.pop(message["answers"])
        if "failed" in message:
            answer.errback(CallRefused(op, message["failed"]))
        else:
            answer.callback(message["with"])

    def _serve(self, op: str, number: int | None, payload: Payload) -> None:
        handler = self._handlers.get(op)
        if handler is None:
            _log.warn("nothing serves {op}, which {name} asked for", op=op, name=self.name)
            self._refuse(number, f"nothing serves {op!r}")
            return
        done = maybeDeferred(handler, **payload).addCallback(self._answer, number)
        background(done.addErrback(self._failed, op, number), f"serve {op}")

    def _answer(self, result: Payload | None, number: int | None) -> None:
        if number is not None and self._open:
            self._send({"answers": number, "with": result or {}})

    def _failed(self, failure: Failure, op: str, number: int | None) -> None:
        if isinstance(failure.value, EdgeError):
            # Raised on purpose: whoever asked knows what to do with it.
            self._refuse(number, str(failure.value))
            return
        _log.failure("{op} from {name} failed", failure, op=op, name=self.name)
        self._refuse(number, failure.getErrorMessage())

    def _refuse(self, number: int | None, why: str) -> None:
        if number is not None and self._open:
            self._send({"answers": number, "failed": why})


def pair(later: Callable[[Callable[[], None]], Any]) -> tuple[LineChannel, LineChannel]:
    """
    Both ends of a channel inside one process: what the node holds, and what the worker holds.

    Messages are encoded and delivered by ``later`` (never within the sender's call), so that
    one process behaves as two do.
    """
    node: LineChannel
    worker: LineChannel
    node = LineChannel("the worker", lambda data: _deliver(later, lambda: worker, data))
    worker = LineChannel("the node", lambda data: _deliver(later, lambda: node, data))
    return node, worker


def _deliver(later: Callable[[Callable[[], None]], Any], end: Callable[[], LineChannel], data: bytes) -> None:
    later(lambda: end().received(data))
