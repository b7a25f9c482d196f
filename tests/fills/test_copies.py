"""When no origin has anything: what a sibling has stored, before those who were ejected are asked again (DESIGN 9)."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.attempts import Attempts
from edgecache.fills.continuing import Continuing
from edgecache.fills.homes import LookUp, SiblingsAsked
from edgecache.rules.health import EJECTED_WORD
from edgecache.rules.homes import HomeNode, Homes
from edgecache.rules.siblinghood import COPY_SECONDS
from edgecache.upstream.addresses import AddressBook, origins_of, parse_origin
from edgecache.words.config import Policy
from tests.characters import Asked, Character, Good, Player, Refusing, Silent
from tests.fills.test_quest import GET, Rig
from tests.rules.build import sites


class NotStored(Character):
    """A sibling that has nothing (RFC 9111 5.2.1.7)."""

    def answer(self, asked: Asked, player: Player) -> None:
        player.send(b"HTTP/1.1 504 Gateway Timeout\r\nEdgecache-Refused: 504\r\nContent-Length: 0\r\n\r\n")


class CopyTests(SynchronousTestCase):
    def ask(
        self,
        first: Character,
        second: Character,
        sibling: Character,
        *,
        ejected: bool = True,
        seconds: float | None = None,
        connects: float = 0.0,
    ) -> Rig:
        """
        :param ejected: the first origin is, when a client asks.
        :param seconds: that are left, where it is not the whole time.
        :param connects: seconds that the first origin takes to connect.
        :return: after a few seconds; ``self.status`` and ``self.after`` are what came and when.
        """
        rig = Rig()
        rig.play(first, second, sibling)
        rig.stage.hang(rig.addresses[0].host, connects)
        (site,) = sites(origins=("http://one.test", "http://two.test"), policy=Policy.ORDERED).all
        known = {"n2": evolve(parse_origin("http://three.test"), sibling="n2")}
        origins = (*origins_of(site.settings), *known.values())
        rows = zip(origins, rig.addresses, strict=True)
        book = AddressBook()
        book.update({"origins": {one.name: [[at.host, at.port, at.slot]] for one, at in rows}}, origins)
        if ejected:
            rig.words[0] = EJECTED_WORD
        homes = Homes((HomeNode("n1"), HomeNode("n2")))
        siblings = SiblingsAsked.of("n1", homes, known, book, rig.outlet, lambda: b"", lambda: False)
        attempts = Attempts(book, rig.outlet, rig.allowance, siblings=siblings)
        look_up = LookUp(GET, ["n1", "n2"], home=False, stale=True)
        began = rig.now
        self.status: int | None = None

        def good(response: Continuing) -> None:
            self.status, self.after = response.head.status, rig.now - began

        def bad(failure: Failure) -> None:
            self.status, self.after = 0, rig.now - began

        until = began + (rig.settings.first_byte_seconds if seconds is None else seconds)
        asking = attempts.ask(site, GET, None, until, look_up=look_up)
        Deferred.fromCoroutine(asking).addCallbacks(good, bad)
        rig.stage.settle()
        rig.seconds(13.0)
        return rig

    def test_it_is_asked_before_an_origin_that_was_ejected(self) -> None:
        rig = self.ask(Silent(), Refusing(), Good())
        self.assertEqual((200, 0, 1), (self.status, rig.requests(0), rig.requests(2)))
        self.assertLess(self.after, 1.0)

    def test_who_was_ejected_is_asked_when_it_has_nothing(self) -> None:
        rig = self.ask(Good(), Refusing(), NotStored())
        self.assertEqual((200, 1, 1), (self.status, rig.requests(0), rig.requests(2)))

    def test_who_was_ejected_may_be_well_again_where_the_other_answers_with_an_error(self) -> None:
        rig = self.ask(Good(), Good(status=b"503 Service Unavailable"), NotStored())
        self.assertEqual((200, 1, 1, 1), (self.status, *map(rig.requests, range(3))))

    def test_who_was_ejected_is_not_kept_for_the_end_where_the_other_hangs(self) -> None:
        rig = self.ask(Good(), Silent(), NotStored())
        self.assertEqual((200, 1, 1), (self.status, rig.requests(0), rig.requests(2)))
        self.assertLess(self.after, rig.settings.head_seconds + COPY_SECONDS)

    def test_a_copy_is_not_kept_for_the_end_where_the_only_one_hangs(self) -> None:
        rig = self.ask(Refusing(), Silent(), Good(), ejected=False)
        self.assertEqual((200, 1), (self.status, rig.requests(2)))
        self.assertLess(self.after, rig.settings.head_seconds + COPY_SECONDS)

    def test_it_is_asked_once(self) -> None:
        rig = self.ask(Refusing(), Good(status=b"503 Service Unavailable"), NotStored())
        self.assertEqual((503, 1), (self.status, rig.requests(2)))

    def test_there_is_time_left_for_it_when_origins_hang(self) -> None:
        rig = self.ask(Silent(), Silent(), Good(), ejected=False)
        self.assertEqual((200, 1), (self.status, rig.requests(2)))
        self.assertLess(self.after, rig.settings.first_byte_seconds)

    def test_with_little_time_left_the_origin_is_asked_all_the_same(self) -> None:
        rig = self.ask(Good(), Refusing(), NotStored(), ejected=False, seconds=0.5, connects=0.1)
        self.assertEqual((200, 1, 0), (self.status, rig.requests(0), rig.requests(2)))

    def test_nobody_has_it(self) -> None:
        rig = self.ask(Refusing(), Refusing(), NotStored())
        self.assertEqual((0, 1), (self.status, rig.requests(2)))
