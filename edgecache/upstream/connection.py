"""One connection to an upstream: the asyncio protocol, and the one timer of its life."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from math import inf
from typing import Protocol, cast

from edgecache.upstream.addresses import Address
from edgecache.words.ports import Timer, Timers

# A timer that fires this much early counts as due: clocks round.
_SLACK = 0.001
# What came in time may not have been looked at yet: this process, or its machine, may have stood still. It is by then.
_LOOK_SECONDS = 0.01


class User(Protocol):
    """Whom a connection serves at the moment: an exchange."""

    def received(self, data: bytes) -> None:
        """Octets from the upstream."""

    def ended(self) -> None:
        """The upstream has closed its side, in order."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone without that: reset, or cut by us."""

    def expired(self) -> None:
        """The time given to :meth:`Connection.expect` is over."""

    def writable(self, may: bool) -> None:
        """May more be written, or is the transport's buffer full?"""


class Connection(asyncio.Protocol):
    """
    :ivar transport: set once connected; replaced by TLS.
    :ivar user: who is told; ``None`` while connecting, while idle, and once closed.
    :ivar used: exchanges begun on it.
    :ivar usable_until: monotonic seconds until which the pool may hand it out.
    """

    __slots__ = (
        "_armed_for",
        "_deadline",
        "_discard",
        "_gone",
        "_looked",
        "_timer",
        "_timers",
        "address",
        "transport",
        "usable_until",
        "used",
        "user",
    )

    def __init__(self, address: Address, timers: Timers, discard: Callable[[Connection], None]) -> None:
        """:param discard: told when an idle connection is of no more use."""
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.user: User | None = None
        self.used = 0
        self.usable_until = inf
        self._discard = discard
        self._timers = timers
        self._timer: Timer | None = None
        self._armed_for = inf
        self._deadline = inf
        self._looked = inf  # the deadline at which octets were waiting
        self._gone = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._gone:
            # Given up while the connection was being made.
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.user is not None:
            self.user.received(data)
        else:
            # Octets that nobody asked for: whatever they are, the next exchange must not see them.
            self._of_no_use()

    def eof_received(self) -> None:
        if self.user is not None:
            self.user.ended()
        else:
            self._of_no_use()

    def connection_lost(self, exc: Exception | None) -> None:
        user = self.user
        self._finish()
        if user is not None:
            user.lost(exc)
        else:
            self._discard(self)

    def pause_writing(self) -> None:
        if self.user is not None:
            self.user.writable(False)

    def resume_writing(self) -> None:
        if self.user is not None:
            self.user.writable(True)

    # for its user

    @property
    def open(self) -> bool:
        """Connected and not closing."""
        return not self._gone and self.transport is not None and not self.transport.is_closing()

    @property
    def undisturbed(self) -> bool:
        """
        Is nothing there to be read? Octets that nobody asked for, or the end, may wait in the socket until the loop
        looks again: the next exchange would take them for its answer.
        """
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None:
            return True
        if sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return not poll.poll(0)

    @property
    def hung_up(self) -> bool:
        """Is nobody there any more who could read? Asked when a Unix socket's other side has ended in order."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return bool(poll.poll(0))

    def expect(self, deadline: float) -> None:
        """
        Call ``expired`` at ``deadline`` (monotonic seconds; ``inf`` for never) unless told otherwise.

        Cheap: the timer is not moved when the deadline moves away, it looks again when it fires.
        So a kept-alive connection sets one every few seconds, not several for each exchange.
        """
        self._deadline = deadline
        if deadline < self._armed_for:
            self._arm(deadline)

    def read(self, may: bool) -> None:
        """Go on, or stop, taking octets from the socket."""
        if self.open and self.transport is not None:
            if may:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def close(self) -> None:
        """Close now, dropping what was not sent. Nobody is told any more."""
        self._finish()
        if self.transport is not None:
            self.transport.abort()

    def _of_no_use(self) -> None:
        self.close()
        self._discard(self)

    def _finish(self) -> None:
        self._gone = True
        self.user = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_for = self._deadline = inf

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = deadline
        self._timer = self._timers.callLater(max(0.0, deadline - self._timers.seconds()), self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._armed_for = inf
        if self._deadline == inf:
            return
        if self._timers.seconds() < self._deadline - _SLACK:
            self._arm(self._deadline)
            return
        if self.user is not None and self._looked != self._deadline and not self.undisturbed:
            self._looked = self._deadline
            self._arm(self._timers.seconds() + _LOOK_SECONDS)
            return
        self._deadline = inf
        if self.user is not None:
            self.user.expired()
        else:
            self._of_no_use()
