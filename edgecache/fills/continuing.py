"""
A response whose content goes on elsewhere when it breaks off (DESIGN 8, FIELD 1).

Whoever takes the content sees one, without a seam; :mod:`edgecache.rules.resuming` decides what fits to what.
"""

# Note [failures behind a pause]
#
# While the sink is paused nothing is handed over, a failure neither. But the rest can be asked for meanwhile:
# the response of now hands over to us what it held, and that it failed, and we hold the octets in its place.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from attrs import evolve
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.fills.overlap import Overlap, first_of
from edgecache.fills.rate import RateWatch
from edgecache.fills.rests import AskRest, Rests
from edgecache.fills.verdicts import Told, Verdicts
from edgecache.rules.digests import Check, Digest, repr_digest
from edgecache.rules.resuming import OVERLAP, Broken, NotTheRest, Rest, combined_head, known_of, on_answer, rest_of
from edgecache.upstream.addresses import Address
from edgecache.upstream.delivery import Delivery
from edgecache.upstream.responses import Response, Sink
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import (
    ConnectionLost,
    ContentTooSlow,
    NotTaken,
    UpstreamFailed,
    WrongDigest,
    WrongRange,
)
from edgecache.words.messages import Outbound
from edgecache.words.ports import Counts, Timers

_log = Logger()


