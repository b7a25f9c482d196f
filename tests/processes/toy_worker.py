"""A worker of the supervisor's tests: it does what it is told, and what its greeting says."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

from edgecache.processes.loop import install_reactor
from edgecache.processes.running import CHANNEL, LOCK, SOCKETS
from edgecache.processes.streams import adopt
from edgecache.words.errors import StartError


def main() -> None:
    """Serve the channel until it closes."""
    reactor, loop = install_reactor()
    stream = adopt(reactor, socket.socket(fileno=CHANNEL), "the node", lambda: os._exit(1))
    channel = stream.channel

    def start(**greeting: Any) -> dict[str, Any]:
        if greeting.get("refuse"):
            raise StartError("cannot, says the toy")
        if greeting.get("crash"):
            sys.stderr.write("last words\n")
            sys.stderr.flush()
            os._exit(3)
        return {}

    def look() -> dict[str, Any]:
        ports = [socket.socket(fileno=os.dup(SOCKETS + at)).getsockname()[1] for at in range(int(sys.argv[1]))]
        return {"pid": os.getpid(), "ports": ports, "lock": os.fstat(LOCK).st_ino, "descriptors": descriptors()}

    def drain(seconds: float, quiet_seconds: float, last: bool) -> dict[str, Any]:
        return {"cut": 0}

    def stop() -> None:
        loop.call_soon(reactor.stop)

    channel.on("start", start)
    channel.on("look", look)
    channel.on("stand_still", lambda: os.kill(os.getpid(), signal.SIGSTOP))
    channel.on("drain", drain)
    channel.on("stop", stop)
    channel.notify("log", level="info", text="toy runs")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reactor.run(installSignalHandlers=False)
    os._exit(0)


def descriptors() -> list[int]:
    """:return: what this process inherited, standard streams aside."""
    return sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2 and is_socket_or_file(int(name)))


def is_socket_or_file(number: int) -> bool:
    try:
        target = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
    return target.startswith("/") and "/proc/" not in target
