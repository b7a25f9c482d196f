"""One exchange upstream, and what becomes of its response (DESIGN 5, 8)."""

from __future__ import annotations

import enum
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from edgecache.fills import pagefill
from edgecache.fills.artifacts import Sought, Wait
from edgecache.fills.keeping import Kept
from edgecache.fills.parts import Beginning
from edgecache.fills.plainly import Plainly, is_ordinary
from edgecache.fills.storing import Storing, store
from edgecache.fills.thoroughly import Thoroughly
from edgecache.fills.waiting import Waiters
from edgecache.processes.background import background
from edgecache.rules.access import unlent
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Again, Forward, Freshen, Pass, ServeStale, Store
from edgecache.rules.locating import relocated
from edgecache.rules.lookups import Told, stripped, told_by
from edgecache.rules.outbound import interim_head
from edgecache.rules.pages import PAGE, serial_of
from edgecache.rules.parts import passing_part
from edgecache.rules.policy import may_share, on_response
from edgecache.rules.selectors import any_tag_selector
from edgecache.rules.sites import Site
from edgecache.upstream.addresses import Address, origins_of
from edgecache.upstream.responses import Response
from edgecache.words.config import Policy
from edgecache.words.counters import Counter
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Head

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills

_log = Logger()

# A member of an enum costs a tenth of a microsecond each time it is named.
FILLS, FILLS_RUNNING = int(Counter.FILLS), int(Counter.FILLS_RUNNING)


@frozen
class Tried:
    """
    What came of a fill before it is begun once more.

    :ivar restarts: how often it was asked, and what came was of no use ...
    :ivar avoid: ... from these: others are to be asked first.
    :ivar settled: files of the project were told that it is gone or quarantined, in an epoch before the fill's floor.
    """

    restarts: int = 0
    avoid: frozenset[Address] = frozenset()
    settled: bool = False

    def again(self, *avoid: Address) -> Tried:
        """:return: the same with another restart, for what these have sent."""
        return evolve(self, restarts=self.restarts + 1, avoid=self.avoid.union(avoid))


FIRST = Tried()


class Phase(enum.Enum):
    """How far a fill is."""

    ASKING = "asking"
    STREAMING = "streaming"
    ENDED = "ended"


