"""Directories on which a sync costs nothing, for tests that commit often and mean no power cut."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.trial.unittest import SynchronousTestCase

_MEMORY = "/dev/shm"
# Tests that fill a whole store need some 200 MiB; several may run at a time.
_LEAST_FREE = 1 << 30


def quick_directory(case: SynchronousTestCase) -> str:
    """:return: an empty directory that lives as long as the test, in memory where there is enough."""
    made = tempfile.mkdtemp(dir=_MEMORY if _has_room() else None)
    case.addCleanup(shutil.rmtree, made)
    return made


def _has_room() -> bool:
    if not os.access(_MEMORY, os.W_OK):
        return False
    found = os.statvfs(_MEMORY)
    return found.f_bavail * found.f_frsize >= _LEAST_FREE
