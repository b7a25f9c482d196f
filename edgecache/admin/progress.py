"""Progress of long work, on a terminal or in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from attrs import define

_TERMINAL_SECONDS = 0.1
_LOG_SECONDS = 5.0


@define(eq=False, repr=False)
class Progress:
    """
    One line that changes, on a terminal; elsewhere a line now and then.

    :ivar seconds: monotonic.
    """

    _stream: TextIO | None
    seconds: Callable[[], float] = time.monotonic
    _next: float = 0.0
    _shown: bool = False

    def show(self, line: str) -> None:
        """:param line: how far it is; shown unless one was just now."""
        stream, now = self._stream, self.seconds()
        if stream is None or now < self._next:
            return
        terminal = stream.isatty()
        self._next = now + (_TERMINAL_SECONDS if terminal else _LOG_SECONDS)
        stream.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
        stream.flush()
        self._shown = terminal

    def end(self, line: str = "") -> None:
        """:param line: the last one; always shown."""
        self._next = 0.0
        if line:
            self.show(line)
        if self._shown and self._stream is not None:
            self._stream.write("\n")
            self._stream.flush()
        self._shown = False
