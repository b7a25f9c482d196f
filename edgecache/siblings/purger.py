"""Accepting purges, and telling how far they have come (DESIGN 9)."""

# Note [a client that leaves]
#
# Whoever asked for a purge may go before it is on disk. It is in its log all the
# same, so its siblings must hear of it and the audit must name it: what follows the
# commit hangs on the commit, not on whoever waits for it.

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.rules.purging import BadPurge, PurgeAsked, parse_purge
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import Sites
from edgecache.siblings.entries import BadEntry, PurgeEntry, digest
from edgecache.siblings.pace import Pace
from edgecache.store.control import Control
from edgecache.words.config import PurgeSettings
from edgecache.words.errors import EdgeError
from edgecache.words.ports import Timers
from edgecache.words.purging import STATES, Entry, LogName, PurgeState, Spreading
from edgecache.words.reasons import PurgeMode

_log = Logger()

# Clocks are no better than this: an effective_by that has just passed is looked at again after it.
_LEAST_WAIT_SECONDS = 0.01


@define(eq=False, repr=False)
class PurgeInvalid(EdgeError):
    """:ivar problem: one sentence that names the offending entry."""

    problem: str


@define(eq=False, repr=False)
class PurgeConflict(EdgeError):
    """The id is that of another purge, so this one was not done. :ivar id: the id."""

    id: str


@define(eq=False, repr=False)
class TooManyPurges(EdgeError):
    """
    :ivar retry_after: seconds until one more is taken.
    :ivar setting: the one in ``[purge]`` that says how many.
    """

    retry_after: float
    setting: str = "per_second"


@define(eq=False, repr=False)
class NotAdmitted(EdgeError):
    """This node takes no purge now. :ivar reason: one sentence."""

    reason: str


@define(eq=False, repr=False)
class NoSites(EdgeError):
    """This node is a voter: it has no site, so it cannot tell what a purge names."""


