"""
How every address of every origin is: decided here, in the node process, and nowhere else (DESIGN 8).

Workers report outcomes (:mod:`edgecache.upstream.standing`); :mod:`edgecache.rules.health` judges them; a word per
address is published in the mapped page. An address that is out is probed from here, by one request in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger, LogLevel

from edgecache.rules.health import Change, State
from edgecache.upstream.client import Client
from edgecache.upstream.probing import probe
from edgecache.upstream.roster import Member, Roster
from edgecache.words.config import UpstreamSettings
from edgecache.words.ports import Timer, Timers
from edgecache.words.reasons import Outcome

_log = Logger()


@frozen
class Condition:
    """
    How one address is, for people.

    :ivar since: monotonic seconds, as ``next_probe_at`` (``None``: none is planned).
    :ivar ejections: in a row.
    :ivar failing: why it would be ejected, were it not the last one; then ``since`` is of that.
    :ivar ejected_for: why it is out; empty while it is not.
    """

    state: State
    reason: str
    since: float
    next_probe_at: float | None
    ejections: int
    failing: str = ""
    ejected_for: str = ""


@define(eq=False, repr=False)
class Watch:
    """
    The health of all addresses of ``roster``.

    :ivar client: of the node process, for probes alone; closed at the end.
    :ivar wall: seconds since the epoch, for the log.
    :ivar publish: puts a word into a slot of the page.
    :ivar tell: notifies every worker: op and payload.
    :ivar jitter: a number between -1 and 1, another one each time.
    :ivar outcomes_seen: by origin and kind, since the start.
    :ivar ejections_seen: by origin and the kind of failure that led to it, since the start.
    """

    _roster: Roster
    _client: Client
    _timers: Timers
    _wall: Callable[[], float]
    _settings: UpstreamSettings
    _publish: Callable[[int, int], None]
    _tell: Callable[..., None]
    _jitter: Callable[[], float]
    outcomes_seen: Counter[tuple[str, Outcome]] = field(factory=Counter)
    ejections_seen: Counter[tuple[str, Outcome]] = field(factory=Counter)
    _timer: Timer | None = None

    def configured(self, settings: UpstreamSettings, client: Client) -> None:
        """From now on these settings, and ``client`` for probes; :meth:`follow` is to be called."""
        self._settings = settings
        before, self._client = self._client, client
        # Running probes go on with it.
        before.close()

    def follow(self, document: dict[str, Any]) -> None:
        """
        The names have other addresses now. To be called before workers are told: a slot with a new
        tenant has a new word by then.

        :param document: as :attr:`edgecache.upstream.resolving.Resolver.document`.
        """
        now = self._timers.seconds()
        gone, new = self._roster.follow(document, now)
        for member in gone:
            self._cancel(member)
            self._publish(member.slot, 0)
        for member in new:
            member.word = member.health.word
            self._publish(member.slot, member.word)
        for member in self._roster.members.values():
            # Not those of all addresses at once.
            member.due = {
                path: member.due.get(path, now + self._settings.probe_seconds * (1 + self._jitter()) / 2)
                for path in self._roster.paths(member)
            }
        for group in self._roster.groups:
            if group.deserted:
                # Those in service have gone from the name: who would come back first is asked again.
                first = min(group.members, key=lambda member: member.health.until)
                self._apply(first, first.health.readmit(now))
        for member in self._roster.members.values():
            self._release(member)
        self._arm()

    def outcomes(self, outcomes: list[list[Any]]) -> None:
        """
        A worker reports.

        :param outcomes: rows of slot, name of its tenant, goods, kind of the failures that followed or ``None``,
            how many, target of the last one or ``None`` (:class:`~edgecache.upstream.standing.Standing`).
        """
        for slot, name, goods, kind, times, target in outcomes:
            member = self._roster.members.get(slot)
            # What is told of an address that has gone must not be held against the next tenant of its slot.
            if member is None or member.name != name:
                continue
            if target is not None:
                member.target = target.encode("latin-1")
            self._told(member, goods, None if kind is None else Outcome(kind), times)
        self._arm()

    def heard_again(self, sibling: str) -> None:
        """That node answers control calls again: if it is not asked for contents, find out now whether it may be."""
        now = self._timers.seconds()
        for member in self._roster.of_sibling(sibling):
            member.health.heard_again(now)
        self._arm()

    def condition(self, slot: int) -> Condition | None:
        """:return: of the address in ``slot``, ``None`` when there is none."""
        member = self._roster.members.get(slot)
        if member is None:
            return None
        health = member.health
        planned = min(member.next_regular, health.ask_at)
        if health.state is State.EJECTED:
            planned = health.until
        elif health.state is State.PROBING:
            planned = health.since
        spared = health.spared
        return Condition(
            health.state,
            health.reason,
            health.since if spared is None else health.spared_since,
            None if planned == inf else planned,
            health.ejections(self._timers.seconds()),
            "" if spared is None else spared.reason,
            "" if health.in_service else health.ejected_for,
        )

    def stop(self) -> None:
        """Probe nothing more; what is told from now on changes nothing."""
        gone, _ = self._roster.follow({"origins": {}}, self._timers.seconds())
        for member in gone:
            self._cancel(member)
        self._arm()
        self._client.close()

    # judging

    def _told(self, member: Member, goods: int, outcome: Outcome | None, times: int) -> None:
        if goods:
            self.outcomes_seen[member.origin, Outcome.GOOD] += goods
        if outcome is not None:
            # Slow to connect is no failure, and reported without a number.
            self.outcomes_seen[member.origin, outcome] += max(1, times)
        # Who is last matters for failures only, and goods are many.
        last = outcome is not None and outcome.failure and self._roster.last(member)
        now, health = self._timers.seconds(), member.health
        self._apply(member, health.tell(goods, outcome, now, self._jitter(), last=last, times=times))

    def _release(self, member: Member) -> None:
        """Another address may be in service now: one that stayed only for want of it leaves."""
        if member.health.spared is not None:
            last = self._roster.last(member)
            self._apply(member, member.health.release(self._timers.seconds(), self._jitter(), last=last))

    def _apply(self, member: Member, change: Change | None) -> None:
        """Publish what has changed, say it, and see what it means for the others."""
        if member.health.word != member.word:
            member.word = member.health.word
            self._publish(member.slot, member.word)
        if change is None:
            return
        if change.state is State.EJECTED:
            if self._roster.all_fail(member):
                member.health.hasten(self._timers.seconds())
            if change.outcome is not None:
                self.ejections_seen[member.origin, change.outcome] += 1
        if change.state is not change.before:
            self._log(member, change)
        if change.ejected:
            self._tell("ejected", slots=[member.slot])
        if change.spared:
            self._spared(member, change)
        if change.returned:
            for other in self._roster.mates(member):
                self._release(other)

    def _spared(self, member: Member, change: Change) -> None:
        """The last one fails: whoever is out may be better meanwhile."""
        now = self._timers.seconds()
        for other in self._roster.mates(member):
            other.health.hasten(now)
        if now >= member.quiet_until:
            member.quiet_until = now + self._settings.eject_seconds
            _log.warn(
                "upstream {upstream} fails ({reason}) and stays in service: there is no other",
                upstream=member.name,
                reason=change.reason,
            )

    def _log(self, member: Member, change: Change) -> None:
        condition = self.condition(member.slot)
        assert condition is not None
        at = condition.next_probe_at
        _log.emit(
            LogLevel.warn if change.ejected else LogLevel.info,
            "upstream {upstream}: {before} -> {state}: {reason}; ejections in a row: {ejections}; next probe: {probe}",
            upstream=member.name,
            before=change.before.value,
            state=change.state.value,
            reason=change.reason,
            ejections=condition.ejections,
            probe="none" if at is None else _when(self._wall() + at - self._timers.seconds()),
        )

    # probing

    def _arm(self) -> None:
        """One timer, for whatever comes first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first = min((member.next_at for member in self._roster.members.values()), default=inf)
        if first < inf:
            self._timer = self._timers.callLater(max(0.0, first - self._timers.seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._timers.seconds()
        for member in list(self._roster.members.values()):
            change = member.health.look(now)
            self._apply(member, change)
            asked = member.health.is_to_be_asked(now)
            if asked or (change is not None and change.state is State.PROBING) or member.health.unsettled:
                self._probe(member, None)
            if now >= member.next_regular:
                for path in [path for path, due in member.due.items() if now >= due]:
                    member.due[path] = now + self._settings.probe_seconds
                    self._probe(member, path)
        self._arm()

    def _probe(self, member: Member, path: str | None) -> None:
        """:param path: asked regularly; ``None``: it is to be found out whether the address may be used."""
        if path in member.probes:
            return
        running = Deferred.fromCoroutine(self._probing(member, path))
        _ = running.addErrback(lambda failure: _log.failure("failed to probe {name}", failure, name=member.name))
        if not running.called:
            member.probes[path] = running

    async def _probing(self, member: Member, path: str | None) -> None:
        # Not asked at all, by a mistake of ours, is not well: it must not stay half-open for ever.
        outcome = Outcome.CONNECT_FAILED
        try:
            address, target = self._roster.question(member, path)
            outcome = await probe(self._client, address, target, self._timers, self._settings)
        except CancelledError:
            return  # the address has gone
        finally:
            member.probes.pop(path, None)
            if self._roster.members.get(member.slot) is member:
                self._probed(member, path, outcome)

    def _probed(self, member: Member, path: str | None, outcome: Outcome) -> None:
        failed = outcome.failure
        if path is not None:
            # Whoever asked: it counts like any other.
            self._told(member, int(not failed), outcome if failed else None, int(failed))
        else:
            self.outcomes_seen[member.origin, outcome] += 1
            last, now = self._roster.last(member), self._timers.seconds()
            self._apply(member, member.health.probed(outcome, now, self._jitter(), last=last))
        self._arm()

    def _cancel(self, member: Member) -> None:
        for running in list(member.probes.values()):
            running.cancel()


def _when(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
