"""Who is where: addresses of all that a node's workers may ask, looked up by the node process (DESIGN 4, 8)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from edgecache.processes.background import background, briefly
from edgecache.upstream.addresses import Origin
from edgecache.upstream.linkhosts import LINK_SLOTS, LinkHosts
from edgecache.upstream.resolving import LookUpThreads, Resolver, thread_look_up
from edgecache.upstream.roster import Roster
from edgecache.words.config import UpstreamSettings
from edgecache.words.ports import Timers

_RESOLVING_THREADS = 8
_LINK_THREADS = 4
_FIRST_NAMES_SECONDS = 3.0
"""Workers begin without addresses when names take longer than this."""


@define(eq=False, repr=False)
class Naming:
    """Addresses of origins and siblings, and of hosts that pages link to."""

    _timers: Timers
    _resolver: Resolver
    _links: LinkHosts
    _pools: list[ThreadPool] = field(factory=list)

    @classmethod
    def of(
        cls,
        reactor: Any,
        timers: Timers,
        upstream: UpstreamSettings,
        origins: Sequence[Origin],
        roster: Roster,
        changed: Callable[[], None],
    ) -> Naming:
        """
        :param origins: and siblings.
        :param roster: told of hosts that pages link to.
        :param changed: a name has other addresses.
        """
        pool = LookUpThreads(0, _RESOLVING_THREADS, "resolver")
        # Names in pages that take long to look up must not keep those of the origins waiting.
        link_pool = LookUpThreads(0, _LINK_THREADS, "link resolver")

        def told(_: dict[str, Any]) -> None:
            changed()

        slots = range(LINK_SLOTS.start)
        resolver = Resolver(origins, timers, upstream, thread_look_up(reactor, pool), told, slots)
        linked = Resolver((), timers, upstream, thread_look_up(reactor, link_pool), told, LINK_SLOTS)
        links = LinkHosts(frozenset(origin.name for origin in origins), linked, roster, timers)
        return cls(timers, resolver, links, [pool, link_pool])

    def open(self) -> None:
        """From now on names can be looked up."""
        for pool in self._pools:
            pool.start()

    async def start(self) -> None:
        """Look all up, and again and again. Done once the first are known, or take too long."""
        background(self._links.start(), "resolve hosts that pages link to")
        await self._briefly(self._resolver.start())

    async def follow(self, origins: Sequence[Origin], upstream: UpstreamSettings) -> None:
        """From now on these are asked. Done as :meth:`start` is."""
        names = frozenset(origin.name for origin in origins)
        background(self._links.follow(names, upstream), "resolve hosts that pages link to")
        # What is asked meanwhile waits, in the listening sockets or at the workers of before.
        await self._briefly(Deferred.fromCoroutine(self._resolver.follow(origins, upstream)))

    async def announce(self, origin: str) -> None:
        """A page links there, says a worker: done once its addresses are known."""
        await self._links.announce(origin)

    @property
    def linked(self) -> list[str]:
        """Names of hosts that pages link to."""
        return self._links.names

    @property
    def document(self) -> dict[str, Any]:
        """As workers are told it."""
        return {"origins": {**self._links.addresses, **self._resolver.document["origins"]}}

    def stop(self) -> None:
        """Look nothing up any more."""
        self._resolver.stop()
        self._links.stop()

    def close(self) -> None:
        """End the threads."""
        for pool in self._pools:
            pool.stop()

    async def _briefly(self, resolving: Deferred[None]) -> None:
        await briefly(resolving, "resolve origins", self._timers, _FIRST_NAMES_SECONDS)
