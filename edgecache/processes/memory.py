"""Giving memory back to the system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def give_back() -> None:
    """
    Free pages in the middle of the heap, too; some milliseconds for a hundred MiB.

    The C library keeps what was freed below anything that is still in use: after thousands of connections, nearly
    all of what they took. Another C library than glibc has no such call, and keeps what it keeps.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_freed() -> None:
    """
    What was freed stays with the process, up to 16 MiB of each thread that frees it, until :func:`give_back`.

    LMDB allocates a group of chunks, 8 MiB, writes it and frees it. What of that lies at a heap's end the C library
    gives back at once, and takes anew for the next group: 2,000 faults for each, a third of the writer's CPU. What it
    gives back depends on which large blocks were freed before: one process in two had them. Another C library than
    glibc has no such call.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(_M_TRIM_THRESHOLD, 16 << 20)
        # Given one of the two, it does not learn the other any more.
        choose(_M_MMAP_THRESHOLD, 1 << 20)


def collect_frozen() -> None:
    """
    Have the collector look at everything, also at what was to live as long as this process.

    A worker inside the node process freezes what is there when it starts: also the one that it replaces.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """
    While modules are imported: what that makes stays, and looking through it for garbage is a sixth of its time.

    Nor is it looked at later; the two MiB that are garbage in fact (:func:`collect_frozen` finds them) are less than
    the 70 ms in which they could be found. What was not looked at before a fork stays in pages that all share, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
