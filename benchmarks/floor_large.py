"""
The least that a large miss can cost in this language: a bare program without one of our rules, beside nginx and a node.

``python benchmarks/floor_large.py`` takes about two minutes. The program is one process with an epoll loop of its own.
It reads into chunks as a node's store has them, up to 16 in one call, puts each to xxh3 and sends from where they lie.
It believes everything. Its ways:

* ``relay``: that alone.
* ``stored``: and a thread puts the chunks into LMDB, 8 MiB to a commit that waits for the disk.
* ``unsynced``: the same, and commits wait for nothing (docs/decisions/0300-an-anchor-in-place-of-syncs.md).
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lmdb
from attrs import define, field
from xxhash import xxh3_64_intdigest

from benchmarks.alternating import alternating, compared
from benchmarks.load import FILE_FIELDS, run
from benchmarks.servers import EdgeNode, NginxCache, OriginServer, Program, Side
from edgecache.processes.memory import keep_freed
from edgecache.store.layout import CHECKSUM_FIELD, CHUNK, CHUNK_VALUE, place
from tests.system.certificates import make_certificate

WAYS = ("relay", "stored", "unsynced")
SIZE = 16 << 20
CONNECTIONS = 8
READ_AT_ONCE = 16
GROUP = 128
WAITING = 384
"""Chunks that may wait for the disk; above, nothing is read."""

END = b"\r\n\r\n"


@define(eq=False)
class Store:
    """LMDB and the thread that commits; chunks come back through a pipe that wakes the loop."""

    _env: lmdb.Environment
    _asked: SimpleQueue[tuple[bytes, int, bytearray]] = field(factory=SimpleQueue)
    _done: deque[bytearray] = field(factory=deque)
    _pipe: tuple[int, int] = field(factory=os.pipe)
    waiting: int = 0

    def put(self, content_id: bytes, index: int, chunk: bytearray) -> None:
        self.waiting += 1
        self._asked.put((content_id, index, chunk))

    def run(self) -> None:
        """The thread's."""
        chunks = self._env.open_db(b"chunks")
        while True:
            group = [self._asked.get()]
            while len(group) < GROUP:
                try:
                    group.append(self._asked.get_nowait())
                except Empty:
                    break
            with self._env.begin(write=True) as txn:
                for content_id, index, chunk in group:
                    txn.put(place(content_id, index), chunk, db=chunks)
            self._done.extend(chunk for _, _, chunk in group)
            os.write(self._pipe[1], b"x")

    @property
    def descriptor(self) -> int:
        return self._pipe[0]

    def written(self) -> list[bytearray]:
        """:return: chunks that are wanted no more."""
        os.read(self._pipe[0], 4096)
        done = [self._done.popleft() for _ in range(len(self._done))]
        self.waiting -= len(done)
        return done


@define(eq=False)
class Bare:
    """The loop, and what all connections have in common."""

    origin: int
    store: Store | None
    idle: list[Upstream] = field(factory=list)
    stopped: list[Upstream] = field(factory=list)
    _spare: list[bytearray] = field(factory=list)
    _epoll: select.epoll = field(factory=select.epoll)
    _told: dict[int, Callable[[int], None]] = field(factory=dict)

    def watch(self, descriptor: int, told: Callable[[int], None]) -> None:
        self._told[descriptor] = told
        self._epoll.register(descriptor, select.EPOLLIN)

    def want(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)
        del self._told[descriptor]

    def chunk(self) -> bytearray:
        return self._spare.pop() if self._spare else bytearray(CHUNK_VALUE)

    def give(self, chunks: list[bytearray]) -> None:
        for chunk in chunks:
            try:
                # Its size cannot change while a client is still sent it.
                chunk.append(chunk.pop())
            except BufferError:
                continue
            self._spare.append(chunk)

    def run(self, port: int) -> None:
        listening = socket.create_server(("127.0.0.1", port), backlog=512)
        self.watch(listening.fileno(), lambda _: Downstream(self, listening.accept()[0]).start())
        if self.store is not None:
            self.watch(self.store.descriptor, self._written)
        while True:
            for descriptor, events in self._epoll.poll():
                told = self._told.get(descriptor)
                if told is not None:
                    told(events)

    def _written(self, events: int) -> None:
        assert self.store is not None
        self.give(self.store.written())
        if self.store.waiting < WAITING:
            stopped, self.stopped = self.stopped, []
            for each in stopped:
                self.want(each.descriptor, select.EPOLLIN)


