"""Clients on real sockets: single requests, and downloads that compare every octet as it comes."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from urllib.parse import urlsplit

from attrs import define, field, frozen

from tests.system.contents import Content, first_difference

_PATIENCE_SECONDS = 120.0


@frozen
class Answer:
    """
    One response.

    :ivar complete: False when the connection ended before the content did.
    :ivar fields: names in lower case; repeated ones joined by a comma.
    """

    status: int
    fields: dict[str, str]
    content: bytes
    complete: bool = True

    @property
    def cache_status(self) -> str:
        return self.fields.get("cache-status", "")

    def _parameters(self) -> list[str]:
        # The last member is the cache nearest to us (RFC 9211 §2).
        return [part.strip() for part in self.cache_status.rpartition(",")[2].split(";")[1:]]

    @property
    def hit(self) -> bool:
        """Did the node say that it asked nobody (RFC 9211 §2.1)?"""
        return "hit" in self._parameters()

    def parameter(self, name: str) -> str:
        """A parameter of Cache-Status, empty when it has none."""
        return next((part.partition("=")[2] for part in self._parameters() if part.startswith(f"{name}=")), "")

    @property
    def stored(self) -> bool:
        """Did it say that it stores this response (RFC 9211 §2.5)?"""
        return "stored" in self._parameters()

    def __str__(self) -> str:
        shown = self.content[:60]
        return f"{self.status} {self.cache_status!r} {shown!r}{'' if self.complete else ' (cut)'}"


def ask(
    url: str,
    target: str | None = None,
    *,
    method: str = "GET",
    fields: dict[str, str] | None = None,
    content: bytes | None = None,
    seconds: float = _PATIENCE_SECONDS,
) -> Answer:
    """
    One request over a new connection.

    :raises OSError, http.client.HTTPException: no response head came.
    """
    parts = urlsplit(url)
    if target is None:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=seconds)
    try:
        connection.request(method, target, body=content, headers={"Connection": "close", **(fields or {})})
        response = connection.getresponse()
        got: dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            got[name] = f"{got[name]}, {value}" if name in got else value
        try:
            octets, complete = response.read(), True
        except http.client.IncompleteRead as cut:
            octets, complete = cut.partial, False
        except ConnectionError:
            octets, complete = b"", False
        return Answer(response.status, got, octets, complete)
    finally:
        connection.close()


class Download:
    """
    One GET whose content is compared with what is due while it arrives; nothing is kept.

    ``read_all``, ``read_up_to`` or ``read_slowly`` are run by the caller's thread; the attributes say how far it is.
    """

    def __init__(
        self, url: str, target: str, due: Content, *, receive_buffer: int | None = None, host: str | None = None
    ) -> None:
        """:param host: value of the Host field; by default the node's address."""
        parts = urlsplit(url)
        self._host = host or str(parts.hostname)
        self._due = due
        self._target = target
        self.position = 0
        self.wrong_at: int | None = None
        self.status = 0
        self.cache_status = ""
        self.seconds = 0.0
        self._socket = socket.socket()
        self._socket.settimeout(_PATIENCE_SECONDS)
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect((str(parts.hostname), parts.port))
        self._response: http.client.HTTPResponse | None = None

    def _open(self) -> None:
        self._socket.sendall(f"GET {self._target} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        self._response = http.client.HTTPResponse(self._socket)
        self._response.begin()
        self.status = self._response.status
        self.cache_status = self._response.getheader("Cache-Status") or ""

    def _take(self, limit: int) -> bool:
        """Read and compare once; False at the end."""
        assert self._response is not None
        got = self._response.read1(limit)
        if self.wrong_at is None:
            self.wrong_at = first_difference(self._due, self.position, got)
        self.position += len(got)
        return bool(got)

    def read_all(self) -> None:
        """As fast as it comes, to the end."""
        began = time.monotonic()
        self._open()
        while self._take(1 << 18):
            pass
        self.seconds = time.monotonic() - began
        self.close()

    def read_up_to(self, position: int) -> None:
        """So far, and stay."""
        self._open()
        while self.position < position and self._take(min(1 << 18, position - self.position)):
            pass

    def read_slowly(self, octets_per_second: int, enough: threading.Event) -> None:
        """At this pace until ``enough`` is set, then leave without a word."""
        self._open()
        began = time.monotonic()
        while not enough.is_set():
            self._take(1 << 16)
            ahead = self.position / octets_per_second - (time.monotonic() - began)
            # The pace is what this client is: it waits for the clock, and for nothing else.
            enough.wait(max(0.0, ahead))
        self.seconds = time.monotonic() - began
        self.close()

    def leave(self) -> None:
        """From another thread: go away in the middle, whatever is on its way."""
        self._socket.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Go away so that the node can tell: an end in order may come from one who still wants the answer."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._socket.close()
        if self._response is not None:
            self._response.close()

    @property
    def exact(self) -> bool:
        """All of it came, and every octet was right."""
        return self.status == 200 and self.wrong_at is None and self.position == self._due.size

    def __str__(self) -> str:
        return f"{self.status} {self.position}/{self._due.size} octets, wrong at {self.wrong_at}, {self.cache_status}"


@define(eq=False)
class Together:
    """Threads that are all waited for, and whose failures are not lost."""

    failures: list[BaseException] = field(factory=list)
    _threads: list[threading.Thread] = field(factory=list)

    def start(self, job: object, *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                job(*arguments)  # type: ignore[operator]  # any callable
            except BaseException as failure:  # noqa: BLE001  # handed to whoever joins
                self.failures.append(failure)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self, seconds: float = 300.0) -> None:
        """
        :raises AssertionError: when one does not end.
        """
        for thread in self._threads:
            thread.join(seconds)
            if thread.is_alive():
                raise AssertionError(f"a client did not end within {seconds} s")
        if self.failures:
            raise self.failures[0]
