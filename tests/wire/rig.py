"""A listener and its connections over the in-memory network, with routes that are easy to watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field

from edgecache.wire.connection import Connection
from edgecache.wire.listener import Listener
from edgecache.words.config import LimitSettings
from edgecache.words.counters import SLOTS, Counter
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream, Reader, Source
from tests.memnet import Link, MemoryTransport, Network

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"


@define(eq=False)
class Counts:
    """Counters in a list."""

    slots: list[int] = field(factory=lambda: [0] * SLOTS)

    def add(self, counter: int, n: int = 1) -> None:
        self.slots[counter] += n

    def get(self, counter: Counter) -> int:
        return self.slots[counter]


@define(eq=False)
class Client(asyncio.Protocol):
    """Keeps what it receives; ``ended`` when the server has ended its side. One that holds on does not end its own."""

    received: bytes = b""
    ended: bool = False
    lost: bool = False
    holds_on: bool = False
    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.ended = True
        return self.holds_on

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


@define(eq=False)
class Given:
    """A source whose octets the test gives out as it likes."""

    length: int | None = None
    octets: bytes = b""
    complete: bool = False
    failed: Exception | None = None
    readers: list[Reader] = field(factory=list)
    reads: int = 0

    def read(self, position: int, limit: int) -> bytes:
        self.reads += 1
        return b"" if self.failed else self.octets[position : position + limit]

    def ended(self, position: int) -> bool:
        return self.complete and self.failed is None and position == len(self.octets)

    def attach(self, reader: Reader) -> None:
        self.readers.append(reader)

    def detach(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def give(self, octets: bytes = b"", *, complete: bool = False, failed: Exception | None = None) -> None:
        self.octets += octets
        self.complete, self.failed = complete, failed
        for reader in list(self.readers):
            reader.wake()


@define(eq=False)
class Collecting:
    """A route's reader of request content: answers ``ok`` when all of it is here."""

    source: Source
    downstream: Downstream
    content: bytes = b""
    finished: bool = False

    def wake(self) -> None:
        while piece := self.source.read(len(self.content), 65536):
            self.content += piece
        if not self.finished and (self.source.failed is not None or self.source.ended(len(self.content))):
            self.finished = True
            self.source.detach(self)
            if self.source.failed is None:
                self.downstream.send(OK, b"ok")


@define(eq=False)
class Waking:
    """Counts its wake-ups."""

    count: int = 0

    def wake(self) -> None:
        self.count += 1


@define(eq=False)
class Rig:
    """One listener; ``requests`` and ``downstreams`` are what its route was asked."""

    limits: LimitSettings = field(factory=LimitSettings)
    route: Callable[[Request, Downstream], None] | None = None
    trusted: bool = False
    secure: bool = False
    on_done: Any = None
    network: Network = field(factory=Network)
    counters: Counts = field(factory=Counts)
    requests: list[Request] = field(factory=list)
    downstreams: list[Any] = field(factory=list)
    contents: list[Collecting] = field(factory=list)
    listener: Listener = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.network.clock.advance(1_700_000_000)
        self.listener = Listener(
            self._answer,
            self.limits,
            self.counters,
            self.network.clock,
            lambda call: self.network.clock.callLater(0, call),
            trusted=self.trusted,
            secure=self.secure,
            on_done=self.on_done,
            wall=self.network.clock.seconds,
        )
        self.listener.start()
        self.network.listen("edge", lambda: Connection(self.listener, b"192.0.2.1"))

    def _answer(self, request: Request, downstream: Downstream) -> None:
        self.requests.append(request)
        self.downstreams.append(downstream)
        (self.route or self.at_once)(request, downstream)

    def at_once(self, request: Request, downstream: Downstream) -> None:
        """The default route: ``ok``, after all the content."""
        if request.has_content:
            collecting = Collecting(downstream.request_content(), downstream)
            self.contents.append(collecting)
            collecting.source.attach(collecting)
            collecting.wake()
        else:
            downstream.send(OK, b"ok")

    def later(self, request: Request, downstream: Downstream) -> None:
        """A route that leaves answering to the test."""

    def connect(self) -> Client:
        """:return: a client, connected."""
        client = Client()
        done: list[Any] = []
        self.network.connect(lambda: client, "edge").addCallback(done.append)
        return client

    @property
    def link(self) -> Link:
        """The newest connection."""
        return self.network.links[-1]

    def say(self, octets: bytes, client: Client | None = None) -> Client:
        """Send ``octets`` and let the network rest."""
        client = client or self.connect()
        client.transport.write(octets)
        self.network.settle()
        return client

    def turns(self) -> None:
        """Let pass as many turns of the loop as something waits for."""
        clock = self.network.clock
        self.network.settle()
        while any(call.getTime() <= clock.seconds() for call in clock.getDelayedCalls()):
            clock.advance(0)
            self.network.settle()

    def seconds(self, seconds: float) -> None:
        """Let time pass in steps of a quarter second, as sweeps need it."""
        for _ in range(int(seconds * 4)):
            self.network.advance(0.25)


@define(eq=False)
class Verdict:
    """What came of some octets, however they were cut."""

    status: bytes
    answers: int
    requests: int
    closed: bool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and repr(self) == repr(other)


def judge(pieces: Iterable[bytes], rig: Rig) -> Verdict:
    """Hand ``pieces`` one by one to a new connection of ``rig``, as a transport would."""
    before = len(rig.requests)
    connection = Connection(rig.listener)
    transport = MemoryTransport(connection, high_water=1 << 30)
    connection.connection_made(transport)
    for piece in pieces:
        if transport._closing:
            break
        connection.data_received(piece)
    rig.turns()
    output = bytes(transport.outbox)
    closed = transport._closing or transport._eof
    requests = len(rig.requests) - before
    connection.connection_lost(None)
    last = output[output.rfind(b"HTTP/1.1 ") :]
    return Verdict(last[9:12], output.count(b"HTTP/1.1 "), requests, closed)


def cuts(data: bytes) -> Iterable[list[bytes]]:
    """
    ``data`` byte by byte, and split at every offset.

    Of long data, at the offsets where something can begin or end, and some between.
    """
    yield [data[i : i + 1] for i in range(len(data))]
    if len(data) <= 700:
        offsets: Iterable[int] = range(1, len(data))
    else:
        near = {8192, 16384, len(data)}
        around = {n + d for n in near for d in range(-20, 21)}
        offsets = sorted({*range(1, 150), *around, *range(150, len(data), max(1, len(data) // 40))})
    for offset in offsets:
        if 0 < offset < len(data):
            yield [data[:offset], data[offset:]]
