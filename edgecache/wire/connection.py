"""One client's connection: octets in, requests to the route, responses out in the same order (RFC 9112)."""

from __future__ import annotations

import asyncio

from edgecache.wire.listener import Listener
from edgecache.words.ports import Reader, Source


class Connection(asyncio.Protocol):
    """
    The :class:`~edgecache.words.ports.Downstream` of its current exchange.

    :ivar peer: the client's address, without port; ``b""`` on a Unix socket.
    """

    gone: bool
    peer: bytes

    def __init__(self, listener: Listener, peer: bytes = b"") -> None:
        self._listener = listener
        self.gone = False
        self.peer = peer

    def interim(self, status: int, head: bytes) -> None:
        raise NotImplementedError

    def send(self, head: bytes, content: bytes) -> None:
        raise NotImplementedError

    def send_pieces(self, head: bytes, content: list[bytes]) -> None:
        raise NotImplementedError

    def send_from(self, head: bytes, source: Source, start: int, stop: int | None) -> None:
        raise NotImplementedError

    def request_content(self) -> Source:
        raise NotImplementedError

    def on_gone(self, reader: Reader | None) -> None:
        raise NotImplementedError
