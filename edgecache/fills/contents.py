"""Content of a fill on its way: to the store, and to any number of clients."""

# Note [no wake within a read]
#
# A read may let the upstream go on, and the upstream may hand over at once what it held. Whoever is
# reading just now must not be woken by that: it would read, and write to its client, the later octets
# before those that it is about to be given. It reads again anyway until nothing comes.

# Note [content with a digest]
#
# The response itself checks it and never ends with wrong content; here it only waits: up to 1 MiB for the end,
# of more the last 64 KiB (FIELD 1, rule 7). A client that has not been sent a head by then can still be given
# another answer, so heads wait as well while nothing may be shown.

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from edgecache.rules.digests import showable
from edgecache.store.writing import ContentWriter
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import ConnectionLost, EdgeError
from edgecache.words.ports import Counts, Reader

WINDOW = 1 << 20
"""Octets that the slowest client may be behind when the store does not take the content."""

SMALL = 8 << 20
"""A fill of up to so many octets goes on although nobody waits any longer."""


@define(eq=False, repr=False)
class FillAbandoned(EdgeError):
    """Nobody waited any longer and most of it was still to come."""


@define(eq=False, repr=False)
class Filling:
    """
    Content of a fill: a sink for the network; the store and every :class:`View` are its consumers.

    A fill belongs to no client. Its pace is the store's; only where the store takes nothing does the
    slowest client set it.

    :ivar response: whence it comes; what it leaves out at the begin, the writer has already.
    :ivar length: octets in all; ``None`` until the end where the upstream announced none.
    :ivar stored: so many of the first ones are stored already: they come before anything is fetched.
    :ivar complete: everything has come, and as much as was announced.
    :ivar withheld: nothing may be shown yet, see Note [content with a digest]; ``shown`` is called once
        when that changes. It stays so if the content fails before.
    """

    _writer: ContentWriter
    response: Response
    _counts: Counts
    _done: Callable[[], None]
    _shown: Callable[[], None]
    length: int | None
    stored: int = 0
    withheld: bool = field(init=False)
    complete: bool = False
    failed: Exception | None = None
    _views: list[View] = field(factory=list)
    _paused: bool = False
    _at_last: Callable[[], None] | None = None

    def __attrs_post_init__(self) -> None:
        self.withheld = self.response.digest is not None and self._visible <= 0

    @property
    def written(self) -> int:
        """Octets that have come so far."""
        return self._writer.written

    def start(self) -> None:
        """Begin to take content. ``done`` is called once, when it is complete or has failed."""
        self._writer.attach(self)
        self.response.attach(self)

    def view(self, start: int) -> View:
        """:return: the content for one client that wants it from octet ``start``."""
        return View(self, start)

    # The network's side.

    def data(self, data: bytes) -> None:
        self._counts.add(Counter.BYTES_FETCHED, len(data))
        if self.length is not None and self._writer.written + len(data) > self.length:
            self.response.cancel()
            self.fail(ConnectionLost("upstream", 0.0, f"more than the announced {self.length} octets"))
            return
        self._writer.write(data)
        self._came()

    def begin(self, data: bytes) -> None:
        """Like :meth:`data`, of octets that nobody had to fetch: the store had them."""
        self._writer.write(data)
        self._came()

    def room(self, octets: int) -> list[memoryview]:
        return self._writer.room(octets if self.length is None else min(octets, self.length - self._writer.written))

    def filled(self, octets: int) -> None:
        self._counts.add(Counter.BYTES_FETCHED, octets)
        self._writer.filled(octets)
        self._came()

    def _came(self) -> None:
        if self.withheld and self._visible:
            self._show()
        self._wake_views()
        self._pace()

    def end(self) -> None:
        if self.length is not None and self._writer.written != self.length:
            self.fail(ConnectionLost("upstream", 0.0, f"{self._writer.written} of the announced {self.length} octets"))
            return
        self.length = self._writer.written
        self.complete = True
        if self.withheld:
            # Before the commit: what nobody reads after that is let go.
            self._show()
        self._finish()

    def fail(self, failure: Exception) -> None:
        if self.failed is None and not self.complete:
            self.failed = failure
            self._finish()

    # The store's side.

    def wake(self) -> None:
        """The writer has got rid of some, or has failed."""
        self._pace()

    # The clients' side.

    @property
    def held_from(self) -> int:
        """The first octet that is still held somewhere."""
        return self._writer.held_from

    def attach(self, view: View) -> None:
        self._views.append(view)

    def detach(self, view: View) -> None:
        if view not in self._views:
            return
        self._views.remove(view)
        if not self._views:
            self.unwanted()

    def unwanted(self) -> None:
        """Nobody reads it just now: it goes on if it is small or nearly done (FIELD 1)."""
        if self.complete or self.failed is not None:
            self._release()
        elif self._worth_finishing():
            self._pace()
        else:
            self._give_up()

    def too_slow(self) -> None:
        """It brings next to nothing: whoever reads it may go on waiting, but for nobody it is too much."""
        if not (self._views or self.complete or self.failed is not None):
            self._give_up()

    def _give_up(self) -> None:
        self.response.cancel()
        self.fail(FillAbandoned())

    def when_unread(self, at_last: Callable[[], None]) -> None:
        """It has ended: call ``at_last`` once no client reads it any longer."""
        self._at_last = at_last
        if not self._views:
            self._release()

    def _release(self) -> None:
        at_last, self._at_last = self._at_last, None
        if at_last is not None:
            at_last()

    def read(self, position: int, limit: int) -> bytes:
        """:return: what has come from ``position`` on, at most ``limit`` octets."""
        if self.failed is not None:
            return b""
        if self.response.digest is not None:
            limit = min(limit, self._visible - position)
            if limit <= 0:
                return b""
        try:
            return self._writer.read(position, limit)
        except EdgeError as missing:
            self.response.cancel()
            self.fail(missing)
            return b""

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        """See :data:`edgecache.words.ports.WriteTo`."""
        if self.failed is not None:
            return 0
        if self.response.digest is not None:
            limit = max(0, min(limit, self._visible - position))
        try:
            return self._writer.write_to(descriptor, before, position, limit)
        except EdgeError as missing:
            self.response.cancel()
            self.fail(missing)
            return 0

    def unverified(self, stop: int) -> bool:
        """May octets up to ``stop`` be shown before it is known that they are right?"""
        if self.complete or self.response.digest is None or self.length is None:
            return False
        return stop <= showable(self.length, self.length)

    def moved(self) -> None:
        """A view has read on: with a failed store that makes room."""
        if self._writer.failed is not None:
            self._pace()

    @property
    def _visible(self) -> int:
        """See Note [content with a digest]."""
        written = self._writer.written
        return written if self.complete or self.response.digest is None else showable(self.length, written)

    def _show(self) -> None:
        self.withheld = False
        self._shown()

    def _worth_finishing(self) -> bool:
        if self._writer.failed is not None:
            return False
        if self.length is None:
            return self._writer.written <= SMALL
        return self.length <= SMALL or 2 * self._writer.written > self.length

    def _pace(self) -> None:
        if self.complete or self.failed is not None:
            return
        if self._writer.failed is not None:
            nobody = 0 if self.withheld else self._writer.written
            slowest = min((view.position for view in self._views), default=nobody)
            self._writer.discard(slowest)
            full = self._writer.written - slowest > WINDOW
        else:
            full = self._writer.congested
        if full != self._paused:
            self._paused = full
            if full:
                self.response.pause()
            else:
                self.response.resume()

    def _wake_views(self) -> None:
        for view in list(self._views):
            view.wake()

    def _finish(self) -> None:
        self._writer.detach(self)
        # Decide what becomes of it before the clients hear of the end: their next request may be a hit.
        done, self._done, self._shown = self._done, _nothing, _nothing
        done()
        self._wake_views()


