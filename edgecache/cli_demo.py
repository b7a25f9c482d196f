"""``edgecache demo``: what a fleet does, shown on this machine alone (DESIGN 11). It asks no node of yours."""

from __future__ import annotations

import importlib.util
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from twisted.python import usage

from edgecache.demo.fleet import DemoFailed, Fleet
from edgecache.demo.story import Story

Out = Callable[[str], None]
"""Takes one line."""


class DemoOptions(usage.Options):
    """Flags of ``edgecache demo``."""

    synopsis = "Usage: edgecache demo [options]"
    longdesc = (
        "Starts three nodes and two origins on loopback, one of which hangs, and shows what installers get: while the "
        "origin hangs, after an upload and a purge, while a node stands still, and when every origin is gone. It takes "
        "half a minute and leaves nothing behind."
    )
    optFlags = [["keep", "k", "Leave the nodes running until you interrupt it, and say where they are."]]

    def act(self, say: Out) -> int:
        """
        Show it.

        :return: exit status: 0 when everything was as it is said to be.
        """
        signal.signal(signal.SIGTERM, _interrupted)
        with tempfile.TemporaryDirectory(prefix="edgecache-demo-") as name:
            try:
                with Fleet(Path(name)) as fleet:
                    Story(fleet, say, pip=importlib.util.find_spec("pip") is not None).tell()
                    if self["keep"]:
                        _keep(fleet, say)
            except DemoFailed as error:
                say(f"edgecache: {error}")
                return 1
            except KeyboardInterrupt:
                say("")
                say("interrupted; all of it is ended")
                return 130
        return 0


def _keep(fleet: Fleet, say: Out) -> None:
    say("")
    say("They run until you interrupt this (Ctrl-C):")
    for node in fleet.nodes:
        say(f"  {node.id}  {node.url}/simple/  admin {node.admin}/  token in {node.token_file}")
    signal.pause()


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
