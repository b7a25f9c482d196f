"""What the tests of ``upstream`` have in common: a client on the in-memory network, and a sink that remembers."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from edgecache.upstream.addresses import Address
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Head, Outbound
from tests.characters import Stage

GET = Outbound(b"GET", b"/thing", [])
HEAD = Outbound(b"HEAD", b"/thing", [])


@define(eq=False)
class Taker:
    """
    A sink that remembers.

    :ivar over: fires with ``self`` at the end, good or bad.
    """

    content: bytes = b""
    pieces: int = 0
    ended: bool = False
    failure: UpstreamFailed | None = None
    over: Deferred[Taker] = field(factory=Deferred)

    def data(self, data: bytes) -> None:
        assert data and type(data) is bytes and not self.ended and self.failure is None
        self.content += data
        self.pieces += 1

    def end(self) -> None:
        assert not self.ended and self.failure is None
        self.ended = True
        self.over.callback(self)

    def fail(self, failure: UpstreamFailed) -> None:
        assert not self.ended and self.failure is None
        self.failure = failure
        self.over.callback(self)


@define(eq=False)
class Holder(Taker):
    """A sink that has memory for content, as the store has: pieces of odd sizes."""

    sizes: tuple[int, ...] = (70_000, 1, 33_333)
    rooms: list[bytearray] = field(factory=list)

    def room(self, octets: int) -> list[memoryview]:
        assert octets > 0
        self.rooms = [bytearray(size) for size in self.sizes if (octets := octets - size) >= 0]
        return [memoryview(room) for room in self.rooms]

    def filled(self, octets: int) -> None:
        assert 0 < octets <= sum(map(len, self.rooms))
        self.data(b"".join(self.rooms)[:octets])


@define(eq=False)
class Asking:
    """One ``ask`` and all that came of it."""

    answer: Deferred[Response]
    interims: list[Head]
    response: Response | None = None
    error: BaseException | None = None
    taker: Taker = field(factory=Taker)

    @property
    def failure(self) -> BaseException | None:
        """Of the ask, or of its content."""
        return self.error or self.taker.failure


@define(eq=False)
class Rig:
    """A client and its network."""

    settings: UpstreamSettings = field(factory=UpstreamSettings)
    stage: Stage = field(factory=Stage)
    client: Client = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.client = Client(self.stage, self.stage.clock, self.settings)

    def ask(
        self,
        address: Address,
        outbound: Outbound = GET,
        *,
        attach: bool = True,
        settle: int | None = 65536,
        head_seconds: float | None = None,
    ) -> Asking:
        """Ask, take the content unless told not to, and let everything move by ``settle`` octets at a time."""
        interims: list[Head] = []
        answer = self.client.ask(address, outbound, interim=interims.append, head_seconds=head_seconds)
        asking = Asking(answer, interims)

        def good(response: Response) -> None:
            asking.response = response
            if attach:
                response.attach(asking.taker)

        def bad(failure: Failure) -> None:
            asking.error = failure.value

        _: Any = answer.addCallbacks(good, bad)
        if settle is not None:
            self.stage.settle(settle)
        return asking

    def quiet(self) -> bool:
        """Once the client was closed: does nothing remain, neither timers nor connections nor counts?"""
        self.client.close()
        self.stage.settle()
        return not self.stage.clock.getDelayedCalls() and not self.client._pools and not self.client._dialing
