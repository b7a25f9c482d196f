"""What twistd runs, whatever it is: it opens, starts, takes other settings over, and says in one line why not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.common import PAGE, RUN
from edgecache.preparing import Prepared
from edgecache.processes.staying import EACH_SECONDS, Staying
from edgecache.reloading import Reloads
from edgecache.store.crashing import watch_for_crashes
from edgecache.store.disk import first_in, takes_writes
from edgecache.store.popularity import NAME as POPULARITY
from edgecache.store.threads import OneThread
from edgecache.words.config import Config
from edgecache.words.errors import EdgeError, StartError

_log = Logger()

BEGINS_SECONDS, MOST_BEGINS_SECONDS = 60.0, 3600.0
"""From one end by itself to the next: as workers are replaced for that; twice as long each time where it was no use."""


@define(eq=False, repr=False)
class MemberService(Service, ABC):
    """
    What twistd runs: starts what it is, or says in one line why not.

    :ivar prepared: what was taken before.
    :ivar reread: the settings as flags and file have them now, checked. In a thread: files may be slow, and pip may be
        asked.
    :ivar config: those of this node.
    :ivar foreground: an error at the start goes to standard error; in the background twistd tells it.
    """

    prepared: Prepared
    reactor: Any
    loop: asyncio.AbstractEventLoop
    reread: Callable[[], Config]
    foreground: bool = True
    config: Config = field(init=False)
    _thread: OneThread = field(init=False)
    reloads: Reloads = field(init=False)
    _staying: Staying | None = field(init=False, default=None)
    _disk: OneThread | None = field(init=False, default=None)

    @config.default
    def _as_prepared(self) -> Config:
        return self.prepared.config

    @_thread.default
    def _unstarted(self) -> OneThread:
        return OneThread.named(self.reactor, "settings")

    @reloads.default
    def _none_yet(self) -> Reloads:
        return Reloads(self.reread, lambda: self.config, self.take_over, self._thread, time.time)

    def startService(self) -> None:
        """
        Open the store and start everything.

        :raises SystemExit: the node cannot start; one line was written.
        """
        super().startService()  # type: ignore[no-untyped-call]  # Twisted has no types here
        try:
            self.prepared.lock.sign()
            watch_for_crashes(self.prepared.config.node.data)
            self.open()
        except EdgeError as error:
            self._complain(error)
            if not self.foreground:
                raise
            raise SystemExit(1) from None
        # Signals are the reactor's to set up when it begins to run.
        self.reactor.callWhenRunning(self._begin)

    @abstractmethod
    def open(self) -> None:
        """
        Open what is on disk; nothing runs yet.

        :raises EdgeError: it cannot be.
        """

    @abstractmethod
    async def run(self) -> None:
        """
        Start everything.

        :raises EdgeError: it cannot be.
        """

    @abstractmethod
    async def take_over(self, config: Config) -> None:
        """
        Go on with other settings.

        :raises EdgeError: that cannot be; all is as it was.
        """

    @abstractmethod
    def spent(self) -> str | None:
        """:return: why the next life can do what this one cannot any more, for people; ``None``: it can do all."""

    def _begin(self) -> None:
        _ = Deferred.fromCoroutine(self._run()).addErrback(self._crashed)

    async def _run(self) -> None:
        signal.signal(signal.SIGHUP, lambda *_: self.loop.call_soon_threadsafe(self.reloads.ask))
        self._thread.start()
        try:
            await self.run()
        except EdgeError as error:
            if not self.running:
                # It goes down before it was up; what was being started cannot be any more.
                _log.info("the start ends with the node: {error}", error=error)
                return
            self._give_up(error)
        else:
            # Before anything can move one of them.
            self._note_files()
            self._watch_data()
            self.reloads.ready()

    def _note_files(self) -> None:
        """These are to stay; whoever moves one of them on purpose sets :attr:`_staying` to ``None`` before."""
        data = self.config.node.data
        stores = (os.path.join(name, "data.mdb") for name in ("control", "small", "blobs"))
        # Without the page, or its hits, no worker can be started any more.
        names = (os.path.join(RUN, PAGE), POPULARITY, *stores)
        self._staying = Staying.of([*self.prepared.paths, *(os.path.join(data, name) for name in names)])

    def _watch_data(self) -> None:
        """See :mod:`edgecache.processes.staying`: whoever runs this starts it anew, with a directory that is there."""
        gone = self._staying.gone() if self.running and self._staying is not None else None
        if gone is not None:
            self._give_up(StartError(f"{gone} was removed or replaced while in use; the node ends"), "cannot go on")
        elif self.running and (why := self.spent()) is not None:
            if self._disk is None:
                # Never waited for: a disk that does not answer keeps neither a reload nor the end of the node waiting.
                self._disk = OneThread.named(self.reactor, "disk")
                self._disk.start()
            _ = self._disk(self._may_begin_anew).addCallback(self._tried, why)
        else:
            self.loop.call_later(EACH_SECONDS, self._watch_data)

    def _may_begin_anew(self) -> bool:
        """
        While the disk fails this life serves on, and where writes go on failing, nodes do not end one after the other.
        In a thread.
        """
        data = self.config.node.data
        return takes_writes(data) and first_in(
            os.path.join(data, RUN, "begun-anew"), BEGINS_SECONDS, MOST_BEGINS_SECONDS, time.time()
        )

    def _tried(self, may_begin: bool, why: str) -> None:
        if may_begin and self.running:
            self._give_up(StartError(f"{why}; the node ends, to begin anew"), "cannot go on")
        else:
            self.loop.call_later(EACH_SECONDS, self._watch_data)

    def _crashed(self, failure: Failure) -> None:
        """A bug: half a node is worse than none."""
        _log.failure("the start failed", failure)
        self._give_up(StartError(failure.getErrorMessage()))

    def _complain(self, error: Exception, what: str = "cannot start") -> None:
        _log.critical("{what}: {error}", what=what, error=error)
        if self.foreground and sys.__stderr__ is not None:
            # twistd has put its log in the place of sys.stderr.
            sys.__stderr__.write(f"edgecache: {error}\n")
            sys.__stderr__.flush()

    def _give_up(self, error: Exception, what: str = "cannot start") -> None:
        """Stop, with exit status 1: twistd itself would end with 0."""
        self._complain(error, what)
        self.reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        if self.running:
            self.reactor.stop()
