"""The one reactor that this program runs on: Twisted's asyncio reactor over a uvloop loop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVarTuple

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.process import reapAllProcesses

from edgecache.words.errors import StartError

_Ts = TypeVarTuple("_Ts")


class Loop(uvloop.Loop):
    """
    uvloop's loop, mended for those who watch descriptors, as Twisted's reactor does.

    When a peer's last octets and its reset are there at once, uvloop runs the reader, which finds the octets, and then
    drops the descriptor without a word: the connection would never end, and whoever watches it again gets a
    RuntimeError. So after each run of a reader its descriptor is watched again, which tells of the reset.
    """

    def __init__(self) -> None:
        super().__init__()
        self._readers: dict[int, object] = {}

    def add_reader(self, fd: Any, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None:
        def run() -> None:
            callback(*args)
            if self._readers.get(fd) is run:
                self.call_soon(again)

        def again() -> None:
            if self._readers.get(fd) is run:
                self._watch(super(Loop, self).add_reader, fd, run)

        self._readers[fd] = run
        self._watch(super().add_reader, fd, run)

    def add_careful_reader(self, fd: Any, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None:
        """
        For who finds out by itself that a descriptor was dropped: by writing, and by a deadline.

        It costs less per octet than :meth:`add_reader`.
        """
        self._watch(super().add_reader, fd, callback, *args)

    def remove_reader(self, fd: Any) -> Any:
        self._readers.pop(fd, None)
        return super().remove_reader(fd)

    def add_writer(self, fd: Any, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None:
        self._watch(super().add_writer, fd, callback, *args)

    def _watch(self, add: Callable[..., None], fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        try:
            add(fd, callback, *args)
        except RuntimeError:
            # Dropped; it lets go of the descriptor when both have been removed.
            super().remove_reader(fd)
            super().remove_writer(fd)
            add(fd, callback, *args)


def install_reactor() -> tuple[Any, asyncio.AbstractEventLoop]:
    """
    Install it; harmless when it is installed already.

    :return: the reactor and its loop.
    :raises StartError: another reactor is installed: nothing here would work on it.
    """
    if "twisted.internet.reactor" not in sys.modules:
        loop = Loop()
        asyncio.set_event_loop(loop)
        from twisted.internet import asyncioreactor

        asyncioreactor.install(loop)  # type: ignore[no-untyped-call]  # Twisted has no types here
    reactor: Any = sys.modules["twisted.internet.reactor"]
    installed = getattr(reactor, "_asyncioEventloop", None)
    if not isinstance(reactor, AsyncioSelectorReactor) or not isinstance(installed, uvloop.Loop):
        raise StartError("edgecache brings its own reactor: leave --reactor out")
    return reactor, installed


def reap_children(loop: asyncio.AbstractEventLoop) -> None:
    """
    Notice when a child process ends. To be called when the reactor runs.

    Twisted waits for its own wake-up descriptor, which uvloop replaces when it begins to run. Without this
    a process is only noticed by the end of its pipes, and missed when that comes before its death is complete.
    """

    def reap(*_: Any) -> None:
        loop.call_soon_threadsafe(reapAllProcesses)

    signal.signal(signal.SIGCHLD, reap)
    signal.siginterrupt(signal.SIGCHLD, False)
    # What ended between its start and now.
    loop.call_soon(reapAllProcesses)
