"""How long a sibling is waited for, and what it is charged for: exact, on the injected clock (DESIGN 9)."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.inquiry import Inquiry
from edgecache.upstream.responses import Response
from edgecache.words.messages import Outbound
from edgecache.words.reasons import Outcome
from tests.characters import Asked, Character, Good, Player, Refusing, Saying, Silent
from tests.fills.test_quest import FINE, Rig

GET = Outbound(b"GET", b"/thing", [])
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
FOUND = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@define(eq=False)
class Slow(Character):
    """Says once a second that it is at it, so often, and then perhaps what it found."""

    beats: int = 3
    found: bytes = FOUND
    rig: Rig | None = None

    def answer(self, asked: Asked, player: Player) -> None:
        self._beat(player, self.beats)

    def _beat(self, player: Player, left: int) -> None:
        assert self.rig is not None
        if left:
            player.send(PROCESSING)
            self.rig.stage.clock.callLater(1.0, self._beat, player, left - 1)
        elif self.found:
            player.send(self.found)


class InquiryTests(SynchronousTestCase):
    def ask(self, character: Character | None, *, seconds: float = 12.0) -> list[Response | None]:
        """:return: what came of it, empty while nothing did; ``self.at`` is when."""
        self.rig = rig = Rig()
        if isinstance(character, Slow):
            character.rig = rig
        rig.play(character)
        inquiry = Inquiry(rig.outlet, rig.addresses[0], GET, None, rig.now + seconds)
        came: list[Response | None] = []
        began = rig.now

        def done(response: Response | None) -> None:
            came.append(response)
            self.at = rig.now - began

        self.result: Deferred[None] = inquiry.start().addCallback(done)
        rig.stage.settle()
        return came

    def told(self) -> list[Outcome]:
        self.rig.seconds(20.0, 0.5)
        self.assertEqual([], self.rig.stage.clock.getDelayedCalls())
        return [outcome for _, outcome in self.rig.told]

    def test_an_answer_is_an_answer(self) -> None:
        came = self.ask(Good())
        self.assertEqual(200, came[0] and came[0].head.status)
        assert came[0] is not None
        came[0].cancel()
        self.assertEqual([], self.told())

    def test_one_that_says_nothing_is_left_after_300_ms_and_charged(self) -> None:
        came = self.ask(Silent())
        self.rig.seconds(0.28125, FINE)
        self.assertEqual([], came)
        self.rig.seconds(0.03125, FINE)
        self.assertEqual([None], came)
        self.assertEqual([Outcome.NO_HEAD], self.told())

    def test_one_that_says_each_second_that_it_is_at_it_is_waited_for(self) -> None:
        came = self.ask(Slow(beats=8))
        self.rig.seconds(9.0)
        self.assertEqual((200, 8.0), (came[0] and came[0].head.status, self.at))

    def test_one_that_falls_silent_is_left_when_two_signs_of_life_are_missing(self) -> None:
        came = self.ask(Slow(beats=2, found=b""))
        self.rig.seconds(3.25)
        self.assertEqual([], came)
        self.rig.seconds(0.125)
        self.assertEqual([None], came)
        self.assertEqual([Outcome.NO_HEAD], self.told())

    def test_whose_upstream_is_too_slow_for_us_is_not_to_blame(self) -> None:
        came = self.ask(Slow(beats=20), seconds=5.0)
        self.rig.seconds(5.0)
        self.assertEqual([None], came)
        self.assertEqual([], self.told())

    def test_one_that_refuses_connections_is_charged(self) -> None:
        self.assertEqual([None], self.ask(Refusing()))
        self.assertEqual([Outcome.CONNECT_FAILED], self.told())

    def test_one_that_does_not_connect_is_left_after_300_ms_and_watched_to_its_end(self) -> None:
        came = self.ask(None)
        self.rig.seconds(0.3125, FINE)
        self.assertEqual([None], came)
        self.assertEqual({Outcome.SLOW_TO_CONNECT, Outcome.CONNECT_TIMED_OUT}, set(self.told()))

    def test_an_error_behind_it_is_not_its_own(self) -> None:
        for status in (b"502 Bad Gateway", b"503 Service Unavailable", b"504 Gateway Timeout"):
            came = self.ask(Saying(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"))
            self.assertEqual([None], came)
            self.assertEqual([], self.told())

    def test_what_it_says_on_its_own_behalf_is_no_answer(self) -> None:
        came = self.ask(Saying(b"HTTP/1.1 409 Conflict\r\nEdgecache-Refused: 409\r\nContent-Length: 0\r\n\r\n"))
        self.assertEqual([None], came)
        self.assertEqual([], self.told())

    def test_the_origins_own_409_is(self) -> None:
        came = self.ask(Saying(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"))
        self.assertEqual(409, came[0] and came[0].head.status)

    def test_when_it_is_ejected_it_is_left_at_once(self) -> None:
        rig = self.rig = Rig()
        slow = Slow(beats=8, rig=rig)
        rig.play(slow)
        inquiry = Inquiry(rig.outlet, rig.addresses[0], GET, None, rig.now + 12.0)
        came: list[Response | None] = []
        _ = inquiry.start().addCallback(came.append)
        rig.stage.settle()
        inquiry.ejected()
        self.assertEqual([None], came)

    def test_whoever_leaves_leaves_nothing_behind(self) -> None:
        came = self.ask(Silent())
        self.result.addErrback(lambda _: None)
        self.result.cancel()
        self.rig.stage.settle()
        self.assertEqual([], [one for one in came if one is not None])
        self.assertEqual([], self.told())
        self.assertEqual(0, self.rig.outlet.client.awaited(self.rig.addresses[0]))
