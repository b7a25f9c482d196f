"""
Origins with a character (``tests/characters.py``) in a process of their own: nobody who is measured shares it.

:class:`Cast` is that process; it plays any number of characters, each at a port of its own. It is told what to do line
by line on its standard input and ends when that ends, whatever becomes of the benchmark. :class:`Dropping` needs none.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attrs import define, field, frozen

from tests.characters import Asked, Character, Good, Lying, Player, Resetting, Silent, Stalling
from tests.system.contents import Artifact
from tests.system.processes import free_port

HEALTH = "/health"
"""What active checks ask for; a character that answers at all answers it well."""


class CastFailed(Exception):
    """The process of the characters did not do what it was told."""


@frozen
class Part:
    """
    What a character is and serves.

    :ivar kind: ``good``, ``silent``, ``stalling``, ``resetting``, ``lying`` or ``failing`` (503).
    :ivar name: of the content; equal names and sizes are equal content.
    :ivar etag: without quotes.
    :ivar after: octets that come (or are right) before it shows its character.
    :ivar max_age: seconds that its answers may be reused.
    """

    kind: str
    size: int = 8192
    name: str = "failover"
    etag: str = "one"
    after: int = 0
    max_age: int = 86400

    @property
    def due(self) -> Artifact:
        """The right content."""
        return Artifact(self.name, self.size)

    def character(self) -> Character:
        """
        :raises KeyError: nobody is of this kind.
        """
        if self.kind == "silent":
            return Silent()
        fields = ((b"Cache-Control", b"public, max-age=%d" % self.max_age), (b"Content-Type", b"text/plain"))
        good: dict[str, Any] = {"etag": b'"%b"' % self.etag.encode(), "fields": fields}
        if self.kind == "failing":
            return Good(b"out of order\n", status=b"503 Service Unavailable", fields=fields, etag=None)
        good["content"] = self.due.whole()
        if self.kind == "good":
            return Good(**good)
        return {"stalling": Stalling, "resetting": Resetting, "lying": Lying}[self.kind](after=self.after, **good)


@frozen
class Seen:
    """
    One request as it arrived at a character.

    :ivar at: seconds of the monotonic clock, which all processes share.
    :ivar range: the field, or "".
    """

    at: float
    target: str
    range: str


class Cast:
    """The process. Its roles may be told things by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def play(self, part: Part) -> Role:
        """Let somebody play this at a free port."""
        told = self.tell(order="play", part=_plain(part))
        return Role(self, told["role"], told["port"])

    def tell(self, **order: Any) -> Any:
        """
        :raises CastFailed: it cannot, or is gone.
        """
        with self._lock:
            assert self._process.stdin is not None and self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps(order) + "\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except OSError as error:
                raise CastFailed(str(error)) from error
        if not line:
            raise CastFailed(f"{order}: no answer")
        answer = json.loads(line)
        if "error" in answer:
            raise CastFailed(f"{order}: {answer['error']}")
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@frozen
class Role:
    """One character of the cast, and where it plays."""

    _cast: Cast
    _number: int
    port: int

    def turn(self, part: Part) -> float:
        """
        From now on it is another one, on the connections that are open too. What it has not answered stays so.

        :return: when that was, on the monotonic clock.
        """
        at: float = self._cast.tell(order="turn", role=self._number, part=_plain(part))["at"]
        return at

    def refuse(self) -> float:
        """No listener from now on, and connections are closed; returns when."""
        at: float = self._cast.tell(order="refuse", role=self._number)["at"]
        return at

    def asked(self) -> list[Seen]:
        """All that it was asked so far, but for active checks."""
        return [Seen(*each) for each in self._cast.tell(order="asked", role=self._number)["asked"]]


class Dropping:
    """
    An address that drops packets: the queue of a listening socket is full, so the kernel drops every SYN.

    :raises OSError: the kernel still takes connections.
    """

    def __init__(self) -> None:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        self.port: int = self._listening.getsockname()[1]
        self._waiting: list[socket.socket] = []
        for _ in range(4):
            # Loopback answers at once: what is not connected by then was dropped. Each holds its place to the end.
            connection = socket.socket()
            connection.settimeout(0.3)
            self._waiting.append(connection)
            try:
                connection.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return
        raise OSError("a full queue of connections drops no SYN here")

    def stop(self) -> None:
        for each in (*self._waiting, self._listening):
            each.close()


@define(eq=False)
class _Playing(Character):
    """Whoever plays the role now; keeps the time of each request, and answers checks."""

    now: Character
    seen: list[tuple[float, str, str]] = field(factory=list)
    health: Good = field(factory=lambda: Good(b"ok\n", etag=None))

    def answer(self, asked: Asked, player: Player) -> None:
        target = asked.target.decode("latin-1")
        if not target.endswith(HEALTH):
            self.seen.append((time.monotonic(), target, asked.fields.get(b"range", b"").decode("latin-1")))
            self.now.answer(asked, player)
        elif isinstance(self.now, Good) and self.now.status.startswith(b"200"):
            self.health.answer(asked, player)
            # Varnish takes the end of the stream for the end of what it checks.
            player.transport.close()
        else:
            self.now.answer(asked, player)


class _Stage:
    """What runs in the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._roles: list[tuple[_Playing, asyncio.Server]] = []

    async def run(self) -> None:
        orders = asyncio.StreamReader()
        await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            try:
                answer = await self._obey(**json.loads(line))
            except (OSError, LookupError) as error:
                answer = {"error": repr(error)}
            # The benchmark waits for this line, so the pipe is never full.
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()

    async def _obey(self, order: str, role: int = -1, part: dict[str, Any] | None = None) -> dict[str, Any]:
        if order == "play":
            playing = _Playing(Part(**part or {}).character())
            server = await self._loop.create_server(playing.player, "127.0.0.1", free_port(), backlog=4096)
            self._roles.append((playing, server))
            return {"role": len(self._roles) - 1, "port": server.sockets[0].getsockname()[1]}
        playing, server = self._roles[role]
        if order == "turn":
            playing.now = Part(**part or {}).character()
        elif order == "refuse":
            server.close()
            for player in list(playing.playing):
                player.transport.abort()
        elif order == "asked":
            return {"asked": playing.seen}
        else:
            raise LookupError(order)
        return {"at": time.monotonic()}


def _plain(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in ("kind", "size", "name", "etag", "after", "max_age")}


def main() -> int:
    import uvloop

    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_Stage(loop).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
