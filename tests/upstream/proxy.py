"""A small CONNECT proxy on a real socket (RFC 9110 §9.3.6)."""

from __future__ import annotations

import asyncio

from attrs import define, field
from twisted.internet.defer import Deferred

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@define(eq=False)
class Proxy:
    """
    Connects to what ``hosts`` says is behind a name, and carries octets both ways.

    :ivar hosts: ``host:port`` to a port of loopback; what is not in it cannot be reached (502).
    :ivar wanted: value of Proxy-Authorization without which it answers 407.
    :ivar established: its answer once it is connected.
    :ivar heads: of every CONNECT, as they came.
    :ivar carried: octets from its clients after that, all connections together.
    """

    hosts: dict[bytes, int]
    wanted: bytes | None = None
    established: bytes = ESTABLISHED
    heads: list[bytes] = field(factory=list)
    carried: bytearray = field(factory=bytearray)
    _server: asyncio.Server = field(init=False)
    _tasks: set[asyncio.Task[None]] = field(factory=set)

    @property
    def port(self) -> int:
        """On 127.0.0.1."""
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def start(self, loop: asyncio.AbstractEventLoop) -> Deferred[None]:
        """:return: fires once it listens."""
        return Deferred.fromFuture(loop.create_task(self.open()))

    def stop(self, loop: asyncio.AbstractEventLoop) -> Deferred[None]:
        """:return: fires once nothing of it runs."""
        return Deferred.fromFuture(loop.create_task(self.close()))

    async def open(self) -> None:
        """Listen, on the loop that runs this."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Returns once nothing of it runs."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._tunnel(reader, writer)
        except ConnectionError:
            pass  # Whoever has gone needs no answer.
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        method, target, _ = head.split(b"\r\n")[0].split(b" ")
        assert method == b"CONNECT"
        if self.wanted is not None and b"\r\nProxy-Authorization: %b\r\n" % self.wanted not in head:
            writer.write(b"HTTP/1.1 407 %b is wrong\r\nProxy-Authenticate: Basic\r\n\r\n" % _given(head))
        elif target not in self.hosts:
            writer.write(b"HTTP/1.1 502 no such host\r\nContent-Length: 6\r\n\r\nsorry\n")
        else:
            inward, outward = await asyncio.open_connection("127.0.0.1", self.hosts[target])
            writer.write(self.established)
            try:
                await asyncio.gather(self._carry(reader, outward, self.carried), self._carry(inward, writer, None))
            finally:
                outward.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: bytearray | None) -> None:
        while data := await source.read(65536):
            if seen is not None:
                seen += data
            sink.write(data)
            await sink.drain()
        sink.write_eof()


def _given(head: bytes) -> bytes:
    """A careless proxy repeats in its answer what it was given."""
    return head.partition(b"Proxy-Authorization: ")[2].partition(b"\r\n")[0] or b"nothing"
