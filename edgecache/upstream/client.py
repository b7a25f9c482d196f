"""Ask one upstream address: the HTTP/1.1 client for artifacts (DESIGN 8)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Response
from edgecache.words.config import UpstreamSettings
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Counts, Timers


class Dialer(Protocol):
    """Opens connections; :class:`edgecache.upstream.dialing.LoopDialer` is the real one."""

    def connect(self, factory: Callable[[], asyncio.Protocol], address: Address) -> Deferred[asyncio.Transport]:
        """:return: a connected transport (TCP or Unix), fails with ``OSError``. Cancellable."""

    def secure(
        self, transport: asyncio.Transport, protocol: asyncio.Protocol, context: ssl.SSLContext, host: str
    ) -> Deferred[asyncio.Transport]:
        """:return: the TLS transport that takes the place of ``transport``. Cancellable."""


class Client:
    """
    One worker's client.

    :param dialer: opens connections.
    :param timers: monotonic; every deadline runs on it.
    :param settings: deadlines and caps.
    :param counts: the worker's counters.
    """

    def __init__(self, dialer: Dialer, timers: Timers, settings: UpstreamSettings, counts: Counts) -> None:
        raise NotImplementedError

    def ask(
        self,
        address: Address,
        outbound: Outbound,
        *,
        interim: Callable[[Head], None] | None = None,
        head_seconds: float | None = None,
    ) -> Deferred[Response]:
        """
        Send ``outbound`` to ``address`` once.

        :param interim: told of every 1xx but 100 and 101, before this fires.
        :param head_seconds: instead of the setting of that name.
        :return: fires with the head of the final response. Cancelling closes the connection.
            Fails with a subclass of :class:`~edgecache.words.errors.UpstreamFailed`, one for each phase.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close idle connections; running exchanges go on, and theirs are closed after them."""
        raise NotImplementedError
