"""
When an address of an upstream is asked less, or not at all, and when it comes back (FIELD 1, DESIGN 8).

The node process alone decides, with one :class:`Health` per address, and publishes one word for each in the
mapped page; workers read :func:`share` out of it::

    HEALTHY -> EJECTED -> PROBING -> RECOVERING -> HEALTHY
    SUSPECT: not connected in good time; the others come first until that attempt is over.
"""

from __future__ import annotations

import enum
from collections import deque
from math import inf

from attrs import define, field, frozen

from edgecache.words.config import UpstreamSettings
from edgecache.words.reasons import Outcome

HEALTHY_WORD = 0
EJECTED_WORD = 1
SUSPECT_WORD = 2
FAILING_WORD = 3
"""It would be ejected, were there another one: asked like a healthy one, but nobody should wait for it in vain."""
FIRST_MILLISECOND = 1000
"""A word from here on is the moment at which slow start began, in milliseconds of the monotonic clock."""

LEAST_SHARE = 0.05
"""With less, an address that recovers would never be asked where little is asked."""
JITTER = 0.2
"""So that what broke together is not probed together."""

SOON_SECONDS = 1.0
"""Where all fail, an address is probed so long after it was heard of last: whoever is well again is needed at once."""

ERROR_STATUSES = frozenset((502, 503, 504))
"""By these an origin says that it is not well itself."""

ONLY_ONE_LEFT = "the only one left"
NO_FAILURE = "no failure"

_BUCKETS = 10
_MOST_DOUBLINGS = 30


def share(word: int, now: float, slow_start_seconds: float) -> float:
    """
    How much of its normal share of requests an address gets.

    :param word: of the address in the page.
    :param now: monotonic seconds, of the clock that all processes of the machine share.
    :return: 0.0 (others first) to 1.0.

    >>> share(HEALTHY_WORD, 100.0, 30.0), share(EJECTED_WORD, 100.0, 30.0), share(100_000, 115.0, 30.0)
    (1.0, 0.0, 0.5)
    """
    if word >= FIRST_MILLISECOND:
        elapsed = now - word / 1000
        if elapsed >= slow_start_seconds:
            return 1.0
        return max(LEAST_SHARE, elapsed / slow_start_seconds)
    return 1.0 if word in (HEALTHY_WORD, FAILING_WORD) else 0.0


