"""A node's workers inside the test's process: real sockets, a real store, an origin that follows a script."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet import reactor as installed  # noqa: TID251  # the one that conftest installed
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from edgecache.processes.channel import LineChannel, pair
from edgecache.processes.timers import LoopTimers
from edgecache.rules.selectors import rows_of
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.owed import Owed
from edgecache.store.page import Page
from edgecache.store.pagelayout import FREE
from edgecache.store.pagewriter import PageWriter
from edgecache.store.threads import OneThread
from edgecache.upstream.addresses import parse_origin
from edgecache.words.config import (
    Config,
    IndexSettings,
    NodeSettings,
    Policy,
    Profile,
    SiteSettings,
    StoreSettings,
    UpstreamSettings,
)
from edgecache.words.reasons import PurgeMode
from edgecache.workerparts import WorkerParts
from edgecache.workers import Worker, start_worker

reactor: Any = installed

# So long that a test which waits for it never ends.
NEVER = 1000.0
# However busy the machine is, nobody is late. What a test is about is shorter.
PATIENT = UpstreamSettings(
    connect_seconds=NEVER,
    next_address_seconds=NEVER,
    tls_seconds=NEVER,
    head_seconds=NEVER,
    stall_seconds=NEVER,
    first_byte_seconds=NEVER,
    hedge_share=0.0,
)

Script = Callable[["Exchange"], Awaitable[None]]


@define(eq=False)
class Exchange:
    """One request as the origin sees it."""

    method: str
    target: str
    fields: dict[str, str]
    content: bytes
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter

    async def send(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()

    async def answer(self, content: bytes = b"", *fields: str, status: str = "200 OK", length: bool = True) -> None:
        """A whole response."""
        lines = [f"HTTP/1.1 {status}", *fields, *([f"Content-Length: {len(content)}"] if length else [])]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if self.method == "HEAD" else content))

    @property
    def port(self) -> int:
        """Of the origin that was asked."""
        return int(self._writer.get_extra_info("sockname")[1])

    def cut(self) -> None:
        """Close without a word."""
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset."""
        self._writer.transport.abort()

    async def wait_closed(self) -> None:
        """Until the node has closed this connection."""
        await self._reader.read()


