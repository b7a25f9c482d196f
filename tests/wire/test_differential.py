"""
What we accept, llhttp and h11 read as we do; and an origin gets that, and nothing else (issue 8, RFC 9112 §11.2).

Being stricter is no disagreement: a message that another parser refuses harms nobody. Reading it otherwise, or another
end of it, does.
"""

from __future__ import annotations

import random
import re
from typing import Any
from urllib.parse import urlsplit

from attrs import define, evolve, field
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward
from edgecache.rules.outbound import outbound
from edgecache.upstream.addresses import parse_origin
from edgecache.upstream.requests import ContentPump, serialise
from edgecache.wire.connection import Connection
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream
from edgecache.words.reasons import ForwardReason
from tests.fuzzing import around, fields, framed, inputs, pieces
from tests.memnet import MemoryTransport
from tests.parsers import Message, h11_requests, llhttp_requests
from tests.rules.build import PLAIN
from tests.wire import test_strictness as table
from tests.wire.rig import OK, Rig

STATUS = re.compile(rb"HTTP/1\.1 ([2-9][0-9]{2}) ")
"""Not 100: who has sent the content with the head is not asked for it."""
ORIGIN = parse_origin("http://origin.test/below")
NEVER_SENT = frozenset((b"te", b"upgrade", b"connection", b"expect", b"trailer", b"http2-settings"))

CORPUS = tuple(
    row
    for rows in (table.HOST, table.FRAMING, table.LENGTH, table.REQUEST_LINE, table.LINES, table.CHUNKS)
    for row in rows.values()
    if len(row) < 1000
)


@define(eq=False)
class Upstream:
    """Where one request is sent: a transport that keeps what is written, and who is told how it goes."""

    asked: Asked
    downstream: Downstream
    transport: MemoryTransport = field(factory=lambda: MemoryTransport(None, high_water=1 << 30))  # type: ignore[arg-type]
    pump: ContentPump | None = None
    done: bool = False

    def start(self) -> None:
        request = self.asked.request
        content = self.downstream.request_content() if request.has_content else None
        made = outbound(self.asked, Forward(ForwardReason.METHOD, alone=True), content=content)
        self.transport.write(serialise(made, ORIGIN))
        if content is None:
            self.sent()
        else:
            self.pump = ContentPump(content, made.content_length, self)
            self.pump.start(self.transport)

    def waiting(self) -> None:
        """The client is awaited."""

    def sent(self) -> None:
        self.done = True
        self.downstream.send(OK, b"ok")

    def unsendable(self, error: Exception) -> None:
        """It broke off: an origin sees half a request and the connection's end."""


@define(eq=False)
class Ours:
    """One connection of ours, and what it has sent upstream."""

    rig: Rig
    upstreams: list[Upstream] = field(factory=list)
    connection: Connection = field(init=False)
    transport: MemoryTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.connection = Connection(self.rig.listener)
        self.transport = MemoryTransport(self.connection, high_water=1 << 30)
        self.connection.connection_made(self.transport)

    def route(self, request: Request, downstream: Downstream) -> None:
        asked = ask(request, PLAIN)
        if not isinstance(asked, Asked):
            # Read well, and not for an origin: the rules have tests of their own. What follows would be counted wrong.
            downstream.close_after()
            downstream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n", b"")
            return
        upstream = Upstream(asked, downstream)
        self.upstreams.append(upstream)
        upstream.start()

    @property
    def over(self) -> bool:
        return self.transport._closing or self.transport._eof

    def feed(self, octets: bytes) -> None:
        if not self.over:
            self.rig.route = self.route
            self.connection.data_received(octets)
            self.rig.network.clock.advance(0)  # its further turns

    def told(self) -> list[Message]:
        """The requests that were read to their end."""
        return [self.message(each) for each in self.upstreams if each.done]

    def message(self, upstream: Upstream) -> Message:
        request = upstream.asked.request
        content = b""
        if upstream.pump is not None:
            [sent] = h11_requests(bytes(upstream.transport.outbox)).messages
            content = sent.content
        return Message((request.method, request.target), request.fields, content)


def read(octets: bytes) -> list[Message]:
    """:return: what we accept, octet by octet, each with its end."""
    ours = Ours(Rig())
    found: list[Message] = []
    for at in range(len(octets)):
        ours.feed(octets[at : at + 1])
        for message in ours.told()[len(found) :]:
            found.append(evolve(message, end=at + 1))
    return found


def seen(message: Message) -> Message:
    """What another parser reads of a target is what was written: brought into origin-form by yet another one."""
    method, target = message.start
    found = message.fields
    if not target.startswith(b"/") and target != b"*":
        parts = urlsplit(target.decode("latin-1"))
        rest = parts.path or ("*" if method == b"OPTIONS" and not parts.query else "/")
        target = (rest + (f"?{parts.query}" if "?" in target.decode("latin-1") else "")).encode("latin-1")
        host = parts.netloc.lower().encode("latin-1")
        found = [(b"host", host), *(line for line in found if line[0] != b"host")]
    return evolve(message, start=(method, target), fields=[line for line in found if not _internal(line[0])])