@define(eq=False, repr=False)
class Fill:
    """
    One exchange. It belongs to no client and goes on without any.

    :ivar floor: the epoch taken before anybody was asked, for the first octets too if an earlier fill has brought them.
    :ivar registered: under which key others find it; ``None``: nobody may join.
    :ivar waiters: who is to be sent what comes of it.
    :ivar began: monotonic seconds.
    :ivar until: monotonic seconds; by then whoever has waited from the begin has the first octet, or an error.
    :ivar tried: what came of it before.
    :ivar kept: what an earlier fill has brought, yet to be used.
    :ivar storing: its content on its way, if that is stored.
    :ivar lasting: it goes on after its exchange, until its record is committed.
    :ivar late: those who waited for a page have been told so, and nobody joins any longer.
    :ivar known: which serial was known of the project of a page when it was asked for.
    :ivar asks_home: its key's home among the siblings is asked first.
    :ivar copied: the response came from a sibling that had it stored, because the origin gave none.
    """

    fills: Fills
    leader: Asked
    forward: Forward
    record_hash: bytes
    floor: int
    registered: bytes | None
    waiters: Waiters
    began: float
    until: float
    tried: Tried = FIRST
    phase: Phase = Phase.ASKING
    plan: Store | Freshen | None = None
    kept: Kept | Beginning | None = None
    storing: Storing | None = None
    lasting: bool = False
    late: bool = False
    known: int = 0
    asks_home: bool = False
    copied: bool = False
    _running: Deferred[None] | None = None

    # Joining

    def joinable_by(self, asked: Asked, now: float) -> bool:
        """Does nothing that is known so far keep ``asked`` from having this response?"""
        if self.phase is Phase.ENDED or self.late:
            return False
        if self.leader.authorized and not asked.authorized and self.plan is None:
            # Most likely it will not be for all; and who sends credentials shall keep nobody waiting who has none.
            return False
        if asked.sibling is not None and self.asks_home and self.phase is Phase.ASKING:
            # Whom we ask may in turn be waiting for whoever asks us.
            return False
        plan = self.plan
        if plan is not None:
            selectors = plan.stored.selectors
        else:
            # Its tags are not known yet: any of them may be the one.
            selectors = (*asked.selectors, any_tag_selector(asked.site.id))
        if self.fills.epochs.matching(selectors, self.floor) is not None:
            return False
        return plan is None or may_share(asked, self.leader, plan, now)

    def begin(self, plan: Store) -> None:
        """The head has come; from now on it says who may join."""
        self.plan, self.phase = plan, Phase.STREAMING
        self.fills.found_at(self, plan.record_hash)

    @property
    def seconds_left(self) -> float:
        """Until whoever has waited from the begin has to be answered."""
        return max(self.until - self.fills.timers.seconds(), 0.0)

    @property
    def hurried(self) -> bool:
        """Did it begin for somebody who had little time left? That it failed then says little to whoever has more."""
        return self.until - self.began < self.fills.enough_seconds

    def give_up_kept(self) -> None:
        """It is of no use."""
        kept, self.kept = self.kept, None
        if kept is not None:
            kept.give_up()

    # The exchange

    def start(self) -> None:
        """Ask, decide, deliver. Whatever happens, every waiter is answered."""
        counts = self.fills.counts
        counts.add(FILLS)
        counts.add(FILLS_RUNNING)
        if is_ordinary(self):
            Plainly(self).begin()
        else:
            self.go(Thoroughly(self).exchange())

    def go(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """:param work: does all that is left to do."""
        self._running = Deferred.fromCoroutine(self._to_the_end(work))
        background(self._running, f"answer {self.leader.request.target.decode('latin-1')}")

    async def _to_the_end(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        try:
            await work
        except BaseException:
            # Nothing may come of it any more.
            self.lasting = False
            raise
        finally:
            self.end()

    def end(self) -> None:
        """The exchange is over, and so is the fill, unless it is ``lasting``."""
        self.fills.counts.add(FILLS_RUNNING, -1)
        if self.kept is not None and self.registered is not None:
            self.kept.give_back(self.fills.keep, self.registered)
        if not self.lasting:
            self.leave()
        if self.storing is None or not self.storing.filling.withheld:
            self.waiters.refuse_all()

    def followed(
        self, response: Response, told: Told | None, requested_at: float, sought: Sought | None = None
    ) -> Coroutine[Deferred[Any], Any, None] | None:
        """
        Decide what becomes of the response, and do it.

        :param told: see :meth:`told`.
        :param requested_at: wall time, seconds.
        :param sought: the file of an index that it is about.
        :return: what takes longer than this call; ``None``: nothing does.
        """
        fallback = _is_fallback(self.leader.site, response) if told is None else told.fallback
        decided = None if sought is None else sought.decide(response, told, self.floor)
        decision = decided or on_response(
            self.leader,
            self.forward,
            response.head,
            length=response.length,
            delimited_by_close=response.delimited_by_close,
            requested_at=requested_at,
            responded_at=self.fills.clock(),
            floor=self.floor,
            fallback=fallback,
            told=told,
            copied=self.copied,
        )
        match decision:
            case Store() | Pass() if pagefill.is_gone(self, response, fallback):
                response.cancel()
                return pagefill.settle(self)
            case Store() if decision.stored.flags & PAGE:
                return pagefill.store(self, decision, response, fallback)
            case Store():
                store(self, decision, response)
            case Freshen() if decision.stored.flags & PAGE and pagefill.is_old(self, decision, response, fallback):
                response.cancel()
            case Freshen():
                response.cancel()
                return self.freshen(decision)
            case ServeStale():
                self._serve_stale(decision, response)
            case Again():
                response.cancel()
                self._again(decision)
            case Wait():
                response.cancel()
                self.leave()
                self.waiters.wait()
            case Pass() if response.begun:
                # The store has its first octets, and may not have it any longer.
                response.cancel()
                self.give_up_kept()
                self.fills.ask_anew(self, self.tried.again())
            case Pass() if decision.page is not None:
                return pagefill.pass_on(self, decision, response, fallback)
            case Pass():
                part = None if told is not None or fallback else self._part(response, requested_at)
                return self._pass(decision, response, part)
        return None

    def told(self, response: Response) -> Told | None:
        """:return: what the sibling whose response it is says of it; from here on its head is like any other."""
        told = told_by(response.head) if response.address.origin.sibling else None
        head = stripped(response.head)
        if not response.address.origin.sibling:
            head = relocated(self.leader.site, head)
            if response.address.origin.authorization is not None and not self.leader.sends_authorization:
                if head.status == 401:
                    _log.error("{origin} refuses this node's credentials", origin=response.address.origin.name)
                head = unlent(head)
        response.head = head
        return told

    def interim(self, head: Head) -> None:
        """One came before the response."""
        # Installers take any interim response for the final one (FIELD 3).
        if self.leader.site.index:
            return
        self.waiters.interim(head.status, interim_head(head.status, head.reason, head.fields, self.leader))

    # What may become of the response

    async def freshen(self, plan: Freshen) -> None:
        """What is stored is good, with these numbers: everybody gets that."""
        self.plan = plan
        page = bool(plan.stored.flags & PAGE)
        row = self.fills.serials.row(self.leader, serial_of(plan.stored) if page else None)
        putting = self.fills.writer.put(plan.record_hash, plan.stored, serial=row)
        if page:
            # Whoever needs one that was validated after a file was asked for finds that in the store.
            await putting
        self.waiters.serve_freshened(plan, 304)
        if not page:
            await putting
        self.fills.counts.add(Counter.FRESHENED)
        self.leave()

    def _serve_stale(self, decision: ServeStale, response: Response) -> None:
        response.cancel()
        self.leave()
        self.waiters.serve_stale(decision)

    def _again(self, decision: Again) -> None:
        self.leave()
        if decision.forward.alone:
            self.waiters.forward_alone(decision.forward)
        else:
            self.fills.restart(self, decision.forward)

    def _part(self, response: Response, requested_at: float) -> Store | None:
        """:return: how a part that passes may be stored. What a client's own conditions have brought may not."""
        if response.head.status != 206 or (self.forward.alone and self.forward.ahead is None):
            return None
        now = self.fills.clock()
        return passing_part(self.leader, response.head, response.length, requested_at, now, self.floor)

    async def _pass(self, decision: Pass, response: Response, part: Store | None) -> None:
        self.leave()
        if decision.remember and self.leader.fills:
            self.fills.unshareable.add(self.leader)
        if self.fills.unstored is not None:
            self.fills.unstored.passed(self.leader, response, decision.detail)
        own = self.waiters.own()
        if decision.update is not None:
            await self.fills.writer.put(decision.update_hash, decision.update)
        if own is None:
            response.cancel()
        else:
            self.waiters.pass_on(decision, response, own, part)

    def cancel(self) -> None:
        """Nobody wants an answer any more."""
        if self._running is not None:
            self._running.cancel()

    async def came_to_nothing(self, error: BaseException) -> None:
        """:param error: why there is no response; what is no failure of an upstream's is a defect of ours."""
        if isinstance(error, UpstreamFailed):
            self.fail(error)
        elif isinstance(error, CancelledError):
            self.leave()  # the worker stops
        else:
            raise error

    def fail(self, failure: UpstreamFailed) -> None:
        if self.fills.lately.news((type(failure), failure.upstream), self.fills.timers.seconds()):
            _log.warn("{target}: {failure}", target=self.leader.request.target.decode("latin-1"), failure=failure)
        if self.fills.unstored is not None:
            self.fills.unstored.failed(self.leader, failure)
        self.leave()
        self.waiters.fail(failure, hurried=self.hurried)

    def leave(self) -> None:
        """Nobody joins any longer."""
        self.phase = Phase.ENDED
        self.fills.forget(self)


def _is_fallback(site: Site, response: Response) -> bool:
    """Has an origin answered that only stands in for the first one?"""
    settings = site.settings
    return settings.policy is Policy.FALLBACK and response.address.origin != origins_of(settings)[0]
