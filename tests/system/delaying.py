"""
A TCP proxy that keeps octets waiting: between two nodes, as a long cable is.

``python -m tests.system.delaying`` is one in a process of its own, for another network namespace. Each argument is
``PORT=HOST:PORT``: where it listens on loopback, and who is behind it. Each line on its standard input is a delay in
seconds, for both directions from then on.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping

from attrs import define, field

from tests.system.harness import IMPORT_ROOT, environment
from tests.system.namespaces import DIE_WITH_US

_PIECE = 1 << 16


@define(eq=False)
class Delaying:
    """:ivar seconds: that each octet takes in each direction."""

    seconds: float = 0.0
    _tasks: set[asyncio.Task[None]] = field(factory=set)

    async def listen(self, port: int, host: str, behind: int) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                other_reader, other = await asyncio.open_connection(host, behind)
            except OSError:
                writer.transport.abort()
                return
            for source, sink in ((reader, other), (other_reader, writer)):
                task = asyncio.create_task(self._pass_on(source, sink))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        await asyncio.start_server(accepted, "127.0.0.1", port)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        last = 0.0
        try:
            while piece := await source.read(_PIECE):
                # In their order, also when the delay becomes shorter.
                last = max(last, loop.time() + self.seconds)
                loop.call_at(last, sink.write, piece)
            last = max(last, loop.time() + self.seconds)
            loop.call_at(last, sink.close)
        except OSError:
            sink.transport.abort()


class DelayingProcess:
    """One that was started, and is told what to do."""

    def __init__(self, prefix: tuple[str, ...], behind: Mapping[int, str]) -> None:
        """
        :param prefix: words before the command.
        :param behind: by port: host and port.
        """
        words = [f"{port}={where}" for port, where in behind.items()]
        self._process = subprocess.Popen(
            [*DIE_WITH_US, *prefix, sys.executable, "-m", "tests.system.delaying", *words],
            cwd=IMPORT_ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_ready(self) -> None:
        """
        :raises AssertionError: it does not come.
        """
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def delay(self, seconds: float) -> None:
        """From now on, each octet."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%f\n" % seconds)
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


async def main(words: list[str]) -> None:
    proxy = Delaying()
    for word in words:
        port, _, where = word.partition("=")
        host, _, behind = where.rpartition(":")
        await proxy.listen(int(port), host, int(behind))
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await lines.readline():
        proxy.seconds = float(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
