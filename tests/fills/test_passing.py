"""Content that goes straight on: in order, once, read or written past the transport."""

from __future__ import annotations

import random
import socket
from typing import Any

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.passing import PASS_HIGH, Passing
from edgecache.rules.digests import WITHHELD, Digest

CONTENT = random.Random(1).randbytes(2_000_000)


@define
class Upstream:
    """Hands pieces of any size over for as long as it may."""

    step: int
    digest: Digest | None = None
    position: int = 0
    flows: bool = True
    passing: Any = None

    def pause(self) -> None:
        self.flows = False

    def resume(self) -> None:
        self.flows = True
        self.run()

    def run(self) -> None:
        while self.flows and self.position < len(CONTENT):
            piece = CONTENT[self.position : self.position + self.step]
            self.position += len(piece)
            self.passing.data(piece)
        if self.position == len(CONTENT) and self.flows:
            self.passing.end()


class Uncounted:
    def add(self, counter: int, n: int = 1) -> None:
        pass


def passing(upstream: Upstream, length: int = len(CONTENT)) -> Passing:
    upstream.passing = Passing(upstream, Uncounted(), length)  # type: ignore[arg-type]  # what it uses of one
    return upstream.passing  # type: ignore[no-any-return]


class PassingTests(SynchronousTestCase):
    def test_the_client_gets_it_whichever_way_it_is_taken(self) -> None:
        for step in (999, 65_536, 262_144, 500_000):
            upstream = Upstream(step)
            source = passing(upstream)
            upstream.run()
            ours, client = socket.socketpair()
            ours.setblocking(False)
            got = bytearray()
            with ours, client:
                for turn in range(10_000):
                    if source.ended(len(got)):
                        break
                    if turn % 3:
                        octets = source.write_to(ours.fileno(), b"", len(got), 100_000)
                        while octets:
                            got += (piece := client.recv(octets))
                            octets -= len(piece)
                    else:
                        got += source.read(len(got), 50_000)
                    self.assertLessEqual(upstream.position - len(got), PASS_HIGH + step)
            self.assertTrue(got == CONTENT, step)

    def test_a_head_goes_before_it_and_counts_for_nothing(self) -> None:
        upstream = Upstream(1000)
        source = passing(upstream)
        ours, client = socket.socketpair()
        ours.setblocking(False)
        with ours, client:
            self.assertEqual(4, source.write_to(ours.fileno(), b"head", 0, 100))
            upstream.run()
            self.assertEqual(4 + 1000, source.write_to(ours.fileno(), b"head", 0, 1000))
            self.assertEqual(b"headhead" + CONTENT[:1000], client.recv(2000))
            self.assertEqual(CONTENT[1000:1010], source.read(1000, 10))

    def test_nothing_is_written_that_may_not_be_shown(self) -> None:
        source = passing(Upstream(100_000, Digest("sha-256", bytes(32))), length=WITHHELD)
        source.data(CONTENT[:100_000])
        ours, client = socket.socketpair()
        ours.setblocking(False)
        with ours, client:
            self.assertEqual(0, source.write_to(ours.fileno(), b"", 0, 100_000))

    def test_it_cannot_be_read_again(self) -> None:
        source = passing(Upstream(1000))
        source.data(CONTENT[:1000])
        source.read(0, 10)
        self.assertRaises(ValueError, source.read, 0, 10)
        self.assertRaises(ValueError, source.write_to, -1, b"", 0, 10)
