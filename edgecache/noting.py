"""Parts of a route that note what they are given instead of doing it (:mod:`edgecache.explaining`)."""

from __future__ import annotations

from typing import Any

from attrs import define

from edgecache.fills.parts import Parts
from edgecache.fills.sending import ANSWERED
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward
from edgecache.rules.parts import may_answer
from edgecache.store.page import Page
from edgecache.words.stored import Stored


@define(eq=False, repr=False)
class Noted:
    """
    What the route did with one request.

    :ivar record_hash: where it looked, or would store.
    :ivar stored: what was sent, or would be validated.
    :ivar cache_status: of an answer from the store.
    :ivar refresh: why it is asked for behind a stale answer.
    """

    asked: Asked | None = None
    record_hash: bytes = b""
    stored: Stored | None = None
    age: int = 0
    sent: bool = False
    cache_status: bytes = b""
    forward: Forward | None = None
    refresh: Forward | None = None
    refused: bytes = b""

    # As the route's parts. A sender:

    def send(
        self, _downstream: Any, asked: Asked, stored: Stored, record_hash: bytes, age: int, status: bytes
    ) -> object:
        self.stored, self.record_hash, self.age = stored, record_hash, age
        return self._answered(status)

    def send_part(self, _downstream: Any, head: bytes, _part: Stored, _lies: bytes, _start: int, _stop: int) -> object:
        # It is neither forwarded nor from what is whole.
        self.forward = None
        return self._answered(head)

    def _answered(self, lines: bytes) -> object:
        self.sent = True
        # One of the lines that the head ends with.
        self.cache_status = lines.rpartition(b"cache-status: ")[2].partition(b"\r\n")[0]
        return ANSWERED

    # Fills:

    def join(self, asked: Asked, forward: Forward, record_hash: bytes, _downstream: Any) -> None:
        self.stored, self.forward, self.record_hash = forward.stored, forward, record_hash

    def refresh_behind(self, asked: Asked, forward: Forward, record_hash: bytes) -> None:
        self.refresh = forward


@define(eq=False, repr=False)
class NotedFills:
    """The route's fills."""

    noted: Noted
    parts: Parts

    def join(self, asked: Asked, forward: Forward, record_hash: bytes, downstream: Any) -> None:
        self.noted.join(asked, forward, record_hash, downstream)
        if may_answer(asked, forward) and not forward.alone:
            self.parts.answer(asked, record_hash, downstream)

    def refresh(self, *behind: Any) -> None:
        self.noted.refresh_behind(*behind)


class Alone:
    """Nobody else owns a key; nothing is written, counted or pinned."""

    gone = False
    peer = b""
    full_small = full_blobs = True

    def elsewhere(self, _key_hash: bytes) -> None:
        return None

    def raise_floor(self, *_: Any) -> None:
        pass

    def add(self, *_: Any) -> None:
        pass

    def pin(self, _content_id: bytes) -> None:
        return None

    def unpin(self, _slot: int) -> None:
        pass

    def close_after(self) -> None:
        pass


@define(eq=False, repr=False)
class ReadPage:
    """The mapped page, to be read alone."""

    _page: Page

    def add(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._page, name)


@define(eq=False, repr=False)
class NotedDownstream(Alone):
    """The client: what it is sent is an error of ours."""

    _noted: Noted

    def send(self, head: bytes, content: bytes) -> None:
        self._noted.refused = head
