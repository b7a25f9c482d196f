"""
An origin server on real sockets that remembers what it was asked, and can be held in the middle of a body.

It runs on threads of the test's process, so that a test holds, changes and stops it by plain calls.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from attrs import define, field, frozen

from tests.system.contents import PIECE, Content, Octets

# Longer than any test waits, shorter than a pytest run that hangs for ever.
_HELD_SECONDS = 300.0


@frozen
class Seen:
    """One request as it arrived; names of fields in lower case."""

    method: str
    target: str
    fields: dict[str, str]


BEFORE_HEAD = -1


@define(eq=False)
class Hold:
    """
    A barrier in the middle of a body: ``reached`` when the first ``after`` octets were sent, and nothing more until
    ``release``. ``BEFORE_HEAD`` holds the whole response.
    """

    after: int
    reached: threading.Event = field(factory=threading.Event)
    released: threading.Event = field(factory=threading.Event)

    def wait_reached(self) -> None:
        """
        :raises AssertionError: when nobody asked.
        """
        if not self.reached.wait(_HELD_SECONDS):
            raise AssertionError("the origin was never asked for the held content")

    def release(self) -> None:
        self.released.set()

    def stand(self) -> bool:
        """For the origin: wait here. False when nobody released it in five minutes."""
        self.reached.set()
        return self.released.wait(_HELD_SECONDS)


@define(eq=False)
class Reply:
    """
    What the origin answers.

    :ivar interim: octets that come before its head, a 103 for one.
    """

    content: Content
    status: int = 200
    fields: tuple[tuple[str, str], ...] = (("Cache-Control", "max-age=86400"),)
    etag: str | None = None
    hold: Hold | None = None
    interim: bytes = b""


def text(content: str, *fields: tuple[str, str], etag: str | None = None, hold: Hold | None = None) -> Reply:
    """A small reply, fresh for a day unless the fields say otherwise."""
    if not any(name.lower() == "cache-control" for name, _ in fields):
        fields = (("Cache-Control", "max-age=86400"), *fields)
    return Reply(Octets(content.encode()), fields=(("Content-Type", "text/plain"), *fields), etag=etag, hold=hold)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    origin: Origin

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A proxy that was killed leaves in the middle: that is what the tests do, not an error to print."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.origin._opened(self.connection)

    def finish(self) -> None:
        self.server.origin._closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: ``Origin.seen`` is the record."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length:
            self.rfile.read(length)
        fields = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, self.path, fields)
        reply = self.server.origin._reply_to(seen)
        if reply.hold is not None and reply.hold.after == BEFORE_HEAD and not reply.hold.stand():
            self.close_connection = True
            return
        status, start, stop = _selected(reply, seen)
        head = [f"HTTP/1.1 {status} x", f"Date: {self.date_time_string()}"]
        head += [f"{name}: {value}" for name, value in reply.fields]
        if reply.etag is not None:
            head.append(f"ETag: {reply.etag}")
        if status == 206:
            head.append(f"Content-Range: bytes {start}-{stop - 1}/{reply.content.size}")
        if status != 304:
            head.append(f"Content-Length: {stop - start}")
        self.wfile.write(reply.interim + "\r\n".join([*head, "", ""]).encode("latin-1"))
        if self.command != "HEAD" and status != 304:
            self._send(reply, start, stop)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _send(self, reply: Reply, start: int, stop: int) -> None:
        hold = reply.hold
        position = start
        while position < stop:
            limit = stop
            if hold is not None and not hold.released.is_set():
                if position >= hold.after:
                    if not hold.stand():
                        self.close_connection = True
                        return
                else:
                    limit = min(stop, hold.after)
            piece = reply.content.read(position, min(PIECE, limit - position))
            self.connection.sendall(piece)
            position += len(piece)


def _selected(reply: Reply, seen: Seen) -> tuple[int, int, int]:
    """Status, first position and the one after the last: conditions and single ranges, as a file server has them."""
    size = reply.content.size
    if reply.etag is not None and reply.etag in seen.fields.get("if-none-match", ""):
        return 304, 0, 0
    wanted = seen.fields.get("range", "")
    matched = seen.fields.get("if-range", reply.etag) == reply.etag
    if reply.status == 200 and wanted.startswith("bytes=") and "," not in wanted and matched:
        first, _, last = wanted[len("bytes=") :].partition("-")
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start < stop:
            return 206, start, stop
    return reply.status, 0, size


class Origin:
    """
    Started by ``with`` or ``start``; ``stop`` cuts its connections too, so that it is gone at once. A stopped one
    starts again on the same port.
    """

    def __init__(self, default: Callable[[Seen], Reply | None] = lambda seen: None, *, host: str = "127.0.0.1") -> None:
        self._default = default
        self._host = host
        self._replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    def start(self) -> Origin:
        """Once, however often it is called."""
        if self._server is not None:
            return self
        self._server = _Server((self._host, self._port), _Handler)
        self._server.origin = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # its handler closed it between the two lines

    __enter__ = start

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def serve(self, target: str, reply: Reply) -> None:
        """From now on this is what ``target`` answers."""
        with self._lock:
            self._replies[target] = reply

    @property
    def seen(self) -> list[Seen]:
        with self._lock:
            return list(self._seen)

    def count(self, target: str, method: str = "GET") -> int:
        """How many requests for ``target`` there were."""
        return sum(seen.target == target and seen.method == method for seen in self.seen)

    def forget(self) -> None:
        """Start counting again."""
        with self._lock:
            self._seen.clear()

    def _reply_to(self, seen: Seen) -> Reply:
        with self._lock:
            self._seen.append(seen)
            known = self._replies.get(seen.target)
        return known or self._default(seen) or Reply(Octets(b"no such thing\n"), status=404)

    def _opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)

    def _closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)
