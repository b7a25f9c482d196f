"""What was not stored lately, and what was said of it: for whoever asks why a request misses again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from edgecache.rules.asking import Asked
from edgecache.upstream.responses import Response
from edgecache.words.errors import UpstreamFailed
from edgecache.words.ports import Timer, Timers

TELL_SECONDS = 1.0
MOST = 64
"""That are told at a time; where nothing can be stored, a few of the newest tell as much."""

_VALUE_OCTETS = 200

_TELLING = ("cache-control", "cdn-cache-control", "surrogate-control", "vary", "pragma", "expires")
"""Fields of a response that can keep it from being stored; none of them is anybody's secret."""


@define(eq=False, repr=False)
class Unstored:
    """
    Of one worker.

    :ivar tell: the node process, once a second at most.
    :ivar wall: seconds since the epoch.
    """

    _tell: Callable[[list[list[Any]]], None]
    _timers: Timers
    _wall: Callable[[], float]
    _rows: dict[bytes, list[Any]] = field(factory=dict)
    _timer: Timer | None = None

    def passed(self, asked: Asked, response: Response, detail: str) -> None:
        """The response went to one client alone."""
        head = response.head
        said = {name: (head.get(name.encode()) or b"")[:_VALUE_OCTETS].decode("latin-1") for name in _TELLING}
        self._note(asked, head.status, {name: value for name, value in said.items() if value}, detail, response)

    def failed(self, asked: Asked, failure: UpstreamFailed) -> None:
        """There was no response."""
        self._note(asked, 0, {}, str(failure)[:_VALUE_OCTETS], None)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, asked: Asked, status: int, said: dict[str, str], detail: str, response: Response | None) -> None:
        if len(self._rows) >= MOST and asked.key_hash not in self._rows:
            return
        upstream = "" if response is None else response.address.name
        self._rows[asked.key_hash] = [asked.key_hash.hex(), self._wall(), status, said, detail, upstream]
        if self._timer is None:
            self._timer = self._timers.callLater(TELL_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        rows, self._rows = self._rows, {}
        self._tell(list(rows.values()))
