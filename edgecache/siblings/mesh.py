"""
This node among its siblings: what :class:`~edgecache.rules.spreading.Member` answers is done here (DESIGN 9).

Control keeps, the transport carries, the page publishes; nothing is decided here.
"""

# Note [answers that wait]
#
# A push is answered once it is durable. Until then its call waits under a number of ours, which the member gives
# back with the answer. A caller that went away leaves a number that nobody waits for.
#
# Note [storms]
#
# A call costs milliseconds of CPU on both sides, an entry microseconds. So what is accepted while pushes are under
# way goes together, a few milliseconds later; a lone purge goes at once.

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.rules.membership import Membership
from edgecache.rules.spreading import Member
from edgecache.siblings.entries import BadEntry, PurgeEntry
from edgecache.siblings.messages import BadMessage, from_document, to_document
from edgecache.siblings.transport import Call, CallFailed, Handler, Message, Refused, Transport
from edgecache.store.control import Control, Gap
from edgecache.words import spreading
from edgecache.words.errors import ControlFailed
from edgecache.words.ports import Timer, Timers
from edgecache.words.purging import Entry, LogName, PurgeState, Row, SerialDemand, Spreading
from edgecache.words.spreading import (
    Admit,
    Adopt,
    Changed,
    Copy,
    Effect,
    Publish,
    Pull,
    Pulled,
    Push,
    Renounce,
    Send,
    SiblingState,
    Stands,
)

_log = Logger()

STORM_SECONDS = 0.005
"""So long entries wait for company while other pushes are under way."""

PUSH_OCTETS = 1 << 20
"""Content of one push; a larger entry goes alone."""

_CALLS: dict[type[spreading.Message], Call] = {Pull: Call.PULL, Push: Call.PUSH}


