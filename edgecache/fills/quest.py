"""
One request in search of a head: which addresses are asked, and when the next one is (DESIGN 8, FIELD 1).

The first usable head wins. Everything that another address was asked for meanwhile is cancelled, which says
nothing about that address.
"""

# Note [races]
#
# Two things are raced, and they are not the same. While an address does not even connect, nothing was sent:
# the next one is connected to as well, whatever the method, and the first connection gets the request. Once a
# request was sent, another address gets it too only if it is a GET or HEAD whose head takes unusually long
# (a hedge), within the allowance. An address that lost the race to connect is left to its own deadline, so that
# it is known whether it is slow or dead; it never gets the request.

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.fills.candidates import Candidates
from edgecache.fills.outlet import ELSEWHERE, Outlet
from edgecache.fills.racing import Attempt, Phase
from edgecache.fills.resorting import Resort
from edgecache.fills.ways import LESSER, Judge
from edgecache.rules.allowance import Ticket
from edgecache.rules.hedging import Latencies
from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import ConnectionLost, HeadTimedOut, UpstreamBusy, UpstreamFailed
from edgecache.words.messages import Head, Outbound
from edgecache.words.ports import Timer
from edgecache.words.reasons import Outcome

_SLACK = 0.001

_LEAST_PATIENCE, _LONGEST_PATIENCE = 0.05, 0.5
"""Seconds until an address that awaits too many heads is tried again; doubled each time."""


