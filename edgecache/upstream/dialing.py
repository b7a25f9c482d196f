"""Connections on the real loop: the one place where asyncio futures become Deferreds."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from edgecache.upstream.addresses import Address

T = TypeVar("T")


class Dialer(Protocol):
    """Opens connections; in tests the in-memory network does."""

    def connect(self, factory: Callable[[], asyncio.Protocol], address: Address) -> Deferred[asyncio.Transport]:
        """:return: a connected transport (TCP or Unix); fails with ``OSError``. Cancellable."""

    def secure(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext, host: str
    ) -> Deferred[asyncio.Transport]:
        """
        :return: the TLS transport that takes the place of ``transport``; fails with ``OSError``
            (``ssl.SSLError`` is one). Cancellable.
        """


class LoopDialer:
    """A :class:`Dialer` on the loop of this thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def connect(self, factory: Callable[[], asyncio.Protocol], address: Address) -> Deferred[asyncio.Transport]:
        """See :class:`Dialer`."""
        return self._deferred(self._connected(factory, address))

    def secure(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext, host: str
    ) -> Deferred[asyncio.Transport]:
        """See :class:`Dialer`."""
        return self._deferred(self._started(transport, protocol, context, host))

    async def _started(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext, host: str
    ) -> asyncio.Transport:
        secured = await self._loop.start_tls(transport, protocol, context, server_hostname=host)
        if secured is None:
            raise ConnectionResetError("closed during the handshake")
        return secured

    async def _connected(self, factory: Callable[[], asyncio.Protocol], address: Address) -> asyncio.Transport:
        if address.path is not None:
            transport, _protocol = await self._loop.create_unix_connection(factory, address.path)
        else:
            transport, _protocol = await self._loop.create_connection(factory, address.host, address.port)
        return transport

    def _deferred(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        return Deferred.fromFuture(self._loop.create_task(coroutine)).addErrback(_as_twisted)


def _as_twisted(failure: Failure) -> Failure:
    """asyncio's cancellation is a ``BaseException`` of its own; who awaits a Deferred knows only Twisted's."""
    if isinstance(failure.value, asyncio.CancelledError):
        raise CancelledError from None
    return failure
