"""
Kept connections to an origin that says more, less or earlier than it should: nobody gets an answer to another's request
(issue 8, RFC 9112 §9.2).

After each odd answer come victims, on the same connection of the client and on others; what they are answered names
what they asked for.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzzing import around, inputs
from tests.parsers import CLOSE, Message, h11_responses
from tests.system.harness import Node
from tests.system.rawness import Part, RawOrigin, Talk, tcp
from tests.system.smuggles import get, head, in_chunks, with_length
from tests.upstream.test_differential import CORPUS as RESPONSES
from tests.upstream.test_differential import response

EVIL = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 4\r\n\r\nEVIL"
OK = b"HTTP/1.1 200 OK\r\n"
VICTIMS = 4

IN_CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n"
GOOD = b"Content-Length: 4\r\nCache-Control: no-store\r\n\r\ngood"

ODD = {
    "more than Content-Length": (OK + GOOD + EVIL,),
    "more than Content-Length, a moment later": (OK + GOOD, EVIL),
    "more than the last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n" + EVIL,),
    "more than the last chunk, a moment later": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
        EVIL,
    ),
    "no content, and then some": (OK + b"Content-Length: 0\r\n\r\n" + EVIL,),
    "204 with content": (b"HTTP/1.1 204 No Content\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL,),
    "204 with content, a moment later": (b"HTTP/1.1 204 No Content\r\n\r\n", EVIL),
    "204 in chunks": (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", EVIL),
    "304 with content": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL,),
    "304 with content, a moment later": (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", EVIL),
    "two answers": (OK + GOOD + OK + GOOD + EVIL,),
}

BROKEN = {
    "both framings": (OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,),
    "two lengths": (OK + b"Content-Length: 4\r\nContent-Length: 8\r\n\r\ngood" + EVIL,),
    "a length with a sign": (OK + b"Content-Length: +4\r\n\r\ngood" + EVIL,),
    "an unknown coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + EVIL,),
    "a field split by bare LF": (OK + b"X: a\nContent-Length: 0\r\n" + GOOD + EVIL,),
    "a field split by bare CR": (OK + b"X: a\rSet-Cookie: evil=1\r\n" + GOOD,),
    "a field with NUL": (OK + b"X: a\0b\r\n" + GOOD,),
    "a folded field": (OK + b"X: a\r\n Content-Length: 0\r\n" + GOOD,),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + EVIL,),
    "no end of interim responses": (b"HTTP/1.1 103 Hints\r\n\r\n" * 40 + EVIL,),
    "not HTTP": (EVIL[8:],),
}


class DesyncTests(SynchronousTestCase):
    """One origin, one node with two workers."""

    origin: ClassVar[RawOrigin]
    node: ClassVar[Node]
    number = 0

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-desync-")
        cls.addClassCleanup(directory.cleanup)
        cls.origin = RawOrigin().start()
        cls.addClassCleanup(cls.origin.stop)
        cls.node = Node(Path(directory.name) / "node", cls.origin.url)
        cls.addClassCleanup(cls.node.end)
        cls.node.start()

    def tearDown(self) -> None:
        self.assertNotIn("Traceback", self.node.log)

    def connect(self) -> socket.socket:
        return tcp(int(self.node.url.rpartition(":")[2]))()

    def path(self) -> bytes:
        type(self).number += 1
        return b"/%d" % self.number

    def attack(self, name: str, method: bytes, part: Part, status: int, content: bytes | None = b"") -> None:
        """
        The request, and victims behind it and beside it.

        :param content: that is answered; ``None``: whatever.
        """
        target = self.path()
        self.origin.parts[target] = part
        # Of a GET, whatever comes when the next request has been sent is its answer (decision 0200).
        victims = [] if method == b"GET" and len(part.writes) > 1 else [self.path() for _ in range(VICTIMS)]
        behind = b"".join(get(victim) for victim in victims) + get(self.path(), b"Connection: close")
        octets = head(method, target) + behind if victims else head(method, target, b"Connection: close")
        answers = Talk.over(self.connect(), octets).answers([method, *[b"GET"] * (VICTIMS + 1)])
        self.assertEqual(status, answers[0].status, name)
        if content is not None:
            self.assertEqual(content, answers[0].content, name)
        seen = [(answer.status, answer.content) for answer in answers[1:-1]]
        self.assertEqual([(200, b"GET %b 0" % victim) for victim in victims], seen, name)
        self.assertTrue(part.said.wait(120.0))
        self.victims(*victims, *(self.path() for _ in range(VICTIMS)), name=name)
        del self.origin.parts[target]
        if status == 503:
            self.victims(target, name=f"{name}, well again")

    def victims(self, *targets: bytes, name: str = "") -> None:
        """Each on a connection of its own is answered what it asked for, also from the store."""
        for target in targets:
            [answer] = Talk.over(self.connect(), get(target, b"Connection: close")).answers([b"GET"])
            self.assertEqual((200, b"GET %b 0" % target), (answer.status, answer.content), name)

    def test_what_follows_an_answer_is_nobodys(self) -> None:
        for name, writes in ODD.items():
            for method in (b"GET", b"POST"):
                status = int(writes[0][9:12])
                content = b"good" if b"good" in writes[0] else b""
                self.attack(f"{method!r} {name}", method, Part(writes), status, content)

    def test_content_to_head_is_nobodys(self) -> None:
        for writes in ((OK + b"Content-Length: %d\r\n\r\n" % len(EVIL) + EVIL,), (OK + b"\r\n", EVIL)):
            self.attack(f"HEAD {writes!r}", b"HEAD", Part(writes), 200)

    def test_what_has_two_readings_is_an_error_and_stored_for_nobody(self) -> None:
        for name, writes in BROKEN.items():
            self.attack(name, b"GET", Part(writes), 503, None)

    def test_an_answer_before_the_content_was_read_ends_that_connection(self) -> None:
        """The rest of the content would be the next request."""
        hidden = get(b"/hidden")
        for content in (hidden * 4, hidden * 8000):
            chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
            for answer in (OK + GOOD, b"HTTP/1.1 413 No\r\n" + GOOD):
                for closes in (True, False):
                    target = self.path()
                    self.origin.parts[target] = Part((answer,), early=True, closes=closes)
                    for octets in (
                        with_length(b"POST", target, content, b"Connection: close"),
                        in_chunks(b"PUT", target, chunks, b"Connection: close"),
                    ):
                        [answered] = Talk.over(self.connect(), octets).answers([b"POST"])
                        self.assertEqual(int(answer[9:12]), answered.status)
                        self.victims(self.path(), self.path())
        self.assertNotIn(b"/hidden", [target for _, target, _ in self.origin.sent])

    def test_an_answer_to_content_that_nobody_read_is_nobody_elses(self) -> None:
        """An origin that takes the content for the next request (CL.0) answers that as well."""
        for make in (with_length, lambda *of: in_chunks(*of[:2], b"5\r\nhello\r\n0\r\n\r\n")):
            target = self.path()
            self.origin.parts[target] = Part((OK + GOOD, EVIL))
            victims = [self.path() for _ in range(VICTIMS)]
            octets = make(b"POST", target, b"hello") + b"".join(get(victim) for victim in victims)
            talk = Talk.over(self.connect(), octets + get(self.path(), b"Connection: close"))
            answers = talk.answers([b"POST", *[b"GET"] * (VICTIMS + 1)])
            contents = [answer.content for answer in answers[:-1]]
            self.assertEqual([b"good", *(b"GET %b 0" % victim for victim in victims)], contents)

    def test_what_is_nearly_right_is_an_error_or_what_strict_readers_make_of_it(self) -> None:
        """And whatever it is, the next request has an answer of its own."""
        for seed, rng in inputs(20):
            octets = around(rng, response(rng), RESPONSES) + rng.choice((b"", b"", EVIL))
            said = _final(octets)
            target = self.path()
            self.origin.parts[target] = Part((octets,), closes=said is None or said.end == CLOSE)
            for _ in range(2):  # as it came, and perhaps from the store
                got = _final(Talk.over(self.connect(), get(target, b"Connection: close")).received)
                if said is not None and got is not None and got.start == said.start:
                    self.assertEqual(said.content, got.content, f"{seed} {octets!r}")
            self.victims(self.path(), self.path(), name=f"{seed} {octets!r}")


def _final(octets: bytes) -> Message | None:
    """:return: the first response that is not interim, if it is whole."""
    messages = h11_responses(octets, b"GET", close=True).messages
    return next((message for message in messages if message.start[0] >= b"200"), None)