@define(eq=False, repr=False)
class Quest:
    """
    See the module.

    :ivar until: monotonic seconds: when the client's time is over. With content there is no such time.
    :ivar candidates: whom there is to ask; one at least.
    :ivar judge: what is wrong with an answer, for whatever reason there is to know it; ``None``: nothing.
    :ivar resort: somebody else who may have it; ``None``: nobody.
    """

    _outlet: Outlet
    _outbound: Outbound
    _interim: Callable[[Head], None] | None
    _until: float
    _candidates: Candidates
    _ticket: Ticket
    _latencies: Latencies
    _judge: Judge | None = None
    _resort: Resort | None = None
    # Who is told; nobody any more once that was done.
    _on_answer: Callable[[Response], None] | None = None
    _on_failure: Callable[[BaseException], None] | None = None
    _attempts: list[Attempt] = field(factory=list)
    _timer: Timer | None = None
    _spare: Response | None = None
    _failure: UpstreamFailed | None = None
    _asked_again: bool = False
    _waiting: Timer | None = None
    _patience: float = _LEAST_PATIENCE

    def __attrs_post_init__(self) -> None:
        if self._outbound.content is not None:
            self._until = inf

    def begin(self, on_answer: Callable[[Response], None], on_failure: Callable[[BaseException], None]) -> None:
        """
        Ask the first candidate; there must be one. One of both is called, maybe before this returns.

        :param on_answer: with the response, or with the origin's own 502, 503 or 504 if nothing better was to be had.
        :param on_failure: with the last :class:`~edgecache.words.errors.UpstreamFailed`, or with what the content of
            the request failed with.
        """
        self._on_answer, self._on_failure = on_answer, on_failure
        self._outlet.quests.add(self)
        # Of most quests nobody else is asked: that is looked at first.
        if self._resort is None or self._candidates.choice or not self._resorts(self._ask_first):
            self._ask_first()

    def start(self) -> Deferred[Response]:
        """:meth:`begin` for who awaits the answer. :return: cancelling it ends the quest."""
        answer: Deferred[Response] = Deferred(lambda _: self._end())
        self.begin(answer.callback, answer.errback)
        return answer

    def _ask_first(self) -> None:
        self._ask(self._candidates.first())

    def ejected(self, slot: int) -> None:
        """The address in ``slot`` is ejected: do not wait for its head any longer, if there is another choice."""
        for attempt in [one for one in self._attempts if one.address.slot == slot and one.phase is not Phase.OUTRUN]:
            if self._outbound.idempotent and self._candidates.choice:
                self._drop(attempt)
                self._timed_out(attempt)
                self._move()

    # Asking

    @property
    def _over(self) -> bool:
        return self not in self._outlet.quests

    @property
    def _late(self) -> bool:
        """Is the client's time over?"""
        return self._outlet.timers.seconds() >= self._until - _SLACK

    @property
    def _hopeful(self) -> bool:
        """May somebody who is asked still bring a head?"""
        if self._resort is not None and self._resort.asking:
            return True
        return any(attempt.phase is not Phase.OUTRUN for attempt in self._attempts)

    def _ask(self, address: Address, *, fresh: bool = False) -> None:
        outlet = self._outlet
        left = self._until - outlet.timers.seconds()
        if left < _SLACK:
            self._failure = self._failure or HeadTimedOut(address.name, 0.0)
            self._give_up()
            return
        hopeful = self._hopeful
        attempt = Attempt(self, address)
        self._attempts.append(attempt)
        if self._outbound.content is not None:
            head_seconds = self._outbound.head_seconds or outlet.settings.first_byte_seconds
        elif hopeful or self._candidates.choice:
            head_seconds = min(left, outlet.settings.head_seconds)
        else:
            head_seconds = left  # nothing comes after the last one: it may take what is left
        try:
            attempt.exchange = outlet.client.send(
                address,
                self._outbound,
                attempt,
                interim=self._interim,
                head_seconds=head_seconds,
                fresh=fresh,
            )
        except (UpstreamBusy, ValueError) as error:
            self.failed(error, attempt)
            return
        if attempt.phase is Phase.CONNECTING and not attempt.over:
            attempt.timer = outlet.timers.callLater(outlet.settings.next_address_seconds, self._slow, attempt)
            # A kept-alive connection's head deadline is all there is; connecting takes its own time.
            self._limit()

    def connected(self, attempt: Attempt) -> None:
        """``attempt`` has a connection."""
        outlet = self._outlet
        attempt.rest()
        if attempt.phase is Phase.OUTRUN:
            self._drop(attempt)
            return
        attempt.phase = Phase.ASKED
        attempt.asked_at = outlet.timers.seconds()
        outlet.counts.add(Counter.UPSTREAM_REQUESTS)
        for other in self._attempts:
            if other.phase is Phase.CONNECTING:
                other.outrun()
                # If this one disappoints, it may be asked after all.
                self._candidates.left.append(other.address)
        unasked = self._candidates.left or (self._resort is not None and self._resort.left)
        if not self._outbound.hedgeable or not unasked:
            return
        if not self._candidates.choice:
            attempt.timer = outlet.timers.callLater(outlet.settings.head_seconds, self._doubt, attempt)
            return
        p95 = self._latencies.p95(attempt.asked_at)
        if p95 is not None:
            delay = max(p95, outlet.settings.hedge_least_seconds)
            attempt.timer = outlet.timers.callLater(delay, self._hedge, attempt)

    def _slow(self, attempt: Attempt) -> None:
        """It has not connected yet: see Note [races]."""
        attempt.timer = None
        if self._candidates.choice_beside(attempt.address):
            self._outlet.standing.slow_to_connect(attempt.address)
            self._ask(self._candidates.next())

    def _hedge(self, attempt: Attempt) -> None:
        attempt.timer = None
        if self._candidates.choice_beside(attempt.address) and self._ticket.hedge():
            self._outlet.counts.add(Counter.HEDGES)
            self._ask(self._candidates.next())

    def _doubt(self, attempt: Attempt) -> None:
        """The last one in service takes as long as one that hangs: who is ejected may be better by now."""
        attempt.timer = None
        if self._candidates.left:
            # Else nobody would hear of it where another one answers, and who is ejected would be probed late.
            self._charge(attempt)
        if not self._resorts(self._go_on):
            self._go_on()

    def _resorts(self, then: Callable[[], None]) -> bool:
        """:return: somebody else is asked now, and ``then`` is called if that has nothing."""
        resort = self._resort
        if resort is None or not resort.left:
            return False
        self._limit()
        resort.ask(partial(self._resorted, then))
        return True

    def _resorted(self, then: Callable[[], None], response: Response | None) -> None:
        if self._over:
            return
        if response is not None:
            self._win(response)
        elif self._late:
            self._give_up()
        else:
            then()

    def _go_on(self) -> None:
        """The last one in service is no longer waited for alone."""
        if self._candidates.left:
            self._limit()  # it may have to wait
            self._ticket.move(self._proceed)
        elif not self._hopeful:
            self._give_up()

    # Answers

    def answered(self, response: Response, attempt: Attempt) -> None:
        """``attempt`` has a head."""
        self._leave(attempt)
        outlet, outbound = self._outlet, self._outbound
        if outbound.hedgeable:
            now = outlet.timers.seconds()
            self._latencies.record(now - attempt.asked_at, now)
        if response.head.status in ELSEWHERE:
            outlet.standing.failed(attempt.address, Outcome.ERROR_STATUS, outbound.probe_target)
            if outbound.idempotent and (self._hopeful or self._candidates.left):
                outlet.counts.add(Counter.UPSTREAM_FAILURES)
                self._put_aside(response)
                return
        verdict = None if self._judge is None else self._judge(response)
        if isinstance(verdict, UpstreamFailed):
            response.cancel()
            outlet.counts.add(Counter.UPSTREAM_FAILURES)
            outlet.standing.failed(attempt.address, verdict.outcome, outbound.probe_target)
            self._failure = verdict
            self._move()
        elif verdict is LESSER and (self._hopeful or self._candidates.left):
            self._put_aside(response)
        else:
            self._win(response)

    def _put_aside(self, response: Response) -> None:
        """Another address may have something better; it is the answer if none has."""
        spare, self._spare = self._spare, response
        if spare is not None:
            spare.cancel()
        self._move()

    def failed(self, error: BaseException, attempt: Attempt) -> None:
        """``attempt`` has come to nothing."""
        outrun = attempt.phase is Phase.OUTRUN
        self._leave(attempt)
        if not isinstance(error, UpstreamFailed):
            self._lose(error)
            return
        outlet, outbound = self._outlet, self._outbound
        idled = isinstance(error, ConnectionLost) and error.reused
        # That an idle connection was closed just now says nothing about the address (RFC 9112 §9.3.1), nor does a head
        # that did not come because there was less time than an address has.
        hurried = isinstance(error, HeadTimedOut) and not self._had_its_time(attempt)
        if error.outcome is not None and not idled and not hurried and not attempt.charged:
            outlet.standing.failed(attempt.address, error.outcome, outbound.probe_target)
        if outrun or self._over:
            return
        outlet.counts.add(Counter.UPSTREAM_FAILURES, int(not hurried))
        self._failure = error
        if error.sent and not outbound.idempotent:
            self._lose(error)
        elif (
            isinstance(error, UpstreamBusy)
            and self._candidates.left
            and not self._hopeful
            and not self._candidates.choice
        ):
            # It owes us as many heads as it may; who is ejected is no better choice than a moment's patience.
            self._candidates.left.insert(0, attempt.address)
            self._limit()
            self._waiting = outlet.timers.callLater(self._patience, self._ask_again)
            self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
        elif idled and not self._hopeful and not self._candidates.choice and not self._asked_again:
            # There is nobody else to ask: once more, on a connection of its own.
            self._asked_again = True
            self._ask(attempt.address, fresh=True)
        else:
            self._move()

    def _expired(self) -> None:
        """The client's time is over."""
        self._timer = None
        for attempt in list(self._attempts):
            if attempt.phase is Phase.OUTRUN:
                continue
            self._timed_out(attempt)
            if attempt.phase is Phase.ASKED and self._had_its_time(attempt):
                self._outlet.counts.add(Counter.UPSTREAM_FAILURES)
                self._charge(attempt)
        if self._resort is None or not self._resort.asking:
            self._give_up()  # else there is time for that, and it ends by itself

    # Going on

    def _move(self) -> None:
        """An attempt came to nothing: wait for those that run, or go on to the next address."""
        if self._hopeful:
            return
        if not self._candidates.left or self._late:
            self._give_up()
            return
        if self._candidates.choice or not self._resorts(self._go_on):
            self._go_on()

    def _ask_again(self) -> None:
        self._waiting = None
        self._ask(self._candidates.next())

    def _charge(self, attempt: Attempt) -> None:
        """It was waited for as long as any address may take: its health is told so, once."""
        if not attempt.charged:
            attempt.charged = True
            self._outlet.standing.failed(attempt.address, Outcome.NO_HEAD, self._outbound.probe_target)

    def _limit(self) -> None:
        """End it when the client's time is over, which runs without a timer while one connection's deadline is all."""
        if self._timer is None and self._until < inf:
            timers = self._outlet.timers
            self._timer = timers.callLater(max(self._until - timers.seconds(), 0.0), self._expired)

    def _proceed(self) -> None:
        self._outlet.counts.add(Counter.MOVES)
        self._ask(self._candidates.next())

    def _give_up(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            self._win(spare)
        else:
            # Without one all are out of service, and who was asked instead of them took all the time.
            self._lose(self._failure or HeadTimedOut(self._candidates.left[0].name, 0.0))

    def _win(self, response: Response) -> None:
        tell = self._on_answer
        self._end()
        if tell is not None:
            tell(response)

    def _lose(self, failure: BaseException) -> None:
        if not self._over:
            tell = self._on_failure
            self._end()
            if tell is not None:
                tell(failure)

    def _end(self) -> None:
        self._outlet.quests.discard(self)
        # They know us, too.
        self._on_answer = self._on_failure = None
        for timer in (self._timer, self._waiting):
            if timer is not None:
                timer.cancel()
        self._timer = self._waiting = None
        if self._resort is not None:
            self._resort.cancel()
        self._ticket.stay()
        self._ticket.settle()
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.cancel()
        for attempt in list(self._attempts):
            if attempt.phase is Phase.CONNECTING:
                attempt.outrun()
            elif attempt.phase is Phase.ASKED:
                self._drop(attempt)

    def _drop(self, attempt: Attempt) -> None:
        exchange = attempt.exchange
        self._leave(attempt)
        if exchange is not None:
            exchange.cancel()

    def _leave(self, attempt: Attempt) -> None:
        attempt.end()
        self._attempts.remove(attempt)

    def _timed_out(self, attempt: Attempt) -> None:
        self._failure = HeadTimedOut(attempt.address.name, attempt.waited(self._outlet.timers.seconds()))

    def _had_its_time(self, attempt: Attempt) -> bool:
        """Has it been waited for as long as any address may take?"""
        return attempt.waited(self._outlet.timers.seconds()) >= self._outlet.settings.head_seconds - _SLACK
