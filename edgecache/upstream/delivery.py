"""Hands content to a sink in order, no faster than the sink lets us, and its end last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, cast

from edgecache.rules.digests import Digest
from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Roomy, Sink
from edgecache.words.errors import NotTaken, UpstreamFailed


class Delivery:
    """
    The receiving half of a response: what came, and who may have it when.

    Nothing is called while paused, and nothing after :meth:`drop`. The defaults are on the
    class: most exchanges end without ever touching them.
    """

    address: Address
    digest: Digest | None = None
    begun = 0
    _sink: Sink | None = None
    _paused = False
    _flushing = False
    _held: deque[bytes] | None = None
    # What the sink is told last; True is a complete end.
    _ending: UpstreamFailed | Literal[True] | None = None
    _when_broken: Callable[[], None] | None = None

    def attach(self, sink: Sink) -> None:
        """See :meth:`edgecache.upstream.responses.Response.attach`."""
        self._sink = sink
        if not self._paused:
            self.flush()
            self.reading(True)

    def pause(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.pause`."""
        if not self._paused:
            self._paused = True
            self.reading(False)

    def resume(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.resume`."""
        if self._paused:
            self._paused = False
            if self._sink is not None:
                self.flush()
                # The sink may have paused again meanwhile.
                if not self._paused:
                    self.reading(True)

    def when_broken(self, callback: Callable[[], None]) -> None:
        """See :meth:`edgecache.upstream.responses.Response.when_broken`."""
        self._when_broken = callback

    @property
    def whole(self) -> bytes | None:
        """See :class:`edgecache.upstream.responses.Response`."""
        if self._ending is not True or self._sink is not None:
            return None
        held = self._held
        if not held:
            return b""
        return held[0] if len(held) == 1 else b"".join(held)

    def reading(self, may: bool) -> None:
        """To be overridden: go on, or stop, taking octets from the socket."""

    @property
    def flowing(self) -> bool:
        """Is somebody there who takes content now?"""
        return self._sink is not None and not self._paused

    def hand_over(self, data: bytes) -> None:
        """The next octets of content."""
        if self._sink is not None and not self._paused and not self._held:
            try:
                self._sink.data(data)
            except Exception:
                self._untaken()
                raise
            return
        if self._held is None:
            self._held = deque()
        self._held.append(data)

    def memory(self, octets: int) -> list[memoryview]:
        """See :meth:`edgecache.upstream.responses.Roomy.room`: the sink's, if it takes the next octets at once."""
        if self._paused or self._held:
            return []
        room: Callable[[int], list[memoryview]] | None = getattr(self._sink, "room", None)
        return [] if room is None else room(octets)

    def taken(self, octets: int) -> None:
        """So many octets are in what :meth:`memory` has just given."""
        try:
            cast(Roomy, self._sink).filled(octets)
        except Exception:
            self._untaken()
            raise

    def cancel(self) -> None:
        """To be overridden: see :meth:`edgecache.upstream.responses.Response.cancel`."""

    def _untaken(self) -> None:
        """The sink has failed within a piece: what it has of it nobody knows, and no other octets may follow."""
        sink = self._sink
        self.cancel()
        if sink is not None:
            sink.fail(NotTaken(self.address.name, 0.0))

    def finish(self, ending: UpstreamFailed | Literal[True]) -> None:
        """No content comes any more, and this is how it ended."""
        self._ending = ending
        self.flush()

    def drop(self) -> None:
        """Nobody wants the rest."""
        self._sink = self._held = self._ending = self._when_broken = None
        # Also when a piece is being handed over at this moment.
        self._paused = True

    def flush(self) -> None:
        """Hand over what is held, as far as the sink lets us, then the end."""
        if self._flushing:
            return
        if self._held:
            self._flushing = True
            try:
                while self._sink is not None and not self._paused and self._held:
                    self._sink.data(self._held.popleft())
            except Exception:
                self._untaken()
                raise
            finally:
                self._flushing = False
        sink, ending = self._sink, self._ending
        if sink is None or ending is None:
            return
        if self._paused or self._held:
            if self._when_broken is not None and isinstance(ending, UpstreamFailed):
                self._when_broken()
            return
        self._sink = self._ending = self._when_broken = None
        if isinstance(ending, UpstreamFailed):
            sink.fail(ending)
        else:
            sink.end()