def _internal(name: bytes) -> bool:
    return name.startswith(b"edgecache-")


def request(rng: random.Random) -> bytes:
    """:return: one that is right, but for a few odd things."""
    method = rng.choice((b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"PURGE"))
    target = rng.choice((b"/", b"/a?b=c", b"/%2e/x", b"//a", b"/a;b", b"http://a/x", b"http://A?q", b"*", b"/\\"))
    version = rng.choice((b"1.1", b"1.1", b"1.1", b"1.0", b"1.2"))
    head = (
        rng.choice((b"", b"", b"", b"\r\n"))
        + method
        + b" "
        + target
        + b" HTTP/"
        + version
        + b"\r\n"
        + rng.choice((b"Host: a\r\n", b"host:A:80\r\n"))
    )
    head += fields(rng)
    if rng.random() < 0.15:
        head += rng.choice((b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"))
    if rng.random() < 0.5:
        inner = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
        return head + framed(rng, rng.choice((b"", b"hello", inner, b"0\r\n\r\n", inner * 3)))
    return head + b"\r\n"


class ReadAlikeTests(SynchronousTestCase):
    """On the table of what is refused, on what is right, and on what lies between."""

    def same(self, octets: bytes, note: Any = "") -> None:
        ours = read(octets)
        for reader in (llhttp_requests, h11_requests):
            theirs = reader(octets)
            for number, message in enumerate(ours):
                self.assertTrue(
                    theirs.agrees(number, message, seen), f"{note} {octets!r}: {reader.__name__} {theirs}, we {message}"
                )

    def sent_alike(self, octets: bytes, note: Any) -> None:
        """Each request that was accepted is one to a strict parser at the origin."""
        ours = Ours(Rig())
        ours.feed(octets)
        for upstream in ours.upstreams:
            sent = bytes(upstream.transport.outbox)
            if not upstream.done:
                # It breaks off: whatever the origin makes of it, it is no whole request.
                self.assertEqual([], h11_requests(sent).messages, f"{note} {octets!r}")
                continue
            request = upstream.asked.request
            target = request.target if request.target == b"*" else b"/below" + request.target
            expected = Message((request.method, target), [], ours.message(upstream).content, len(sent))
            for reader in (llhttp_requests, h11_requests):
                reading = reader(sent)
                if reading.refused_at is not None and reading.refused_at <= len(request.method) + 1:
                    continue  # llhttp knows a list of methods, and no others
                self.assertEqual(1, len(reading.messages), f"{note} {octets!r}: {sent!r}, {reading}")
                [message] = reading.messages
                named = {name for name, _ in message.fields}
                self.assertEqual(expected, evolve(message, fields=[]), f"{note} {octets!r}: {sent!r}")
                self.assertTrue(named.isdisjoint(NEVER_SENT), sent)

    def cut_alike(self, octets: bytes, parts: list[bytes], note: Any) -> None:
        """What comes of it depends on the octets, not on packets."""
        rig = Rig()  # with one memory of heads
        whole, cut = Ours(rig), Ours(rig)
        whole.feed(octets)
        for part in parts:
            cut.feed(part)
        for each in (whole, cut):
            each.connection.check(each.rig.listener.now)
        outcome = [(each.told(), STATUS.findall(each.transport.outbox), each.over) for each in (whole, cut)]
        self.assertEqual(outcome[0], outcome[1], f"{note} {parts!r}")

    def test_every_row_of_the_table_with_a_request_behind_it(self) -> None:
        for row in CORPUS:
            self.same(row + table.SMUGGLED)

    def test_what_is_nearly_right(self) -> None:
        accepted = 0
        for seed, rng in inputs(100):
            octets = b"".join(request(rng) for _ in range(rng.choice((1, 1, 2, 3))))
            if rng.random() < 0.8:
                octets = around(rng, octets, CORPUS)
            octets += rng.choice((b"", table.SMUGGLED))
            if not octets:
                continue
            self.same(octets, seed)
            self.sent_alike(octets, seed)
            self.cut_alike(octets, pieces(rng, octets), seed)
            accepted += len(read(octets))
        self.assertGreater(accepted, 20, "the inputs test nothing")

    def test_what_is_right_is_accepted(self) -> None:
        octets = b"".join(
            (
                b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
                b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
                b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                b'5;a="b"\r\nhello\r\n0\r\nX: y\r\n\r\n',
                b"GET http://A/d HTTP/1.1\r\nHost: b\r\n\r\n",
            )
        )
        self.assertEqual([b"/a", b"/b", b"/c", b"/d"], [message.start[1] for message in read(octets)])
        self.assertEqual(4, len(llhttp_requests(octets).messages))
        self.assertEqual(4, len(h11_requests(octets).messages))
        self.same(octets)
        self.sent_alike(octets, "")
