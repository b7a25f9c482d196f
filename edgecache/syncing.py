"""Names of files on disk: what whoever writes files below the data directory has in common."""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """
    Names in the directory are on disk after this: those of files that were synced are not, without it.

    :raises OSError: they may not be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
