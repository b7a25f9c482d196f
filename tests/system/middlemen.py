"""Who may stand between a client and a node: it passes octets on, remembers request heads, and cuts connections."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

from attrs import define, field

_PIECE = 1 << 16
_PATIENCE_SECONDS = 60.0


@define(eq=False)
class Middleman:
    """
    A TCP proxy on loopback, on threads of the test.

    :ivar url: for clients.
    :ivar cuts: how many connections are still to be cut, and how many were.
    """

    url: str
    cuts_left: int = 0
    cuts: int = 0
    _behind: tuple[str, int] = ("", 0)
    _after: int = 0
    _listener: socket.socket = field(factory=socket.socket)
    _lock: threading.Lock = field(factory=threading.Lock)
    _heads: list[bytes] = field(factory=list)

    @classmethod
    def before(cls, url: str) -> Middleman:
        """:param url: of who answers."""
        parts = urlsplit(url)
        listener = socket.create_server(("127.0.0.1", 0))
        middleman = cls(
            f"http://127.0.0.1:{listener.getsockname()[1]}",
            behind=(str(parts.hostname), parts.port or 80),
            listener=listener,
        )
        threading.Thread(target=middleman._accept, daemon=True).start()
        return middleman

    def cut(self, after: int, times: int = 1) -> None:
        """The next ``times`` connections that bring so many octets to a client end there, in the middle."""
        with self._lock:
            self._after, self.cuts_left = after, times

    @property
    def heads(self) -> list[bytes]:
        """Octets of all requests so far, as they came: heads, since nobody here sends content."""
        with self._lock:
            return [
                head + b"\r\n\r\n"
                for octets in self._heads
                for head in octets.split(b"\r\n\r\n")
                if head.strip(b"\r\n")
            ]

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            server = socket.create_connection(self._behind, _PATIENCE_SECONDS)
            for each in (client, server):
                each.settimeout(_PATIENCE_SECONDS)
            with self._lock:
                self._heads.append(b"")
                number = len(self._heads) - 1
            threading.Thread(target=self._there, args=(client, server, number), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _there(self, client: socket.socket, server: socket.socket, number: int) -> None:
        try:
            while piece := client.recv(_PIECE):
                with self._lock:
                    self._heads[number] += piece
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            _end(client, server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        try:
            while piece := server.recv(_PIECE):
                with self._lock:
                    cut = self.cuts_left > 0 and passed + len(piece) > self._after
                    if cut:
                        piece = piece[: max(0, self._after - passed)]
                        self.cuts_left -= 1
                        self.cuts += 1
                client.sendall(piece)
                passed += len(piece)
                if cut:
                    break
        except OSError:
            return  # the other direction ends both
        finally:
            _end(client, server)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue  # it is at its end already
