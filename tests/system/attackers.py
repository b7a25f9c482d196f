"""
Clients that mean harm: each kind holds connections in a way of its own, many at once, from several addresses.

They are a process of their own, so that what they cost is not paid by honest clients: ``python -m
tests.system.attackers ORDER``, of :class:`Attack`. A line on its input is answered with what became of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import resource
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field, frozen

from tests.system.harness import IMPORT_ROOT

SMALL, LARGE, CONTENT = "/packages/700/1", "/packages/8388608/1", "/packages/10/1"
TICK_SECONDS = 0.05
_GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n"
_LINES = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 200
_HELLO_OCTETS = 300
_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python has no name for it
_RESET = struct.pack("ii", 1, 0)


@define(eq=False)
class Attacker:
    """
    One connection.

    :ivar pending: is still to be sent.
    :ivar status: of the last answer that was seen.
    """

    sock: socket.socket
    kind: Kind
    began: float
    connected: bool = False
    pending: bytes = b""
    status: str = ""


@frozen
class Kind:
    """
    What such a client does.

    :ivar first: is sent at once, ``again`` at each tick.
    :ivar reads: all of what comes; else ``drip`` octets a tick.
    :ivar leaves: with a reset, once it was answered.
    """

    first: bytes = b""
    again: bytes = b""
    reads: bool = True
    drip: int = 0
    leaves: bool = False
    receive_buffer: int = 0


def hello() -> bytes:
    """The first octets of a TLS handshake, as a client sends them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def _get(target: str) -> bytes:
    return _GET % target.encode()


KINDS: dict[str, Callable[[], Kind]] = {
    "silent": Kind,
    "half a word": lambda: Kind(b"GE"),
    "head octet by octet": lambda: Kind(_get(SMALL), b"X"),
    "head field by field": lambda: Kind(_get(SMALL), b"X: y\r\n"),
    "endless head": lambda: Kind(_get(SMALL), _LINES),
    "head too large at once": lambda: Kind(_get(SMALL) + _LINES, _LINES),
    "content octet by octet": lambda: Kind(
        _get(CONTENT).replace(b"GET", b"POST") + b"Content-Length: 1000000\r\n\r\n", b"x"
    ),
    "chunks octet by octet": lambda: Kind(
        _get(CONTENT).replace(b"GET", b"POST") + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"
    ),
    "never reads what is large": lambda: Kind(_get(LARGE) + b"\r\n", reads=False, receive_buffer=4096),
    "reads what is large by octets": lambda: Kind(_get(LARGE) + b"\r\n", reads=False, drip=1, receive_buffer=4096),
    "asks on and never reads": lambda: Kind(
        (_get(SMALL) + b"\r\n") * 2000, (_get(SMALL) + b"\r\n") * 100, reads=False, receive_buffer=4096
    ),
    "asks on and on": lambda: Kind((_get(SMALL) + b"\r\n") * 2000, (_get(SMALL) + b"\r\n") * 2000),
    "comes and goes": lambda: Kind(_get(SMALL) + b"\r\n", leaves=True),
    "silent in its handshake": Kind,
    "half a handshake": lambda: Kind(hello()),
    "handshake octet by octet": lambda: Kind(hello()[:_HELLO_OCTETS], b"\0"),
}


