"""An exchange as others see it: how far it is, who asked for it, and who takes its connection back."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from edgecache.upstream.connection import Connection
from edgecache.upstream.responses import Response
from edgecache.words.errors import TLSFailed

if TYPE_CHECKING:
    from edgecache.upstream.exchange import Exchange


class Stage(enum.Enum):
    """How far an exchange is."""

    AWAITING = "awaiting the head"
    CONTENT = "reading content"
    OVER = "over"


class Asker(Protocol):
    """Who asked. At most one of ``answered`` and ``failed`` is called, once; none after :meth:`Exchange.cancel`."""

    def connected(self) -> None:
        """See :meth:`edgecache.upstream.client.Client.send`."""

    def answered(self, response: Response) -> None:
        """The head of the final response has come, and as much of its content as came with it."""

    def failed(self, error: BaseException) -> None:
        """
        There is none.

        :param error: an :class:`~edgecache.words.errors.UpstreamFailed`; or what kept the request from being sent.
        """


class Keeper(Protocol):
    """Who started an exchange and takes the connection back."""

    def head_came(self, exchange: Exchange) -> None:
        """The exchange awaits no head any more: it has one, failed, or was cancelled. Once."""

    def untrusted(self, failure: TLSFailed) -> None:
        """Its TLS came to nothing after the handshake."""

    def over(self, exchange: Exchange, connection: Connection | None, idle_seconds: int | None) -> None:
        """It is over; ``connection`` may serve another, and is ``None`` where it must not."""
