"""One sibling asked for one head (DESIGN 9): heard of soon, then every second, or not waited for."""

# Note [silence]
#
# What is behind a sibling may be slow: it says so with 102 once a second, and then there is no reason to go to the
# same origin ourselves. A sibling of which nothing is heard is charged for that. One that does not even connect is
# left to its own deadline, as in a race (fills.quest), so that it is known whether it is slow or dead.

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from edgecache.fills.outlet import ELSEWHERE, Outlet
from edgecache.rules.lookups import REFUSED
from edgecache.rules.siblinghood import BEAT_SECONDS, MISSED_BEATS, patience_seconds
from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import ConnectionLost, HeadTimedOut, UpstreamFailed
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Timer
from edgecache.words.reasons import Outcome

PROCESSING = 102


@define(eq=False, repr=False)
class Inquiry:
    """
    :ivar interim: told of interim responses that are more than a sign of life.
    :ivar until: monotonic seconds; after that nobody waits, and the sibling is not to blame.
    :ivar round_trip: seconds, as far as it is known; a new connection tells it.
    :ivar result: fires with the response; with ``None`` when somebody else is to be asked. Cancelling ends it.
    """

    _outlet: Outlet
    _address: Address
    _outbound: Outbound
    _interim: Callable[[Head], None] | None
    _until: float
    round_trip: float = 0.0
    result: Deferred[Response | None] = field(init=False)
    _asked_at: float = 0.0
    _asking: bool = False
    _connected: bool = False
    _again: bool = False
    _over: bool = False
    _answer: Deferred[Response] | None = None
    _timer: Timer | None = None

    def __attrs_post_init__(self) -> None:
        self.result = Deferred(lambda _: self._end(cancel=True))

    @property
    def slot(self) -> int:
        """Of the sibling's address."""
        return self._address.slot

    def start(self) -> Deferred[Response | None]:
        """Ask."""
        self._outlet.counts.add(Counter.SIBLING_ASKS)
        self._ask(fresh=False)
        return self.result

    def ejected(self) -> None:
        """The node process has ejected the sibling: it is not waited for."""
        self._move()

    def _ask(self, *, fresh: bool) -> None:
        timers = self._outlet.timers
        self._asked_at = timers.seconds()
        self._connected = False
        self._silence(patience_seconds(self.round_trip))
        self._asking = True
        answer = self._outlet.client.ask(
            self._address,
            self._outbound,
            interim=self._heard,
            head_seconds=max(self._until - self._asked_at, 0.001),
            fresh=fresh,
            connected=self._has_connected,
        )
        self._answer, self._asking = answer, False
        _ = answer.addCallbacks(self._answered, self._failed)

    def _has_connected(self) -> None:
        self._connected = True
        if self._over:
            if self._answer is not None:
                self._answer.cancel()
            return
        # A pooled connection is there at once, and tells nothing.
        if not self._asking:
            self.round_trip = self._outlet.timers.seconds() - self._asked_at
        self._silence(patience_seconds(self.round_trip))

    def _heard(self, head: Head) -> None:
        if self._over:
            return
        self._silence(MISSED_BEATS * BEAT_SECONDS + patience_seconds(self.round_trip))
        if head.status != PROCESSING and self._interim is not None:
            self._interim(head)

    def _silence(self, seconds: float) -> None:
        """From now on so much of it means that the sibling is not there."""
        if self._timer is not None:
            self._timer.cancel()
        timers = self._outlet.timers
        left = self._until - timers.seconds()
        # At the end of the client's time it is not the sibling that was too slow.
        late = left <= seconds
        self._timer = timers.callLater(max(0.0, min(seconds, left)), self._silent, late)

    def _silent(self, late: bool) -> None:
        self._timer = None
        standing = self._outlet.standing
        if not self._connected:
            standing.slow_to_connect(self._address)
            self._end(cancel=False)
            self.result.callback(None)
            return
        if not late:
            self._outlet.counts.add(Counter.UPSTREAM_FAILURES)
            standing.failed(self._address, Outcome.NO_HEAD)
        self._move()

    def _answered(self, response: Response) -> None:
        if self._over:
            response.cancel()
            return
        self._end(cancel=False)
        head = response.head
        if head.status in ELSEWHERE or head.get(REFUSED) is not None:
            # It is there, and that is all that counts for its health.
            self._outlet.standing.good(self._address)
            response.cancel()
            self.result.callback(None)
        else:
            self._outlet.counts.add(Counter.SIBLING_ANSWERS)
            self.result.callback(response)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, UpstreamFailed):
            if not self._over:
                self._end(cancel=False)
                self.result.errback(failure)
            elif not isinstance(error, CancelledError):
                failure.raiseException()
            return
        idled = isinstance(error, ConnectionLost) and error.reused
        # That its time is over, its own timers have said; that an idle connection was closed says nothing.
        if error.outcome is not None and not idled and not isinstance(error, HeadTimedOut):
            self._outlet.counts.add(Counter.UPSTREAM_FAILURES)
            self._outlet.standing.failed(self._address, error.outcome)
        if self._over:
            return
        if idled and not self._again:
            self._again = True
            self._ask(fresh=True)
        else:
            self._move()

    def _move(self) -> None:
        if not self._over:
            self._end(cancel=True)
            self.result.callback(None)

    def _end(self, *, cancel: bool) -> None:
        self._over = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if cancel and self._answer is not None and not self._answer.called:
            self._answer.cancel()
