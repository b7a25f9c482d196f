"""What of the store cannot be used any more: its mark, and where it is moved to."""

from __future__ import annotations

import os
import shutil

from twisted.logger import Logger

from edgecache.syncing import sync_directory

_log = Logger()

MARK = ".damaged"
"""Follows the name of an environment that must not be opened any more."""


def condemn(path: str, why: str) -> None:
    """Whoever opens what is at ``path`` next moves it aside."""
    try:
        with open(path + MARK, "w") as mark:
            mark.write(why + "\n")
    except OSError as error:
        _log.error("store: {path} could not be written: {error}", path=path + MARK, error=error)


def move_aside(data: str, names: tuple[str, ...], why: str) -> None:
    """Keep the latest unusable ones for whoever wants to look; older ones would fill the disk."""
    aside = os.path.join(data, "aside")
    for name in names:
        path, kept = os.path.join(data, name), os.path.join(aside, name)
        if os.path.lexists(path):
            os.makedirs(aside, mode=0o700, exist_ok=True)
            if os.path.isdir(kept) and not os.path.islink(kept):
                shutil.rmtree(kept)
            elif os.path.lexists(kept):
                os.unlink(kept)
            os.rename(path, kept)
            sync_directory(aside)
            sync_directory(data)
            _log.warn("store: {name} moved to {kept} and begun anew: {why}", name=name, kept=kept, why=why)
        # Only now: a crash or a power cut before the rename must find the mark again.
        if os.path.exists(path + MARK):
            os.unlink(path + MARK)
