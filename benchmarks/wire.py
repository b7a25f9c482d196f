"""
The wire alone: a constant answer through our connections against nginx serving the same from its cache.

Prints CPU per request of both and their ratio, then what one request head costs to read.
``python benchmarks/wire.py``: about half a minute.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httptools
import uvloop
from attrs import define, evolve

from benchmarks import load
from benchmarks.servers import NginxCache, OriginServer, Program, Side
from benchmarks.tables import table
from edgecache.rules.asking import ask
from edgecache.rules.sites import Sites
from edgecache.wire.fieldlines import Section
from edgecache.wire.listener import Listener
from edgecache.wire.listening import start_server
from edgecache.wire.memo import Memo
from edgecache.wire.requests import Framed, parse
from edgecache.words.config import Config, LimitSettings, NodeSettings, Profile, SiteSettings
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream

ROUNDS, SECONDS, CONNECTIONS = 3, 3, 64
SIZES = [8 << 10, 64 << 10]


class _Counts:
    def add(self, counter: int, n: int = 1) -> None:
        pass


@define(eq=False)
class _Timers:
    _loop: asyncio.AbstractEventLoop

    def seconds(self) -> float:
        return time.monotonic()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, callable, *args)


def serve(port: int, size: int) -> None:
    """In a process of its own: always the same answer."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    content = bytes(size)
    head = (
        b"HTTP/1.1 200 OK\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\nContent-Type: application/octet-stream\r\n"
        b'ETag: "0123456789abcdef"\r\nCache-Control: public, max-age=86400\r\nVia: 1.1 edge\r\nAge: 7\r\n'
        b"Cache-Status: edge; hit; ttl=593\r\nContent-Length: %d\r\n" % size
    )

    def answer(request: Request, downstream: Downstream) -> None:
        downstream.send(head, content)

    listener = Listener(answer, LimitSettings(), _Counts(), _Timers(loop), loop.call_soon)
    listener.start()
    sock = socket.create_server(("127.0.0.1", port), backlog=512)
    start_server(loop, listener, sock)
    gc.freeze()
    loop.run_forever()


def cost(side: Side, size: int) -> float:
    """:return: microseconds of CPU per request."""
    fields = load.PAGE_FIELDS
    ran = load.run(side, False, f"/packages/{size}.whl", connections=CONNECTIONS, seconds=SECONDS, fields=fields)
    return ran.cpu_seconds / ran.requests * 1e6


def serving() -> str:
    rows = [["octets", "wire, µs CPU", "nginx, µs CPU", "ratio"]]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        certificate, key = root / "cert.pem", root / "key.pem"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
        )
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        origin = OriginServer(root / "origin", SIZES)
        nginx = NginxCache(root / "cache", origin, certificate, key)
        try:
            for size in SIZES:
                wire = Program("wire", __file__, str(size))
                try:
                    cost(nginx, size)  # fills
                    pairs = [(cost(wire, size), cost(nginx, size)) for _ in range(ROUNDS)]
                finally:
                    wire.stop()
                ratio = statistics.median(ours / theirs for ours, theirs in pairs)
                ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
                rows.append([str(size), f"{ours:.1f}", f"{theirs:.1f}", f"{ratio:.2f}"])
        finally:
            nginx.stop()
            origin.stop()
    return table(rows)


class _Collecting:
    """The least that a user of httptools must do to have a request's fields; it checks nothing yet."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))


def reading() -> str:
    lines = "".join(f"{name}: {value}\r\n" for name, value in load.PAGE_FIELDS.items())
    head = f"GET /simple/pip/ HTTP/1.1\r\nHost: localhost:8080\r\n{lines}\r\n".encode()
    limits = LimitSettings()
    memo: Memo[Framed] = Memo()
    request = parse(head, limits, secure=False, trusted=False).request
    memo.put(head, parse(head, limits, secure=False, trusted=False))
    tag = (b"if-none-match", b'"f55ab5a69c9978eb35c4f5207d28d0ba"')
    conditional = evolve(request, fields=[*request.fields, tag])
    file = evolve(request, target=b"/files/pip/" + b"ab" * 32 + b"/pip-26.3-py3-none-any.whl")
    sites = Sites(Config(NodeSettings("n"), (SiteSettings("n", Profile.INDEX, origins=("https://index.example",)),)))
    sections: Memo[Section] = Memo()

    def by_httptools() -> None:
        httptools.HttpRequestParser(_Collecting()).feed_data(head)

    ways: list[tuple[str, Callable[[], object]]] = [
        ("remembered", lambda: memo.get(head)),
        ("another target", lambda: parse(head, limits, secure=False, trusted=False, sections=sections)),
        ("parsed and checked", lambda: parse(head, limits, secure=False, trusted=False)),
        ("httptools, unchecked", by_httptools),
        ("what it asks for, another's path", lambda: ask(request, sites)),
        ("... with If-None-Match", lambda: ask(conditional, sites)),
        ("... a file", lambda: ask(file, sites)),
    ]
    rows = [["one pip head", "µs"]]
    for name, way in ways:
        rows.append([name, f"{min(timeit.repeat(way, number=5000, repeat=5)) / 5000 * 1e6:.2f}"])
    return table(rows)


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]))
    else:
        print(reading())
        print(serving())
    return 0


if __name__ == "__main__":
    sys.exit(main())
