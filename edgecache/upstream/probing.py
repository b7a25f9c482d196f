"""One request that finds out whether an address is well: its head and enough of its content (FIELD 1)."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.rules.health import ERROR_STATUSES
from edgecache.upstream.addresses import Address
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Outbound
from edgecache.words.ports import Timer, Timers
from edgecache.words.reasons import Outcome

_FIELDS = [(b"accept", b"*/*"), (b"accept-encoding", b"identity"), (b"user-agent", b"edgecache (probe)")]


async def probe(client: Client, address: Address, target: bytes, timers: Timers, settings: UpstreamSettings) -> Outcome:
    """
    GET ``target`` on a connection of its own. Cancelling closes that.

    :param target: below the origin's prefix.
    :return: GOOD once ``restore_octets``, or all, of the content have come; a head alone proves nothing.
    """
    outbound = Outbound(b"GET", target, list(_FIELDS))
    try:
        # An idle connection may be left over from better days.
        response = await client.ask(address, outbound, fresh=True)
    except UpstreamFailed as failure:
        # One that says nothing about the address is no reason to ask it either.
        return failure.outcome or Outcome.CONNECT_FAILED
    if response.head.status in ERROR_STATUSES:
        response.cancel()
        return Outcome.ERROR_STATUS
    return await _Taker(response, timers, settings).take()


@define(eq=False, repr=False)
class _Taker:
    """Counts the content of one response, and drops it."""

    _response: Response
    _timers: Timers
    _settings: UpstreamSettings
    _octets: int = 0
    _timer: Timer | None = None
    _done: Deferred[Outcome] = field(init=False)

    @_done.default
    def _cancellable(self) -> Deferred[Outcome]:
        return Deferred(lambda _: self._stop())

    def take(self) -> Deferred[Outcome]:
        """:return: fires once it is known. Before ``attach``, which may tell all within its call, nothing runs."""
        self._timer = self._timers.callLater(self._settings.slow_window_seconds, self._look, 0)
        self._response.attach(self)
        return self._done

    def data(self, data: bytes) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self._octets += len(data)
        if self._octets >= self._settings.restore_octets:
            self._over(Outcome.GOOD)

    def end(self) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self._over(Outcome.GOOD)

    def fail(self, failure: UpstreamFailed) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self._over(failure.outcome or Outcome.LOST)

    def _look(self, before: int) -> None:
        """What drips would otherwise keep it between in and out for hours."""
        self._timer = None
        window = self._settings.slow_window_seconds
        if self._octets - before < self._settings.slow_octets_per_second * window:
            self._over(Outcome.TOO_SLOW)
        else:
            self._timer = self._timers.callLater(window, self._look, self._octets)

    def _over(self, outcome: Outcome) -> None:
        self._stop()
        self._done.callback(outcome)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._response.cancel()
