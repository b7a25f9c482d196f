"""
An origin that keeps every octet it is sent, and clients that send what no library would.

The origin reads with h11, which is strict about what we send (its requests have no second reading); what it answers is
its part's to choose, octet by octet.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import h11
from attrs import define, field, frozen

from tests.parsers import CLOSE, h11_responses

_PATIENCE_SECONDS = 120.0

Sent = tuple[bytes, bytes, bytes]
"""One request as the origin has read it: method, target, content."""


def echo(method: bytes, target: bytes, content: bytes) -> bytes:
    """What is answered where nothing else is said: whoever gets another's can tell."""
    said = b"%b %b %d" % (method, target, len(content))
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    return head % len(said) + (b"" if method == b"HEAD" else said)


@frozen
class Part:
    """
    What one target is answered.

    :ivar writes: sent one by one.
    :ivar early: at the request's head, before its content is read.
    :ivar closes: and then it closes.
    :ivar said: set when all of them are written.
    """

    writes: Sequence[bytes]
    early: bool = False
    closes: bool = False
    said: threading.Event = field(factory=threading.Event, eq=False)


@define(eq=False)
class Heard:
    """One connection: ``raw`` is all that came, ``sent`` the requests in it, ``wrong`` why the rest is none."""

    raw: bytearray = field(factory=bytearray)
    sent: list[Sent] = field(factory=list)
    wrong: str = ""


@define(eq=False)
class RawOrigin:
    """On threads of the test; ``parts`` by target."""

    parts: dict[bytes, Part] = field(factory=dict)
    heard: list[Heard] = field(factory=list)
    _listener: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=128))
    _open: set[socket.socket] = field(factory=set)
    _lock: threading.Lock = field(factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def start(self) -> RawOrigin:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self) -> None:
        """Cut all connections, too."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):  # its thread may have closed it
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def sent(self) -> list[Sent]:
        """Every request so far, of one connection after the other."""
        return [sent for heard in list(self.heard) for sent in list(heard.sent)]

    @property
    def wrong(self) -> list[tuple[str, bytes]]:
        """What was no request."""
        return [(heard.wrong, bytes(heard.raw)) for heard in list(self.heard) if heard.wrong]

    def has(self, octets: bytes) -> bool:
        """Did they come, in whatever place?"""
        return any(octets in heard.raw for heard in list(self.heard))

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # stopped
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            heard = Heard()
            with self._lock:
                self._open.add(sock)
                self.heard.append(heard)
            threading.Thread(target=self._serve, args=(sock, heard), daemon=True).start()

    def _serve(self, sock: socket.socket, heard: Heard) -> None:
        try:
            with contextlib.suppress(OSError):  # the node leaves when it likes
                self._read(sock, heard)
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _read(self, sock: socket.socket, heard: Heard) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        request, content, part = h11.Request(method="GET", target="/", headers=[("Host", "a")]), b"", Part(())
        while True:
            try:
                event: Any = connection.next_event()
            except h11.RemoteProtocolError as error:
                # What broke off is no request at all.
                if connection.trailing_data != (b"", True):
                    heard.wrong = str(error)
                return
            if event is h11.NEED_DATA:
                data = sock.recv(1 << 16)
                heard.raw += data
                connection.receive_data(data)
            elif isinstance(event, h11.Request):
                request, content = event, b""
                part = self.parts.get(event.target, Part(()))
                if part.early and not self._answer(sock, part.writes, part):
                    return
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                heard.sent.append((bytes(request.method), bytes(request.target), content))
                writes = part.writes or (echo(request.method, request.target, content),)
                if not part.early and not self._answer(sock, writes, part):
                    return
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
            else:
                return

    def _answer(self, sock: socket.socket, writes: Iterable[bytes], part: Part) -> bool:
        for octets in writes:
            sock.sendall(octets)
        part.said.set()
        if part.closes:
            # A close with octets unread would be a reset, and take the answer away.
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1 << 16):
                pass
        return not part.closes


@frozen
class Answered:
    """One final response: its status and content; ``whole`` unless the connection ended within it."""

    status: int
    content: bytes


@define(eq=False)
class Talk:
    """
    Octets sent over one connection, and all that came back until the node closed it.

    :ivar received: as it came.
    """

    received: bytes = b""

    @classmethod
    def over(cls, sock: socket.socket, *writes: bytes, shut: bool = False) -> Talk:
        """:param shut: our side ends after them; the node ends its own by itself otherwise."""
        talk = cls()
        sock.settimeout(_PATIENCE_SECONDS)
        with sock:
            try:
                for octets in writes:
                    sock.sendall(octets)
                if shut:
                    sock.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has heard enough; what it said is here all the same
            try:
                while piece := sock.recv(1 << 16):
                    talk.received += piece
            except ConnectionResetError:
                pass
            except TimeoutError:
                raise AssertionError(f"not closed after {writes!r}: {talk.received!r}") from None
        return talk

    def answers(self, methods: Sequence[bytes]) -> list[Answered]:
        """
        :param methods: of the requests that may have been answered: HEAD frames its response otherwise.
        :raises AssertionError: what came is not a row of responses to some of these.
        """
        rest, found = self.received, []
        for method in methods:
            if not rest:
                break
            reading = h11_responses(rest, method, close=True)
            final = [message for message in reading.messages if message.start[0] >= b"200"]
            assert final, (reading, rest)
            found.append(Answered(int(final[0].start[0]), final[0].content))
            rest = b"" if final[0].end == CLOSE else rest[final[0].end :]
        assert not rest, rest
        return found


def tcp(port: int) -> Callable[[], socket.socket]:
    """:return: what makes connections to that port of loopback."""
    return lambda: socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS)


def unix(path: str) -> Callable[[], socket.socket]:
    """:return: what makes connections to that socket."""

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return sock

    return connect
