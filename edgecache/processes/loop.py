"""The one reactor that this program runs on: Twisted's asyncio reactor over a uvloop loop."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.process import reapAllProcesses

from edgecache.words.errors import StartError


def install_reactor() -> tuple[Any, asyncio.AbstractEventLoop]:
    """
    Install it; harmless when it is installed already.

    :return: the reactor and its loop.
    :raises StartError: another reactor is installed: nothing here would work on it.
    """
    if "twisted.internet.reactor" not in sys.modules:
        loop = uvloop.new_event_loop()
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
