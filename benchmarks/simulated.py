"""
Siblings that have everything: each answers any look-up at once with the same content.

``simulated.py CERTIFICATES OCTETS ID PORT [ID PORT]...``, all in one process, each with its own certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import cast

import uvloop


def answer(octets: int) -> bytes:
    fields = (
        "HTTP/1.1 200 OK",
        "Cache-Control: public, max-age=86400",
        "Content-Type: application/octet-stream",
        'ETag: "simulated"',
        "Edgecache-Selectors: 1",
        "Edgecache-Fresh: 86400",
        f"Content-Length: {octets}",
    )
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + bytes(octets)


class Sibling(asyncio.Protocol):
    """Requests have no content."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *requests, self._received = (self._received + data).split(b"\r\n\r\n")
        self._transport.write(self._said * len(requests))


async def serve(certificates: Path, said: bytes, members: list[tuple[str, int]]) -> None:
    servers = []
    for name, port in members:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        loop = asyncio.get_running_loop()
        servers.append(await loop.create_server(lambda: Sibling(said), "127.0.0.1", port, ssl=context))
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    words = sys.argv[3:]
    found = [(name, int(port)) for name, port in zip(words[::2], words[1::2], strict=True)]
    uvloop.run(serve(Path(sys.argv[1]), answer(int(sys.argv[2])), found))
