"""Composition: what operators ask of the store, in a thread of its own, one question after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define
from twisted.internet.defer import Deferred

from edgecache.admin.objects import Objects
from edgecache.store.controlreading import ControlReader
from edgecache.store.environments import Environments
from edgecache.store.scrubbing import Scrubbing
from edgecache.store.survey import Survey
from edgecache.store.threads import OneThread
from edgecache.words.config import Config
from edgecache.words.messages import Fields
from edgecache.words.ports import Timers

if TYPE_CHECKING:
    from edgecache.explaining import Explaining


@define(eq=False, repr=False)
class Looking:
    """
    :ivar scrubbing: looks through all of it for damage.
    :ivar objects: what is biggest, and what is asked for most.
    """

    scrubbing: Scrubbing
    objects: Objects
    _route: Callable[[], Explaining]
    _thread: OneThread
    _explaining: Explaining | None = None

    @classmethod
    def of(
        cls,
        config: Callable[[], Config],
        environments: Environments,
        control: ControlReader,
        page: str,
        reactor: Any,
        timers: Timers,
        wall: Callable[[], float],
        boot: Callable[[], float],
        known: Callable[[], Mapping[str, Any]],
    ) -> Looking:
        """See :class:`~edgecache.explaining.Explaining`. :param page: path of the mapped page."""

        def route() -> Explaining:
            # All that workers are made of, and the node process has no other use for it.
            from edgecache.explaining import Explaining

            return Explaining(config, environments, control, page, timers, known, wall, boot)

        thread = OneThread.named(reactor, "looking")
        scrubbing = Scrubbing(environments, timers, wall, thread)
        return cls(scrubbing, Objects(Survey(environments), thread, timers), route, thread)

    def explain(
        self, method: bytes, authority: bytes, target: bytes, fields: Fields, secure: bool
    ) -> Deferred[dict[str, Any]]:
        """See :meth:`edgecache.explaining.Explaining.look`."""
        assert self._explaining is not None, "started"
        return self._thread(self._explaining.look, method, authority, target, fields, secure)

    def unstored(self, rows: list[list[Any]]) -> None:
        """A worker tells what it did not store (:mod:`edgecache.fills.unstored`)."""
        # Before the start nobody can ask.
        if self._explaining is not None:
            self._explaining.unstored(rows)

    def start(self) -> None:
        """Questions may come. Takes a tenth of a second."""
        self._explaining = self._route()
        self._thread.start()

    def stop(self) -> None:
        """Waits for what is being looked at; nothing may be asked any more."""
        self.scrubbing.cancel()
        self._thread.stop()
        if self._explaining is not None:
            self._explaining.close()
