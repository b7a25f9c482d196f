"""Ask one upstream address: the HTTP/1.1 client for artifacts (DESIGN 8)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.rules.lately import Lately
from edgecache.upstream.addresses import Address, Origin
from edgecache.upstream.connection import Connection
from edgecache.upstream.dialing import Dialer
from edgecache.upstream.exchange import Exchange
from edgecache.upstream.parties import Asker
from edgecache.upstream.pool import Pool
from edgecache.upstream.proxying import ProxyRefused, tunnel
from edgecache.upstream.requests import serialise
from edgecache.upstream.responses import Response
from edgecache.upstream.tls import Trust, check_name, client_context, reason
from edgecache.words.config import UpstreamSettings
from edgecache.words.endpoints import ProxyURL, proxy_url
from edgecache.words.errors import (
    CertificateWrong,
    ConfigError,
    ConnectFailed,
    ConnectTimedOut,
    TLSFailed,
    UpstreamBusy,
    UpstreamFailed,
)
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Timers

_log = Logger()

_SIBLING_STALL = 1.0
"""A sibling whose own upstream stalls goes on elsewhere; for that it has so much longer than an origin."""
_SIBLING_INTERIMS = 64
"""It says once a second that it is still at it, and passes its origin's interim responses on."""
_SIBLING_IDLE_SECONDS = 30.0
"""It keeps idle connections longer than strangers do."""


