"""
Hosts that files are fetched from although no setting names them: pages of an index link there (DESIGN 10).

Workers announce whom they need; the node process resolves, watches and gives slots, as for any origin, and forgets
whom nobody has needed for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from edgecache.rules.reach import may_be_asked
from edgecache.upstream.addresses import AddressBook, Origin, literal, parse_origin
from edgecache.upstream.resolving import SLOTS, Resolver
from edgecache.words.config import SiteSettings, UpstreamSettings
from edgecache.words.errors import ConfigError, EdgeError, LinkRefused
from edgecache.words.ports import Timer, Timers

if TYPE_CHECKING:
    from edgecache.upstream.roster import Roster

_log = Logger()

MOST = 32
"""At the same time. Indexes have one or two; a page that links to thousands makes the least recently used ones go."""

LINK_SLOTS = range(SLOTS - 64, SLOTS)
"""Health slots of these hosts' addresses: pages cannot take those of the configured origins away."""

FORGET_SECONDS = 900.0
"""Whom no worker has announced for so long is no longer resolved."""

_SWEEP_SECONDS = 60.0

ANNOUNCE_SECONDS = 60.0
"""A worker says this often that it still needs a host."""


@define(eq=False, repr=False)
class LinkHosts:
    """
    The node process's side.

    :ivar configured: names of origins that are resolved anyway.
    """

    configured: frozenset[str]
    _resolver: Resolver
    _roster: Roster
    _timers: Timers
    # By name, the one that was announced longest ago first.
    _used: dict[str, tuple[Origin, float]] = field(factory=dict)
    _timer: Timer | None = None

    @property
    def names(self) -> list[str]:
        """Of all that are known at present."""
        return list(self._used)

    @property
    def addresses(self) -> dict[str, Any]:
        """Those of each, as in :attr:`edgecache.upstream.resolving.Resolver.document`."""
        found: dict[str, Any] = self._resolver.document["origins"]
        return found

    async def follow(self, configured: frozenset[str], settings: UpstreamSettings) -> None:
        """Other origins are configured now."""
        self.configured = configured
        await self._resolver.follow([origin for origin, _ in self._used.values()], settings)

    def start(self) -> Deferred[None]:
        """Begin to resolve."""
        self._timer = self._timers.callLater(_SWEEP_SECONDS, self._sweep)
        return self._resolver.start()

    def stop(self) -> None:
        """Resolve nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._resolver.stop()

    async def announce(self, url: str) -> None:
        """
        A worker needs the host.

        :param url: scheme and authority.
        :return: once its name was tried; workers know by then what was found.
        :raises ConfigError: it cannot be one.
        """
        origin = parse_origin(url)
        name = origin.name
        if name in self.configured:
            return
        new = name not in self._used
        self._used.pop(name, None)
        while len(self._used) >= MOST:
            self._forget(next(iter(self._used)))
        self._used[name] = origin, self._timers.seconds()
        if new:
            self._roster.link(known for known, _ in self._used.values())
        await self._resolver.add(origin)

    def _sweep(self) -> None:
        self._timer = self._timers.callLater(_SWEEP_SECONDS, self._sweep)
        before = self._timers.seconds() - FORGET_SECONDS
        for name in [name for name, (_, at) in self._used.items() if at <= before]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        del self._used[name]
        self._roster.link(known for known, _ in self._used.values())
        self._resolver.discard(name)


@define(eq=False, repr=False)
class LinksFollowed:
    """
    A worker's side: who may be asked for the files of whose pages, and where.

    :ivar call: a call to the node process.
    :ivar proxied: names are looked up by a proxy, so nobody here knows what they lead to.
    """

    _book: AddressBook
    _call: Callable[..., Deferred[dict[str, Any]]]
    _notify: Callable[..., None]
    _timers: Timers
    _proxied: bool
    _announced: dict[Origin, float] = field(factory=dict)

    async def known(self, origin: Origin, until: float) -> None:
        """
        From now on, for some time, :meth:`AddressBook.of` knows ``origin`` if anybody does.

        :param until: monotonic seconds; later it is not waited for.
        """
        now = self._timers.seconds()
        if not self._book.of(origin):
            self._announced.pop(origin, None)
            await self._announce(origin, until - now)
        elif now - self._announced.get(origin, -ANNOUNCE_SECONDS) >= ANNOUNCE_SECONDS:
            self._notify("link", origin=origin.name)
        else:
            return
        self._announced[origin] = now
        for other in [one for one, at in self._announced.items() if now - at > ANNOUNCE_SECONDS]:
            del self._announced[other]

    def refused(self, settings: SiteSettings, origins: Iterable[Origin], link: Origin) -> LinkRefused | None:
        """
        :param origins: of the site whose page has the link.
        :return: why ``link`` must not be asked, whatever it has; ``None``: it may.
        """
        if {link.host, link.authority.decode("ascii"), f"{link.host}:{link.port}"} & set(settings.file_hosts):
            return None
        if self._proxied and not literal(link.host):
            return LinkRefused(link.name, 0.0, "a proxy looks it up, and [[site]] file_hosts does not name it")
        found = [link.host] if literal(link.host) else [address.host for address in self._book.of(link)]
        own = [origin.host for origin in origins if literal(origin.host)]
        if not self._proxied:
            own += [address.host for origin in origins for address in self._book.of(origin)]
        if not found or may_be_asked(found, own):
            return None
        shown = ", ".join(found)
        return LinkRefused(
            link.name, 0.0, f"has the addresses {shown}: neither global, nor of the origin's kind, nor in file_hosts"
        )

    async def _announce(self, origin: Origin, seconds: float) -> None:
        late = False

        def cut() -> None:
            nonlocal late
            late = True
            call.cancel()

        call = self._call("link", origin=origin.name)
        timer = self._timers.callLater(max(0.0, seconds), cut)
        try:
            await call
        except CancelledError:
            if not late:
                raise
        except EdgeError as error:
            _log.warn("{origin}, where a page has a link, cannot be looked up: {why}", origin=origin.name, why=error)
        finally:
            if not late:
                timer.cancel()


def link_origin(url: bytes) -> tuple[Origin, bytes] | None:
    """
    :param url: of a file, absolute.
    :return: where it is, and the target to ask for there; ``None`` if that is no http or https URL that could be
        one request.
    """
    text = url.decode("latin-1")
    if not text.isascii() or any(char <= " " or char in '\x7f"<>\\' for char in text):
        return None
    scheme, colon, rest = text.partition("://")
    end = min((place for place in map(rest.find, "/?#") if place >= 0), default=len(rest))
    try:
        origin = parse_origin(f"{scheme.lower()}{colon}{rest[:end]}")
    except ConfigError:
        return None
    target = rest[end:].partition("#")[0]
    return origin, (target if target.startswith("/") else f"/{target}").encode("ascii")
