"""Work that nobody waits for: its failure is logged, never dropped."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

_log = Logger()


def background(work: Deferred[Any] | Coroutine[Deferred[Any], Any, Any], what: str) -> None:
    """
    Let ``work`` run on its own.

    :param what: completes "failed to ..." in the log.
    """
    started = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    _ = started.addErrback(lambda failure: _log.failure("failed to {what}", failure, what=what))
