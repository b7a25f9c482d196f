"""Quests of one worker for what upstreams have: whom they ask, in which order, and how long that usually takes."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field

from edgecache.fills.candidates import NONE, Candidates
from edgecache.fills.outlet import Outlet
from edgecache.fills.quest import Quest
from edgecache.fills.resorting import Resort
from edgecache.fills.ways import Way
from edgecache.rules.allowance import Ticket
from edgecache.rules.hedging import Latencies
from edgecache.rules.routing import candidates
from edgecache.rules.sites import Site
from edgecache.upstream.addresses import Address, AddressBook, Origin, origins_of
from edgecache.words.config import Policy
from edgecache.words.errors import ResolveFailed
from edgecache.words.messages import SAFE, Head, Outbound, without

_LINKED = 64
"""Hosts that pages link to whose latencies are remembered; the oldest are forgotten."""


@define(eq=False, repr=False)
class Searches:
    """
    Quests are made here, and begun by who wants the answer.

    Latencies are this worker's, by family (:class:`~edgecache.fills.ways.Way`).
    """

    _book: AddressBook
    _outlet: Outlet
    _latencies: dict[int | str, Latencies] = field(factory=dict)
    _ways: dict[int, Way] = field(factory=dict)
    _turn: int = 0

    # Whom to ask

    def way_of(self, site: Site, outbound: Outbound) -> Way:
        """:return: to those of the site's origins that may be asked for this."""
        way = self.own_way(site)
        if way.policy is Policy.FALLBACK and outbound.method not in SAFE:
            # What is changed at one that only stands in is lost, and it need not know the client's credentials.
            way = evolve(way, origins=way.origins[:1])
        return way

    def origins(self, site: Site) -> tuple[Origin, ...]:
        """Of a site."""
        return self.own_way(site).origins

    def own_way(self, site: Site) -> Way:
        """:return: to all origins of the site."""
        way = self._ways.get(site.id)
        if way is None:
            way = self._ways[site.id] = Way(origins_of(site.settings), site.settings.policy, site.id)
        return way

    # The quests

    def search(
        self,
        way: Way,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        until: float,
        avoid: frozenset[Address],
        ticket: Ticket,
        resort: Resort | None = None,
    ) -> Quest:
        """
        :param until: see :class:`~edgecache.fills.quest.Quest`, and ``resort``.
        :param avoid: asked only when all others have failed.
        :return: a quest for all of the way's addresses.
        :raises ResolveFailed: there is nobody to ask.
        """
        addresses = self.candidates(way)
        if avoid:
            addresses.sort(key=avoid.__contains__)
        if not addresses:
            raise ResolveFailed(names(way), 0.0, "no address of it is known")
        return self.quest(way, outbound, interim, until, addresses, avoid, ticket, resort)

    def quest(
        self,
        way: Way,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        until: float,
        addresses: list[Address],
        avoid: frozenset[Address],
        ticket: Ticket,
        resort: Resort | None = None,
    ) -> Quest:
        """:return: the same for some of the way's ``addresses``, in this order; at least one. They are the quest's."""
        latencies = self._latencies.get(way.family)
        if latencies is None:
            linked = [family for family in self._latencies if isinstance(family, str)]
            if len(linked) >= _LINKED:
                del self._latencies[linked[0]]
            latencies = self._latencies[way.family] = Latencies(self._outlet.settings.hedge_window_seconds)
        better = NONE
        if way.policy is Policy.FALLBACK:
            better = frozenset(self._book.of(way.origins[0]))
        if way.target is not None:
            outbound = evolve(outbound, target=way.target)
        if way.foreign:
            outbound = evolve(outbound, authority=None, fields=without(outbound.fields, (b"authorization",)))
        left = Candidates(self._outlet.standing.ejected, addresses, better, avoid)
        return Quest(self._outlet, outbound, interim, until, left, ticket, latencies, way.judge, resort)

    def candidates(self, way: Way) -> list[Address]:
        """:return: the way's addresses, the one to ask first at the head."""
        self._turn += 1
        standing = self._outlet.standing
        known = [self._book.of(origin) for origin in way.origins]
        if len(known) == 1 and len(known[0]) == 1:
            return [*known[0]]  # whatever its health, there is no choice
        return candidates(known, way.policy, self._turn, standing.share, standing.ejected)


def names(way: Way) -> str:
    """For people: of all origins of a way."""
    return ", ".join(origin.name for origin in way.origins)
