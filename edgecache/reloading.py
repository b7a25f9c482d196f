"""
SIGHUP: the settings are read again, and taken over as far as a running node can, one reload after the other.

What else replaces workers is done between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.admin.parts import ReloadState
from edgecache.processes.background import background
from edgecache.store.threads import InThread
from edgecache.words.changes import changes
from edgecache.words.config import Config
from edgecache.words.errors import EdgeError

_log = Logger()


@define(eq=False, repr=False)
class Reloads:
    """
    :ivar read: in a thread: the settings as flags and file have them now, checked; raises ``EdgeError``.
    :ivar running: those that the node has.
    :ivar take_over: has it run with others; raises ``EdgeError`` and leaves it as it was when that cannot be.
    :ivar wall: seconds since the epoch.
    :ivar last: how the last one went.
    """

    _read: Callable[[], Config]
    _running: Callable[[], Config]
    _take_over: Callable[[Config], Coroutine[Any, Any, None]]
    _in_thread: InThread
    _wall: Callable[[], float]
    last: ReloadState | None = None
    # Until everything has started.
    _busy: bool = True
    _again: bool = False
    _others: list[Callable[[], Coroutine[Any, Any, None]]] = field(factory=list)
    _stopped: bool = False
    _idle: Deferred[None] | None = None

    def ready(self) -> None:
        """What was asked for until now is done now."""
        self._busy = False
        self._begin()

    def ask(self) -> None:
        """Reload; while that is under way, once more after it."""
        self._again = not self._stopped
        self._begin()

    def between(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do this as well, once, when no reload is under way. :param work: raises nothing."""
        if not self._stopped:
            self._others.append(work)
            self._begin()

    def _begin(self) -> None:
        if (self._again or self._others) and not self._busy:
            self._busy, self._idle = True, Deferred()
            background(self._all(self._idle), "reload")

    async def stop(self) -> None:
        """Done when none is under way; there will be none."""
        self._stopped, self._again = True, False
        self._others.clear()
        if self._idle is not None:
            await self._idle

    async def _all(self, idle: Deferred[None]) -> None:
        try:
            while self._again or self._others:
                if self._others:
                    await self._others.pop(0)()
                    continue
                self._again = False
                await self._one()
        finally:
            self._busy, self._idle = False, None
            idle.callback(None)

    async def _one(self) -> None:
        try:
            found = changes(self._running(), await self._in_thread(self._read))
            await self._take_over(found.config)
        except EdgeError as error:
            self.last = ReloadState(self._wall(), str(error))
            _log.error("reload: everything stays as it was: {error}", error=error)
            return
        except Exception as error:  # noqa: BLE001  # a defect of ours: whoever asked for the reload looks into /status
            self.last = ReloadState(self._wall(), f"it failed, see the log: {error!r}")
            _log.failure("reload: it failed")
            return
        self.last = ReloadState(self._wall(), "", found.taken, found.waiting)
        _log.info("reloaded; changed: {taken}", taken=", ".join(found.taken) or "nothing but what files hold")
        if found.waiting:
            _log.warn("these settings wait for a restart: {waiting}", waiting=", ".join(found.waiting))
