"""Those who wait for a fill, and what each of them is sent (DESIGN 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve
from twisted.logger import Logger

from edgecache.fills.contents import Filling
from edgecache.fills.passing import Passing
from edgecache.fills.sending import GONE, UNDERIVED
from edgecache.rules import status_fields
from edgecache.rules.access import PRIVATE
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Freshen, Part, Pass, Refuse, Reuse, ServeStale, Store, Whole
from edgecache.rules.pages import LAST_SERIAL, lacks_serial, serial_of
from edgecache.rules.policy import may_share, on_failure
from edgecache.rules.presenting import head_of, present
from edgecache.rules.reusing import RETRY_AFTER
from edgecache.upstream.responses import Response
from edgecache.words.errors import HeadTimedOut, UpstreamFailed
from edgecache.words.ports import Downstream
from edgecache.words.stored import Stored

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills

_log = Logger()

_DEFECT = Refuse(500, "the node failed to answer; its log says why")

FAR_AHEAD = 1 << 20
"""A range that begins so many octets after what has come is fetched on its own."""

COPIED_AHEAD = 128 << 20
"""So much of a stored beginning counts as come: even a slow disk copies it within ``stall_seconds``. A sibling, or
another worker, that hears nothing for longer goes elsewhere."""


@define(eq=False, repr=False)
class Waiter:
    """
    One client of a fill.

    :ivar forward: why its own look-up did not answer it.
    :ivar record_hash: where what it wants lies, or would lie; ``forward.stored`` may have been another variant.
    :ivar collapsed: it joined a fill that another request had started.
    :ivar again: it demands what the last fill was too early for, and waits for the next.
    :ivar patient: it waits for its part of the whole; on its own it could not be had.
    :ivar parted: it has waited for what others have asked for already.
    :ivar came: so many fills had begun before it came.
    :ivar until: monotonic seconds; by then it is to have its first octet, however many fills it waits for.
    """

    asked: Asked
    forward: Forward
    record_hash: bytes
    downstream: Downstream
    came: int
    until: float
    collapsed: bool = False
    again: bool = False
    patient: bool = False
    parted: bool = False


@define(eq=False, repr=False)
class Waiters:
    """
    All clients of one fill that were not sent anything yet.

    :ivar leader: the request that goes upstream, whether its client still waits or not.
    :ivar number: of the fill: it is that one of all that have begun.
    """

    _fills: Fills
    leader: Asked
    number: int
    _waiting: list[Waiter]
    _plan: Store | Freshen | None = None
    _filling: Filling | None = None
    _status: int = 0
    _empty: bool = False
    _stale_copy: bool = False
    _void: bool = False
    _page: bool = False
    _kept: bool = False
    _document: bytes | None = None
    _content: bytes | None = None

    @property
    def first(self) -> Waiter | None:
        """The one who has waited longest."""
        return self._waiting[0] if self._waiting else None

    def join(self, waiter: Waiter) -> None:
        """``waiter`` gets the response, from its first octet, as soon as it is there and may be shown."""
        if self._void:
            waiter.forward = evolve(waiter.forward, stored=None)
        if self._plan is None or (self._filling is not None and self._filling.withheld):
            self._waiting.append(waiter)
        else:
            self._serve(waiter)

    def take(self) -> list[Waiter]:
        """:return: those who still wait for anything; from now on they are the caller's."""
        waiters, self._waiting = self._waiting, []
        return waiters

    def void(self) -> None:
        """What is stored is known to be wrong by now: whatever else becomes of the fill, nobody gets that."""
        self._void = True
        for waiter in self._waiting:
            waiter.forward = evolve(waiter.forward, stored=None)

    # A response that is stored

    def serve_freshened(self, plan: Freshen, status: int) -> None:
        """
        Everybody, and whoever joins from now on, gets what is stored.

        :param status: what the upstream answered.
        """
        self._plan, self._status = plan, status
        self._serve_all()

    def serve_filling(self, plan: Store, filling: Filling, *, empty: bool, copy: bool = False) -> None:
        """
        Begin to take the content; everybody, and whoever joins from now on, gets it as soon as it may be shown.

        :param empty: no content follows the head.
        :param copy: a sibling had it stored, and no origin has anything: stale is better than nothing for everybody.
        """
        self._plan, self._filling, self._empty = plan, filling, empty
        self._stale_copy = copy and plan.stored.fresh_until <= self._fills.clock()
        served = [] if filling.withheld else self._serve_all()
        filling.start()
        self._look_for_readers(filling, served)

    def serve_whole(self, plan: Store, content: bytes, *, copy: bool = False) -> None:
        """
        Everybody, and whoever joins from now on, gets what is all here already.

        :param copy: as in :meth:`serve_filling`.
        """
        self._plan, self._content = plan, content
        self._stale_copy = copy and plan.stored.fresh_until <= self._fills.clock()
        self._serve_all()

    def serve_page(self, plan: Store, document: bytes | None, *, kept: bool) -> None:
        """
        Everybody, and whoever joins from now on, gets what is derived from a page.

        :param plan: its record, with content.
        :param document: its content, if it is at hand.
        :param kept: it is stored.
        """
        self._plan, self._document, self._kept, self._page = plan, document, kept, True
        self._serve_all()

    def derive_ahead(self, record: Stored, record_hash: bytes, document: bytes) -> None:
        """A page is being stored: meanwhile, what those who wait will get can be derived."""
        for asked in {waiter.asked.representation: waiter.asked for waiter in self._waiting}.values():
            self._fills.representing.derive_ahead(asked, record, record_hash, document)

    async def pass_page(self, waiter: Waiter, record: Stored, document: bytes) -> None:
        """
        What is derived from a page that is not stored.

        :param record: of the page, as if it were.
        """
        if lacks_serial(waiter.asked, record):
            waiter.collapsed = False
            self._refuse_old(waiter, record)
            return
        status = status_fields.forwarded(waiter.asked.site, waiter.forward.reason)
        await self._fills.representing.answer_once(waiter.downstream, waiter.asked, record, status, document)

    def shown(self) -> None:
        """The content was withheld until now (rule 7 of FIELD 1)."""
        assert self._filling is not None
        self._look_for_readers(self._filling, self._serve_all())

    def _look_for_readers(self, filling: Filling, served: list[Waiter]) -> None:
        if served and all(waiter.downstream.gone for waiter in served):
            filling.unwanted()

    def _serve_all(self) -> list[Waiter]:
        """:return: those that were served."""
        waiters = self.take()
        for waiter in waiters:
            try:
                self._serve(waiter)
            except Exception:  # noqa: BLE001 - what is wrong for one must not keep the others, and the store, from it
                _log.failure("{target}: not answered", target=waiter.asked.request.target.decode("latin-1"))
                self._refuse(waiter, _DEFECT)
        return waiters

    def _serve(self, waiter: Waiter) -> None:
        plan = self._plan
        assert plan is not None
        # As if it were fresh still, where nobody could have it otherwise.
        now = plan.stored.fresh_until - 1 if self._stale_copy else self._fills.clock()
        if lacks_serial(waiter.asked, plan.stored):
            self._refuse_old(waiter, plan.stored)
        elif waiter.collapsed and not may_share(waiter.asked, self.leader, plan, now, after=waiter.came < self.number):
            self._fills.apart(waiter, plan)
        elif self._page:
            self._serve_page(waiter, plan.stored)
        elif isinstance(plan, Freshen):
            self._serve_freshened(waiter, plan)
        elif self._content is not None:
            self._serve_whole(waiter, plan, self._content)
        else:
            self._serve_filling(waiter, plan)

    def _serve_freshened(self, waiter: Waiter, plan: Freshen) -> None:
        now = self._fills.clock()
        status = status_fields.forwarded(
            waiter.asked.site,
            waiter.forward.reason,
            status=self._status,
            stored=True,
            collapsed=waiter.collapsed,
            ttl=int(plan.stored.fresh_until - now),
        )
        age = max(0, int(now - plan.stored.generated_at))
        answer = (waiter.downstream, waiter.asked, plan.stored, plan.record_hash, age, status)
        sent = self._fills.sender.send_later(*answer)
        if sent is UNDERIVED:
            self._fills.representing.answer(*answer)
        elif sent is GONE:
            # Evicted meanwhile: nothing is left that could be validated.
            waiter.forward = evolve(waiter.forward, stored=None)
            self._fills.alone(waiter)

    def _serve_page(self, waiter: Waiter, stored: Stored) -> None:
        now = self._fills.clock()
        status = status_fields.forwarded(
            waiter.asked.site,
            waiter.forward.reason,
            stored=self._kept,
            collapsed=waiter.collapsed,
            ttl=int(stored.fresh_until - now),
        )
        age = int(now - stored.generated_at)
        plan = self._plan
        assert plan is not None
        self._fills.representing.answer(
            waiter.downstream, waiter.asked, stored, plan.record_hash, age or -1, status, self._document
        )

    def _refuse_old(self, waiter: Waiter, stored: Stored) -> None:
        """It demands a newer page than there is. (A fill that began before it came may just be too early.)"""
        if waiter.collapsed and not waiter.again:
            waiter.again = True
            self._fills.again(waiter)
            return
        serial = serial_of(stored)
        said = "no serial" if serial is None else f"serial {serial}"
        fields = (RETRY_AFTER,) if serial is None else (RETRY_AFTER, (LAST_SERIAL, b"%d" % serial))
        self._refuse(waiter, Refuse(503, f"The newest page to be had is of {said}.", "", fields))

    def _serve_whole(self, waiter: Waiter, plan: Store, content: bytes) -> None:
        # Whoever joined gets what the store will have; what is the leader's alone goes to the leader.
        stored = plan.stored if waiter.collapsed else plan.own
        asked, now = waiter.asked, self._fills.clock()
        ttl = int(stored.fresh_until - now)
        status = status_fields.forwarded(
            asked.site, waiter.forward.reason, stored=True, collapsed=waiter.collapsed, ttl=ttl
        )
        age = int(now - stored.generated_at)
        self._fills.sender.send_content(waiter.downstream, asked, stored, content, age or -1, status)

    def _serve_filling(self, waiter: Waiter, plan: Store) -> None:
        filling = self._filling
        assert filling is not None
        presentation = present(waiter.asked, plan.stored)
        detail = ""
        size = None if plan.stored.size < 0 else plan.stored.size
        start, stop = (presentation.start, presentation.stop) if isinstance(presentation, Part) else (0, size)
        content = isinstance(presentation, Whole | Part) and not (waiter.asked.head or self._empty or start == stop)
        if content and start < filling.held_from:
            # It is not being stored, and those who came before have read on.
            self._fills.alone(waiter)
            return
        if isinstance(presentation, Part):
            come = max(filling.written, min(filling.stored, filling.written + COPIED_AHEAD))
            if presentation.start > come + FAR_AHEAD and not waiter.patient:
                self._fills.ahead(waiter, presentation, plan.stored)
                return
            if filling.unverified(presentation.stop):
                detail = "unverified"
        # Whoever joined gets what the store will have; what is the leader's alone goes to the leader.
        stored = plan.stored if waiter.collapsed else plan.own
        now = self._fills.clock()
        status = status_fields.forwarded(
            waiter.asked.site,
            waiter.forward.reason,
            stored=True,
            collapsed=waiter.collapsed,
            ttl=int(stored.fresh_until - now),
            detail=detail,
        )
        age = int(now - stored.generated_at)
        head = head_of(waiter.asked, stored, presentation, age=age or -1, cache_status=status)
        if content:
            waiter.downstream.send_from(head, filling.view(start), start, stop)
        else:
            waiter.downstream.send(head, b"")

    # A response that is not

    def own(self) -> Waiter | None:
        """
        Only the one whose request went upstream can have it (its credentials, its cookies): all who have joined are
        forwarded on their own, also when that one has left.

        :return: the one, if it is still there.
        """
        own = None
        for waiter in self.take():
            if waiter.downstream.gone:
                continue
            if waiter.collapsed:
                self._fills.alone(waiter)
            else:
                own = waiter
        return own

    def pass_on(self, decision: Pass, response: Response, to: Waiter, part: Store | None) -> None:
        """
        Straight on to one client.

        :param part: how its content may be stored meanwhile.
        """
        status = status_fields.forwarded(to.asked.site, to.forward.reason, detail=decision.detail)
        private = to.asked.site.clients is not None and to.asked.sibling is None
        head = status_fields.with_cache_status(decision.head + PRIVATE if private else decision.head, status)
        if response.empty or to.asked.head:
            response.cancel()
            to.downstream.send(head, b"")
            return
        aside = None if part is None else self._fills.parts.aside(to.asked, part)
        source = Passing(response, self._fills.counts, response.length, aside)
        to.downstream.send_from(head, source, 0, response.length)

    def wait(self) -> None:
        """What they want cannot be had on its own: they wait for the whole, as far as it has come then."""
        for waiter in self.take():
            self._fills.wait(waiter)

    def forward_alone(self, forward: Forward) -> None:
        """Nobody can have another's response."""
        for waiter in self.take():
            waiter.forward = forward
            self._fills.alone(waiter)

    # No good response

    def serve_stale(self, decision: ServeStale) -> None:
        """What came is worse than what is stored."""
        detail = "" if decision.received is not None else decision.detail
        why = status_fields.proxy_status(self.leader.site, received=decision.received, detail=detail)
        for waiter in self.take():
            waiter.forward = self._fills.stale.honest(waiter.asked, waiter.forward)
            own = on_failure(waiter.asked, waiter.forward, self._fills.clock(), None)
            if not isinstance(own, Reuse):
                self._fills.alone(waiter)
            elif not self._fills.stale.answer(waiter, own, decision.detail, why):
                waiter.forward = evolve(waiter.forward, stored=None)
                self._fills.alone(waiter)

    def fail(self, failure: UpstreamFailed, *, hurried: bool = False) -> None:
        """
        Nothing came: what is stored, stale, or an error.

        :param hurried: most likely for want of time, which some of those who have joined still have.
        """
        waiters = self.take()
        self._tell(self._fills.begin_anew(waiters) if hurried else waiters, failure)

    def expire(self, waiter: Waiter) -> None:
        """``waiter`` has no time left, whatever becomes of the fill; what has come already it will get."""
        if self._plan is None and waiter in self._waiting:
            self._waiting.remove(waiter)
            self._tell([waiter], HeadTimedOut(self.leader.site.settings.name, self._fills.first_byte_seconds))

    def _tell(self, waiters: list[Waiter], failure: UpstreamFailed) -> None:
        why = status_fields.proxy_status(self.leader.site, error=failure.proxy_error)
        for waiter in waiters:
            now = self._fills.clock()
            # More may be known of the project than when it was asked for.
            waiter.forward = self._fills.stale.honest(waiter.asked, waiter.forward)
            answer = on_failure(waiter.asked, waiter.forward, now, failure)
            if isinstance(answer, Reuse) and not self._fills.stale.answer(waiter, answer, failure.proxy_error, why):
                answer = on_failure(waiter.asked, evolve(waiter.forward, stored=None), now, failure)
            if isinstance(answer, Refuse):
                self._refuse(waiter, answer)

    def refuse_all(self) -> None:
        """The node itself has failed."""
        for waiter in self.take():
            self._refuse(waiter, _DEFECT)

    def interim(self, status: int, head: bytes) -> None:
        """A 1xx response, for whom it is meant: hints can be as personal as what they come before."""
        for waiter in self._waiting:
            if not waiter.collapsed:
                waiter.downstream.interim(status, head)

    def _refuse(self, waiter: Waiter, refuse: Refuse) -> None:
        self._fills.refuse(waiter.asked, refuse, waiter.downstream, waiter.forward.reason)
