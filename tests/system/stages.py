"""
Origins beside a node: characters of :mod:`tests.characters` on real sockets of loopback.

One loop on a thread of the test plays them all, so that a test changes a character between two requests and reads
what it was asked by plain attributes. ``python -m tests.system.stages PORT`` plays one in a process of its own, which
can be killed: of each content it sends :data:`AT_ONCE` octets, then a few more now and then; it prints ``ready``.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable
from select import select

from attrs import define, field

from edgecache.processes.timers import LoopTimers
from tests.characters import Asked, Character, Dripping, Good, Player
from tests.system.contents import Artifact
from tests.system.processes import free_port

PATIENCE_SECONDS = 60.0
AT_ONCE = 100_000
WHEEL = Artifact("wheel", 1_000_000)


@define(eq=False)
class Role(Character):
    """
    One address, whoever plays it at the moment.

    :ivar part: takes the next request.
    :ivar playbill: what it and its colleagues were asked, in the order in which it came.
    """

    host: str
    port: int
    playbill: list[tuple[Role, Asked]]
    part: Character = field(factory=Good)

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def targets(self) -> list[str]:
        """Of all requests so far, probes too."""
        return [asked.target.decode() for asked in self.asked]

    def answer(self, asked: Asked, player: Player) -> None:
        self.playbill.append((self, asked))
        self.part.answer(asked, player)


@define(eq=False)
class Each(Character):
    """
    Every target has a content of its own, so that a mixture would be seen.

    :ivar size: of each.
    :ivar make: who answers for that content.
    """

    size: int
    make: Callable[[bytes], Character]

    def answer(self, asked: Asked, player: Player) -> None:
        content = Artifact(asked.target.decode(), self.size).whole()
        self.make(content).answer(asked, player)


@define(eq=False)
class Choosing(Character):
    """:ivar choose: who takes which request."""

    choose: Callable[[Asked], Character]

    def answer(self, asked: Asked, player: Player) -> None:
        self.choose(asked).answer(asked, player)


@define(eq=False)
class Dropping:
    """
    A listener that takes no connection: its backlog is full, so the kernel drops whoever comes, without a word.
    """

    listener: socket.socket
    _waiting: list[socket.socket] = field(factory=list)

    @classmethod
    def at(cls, host: str, port: int) -> Dropping:
        dropping = cls(socket.create_server((host, port), backlog=0))
        connected = True
        while connected:
            waiting = socket.socket()
            dropping._waiting.append(waiting)
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
            # A connection of loopback is there at once, or never.
            connected = bool(select([], [waiting], [], 0.2)[1])
        return dropping

    def close(self) -> None:
        """From now on the port is free."""
        for sock in (self.listener, *self._waiting):
            sock.close()


class Stages:
    """Started by its constructor, as a fixture of a class of tests; ``close`` ends all that it plays."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._roles: list[Role] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def cast(self, *hosts: str, port: int | None = None) -> list[Role]:
        """
        :param port: the same for all, and nobody listens yet; without, each listens at one of its own.
        :return: a good one for each of ``hosts``, colleagues of each other.
        """
        playbill: list[tuple[Role, Asked]] = []
        roles = [Role(host, port or free_port(), playbill) for host in hosts]
        self._roles += roles
        if port is None:
            for role in roles:
                self.open(role)
        return roles

    def open(self, role: Role) -> None:
        """Listen."""

        async def opened() -> asyncio.Server:
            return await self._loop.create_server(role.player, role.host, role.port, backlog=256)

        self._servers.append(asyncio.run_coroutine_threadsafe(opened(), self._loop).result(PATIENCE_SECONDS))

    def close(self) -> None:
        async def closed() -> None:
            for server in self._servers:
                server.close()
            for role in self._roles:
                for player in list(role.playing):
                    player.transport.abort()

        asyncio.run_coroutine_threadsafe(closed(), self._loop).result(PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    fields = ((b"Cache-Control", b"max-age=600"),)
    slow = Dripping(
        content=WHEEL.whole(), fields=fields, timers=LoopTimers(loop), at_once=AT_ONCE, piece=100, seconds=0.05
    )
    server = await loop.create_server(slow.player, "127.0.0.1", port)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
