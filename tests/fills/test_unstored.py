"""What was not stored is told to the node process, a few at a time and never a flood."""

from __future__ import annotations

from typing import Any, cast

from attrs import define
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.unstored import MOST, TELL_SECONDS, Unstored
from edgecache.rules.asking import Asked
from edgecache.upstream.responses import Response
from edgecache.words.errors import ResolveFailed
from edgecache.words.messages import Head


@define
class Named:
    name: str


@define
class Key:
    key_hash: bytes


@define
class Came:
    head: Head
    address: Named


def asked(number: int) -> Asked:
    return cast(Asked, Key(bytes([number])))


def response(*fields: tuple[bytes, bytes]) -> Response:
    return cast(Response, Came(Head(200, b"OK", list(fields)), Named("http://o.example (192.0.2.1)")))


class UnstoredTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[list[list[Any]]] = []
        self.unstored = Unstored(self.told.append, self.clock, lambda: 7.0)

    def test_what_was_said_about_storing_is_told_and_nothing_else(self) -> None:
        self.unstored.passed(asked(1), response((b"cache-control", b"private"), (b"set-cookie", b"secret=1")), "")
        self.unstored.failed(asked(2), ResolveFailed("o.example", 0.0, "no address of it is known"))
        self.clock.advance(TELL_SECONDS)
        ((passed, failed),) = self.told
        self.assertEqual(["01", 7.0, 200, {"cache-control": "private"}, "", "http://o.example (192.0.2.1)"], passed)
        self.assertEqual(("02", 0, ""), (failed[0], failed[2], failed[5]))
        self.assertIn("no address", failed[4])

    def test_a_flood_is_cut_and_the_newest_of_a_key_counts(self) -> None:
        for number in range(MOST + 10):
            self.unstored.passed(asked(number), response(), "")
        self.unstored.passed(asked(0), response((b"vary", b"*")), "")
        self.clock.advance(TELL_SECONDS)
        (rows,) = self.told
        self.assertEqual((MOST, {"vary": "*"}), (len(rows), rows[0][3]))
        self.clock.advance(10 * TELL_SECONDS)
        self.assertEqual(1, len(self.told))

    def test_stopped_it_tells_nothing_more(self) -> None:
        self.unstored.passed(asked(1), response(), "")
        self.unstored.stop()
        self.assertEqual([], self.clock.getDelayedCalls())
