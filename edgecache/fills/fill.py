"""One exchange upstream, and what becomes of its response (DESIGN 5, 8)."""

from __future__ import annotations

import enum
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from edgecache.fills import pagefill
from edgecache.fills.artifacts import Sought, Wait
from edgecache.fills.homes import LookUp
from edgecache.fills.keeping import Kept
from edgecache.fills.plainly import Plainly, is_ordinary
from edgecache.fills.storing import Storing, store
from edgecache.fills.uploading import Form
from edgecache.fills.waiting import Waiters
from edgecache.processes.background import background
from edgecache.rules.access import unlent
from edgecache.rules.artifacts import is_named
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Again, Forward, Freshen, Pass, ServeStale, Store
from edgecache.rules.locating import relocated
from edgecache.rules.lookups import Told, stripped, told_by
from edgecache.rules.outbound import interim_head, outbound
from edgecache.rules.pages import PAGE, serial_of
from edgecache.rules.policy import invalidated, may_share, on_response
from edgecache.rules.selectors import any_tag_selector
from edgecache.rules.sites import Site
from edgecache.upstream.addresses import Address, origins_of
from edgecache.upstream.responses import Response
from edgecache.words.config import Policy
from edgecache.words.counters import Counter
from edgecache.words.errors import ClientGone, UpstreamFailed
from edgecache.words.messages import Head

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills

_log = Logger()

