"""
What an upstream says, and we accept, llhttp and h11 read as we do (issue 8, RFC 9112 §6.3).

Else one connection's next response would be another's, or what is stored another content than the origin's.
"""

from __future__ import annotations

import random

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from edgecache.upstream.heads import _NEVER_HOP_BY_HOP
from edgecache.words.messages import HOP_BY_HOP, Fields, Outbound
from tests.characters import Saying
from tests.fuzzing import around, fields, framed, inputs
from tests.parsers import Message, h11_responses, llhttp_responses
from tests.upstream.rig import GET, HEAD, Asking, Rig
from tests.upstream.test_responses import BAD, GOOD

NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden"
CORPUS = tuple(row.octets for rows in (GOOD, BAD) for row in rows.values() if len(row.octets) < 1000)


def response(rng: random.Random) -> bytes:
    """:return: one that is right, but for a few odd things."""
    interim = rng.choice((b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n"))
    status = rng.choice(
        (b"200 OK", b"200 OK", b"200", b"200 ", b"206 Partial", b"204 None", b"304 Same", b"404 No", b"999 X")
    )
    head = interim + b"HTTP/1." + rng.choice((b"1", b"1", b"1", b"0")) + b" " + status + b"\r\n" + fields(rng)
    if rng.random() < 0.2:
        head += rng.choice((b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: x, etag\r\n"))
    content = rng.choice((b"", b"hello", NEXT, b"0\r\n\r\n"))
    return head + (framed(rng, content) if rng.random() < 0.8 else b"\r\n" + content)


class ReadAlikeTests(SynchronousTestCase):
    """On the tables of what is accepted and refused, and on what lies between."""

    def ask(self, octets: bytes, outbound: Outbound, quantum: int) -> tuple[Asking, bool]:
        """:return: what came of the only request, and is the connection kept?"""
        rig = Rig()
        address = rig.stage.play("1", Saying(octets, close=True))
        asking = rig.ask(address, outbound, settle=None)
        [link] = rig.stage.links
        link._carry(link.a, link.b, 1 << 20)
        link.b._closing = False  # the end comes once all of it was read
        while link.pump(quantum):
            pass
        kept = bool(rig.client.idle(address))
        link.b._closing = True
        rig.stage.settle()
        rig.client.close()
        return asking, kept

    def same(self, octets: bytes, outbound: Outbound, note: object) -> bool:
        """:return: was it accepted?"""
        asking, kept = self.ask(octets, outbound, 1 << 20)
        slowly, _ = self.ask(octets, outbound, 1)
        ours, theirs = self.ours(asking), (self.ours(slowly))
        self.assertEqual(ours, theirs, f"{note} {octets!r}, octet by octet")
        if ours is None:
            return False
        readings = [h11_responses(octets, outbound.method, close=True)]
        if outbound is GET:
            readings.append(llhttp_responses(octets))
        for reading in readings:
            final = [each for each in reading.messages if each.start[0] >= b"200"][:1]
            if not final:
                # Refused, or it could not be complete, which would be a disagreement.
                self.assertIsNotNone(reading.refused_at, f"{note} {octets!r}: {reading}, we {ours}")
                continue
            self.assertEqual(ours, self.seen(final[0]), f"{note} {octets!r}")
            if kept:
                self.assertEqual(len(octets), final[0].end, f"{note} {octets!r}: kept with octets of nobody")
        return True

    def ours(self, asking: Asking) -> Message | None:
        """What was accepted, in other parsers' words; ``None``: it was refused, or is not complete."""
        if asking.response is None or not asking.taker.ended:
            return None
        head = asking.response.head
        return Message((b"%d" % head.status,), head.fields, asking.taker.content)

    def seen(self, message: Message) -> Message:
        return evolve(message, fields=_end_to_end(message.fields), end=0)

    def test_every_row_of_the_tables(self) -> None:
        accepted = sum(self.same(row, GET, "") for row in CORPUS)
        self.assertGreater(accepted, 30)

    def test_every_row_of_the_tables_as_an_answer_to_head(self) -> None:
        for row in CORPUS:
            self.same(row, HEAD, "HEAD")

    def test_what_is_nearly_right(self) -> None:
        accepted = 0
        for seed, rng in inputs(150):
            octets = response(rng)
            if rng.random() < 0.8:
                octets = around(rng, octets, CORPUS)
            octets += rng.choice((b"", b"", NEXT))
            if octets:
                accepted += self.same(octets, rng.choice((GET, GET, GET, HEAD)), seed)
        self.assertGreater(accepted, 20, "the inputs test nothing")


def _end_to_end(found: Fields) -> Fields:
    """Independently of ours: one pass for the names, one to leave them out."""
    named = {
        option.strip().lower() for name, value in found if name == b"connection" for option in value.split(b",")
    } - _NEVER_HOP_BY_HOP
    return [line for line in found if line[0] not in named | HOP_BY_HOP | {b"content-length"}]