@define(eq=False)
class Downstream:
    """A client's connection."""

    _bare: Bare
    _sock: socket.socket
    pieces: list[memoryview] = field(factory=list)
    upstream: Upstream | None = None
    _blocked: bool = False

    def start(self) -> None:
        self._sock.setblocking(False)
        self._bare.watch(self._sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self.flush()
        if events & ~select.EPOLLOUT and self._sock.fileno() >= 0:
            try:
                request = self._sock.recv(65536)
            except OSError:
                request = b""
            if request:
                self.upstream = self._bare.idle.pop() if self._bare.idle else Upstream.made(self._bare)
                self.upstream.ask(self, request.split(b" ", 2)[1])
            else:
                self._close()

    def flush(self) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            octets = os.writev(self._sock.fileno(), self.pieces[:64]) if self.pieces else 0
        except BlockingIOError:
            octets = 0
        except OSError:
            self._close()
            return
        pieces = self.pieces
        gone = 0
        while gone < len(pieces) and octets >= len(pieces[gone]):
            octets -= len(pieces[gone])
            gone += 1
        del pieces[:gone]
        if octets:
            pieces[0] = pieces[0][octets:]
        if bool(pieces) != self._blocked:
            self._blocked = bool(pieces)
            events = select.EPOLLIN | (select.EPOLLOUT if self._blocked else 0)
            self._bare.want(self._sock.fileno(), events)

    def _close(self) -> None:
        self._bare.forget(self._sock.fileno())
        self._sock.close()
        self.pieces.clear()
        if self.upstream is not None:
            self.upstream.close()


@define(eq=False)
class Upstream:
    """A connection to the origin, which answers as it should: with a length."""

    _bare: Bare
    _sock: socket.socket
    _client: Downstream | None = None
    _content_id: bytes = b""
    _index: int = 0
    # Octets of the content to come, -1 before its head; the chunk that grows and what is in it.
    _left: int = -1
    _chunk: bytearray = field(factory=bytearray)
    _filled: int = 0

    @classmethod
    def made(cls, bare: Bare) -> Upstream:
        sock = socket.create_connection(("127.0.0.1", bare.origin))
        sock.setblocking(False)
        upstream = cls(bare, sock)
        bare.watch(sock.fileno(), upstream._ready)
        return upstream

    @property
    def descriptor(self) -> int:
        return self._sock.fileno()

    def ask(self, client: Downstream, target: bytes) -> None:
        self._client, self._left, self._index, self._filled = client, -1, 0, 0
        self._content_id, self._chunk = os.urandom(16), self._bare.chunk()
        self._sock.sendall(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % target)

    def close(self) -> None:
        self._client = None
        if self in self._bare.stopped:
            self._bare.stopped.remove(self)
        self._bare.forget(self._sock.fileno())
        self._sock.close()

    def _ready(self, events: int) -> None:
        bare, client = self._bare, self._client
        if client is None:
            raise AssertionError("nobody asked")
        if bare.store is not None and bare.store.waiting > WAITING:
            bare.stopped.append(self)
            bare.want(self._sock.fileno(), 0)
            return
        if self._left < 0:
            head, _, begin = self._sock.recv(16384).partition(END)
            self._left = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            client.pieces.append(memoryview(head + END))
            self._chunk[: len(begin)] = begin
            self._came([self._chunk], len(begin), client)
            return
        chunks = [self._chunk]
        while len(chunks) < min(READ_AT_ONCE, (self._left + self._filled) // CHUNK + 1):
            chunks.append(bare.chunk())
        views = [memoryview(chunk)[:CHUNK] for chunk in chunks]
        views[0] = views[0][self._filled :]
        self._came(chunks, self._sock.recvmsg_into(views)[0], client)

    def _came(self, chunks: list[bytearray], octets: int, client: Downstream) -> None:
        bare = self._bare
        self._left -= octets
        while octets:
            chunk = chunks[0]
            part = min(octets, CHUNK - self._filled)
            client.pieces.append(memoryview(chunk)[self._filled : self._filled + part])
            octets -= part
            self._filled += part
            if self._filled == CHUNK:
                CHECKSUM_FIELD.pack_into(chunk, CHUNK, xxh3_64_intdigest(memoryview(chunk)[:CHUNK], self._index))
                if bare.store is not None:
                    bare.store.put(self._content_id, self._index, chunk)
                self._index += 1
                self._filled = 0
                del chunks[0]
        self._chunk = chunks.pop(0) if chunks else bare.chunk()
        bare.give(chunks)
        client.flush()
        if not self._left and self._client is not None:
            self._client = client.upstream = None
            bare.idle.append(self)


def serve(port: int, origin: int, path: str, way: str) -> None:
    """In a process of its own."""
    keep_freed()
    store = None
    if way != "relay":
        store = Store(lmdb.open(path, map_size=24 << 30, max_dbs=4, sync=way == "stored"))
        threading.Thread(target=store.run, daemon=True).start()
    Bare(origin, store).run(port)


def measure(rounds: int, seconds: int) -> str:
    def once(side: Side, number: int) -> tuple[float, float]:
        load = run(
            side,
            False,
            f"/miss/{SIZE}/{number}-",
            connections=CONNECTIONS,
            seconds=seconds if number else 1,
            fields=FILE_FIELDS,
            numbered=True,
        )
        return load.cpu_seconds / load.answers(SIZE) * 1e3, load.octets / load.seconds / (1 << 20)

    with tempfile.TemporaryDirectory(prefix="edgecache-floor-") as name:
        root = Path(name)
        certificate, key = make_certificate(root / "certificate")
        origin = OriginServer(root / "origin", [SIZE])
        sides: list[Side] = []
        try:
            sides.append(NginxCache(root / "nginx", origin, certificate, key))
            sides.append(EdgeNode(root / "edgecache", origin, certificate, key, profile="index", size="24GiB"))
            sides += [Program(way, __file__, str(origin.port), str(root / way), way) for way in WAYS]
            found = alternating(sides, rounds, once)
        finally:
            for stopped in reversed(sides):
                stopped.stop()
            origin.stop()
    return compared(found, NginxCache.name, "CPU ms/miss", "MiB/s")


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        port, origin, path, way = sys.argv[2:]
        serve(int(port), int(origin), path, way)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    options = parser.parse_args()
    print(measure(options.rounds, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
