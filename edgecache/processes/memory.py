"""Giving memory back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """
    Free pages in the middle of the heap, too; some milliseconds for a hundred MiB.

    The C library keeps what was freed below anything that is still in use: after thousands of connections, nearly
    all of what they took. Another C library than glibc has no such call, and keeps what it keeps.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
