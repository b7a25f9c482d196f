"""
Deaths in the store: on some damaged pages LMDB ends the process, by an assertion or by reading where nothing is.

Python tells where a process was then (:mod:`faulthandler`): a worker in its last words, the node process in
``DATA/crash``, which the next start reads. What it was in is condemned, as if LMDB had said that it is damaged: whoever
opened it again would die again.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from collections.abc import Iterable
from typing import Final

from twisted.logger import Logger

from edgecache.store.aside import condemn

_log = Logger()

CRASH_FILE: Final = "crash"
SIGNALS: Final = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
"""By which LMDB, or the kernel, ends a process for what it found in a map."""

_MOST_OCTETS = 1 << 20
_CURRENT = re.compile(r"Current thread 0x")
_FRAME = re.compile(r'  File "(.*)", line \d+ in (.*)')
_MODULE = re.compile(r".*/edgecache/store/(\w+)\.py")

_OPENING = ("environments", "opening")
_OPENING_CONTROL = ("_open_control", "open_control", "_begun_anew")
_OTHERS = {
    **dict.fromkeys(("control", "controlreading", "controlrows"), "control"),
    **dict.fromkeys(("counts", "partials", "folding"), os.path.join("downloads", "counts")),
}


def died_in(lines: Iterable[str]) -> str | None:
    """
    :param lines: what :mod:`faulthandler` wrote.
    :return: below the data directory, the environment that it was in when it died; of small and blobs, which go
        together, ``small``. ``None``: it was elsewhere.
    """
    frames = _current(lines)
    # The innermost alone: who waits for the store is not in it.
    module = _MODULE.fullmatch(frames[0][0]) if frames else None
    if module is None:
        return None
    if module[1] in _OPENING and any(function in _OPENING_CONTROL for _, function in frames):
        return "control"
    return _OTHERS.get(module[1], "small")


def _current(lines: Iterable[str]) -> list[tuple[str, str]]:
    """:return: files and functions that the thread was in, the innermost first."""
    frames: list[tuple[str, str]] = []
    current = False
    for line in lines:
        frame = _FRAME.match(line)
        if current and frame is None:
            break
        if current and frame is not None:
            frames.append((frame[1], frame[2]))
        current = current or _CURRENT.match(line) is not None
    return frames


def condemn_after(data: str, lines: Iterable[str], who: str) -> str | None:
    """:param who: died. :return: what is condemned for it."""
    name = died_in(lines)
    if name is not None:
        _log.error("store: {who} died in {name}, which is taken for damaged", who=who, name=name)
        condemn(os.path.join(data, name), f"{who} died in it")
    return name


def watch_for_crashes(data: str) -> None:
    """
    Condemn what this process's last life died in, and have this one's death told.

    To be called before anything is opened, by who holds the lock on the data directory.
    """
    path = os.path.join(data, CRASH_FILE)
    try:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read(_MOST_OCTETS).splitlines()
            if lines:
                _log.error("store: the last life of this node ended in a crash: {how}", how=lines[0])
            condemn_after(data, lines, "the node process")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        _log.error("store: {path}: {reason}; a crash would not be told", path=path, reason=error.strerror)
        return
    # It keeps the file.
    faulthandler.enable(os.fdopen(descriptor, "w"))
