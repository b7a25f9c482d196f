"""
Names to addresses, again and again, in the node process (DESIGN 8).

What was found is published as a plain document, which workers read with
:class:`~edgecache.upstream.addresses.AddressBook`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from edgecache.upstream.addresses import Origin, literal
from edgecache.words.config import UpstreamSettings
from edgecache.words.endpoints import proxy_url
from edgecache.words.ports import Timer, Timers

_log = Logger()

SLOTS = 256
"""Health slots of the mapped page."""

LookUp = Callable[[str, int], Deferred[list[str]]]
"""Host and port to numeric addresses, the best first; fails with ``OSError``."""


class LookUpThreads(ThreadPool):
    """Threads that look names up, which nothing can interrupt: whoever goes down waits for none of them."""

    threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # as good as a class

    def stop(self) -> None:
        """An idle one ends now, another one once it has its answer."""
        self.adjustPoolsize(0, 0)


def thread_look_up(reactor: IReactorFromThreads, pool: ThreadPool) -> LookUp:
    """:return: ``getaddrinfo`` in a thread of ``pool``: A and AAAA in the order of RFC 6724."""

    def resolve(host: str, port: int) -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        # The scope of a link-local address is kept by getnameinfo alone.
        return list(dict.fromkeys(socket.getnameinfo(entry[4], _NUMERIC)[0] for entry in found))

    return lambda host, port: deferToThreadPool(reactor, pool, resolve, host, port)


_SOON_SECONDS = 1.0
"""The first pause after a name without any address was looked up; each is twice the one before."""

_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class Resolver:
    """
    Keeps the addresses of ``origins`` up to date; the last good set stays when a name fails to resolve.

    :param publish: called with :attr:`document` whenever it has changed.
    :param slots: of the mapped page, for these origins alone; addresses beyond that have none.
    """

    def __init__(
        self,
        origins: Iterable[Origin],
        timers: Timers,
        settings: UpstreamSettings,
        look_up: LookUp,
        publish: Callable[[dict[str, Any]], None],
        slots: Iterable[int] = range(SLOTS),
    ) -> None:
        # By name: sites may share an origin, with other prefixes.
        self._origins = {origin.name: origin for origin in origins}
        self._timers = timers
        self._settings = settings
        self._look_up = look_up
        self._publish = publish
        # With a proxy it is the proxy that we connect to; it looks the origins up itself.
        self._proxy = None if settings.proxy is None else proxy_url(settings.proxy.value)
        self._found: dict[str, tuple[str, ...]] = {}
        self._slots: dict[tuple[str, str], int] = {}
        # Freed ones go to the end: a slot's old health is forgotten before it has a new tenant.
        self._free = deque(slots)
        self._failing: set[str] = set()
        self._running: set[str] = set()
        self._awaited: dict[str, list[Deferred[None]]] = {}
        self._timer: Timer | None = None
        # Of names that have no address yet: for how long the last pause was, and the next look.
        self._pauses: dict[str, float] = {}
        self._soon: dict[str, Timer] = {}
        self._started: Deferred[None] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """``{"origins": {name: [[host, port, slot], ...]}}``, plain JSON; slot -1 is none."""
        return {
            "origins": {
                name: [[host, self._where(self._origins[name])[1], self._slots.get((name, host), -1)] for host in hosts]
                for name, hosts in self._found.items()
            }
        }

    def start(self) -> Deferred[None]:
        """:return: fires once every name was tried, found or not."""
        started: Deferred[None] = Deferred()
        self._started = started
        for name, origin in self._origins.items():
            host = self._where(origin)[0]
            if literal(host):
                self._set(name, (host,))
        self._round()
        return started

    def stop(self) -> None:
        """Look up nothing more; what is running is ignored."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._origins = {}
        for name in list(self._soon):
            self._known(name)
        for name in list(self._awaited):
            self._looked(name)
        self._tried()

    def add(self, origin: Origin) -> Deferred[None]:
        """:return: fires once its name was tried, found or not; at once if it was found before."""
        name = origin.name
        if self._timer is None:
            return succeed(None)  # it is being stopped
        self._origins.setdefault(name, origin)
        host, port = self._where(origin)
        if literal(host):
            self._set(name, (host,))
        if name in self._found:
            return succeed(None)
        tried: Deferred[None] = Deferred()
        self._awaited.setdefault(name, []).append(tried)
        if name not in self._running:
            self._look(name, host, port)
        return tried

    async def follow(self, origins: Iterable[Origin], settings: UpstreamSettings) -> None:
        """
        From now on these origins; those that stay keep their addresses and slots.

        :param settings: the proxy is as it was.
        :return: once the name of each new one was tried, found or not.
        """
        self._settings = settings
        wanted = {origin.name: origin for origin in origins}
        for name in [name for name in self._origins if name not in wanted]:
            self.discard(name)
        await gatherResults([self.add(origin) for origin in wanted.values()])

    def discard(self, name: str) -> None:
        """Nobody asks for it any more."""
        if self._origins.pop(name, None) is not None:
            self._failing.discard(name)
            self._known(name)
            self._set(name, ())

    def _look(self, name: str, host: str, port: int) -> None:
        self._running.add(name)
        looked_up = self._look_up(host, port)
        _ = looked_up.addCallbacks(self._good, self._bad, callbackArgs=(name,), errbackArgs=(name,))

    def _round(self) -> None:
        self._timer = self._timers.callLater(self._settings.resolve_seconds, self._round)
        # One that hangs is asked once, not once a round: each holds a thread.
        due = [
            (name, *self._where(origin))
            for name, origin in self._origins.items()
            if name not in self._running and not literal(self._where(origin)[0])
        ]
        self._running.update(name for name, _host, _port in due)
        for name, host, port in due:
            self._look(name, host, port)
        self._tried()

    def _good(self, hosts: list[str], name: str) -> None:
        self._running.discard(name)
        if name in self._origins and hosts:
            self._failing.discard(name)
            self._known(name)
            self._set(name, tuple(hosts))
        self._looked(name)

    def _bad(self, failure: Failure, name: str) -> None:
        self._running.discard(name)
        if name in self._origins and name not in self._failing:
            # Once, not every round.
            self._failing.add(name)
            known = len(self._found.get(name, ()))
            _log.warn(
                "cannot resolve {host} for {origin}: {error}; keeping {known} known addresses",
                host=self._where(self._origins[name])[0],
                origin=name,
                error=str(failure.value),
                known=known,
            )
        if name in self._origins and name not in self._found:
            self._look_soon(name)
        self._looked(name)

    def _look_soon(self, name: str) -> None:
        """What has no address may only just be starting, as a container does: it is not left for a whole round."""
        pause = 2.0 * self._pauses.get(name, _SOON_SECONDS / 2.0)

        def look() -> None:
            del self._soon[name]
            if name not in self._running:
                self._look(name, *self._where(self._origins[name]))

        if name not in self._soon and pause < self._settings.resolve_seconds:
            self._pauses[name] = pause
            self._soon[name] = self._timers.callLater(pause, look)

    def _known(self, name: str) -> None:
        self._pauses.pop(name, None)
        timer = self._soon.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _looked(self, name: str) -> None:
        for tried in self._awaited.pop(name, ()):
            if not tried.called:
                tried.callback(None)
        self._tried()

    def _where(self, origin: Origin) -> tuple[str, int]:
        """:return: host and port to connect to."""
        way = origin if self._proxy is None or origin.sibling else self._proxy
        return way.host, way.port

    def _tried(self) -> None:
        if not self._running or not self._origins:
            started, self._started = self._started, None
            if started is not None:
                started.callback(None)

    def _set(self, name: str, hosts: tuple[str, ...]) -> None:
        before = self._found.get(name, ())
        # Round-robin DNS turns the order with each answer; that is no change.
        if frozenset(before) == frozenset(hosts):
            return
        if hosts:
            self._found[name] = hosts
        else:
            del self._found[name]
        for host in before:
            if host not in hosts and (slot := self._slots.pop((name, host), -1)) >= 0:
                self._free.append(slot)
        for host in hosts:
            if (name, host) not in self._slots and self._free:
                self._slots[name, host] = self._free.popleft()
        self._publish(self.document)
