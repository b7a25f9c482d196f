"""
A response as its asker sees it: a head, then content handed to a sink.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgecache.rules.digests import Digest
from edgecache.upstream.addresses import Address
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Head


class Sink(Protocol):
    """
    Who takes the content of one response. Exactly one of ``end`` and ``fail`` is called, last.

    ``pause`` and ``cancel`` of the response may be called from within; after ``cancel`` nothing is called.
    """

    def data(self, data: bytes) -> None:
        """The next octets of content, never empty."""

    def end(self) -> None:
        """The content is complete, by its framing. See :attr:`Response.delimited_by_close`."""

    def fail(self, failure: UpstreamFailed) -> None:
        """It broke off; what came before is good."""


class Roomy(Sink, Protocol):
    """A sink that has memory for content, so that nobody needs to copy it there."""

    def room(self, octets: int) -> list[memoryview]:
        """
        :return: memory for the next octets, at most so many; empty: they are wanted by ``data``. Valid until anything
            else is called.
        """

    def filled(self, octets: int) -> None:
        """So many octets of content are in what :meth:`room` has just given; instead of ``data``."""


class Response(Protocol):
    """
    What :meth:`edgecache.upstream.client.Client.ask` gives. It must be attached to or cancelled.

    :ivar address: whose response it is.
    :ivar head: hop-by-hop fields, those that Connection names, and framing taken off.
    :ivar length: Content-Length as announced; for HEAD and 304 that is what a GET
        would have brought, and no content follows.
    :ivar empty: no content follows the head (HEAD, 204, 304).
    :ivar delimited_by_close: nothing but the connection's end says that it is complete.
    :ivar minor: minor version of HTTP/1.
    :ivar requested_at: monotonic seconds when the request was handed in.
    :ivar digest: what the content is checked against: :meth:`Sink.end` is called only if it is right. ``None``:
        nothing checks it.
    :ivar begun: so many octets of the content came with an earlier try. Its sink has them, and gets the others.
    :ivar whole: all of the content, where it came with its head: it is complete, and nothing can break off any more.
        Whoever takes this need not attach. ``None``: it is still to come.
    """

    address: Address
    head: Head
    length: int | None
    empty: bool
    delimited_by_close: bool
    minor: int
    requested_at: float
    digest: Digest | None
    begun: int

    @property
    def whole(self) -> bytes | None: ...

    def attach(self, sink: Sink) -> None:
        """
        From now on hand the content to ``sink``; only once.

        What is here already is handed over within this call, ``end`` or ``fail`` included.
        """

    def pause(self) -> None:
        """Hand over nothing more, not even the end, and stop reading; the stall clock stands still."""

    def resume(self) -> None:
        """The contrary of :meth:`pause`. What was held is handed over within this call."""

    def when_broken(self, callback: Callable[[], None]) -> None:
        """
        Call ``callback`` whenever a failure cannot be handed over because of :meth:`pause`.

        Whoever can do something about it need not wait until the sink takes more.
        """

    def cancel(self) -> None:
        """No more interest: the connection is closed unless the content was complete. May be called at any time."""
