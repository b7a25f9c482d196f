"""Somebody else than the addresses of a quest, asked once: siblings for what they have stored, as a rule."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.upstream.responses import Response

_log = Logger()

AskElse = Callable[[], Deferred[Response | None]]
"""Fires with ``None`` if they have nothing; it has a deadline of its own, maybe after the client's time is over."""


@define(eq=False, repr=False)
class Resort:
    """
    Asked before who is ejected is, and where the last one in service takes as long as one that hangs.

    :ivar left: they were not asked yet.
    :ivar asking: they are being asked.
    """

    _ask: AskElse
    left: bool = True
    _asking: Deferred[Response | None] | None = None

    @property
    def asking(self) -> bool:
        return self._asking is not None

    def ask(self, then: Callable[[Response | None], None]) -> None:
        """:param then: called with what they have, unless :meth:`cancel` comes first; ``None``: nothing."""
        self.left = False
        self._asking = asking = self._ask()

        def answered(response: Response | None) -> None:
            self._asking = None
            then(response)

        _ = asking.addErrback(self._failed).addCallback(answered)

    def cancel(self) -> None:
        """What they have is not wanted any more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _failed(self, failure: Failure) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("failed to ask somebody else", failure)
