"""
The least that a small miss can cost in this language: a bare program without one of our rules, beside nginx and a node.

``python benchmarks/floor.py`` takes about two minutes. The program is one process on uvloop, with httptools on both
sides. It understands what it must to know where a message ends, keeps connections to the origin, and believes
everything. Its ways, each with all that the one before does:

* ``relay``: a request comes, goes on, and its answer goes back.
* ``looked up``: it is looked up in LMDB first, and not found; the content is put to xxh3.
* ``stored``: and put into LMDB with a row of a queue, by a thread that commits in groups and syncs, as a node's does.
* ``unsynced``: the same, but nothing is synced, as nginx does it.

No node can cost less than ``stored`` as long as it is written in Python and keeps what it has promised to keep. What
each step of the interpreter adds to it: docs/decisions/0290-the-floor-of-small-misses.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import socket
import sys
import tempfile
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httptools
import lmdb
import uvloop
from attrs import define, field
from xxhash import xxh3_64_intdigest

from benchmarks.alternating import alternating, compared
from benchmarks.load import PAGE_FIELDS, run
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Program, Side
from edgecache.store.committing import GROUP_OCTETS, GROUP_OPERATIONS
from edgecache.store.layout import CHECKSUM_FIELD, QUEUE_ROW, U64_KEY
from edgecache.store.opening import READERS
from tests.system.certificates import make_certificate

WAYS = ("relay", "looked up", "stored", "unsynced")
SIZE = 8192

_ASKED = b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\nAccept: */*\r\nVia: 1.1 floor\r\n\r\n"
_AGENT = PAGE_FIELDS["User-Agent"].encode()


@define(eq=False)
class Store:
    """
    LMDB as a node opens it for small contents, and the thread that commits (``edgecache.store.committing``).

    :ivar env: one value per response, which has the record and its content, and a row of the queue.
    """

    env: lmdb.Environment
    _records: lmdb._Database
    _queue: lmdb._Database
    _asked: SimpleQueue[tuple[bytes, bytes]] = field(factory=SimpleQueue)
    _next: int = 1

    @classmethod
    def open(cls, path: str, *, sync: bool) -> Store:
        env = lmdb.open(path, map_size=24 << 30, max_dbs=4, max_readers=READERS, readahead=False, sync=sync)
        return cls(env, env.open_db(b"records"), env.open_db(b"queue"))

    def has(self, key_hash: bytes) -> bool:
        with self.env.begin() as txn:
            return txn.get(key_hash, None, self._records) is not None

    def put(self, key_hash: bytes, value: bytes) -> None:
        self._asked.put((key_hash, value))

    def run(self) -> None:
        """The thread's."""
        while True:
            group = [self._asked.get()]
            octets = 0
            while octets < GROUP_OCTETS and len(group) < GROUP_OPERATIONS:
                try:
                    group.append(self._asked.get_nowait())
                except Empty:
                    break
                octets += len(group[-1][1])
            with self.env.begin(write=True) as txn:
                for key_hash, value in group:
                    txn.put(key_hash, value, db=self._records)
                    row = QUEUE_ROW.pack(key_hash, key_hash[:16], len(value), 0)
                    txn.put(U64_KEY.pack(self._next), row, db=self._queue)
                    self._next += 1


@define(eq=False)
class Bare:
    """
    What all connections of the program have in common.

    :ivar idle: connections to the origin; nobody but us closes them.
    """

    loop: asyncio.AbstractEventLoop
    origin: int
    store: Store | None
    writes: bool
    idle: list[Upstream] = field(factory=list)

    def ask(self, client: Downstream, target: bytes) -> None:
        key_hash = hashlib.blake2b(target, digest_size=32).digest()
        if self.store is not None and self.store.has(key_hash):
            raise AssertionError("every target is asked for once")
        head = _ASKED % (target, b"127.0.0.1:%d" % self.origin, _AGENT)
        if self.idle:
            self.idle.pop().ask(client, key_hash, head)
        else:
            connecting = self.loop.create_connection(lambda: Upstream(self), "127.0.0.1", self.origin)
            self.loop.create_task(connecting).add_done_callback(
                lambda made: made.result()[1].ask(client, key_hash, head)
            )


class Downstream(asyncio.Protocol):
    """A client's connection. Its requests have no content."""

    def __init__(self, bare: Bare) -> None:
        self._bare = bare
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_message_complete(self) -> None:
        self._bare.ask(self, self._target)


class Upstream(asyncio.Protocol):
    """A connection to the origin, which answers as it should: with a length."""

    def __init__(self, bare: Bare) -> None:
        self._bare = bare
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, client: Downstream, key_hash: bytes, head: bytes) -> None:
        self._client, self._key_hash = client, key_hash
        self._octets: list[bytes] = []
        self._content: list[bytes] = []
        self._transport.write(head)

    def data_received(self, data: bytes) -> None:
        self._octets.append(data)
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._content.append(body)

    def on_message_complete(self) -> None:
        bare = self._bare
        answer = b"".join(self._octets)
        if not self._client.transport.is_closing():
            self._client.transport.write(answer)
        if bare.store is not None:
            checksum = xxh3_64_intdigest(b"".join(self._content))
            if bare.writes:
                bare.store.put(self._key_hash, CHECKSUM_FIELD.pack(checksum) + answer)
        bare.idle.append(self)


def serve(port: int, origin: int, path: str, way: str) -> None:
    """In a process of its own."""
    loop = uvloop.new_event_loop()
    store = None if way == "relay" else Store.open(path, sync=way != "unsynced")
    writes = way in ("stored", "unsynced")
    if store is not None and writes:
        threading.Thread(target=store.run, daemon=True).start()
    bare = Bare(loop, origin, store, writes)
    sock = socket.create_server(("127.0.0.1", port), backlog=512)
    loop.run_until_complete(loop.create_server(lambda: Downstream(bare), sock=sock))
    gc.freeze()
    loop.run_forever()


def measure(options: argparse.Namespace) -> str:
    def once(side: Side, number: int) -> tuple[float, float]:
        load = run(
            side,
            False,
            f"/miss/{SIZE}/{number}-",
            connections=options.connections,
            seconds=options.seconds if number else 1,
            fields=PAGE_FIELDS,
            numbered=True,
        )
        return load.cpu_seconds / load.requests * 1e6, load.requests / load.seconds

    with tempfile.TemporaryDirectory(prefix="edgecache-floor-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", [SIZE])
        stops = [origin.stop]
        try:
            sides: list[Side] = []
            nginx = NginxCache(root / "nginx", origin, certificate, key)
            stops.append(nginx.stop)
            node = EdgeNode(root / "edgecache", origin, certificate, key, profile=options.profile, size="24GiB")
            stops.append(node.stop)
            sides += [nginx, node]
            for way in WAYS:
                floor = Program(way, __file__, str(origin.port), str(root / way.replace(" ", "-")), way)
                stops.append(floor.stop)
                sides.append(floor)
            found = alternating(sides, options.rounds, once)
        finally:
            for stop in reversed(stops):
                stop()
    return compared(found, nginx.name, "CPU µs/miss", "misses/s")


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        port, origin, path, way = sys.argv[2:]
        serve(int(port), int(origin), path, way)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--profile", choices=("index", "plain"), default="index", help="of the node's site")
    options = parser.parse_args()
    print(measure(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
