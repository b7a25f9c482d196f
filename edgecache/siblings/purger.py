"""
Accepting purges, and telling how far they have come (DESIGN 9).

A lone node is its own quorum: what it has on disk and published is complete.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.logger import Logger

from edgecache.rules.purging import BadPurge, parse_purge
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import Sites
from edgecache.siblings.entries import BadEntry, PurgeEntry, digest
from edgecache.siblings.pace import Pace
from edgecache.store.control import Control
from edgecache.words.config import PurgeSettings
from edgecache.words.errors import EdgeError
from edgecache.words.ports import Timers
from edgecache.words.purging import Entry, PurgeState
from edgecache.words.reasons import PurgeMode

_log = Logger()


@define(eq=False)
class PurgeInvalid(EdgeError):
    """:ivar problem: one sentence that names the offending entry."""

    problem: str


@define(eq=False)
class PurgeConflict(EdgeError):
    """The id is that of another purge, so this one was not done. :ivar id: the id."""

    id: str


@define(eq=False)
class TooManyPurges(EdgeError):
    """:ivar retry_after: seconds until one more is taken."""

    retry_after: float


@frozen
class PurgeAnswer:
    """
    A purge and how far it has come.

    :ivar applied: ids of the nodes that have applied it.
    :ivar pending: ids of the members that have not said so.
    :ivar effective_by: wall time from which on it holds everywhere, ``None`` where it already does.
    """

    entry: Entry
    purge: PurgeEntry
    state: PurgeState
    applied: tuple[str, ...]
    pending: tuple[str, ...] = ()
    effective_by: float | None = None


@define(eq=False)
class Purger:
    """
    This node's purges.

    :ivar accepted: purges taken since the start, by mode; only grows.
    """

    _control: Control
    _sites: Sites
    _settings: PurgeSettings
    _timers: Timers
    _wall: Callable[[], float]
    _new_id: Callable[[], str] = field(default=lambda: secrets.token_hex(16))
    accepted: dict[PurgeMode, int] = field(factory=lambda: dict.fromkeys(PurgeMode, 0))
    _pace: Pace = field(init=False)

    @_pace.default
    def _unused_pace(self) -> Pace:
        return Pace(self._settings.per_second)

    async def accept(self, document: Any, by: str) -> PurgeAnswer:
        """
        Do a purge, unless its id was done before.

        :param document: the JSON document of ``POST /purge``.
        :param by: name of the token, for the audit.
        :return: once the purge is durable here and every hit sees it.
        :raises PurgeInvalid: the document cannot be understood.
        :raises PurgeConflict: its id is another purge's.
        :raises TooManyPurges: later, please.
        :raises ControlFailed: it could not be written; the same id may be sent again.
        """
        wait = self._pace.take(self._timers.seconds())
        if wait > 0.0:
            raise TooManyPurges(wait)
        asked = parse_purge(document, self._sites, most=self._settings.selectors)
        if isinstance(asked, BadPurge):
            raise PurgeInvalid(asked.problem)
        selectors = tuple(selector.canonical for selector in asked.selectors)
        purge = PurgeEntry(selectors, asked.mode, asked.serials, self._wall(), by)
        purge_id = asked.id or self._new_id()
        told = digest(asked)
        appended = await self._control.append(purge.pack(), purge_id, purge.rows(), told)
        if not appended.new:
            if appended.entry.digest != told:
                raise PurgeConflict(purge_id)
            return self._answer(appended.entry)
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
        return self._answer(appended.entry)

    def state(self, purge_id: str) -> PurgeAnswer | None:
        """
        :return: how far a purge has come; ``None`` for one that is unknown, or so old that it is forgotten.
        :raises ControlFailed: control cannot be read.
        """
        entry = self._control.by_id(purge_id)
        return None if entry is None else self._answer(entry)

    def recent(self, most: int = 50) -> list[PurgeAnswer]:
        """
        :return: the newest purges that this node accepted, newest first.
        :raises ControlFailed: control cannot be read.
        """
        answers = []
        for entry in self._control.read.recent(self._control.name, most):
            try:
                answers.append(self._answer(entry))
            except BadEntry as error:
                _log.warn("purge {id} was written by another release: {error}", id=entry.purge_id, error=error)
        return answers

    def _answer(self, entry: Entry) -> PurgeAnswer:
        purge = PurgeEntry.unpack(entry.content)
        return PurgeAnswer(entry, purge, PurgeState.COMPLETE, applied=(self._control.name.id,))


def _shown(selector: Selector) -> str:
    return f"{selector.kind} {selector.value.decode('utf-8', 'backslashreplace')}".strip()
