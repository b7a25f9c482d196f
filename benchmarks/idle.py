"""
What connections cost that do nothing, or next to nothing, beside nginx's proxy_cache with one worker.

Idle: each has asked once, for 8 KiB and 64 KiB in turn, keeps its connection and says no more. Slow readers: each asks
for 64 MiB and takes a few KiB a second. Meanwhile others ask at a fixed rate; their p99 before and during is shown.
Memory is RssAnon of the worker, against what it was before those connections, and against what it was at its start.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from attrs import define, field, frozen

from benchmarks.others import others
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Side
from benchmarks.tables import table, told
from tests.system import processes
from tests.system.certificates import make_certificate

KIB, MIB = 1 << 10, 1 << 20
SMALL, MIDDLE, LARGE = 8 * KIB, 64 * KIB, 64 * MIB

IDLE_GOAL = {False: 4.0, True: 32.0}
SLOW_GOAL = 96.0
OWN_GOAL = 64.0
"""KiB per connection, and MiB of a worker over its start besides them (DESIGN 13)."""

PER_ADDRESS = 900
"""Clients of one address: a node lets one have 1,000 connections."""

RECEIVE_BUFFER = 16 * KIB
SETTLING_SECONDS = 2.0
"""A worker looks each second whether a crowd has gone, whose memory it can give back."""

FLOW_SECONDS = 6.0
GONE_SECONDS = 2.0
"""What a crowd took is given back within the seconds after it: deadlines are looked at once a second."""


@frozen
class Figure:
    """One kind of connection at one side."""

    kind: str
    side: str
    connections: int
    per_connection_kib: float
    worker_mib: float
    p99_before: float
    p99_during: float
    left_mib: float

    def row(self) -> list[str]:
        """For the table."""
        return [
            self.kind,
            self.side,
            str(self.connections),
            f"{self.per_connection_kib:.1f}",
            f"{self.worker_mib:.1f}",
            f"{self.p99_before * 1e3:.1f}",
            f"{self.p99_during * 1e3:.1f}",
            f"{self.left_mib:.1f}",
        ]


HEAD = ["", "", "connections", "KiB each", "worker MiB over start", "others' p99 ms before", "during", "MiB left over"]


@define(eq=False)
class Crowd:
    """Connections to one side, kept until it goes."""

    url: str
    context: ssl.SSLContext
    sockets: list[socket.socket] = field(factory=list)

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """One more, from an address that has not too many yet."""
        parts = urlsplit(self.url)
        sock = socket.socket()
        sock.settimeout(60)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.bind((f"127.0.2.{1 + len(self.sockets) // PER_ADDRESS}", 0))
        sock.connect((str(parts.hostname), parts.port))
        if parts.scheme == "https":
            sock = self.context.wrap_socket(sock)
        self.sockets.append(sock)
        return sock

    def ask(self, sock: socket.socket, size: int) -> None:
        sock.sendall(f"GET {target_of(size)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def leave(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


def target_of(size: int) -> str:
    """Of the object of this size."""
    return f"/packages/{size}.whl"


def answer(sock: socket.socket, size: int) -> None:
    """
    Read a whole response.

    :raises AssertionError: it is none.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(64 * KIB)
        if not piece:
            raise AssertionError(f"closed after {data[:200]!r}")
        data += piece
    head, _, content = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise AssertionError(repr(head[:200]))
    left = size - len(content)
    while left > 0:
        left -= len(sock.recv(64 * KIB))


def p99_of_others(side: Side, rate: float) -> float:
    """Of clients who ask for 8 KiB, plain. TLS has another port, and often another process: nobody asks there."""
    return others(side.url(False), target_of(SMALL), rate, FLOW_SECONDS).p99


def anonymous(side: Side, tls: bool) -> int:
    """Octets of the processes that serve."""
    return processes.anonymous_octets(side.counted(tls))


def settled(side: Side, tls: bool) -> int:
    """The same, once it has stopped falling: what has gone is given back a little later."""
    time.sleep(SETTLING_SECONDS)
    return anonymous(side, tls)


