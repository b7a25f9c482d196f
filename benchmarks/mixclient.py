"""
The client of the mix: so many connections in a closed loop, each with one request after the other.

A process of its own, started by :mod:`benchmarks.mixload` (DIRECTORY PORT CONNECTIONS SECONDS), which prints what it
saw as JSON. wrk copies all content out of the kernel, 8 KiB at a time, and is the bottleneck of such a mix before any
server is; this one has the kernel drop it (``MSG_TRUNC``, tcp(7)) and looks at heads only.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from attrs import Factory, define, field

END = b"\x1e"
"""After each head of the files ``heads`` and ``cold``."""

SMALL = 64 << 10
"""Answers up to this are told apart: larger ones take as long as they are."""

_AT_ONCE = 1 << 20
_HEAD = 32 << 10
_trash = bytearray(_AT_ONCE)


@define(eq=False)
class Seen:
    """
    :ivar waits: seconds from sending a request until its answer was complete, of small answers and of larger ones.
    :ivar failed: answers with a status of 400 and above, connections that broke in the middle.
    """

    octets: int = 0
    statuses: dict[int, int] = Factory(dict)
    small: list[float] = Factory(list)
    large: list[float] = Factory(list)
    failed: int = 0


@define(eq=False)
class Requests:
    """What is asked for next: a number of ``order``, from 1 on one of the heads; 0 is the next cold one."""

    heads: list[bytes]
    cold: list[bytes]
    order: list[int]
    used: int = 0
    _at: int = 0

    def next(self) -> bytes:
        number = self.order[self._at]
        self._at = (self._at + 1) % len(self.order)
        if number:
            return self.heads[number - 1]
        self.used += 1
        return self.cold[(self.used - 1) % len(self.cold)]


@define(eq=False)
class Connection:
    """One connection; :meth:`readable` does as much as can be done without waiting."""

    port: int
    requests: Requests
    seen: Seen
    socket: socket.socket = field(init=False)
    _began: float = 0.0
    _head: bytes = b""
    _rest: int = 0
    _size: int = 0
    _chunked: bool = False
    _closes: bool = False

    def ask(self) -> None:
        self._began = time.perf_counter()
        self._head, self._rest, self._size, self._chunked = b"", -1, 0, False
        self.socket.sendall(self.requests.next())

    def connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(60)

    def readable(self) -> bool:
        """
        :return: the next request was sent; else more is to come.
        :raises OSError: the connection is of no use any more.
        """
        if self._rest > 0 and not self._chunked:
            got = self.socket.recv_into(_trash, min(self._rest, _AT_ONCE), socket.MSG_TRUNC)
            self._rest -= got
        else:
            octets = self.socket.recv(_HEAD)
            got = len(octets)
            self._head += octets
            if self._rest < 0:
                self._read_head()
            elif self._chunked and self._head.endswith(b"0\r\n\r\n"):
                self._rest = 0
        if not got:
            raise ConnectionError("closed in the middle")
        self.seen.octets += got
        self._size += got
        if self._rest:
            return False
        waits = self.seen.small if self._size <= SMALL else self.seen.large
        waits.append(time.perf_counter() - self._began)
        if self._closes:
            raise ConnectionAbortedError
        self.ask()
        return True

    def _read_head(self) -> None:
        """As much of a head as these servers send; whole ones only."""
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, body = self._head[:end].lower(), self._head[end + 4 :]
        status = int(head[9:12])
        self.seen.statuses[status] = self.seen.statuses.get(status, 0) + 1
        self.seen.failed += status >= 400
        self._closes = b"\r\nconnection: close" in head
        _, found, length = head.partition(b"\r\ncontent-length:")
        if status == 304:
            self._rest = 0
        elif found:
            self._rest = int(length.partition(b"\r\n")[0]) - len(body)
        elif b"\r\ntransfer-encoding: chunked" in head:
            self._chunked, self._head = True, body
            self._rest = 0 if body.endswith(b"0\r\n\r\n") else 1
        else:
            raise ConnectionError("an answer without length")


def drive(
    port: int,
    connections: int,
    seconds: float,
    requests: Requests,
    enough: Callable[[Seen], bool] = lambda seen: False,
) -> tuple[Seen, float]:
    """
    :param enough: to end before the time is over.
    :return: what was seen, and in how many seconds.
    """
    seen = Seen()
    poll = select.epoll()
    by_descriptor: dict[int, Connection] = {}

    def start(one: Connection) -> None:
        one.connect()
        by_descriptor[one.socket.fileno()] = one
        poll.register(one.socket.fileno(), select.EPOLLIN)
        one.ask()

    began = time.perf_counter()
    for _ in range(connections):
        start(Connection(port, requests, seen))
    while time.perf_counter() < began + seconds and not enough(seen):
        for descriptor, _ in poll.poll(0.1):
            one = by_descriptor[descriptor]
            try:
                one.readable()
            except OSError as error:
                # A server may close after an answer; anything else is its failure.
                seen.failed += not isinstance(error, ConnectionAbortedError)
                poll.unregister(descriptor)
                del by_descriptor[descriptor]
                one.socket.close()
                start(one)
    took = time.perf_counter() - began
    for one in by_descriptor.values():
        one.socket.close()
    return seen, took


def percentile(waits: list[float], share: float) -> float:
    """:return: 0 of none."""
    return sorted(waits)[int(len(waits) * share)] if waits else 0.0


def main() -> None:
    directory, port = Path(sys.argv[1]), int(sys.argv[2])
    requests = Requests(
        (directory / "heads").read_bytes().split(END)[:-1],
        (directory / "cold").read_bytes().split(END)[:-1],
        [int(word) for word in (directory / "order").read_text().split()],
    )
    seen, took = drive(port, int(sys.argv[3]), float(sys.argv[4]), requests)
    print(
        json.dumps(
            {
                "requests": len(seen.small) + len(seen.large),
                "octets": seen.octets,
                "seconds": took,
                "failed": seen.failed,
                "unmodified": seen.statuses.get(304, 0),
                "p50_seconds": percentile(seen.small, 0.5),
                "p99_seconds": percentile(seen.small, 0.99),
                "large_p50_seconds": percentile(seen.large, 0.5),
                "large_p99_seconds": percentile(seen.large, 0.99),
                "used": requests.used,
                "generator_seconds": time.process_time(),
            }
        )
    )


if __name__ == "__main__":
    main()