def _nothing() -> None:
    """It has ended, and lets go of those who wanted to know that."""


@define(eq=False, repr=False)
class View:
    """
    A :class:`~edgecache.words.ports.Source`: one client's way through a :class:`Filling`.

    :ivar position: up to where it has read.
    """

    _filling: Filling
    position: int
    _reader: Reader | None = None
    _busy: bool = False

    @property
    def length(self) -> int | None:
        return self._filling.length

    @property
    def failed(self) -> Exception | None:
        return self._filling.failed

    def read(self, position: int, limit: int) -> bytes:
        self._busy = True  # See Note [no wake within a read]
        try:
            data = self._filling.read(position, limit)
            self.position = position + len(data)
            self._filling.moved()
        finally:
            self._busy = False
        return data

    def write_to(self, descriptor: int, before: bytes, position: int, limit: int) -> int:
        """See :data:`edgecache.words.ports.WriteTo`."""
        self._busy = True  # See Note [no wake within a read]
        try:
            octets = self._filling.write_to(descriptor, before, position, limit)
            self.position = position + max(0, octets - len(before))
            self._filling.moved()
        finally:
            self._busy = False
        return octets

    def ended(self, position: int) -> bool:
        return self._filling.complete and position == self._filling.length

    def attach(self, reader: Reader) -> None:
        self._reader = reader
        self._filling.attach(self)

    def detach(self, reader: Reader) -> None:
        self._reader = None
        self._filling.detach(self)

    def wake(self) -> None:
        if self._reader is not None and not self._busy:
            self._reader.wake()
