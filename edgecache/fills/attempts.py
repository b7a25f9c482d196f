"""Ask one candidate after the other until one gives a usable head (DESIGN 8)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.rules.routing import candidates
from edgecache.rules.sites import Site
from edgecache.upstream.addresses import Address, AddressBook, Origin, parse_origin
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import ConnectionLost, ResolveFailed, UpstreamFailed
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Counts, Timers

ELSEWHERE = frozenset((502, 503, 504))
"""Statuses by which an origin says that it is not well: another one may be (FIELD 1)."""


@define(eq=False)
class Attempts:
    """
    A worker's way to the origins of each site.

    :ivar budget: seconds from the first attempt to a head, all attempts together.
    """

    _client: Client
    _book: AddressBook
    _settings: UpstreamSettings
    _timers: Timers
    _counts: Counts
    _origins: dict[int, tuple[Origin, ...]] = field(factory=dict)
    _turn: int = 0

    async def ask(self, site: Site, outbound: Outbound, interim: Callable[[Head], None] | None) -> Response:
        """
        :return: the first usable response, or the last origin's own 502, 503 or 504.
        :raises UpstreamFailed: of the last address tried.
        """
        began = self._timers.seconds()
        addresses = self._candidates(site)
        if not addresses:
            raise ResolveFailed(self._names(site), 0.0, "no address of it is known")
        for number, address in enumerate(addresses, 1):
            last = number == len(addresses)
            left = self._settings.first_byte_seconds - (self._timers.seconds() - began)
            try:
                try:
                    response = await self._once(address, outbound, interim, left, last)
                except ConnectionLost as lost:
                    if not (last and lost.reused and outbound.idempotent):
                        raise
                    # It was idle, and the origin closed it just then: that says nothing about the origin, and
                    # there is nobody else to ask (RFC 9112 §9.3.1). Once, on a connection of its own.
                    response = await self._once(address, outbound, interim, left, last, fresh=True)
            except UpstreamFailed as failure:
                self._counts.add(Counter.UPSTREAM_FAILURES)
                if last or left <= 0 or (failure.sent and not outbound.idempotent):
                    raise
                continue
            if last or response.head.status not in ELSEWHERE or not outbound.idempotent:
                return response
            response.cancel()
        raise AssertionError("the last candidate either answers or raises")

    def _once(
        self,
        address: Address,
        outbound: Outbound,
        interim: Callable[[Head], None] | None,
        left: float,
        last: bool,
        *,
        fresh: bool = False,
    ) -> Deferred[Response]:
        self._counts.add(Counter.UPSTREAM_REQUESTS)
        # Nothing comes after the last one: it may take what is left. Content takes its own time to be sent.
        head_seconds = left if last and outbound.content is None else min(left, self._settings.head_seconds)
        if outbound.content is not None:
            head_seconds = self._settings.first_byte_seconds
        return self._client.ask(address, outbound, interim=interim, head_seconds=max(head_seconds, 0.001), fresh=fresh)

    def _candidates(self, site: Site) -> list[Address]:
        origins = self._origins.get(site.id)
        if origins is None:
            origins = self._origins[site.id] = tuple(parse_origin(url) for url in site.settings.origins)
        self._turn += 1
        return candidates([self._book.of(origin) for origin in origins], site.settings.policy, self._turn)

    def _names(self, site: Site) -> str:
        return ", ".join(origin.name for origin in self._origins[site.id])