@contextmanager
def reading_slowly(crowd: Crowd, pause_seconds: float) -> Iterator[None]:
    """Each takes a few KiB now and then: less often would be cut."""
    over = threading.Event()

    def read() -> None:
        while not over.wait(pause_seconds):
            for sock in crowd.sockets:
                sock.recv(4 * KIB)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def idle(side: Side, tls: bool, count: int, rate: float, context: ssl.SSLContext, start: int) -> Figure:
    """Connections that have asked once."""
    before_p99 = 0.0 if tls else p99_of_others(side, rate)
    crowd = Crowd(side.url(tls), context)
    # What is made once, whoever comes.
    warm(side, tls, context)
    before = settled(side, tls)
    try:
        sizes = itertools.cycle((SMALL, MIDDLE))
        for _ in range(count):
            sock, size = crowd.connect(), next(sizes)
            crowd.ask(sock, size)
            answer(sock, size)
        during = 0.0 if tls else p99_of_others(side, rate)
        after = settled(side, tls)
    finally:
        crowd.leave()
    time.sleep(GONE_SECONDS)
    left = (settled(side, tls) - start) / MIB
    kind = f"idle {'TLS' if tls else 'plain'}"
    return Figure(
        kind, side.name, count, (after - before) / count / KIB, (after - start) / MIB, before_p99, during, left
    )


def slow(side: Side, tls: bool, count: int, rate: float, context: ssl.SSLContext, start: int) -> Figure:
    """Connections that take next to nothing of a large response."""
    before_p99 = 0.0 if tls else p99_of_others(side, rate)
    crowd = Crowd(side.url(tls), context)
    before = settled(side, tls)
    try:
        for _ in range(count):
            crowd.ask(crowd.connect(RECEIVE_BUFFER), LARGE)
        for sock in crowd.sockets:
            sock.recv(4 * KIB)
        with reading_slowly(crowd, 1.0):
            during = 0.0 if tls else p99_of_others(side, rate)
            after = settled(side, tls)
    finally:
        crowd.leave()
    time.sleep(GONE_SECONDS)
    left = (settled(side, tls) - start) / MIB
    kind = f"slow {'TLS' if tls else 'plain'}"
    return Figure(
        kind, side.name, count, (after - before) / count / KIB, (after - start) / MIB, before_p99, during, left
    )


def warm(side: Side, tls: bool, context: ssl.SSLContext) -> None:
    """A few of each size, so that all is stored and whatever is made once is made."""
    crowd = Crowd(side.url(tls), context)
    for size in (SMALL, MIDDLE, LARGE, SMALL, MIDDLE):
        sock = crowd.connect()
        crowd.ask(sock, size)
        answer(sock, size)
    crowd.leave()


def verdicts(figures: list[Figure]) -> list[tuple[bool, str]]:
    """What DESIGN 13 wants, of ours."""
    found = []
    for each in (figure for figure in figures if figure.side == "edgecache"):
        tls = each.kind.endswith("TLS")
        goal = IDLE_GOAL[tls] if each.kind.startswith("idle") else SLOW_GOAL
        text = f"{each.kind}: {each.per_connection_kib:.1f} KiB per connection (goal: {goal:g})"
        found.append((each.per_connection_kib <= goal, text))
        # What went before has left a heap with holes, which these fill: so it is what is left after each that counts.
        text = f"{each.kind}: {each.left_mib:.1f} MiB over the worker's start when they have gone (goal: {OWN_GOAL:g})"
        found.append((each.left_mib <= OWN_GOAL, text))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--idle-tls", type=int, default=5000)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--rate", type=float, default=200.0, help="of the others, per second")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="500 idle ones of each kind, 100 slow ones")
    options = parser.parse_args()
    counts = (500, 500, 100) if options.quick else (options.idle, options.idle_tls, options.slow)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="edgecache-idle-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", [SMALL, MIDDLE, LARGE])
        stops = [origin.stop]
        try:
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            ours = EdgeNode(root / "edgecache", origin, certificate, key, profile="index")
            stops.append(ours.stop)
            sides: list[Side] = [nginx, ours]
            starts = {(side.name, tls): settled(side, tls) for side in sides for tls in (False, True)}
            for side in sides:
                for tls in (False, True):
                    warm(side, tls, context)
            for _ in range(options.rounds):
                for tls in (False, True):
                    for side in sides:
                        start = starts[side.name, tls]
                        figures.append(idle(side, tls, counts[1 if tls else 0], options.rate, context, start))
                        print(*figures[-1].row(), flush=True)
                    for side in sides:
                        start = starts[side.name, tls]
                        figures.append(slow(side, tls, counts[2], options.rate, context, start))
                        print(*figures[-1].row(), flush=True)
        finally:
            for stop in reversed(stops):
                stop()

    print()
    print(table([HEAD, *(each.row() for each in figures)]), end="\n\n")
    moved = [each.p99_during / each.p99_before for each in figures if each.side == "edgecache" and each.p99_before]
    print(f"others' p99 at ours, during to before: {statistics.median(moved):.2f}")
    return told(verdicts(figures))


if __name__ == "__main__":
    sys.exit(main())
