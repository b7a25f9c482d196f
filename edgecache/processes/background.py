"""Work that nobody waits for, or not for long: its failure is logged, never dropped."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.words.ports import Timers

_log = Logger()


def background(work: Deferred[Any] | Coroutine[Deferred[Any], Any, Any], what: str) -> None:
    """
    Let ``work`` run on its own.

    :param what: completes "failed to ..." in the log.
    """
    started = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    _ = started.addErrback(lambda failure: _log.failure("failed to {what}", failure, what=what))


async def briefly(work: Deferred[None], what: str, timers: Timers, seconds: float) -> None:
    """
    Wait for ``work``, at most so long; then it goes on without us.

    :param what: as for :func:`background`.
    """
    waited: Deferred[None] = Deferred()

    def enough(*_: object) -> None:
        if not waited.called:
            waited.callback(None)

    timer = timers.callLater(seconds, enough)
    background(work.addCallback(enough), what)
    await waited
    timer.cancel()
