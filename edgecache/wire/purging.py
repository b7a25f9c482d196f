"""``PURGE`` on the public listener: the node process is asked, and what it says is passed on (DESIGN 12)."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Refuse
from edgecache.rules.purgerequests import PurgeRequest
from edgecache.words.errors import EdgeError
from edgecache.words.ports import Downstream

_log = Logger()

MOST_WAITING = 64
"""Of one worker: strangers must not fill the control channel."""


@define(eq=False, repr=False)
class PublicPurging:
    """
    Relays purges of clients, and their answers.

    :ivar wall: seconds since the epoch.
    :ivar waiting: asked for, and not answered yet.
    """

    _call: Callable[..., Deferred[dict[str, Any]]]
    _via: bytes
    _refuse: Callable[[Refuse], tuple[bytes, bytes]]
    wall: Callable[[], float]
    waiting: int = 0

    async def answer(self, asked: PurgeRequest, downstream: Downstream) -> None:
        """Let the node process decide, and tell the client."""
        if self.waiting >= MOST_WAITING:
            self._unavailable("Too many purges are waiting.", downstream)
            return
        self.waiting += 1
        try:
            told = await self._call(
                "purge", url=asked.url, token=asked.token, soft=asked.soft, peer=downstream.peer.decode("latin-1")
            )
        except EdgeError as error:
            # The node process is gone, or has failed: what it did is not known.
            _log.warn("a purge of {peer} is unanswered: {error}", peer=downstream.peer, error=error)
            self._unavailable("It is not known whether it was done; send it again.", downstream)
            return
        finally:
            self.waiting -= 1
        content = told["content"].encode()
        status = told["status"]
        lines = [b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())]
        lines += [f"{name.lower()}: {value}".encode() for name, value in told["fields"]]
        lines += [
            b"cache-control: no-store",
            b"content-type: application/json",
            b"date: " + format_date(self.wall()),
            b"via: " + self._via,
            b"content-length: %d" % len(content),
        ]
        downstream.send(b"\r\n".join(lines) + b"\r\n", content)

    def _unavailable(self, detail: str, downstream: Downstream) -> None:
        head, content = self._refuse(Refuse(503, detail, fields=((b"retry-after", b"1"),)))
        downstream.send(head, content)