@define(eq=False, repr=False)
class Mesh:
    """
    Implements :class:`edgecache.siblings.purger.Spread` for a node with siblings.

    :ivar boot: CLOCK_BOOTTIME seconds.
    :ivar wall: seconds since the epoch.
    :ivar publish: puts ``fresh_until`` into the page.
    :ivar everything: rows that invalidate all that is stored, on every site.
    :ivar pull_seconds: from one round to the next.
    """

    _member: Member
    _control: Control
    _transport: Transport
    _timers: Timers
    _boot: Callable[[], float]
    _wall: Callable[[], float]
    _publish: Callable[[float], None]
    _everything: Sequence[Row]
    _pull_seconds: float
    _numbers: count[int] = field(factory=count)
    _answers: dict[int, Deferred[spreading.Message]] = field(factory=dict)
    _waiting: dict[LogName, list[tuple[int, Deferred[None]]]] = field(factory=dict)
    _calls: set[Deferred[None]] = field(factory=set)
    _pushes: int = 0
    _fresh: list[Entry] = field(factory=list)
    _pushing: Timer | None = None
    _problems: dict[str, str] = field(factory=dict)
    _timer: Timer | None = None
    _settling: list[Callable[[], None]] = field(factory=list)
    # When each last answered a call; and those that did not answer one that began after that.
    _answered: dict[str, float] = field(factory=dict)
    _unheard: set[str] = field(factory=set)
    _hearing: list[Callable[[str], None]] = field(factory=list)
    _stopped: bool = False

    @property
    def handlers(self) -> dict[Call, Handler]:
        """What answers the siblings' calls."""
        return {Call.PULL: self._asked, Call.PUSH: self._asked, Call.STATE: self._state}

    def start(self) -> None:
        """The first round; this node is fenced until one has succeeded."""
        self._tick()

    def stop(self) -> None:
        """Ask and answer nothing more, and let go of the lease."""
        self._stopped = True
        for timer in (self._timer, self._pushing):
            if timer is not None:
                timer.cancel()
        self._timer = self._pushing = None
        self._publish(spreading.FENCED)
        for call in list(self._calls):
            call.cancel()
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.cancel()

    def configured(self, membership: Membership, everything: Sequence[Row], pull_seconds: float) -> None:
        """From now on these members, sites and rounds."""
        self._everything, self._pull_seconds = everything, pull_seconds
        if membership != self._member.membership:
            self._do(self._member.configured(membership, self._boot()))

    def catch_up(self, sibling: str) -> None:
        """``sibling`` has applied what is not here yet: it was seen in a look-up of content."""
        self._do(self._member.catch_up(sibling, self._boot()))

    def when_heard_again(self, told: Callable[[str], None]) -> None:
        """:param told: called with the id of a sibling each time that it answers again after calls to it had failed."""
        self._hearing.append(told)

    def siblings(self) -> list[SiblingState]:
        """:return: what is known of each."""
        return self._member.siblings()

    @property
    def fresh_until(self) -> float:
        """The lease, CLOCK_BOOTTIME seconds."""
        return self._member.fresh_until

    # purger.Spread

    def refuses(self) -> str | None:
        """See :meth:`edgecache.siblings.purger.Spread.refuses`."""
        if self._member.accepts:
            return None
        return (
            self._member.renounced
            or "This node does not know yet what was purged before it began: no quorum of its siblings has answered."
        )

    def durable(self, entry: Entry) -> None:
        """See :meth:`edgecache.siblings.purger.Spread.durable`, and Note [storms]."""
        self._do(self._member.stored({entry.log: entry.sequence}, self._boot()))
        self._fresh.append(entry)
        if self._pushing is None and not self._stopped:
            self._pushing = self._timers.callLater(STORM_SECONDS if self._pushes else 0.0, self._push)

    def state(self, entry: Entry) -> Spreading:
        """See :meth:`edgecache.siblings.purger.Spread.state`."""
        return self._member.state(entry.log, entry.sequence, self._boot(), self._wall())

    def changed(self, purge_id: str) -> Deferred[None]:
        """See :meth:`edgecache.siblings.purger.Spread.changed`."""
        changed: Deferred[None] = Deferred()
        entry = self._control.by_id(purge_id)
        if entry is not None:
            waiting = self._waiting.setdefault(entry.log, [])
            waiting[:] = [each for each in waiting if not each[1].called]
            waiting.append((entry.sequence, changed))
        return changed

    def settled(self, log: LogName) -> float:
        """See :meth:`edgecache.siblings.purger.Spread.settled`."""
        return self._member.settled(log)

    def when_settled(self, told: Callable[[], None]) -> None:
        """See :meth:`edgecache.siblings.purger.Spread.when_settled`."""
        self._settling.append(told)

    # What happens

    def _push(self) -> None:
        self._pushing = None
        fresh, self._fresh = self._fresh, []
        together: list[Entry] = []
        octets = 0
        for entry in fresh:
            if together and octets + len(entry.content) > PUSH_OCTETS:
                self._do(self._member.appended(together, self._boot()))
                together, octets = [], 0
            together.append(entry)
            octets += len(entry.content)
        self._do(self._member.appended(together, self._boot()))

    def _tick(self) -> None:
        self._timer = self._timers.callLater(self._pull_seconds, self._tick)
        self._do(self._member.tick(self._boot(), self._wall()))

    async def _asked(self, sibling: str, document: Message) -> Message:
        try:
            message = from_document(document)
        except BadMessage as error:
            raise Refused("bad-message", error.problem) from error
        if not isinstance(message, Pull | Push):
            raise Refused("bad-message", "this is no request")
        number = next(self._numbers)
        answer: Deferred[spreading.Message] = Deferred()
        self._answers[number] = answer
        try:
            self._do(self._came(sibling, message, number))
            answered = await answer
        except CancelledError:
            raise Refused("going-down", "this node is going down") from None
        finally:
            self._answers.pop(number, None)
        return to_document(answered)

    async def _state(self, sibling: str, document: Message) -> Message:
        return to_document(self._member.stands())

    def _came(self, sibling: str, message: spreading.Message, request: int | None = None) -> list[Effect]:
        effects = self._member.came(sibling, message, self._boot(), request)
        problem = self._member.problem(sibling)
        if problem != self._problems.get(sibling, ""):
            # Once, though they speak every second.
            self._problems[sibling] = problem
            if problem:
                _log.warn("siblings: {id} is not listened to: {problem}", id=sibling, problem=problem)
            else:
                _log.info("siblings: {id} is listened to again", id=sibling)
        return effects

    # What is to be done

    def _do(self, effects: list[Effect]) -> None:
        if self._stopped:
            return
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect)
                case Copy():
                    self._kept(self._copied(effect))
                case Adopt():
                    self._kept(self._adopted(effect))
                case Admit():
                    self._kept(self._admitted())
                case Publish():
                    self._publish(effect.fresh_until)
                case Changed():
                    self._tell(effect)
                case Renounce():
                    _log.critical(
                        "siblings: this node is fenced and takes no purges: {problem}", problem=effect.problem
                    )

    def _send(self, send: Send) -> None:
        if send.answering is None:
            call = Deferred.fromCoroutine(self._call(send.to, send.message))
            self._calls.add(call)
            _ = call.addBoth(self._over, call).addErrback(_failed, "speak to a sibling")
            return
        answer = self._answers.pop(send.answering, None) if isinstance(send.answering, int) else None
        if answer is not None:
            answer.callback(send.message)

    def _over(self, result: Failure | None, call: Deferred[None]) -> Failure | None:
        self._calls.discard(call)
        return None if isinstance(result, Failure) and result.check(CancelledError) else result  # type: ignore[no-untyped-call]  # Twisted has no types here

    async def _call(self, sibling: str, message: spreading.Message) -> None:
        push = isinstance(message, Push)
        self._pushes += push
        began = self._boot()
        try:
            answer = from_document(await self._transport.call(sibling, _CALLS[type(message)], to_document(message)))
        except CallFailed as failure:
            self._member.unreachable(sibling, failure.problem)
            self._missed(sibling, began)
            return
        except BadMessage as error:
            self._member.unreachable(sibling, f"its answer is no message: {error.problem}")
            self._missed(sibling, began)
            return
        finally:
            self._pushes -= push
        if isinstance(answer, Pulled | Stands | spreading.Refused):
            self._do(self._came(sibling, answer))
            if self._member.problem(sibling):
                self._missed(sibling, began)
            else:
                self._heard(sibling)

    def _missed(self, sibling: str, began: float) -> None:
        # Calls of an outage may fail when it is over.
        if began >= self._answered.get(sibling, 0.0):
            self._unheard.add(sibling)

    def _heard(self, sibling: str) -> None:
        self._answered[sibling] = self._boot()
        if sibling in self._unheard:
            self._unheard.discard(sibling)
            for told in self._hearing:
                told(sibling)

    def _kept(self, work: Coroutine[Deferred[Any], Any, list[Effect]]) -> None:
        """Control does things in the order in which it was asked, so nothing here waits for what is before it."""
        _ = Deferred.fromCoroutine(self._keeping(work)).addErrback(_failed, "keep what siblings sent")

    async def _keeping(self, work: Coroutine[Deferred[Any], Any, list[Effect]]) -> None:
        try:
            effects = await work
        except ControlFailed as error:
            _log.error("siblings: what they sent could not be kept: {error}", error=error)
            effects = self._member.failed(self._boot())
        except Exception:  # noqa: BLE001  # a defect of ours: what is not asked for again would never be kept
            _log.failure("siblings: failed to keep what they sent")
            effects = self._member.failed(self._boot())
        self._do(effects)

    async def _copied(self, copy: Copy) -> list[Effect]:
        # All of them are asked for before the first is waited for, so that they are one commit.
        copying = [self._control.copy(entry, *self._meaning(entry)) for entry in copy.entries]
        outcomes: Any = await DeferredList(copying, consumeErrors=True)
        for succeeded, result in outcomes:
            if not succeeded:
                result.raiseException()
            if isinstance(result, Gap):
                raise ControlFailed(f"an entry does not follow number {result.head.sequence} of {result.head.log.id}")
        return self._member.stored({entry.log: entry.sequence for entry in copy.entries}, self._boot())

    def _meaning(self, entry: Entry) -> tuple[Sequence[Row], Sequence[SerialDemand]]:
        try:
            purge = PurgeEntry.unpack(entry.content)
            return purge.rows(), purge.demands()
        except BadEntry as error:
            # Better to ask for everything again than to serve what it may have named.
            _log.warn(
                "purge {id} of {node} cannot be read, everything is validated: {problem}",
                id=entry.purge_id,
                node=entry.log.id,
                problem=error.problem,
            )
            return self._everything, ()

    async def _adopted(self, adopt: Adopt) -> list[Effect]:
        if adopt.everything:
            _log.warn(
                "siblings: the purges of {nodes} are too old to be had, everything is validated",
                nodes=", ".join(sorted(log.id for log in adopt.positions)),
            )
        await self._control.adopt(adopt.positions, self._everything if adopt.everything else ())
        return self._member.stored(adopt.positions, self._boot())

    async def _admitted(self) -> list[Effect]:
        await self._control.admit()
        _log.info("siblings: this node knows what was purged before it began, and is a member from now on")
        return self._member.became_admitted(self._boot())

    def _tell(self, changed: Changed) -> None:
        waiting = self._waiting.pop(changed.log, [])
        later = [each for each in waiting if each[0] > changed.sequence]
        if later:
            self._waiting[changed.log] = later
        for sequence, told in waiting:
            if sequence <= changed.sequence and not told.called:
                told.callback(None)
        if changed.state in (PurgeState.EFFECTIVE, PurgeState.COMPLETE):
            for settling in self._settling:
                settling()


def _failed(failure: Failure, what: str) -> None:
    """A defect of ours: the next round makes up for it, whoever reads the log mends it."""
    _log.failure("siblings: failed to {what}", failure, what=what)