@define(eq=False)
class Host:
    """
    All of one kind.

    :ivar again: who is thrown out comes back.
    :ivar made: connections so far.
    :ivar longest: seconds of the one that lived longest.
    """

    kind: Kind
    where: tuple[str, int]
    count: int
    again: bool
    addresses: int
    epoll: select.epoll
    made: int = 0
    longest: float = 0.0
    statuses: dict[str, int] = field(factory=dict)
    alive: dict[int, Attacker] = field(factory=dict)

    def fill(self) -> None:
        """Until there are as many as there should be, or for now no more can be had."""
        while len(self.alive) < self.count and (self.again or self.made < self.count):
            sock = socket.socket()
            sock.setblocking(False)
            if self.kind.receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.kind.receive_buffer)
            # The port is chosen when it connects: so each address has all of them for each server.
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            sock.bind((f"127.0.3.{1 + self.made % self.addresses}", 0))
            if sock.connect_ex(self.where) not in (0, errno.EINPROGRESS):
                sock.close()
                return
            self.made += 1
            self.alive[sock.fileno()] = Attacker(sock, self.kind, time.monotonic(), pending=self.kind.first)
            self.epoll.register(sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)

    def told(self) -> dict[str, Any]:
        """What became of them so far."""
        now = time.monotonic()
        return {
            "connected": sum(each.connected for each in self.alive.values()),
            "left": len(self.alive),
            "made": self.made,
            "longest": max(self.longest, *(now - each.began for each in self.alive.values()), 0.0),
            "statuses": self.statuses,
        }

    def event(self, each: Attacker, events: int) -> None:
        """Of its socket."""
        try:
            if events & select.EPOLLOUT:
                each.connected = True
                self._send(each)
            over = events & (select.EPOLLHUP | select.EPOLLERR)
            if each.kind.reads:
                over = over or (events & select.EPOLLIN and not self._take(each))
            else:
                over = over or events & select.EPOLLRDHUP
            if over:
                self._end(each)
        except BlockingIOError:
            # Its server takes no more just now: that is not an end.
            return
        except OSError:
            self._end(each)

    def _take(self, each: Attacker) -> bool:
        """:return: it goes on."""
        data = each.sock.recv(1 << 16)
        if data.startswith(b"HTTP/1.1 "):
            each.status = data[9:12].decode("latin-1")
        return bool(data) and not (each.kind.leaves and each.status)

    def _send(self, each: Attacker) -> None:
        while each.pending:
            sent = each.sock.send(each.pending[: 1 << 16])
            each.pending = each.pending[sent:]
        # Level-triggered: it would be told for ever that there is room.
        wanted = select.EPOLLIN if each.kind.reads else 0
        self.epoll.modify(each.sock.fileno(), wanted | select.EPOLLRDHUP)

    def tick(self, each: Attacker) -> None:
        """Some time has passed."""
        if not each.connected:
            return
        try:
            if each.kind.drip and not each.sock.recv(each.kind.drip):
                self._end(each)
                return
            if each.kind.again and not each.pending:
                each.pending = each.kind.again
            self._send(each)
        except BlockingIOError:
            # Its server takes no more just now, or has nothing: that is not an end.
            return
        except OSError:
            self._end(each)

    def _end(self, each: Attacker) -> None:
        if each.kind.reads:
            # A reset takes back nothing of what had come before it.
            with contextlib.suppress(OSError):
                while self._take(each):
                    pass
        self.epoll.unregister(each.sock.fileno())
        del self.alive[each.sock.fileno()]
        word = each.status or "closed"
        self.statuses[word] = self.statuses.get(word, 0) + 1
        self.longest = max(self.longest, time.monotonic() - each.began)
        if each.kind.leaves:
            # Else there are no ports left after a few seconds of this.
            each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        each.sock.close()


def run(hosts: dict[str, Host], epoll: select.epoll) -> None:
    """Until nobody listens to us any more."""
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    ticked = time.monotonic()
    while True:
        for host in hosts.values():
            host.fill()
        for descriptor, events in epoll.poll(TICK_SECONDS, 512):
            if descriptor == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return
                sys.stdout.write(json.dumps({kind: host.told() for kind, host in hosts.items()}) + "\n")
                sys.stdout.flush()
                continue
            for host in hosts.values():
                if (each := host.alive.get(descriptor)) is not None:
                    host.event(each, events)
        if time.monotonic() - ticked >= TICK_SECONDS:
            ticked = time.monotonic()
            for host in hosts.values():
                for each in list(host.alive.values()):
                    host.tick(each)


@define(eq=False)
class Attack:
    """
    A process of attackers, by ``with``.

    :ivar kinds: of :data:`KINDS`, and how many of each.
    :ivar again: who is thrown out comes back.
    :ivar addresses: from which they come.
    """

    url: str
    kinds: dict[str, int]
    again: bool = False
    addresses: int = 1
    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Attack:
        parts = urlsplit(self.url)
        order = [self.kinds, parts.hostname, parts.port, self.again, self.addresses]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.attackers", json.dumps(order)],
            cwd=IMPORT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *failure: object) -> None:
        """They all go at once."""
        self._process.kill()
        self._process.communicate()

    def told(self) -> dict[str, dict[str, Any]]:
        """:return: by kind, what became of them so far."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write("\n")
        stdin.flush()
        found: dict[str, dict[str, Any]] = json.loads(stdout.readline())
        return found

    def left(self) -> dict[str, int]:
        """:return: kinds of which some are still there, and how many."""
        return {kind: told["left"] for kind, told in self.told().items() if told["left"]}


def main() -> None:
    kinds, host, port, again, addresses = json.loads(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    epoll = select.epoll()
    run(
        {kind: Host(KINDS[kind](), (host, port), count, again, addresses, epoll) for kind, count in kinds.items()},
        epoll,
    )


if __name__ == "__main__":
    main()
