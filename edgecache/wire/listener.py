"""What all connections of one listener share: whom they ask, what they may, who is counted and who is late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from edgecache.words.config import LimitSettings
from edgecache.words.messages import Request
from edgecache.words.ports import Counts, Downstream, Timers


class OnDone(Protocol):
    """Told about every exchange at its end, for the access log."""

    def __call__(
        self, request: Request | None, head: bytes, octets: int, complete: bool, started: float, peer: bytes
    ) -> None:
        """
        :param request: ``None`` when what came was no request.
        :param head: of the response as sent, ``b""`` when there was none.
        :param octets: of content handed to the transport.
        :param complete: the response was sent in full.
        :param started: by the listener's ``wall`` clock.
        :param peer: the client's address, without port; ``b""`` on a Unix socket.
        """


@define(eq=False)
class Listener:
    """
    One way in: a public listener, or the Unix socket of another worker.

    :ivar answer: the route; called once per request, in the order of requests of a connection.
    :ivar soon: ``loop.call_soon``.
    :ivar secure: TLS.
    :ivar trusted: a worker of this node is at the other end: fields that begin with
        ``edgecache-`` are let in, and one client is not kept from making many connections.
    :ivar refusal: status and a short detail -> head and content of our own error responses.
    """

    answer: Callable[[Request, Downstream], None]
    limits: LimitSettings
    counters: Counts
    timers: Timers
    soon: Callable[[Callable[[], None]], Any]
    secure: bool = False
    trusted: bool = False
    on_done: OnDone | None = None
    wall: Callable[[], float] | None = None
    refusal: Callable[[int, str], tuple[bytes, bytes]] | None = None
    draining: bool = field(default=False, init=False)

    def start(self) -> None:
        """Begin the sweep over deadlines."""

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Close idle connections now and others after their response; fires when none is left.

        What is still open after ``seconds`` is cut.
        """
        return succeed(None)

    def stop(self) -> None:
        """Cut every connection and end the sweep."""
