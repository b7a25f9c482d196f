"""From the octets of one connection to its requests and their content; no input or output here."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from edgecache.wire.chunked import Dechunker
from edgecache.wire.content import RequestContent
from edgecache.wire.fieldlines import RequestRefused, Section
from edgecache.wire.memo import Memo
from edgecache.wire.requests import REQUEST_LINE_OCTETS, Framed, Lines, parse
from edgecache.words.config import LimitSettings

END = b"\r\n\r\n"
"""Ends a head."""


@define(eq=False, repr=False)
class Intake:
    """
    Where a connection's octets are until they are a request.

    :ivar pending: octets not yet taken for anything.
    :ivar content: of the current request, while more of it must come.
    """

    _memo: Memo[Framed]
    _sections: Memo[Section]
    _limits: LimitSettings
    _secure: bool
    _trusted: bool
    pending: bytearray = field(factory=bytearray)
    content: RequestContent | None = None
    _to_come: int = 0
    _dechunker: Dechunker | None = None
    _scanned: int = 0
    """So many octets of ``pending`` hold neither the end of a head nor an unseen fault."""
    _lines: Lines | None = None
    """Of a head that did not come as a whole."""
    skipped: bool = False
    """One empty line before a request is forgiven (RFC 9112 §2.2), and was here; over with the request."""

    def feed(self, data: bytes) -> None:
        """
        Take what came: content first, while some is missing.

        :raise RequestRefused: the content's framing is broken.
        """
        content = self.content
        if content is None:
            self.pending += data
            return
        if self._dechunker is not None:
            octets = self._dechunker.feed(data)
            last, rest = self._dechunker.done, self._dechunker.rest
        else:
            octets, rest = data[: self._to_come], data[self._to_come :]
            self._to_come -= len(octets)
            last = self._to_come == 0
        if last:
            self.content = self._dechunker = None
            self.pending += rest
        content.add(octets, last=last)

    def read_whole(self, head: bytes) -> Framed | None:
        """
        :param head: all that is here; :meth:`Memo.get` does not know it.
        :return: the request without content that it is, if it is exactly one that is no fault; ``None`` leaves it, and
            all else, to :meth:`feed` and :meth:`next_head`.
        """
        if head.find(END) + len(END) != len(head) or head.startswith(b"\r"):
            return None
        try:
            framed = parse(head, self._limits, secure=self._secure, trusted=self._trusted, sections=self._sections)
        except RequestRefused:
            return None
        if framed.request.has_content:
            return None
        self._memo.put(head, framed)
        return framed

    def next_head(self) -> Framed | None:
        """
        :return: the next request, once its head is here.
        :raise RequestRefused: what is here is no request, or will never be one.
        """
        pending = self.pending
        if pending.startswith(b"\r") and not self.skipped:
            if len(pending) == 1:
                return None
            if pending.startswith(b"\r\n"):
                del pending[:2]
                self.skipped = True
        if not pending:
            return None
        end = pending.find(END, self._scanned) + len(END)
        if end < len(END) or end > self._limits.head_octets:
            self._look_for_fault()
            return None
        head = bytes(pending[:end])
        del pending[:end]
        self._scanned, self._lines, self.skipped = 0, None, False
        framed = self._memo.get(head)
        if framed is None:
            framed = parse(head, self._limits, secure=self._secure, trusted=self._trusted, sections=self._sections)
            if not framed.request.has_content:  # one with content is not shared between exchanges
                self._memo.put(head, framed)
        return framed

    def open_content(self, framed: Framed, drained: Callable[[], None]) -> RequestContent:
        """
        :return: the content of the request just taken; the octets that are here are in it already.
        :param drained: called when its reader has made room.
        :raise RequestRefused: as :meth:`feed`.
        """
        self.content = content = RequestContent(None if framed.chunked else framed.length, drained)
        self._to_come = framed.length
        self._dechunker = Dechunker(self._limits.framing_octets, self._limits.fields) if framed.chunked else None
        here = bytes(self.pending)
        self.pending.clear()
        self.feed(here)
        return content

    def drop(self) -> None:
        """Nobody looks at any of it any more."""
        self.pending.clear()
        # It knows whom to tell of room: us, in the end.
        self.content = self._dechunker = None

    def _look_for_fault(self) -> None:
        """Refuse as soon as can be, so that nobody waits for the end of something that is wrong already."""
        pending, scanned, limit = self.pending, self._scanned, self._limits.head_octets
        self._scanned = max(0, len(pending) - 3)
        if (
            scanned == 0
            or len(pending) > limit
            or pending.find(b"\n", scanned) >= 0
            or (len(pending) > min(REQUEST_LINE_OCTETS, limit) and b"\n" not in pending)
        ):
            if self._lines is None:
                self._lines = Lines()
            refused = self._lines.fault(pending, self._limits)
            if refused is not None:
                raise refused
