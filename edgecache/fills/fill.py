"""One exchange upstream, and everyone who waits for it (DESIGN 5, 8)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from edgecache.fills.contents import Filling, Passing
from edgecache.processes.background import background
from edgecache.rules import status_fields
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Again, Forward, Freshen, Part, Pass, Refuse, Reuse, ServeStale, Store, Whole
from edgecache.rules.outbound import interim_head, outbound
from edgecache.rules.policy import invalidated, may_share, on_failure, on_response
from edgecache.rules.presenting import complete, head_of, present
from edgecache.rules.selectors import any_tag_selector
from edgecache.rules.sites import Site
from edgecache.store.writing import ContentWriter
from edgecache.upstream.addresses import Address, parse_origin
from edgecache.upstream.responses import Response
from edgecache.words.config import Policy
from edgecache.words.counters import Counter
from edgecache.words.errors import ClientGone, UpstreamFailed, WrongDigest
from edgecache.words.messages import Head
from edgecache.words.ports import Downstream
from edgecache.words.stored import Variants

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills

_log = Logger()

FAR_AHEAD = 1 << 20
"""A range that begins so many octets after what has come is fetched on its own."""

RESTARTS = 2
"""A fill whose content was wrong is asked again so often, as long as nobody has been sent any of it."""

VARY_SETS = 4
"""Sets of nominated fields remembered under one key."""


@define(eq=False)
class Waiter:
    """
    One client of a fill.

    :ivar forward: why its own look-up did not answer it.
    :ivar record_hash: where ``forward.stored`` was found.
    :ivar collapsed: it joined a fill that another request had started.
    """

    asked: Asked
    forward: Forward
    record_hash: bytes
    downstream: Downstream
    collapsed: bool = False


class Phase(enum.Enum):
    """How far a fill is."""

    ASKING = "asking"
    STREAMING = "streaming"
    ENDED = "ended"


@define(eq=False)
class Fill:
    """
    One exchange. It belongs to no client and goes on without any.

    :ivar floor: the epoch taken before anybody was asked.
    :ivar registered: under which key others find it; ``None``: nobody may join.
    :ivar restarts: how often it was asked before, and answered with wrong content ...
    :ivar avoid: ... by these.
    """

    _fills: Fills
    leader: Asked
    forward: Forward
    record_hash: bytes
    floor: int
    registered: bytes | None
    waiters: list[Waiter] = field(factory=list)
    restarts: int = 0
    avoid: frozenset[Address] = frozenset()
    phase: Phase = Phase.ASKING
    _plan: Store | Freshen | None = None
    _filling: Filling | None = None
    _writer: ContentWriter = field(init=False)
    _fetch_status: int = 0
    _empty: bool = False
    _asking: Deferred[Response] | None = None

    # Joining

    def joinable_by(self, asked: Asked, now: float) -> bool:
        """Does nothing that is known so far keep ``asked`` from having this response?"""
        if self.phase is Phase.ENDED:
            return False
        plan = self._plan
        if plan is not None:
            selectors = plan.stored.selectors
        else:
            # Its tags are not known yet: any of them may be the one.
            selectors = (*asked.selectors, any_tag_selector(asked.site.id))
        if self._fills.epochs.matching(selectors, self.floor) is not None:
            return False
        return plan is None or may_share(asked, self.leader, plan, now)

    def join(self, waiter: Waiter) -> None:
        """``waiter`` gets the response, from its first octet, as soon as it is there and may be shown."""
        if self._plan is None or (self._filling is not None and self._filling.withheld):
            self.waiters.append(waiter)
        else:
            self._serve(waiter)

    # The exchange

    async def run(self) -> None:
        """Ask, decide, deliver. Whatever happens, every waiter is answered."""
        counts = self._fills.counts
        counts.add(Counter.FILLS)
        counts.add(Counter.FILLS_RUNNING)
        try:
            await self._exchange()
        finally:
            counts.add(Counter.FILLS_RUNNING, -1)
            if self._filling is None:
                self.leave()
            if self._filling is None or not self._filling.withheld:
                self._refuse_all()

    async def _exchange(self) -> None:
        content = None
        if self.waiters and self.leader.request.has_content:
            content = self.waiters[0].downstream.request_content()
        asking = outbound(self.leader, self.forward, content=content)
        requested_at = self._fills.clock()
        self._asking = Deferred.fromCoroutine(
            self._fills.attempts.ask(self.leader.site, asking, self._interim, self.avoid)
        )
        if self.registered is None and self.waiters:
            self.waiters[0].downstream.on_gone(self)
        try:
            response = await self._asking
        except UpstreamFailed as failure:
            self._fail(failure)
            return
        except (CancelledError, ClientGone):
            self.leave()
            return  # nobody waits for an answer any longer
        self._fetch_status = response.head.status
        self._empty = response.empty
        if self.leader.unsafe:
            selectors = invalidated(self.leader, response.head)
            if selectors:
                # Before the client hears of it: its next request must not be answered from before.
                await self._fills.invalidate(selectors)
        decision = on_response(
            self.leader,
            self.forward,
            response.head,
            length=response.length,
            delimited_by_close=response.delimited_by_close,
            requested_at=requested_at,
            responded_at=self._fills.clock(),
            floor=self.floor,
            fallback=_is_fallback(self.leader.site, response),
        )
        match decision:
            case Store():
                self._store(decision, response)
            case Freshen():
                await self._freshen(decision, response)
            case ServeStale():
                self._serve_stale(decision, response)
            case Again():
                response.cancel()
                self._again(decision)
            case Pass():
                await self._pass(decision, response)

    def wake(self) -> None:
        """The only client of a request that nobody can join has left before its answer: give it up."""
        if self._asking is not None:
            self._asking.cancel()

    def _interim(self, head: Head) -> None:
        # Installers take any interim response for the final one (FIELD 3).
        if self.leader.site.index:
            return
        octets = interim_head(head.status, head.reason, head.fields, self.leader)
        for waiter in self.waiters:
            waiter.downstream.interim(head.status, octets)

    # What may become of the response

    def _store(self, plan: Store, response: Response) -> None:
        size = plan.stored.size
        self._plan = plan
        self.phase = Phase.STREAMING
        self._writer = self._fills.writer.begin()
        length = None if size < 0 else size
        filling = Filling(self._writer, response, self._fills.counts, self._filled, self._shown, length)
        self._filling = filling
        waiters = [] if filling.withheld else self._serve_all()
        filling.start()
        self._look_for_readers(filling, waiters)

    def _shown(self) -> None:
        """The content was withheld until now (rule 7 of FIELD 1)."""
        assert self._filling is not None
        self._look_for_readers(self._filling, self._serve_all())

    def _look_for_readers(self, filling: Filling, served: list[Waiter]) -> None:
        if served and all(waiter.downstream.gone for waiter in served):
            filling.unwanted()

    def _filled(self) -> None:
        """The content has come to its end, good or bad."""
        filling, plan = self._filling, self._plan
        assert filling is not None and isinstance(plan, Store)
        if filling.failed is not None:
            self.leave()
            _log.info(
                "{target}: the content broke off after {octets} octets: {why}",
                target=self.leader.request.target.decode("latin-1"),
                octets=filling.written,
                why=filling.failed,
            )
            filling.when_unread(self._writer.abandon)
            if self.waiters:
                self._unshown(filling, filling.failed)
            return
        background(self._commit(filling, plan), "store a response")

    def _unshown(self, filling: Filling, failure: Exception) -> None:
        """The content broke off, or is wrong, and nobody was sent any of it."""
        if isinstance(failure, WrongDigest) and self.restarts < RESTARTS:
            # Put together from several, it was the first that broke off.
            self._fills.ask_anew(self, self.avoid | {filling.response.address})
        elif isinstance(failure, UpstreamFailed):
            self._fail(failure)
        else:
            self._refuse_all()

    async def _commit(self, filling: Filling, plan: Store) -> None:
        writer = self._writer
        stored = complete(plan.stored, filling.written, writer.content_id)
        committed = False
        try:
            if writer.failed is None:
                committed = await writer.commit(plan.record_hash, stored, self._primary(plan))
        finally:
            # Only now: whoever came until here has joined, whoever comes from now on finds the record.
            self.leave()
            self._fills.counts.add(Counter.STORED if committed else Counter.STORE_FAILURES)
            filling.when_unread(writer.finished if committed else writer.abandon)

    def _primary(self, plan: Store) -> tuple[bytes, Variants] | None:
        """What the primary key's record says of the variants: this one's nominated fields first."""
        if plan.nominated is None:
            return None
        asked = self.leader
        sets = [plan.nominated]
        found = self._fills.look_up(asked.key_hash, asked.key)
        if isinstance(found, Variants):
            sets += [names for names in found.nominated if names != plan.nominated]
        return asked.key_hash, Variants(asked.key, sets[:VARY_SETS])

    async def _freshen(self, plan: Freshen, response: Response) -> None:
        response.cancel()
        self._plan = plan
        for waiter in self.take():
            self._serve(waiter)
        await self._fills.writer.put(plan.record_hash, plan.stored)
        self._fills.counts.add(Counter.FRESHENED)
        self.leave()

    def _serve_stale(self, decision: ServeStale, response: Response) -> None:
        response.cancel()
        self.leave()
        detail = "" if decision.received is not None else decision.detail
        why = status_fields.proxy_status(self.leader.site, received=decision.received, detail=detail)
        for waiter in self.take():
            own = on_failure(waiter.asked, waiter.forward, self._fills.clock(), None)
            if not isinstance(own, Reuse):
                self._fills.alone(waiter)
            elif not self._fills.reuse(waiter, own, decision.detail, why):
                waiter.forward = evolve(waiter.forward, stored=None)
                self._fills.alone(waiter)

    def _again(self, decision: Again) -> None:
        self.leave()
        waiters = self.take()
        if not decision.forward.alone:
            self._fills.restart(self.leader, decision.forward, self.record_hash, waiters)
            return
        for waiter in waiters:
            waiter.forward = decision.forward
            self._fills.alone(waiter)

    async def _pass(self, decision: Pass, response: Response) -> None:
        self.leave()
        if decision.remember and self.leader.fills:
            self._fills.remember_unshareable(self.leader.key_hash)
        waiters = self.take()
        first = next((waiter for waiter in waiters if not waiter.downstream.gone), None)
        for waiter in waiters:
            if waiter is not first:
                self._fills.alone(waiter)
        if decision.update is not None:
            await self._fills.writer.put(decision.update_hash, decision.update)
        if first is None:
            response.cancel()
            return
        status = status_fields.forwarded(first.asked.site, first.forward.reason, collapsed=first.collapsed)
        head = status_fields.with_cache_status(decision.head, status)
        if response.empty or first.asked.head:
            response.cancel()
            first.downstream.send(head, b"")
            return
        source = Passing(response, self._fills.counts, response.length)
        first.downstream.send_from(head, source, 0, response.length)

    # Delivering

    def _serve_all(self) -> list[Waiter]:
        """:return: those that were served."""
        waiters = self.take()
        for waiter in waiters:
            self._serve(waiter)
        return waiters

    def _serve(self, waiter: Waiter) -> None:
        plan = self._plan
        assert plan is not None
        if waiter.collapsed and not may_share(waiter.asked, self.leader, plan, self._fills.clock()):
            self._fills.alone(waiter)
        elif isinstance(plan, Freshen):
            self._serve_freshened(waiter, plan)
        else:
            self._serve_filling(waiter, plan)

    def _serve_freshened(self, waiter: Waiter, plan: Freshen) -> None:
        now = self._fills.clock()
        status = status_fields.forwarded(
            waiter.asked.site,
            waiter.forward.reason,
            status=self._fetch_status,
            stored=True,
            collapsed=waiter.collapsed,
            ttl=int(plan.stored.fresh_until - now),
        )
        age = max(0, int(now - plan.stored.generated_at))
        sent = self._fills.sender.send_later(
            waiter.downstream, waiter.asked, plan.stored, plan.record_hash, age, status
        )
        if not sent:
            # Evicted meanwhile: nothing is left that could be validated.
            waiter.forward = evolve(waiter.forward, stored=None)
            self._fills.alone(waiter)

    def _serve_filling(self, waiter: Waiter, plan: Store) -> None:
        filling = self._filling
        assert filling is not None
        presentation = present(waiter.asked, plan.stored)
        if isinstance(presentation, Part) and presentation.start > filling.written + FAR_AHEAD:
            self._fills.ahead(waiter)
            return
        # Whoever joined gets what the store will have; what is the leader's alone goes to the leader.
        stored = plan.stored if waiter.collapsed else plan.own
        now = self._fills.clock()
        status = status_fields.forwarded(
            waiter.asked.site,
            waiter.forward.reason,
            stored=True,
            collapsed=waiter.collapsed,
            ttl=int(stored.fresh_until - now),
        )
        age = int(now - stored.generated_at)
        head = head_of(waiter.asked, stored, presentation, age=age or -1, cache_status=status)
        size = None if plan.stored.size < 0 else plan.stored.size
        start, stop = (presentation.start, presentation.stop) if isinstance(presentation, Part) else (0, size)
        whole_or_part = isinstance(presentation, Whole | Part)
        if waiter.asked.head or self._empty or not whole_or_part or start == stop:
            waiter.downstream.send(head, b"")
        else:
            waiter.downstream.send_from(head, filling.view(start), start, stop)

    def _fail(self, failure: UpstreamFailed) -> None:
        _log.warn("{target}: {failure}", target=self.leader.request.target.decode("latin-1"), failure=failure)
        self.leave()
        why = status_fields.proxy_status(self.leader.site, error=failure.proxy_error)
        for waiter in self.take():
            now = self._fills.clock()
            answer = on_failure(waiter.asked, waiter.forward, now, failure)
            if isinstance(answer, Reuse) and not self._fills.reuse(waiter, answer, failure.proxy_error, why):
                answer = on_failure(waiter.asked, evolve(waiter.forward, stored=None), now, failure)
            if isinstance(answer, Refuse):
                self._refuse(waiter, answer)

    def _refuse(self, waiter: Waiter, refuse: Refuse) -> None:
        self._fills.refuse(waiter.asked, refuse, waiter.downstream, waiter.forward.reason)

    def _refuse_all(self) -> None:
        for waiter in self.take():
            self._refuse(waiter, Refuse(500, "the node failed to answer; its log says why"))

    def take(self) -> list[Waiter]:
        """:return: those who still wait for anything; from now on they are the caller's."""
        waiters, self.waiters = self.waiters, []
        return waiters

    def leave(self) -> None:
        """Nobody joins any longer."""
        self.phase = Phase.ENDED
        self._fills.forget(self)


def _is_fallback(site: Site, response: Response) -> bool:
    """Has an origin answered that only stands in for the first one?"""
    settings = site.settings
    return settings.policy is Policy.FALLBACK and response.address.origin != parse_origin(settings.origins[0])
