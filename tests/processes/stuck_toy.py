"""A toy worker whose third fork never ends, as on a machine that is in trouble."""

from __future__ import annotations

import os
import signal

from tests.processes.toy_worker import main

__all__ = ["main"]

_forks = 0


def _perhaps_stick() -> None:
    global _forks
    _forks += 1
    while _forks > 2:
        signal.pause()


os.register_at_fork(before=_perhaps_stick)
