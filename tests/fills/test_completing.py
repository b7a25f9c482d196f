"""A beginning from the store and its rest, to a sink that pauses, leaves, or has no memory just then."""

from __future__ import annotations

from typing import Any

from attrs import define

from edgecache.fills.completing import PIECE, Completing
from edgecache.rules.resuming import OVERLAP, Broken, Rest
from edgecache.store.layout import CHUNK
from edgecache.words.errors import NotTaken
from tests.characters import Good
from tests.fills.test_continuing import MEGABYTE, Rig
from tests.store.rooms import StoreTestCase, hash_of, response
from tests.upstream.rig import Taker

CAME = 600_000
CHUNKS = PIECE - PIECE % CHUNK
"""Octets that come at a time: whole chunks."""


@define(eq=False)
class Beginner(Taker):
    """
    A sink that is told what was here already.

    :ivar when: what it does once that has come, by the octets that it has by then.
    """

    when: Any = None
    begun: int = 0

    def begin(self, data: bytes) -> None:
        self.data(data)
        self.begun += len(data)
        if self.when is not None:
            self.when()


class CompletingTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.rig = Rig()
        self.rig.play(Good(MEGABYTE))
        rest = self.rig.ask(attach=False)
        stored = self.store(MEGABYTE[:CAME], response(status=206))
        source = self.reader.open_source(hash_of(b"key"), stored)
        assert source is not None and rest._known is not None
        self.source = source
        broken = Broken(rest._known, rest.head, CAME, MEGABYTE[CAME - OVERLAP : CAME], None)
        # All of it comes once more.
        rest.go_on_from(broken, Rest(0, len(MEGABYTE)))
        self.completing = Completing(rest, source, broken, self.rig.stage.clock)
        self.taker = self.rig.taker = Beginner()

    def tearDown(self) -> None:
        self.assertEqual((1, True), (self.rig.overs, self.rig.quiet()))
        self.assertIsNone(self.source._slot)

    def complete(self) -> None:
        self.rig.advance(1)
        self.assertEqual((True, CAME), (self.taker.ended, self.taker.begun))
        self.assertTrue(self.taker.content == MEGABYTE)

    def test_all_of_it_is_put_together_though_the_rest_is_the_whole_once_more(self) -> None:
        self.completing.attach(self.taker)
        self.complete()

    def test_its_sink_sets_the_pace(self) -> None:
        self.taker.when = self.completing.pause
        self.completing.attach(self.taker)
        for come in (CHUNKS, 2 * CHUNKS, CAME - CAME % CHUNK, CAME):
            self.rig.advance(1)
            self.assertEqual(come, len(self.taker.content))
            self.completing.resume()
        self.complete()

    def test_who_pauses_and_goes_on_within_a_piece_has_each_once(self) -> None:
        def hesitate() -> None:
            self.completing.pause()
            self.completing.resume()

        self.taker.when = hesitate
        self.completing.attach(self.taker)
        self.complete()

    def test_who_leaves_within_a_piece_has_no_more(self) -> None:
        self.taker.when = self.completing.cancel
        self.completing.attach(self.taker)
        self.completing.wake()
        self.completing.resume()
        self.rig.advance(1)
        self.assertEqual((CHUNKS, False, None), (len(self.taker.content), self.taker.ended, self.taker.failure))

    def test_without_memory_for_a_piece_it_fails_and_nobody_waits_for_ever(self) -> None:
        def starve() -> None:
            raise MemoryError

        self.completing.pause()
        self.completing.attach(self.taker)
        self.taker.when = starve
        self.assertRaises(MemoryError, self.completing.resume)
        self.assertIsInstance(self.taker.failure, NotTaken)
        self.rig.advance(1)
        self.assertEqual(CHUNKS, len(self.taker.content))