class Spread(Protocol):
    """
    The port to the members: spreads what is in this node's log, and knows who has it.

    Everything is called on the loop, and nothing here waits.
    """

    def refuses(self) -> str | None:
        """:return: why no purge may be accepted now, in one sentence: the node is joining; else ``None``."""

    def durable(self, entry: Entry) -> None:
        """
        An own purge is on disk and published here: let the others have it.

        Called once for each, before its answer; an entry that an id sent again has found does not come again.
        """

    def state(self, entry: Entry) -> Spreading:
        """:return: how far it has come by now; ``entry`` may be of any node's log, and of any age."""

    def changed(self, purge_id: str) -> Deferred[None]:
        """
        :return: fires at the next change of what :meth:`state` says of this purge. Each call has a Deferred of its
            own; cancelling it only takes it back. That ``effective_by`` passes need not fire it.
        """

    def settled(self, log: LogName) -> float:
        """:return: the sequence up to which a log's entries are effective or complete by now; may be beyond its end."""

    def when_settled(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever :meth:`settled` may have risen for some log."""


@define(eq=False, repr=False)
class LoneNode:
    """A node without siblings is its own quorum: what it has on disk and published is complete."""

    _id: str
    _told: list[Callable[[], None]] = field(factory=list)

    def refuses(self) -> str | None:
        """:return: always ``None``: it is admitted at once."""
        return None

    def durable(self, entry: Entry) -> None:
        """There are no siblings to tell."""
        for told in self._told:
            told()

    def state(self, entry: Entry) -> Spreading:
        """:return: complete."""
        return Spreading(PurgeState.COMPLETE, applied=(self._id,))

    def changed(self, purge_id: str) -> Deferred[None]:
        """:return: never fires."""
        return Deferred()

    def settled(self, log: LogName) -> float:
        """:return: all of it."""
        return inf

    def when_settled(self, told: Callable[[], None]) -> None:
        """See :meth:`Spread.when_settled`."""
        self._told.append(told)


@frozen
class PurgeAnswer:
    """A purge and how far it has come."""

    entry: Entry
    purge: PurgeEntry
    spreading: Spreading

    @property
    def state(self) -> PurgeState:
        """How far."""
        return self.spreading.state


Told = Callable[[PurgeAnswer, bool], None]
"""Hears of a purge once it is durable, and whether it is new: else its id was sent again."""


@define(eq=False, repr=False)
class Purger:
    """
    This node's purges.

    :ivar entry_octets: of one purge as siblings are sent it, at most.
    :ivar accepted: purges taken since the start, by mode; only grows.
    """

    _control: Control
    _sites: Sites
    _settings: PurgeSettings
    _timers: Timers
    _wall: Callable[[], float]
    _new_id: Callable[[], str] = field(default=lambda: secrets.token_hex(16))
    _spread: Spread = field()
    _entry_octets: float = inf
    accepted: dict[PurgeMode, int] = field(factory=lambda: dict.fromkeys(PurgeMode, 0))
    _pace: Pace = field(init=False)
    _paces: dict[str, Pace] = field(factory=dict)

    @_spread.default
    def _lone(self) -> Spread:
        return LoneNode(self._control.name.id)

    @_pace.default
    def _unused_pace(self) -> Pace:
        return Pace(self._settings.per_second)

    def configured(self, sites: Sites, settings: PurgeSettings) -> None:
        """From now on these sites, and this pace."""
        self._sites = sites
        if settings != self._settings:
            self._settings = settings
            self._pace = self._unused_pace()
            self._paces.clear()

    @property
    def sites(self) -> Sites:
        """Those that purges are for."""
        return self._sites

    @property
    def spread(self) -> Spread:
        """The port to the members."""
        return self._spread

    async def accept(self, document: Any, by: str, told: Told = lambda answer, new: None) -> PurgeAnswer:
        """
        Do a purge, unless its id was done before.

        :param document: the JSON document of ``POST /purge``.
        :param by: name of the token, for the audit.
        :param told: called when it is durable, also when nobody waits for that any more.
        :return: once the purge is durable here and every hit sees it; :meth:`reached` waits for more.
        :raises NoSites: not here, please.
        :raises NotAdmitted: not yet, please.
        :raises TooManyPurges: later, please.
        :raises PurgeInvalid: the document cannot be understood.
        :raises PurgeConflict: its id is another purge's.
        :raises ControlFailed: it could not be written; the same id may be sent again.
        """
        if not self._sites.all:
            raise NoSites()
        self._require_admitted()
        self._slow_down(by)
        asked = parse_purge(document, self._sites, most=self._settings.selectors)
        if isinstance(asked, BadPurge):
            raise PurgeInvalid(asked.problem)
        return await self.take(asked, by, told)

    async def take(self, asked: PurgeAsked, by: str, told: Told = lambda answer, new: None) -> PurgeAnswer:
        """
        Do a purge that is understood already, whatever the pace; see :meth:`accept`.

        :raises NotAdmitted: not yet, please.
        :raises PurgeInvalid: siblings cannot be sent so much.
        :raises ControlFailed: it could not be written.
        """
        self._require_admitted()
        return await _sheltered(self._commit(asked, by, told))

    async def _commit(self, asked: PurgeAsked, by: str, told: Told) -> PurgeAnswer:
        """See Note [a client that leaves]."""
        selectors = tuple(selector.canonical for selector in asked.selectors)
        purge = PurgeEntry(selectors, asked.mode, asked.serials, self._wall(), by)
        purge_id = asked.id or self._new_id()
        digested = digest(asked)
        content = purge.pack()
        if len(content) > self._entry_octets:
            # In the log it would be in the way of everything after it.
            raise PurgeInvalid(
                f"What it selects takes {len(content)} octets, more than the {self._entry_octets} that siblings "
                "can be sent at once; send it in parts."
            )
        appended = await self._control.append(content, purge_id, purge.rows(), digested, purge.demands())
        if not appended.new and appended.entry.digest != digested:
            raise PurgeConflict(purge_id)
        if appended.new:
            self._spread.durable(appended.entry)
            self.accepted[asked.mode] += 1
            _log.info(
                "purge {id} by {by}: {mode} of {count} selectors (first: {first}), epoch {epoch}",
                id=purge_id,
                by=by,
                mode=asked.mode.name.lower(),
                count=len(selectors),
                first=_shown(asked.selectors[0]) if selectors else "none",
                epoch=appended.entry.last_epoch,
            )
        answer = self._answer(appended.entry)
        told(answer, appended.new)
        return answer

    async def reached(self, answer: PurgeAnswer, wanted: PurgeState, timeout: float) -> PurgeAnswer:
        """
        Wait until a purge has come as far as ``wanted``.

        :param timeout: seconds; 0.0 does not wait.
        :return: how far it has come by then, which may be less.
        """
        deadline = self._timers.seconds() + timeout
        while True:
            answer = evolve(answer, spreading=self._spread.state(answer.entry))
            left = deadline - self._timers.seconds()
            if STATES.index(answer.state) >= STATES.index(wanted) or left <= 0.0:
                return answer
            effective_by = answer.spreading.effective_by
            if effective_by is not None:
                left = min(left, max(_LEAST_WAIT_SECONDS, effective_by - self._wall()))
            await either(self._spread.changed(answer.entry.purge_id), left, self._timers)

    def state(self, purge_id: str) -> PurgeAnswer | None:
        """
        :return: how far a purge has come; ``None`` for one that is unknown, or so old that it is forgotten.
        :raises ControlFailed: control cannot be read.
        """
        entry = self._control.by_id(purge_id)
        return None if entry is None else self._answer(entry)

    def recent(self, most: int = 50) -> list[PurgeAnswer]:
        """
        :return: the newest purges that are here, whichever node accepted them, newest first.
        :raises ControlFailed: control cannot be read.
        """
        read = self._control.read
        answers = []
        for head in read.heads():
            for entry in read.recent(head.log, most):
                try:
                    answers.append(self._answer(entry))
                except BadEntry as error:
                    _log.warn("purge {id} was written by another release: {error}", id=entry.purge_id, error=error)
        # Each node's own clock has told when; within one log the order is certain (and sorting keeps it).
        answers.sort(key=lambda answer: answer.purge.accepted_at, reverse=True)
        return answers[:most]

    def _answer(self, entry: Entry) -> PurgeAnswer:
        return PurgeAnswer(entry, PurgeEntry.unpack(entry.content), self._spread.state(entry))

    def _require_admitted(self) -> None:
        reason = self._spread.refuses()
        if reason is not None:
            raise NotAdmitted(reason)

    def _slow_down(self, by: str) -> None:
        """:raises TooManyPurges: first for this token, so that one that is too fast takes nothing from the others."""
        now = self._timers.seconds()
        pace = self._paces.setdefault(by, Pace(self._settings.token_per_second))
        wait = pace.take(now)
        if wait > 0.0:
            raise TooManyPurges(wait, "token_per_second")
        wait = self._pace.take(now)
        if wait > 0.0:
            raise TooManyPurges(wait, "per_second")


def _sheltered(work: Coroutine[Deferred[Any], Any, PurgeAnswer]) -> Deferred[PurgeAnswer]:
    """:return: fires like ``work``, which goes on when this is cancelled."""
    answered: Deferred[PurgeAnswer] = Deferred()

    def answer(result: PurgeAnswer | Failure) -> None:
        if not answered.called:
            answered.callback(result)
        elif isinstance(result, Failure):
            _log.failure("a purge that nobody waits for any more failed", result)

    _ = Deferred.fromCoroutine(work).addBoth(answer)
    return answered


async def either(changed: Deferred[None], seconds: float, timers: Timers) -> None:
    """Wait for ``changed``, or for so long."""
    woken: Deferred[None] = Deferred()
    over = False

    def wake(result: Failure | None = None) -> None:
        if not woken.called:
            woken.callback(result)
        elif result is not None:
            result.trap(CancelledError)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def late() -> None:
        nonlocal over
        over = True
        wake()

    timer = timers.callLater(seconds, late)
    _ = changed.addBoth(wake)
    try:
        await woken
    finally:
        if not over:
            timer.cancel()
        changed.cancel()


def _shown(selector: Selector) -> str:
    return f"{selector.kind} {selector.value.decode('utf-8', 'backslashreplace')}".strip()