@define(eq=False)
class Origin:
    """
    An origin server; ``scripts`` says what it does for each target.

    :ivar seen: every request, in the order in which they came.
    """

    scripts: dict[str, Script] = field(factory=dict)
    seen: list[Exchange] = field(factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections, and end those that are there."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()
            self._server = None

    def count(self, target: str) -> int:
        return sum(one.target == target for one in self.seen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                fields: dict[str, str] = {}
                for line in head[1:-2]:
                    name, _, value = line.partition(":")
                    fields[name.lower()] = value.strip()
                content = await reader.readexactly(int(fields.get("content-length", "0")))
                exchange = Exchange(method, target, fields, content, reader, writer)
                self.seen.append(exchange)
                await self.scripts[target](exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the node has closed: that is how connections end
        finally:
            self._open.discard(writer)
            writer.close()


@define
class Answer:
    """A response as the client sees it; ``complete`` is false when it broke off."""

    status: int
    fields: dict[str, str]
    content: bytes = b""
    complete: bool = True

    @property
    def cache_status(self) -> str:
        return self.fields.get("cache-status", "")

    @property
    def hit(self) -> bool:
        return "; hit" in self.cache_status


@define(eq=False)
class Client:
    """One connection of one client. Every answer's framing is read as RFC 9112 §6.3 has it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, target: str, *fields: str, method: str = "GET", content: bytes = b"") -> None:
        host = () if any(field.startswith("Host:") for field in fields) else ("Host: edge.test",)
        lines = [f"{method} {target} HTTP/1.1", *host, *fields]
        if content:
            lines.append(f"Content-Length: {len(content)}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    async def head(self) -> Answer:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        return Answer(int(lines[0].split(" ")[1]), fields)

    async def receive(self, method: str = "GET") -> Answer:
        answer = await self.head()
        try:
            if method == "HEAD" or answer.status in (204, 304):
                return answer
            if answer.fields.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    answer.content += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                answer.content = await self.reader.readexactly(int(answer.fields["content-length"]))
        except asyncio.IncompleteReadError as broken:
            answer.content += broken.partial
            answer.complete = False
        return answer

    async def ask(self, target: str, *fields: str, method: str = "GET", content: bytes = b"") -> Answer:
        self.send(target, *fields, method=method, content=content)
        return await self.receive(method)

    def leave(self) -> None:
        """Reset: an end in order may come from one who still wants the answer."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RigCase(TestCase):
    """
    A test case with workers, an origin and clients; tests are coroutines of asyncio, see :meth:`run_async`.

    :ivar clock: none: time is real here, and nothing asserts any.
    :cvar origins: of the one site; each is an origin server of its own.
    :cvar site: further settings of it.
    :cvar scheme: by which they are asked; they speak HTTP without TLS whatever it says.
    :ivar origin: the first of them.
    :ivar others: the rest.
    :ivar links: hosts that a worker has announced because a page links there.
    :ivar names: addresses of such hosts.
    :ivar told: how exchanges failed, as the workers tell the node process.
    """

    profile = Profile.PLAIN
    policy = Policy.ROUND_ROBIN
    origins = 1
    scheme = "http"
    site: ClassVar[dict[str, Any]] = {}
    fallback_seconds = 5.0
    page_seconds = 10.0
    page_octets = 1 << 20
    workers = 1
    upstream = PATIENT

    def run_async(self, test: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Run ``test`` between :meth:`_start` and :meth:`_stop`."""

        async def whole() -> None:
            await self._start()
            try:
                await asyncio.wait_for(test, 100)
            finally:
                await self._stop()

        return Deferred.fromFuture(asyncio.ensure_future(whole()))

    async def client(self, worker: int = 0, *, receive_octets: int = 0) -> Client:
        """:param receive_octets: of the kernel's buffer; 0 for its own choice."""
        sock = socket.socket()
        if receive_octets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_octets)
        sock.setblocking(False)
        await self._loop.sock_connect(sock, ("127.0.0.1", self._ports[worker]))
        reader, writer = await asyncio.open_connection(sock=sock)
        self._clients.append(writer)
        return Client(reader, writer)

    async def ask(
        self, target: str, *fields: str, worker: int = 0, method: str = "GET", content: bytes = b""
    ) -> Answer:
        """One request on a connection of its own."""
        client = await self.client(worker)
        return await client.ask(target, *fields, method=method, content=content)

    async def hit(self, target: str, *fields: str) -> Answer:
        """Ask until it is a hit: a record is committed a moment after its last octet was sent."""
        for _ in range(10_000):
            answer = await self.ask(target, *fields)
            if answer.hit:
                return answer
            await asyncio.sleep(0.005)
        raise AssertionError(f"{target} never becomes a hit: {answer}")

    async def until(self, what: Callable[[], bool]) -> None:
        """Let the loop turn until ``what`` holds."""
        for _ in range(10_000):
            if what():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("never happened")

    async def purge(self, *selectors: Any, mode: int = 2) -> int:
        rows = rows_of((one.canonical for one in selectors), PurgeMode(mode))
        return int(await self._control.local(rows).asFuture(self._loop))

    def counter(self, counter: int, worker: int = 0) -> int:
        return self._pages[worker].get(counter)

    async def _start(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._clients: list[asyncio.StreamWriter] = []
        self.origin, *self.others = servers = [Origin() for _ in range(self.origins)]
        for server in servers:
            await server.start()
        self.directory = tempfile.mkdtemp(prefix="edgecache-test-")
        urls = tuple(f"{self.scheme}://127.0.0.1:{server.port}" for server in servers)
        self.known = {parse_origin(url).name: [["127.0.0.1", parse_origin(url).port, n]] for n, url in enumerate(urls)}
        self.config = Config(
            NodeSettings(id="node-a", data=self.directory, workers=self.workers),
            (
                SiteSettings(
                    "main",
                    self.profile,
                    urls,
                    policy=self.policy,
                    fallback_seconds=self.fallback_seconds,
                    page_seconds=self.page_seconds,
                    **self.site,
                ),
            ),
            store=StoreSettings(size=64 << 20),
            upstream=self.upstream,
            index=IndexSettings(page_octets=self.page_octets, downloads=False),
        )
        self._environments = Environments.open(self.directory, self.config.store, node_process=True)
        self._page = PageWriter.create(os.path.join(self.directory, "page"), self.workers)
        self._page.publish_fresh_until(FREE)
        self._thread = OneThread.named(reactor, "control")
        self._thread.start()
        self._control = Control.open(
            self._environments.control,
            self._page,
            self._thread,
            node_id="node-a",
            incarnation=self._environments.incarnation,
        )
        self._owed = Owed(lambda rows: self._control.local(rows), self._page, LoopTimers(loop), maybeDeferred)
        self._ports, self._workers, self._sockets = [], [], []
        self.nodes: list[LineChannel] = []
        self.told: list[str] = []
        self.links: list[str] = []
        self.names = {"localhost": "127.0.0.1"}
        self._pages = [Page.open(self._page.path, index) for index in range(self.workers)]
        paths = [os.path.join(self.directory, f"owner-{index}.sock") for index in range(self.workers)]
        for index in range(self.workers):
            await self._start_worker(index, paths if self.workers > 1 else [], loop)

    async def _start_worker(self, index: int, paths: list[str], loop: asyncio.AbstractEventLoop) -> None:
        public = socket.create_server(("127.0.0.1", 0))
        owner = None
        if paths:
            owner = socket.socket(socket.AF_UNIX)
            owner.bind(paths[index])
            owner.listen()
            self._sockets.append(owner)
        self._sockets.append(public)
        self._ports.append(public.getsockname()[1])
        node, channel = pair(loop.call_soon)
        self._serve(node)
        parts = WorkerParts(
            config=self.config,
            index=index,
            count=self.workers,
            spawn=index + 1,
            data=self.directory,
            page=self._pages[index],
            environments=self._environments,
            channel=channel,
            sockets=[public],
            owner_socket=owner,
            owner_paths=paths,
            reactor=reactor,
            loop=loop,
        )
        self._workers.append(await Deferred.fromCoroutine(start_worker(parts)).asFuture(loop))
        self.nodes.append(node)
        node.notify("addresses", origins=self.known)
        await asyncio.sleep(0)

    def _serve(self, node: LineChannel) -> None:
        async def outdated(rows: list[list[Any]]) -> None:
            await self._owed.local([(bytes.fromhex(text), number, mode) for text, number, mode in rows])

        async def link(origin: str) -> None:
            found = parse_origin(origin)
            self.links.append(origin)
            host = self.names.get(found.host)
            if host is not None:
                self.known[origin] = [[host, found.port, 100 + len(self.known)]]
                node.notify("addresses", origins=self.known)

        node.on("link", lambda origin: Deferred.fromCoroutine(link(origin)))
        node.on("outcomes", lambda outcomes: self.told.extend(kind for _, _, _, kind, _, _ in outcomes if kind))
        node.on("outdated", lambda rows: Deferred.fromCoroutine(outdated(rows)))

    async def _stop(self) -> None:
        for writer in self._clients:
            writer.close()
        for server in (self.origin, *self.others):
            await server.stop()
        worker: Worker
        for worker in self._workers:
            await Deferred.fromCoroutine(worker.stop()).asFuture(self._loop)
        self._owed.stop()
        await self._control.close().asFuture(self._loop)
        self._thread.stop()
        for sock in self._sockets:
            sock.close()
        for page in self._pages:
            page.close()
        self._page.close()
        self._environments.close()
        shutil.rmtree(self.directory)
