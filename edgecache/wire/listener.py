"""What all connections of one listener share: whom they ask, what they may, who is counted and who is late."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from itertools import islice, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from attrs import Factory, define, field
from twisted.internet.defer import Deferred, succeed

from edgecache.wire.downloads import DownloadEvents
from edgecache.wire.fieldlines import Section
from edgecache.wire.memo import Memo
from edgecache.wire.refusals import refusal
from edgecache.wire.requests import Framed
from edgecache.wire.sampling import Sampling
from edgecache.wire.sending import TURN
from edgecache.wire.turns import Turns
from edgecache.words.config import LimitSettings
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.ports import Counts, Downstream, Timer, Timers

if TYPE_CHECKING:
    from edgecache.wire.connection import Connection

SWEEP_SECONDS = 1.0
"""Deadlines are kept to within so much; a timer per request would cost more than the request."""


HANDSHAKES = 4
"""Steps of TLS handshakes in one turn of the loop: one with a signature takes up to a millisecond."""

HEADS = 8
"""
Octets that are not just one request, looked at in one turn of the loop: parts of heads, heads with content, several at
once. What is wrong with one takes up to a tenth of a millisecond to find and say.
"""

CHECKED = 50
"""Connections looked at in one turn of the loop: most cost next to nothing, but all may be over a deadline at once."""

ROOM = 32
"""When there are as many connections as may be, this part of them is pushed out, if it waits for nothing of ours."""

HANDSHAKE_SECONDS = 2.0
"""
Whoever means it has done its handshake by then. One that has not goes before those that have; a younger one after them:
else those who hold idle connections would have each handshake pushed out by the next.
"""

CROWD = 250
"""When so many connections have gone, and half of all, what they took is given back."""


class OnDone(Protocol):
    """Told about every exchange at its end, for the access log."""

    def __call__(
        self, request: Request | None, head: bytes, octets: int, complete: bool, started: float, peer: bytes, /
    ) -> None:
        """
        :param request: ``None`` when what came was no request.
        :param head: of the response as the route gave it, ``b""`` when there was none.
        :param octets: of content handed to the transport.
        :param complete: the response was handed to the transport in full.
        :param started: by the listener's ``wall`` clock.
        :param peer: the client's address, without port; ``b""`` on a Unix socket.
        """


class Swept(Protocol):
    """A connection, as far as its listener knows it."""

    peer: bytes

    def check(self, now: float) -> None:
        """Keep the deadlines."""

    def shut(self) -> None:
        """The next response is the last one; close now if idle for as long as :attr:`Listener.idle_seconds` says."""

    def abort(self) -> None:
        """Close at once."""

    @property
    def waits_since(self) -> float | None:
        """:return: since when it waits for a request, monotonic seconds; ``None``: it has something to do."""

    def push_out(self) -> None:
        """Close at once; it counts no more when this returns."""


class Shaking(Protocol):
    """A connection in its TLS handshake."""

    def push_out(self) -> None:
        """Close at once; it counts no more when this returns."""


@define(eq=False, repr=False)
class Listener:
    """
    One way in: a public listener, that of siblings' look-ups, or the Unix socket of another worker.

    :ivar answer: the route; called once per request, in the order of requests of a connection.
    :ivar soon: ``loop.call_soon``.
    :ivar secure: TLS.
    :ivar trusted: a worker of this node, or a sibling, is at the other end: fields that begin with
        ``edgecache-`` are let in, and one client may make any number of connections.
    :ivar downloads: told about every exchange at its end, where downloads are counted.
    :ivar refusal: status and a short detail -> head and content of our own error responses.
    :ivar passes: is a request's content for an upstream? Otherwise its head alone is the route's business.
    :ivar make: connections that are more than a client's: listener, peer, what to call when it is closed.
    :ivar unshaken: told of a TLS handshake that failed: the client's address, and why if it did not just leave.
    :ivar octets: of large contents, in one turn; may be shared with other listeners.
    :ivar handshakes: of TLS, as ``octets``.
    :ivar heads: whatever is not one whole request without content, as ``octets``.
    :ivar give_back: gives free memory back to the system; takes some milliseconds.
    :ivar admitted: connections let in and not yet closed, those in their TLS handshake included.
    :ivar shaking: those in their TLS handshake, the oldest first, and since when: monotonic seconds.
    :ivar now: monotonic seconds at the last sweep: good enough for deadlines, and free.
    :ivar idle_seconds: how long a connection may wait for its next request.
    :ivar sampling: the next request is one that is looked at.
    :ivar cut: connections that were open when the time of a drain was over.
    """

    answer: Callable[[Request, Downstream], None]
    limits: LimitSettings
    counters: Counts
    timers: Timers
    soon: Callable[[Callable[[], None]], Any]
    secure: bool = False
    trusted: bool = False
    on_done: OnDone | None = None
    downloads: DownloadEvents | None = None
    wall: Callable[[], float] = time.time
    refusal: Callable[[int, str], tuple[bytes, bytes]] = refusal
    passes: Callable[[Request], bool] = lambda request: True
    make: Callable[[Listener, bytes, Callable[[], None]], Connection] | None = None
    unshaken: Callable[[bytes, ssl.SSLError | None], None] = lambda peer, problem: None
    give_back: Callable[[], None] = lambda: None
    octets: Turns = Factory(lambda self: Turns(self.soon, TURN), takes_self=True)
    handshakes: Turns = Factory(lambda self: Turns(self.soon, HANDSHAKES), takes_self=True)
    heads: Turns = Factory(lambda self: Turns(self.soon, HEADS), takes_self=True)
    memo: Memo[Framed] = field(factory=Memo, init=False)
    sections: Memo[Section] = field(factory=Memo, init=False)
    now: float = field(default=0.0, init=False)
    draining: bool = field(default=False, init=False)
    idle_seconds: float = field(init=False)
    sampling: Sampling | None = field(default=None, init=False)
    cut: int = field(default=0, init=False)
    _most: int = field(default=0, init=False)
    _connections: dict[Swept, None] = field(factory=dict, init=False)
    """In the order in which they were made: their own times are as coarse as the sweep."""
    admitted: int = field(default=0, init=False)
    shaking: dict[Shaking, float] = field(factory=dict, init=False)
    _of_client: dict[bytes, int] = field(factory=dict, init=False)
    _nothing_waits: bool = field(default=False, init=False)
    _timer: Timer | None = field(default=None, init=False)
    _drained: Deferred[None] | None = field(default=None, init=False)
    _deadline: float = field(default=0.0, init=False)

    @idle_seconds.default
    def _as_configured(self) -> float:
        return self.limits.idle_seconds

    def start(self) -> None:
        """Begin the sweep over deadlines."""
        self.now = self.timers.seconds()
        self._timer = self.timers.callLater(SWEEP_SECONDS, self._sweep)

    def admit(self, client: bytes) -> bool:
        """
        May this client have one more connection? Then it is counted until :meth:`release`.

        :param client: what counts as one client, see :func:`edgecache.wire.listening.client_of`.
        """
        if self.draining:
            return False
        if self.admitted >= self.limits.connections:
            self._make_room()
            if self.admitted >= self.limits.connections:
                return False
        if not self.trusted:
            count = self._of_client.get(client, 0)
            if count >= self.limits.connections_per_client:
                return False
            self._of_client[client] = count + 1
        self.admitted += 1
        return True

    def _make_room(self) -> None:
        """
        Whoever holds connections for nothing must not lock others out: handshakes that take long have to go, else those
        that wait for a request for the longest time, else the oldest handshakes. So many at once that it is not done
        for each new one.
        """
        if self._nothing_waits:
            return
        some, late = max(1, self.limits.connections // ROOM), self.now - HANDSHAKE_SECONDS
        going: list[Shaking] = [
            each for each, _ in islice(takewhile(lambda one: one[1] <= late, self.shaking.items()), some)
        ]
        if not going:
            waiting = [(since, each) for each in self._connections if (since := each.waits_since) is not None]
            waiting.sort(key=itemgetter(0))
            going = [each for _, each in waiting[:some]] or list(islice(self.shaking, some))
        # All have something to do: who comes until the next sweep need not be the reason for another search.
        self._nothing_waits = not going
        for each in going:
            self.shaking.pop(each, None)
            each.push_out()

    def release(self, client: bytes) -> None:
        """The connection that was admitted is closed, or was never made."""
        self.admitted -= 1
        if not self.trusted:
            count = self._of_client.pop(client) - 1
            if count:
                self._of_client[client] = count
        self._perhaps_drained()

    def made(self, connection: Swept) -> None:
        """``connection`` is open (and its TLS handshake done)."""
        self._connections[connection] = None
        self.counters.add(Counter.CONNECTIONS)
        self.counters.add(Counter.CONNECTIONS_OPEN)
        if self.draining:
            connection.shut()

    def lost(self, connection: Swept) -> None:
        """``connection`` is closed."""
        self._connections.pop(connection, None)
        self.counters.add(Counter.CONNECTIONS_OPEN, -1)
        self._perhaps_drained()

    def drain(self, seconds: float, quiet_seconds: float = 0.0) -> Deferred[None]:
        """
        Close idle connections, and others after their response; fires when none is left.

        What is still open after ``seconds`` is cut. Call it once, after the servers are closed.

        :param quiet_seconds: one that is idle for less is not closed yet: its client's next request may be on its
            way, and would be lost.
        """
        self.draining = True
        self.idle_seconds = min(quiet_seconds, self.idle_seconds)
        self.now = self.timers.seconds()
        self._deadline = self.now + seconds
        drained: Deferred[None] = Deferred()
        self._drained = drained
        for connection in list(self._connections):
            connection.shut()
        self._perhaps_drained()
        return drained

    def _perhaps_drained(self) -> None:
        """Those in their TLS handshake, admitted and not made yet, still get an answer."""
        if self._drained is not None and not self._connections and not self.admitted:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def stop(self) -> Deferred[None]:
        """Cut every connection and end the sweep; fires when none is left."""
        gone = self.drain(0.0) if self._drained is None else succeed(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._connections):
            connection.abort()
        return gone

    def _sweep(self) -> None:
        self.now = now = self.timers.seconds()
        self._nothing_waits = False
        self._timer = self.timers.callLater(SWEEP_SECONDS, self._sweep)
        self._check(list(self._connections), 0)
        self._most = max(self._most, self.admitted)
        if self._most - self.admitted >= max(CROWD, self._most / 2):
            self._most = self.admitted
            self.give_back()
        if self.draining and now >= self._deadline:
            self.cut = self.cut or len(self._connections)
            for connection in list(self._connections):
                connection.abort()

    def _check(self, connections: list[Swept], start: int) -> None:
        """From ``start`` on, some in each turn."""
        stop = start + CHECKED
        for connection in connections[start:stop]:
            if connection in self._connections:
                connection.check(self.now)
        if stop < len(connections):
            self.soon(lambda: self._check(connections, stop))
