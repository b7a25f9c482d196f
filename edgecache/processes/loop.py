"""The one reactor that this program runs on: Twisted's asyncio reactor over a uvloop loop."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor

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
