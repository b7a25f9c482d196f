"""A worker's way to the origins of each site: heads by quests, contents that go on elsewhere (DESIGN 8)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.fills.candidates import NONE
from edgecache.fills.continuing import Continuing
from edgecache.fills.hashing import Hashing
from edgecache.fills.homes import LookUp, SiblingsAsked
from edgecache.fills.outlet import ELSEWHERE, Outlet
from edgecache.fills.quest import Quest
from edgecache.fills.resorting import Resort
from edgecache.fills.searching import Searches, names
from edgecache.fills.ways import Seeking, Way
from edgecache.processes.background import background
from edgecache.rules.allowance import Allowance, Ticket
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward
from edgecache.rules.digests import repr_digest
from edgecache.rules.resuming import Broken, NotTheRest, Rest, on_answer, rest_of
from edgecache.rules.siblinghood import COPY_SECONDS
from edgecache.rules.sites import Site
from edgecache.store.layout import CHUNK
from edgecache.upstream.addresses import Address, AddressBook
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.upstream.standing import Standing
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import ResolveFailed, UpstreamFailed
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Counts, Timers
from edgecache.words.reasons import Outcome

_ABOUT_A_RANGE = (206, 416)
"""Statuses that answer nobody who did not ask for a range."""


@define(eq=False, repr=False)
class Attempts:
    """
    Requests of one worker to the origins of its sites.

    Budgets are this worker's; health is the node's (:class:`~edgecache.upstream.standing.Standing`).
    """

    _book: AddressBook
    _outlet: Outlet
    _allowance: Allowance
    _siblings: SiblingsAsked | None = None
    _hashing: Hashing = field(factory=Hashing)
    _searches: Searches = field(init=False)

    @_searches.default
    def _of_these(self) -> Searches:
        return Searches(self._book, self._outlet)

    @classmethod
    def of(
        cls,
        client: Client,
        book: AddressBook,
        standing: Standing,
        settings: UpstreamSettings,
        timers: Timers,
        counts: Counts,
        siblings: Callable[[Outlet], SiblingsAsked] | None = None,
        hashing: Hashing | None = None,
    ) -> Attempts:
        """
        :param standing: tells it of ejections from now on.
        :param siblings: makes them what can be asked besides the origins; ``None``: there are none.
        :param hashing: computes digests; one of its own, unless told.
        """
        allowance = Allowance(settings.attempt_share, settings.attempt_least, settings.hedge_share)
        attempts = cls(book, Outlet(client, standing, settings, timers, counts), allowance)
        if siblings is not None:
            attempts._siblings = siblings(attempts._outlet)
        if hashing is not None:
            attempts._hashing = hashing
        standing.on_ejected(attempts._ejected)
        return attempts

    def look_up(self, asked: Asked, forward: Forward) -> LookUp | None:
        """See :meth:`edgecache.fills.homes.SiblingsAsked.look_up`."""
        return None if self._siblings is None else self._siblings.look_up(asked, forward)

    @property
    def lone(self) -> bool:
        """Is there nobody to ask besides the origins?"""
        return self._siblings is None

    def ticket(self) -> Ticket:
        """For one fill that asks by :meth:`search`; its owner closes it, or leaves that to :meth:`usable`."""
        return self._allowance.ticket()

    def search(
        self,
        site: Site,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        until: float,
        avoid: frozenset[Address],
        ticket: Ticket,
    ) -> Quest:
        """
        :meth:`ask` for who wants the site's origins asked and nobody else, and does so without a coroutine.

        :return: not yet begun; what it finds is put to :meth:`usable`.
        :raises ResolveFailed: there is nobody to ask.
        """
        return self._searches.search(self._searches.way_of(site, outbound), outbound, interim, until, avoid, ticket)

    async def ask(
        self,
        site: Site,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        until: float,
        avoid: frozenset[Address] = frozenset(),
        broken: Broken | None = None,
        look_up: LookUp | None = None,
        seeking: Seeking | None = None,
        *,
        resumable: bool = True,
    ) -> Response:
        """
        :param until: monotonic seconds: all that is tried for a head has to be over then, unless it has content.
        :param avoid: asked only when all others have failed.
        :param broken: what came of an earlier response to ``outbound``. Its rest is asked for;
            :attr:`~edgecache.fills.continuing.Continuing.begun` tells whether it comes, or another response.
        :param look_up: siblings may be asked as well: the home before the origin, others when that gives nothing.
        :param seeking: where it is has to be found out first, unless a sibling has it.
        :param resumable: its content may be put together from several responses.
        :return: the first usable response, or an origin's own 502, 503 or 504. Small content that came with it is
            whole, and right; any other is :class:`~edgecache.fills.continuing.Continuing`: if it breaks off, the rest
            comes from another address wherever that is possible.
        :raises UpstreamFailed: of the last address tried.
        """
        asking = outbound if broken is None else rest_of(outbound, broken.known, broken.received)
        if look_up is not None and broken is not None:
            look_up = look_up.after(broken)
        ticket = self._allowance.ticket()
        try:
            response = await self._head(site, asking, interim, until, avoid, ticket, look_up, seeking)
        except BaseException:
            ticket.close()
            raise
        if broken is None:
            return self.usable(site, outbound, response, ticket, seeking, resumable=resumable)
        by_close = response.delimited_by_close
        fitting = on_answer(broken.known, broken.received, response.head, response.length, delimited_by_close=by_close)
        named = None if seeking is None else seeking.digest
        if named is not None and named != broken.known.digest:
            # Its page says by now what all of it must hash to, and nobody has compared the first octets with that.
            fitting = NotTheRest("its page names another digest", wrong=False)
        if not isinstance(fitting, Rest) and response.head.status in _ABOUT_A_RANGE:
            response.cancel()
            ticket.close()
            if fitting.wrong:
                self._outlet.counts.add(Counter.UPSTREAM_FAILURES)
                self._outlet.standing.failed(response.address, Outcome.WRONG_RANGE, outbound.probe_target)
                avoid |= {response.address}
            return await self.ask(site, outbound, interim, until, avoid, seeking=seeking)
        continuing = self._continuing(site, outbound, response, ticket, seeking)
        if isinstance(fitting, Rest):
            continuing.go_on_from(broken, fitting)
        return continuing

    async def _head(
        self,
        site: Site,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        until: float,
        avoid: frozenset[Address],
        ticket: Ticket,
        look_up: LookUp | None,
        seeking: Seeking | None,
    ) -> Response:
        """The home, the origin, what others have stored, an origin that is out: the first that has something good."""
        siblings = self._siblings
        if siblings is None or look_up is None:
            return await self._from_origin(site, outbound, interim, until, avoid, ticket, seeking)
        if look_up.home:
            response = await siblings.home(look_up, interim, until, avoid)
            if response is not None:
                return response
        # Of little time, the origin has half.
        kept = min(COPY_SECONDS, (until - self._outlet.timers.seconds()) / 2.0)

        def copied() -> Deferred[Response | None]:
            return Deferred.fromCoroutine(siblings.copy(look_up, avoid))

        resort = Resort(copied)
        try:
            response = await self._from_origin(site, outbound, interim, until - kept, avoid, ticket, seeking, resort)
        except UpstreamFailed:
            copy = await copied()
            if copy is None:
                raise
            return copy
        if response.head.status not in ELSEWHERE:
            return response
        copy = await copied()
        if copy is None:
            return response
        response.cancel()
        return copy

    async def _from_origin(
        self,
        site: Site,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        until: float,
        avoid: frozenset[Address],
        ticket: Ticket,
        seeking: Seeking | None,
        resort: Resort | None = None,
    ) -> Response:
        way = self._searches.way_of(site, outbound) if seeking is None else await seeking.way(until)
        if not isinstance(way, Way):
            return way
        response = await self._searches.search(way, outbound, interim, until, avoid, ticket, resort).start()
        if seeking is None or response.address.origin.sibling:
            return response
        return seeking.taken(outbound, response)

    def usable(
        self,
        site: Site,
        outbound: Outbound,
        response: Response,
        ticket: Ticket,
        seeking: Seeking | None = None,
        *,
        resumable: bool = True,
    ) -> Response:
        """:return: what :meth:`ask` gives, of the head that was found; ``ticket`` is closed with its content."""
        if self._is_whole(outbound, response, seeking):
            ticket.close()
            return response
        return self._continuing(site, outbound, response, ticket, seeking, resumable=resumable)

    def _is_whole(self, outbound: Outbound, response: Response, seeking: Seeking | None) -> bool:
        """Is all of its content here, small and right? Then nothing is left that could go on elsewhere."""
        content, head = response.whole, response.head
        if content is None or len(content) >= CHUNK:
            return False
        if head.status == 200 and outbound.method == b"GET":
            digest = (None if seeking is None else seeking.digest) or repr_digest(head)
            if digest is not None:
                if not digest.fits(content):
                    return False  # whose fault that is, is found out like that of any other
                response.digest = digest
        if head.status < 500:
            self._outlet.standing.good(response.address)
        return True

    def continued(self, site: Site, outbound: Outbound, response: Response, seeking: Seeking | None = None) -> Response:
        """
        :param response: to ``outbound``, by somebody else than the site's origins: the owner of its key.
        :return: the same, but if its content breaks off, an origin is asked for the rest.
        """
        return self._continuing(site, outbound, response, self._allowance.ticket(), seeking)

    def _continuing(
        self,
        site: Site,
        outbound: Outbound,
        response: Response,
        ticket: Ticket,
        seeking: Seeking | None,
        *,
        resumable: bool = True,
    ) -> Continuing:
        outlet = self._outlet
        way = None if seeking is None else seeking.found
        return Continuing(
            response,
            outbound,
            partial(self._rest, site, seeking, ticket),
            outlet.standing,
            outlet.timers,
            outlet.settings,
            outlet.counts,
            partial(self._others, site, seeking),
            ticket.close,
            None if seeking is None else seeking.digest,
            resumable=resumable,
            target=None if way is None or response.address.origin.sibling else way.target,
            check=self._hashing.check,
        )

    def another(self, site: Site, avoid: frozenset[Address], last: Address) -> bool:
        """:return: is there anybody to ask besides ``avoid``, of which ``last`` was the last one?"""
        return bool(last.origin.sibling) or any(
            address not in avoid for origin in self._searches.origins(site) for address in self._book.of(origin)
        )

    def failing(self, site: Site) -> bool:
        """Is every address of the site known to fail at present?"""
        addresses = [address for origin in self._searches.origins(site) for address in self._book.of(origin)]
        return bool(addresses) and all(map(self._outlet.standing.failing, addresses))

    def _rest(
        self, site: Site, seeking: Seeking | None, ticket: Ticket, outbound: Outbound, tried: frozenset[Address]
    ) -> Deferred[Response]:
        """Ask for the rest of a content, at an address that was not asked for one before."""
        # A client sits there with half a content: it should hear of the end in good time, if this is the end.
        until = self._outlet.timers.seconds() + self._outlet.settings.head_seconds
        running: Deferred[Any] | None = None

        def give_up(_: object) -> None:
            ticket.stay()
            if running is not None:
                running.cancel()

        admitted: Deferred[Response] = Deferred(give_up)

        def ask(way: Way) -> None:
            left = [address for address in self._searches.candidates(way) if address not in tried]
            if not left:
                admitted.errback(ResolveFailed(names(way), 0.0, "every address was asked for the rest"))
                return
            quest = self._searches.quest(way, outbound, None, until, left, NONE, ticket)

            def proceed() -> None:
                nonlocal running
                running = quest.start()
                _ = running.chainDeferred(admitted)

            ticket.move(proceed)

        if seeking is None:
            ask(self._searches.way_of(site, outbound))
            return admitted
        known = Deferred.fromCoroutine(seeking.way(until))
        running = known

        def found(way: Way | Response) -> None:
            if isinstance(way, Way):
                ask(way)
            else:
                way.cancel()
                admitted.errback(ResolveFailed(site.settings.name, 0.0, "nobody has it any more"))

        background(known.addCallbacks(found, admitted.errback), "find out who has the rest of a file")
        return admitted

    def _others(self, site: Site, seeking: Seeking | None, address: Address) -> bool:
        """Is another address of the site, or of where it is, as good as new?"""
        share = self._outlet.standing.share
        way = None if seeking is None else seeking.found
        origins = self._searches.origins(site) if way is None else way.origins
        return any(other != address and share(other) >= 1.0 for origin in origins for other in self._book.of(origin))

    def _ejected(self, slot: int) -> None:
        for quest in list(self._outlet.quests):
            quest.ejected(slot)