class Client:
    """
    One worker's client. It counts nothing: who asks knows what its exchanges are for. It says what is wrong with TLS,
    for another address may serve the request, and nobody would ever hear of it.

    :param dialer: opens connections.
    :param timers: monotonic; every deadline runs on it.
    :param settings: deadlines, caps, TLS, and the proxy if there is one.
    :param context: for ``https`` origins; made of ``settings`` when first needed
        (it takes megabytes), so call :func:`~edgecache.upstream.tls.client_context` to check at start.
    :param siblings: how they are known; without it none is reached.
    """

    def __init__(
        self,
        dialer: Dialer,
        timers: Timers,
        settings: UpstreamSettings,
        context: ssl.SSLContext | None = None,
        siblings: Trust | None = None,
    ) -> None:
        self._dialer = dialer
        self._timers = timers
        self._settings = settings
        self._context = context
        self._siblings = siblings
        self._towards_siblings = evolve(
            settings,
            stall_seconds=settings.stall_seconds + _SIBLING_STALL,
            interim_responses=settings.interim_responses + _SIBLING_INTERIMS,
            idle_seconds=_SIBLING_IDLE_SECONDS,
        )
        self._proxy = None if settings.proxy is None else proxy_url(settings.proxy.value)
        self._lately = Lately()
        self._pools: dict[Address, Pool] = {}
        self._dialing: dict[Exchange, Deferred[None]] = {}
        self._running: set[Exchange] = set()
        self._closed = False

    def send(
        self,
        address: Address,
        outbound: Outbound,
        asker: Asker,
        *,
        interim: Callable[[Head], None] | None = None,
        head_seconds: float | None = None,
        fresh: bool = False,
    ) -> Exchange:
        """
        Send ``outbound`` to ``address``, once.

        :param asker: told when ``address`` has taken the connection: the end of what ``next_address_seconds`` is
            about, before a proxy is asked for a tunnel, before TLS, and before the request is sent; with an idle
            connection before this returns. It may cancel this exchange, or any other. Then told the answer, which
            is a subclass of :class:`~edgecache.words.errors.UpstreamFailed`, one for each phase, if there is none, or
            what the request's content failed with (the client's failure, not the upstream's).

        :param interim: told of every 1xx but 101, which is a failure; before this fires.
        :param head_seconds: instead of the setting of that name; runs from the moment that
            the request was sent, and interim responses don't prolong it.
        :param fresh: on a new connection, whatever is idle.
        :return: the exchange; cancelling it closes the connection, and nobody is told.
        :raises UpstreamBusy: ``address`` owes us as many heads as it may.
        :raises ValueError: ``outbound`` is not one request.
        """
        head = serialise(outbound, address.origin)
        pool = self._pool(address)
        most, with_content = self._settings.awaited_heads, outbound.content is not None
        # Those last as long as their clients like: half is left to the others.
        full = pool.awaited >= most or (with_content and pool.awaited_with_content >= (most + 1) // 2)
        # Not towards the owner of a key: any number of clients may wait for its one fill.
        if full and address.path is None:
            raise UpstreamBusy(address.name, 0.0)
        pool.awaited += 1
        pool.awaited_with_content += with_content
        settings = self._of(address)
        exchange = Exchange(self, address, outbound, asker, settings, self._timers.seconds, interim, head_seconds)
        self._running.add(exchange)
        connection = None if fresh else pool.take(exchange.requested_at)
        if connection is not None:
            exchange.begin(connection, head, exchange.requested_at)
            asker.connected()
        else:
            work = Deferred.fromCoroutine(self._dial(exchange, head))
            if not work.called:
                self._dialing[exchange] = work
            # Its failures end in the exchange's answer.
            _ = work.addErrback(self._broken, exchange)
        return exchange

    def ask(
        self,
        address: Address,
        outbound: Outbound,
        *,
        interim: Callable[[Head], None] | None = None,
        head_seconds: float | None = None,
        fresh: bool = False,
        connected: Callable[[], None] | None = None,
    ) -> Deferred[Response]:
        """
        :meth:`send` for who awaits the answer.

        :param connected: see :meth:`edgecache.upstream.parties.Asker.connected`.
        :return: fires with the response, or fails; cancelling closes the connection.
        """
        asking = _Asking(connected)
        try:
            asking.exchange = self.send(
                address, outbound, asking, interim=interim, head_seconds=head_seconds, fresh=fresh
            )
        except (UpstreamBusy, ValueError):
            return fail()
        return asking.answer

    def awaited(self, address: Address) -> int:
        """:return: heads that ``address`` owes us."""
        pool = self._pools.get(address)
        return 0 if pool is None else pool.awaited

    def idle(self, address: Address) -> int:
        """:return: idle connections to ``address``."""
        pool = self._pools.get(address)
        return 0 if pool is None else pool.idle

    def close(self) -> None:
        """Close idle connections; running exchanges go on, and theirs are closed after them."""
        self._closed = True
        for pool in self._pools.values():
            pool.close()

    def stop(self) -> None:
        """Like :meth:`close`, and running exchanges are cancelled: nobody will hear of their contents any more."""
        self.close()
        for exchange in list(self._running):
            exchange.broken(CancelledError())
            exchange.cancel()

    # exchange.Keeper

    def head_came(self, exchange: Exchange) -> None:
        """See :meth:`edgecache.upstream.parties.Keeper.head_came`."""
        pool = self._pools[exchange.address]
        pool.awaited -= 1
        pool.awaited_with_content -= exchange.outbound.content is not None

    def over(self, exchange: Exchange, connection: Connection | None, idle_seconds: int | None) -> None:
        """See :meth:`edgecache.upstream.parties.Keeper.over`."""
        self._running.discard(exchange)
        if connection is None:
            self._forget(exchange.address)
        elif self._closed:
            connection.close()
            self._forget(exchange.address)
        else:
            self._pool(exchange.address).put(connection, idle_seconds, self._timers.seconds())
        if self._dialing:
            work = self._dialing.pop(exchange, None)
            if work is not None:
                work.cancel()

    def untrusted(self, failure: TLSFailed) -> None:
        """See :meth:`edgecache.upstream.parties.Keeper.untrusted`."""
        if self._lately.news((failure.upstream, failure.detail), self._timers.seconds()):
            _log.warn("upstream {upstream}: TLS failed: {why}", upstream=failure.upstream, why=failure.detail)

    def _pool(self, address: Address) -> Pool:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = Pool(address, self._of(address))
        return pool

    def _of(self, address: Address) -> UpstreamSettings:
        return self._towards_siblings if address.origin.sibling else self._settings

    def _by_proxy(self, address: Address) -> ProxyURL | None:
        """:return: the way to ``address``, ``None`` where it is reached straight."""
        return None if address.path is not None or address.origin.sibling else self._proxy

    def _discard(self, connection: Connection) -> None:
        """An idle connection was lost, or has been idle long enough."""
        pool = self._pools.get(connection.address)
        if pool is not None:
            pool.discard(connection)
            self._forget(connection.address)

    def _forget(self, address: Address) -> None:
        """Names move from address to address for as long as we run."""
        pool = self._pools.get(address)
        if pool is not None and pool.unused:
            del self._pools[address]

    # connecting

    async def _dial(self, exchange: Exchange, head: bytes) -> None:
        """Connect, by the proxy if there is one, with TLS where the origin has it, and begin."""
        address, name = exchange.address, exchange.address.name
        connection = Connection(address, self._timers, self._discard)
        try:
            await self._connect(connection, exchange)
            if exchange.asker is not None:
                exchange.asker.connected()
            if exchange.over:
                # It made its own asker leave.
                connection.close()
                return
            proxy = self._by_proxy(address)
            if proxy is not None:
                await self._tunnel(connection, exchange, proxy)
            if address.origin.scheme == "https" and address.path is None:
                await self._secure(connection, exchange)
        except UpstreamFailed as failure:
            connection.close()
            self._dialing.pop(exchange, None)
            if isinstance(failure, TLSFailed):
                self.untrusted(failure)
            exchange.failed(failure)
            return
        except CancelledError:
            # The asker has gone, and knows it.
            connection.close()
            raise
        self._dialing.pop(exchange, None)
        if not connection.open:
            connection.close()
            exchange.failed(ConnectFailed(name, exchange.since(), "closed at once"))
            return
        exchange.begin(connection, head, self._timers.seconds())

    async def _connect(self, connection: Connection, exchange: Exchange) -> None:
        connecting = self._dialer.connect(lambda: connection, exchange.address)
        try:
            await self._within(self._settings.connect_seconds, connecting)
        except TimeoutError:
            detail = self._blaming("no connection in time", exchange)
            raise ConnectTimedOut(exchange.address.name, exchange.since(), detail) from None
        except OSError as error:
            detail = self._blaming(str(error), exchange)
            raise ConnectFailed(exchange.address.name, exchange.since(), detail) from error

    def _blaming(self, problem: str, exchange: Exchange) -> str:
        """:return: ``problem``, and whose it is where that is not the origin's."""
        proxy = self._by_proxy(exchange.address)
        return problem if proxy is None else f"proxy {proxy.name}: {problem}"

    async def _tunnel(self, connection: Connection, exchange: Exchange, proxy: ProxyURL) -> None:
        """Connecting goes on, from the proxy to the origin, within the same deadline."""
        name = exchange.address.name
        left = self._settings.connect_seconds - exchange.since()
        asking = tunnel(connection, exchange.address.origin, proxy, self._settings)
        try:
            await self._within(max(left, 0.0), asking)
        except TimeoutError:
            detail = self._blaming("no answer to CONNECT in time", exchange)
            raise ConnectTimedOut(name, exchange.since(), detail) from None
        except ProxyRefused as error:
            raise ConnectFailed(name, exchange.since(), self._blaming(str(error), exchange)) from error

    async def _secure(self, connection: Connection, exchange: Exchange) -> None:
        assert connection.transport is not None
        origin, name = exchange.address.origin, exchange.address.name
        try:
            context = self._context_for(origin)
        except ConfigError as error:
            # It could be read at start. One origin is out of reach, not the worker.
            raise TLSFailed(name, exchange.since(), str(error)) from error
        securing = self._dialer.secure(connection.transport, connection, context, origin.host)
        try:
            transport = await self._within(self._settings.tls_seconds, securing)
            if origin.sibling and self._siblings is not None:
                self._siblings.check(transport, origin)
            else:
                check_name(transport, origin.host)
        except TimeoutError:
            raise TLSFailed(name, exchange.since(), "no handshake in time") from None
        except ssl.CertificateError as error:
            raise CertificateWrong(name, exchange.since(), reason(error)) from error
        except OSError as error:
            raise TLSFailed(name, exchange.since(), reason(error)) from error
        connection.transport = transport

    def _context_for(self, origin: Origin) -> ssl.SSLContext:
        if origin.sibling:
            if self._siblings is None:
                raise ConfigError("[siblings]", "this node has no certificate of a fleet")
            return self._siblings.context
        if self._context is None:
            self._context = client_context(self._settings)
        return self._context

    async def _within(self, seconds: float, work: Deferred[asyncio.Transport]) -> asyncio.Transport:
        """:raises TimeoutError: ``work`` took longer, and was cancelled."""
        late = False

        def cut() -> None:
            nonlocal late
            late = True
            work.cancel()

        timer = self._timers.callLater(seconds, cut)
        try:
            return await work
        except CancelledError:
            if late:
                raise TimeoutError from None
            raise
        finally:
            if not late:
                timer.cancel()

    def _broken(self, failure: Failure, exchange: Exchange) -> None:
        """Only the asker's leaving, or an error that no phase explains; the asker must see that one."""
        self._dialing.pop(exchange, None)
        error = failure.value
        if error is not None and not isinstance(error, CancelledError):
            exchange.broken(error)


@define(eq=False, repr=False)
class _Asking:
    """An :class:`~edgecache.upstream.parties.Asker` with a Deferred."""

    _connected: Callable[[], None] | None
    exchange: Exchange | None = None
    answer: Deferred[Response] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.answer = Deferred(self._cancelled)

    def connected(self) -> None:
        if self._connected is not None:
            self._connected()

    def answered(self, response: Response) -> None:
        self.answer.callback(response)

    def failed(self, error: BaseException) -> None:
        self.answer.errback(error)

    def _cancelled(self, _answer: Deferred[Response]) -> None:
        if self.exchange is not None:
            self.exchange.cancel()
