"""
Requests at a fixed rate, whatever becomes of them: each is sent when due, over a free connection or a new one.

Times run from when a request was due, so a server that is stuck cannot make its own figures look better.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field

# Whose certificate it is does not matter to what is measured.
_UNCHECKED = ssl.create_default_context()
_UNCHECKED.check_hostname, _UNCHECKED.verify_mode = False, ssl.CERT_NONE


@define(eq=False)
class Sent:
    """
    One request.

    :ivar due: seconds of the monotonic clock.
    :ivar late: seconds until it was really sent, or its connection begun.
    :ivar answered: the same, of the end of the answer; ``None`` until then.
    :ivar status: 0 when the connection ended first.
    """

    target: str
    due: float
    late: float = 0.0
    answered: float | None = None
    status: int = 0

    @property
    def seconds(self) -> float:
        """How long it took; how long ago it was, without an answer."""
        return (time.monotonic() if self.answered is None else self.answered) - self.due


@define(eq=False)
class Flow:
    """
    Clients of one host of one server.

    :ivar sent: every request in order.
    """

    url: str
    host: str
    sent: list[Sent] = field(factory=list)
    _free: list[_Client] = field(factory=list)
    _open: set[_Client] = field(factory=set)
    _connecting: set[asyncio.Task[None]] = field(factory=set)

    async def run(self, rate: float, seconds: float, target: Callable[[int], str]) -> None:
        """GET the targets of 0, 1, 2 and so on, ``rate`` a second; returns when the last is sent."""
        began, number = time.monotonic(), 0
        total = round(rate * seconds)
        while number < total:
            due = began + number / rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
                continue
            self.send(target(number), due)
            number += 1
            if number % 16 == 0:
                # Late or not, what has come in must be read.
                await asyncio.sleep(0)

    def send(self, target: str, due: float) -> Sent:
        """One request now; answers come while the loop runs."""
        sent = Sent(target, due, time.monotonic() - due)
        self.sent.append(sent)
        head = f"GET {target} HTTP/1.1\r\nHost: {self.host}\r\nAccept-Encoding: identity\r\n\r\n".encode()
        if self._free:
            self._free.pop().ask(head, sent)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(head, sent))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        return sent

    async def _connect(self, head: bytes, sent: Sent) -> None:
        parts = urlsplit(self.url)
        # Sixteen clients: what a server grants to a single one is not what is measured here.
        source = f"127.0.1.{len(self.sent) % 16 + 1}"
        try:
            _, client = await asyncio.get_running_loop().create_connection(
                lambda: _Client(self._open, self._free),
                str(parts.hostname),
                parts.port or 80,
                local_addr=(source, 0),
                ssl=_UNCHECKED if parts.scheme == "https" else None,
            )
        except OSError:
            sent.answered = time.monotonic()
            return
        client.ask(head, sent)

    async def settle(self, seconds: float) -> None:
        """Wait until all are answered, for at most so long."""
        until = time.monotonic() + seconds
        while any(each.answered is None for each in self.sent) and time.monotonic() < until:
            await asyncio.sleep(0.1)

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for client in list(self._open):
            client.transport.abort()


class _Client(asyncio.Protocol):
    """One connection, one request at a time."""

    # uvloop's are no subclass of asyncio.Transport.
    transport: Any

    def __init__(self, everyone: set[_Client], free: list[_Client]) -> None:
        self._everyone, self._free = everyone, free
        self._sent: Sent | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._everyone.add(self)

    def ask(self, head: bytes, sent: Sent) -> None:
        self._sent, self._buffer = sent, b""
        self.transport.write(head)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, content = self._buffer.partition(b"\r\n\r\n")
        if not end or self._sent is None:
            return
        fields = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in fields if line.startswith(b"content-length:")), None)
        chunked = b"transfer-encoding: chunked" in fields
        if content.endswith(b"0\r\n\r\n") if chunked else length is not None and len(content) >= length:
            self._answered(int(head.split(b" ", 2)[1]))
            if b"connection: close" in fields:
                self.transport.close()
            else:
                self._free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._everyone.discard(self)
        if self in self._free:
            self._free.remove(self)
        self._answered(0)

    def _answered(self, status: int) -> None:
        if self._sent is not None:
            self._sent.status, self._sent.answered = status, time.monotonic()
            self._sent = None


def percentile(sent: list[Sent], share: float) -> float:
    """Seconds within which this share of them was answered; those without an answer have taken until now."""
    seconds = sorted(each.seconds for each in sent)
    return seconds[min(len(seconds) - 1, int(len(seconds) * share))]