# A member of an enum costs a tenth of a microsecond each time it is named.
FILLS, FILLS_RUNNING = int(Counter.FILLS), int(Counter.FILLS_RUNNING)


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
    :ivar restarts: how often it was asked before, and answered with wrong content ...
    :ivar avoid: ... by these.
    :ivar kept: what an earlier fill has brought, yet to be used.
    :ivar storing: its content on its way, if that is stored.
    :ivar lasting: it goes on after its exchange, until its record is committed.
    :ivar late: those who waited for a page have been told so, and nobody joins any longer.
    :ivar known: which serial was known of the project of a page when it was asked for.
    :ivar settled: files of the project were told that it is gone or quarantined, in an epoch before ``floor``.
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
    restarts: int = 0
    avoid: frozenset[Address] = frozenset()
    settled: bool = False
    phase: Phase = Phase.ASKING
    plan: Store | Freshen | None = None
    kept: Kept | None = None
    storing: Storing | None = None
    lasting: bool = False
    _running: Deferred[None] | None = None
    _asking: bool = False
    _look_up: LookUp | None = None
    # Of a file that a page of an index names.
    _sought: Sought | None = None
    # Of an upload: what is sent, and by whom.
    _form: Form | None = None
    _peer: bytes = b""
    late: bool = False
    known: int = 0

    # Joining

    def joinable_by(self, asked: Asked, now: float) -> bool:
        """Does nothing that is known so far keep ``asked`` from having this response?"""
        if self.phase is Phase.ENDED or self.late:
            return False
        if self.leader.authorized and not asked.authorized and self.plan is None:
            # Most likely it will not be for all; and who sends credentials shall keep nobody waiting who has none.
            return False
        asks_home = self._look_up is not None and self._look_up.home
        if asked.sibling is not None and asks_home and self.phase is Phase.ASKING:
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

    def give_up_kept(self) -> None:
        """It is of no use."""
        kept, self.kept = self.kept, None
        if kept is not None:
            kept.writer.abandon()

    @property
    def copied(self) -> bool:
        """Did the response come from a sibling that had it stored, because the origin gave none?"""
        return self._look_up is not None and self._look_up.copied

    # The exchange

    def start(self) -> None:
        """Ask, decide, deliver. Whatever happens, every waiter is answered."""
        counts = self.fills.counts
        counts.add(FILLS)
        counts.add(FILLS_RUNNING)
        if is_ordinary(self):
            Plainly(self).begin()
        else:
            self.go(self._exchange())

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
            self.fills.keep.put_back(self.registered, self.kept)
        if not self.lasting:
            self.leave()
        if self.storing is None or not self.storing.filling.withheld:
            self.waiters.refuse_all()

    async def _exchange(self) -> None:
        content, first = None, self.waiters.first
        if first is not None and self.leader.request.has_content:
            content = first.downstream.request_content()
            if self.leader.upload:
                content = self._form = Form(content)
                self._peer = first.downstream.peer
        self._sought = self.fills.seek(self.leader, self.forward)
        if self._sought is not None and await self._vouched(self._sought):
            return
        asking = outbound(self.leader, self.forward, content=content)
        requested_at = self.fills.clock()
        if self.registered is not None:
            self.kept = self.fills.keep.take(self.registered, self.leader)
        broken = None if self.kept is None else self.kept.broken
        # After the floor was taken, which it has to cover.
        look_up = self.fills.siblings(self.leader, self.forward) if self.registered is not None else None
        self._look_up = look_up
        doubt = self.fills.doubts.of(self.leader.key_hash)
        if self.registered is None and first is not None and self._form is None:
            # An upload that is sent counts, whoever waits for its answer.
            first.downstream.on_gone(self)
        if self.leader.page is not None:
            self.known = self.fills.serials.known(self.leader).serial
        self._asking = True
        try:
            response = await self.fills.attempts.ask(
                self.leader.site,
                asking,
                self.interim,
                self.until,
                self.avoid if doubt is None else self.avoid | doubt.avoid,
                broken,
                look_up,
                self._sought,
                resumable=doubt is None or not doubt.mixed,
            )
        except UpstreamFailed as failure:
            if self._form is not None and failure.sent:
                # It may have been taken, whatever became of the answer.
                await self.fills.uploaded(self.leader, bytes(self._form.begin), self._peer)
            self.fail(failure)
            return
        except (CancelledError, ClientGone):
            self.leave()
            return  # nobody waits for an answer any longer
        finally:
            self._asking = False
        if self.kept is not None and response.begun:
            # The safe side: a purge since then may have meant the first octets.
            self.floor = self.kept.plan.stored.floor
        told = self.told(response)
        if self.leader.unsafe:
            selectors = invalidated(self.leader, response.head)
            if selectors:
                # Before the client hears of it: its next request must not be answered from before.
                await self.fills.invalidate(selectors)
        if self._form is not None and 200 <= response.head.status < 300:
            await self.fills.uploaded(self.leader, bytes(self._form.begin), self._peer)
        left = self.followed(response, told, requested_at)
        if left is not None:
            await left

    def followed(
        self, response: Response, told: Told | None, requested_at: float
    ) -> Coroutine[Deferred[Any], Any, None] | None:
        """
        Decide what becomes of the response, and do it.

        :param told: see :meth:`told`.
        :param requested_at: wall time, seconds.
        :return: what takes longer than this call; ``None``: nothing does.
        """
        fallback = _is_fallback(self.leader.site, response) if told is None else told.fallback
        decided = None if self._sought is None else self._sought.decide(response, told, self.floor)
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
                return self._freshen(decision)
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
                self.fills.ask_anew(self, self.avoid)
            case Pass() if decision.page is not None:
                return pagefill.pass_on(self, decision, response, fallback)
            case Pass():
                return self._pass(decision, response)
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

    async def _vouched(self, sought: Sought) -> bool:
        """
        A stored file that its page names by digest is that page's to judge (DESIGN 9).

        :return: everybody was answered.
        """
        stored = self.forward.stored
        if stored is None or not is_named(self.leader, stored):
            return False
        try:
            good = await sought.vouched(stored, self.floor, self.until)
        except UpstreamFailed as failure:
            self.fail(failure)
            return True
        if good is None:
            # It may have been told so just now: what siblings have may be older.
            self.forward = evolve(self.forward, stored=None, at_origin=True)
            self.waiters.void()
            return False
        await self._freshen(Freshen(good, self.record_hash))
        return True

    def wake(self) -> None:
        """The only client of a request that nobody can join has left before its answer: give it up."""
        if self._asking and self._running is not None:
            self._running.cancel()

    def interim(self, head: Head) -> None:
        """One came before the response."""
        # Installers take any interim response for the final one (FIELD 3).
        if self.leader.site.index:
            return
        self.waiters.interim(head.status, interim_head(head.status, head.reason, head.fields, self.leader))

    # What may become of the response

    async def _freshen(self, plan: Freshen) -> None:
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

    async def _pass(self, decision: Pass, response: Response) -> None:
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
            self.waiters.pass_on(decision, response, own)

    async def came_to_nothing(self, error: BaseException) -> None:
        """:param error: why there is no response; what is no failure of an upstream's is a defect of ours."""
        if isinstance(error, UpstreamFailed):
            self.fail(error)
        elif isinstance(error, CancelledError):
            self.leave()  # the worker stops
        else:
            raise error

    def fail(self, failure: UpstreamFailed) -> None:
        if self.fills.lately.news((type(failure), failure.upstream), self.fills.seconds()):
            _log.warn("{target}: {failure}", target=self.leader.request.target.decode("latin-1"), failure=failure)
        if self.fills.unstored is not None:
            self.fills.unstored.failed(self.leader, failure)
        self.leave()
        self.waiters.fail(failure)

    def leave(self) -> None:
        """Nobody joins any longer."""
        self.phase = Phase.ENDED
        self.fills.forget(self)


def _is_fallback(site: Site, response: Response) -> bool:
    """Has an origin answered that only stands in for the first one?"""
    settings = site.settings
    return settings.policy is Policy.FALLBACK and response.address.origin != origins_of(settings)[0]
