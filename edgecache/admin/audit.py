"""
Who purged what, and who was refused: one JSON line each in ``DATA/audit.log`` (DESIGN 12).

A file and not rows of control: refusals are what strangers cause, and must neither wait for the
disk nor fill what purges need; and every tool can read and ship lines. The purge itself, with the
name of its token, is in the log of control as well, so a line that a power cut takes is not lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from attrs import define, field
from twisted.logger import Logger

from edgecache.siblings.pace import Pace
from edgecache.siblings.purger import PurgeAnswer
from edgecache.words.ports import Timers

_log = Logger()

AUDIT_FILE = "audit.log"

FILE_OCTETS = 32 << 20
KEPT_FILES = 4
"""Older files that are kept, as ``audit.log.1`` (the newest) and so on."""

_REFUSALS_PER_SECOND = 10.0
_MOST_CHARACTERS = 300

# What tokens.new_token makes, wherever a client has put one.
_TOKEN = re.compile(r"edge_[A-Za-z0-9_-]{20,}")
_HIDDEN = "(a token)"


@define(eq=False, repr=False)
class Audit:
    """
    :ivar path: of the file; older ones lie beside it.
    """

    path: str
    _wall: Callable[[], float]
    _timers: Timers
    _refusals: Pace = field(factory=lambda: Pace(_REFUSALS_PER_SECOND))
    _suppressed: int = 0
    _failing: bool = False

    def purged(self, answer: PurgeAnswer, new: bool, **told: str) -> None:
        """
        A purge is in its log, or was there already.

        :param told: where it came from: ``peer``, ``front``.
        """
        entry, purge = answer.entry, answer.purge
        self._write(
            "purged" if new else "purged-again",
            {
                "token": purge.by,
                **told,
                "id": entry.purge_id,
                "mode": purge.mode.name.lower(),
                "selectors": len(purge.selectors),
                "first": purge.selectors[0].decode("utf-8", "replace") if purge.selectors else "",
                "serials": len(purge.serials),
                "node": entry.log.id,
                "sequence": entry.sequence,
                "epoch": entry.last_epoch,
            },
        )

    def refused(self, *, presented: str = "", **told: Any) -> None:
        """
        Something was not done. In a storm of these most are only counted.

        :param presented: the token that came with it, whatever it was: it is kept out of the file.
        """
        if self._refusals.take(self._timers.seconds()) > 0.0:
            self._suppressed += 1
            return
        if self._suppressed:
            told["suppressed_before"] = self._suppressed
            self._suppressed = 0
        self._write("refused", told, presented)

    def changed(self, event: str, **told: Any) -> None:
        """A token was made or revoked."""
        self._write(event, told)

    def _write(self, event: str, told: dict[str, Any], presented: str = "") -> None:
        now = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        shown = {name: _shown(value, presented) for name, value in told.items()}
        line = orjson.dumps({"time": now, "event": event, **shown}, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._append(line)
        except OSError as error:
            if not self._failing:
                _log.error("audit {path}: {reason}; purges go on", path=self.path, reason=os.strerror(error.errno or 0))
            self._failing = True
        else:
            self._failing = False

    def _append(self, line: bytes) -> None:
        # Opened for each line: whoever rotates logs here may move the file at any time.
        descriptor = os.open(
            self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
        try:
            full = os.fstat(descriptor).st_size + len(line) > FILE_OCTETS
            if not full:
                os.write(descriptor, line)
        finally:
            os.close(descriptor)
        if full:
            self._rotate()
            self._append(line)

    def _rotate(self) -> None:
        for number in range(KEPT_FILES, 0, -1):
            older = f"{self.path}.{number - 1}" if number > 1 else self.path
            if os.path.lexists(older):
                os.replace(older, f"{self.path}.{number}")


def _shown(value: Any, presented: str) -> Any:
    """:return: what may be in the file: no token, and nothing long."""
    if not isinstance(value, str):
        return value
    if len(presented) >= 8:
        value = value.replace(presented, _HIDDEN)
    value = _TOKEN.sub(_HIDDEN, value)
    # A lone surrogate is no UTF-8.
    value = value.encode("utf-8", "backslashreplace").decode()
    return value if len(value) <= _MOST_CHARACTERS else value[:_MOST_CHARACTERS] + "..."
