"""A content whose beginning is stored: first that, then the rest as it comes (RFC 9111 §3.4)."""

# Note [who waits]
#
# While the beginning is read nobody listens to the rest, and its upstream waits as for a slow client. A disk reads
# faster than networks bring; and whoever asked has the first octet at once.

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from edgecache.fills.continuing import Continuing
from edgecache.rules.resuming import Broken
from edgecache.store.sources import StoredSource
from edgecache.upstream.responses import Sink
from edgecache.words.errors import EdgeError, NotTaken
from edgecache.words.ports import Timers

AT_ONCE = 1 << 20
"""Octets of the beginning that are handed over in one turn of the loop."""

PIECE = 256 << 10
"""Octets that are read of it at a time."""


class Beginner(Sink, Protocol):
    """A sink that tells what was here from what is fetched."""

    def begin(self, data: bytes) -> None:
        """Like ``data``, of octets that were stored already."""

    def fail(self, failure: Exception) -> None:
        """Also what is stored may turn out to be damaged."""


class Completing:
    """
    A :class:`~edgecache.upstream.responses.Response` put together from what is stored and its rest.

    :ivar begun: 0: its sink gets all of it.
    """

    begun = 0
    whole: bytes | None = None

    def __init__(self, rest: Continuing, source: StoredSource, beginning: Broken, timers: Timers) -> None:
        """
        :param rest: goes on from ``beginning``, whose check it has; nobody has attached to it.
        :param source: has at least these octets; it is ours.
        """
        self.address = rest.address
        self.head = rest.head
        self.length = rest.length
        self.empty = rest.empty
        self.delimited_by_close = rest.delimited_by_close
        self.minor = rest.minor
        self.requested_at = rest.requested_at
        self.digest = rest.digest
        self._rest = rest
        self._source = source
        self._beginning = beginning
        self._timers = timers
        self._sink: Beginner | None = None
        self._position = 0
        self._paused = self._busy = self._waiting = self._resting = False

    # What its sink asks of any response

    def attach(self, sink: Sink) -> None:
        """See :meth:`edgecache.upstream.responses.Response.attach`. It has to be a :class:`Beginner`."""
        self._sink = cast(Beginner, sink)
        self._source.attach(self)
        self._go_on()

    def pause(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.pause`."""
        self._paused = True
        if self._resting:
            self._rest.pause()

    def resume(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.resume`."""
        self._paused = False
        if self._resting:
            self._rest.resume()
        else:
            self._go_on()

    def when_broken(self, callback: Callable[[], None]) -> None:
        """See :meth:`edgecache.upstream.responses.Response.when_broken`."""
        self._rest.when_broken(callback)

    def cancel(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.cancel`."""
        self._let_go()
        self._rest.cancel()

    # What is asked of one that goes on elsewhere

    @property
    def broken(self) -> Broken | None:
        """See :attr:`edgecache.fills.continuing.Continuing.broken`."""
        return self._rest.broken if self._resting else None

    @property
    def doubtful(self) -> bool:
        """Has the rest shown that both are not of one content? Then no next try should go on with the beginning."""
        return self._resting and self._rest.broken is None

    def when_slow(self, callback: Callable[[], None]) -> None:
        """See :meth:`edgecache.fills.continuing.Continuing.when_slow`."""
        self._rest.when_slow(callback)

    # The beginning

    def wake(self) -> None:
        """A thread has read more of it."""
        self._go_on()

    def _turn(self) -> None:
        self._waiting = False
        self._go_on()

    def _go_on(self) -> None:
        """Hand over as much as one turn may take."""
        if self._busy or self._waiting or self._resting:
            return
        self._busy = True
        try:
            left = AT_ONCE
            while self._sink is not None and not self._paused and self._position < self._beginning.received:
                if left <= 0:
                    self._waiting = True
                    self._timers.callLater(0, self._turn)
                    return
                data = self._source.read(self._position, min(PIECE, self._beginning.received - self._position))
                if not data:
                    if self._source.failed is not None:
                        self._fail(self._source.failed)
                    return
                left -= len(data)
                self._position += len(data)
                if self._beginning.check is not None:
                    self._beginning.check.update(data)
                self._sink.begin(data)
        except Exception:
            # No memory for a piece: what the sink has of it nobody knows, and nobody would ever wake us again.
            if self._sink is not None:
                self._fail(NotTaken(self.address.name, 0.0))
            raise
        finally:
            self._busy = False
        if self._sink is not None and self._position == self._beginning.received:
            self._begin_rest(self._sink)

    def _begin_rest(self, sink: Beginner) -> None:
        self._let_go()
        self._resting = True
        if self._paused:
            self._rest.pause()
        self._rest.attach(sink)

    def _fail(self, failure: Exception) -> None:
        sink = self._sink
        self.cancel()
        assert sink is not None and isinstance(failure, EdgeError)
        sink.fail(failure)

    def _let_go(self) -> None:
        if self._sink is not None:
            self._sink = None
            self._source.detach(self)
        self._source.close()