class Continuing(Delivery):
    """
    A :class:`~edgecache.upstream.responses.Response`, and the sink of those that it is put together from.

    What it tells about itself is the first one's. A content that no rest would fit to
    (:func:`~edgecache.rules.resuming.known_of`) is watched all the same: its end is told, its digest checked.

    :ivar received: octets of the content so far, each counted once.
    :ivar resumed: some of them came with a rest.
    """

    received = 0
    resumed = False

    def __init__(
        self,
        response: Response,
        outbound: Outbound,
        rest: AskRest,
        standing: Told,
        timers: Timers,
        settings: UpstreamSettings,
        counts: Counts,
        others_healthy: Callable[[Address], bool],
        over: Callable[[], None],
        digest: Digest | None = None,
        *,
        resumable: bool = True,
        target: bytes | None = None,
        check: Callable[[Digest], Check] = Digest.check,
    ) -> None:
        """
        :param outbound: what ``response`` answers.
        :param others_healthy: is another address than that one in service, so that a slow one need not be put up with?
        :param over: called once, when nothing more goes on upstream.
        :param digest: of the whole content, where it is known otherwise than by its Repr-Digest.
        :param target: what it is called at the origin, where ``outbound`` has another path.
        :param check: makes a check of content that is still to come.
        :param resumable: another address may give the rest. Not after parts of several did not fit together.
        """
        self.address = response.address
        self.head = response.head
        self.length = response.length
        self.empty = response.empty
        self.delimited_by_close = response.delimited_by_close
        self.minor = response.minor
        self.requested_at = response.requested_at
        whole = outbound.method == b"GET" and response.head.status == 200
        self.digest = (digest or repr_digest(response.head)) if whole else None
        self._outbound = outbound
        self._rests = Rests(rest)
        self._verdicts = Verdicts(standing, counts, target or outbound.probe_target)
        self._timers = timers
        self._settings = settings
        self._counts = counts
        self._others_healthy = others_healthy
        self._over: Callable[[], None] | None = over
        self._check: Check | None = None if self.digest is None else check(self.digest)
        self._complete = None if response.empty else response.length
        self._known = (
            known_of(
                outbound,
                response.head,
                response.length,
                delimited_by_close=response.delimited_by_close,
                digest=self.digest,
            )
            if resumable
            else None
        )
        self._overlap = Overlap()
        self._room: list[memoryview] = []
        # What came of it is wrong, or another address says so: no next try should go on with it.
        self._doubtful = False
        # The response of now, and how much of it came.
        self._response: Response | None = response
        self._octets = 0
        self._sources: set[Address] = set()
        self._rate: RateWatch | None = None
        self._when_slow: Callable[[], None] = _nothing

    # From one try to the next

    @property
    def broken(self) -> Broken | None:
        """Once it has failed: what the next try can go on with; ``None``: it should start over."""
        # Of fewer octets all are asked for again anyway.
        if self._known is None or self._doubtful or not self._settings.resumes or self.received <= OVERLAP:
            return None
        return Broken(self._known, self.head, self.received, self._overlap.tail, self._check)

    def go_on_from(self, broken: Broken, rest: Rest) -> None:
        """The response brings the ``rest`` of ``broken``, of which the sink to come has all there is."""
        self.head = combined_head(broken.head, self.head)
        self.length = self._complete = rest.length
        self.delimited_by_close = False
        self.digest, self._check = broken.known.digest, broken.check
        self._known = evolve(broken.known, length=rest.length)
        self.begun = self.received = broken.received
        self._overlap = Overlap(broken.tail, broken.received - rest.start)
        self.resumed = True
        self._rests.gave(self.address)
        self._counts.add(Counter.RESUMES)

    # Response

    def attach(self, sink: Sink) -> None:
        """See :meth:`edgecache.upstream.responses.Response.attach`."""
        self._sink = sink
        if self._response is not None:
            self._listen(self._response)
        if self._over is not None:
            self._rate = RateWatch(
                self._timers,
                self._settings,
                lambda: self._octets,
                lambda: self.flowing and self._response is not None,
                self._slow,
            )
            self._rate.start()

    def reading(self, may: bool) -> None:
        """The sink takes more, or has enough for now."""
        if self._rate is not None:
            self._rate.interrupted()
        if self._response is not None:
            if may:
                self._response.resume()
            else:
                self._response.pause()

    def cancel(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.cancel`. A rest that is asked for is not wanted either."""
        self.drop()
        response, self._response = self._response, None
        if response is not None:
            if self.empty:
                self._verdicts.praise(response)
            response.cancel()
        over = self._settle()
        self._rests.cancel()
        over()

    # Sink of the response of now

    def data(self, data: bytes) -> None:
        """See :meth:`edgecache.upstream.responses.Sink.data`."""
        response = self._response
        assert response is not None
        self._octets += len(data)
        if self._overlap.repeated:
            data = self._compared(response, data)
            if not data:
                return
        if self._complete is not None and self.received + len(data) > self._complete:
            # What came of it before is no better: nothing is to be mended.
            response.cancel()
            self._doubtful = True
            detail = f"more than the {self._complete} octets of the content"
            self._fail_with(WrongRange(response.address.name, self._since(response), detail), response, blamed=True)
            return
        self.received += len(data)
        self._sources.add(response.address)
        if self._known is not None:
            self._overlap.came(data)
        if self._check is not None:
            self._check.update(data)
        if not self._verdicts.praised and self._octets >= self._settings.restore_octets:
            self._verdicts.praise(response)
        self.hand_over(data)

    def room(self, octets: int) -> list[memoryview]:
        """See :meth:`edgecache.upstream.responses.Roomy.room`. What is only compared needs none."""
        self._room = [] if self._overlap.repeated else self.memory(octets)
        return self._room

    def filled(self, octets: int) -> None:
        """See :meth:`edgecache.upstream.responses.Roomy.filled`."""
        response = self._response
        assert response is not None
        self._octets += octets
        self.received += octets
        self._sources.add(response.address)
        came, self._room = first_of(self._room, octets), []
        if self._check is not None:
            self._check.update(*came)
        if self._known is not None:
            self._overlap.came_in(came)
        if not self._verdicts.praised and self._octets >= self._settings.restore_octets:
            self._verdicts.praise(response)
        self.taken(octets)

    def end(self) -> None:
        """See :meth:`edgecache.upstream.responses.Sink.end`."""
        response = self._response
        assert response is not None
        if self._overlap.repeated or self._complete not in (None, self.received):
            detail = f"ended after {self.received} octets of {self._complete}"
            self.fail(ConnectionLost(response.address.name, self._since(response), detail))
            return
        if self._check is not None and not self._check.right:
            # Which of several sent what is wrong, nobody can tell.
            mixed = len(self._sources) > 1 or self.begun > 0
            self._doubtful = True
            wanted, came = self._check.digest, self._check.came
            detail = f"{wanted.algorithm} {wanted.value.hex()} was expected, {came} came"
            wrong = WrongDigest(response.address.name, self._since(response), detail, mixed)
            self._counts.add(Counter.WRONG_CONTENTS)
            _log.error(
                "{target}: wrong content of {octets} octets from {sources}: {detail}",
                target=self._outbound.target.decode("latin-1"),
                octets=self.received,
                sources=", ".join(sorted(address.name for address in self._sources)) or response.address.name,
                detail=detail,
            )
            self._fail_with(wrong, response, blamed=not mixed)
            return
        self._verdicts.praise(response)
        if self.resumed:
            self._counts.add(Counter.RESUMED)
        self._finish(True)

    def fail(self, failure: UpstreamFailed) -> None:
        """See :meth:`edgecache.upstream.responses.Sink.fail`. There may be a way on."""
        self._break(failure, blamed=True)

    # Breaking off and going on

    def _listen(self, response: Response) -> None:
        response.when_broken(response.resume)  # See Note [failures behind a pause]
        if self._paused:
            response.pause()
        response.attach(self)

    def _break(self, failure: UpstreamFailed, *, blamed: bool) -> None:
        """The response of now is of no more use."""
        response = self._response
        assert response is not None
        known = self._known
        # What the owner of the key did not find, its askers need not look for; and to what was not taken no rest fits.
        given_up = isinstance(failure, NotTaken) or (isinstance(failure, ConnectionLost) and failure.given_up)
        if known is None or given_up or self._rests.given >= self._settings.resumes:
            self._fail_with(failure, response, blamed=blamed and not given_up)
            return
        self._response = None
        self._rests.broke_off(response.address)
        if blamed:
            self._verdicts.blame(failure, response)
        if not self._rests.given:
            self._counts.add(Counter.RESUMES)
        _log.info(
            "{target}: broke off after {octets} octets, asking elsewhere for the rest: {why}",
            target=self._outbound.target.decode("latin-1"),
            octets=self.received,
            why=failure,
        )
        asking = rest_of(self._outbound, known, self.received)
        self._rests.ask(asking, self._answered, partial(self._unanswered, failure))

    def _unanswered(self, failure: UpstreamFailed, why: Failure) -> None:
        if not isinstance(why.value, UpstreamFailed):
            _log.failure("failed to ask for the rest of a content", why)
        self._finish(failure)

    def _answered(self, response: Response) -> None:
        assert self._known is not None
        self._response = response
        fitting = on_answer(
            self._known,
            self.received,
            response.head,
            response.length,
            delimited_by_close=response.delimited_by_close,
        )
        if isinstance(fitting, NotTheRest):
            self._refuse(response, fitting.detail, wrong=fitting.wrong)
            return
        self._octets = 0
        self._overlap.repeated = self.received - fitting.start
        self._verdicts.praised = False
        if self._rate is not None:
            self._rate.interrupted()
        self.resumed = True
        if self._complete is None:
            self._complete = fitting.length
            self._known = evolve(self._known, length=fitting.length)
        self._listen(response)

    def _compared(self, response: Response, data: bytes) -> bytes:
        """:return: ``data`` without what we have, as far as it is the same."""
        new = self._overlap.new_of(data)
        if new is not None:
            return new
        assert self._known is not None
        self._doubtful = True
        # With entity tags that may differ, nobody has said that they are the same.
        self._refuse(response, "other octets where both should agree", wrong=not self._known.by_digest)
        return b""

    def _refuse(self, response: Response, detail: str, *, wrong: bool) -> None:
        response.cancel()
        self._break(WrongRange(response.address.name, self._since(response), detail), blamed=wrong)

    # Too slow

    def when_slow(self, callback: Callable[[], None]) -> None:
        """
        From now on ``callback`` is called whenever a window has brought too little, whoever else could be asked.

        It may cancel this.
        """
        self._when_slow = callback

    def _slow(self) -> None:
        self._when_slow()
        response = self._response
        if (
            response is not None
            and self._known is not None
            and self._rests.given < self._settings.resumes
            and self._others_healthy(response.address)
        ):
            if self._rate is not None:
                self._rate.interrupted()
            response.cancel()
            self._break(ContentTooSlow(response.address.name, self._since(response)), blamed=True)

    # Ends

    def _since(self, response: Response) -> float:
        return self._timers.seconds() - response.requested_at

    def _fail_with(self, failure: UpstreamFailed, response: Response, *, blamed: bool) -> None:
        if blamed:
            self._verdicts.blame(failure, response)
        self._finish(failure)

    def _finish(self, ending: UpstreamFailed | Literal[True]) -> None:
        self._response = None
        over = self._settle()
        over()
        self.finish(ending)

    def _settle(self) -> Callable[[], None]:
        """:return: what is to be called now that all is over; nothing the second time."""
        rate, self._rate = self._rate, None
        if rate is not None:
            rate.stop()
        over, self._over = self._over, None
        self._when_slow = _nothing
        return over or _nothing


def _nothing() -> None:
    """It was over already."""