class State(enum.Enum):
    """How an address is."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """Slow to connect: asked after the others."""
    EJECTED = "ejected"
    PROBING = "probing"
    """Still out; one request of the node process finds out whether it may come back."""
    RECOVERING = "recovering"
    """Back, with a share of requests that grows (slow start)."""

    @property
    def in_service(self) -> bool:
        """Is it asked before all others are?"""
        return self not in (State.EJECTED, State.PROBING)


@frozen
class Change:
    """
    What has become of an address.

    :ivar reason: for people and the log; begins with an :class:`~edgecache.words.reasons.Outcome` where one led to it.
    :ivar outcome: that one.
    :ivar spared: it would have been ejected, were it not the last one; ``state`` is as ``before``.
    """

    before: State
    state: State
    reason: str
    outcome: Outcome | None = None
    spared: bool = False

    @property
    def ejected(self) -> bool:
        """Did it leave service?"""
        return self.before.in_service and not self.state.in_service

    @property
    def returned(self) -> bool:
        """Did it come into service?"""
        return self.state.in_service and not self.before.in_service


@define(eq=False, repr=False)
class Health:
    """
    The breaker of one address. Times are monotonic seconds; a jitter is between -1 and 1.

    :ivar since: when ``state`` began.
    :ivar until: when the node process has to look at it again (:meth:`look`), ``inf`` for never.
    :ivar spared: it would have been ejected for this, were it not the last one; until something goes well.
    :ivar spared_since: when that began.
    :ivar ask_at: when it is asked although it failed: it is the last one, and may be well again; ``inf`` for never.
    :ivar ejected_for: why it was ejected the last time.
    """

    settings: UpstreamSettings
    since: float = 0.0
    state: State = State.HEALTHY
    reason: str = NO_FAILURE
    until: float = inf
    spared: Change | None = None
    spared_since: float = 0.0
    ask_at: float = inf
    ejected_for: str = ""
    _ejections: int = 0
    # Is its next failure, when probed, one that may only show that it is not quite back?
    _returning: bool = False
    # When it was probed last, or is to be, for such news.
    _heard_at: float = -inf
    # From then on earlier ejections do not count; inf while it is out.
    _forgiven_at: float = 0.0
    _period: float = 0.0
    _recovered_at: float = -inf
    _row: int = 0
    # [number of the time slice, goods, failures], the latest at the end.
    _window: deque[list[int]] = field(factory=deque)

    @property
    def in_service(self) -> bool:
        """See :attr:`State.in_service`."""
        return self.state.in_service

    @property
    def word(self) -> int:
        """What the page says."""
        if not self.in_service:
            return EJECTED_WORD
        if self.state is State.SUSPECT:
            return SUSPECT_WORD
        if self.state is State.RECOVERING:
            return max(FIRST_MILLISECOND, int(self._recovered_at * 1000))
        return HEALTHY_WORD if self.spared is None else FAILING_WORD

    def ejections(self, now: float) -> int:
        """:return: how often it was ejected in a row, without having been well in between for long enough."""
        return 0 if now >= self._forgiven_at else self._ejections

    def tell(
        self, goods: int, outcome: Outcome | None, now: float, jitter: float, *, last: bool, times: int = 1
    ) -> Change | None:
        """
        Exchanges are over.

        :param goods: so many went well.
        :param outcome: then ``times`` failed by this (or it is slow to connect). With ``goods`` and more than one
            failure their order is not known.
        :param last: a site that uses this address has no other one in service: it is never ejected.
        :return: the change that this makes, if any. What is out of service is told nothing: exchanges that began
            before prove nothing, and only a probe brings it back.
        """
        if not self.in_service:
            return None
        if goods:
            self._row = 0
            self.spared, self.ask_at = None, inf
            self._count(now, goods, 0)
        if outcome is Outcome.SLOW_TO_CONNECT:
            return self._suspect(now)
        if outcome is None or not outcome.failure:
            return self._settled(now) if goods else None
        self._row += 1 if goods else times
        self._count(now, 0, times)
        tripped = self._tripped(outcome, now)
        if not tripped:
            return self._settled(now)
        if not last:
            return self._eject(tripped, outcome, now, jitter)
        settled = self._settled(now)
        self.ask_at = now + self.settings.eject_seconds * (1 + JITTER * jitter)
        if self.spared is not None:
            return settled
        self.spared = Change(settled.before if settled else self.state, self.state, tripped, outcome, spared=True)
        self.spared_since = now
        return self.spared

    def look(self, now: float) -> Change | None:
        """
        Time has passed.

        :return: a change to PROBING says that a probe must begin now; see :attr:`unsettled`.
        """
        if now < self.until:
            return None
        self.until = inf
        if self.state is State.EJECTED:
            why = "its node is heard of again" if self._returning else "its time is over"
            return self._become(State.PROBING, why, now)
        if self.state is State.RECOVERING:
            return self._become(State.HEALTHY, "slow start is over", now)
        return None

    @property
    def next_at(self) -> float:
        """When something has to be done without being told: :meth:`look`, and :meth:`is_to_be_asked`."""
        return min(self.until, self.ask_at)

    def is_to_be_asked(self, now: float) -> bool:
        """The last one has failed, and nobody has asked it since: it may be well again. Once in ``eject_seconds``."""
        if now < self.ask_at:
            return False
        self.ask_at = now + self.settings.eject_seconds
        return True

    @property
    def unsettled(self) -> bool:
        """Suspect, and nobody told how the attempt to connect ended: the node process has to try itself."""
        return self.state is State.SUSPECT and self.until == inf

    def probed(self, outcome: Outcome, now: float, jitter: float, *, last: bool) -> Change | None:
        """
        A probe is over.

        :param outcome: GOOD only after its head and ``restore_octets``, or all, of its content.
        """
        if self.state is not State.PROBING:
            # Of a suspect; or it was needed back at once while it was probed.
            good = not outcome.failure
            return self.tell(int(good), None if good else outcome, now, jitter, last=last)
        if outcome.failure:
            return self._eject(f"{outcome.value}, when probed", outcome, now, jitter)
        return self._return(State.RECOVERING, "a probe went well", now)

    def readmit(self, now: float) -> Change | None:
        """It is the only one left of a site: ejected or not, it is asked."""
        if self.in_service:
            return None
        change = self._return(State.HEALTHY, ONLY_ONE_LEFT, now)
        # As if it had been the last one when it failed: for what that was.
        why = self.ejected_for.partition(",")[0]
        self.spared = Change(State.HEALTHY, State.HEALTHY, why, None, spared=True)
        self.spared_since, self.ask_at = now, now + self.settings.eject_seconds
        return change

    def release(self, now: float, jitter: float, *, last: bool) -> Change | None:
        """Another one has come into service: it may leave, if it should have and nothing went well since."""
        if last or self.spared is None or not self.in_service:
            return None
        return self._eject(f"{self.spared.reason}, and another one is back", self.spared.outcome, now, jitter)

    def hasten(self, now: float) -> None:
        """All others fail too: probe it soon, however often it has failed."""
        if self.state is State.EJECTED:
            self.until = min(self.until, max(now, self._soon))

    def heard_again(self, now: float) -> None:
        """
        Whoever it belongs to is there again, as is known otherwise: probe it at once, and once more soon if that fails.

        But once in the time for which it is out: one that flaps stays out longer each time all the same.
        """
        if self.in_service:
            return
        due = max(now, self._heard_at + self._period)
        if self.state is State.EJECTED:
            due = max(due, self._soon)
            if due >= self.until:
                return
            self.until = due
        elif due > now:
            return
        # Of a probe that runs it is not known on which side of that it began.
        self._heard_at, self._returning = due, True

    @property
    def _soon(self) -> float:
        return self.since + min(SOON_SECONDS, self.settings.eject_seconds)

    def _tripped(self, outcome: Outcome, now: float) -> str:
        """:return: why it has to leave, ``""`` if it has not."""
        settings = self.settings
        if outcome.hang:
            return outcome.value
        if self._row >= settings.trip_failures:
            return f"{outcome.value}, {self._row} failures in a row"
        goods, failures = self._counts(now)
        if goods + failures >= settings.trip_requests and failures >= settings.trip_share * (goods + failures):
            return f"{outcome.value}, {failures} failures of {goods + failures} requests"
        return ""

    def _eject(self, reason: str, outcome: Outcome | None, now: float, jitter: float) -> Change:
        period = min(self._period, self.settings.eject_seconds)
        if not self._returning:
            self._ejections = self.ejections(now) + 1
            doubled = self.settings.eject_seconds * 2.0 ** min(self._ejections - 1, _MOST_DOUBLINGS)
            period = self._period = min(doubled, self.settings.eject_longest_seconds)
        self._forgiven_at = inf
        self._forget()
        self.ejected_for = reason
        change = self._become(State.EJECTED, reason, now, outcome)
        self.until = now + period * (1 + JITTER * jitter)
        return change

    def _return(self, state: State, reason: str, now: float) -> Change:
        slow_start = self.settings.slow_start_seconds
        self._forget()
        # One that flaps is never well for as long as it was out.
        self._forgiven_at = now + slow_start + self._period
        if state is State.HEALTHY or not slow_start:
            return self._become(State.HEALTHY, reason, now)
        self._recovered_at = now
        change = self._become(state, reason, now)
        self.until = now + slow_start
        return change

    def _suspect(self, now: float) -> Change | None:
        if self.state is State.SUSPECT:
            return None
        change = self._become(State.SUSPECT, Outcome.SLOW_TO_CONNECT.value, now, Outcome.SLOW_TO_CONNECT)
        self.until = now + self.settings.connect_seconds
        return change

    def _settled(self, now: float) -> Change | None:
        """Something is known of it: a suspect is none any more."""
        if self.state is not State.SUSPECT:
            return None
        ends = self._recovered_at + self.settings.slow_start_seconds
        if now < ends:
            change = self._become(State.RECOVERING, "it has been heard of", now)
            self.until = ends
            return change
        return self._become(State.HEALTHY, "it has been heard of", now)

    def _become(self, state: State, reason: str, now: float, outcome: Outcome | None = None) -> Change:
        change = Change(self.state, state, reason, outcome)
        self.state, self.reason, self.since, self.until = state, reason, now, inf
        return change

    def _forget(self) -> None:
        self._row = 0
        self.spared, self.ask_at = None, inf
        self._returning = False
        self._recovered_at = -inf
        self._window.clear()

    def _count(self, now: float, goods: int, failures: int) -> None:
        slice_ = int(now * _BUCKETS / self.settings.trip_window_seconds)
        if not self._window or self._window[-1][0] != slice_:
            self._window.append([slice_, 0, 0])
            while self._window[0][0] <= slice_ - _BUCKETS:
                self._window.popleft()
        self._window[-1][1] += goods
        self._window[-1][2] += failures

    def _counts(self, now: float) -> tuple[int, int]:
        oldest = int(now * _BUCKETS / self.settings.trip_window_seconds) - _BUCKETS
        recent = [entry for entry in self._window if entry[0] > oldest]
        return sum(entry[1] for entry in recent), sum(entry[2] for entry in recent)
