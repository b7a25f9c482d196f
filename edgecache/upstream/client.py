"""Ask one upstream address: the HTTP/1.1 client for artifacts (DESIGN 8)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.python.failure import Failure

from edgecache.upstream.addresses import Address
from edgecache.upstream.connection import Connection
from edgecache.upstream.dialing import Dialer
from edgecache.upstream.exchange import Exchange
from edgecache.upstream.pool import Pool
from edgecache.upstream.requests import serialise
from edgecache.upstream.responses import Response
from edgecache.upstream.tls import check_name, client_context
from edgecache.words.config import UpstreamSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import ConnectFailed, ConnectTimedOut, TLSFailed, UpstreamBusy, UpstreamFailed
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Counts, Timers


class Client:
    """
    One worker's client.

    :param dialer: opens connections.
    :param timers: monotonic; every deadline runs on it.
    :param settings: deadlines and caps.
    :param counts: the worker's counters.
    :param context: for ``https`` origins; made from ``settings.ca`` when first needed
        (it takes megabytes), so call :func:`~edgecache.upstream.tls.client_context` to check at start.
    """

    def __init__(
        self,
        dialer: Dialer,
        timers: Timers,
        settings: UpstreamSettings,
        counts: Counts,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._dialer = dialer
        self._timers = timers
        self._settings = settings
        self._counts = counts
        self._context = context
        self._pool = Pool(timers, settings)
        self._awaited: dict[Address, int] = {}
        self._dialing: dict[Exchange, Deferred[None]] = {}
        self._closed = False

    def ask(
        self,
        address: Address,
        outbound: Outbound,
        *,
        interim: Callable[[Head], None] | None = None,
        head_seconds: float | None = None,
    ) -> Deferred[Response]:
        """
        Send ``outbound`` to ``address``, once.

        :param interim: told of every 1xx but 101, which is a failure; before this fires.
        :param head_seconds: instead of the setting of that name; runs from the moment that
            the request was sent, and interim responses don't prolong it.
        :return: fires with the head of the final response. Cancelling closes the connection.
            Fails with a subclass of :class:`~edgecache.words.errors.UpstreamFailed`, one for each
            phase, or with what the request's content failed with (the client's failure, not the upstream's),
            or with ``ValueError`` for an ``outbound`` that is not one request.
        """
        try:
            head = serialise(outbound, address.origin)
        except ValueError:
            return fail()
        awaited = self._awaited.get(address, 0)
        if awaited >= self._settings.awaited_heads:
            return fail(UpstreamBusy(address.name, 0.0))
        self._awaited[address] = awaited + 1
        self._counts.add(Counter.UPSTREAM_REQUESTS if address.path is None else Counter.OWNER_HOPS)
        exchange = Exchange(
            self,
            address,
            outbound,
            self._settings,
            self._timers.seconds,
            interim=interim,
            head_seconds=head_seconds,
        )
        # Kept here: a response that is complete at once is over before begin() returns.
        answer = exchange.answer
        connection = self._pool.take(address)
        if connection is not None:
            exchange.begin(connection, head)
        else:
            work = Deferred.fromCoroutine(self._dial(exchange, head))
            if not work.called:
                self._dialing[exchange] = work
            # Its failures end in the exchange's answer.
            _ = work.addErrback(self._broken, exchange)
        return answer

    def awaited(self, address: Address) -> int:
        """:return: heads that ``address`` owes us."""
        return self._awaited.get(address, 0)

    def idle(self, address: Address) -> int:
        """:return: idle connections to ``address``."""
        return self._pool.count(address)

    def close(self) -> None:
        """Close idle connections; running exchanges go on, and theirs are closed after them."""
        self._closed = True
        self._pool.close()

    # exchange.Keeper

    def head_came(self, exchange: Exchange) -> None:
        """See :meth:`edgecache.upstream.exchange.Keeper.head_came`."""
        left = self._awaited[exchange.address] - 1
        if left:
            self._awaited[exchange.address] = left
        else:
            del self._awaited[exchange.address]

    def over(self, exchange: Exchange, connection: Connection | None, *, idle_seconds: int | None) -> None:
        """See :meth:`edgecache.upstream.exchange.Keeper.over`."""
        if exchange.address.path is None:
            if exchange.octets:
                self._counts.add(Counter.BYTES_FETCHED, exchange.octets)
            if exchange.failure is not None:
                self._counts.add(Counter.UPSTREAM_FAILURES)
        if connection is not None:
            if self._closed:
                connection.close()
            else:
                self._pool.put(connection, idle_seconds)
        work = self._dialing.pop(exchange, None)
        if work is not None:
            work.cancel()

    # connecting

    async def _dial(self, exchange: Exchange, head: bytes) -> None:
        """Connect, with TLS where the origin has it, and begin."""
        address, name = exchange.address, exchange.address.name
        connection = Connection(address, self._timers, self._pool.discard)
        try:
            await self._connect(connection, exchange)
            if address.origin.scheme == "https" and address.path is None:
                await self._secure(connection, exchange)
        except UpstreamFailed as failure:
            connection.close()
            self._dialing.pop(exchange, None)
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
        exchange.begin(connection, head)

    async def _connect(self, connection: Connection, exchange: Exchange) -> None:
        connecting = self._dialer.connect(lambda: connection, exchange.address)
        try:
            await self._within(self._settings.connect_seconds, connecting)
        except TimeoutError:
            raise ConnectTimedOut(exchange.address.name, exchange.since()) from None
        except OSError as error:
            raise ConnectFailed(exchange.address.name, exchange.since(), str(error)) from error

    async def _secure(self, connection: Connection, exchange: Exchange) -> None:
        if self._context is None:
            self._context = client_context(self._settings.ca)
        assert connection.transport is not None
        host = exchange.address.origin.host
        securing = self._dialer.secure(connection.transport, connection, self._context, host)
        try:
            transport = await self._within(self._settings.tls_seconds, securing)
            check_name(transport, host)
        except TimeoutError:
            raise TLSFailed(exchange.address.name, exchange.since(), "no handshake in time") from None
        except OSError as error:
            raise TLSFailed(exchange.address.name, exchange.since(), str(error)) from error
        connection.transport = transport

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
