"""Send a stored response to a client: whole, in part, or only what it does not have yet."""

from __future__ import annotations

import enum
from typing import Final

from attrs import define

from edgecache.fills.deriving import Derivations
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import NotModified, Part, Whole
from edgecache.rules.pages import PAGE
from edgecache.rules.presenting import head_of, present, shown
from edgecache.rules.representations import SOURCE
from edgecache.rules.status_fields import lines_of
from edgecache.store.hot import SMALLEST, Hot
from edgecache.store.layout import CHUNK
from edgecache.store.reading import AT_ONCE, StoreReader
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing
from edgecache.words.ports import Counts, Downstream, Reader
from edgecache.words.stored import Stored


class Sent(enum.IntEnum):
    """What came of an attempt to answer from the store; false if it was no good."""

    GONE = 0
    """The content is gone or damaged; nothing was sent."""
    ANSWERED = 1
    UNDERIVED = 2
    """The page is there, and what the client gets of it has to be derived first; nothing was sent."""


# A member of an enum costs a tenth of a microsecond each time it is named.
GONE: Final = Sent.GONE
ANSWERED: Final = Sent.ANSWERED
UNDERIVED: Final = Sent.UNDERIVED
NOT_MODIFIED: Final = int(Counter.NOT_MODIFIED)
HOT_ANSWERS: Final = int(Counter.HOT_ANSWERS)

CRLF = b"\r\n"

COPIED: Final = 32 << 10
"""Up to so many octets, a copy in one write with the head costs less than a write past the transport."""


@define(eq=False, repr=False)
class Sender:
    """Answers from the store."""

    _reader: StoreReader
    _counts: Counts
    _derivations: Derivations
    # What is asked for most; without it all is read from the store.
    _hot: Hot | None = None

    def send(
        self,
        downstream: Downstream,
        asked: Asked,
        stored: Stored,
        record_hash: bytes,
        age: int,
        lines: bytes,
    ) -> Sent:
        """
        To be called within the read transaction in which ``stored`` was looked up.

        :param lines: Age and Cache-Status (:func:`edgecache.rules.status_fields.lines_of`).
        """
        if asked.plain:
            return self._send(downstream, stored, record_hash, stored.head + lines, 0, stored.size)
        missing = GONE
        if stored.flags & PAGE and asked.representation is not SOURCE:
            missing = UNDERIVED
            view = self._derivations.view(asked, stored)
            record_hash = view.record_hash
            found = self._reader.look_up(record_hash, view.key)
            if type(found) is Stored:
                self._reader.hit()
                stored = view.of(found)
            elif asked.conditions is not None and type(present(asked, view.prototype, age)) is NotModified:
                # The tag is known without the content.
                stored = view.prototype
            else:
                return UNDERIVED
        show = asked.shown
        if show is None or show.stored is not stored:
            show = shown(asked, stored, age)
        if show.not_modified:
            self._counts.add(NOT_MODIFIED)
        head, start, stop = show.head + lines, show.start, show.stop
        if start == stop:
            downstream.send(head, b"")
            return ANSWERED
        return self._send(downstream, stored, record_hash, head, start, stop) or missing

    def _send(
        self, downstream: Downstream, stored: Stored, record_hash: bytes, head: bytes, start: int, stop: int
    ) -> Sent:
        """:param start: first octet of the content to send, ``stop`` the one after the last."""
        size, reader, hot = stored.size, self._reader, self._hot
        try:
            if size > SMALLEST and hot is not None:
                kept = hot.find(reader, record_hash, stored)
                if kept is not None:
                    self._counts.add(HOT_ANSWERS)
                    downstream.send_hot(head, kept, start, stop)
                    return ANSWERED
            if size < CHUNK:
                content = reader.content(stored)
                downstream.send(head, content if stop - start == size else content[start:stop])
                return ANSWERED
            if stop - start <= COPIED:
                downstream.send(head, reader.part(record_hash, stored.content_id, size, start, stop))
                return ANSWERED
            socket = downstream.straight_socket(stop - start)
            if socket >= 0:
                # Most sockets take all in one go; only what is left over needs a pin, a pump and turns.
                octets = reader.write_to(record_hash, stored.content_id, size, socket, head + CRLF, start, stop)
                complete = octets == len(head) + len(CRLF) + stop - start
                downstream.sent(head, octets, None if complete else reader.source(record_hash, stored), start, stop)
                return ANSWERED
            if stop - start == size <= AT_ONCE:
                downstream.send_pieces(head, reader.whole(stored))
                return ANSWERED
        except ContentMissing:
            return GONE
        source = reader.open_source(record_hash, stored)
        if source is None:
            return GONE
        if not source.begins(start):
            source.close()
            return GONE
        downstream.send_from(head, source, start, stop)
        return ANSWERED

    def send_part(
        self, downstream: Downstream, head: bytes, part: Stored, record_hash: bytes, start: int, stop: int
    ) -> Sent:
        """
        Like :meth:`send`, of partial content.

        :param part: its record (:func:`edgecache.rules.partrecords.as_part`).
        :param start: first octet of what is stored that is sent, ``stop`` the one after the last.
        """
        return self._send(downstream, part, record_hash, head, start, stop)

    def send_later(
        self,
        downstream: Downstream,
        asked: Asked,
        stored: Stored,
        record_hash: bytes,
        age: int,
        cache_status: bytes,
    ) -> Sent:
        """Like :meth:`send`, outside of a read transaction: the content of ``stored`` must still be there."""
        try:
            found = self._reader.look_up(record_hash, stored.key)
            if not isinstance(found, Stored) or found.content_id != stored.content_id:
                return GONE
            return self.send(downstream, asked, stored, record_hash, age, lines_of(age, cache_status))
        finally:
            self._reader.done()

    def send_content(
        self, downstream: Downstream, asked: Asked, stored: Stored, content: bytes, age: int, cache_status: bytes
    ) -> None:
        """
        Send what is in memory.

        :param stored: says what it is; nothing is read of it.
        """
        presentation = present(asked, stored, age)
        head = head_of(asked, stored, presentation, age, cache_status)
        start, stop = 0, len(content)
        if isinstance(presentation, Part):
            start, stop = presentation.start, presentation.stop
        elif not isinstance(presentation, Whole):
            stop = start
            if isinstance(presentation, NotModified):
                self._counts.add(NOT_MODIFIED)
        if asked.head or start == stop:
            downstream.send(head, b"")
        elif stop - start <= AT_ONCE:
            downstream.send(head, content[start:stop])
        else:
            downstream.send_from(head, Held(content), start, stop)


@define(eq=False, repr=False)
class Held:
    """A :class:`~edgecache.words.ports.Source` of which everything is in memory."""

    _content: bytes
    failed: Exception | None = None

    @property
    def length(self) -> int | None:
        return len(self._content)

    def read(self, position: int, limit: int) -> bytes:
        return self._content[position : position + limit]

    def ended(self, position: int) -> bool:
        return position == len(self._content)

    def attach(self, reader: Reader) -> None:
        """Nobody is ever woken."""

    def detach(self, reader: Reader) -> None:
        """Nothing to let go."""
