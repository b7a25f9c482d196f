"""Send a stored response to a client: whole, in part, or only what it does not have yet."""

from __future__ import annotations

from attrs import define

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import WHOLE, Part, Whole
from edgecache.rules.presenting import head_of, present
from edgecache.store.layout import CHUNK
from edgecache.store.reading import AT_ONCE, StoreReader
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing
from edgecache.words.ports import Counts, Downstream
from edgecache.words.stored import Stored


@define(eq=False)
class Sender:
    """Answers from the store."""

    _reader: StoreReader
    _counts: Counts

    def send(
        self,
        downstream: Downstream,
        asked: Asked,
        stored: Stored,
        record_hash: bytes,
        age: int,
        cache_status: bytes,
    ) -> bool:
        """
        To be called within the read transaction in which ``stored`` was looked up.

        :return: ``False`` if its content is gone or damaged; then nothing was sent.
        """
        presentation = WHOLE if asked.simple else present(asked, stored, age)
        head = head_of(asked, stored, presentation, age=age, cache_status=cache_status)
        if isinstance(presentation, Whole):
            start, stop = 0, stored.size
        elif isinstance(presentation, Part):
            start, stop = presentation.start, presentation.stop
        else:
            self._counts.add(Counter.NOT_MODIFIED)
            downstream.send(head, b"")
            return True
        if asked.head or start == stop:
            downstream.send(head, b"")
            return True
        try:
            if stored.size < CHUNK:
                content = self._reader.content(stored)
                downstream.send(head, content if stop - start == stored.size else content[start:stop])
                return True
            if stop - start == stored.size <= AT_ONCE:
                downstream.send_pieces(head, self._reader.whole(stored))
                return True
            socket = downstream.straight_socket(stop - start)
            if socket >= 0:
                return self._send_directly(socket, downstream, head, stored, record_hash, start, stop)
        except ContentMissing:
            return False
        source = self._reader.open_source(record_hash, stored)
        if source is None:
            return False
        downstream.send_from(head, source, start, stop)
        return True

    def _send_directly(
        self,
        socket: int,
        downstream: Downstream,
        head: bytes,
        stored: Stored,
        record_hash: bytes,
        start: int,
        stop: int,
    ) -> bool:
        """
        Write all in one go, as most sockets take it; only what is left over needs pins, a pump and turns.

        :raises ContentMissing: nothing was sent.
        """
        reader = self._reader
        begin = head + b"\r\n"
        octets = reader.write_to(
            record_hash, stored.content_id, stored.size, descriptor=socket, before=begin, start=start, stop=stop
        )
        if octets == len(begin) + stop - start:
            downstream.sent(head, octets, None, start, stop)
        else:
            downstream.sent(head, octets, reader.source(record_hash, stored), start, stop)
        return True

    def send_later(
        self,
        downstream: Downstream,
        asked: Asked,
        stored: Stored,
        record_hash: bytes,
        age: int,
        cache_status: bytes,
    ) -> bool:
        """Like :meth:`send`, outside of a read transaction: the content of ``stored`` must still be there."""
        try:
            found = self._reader.look_up(record_hash, stored.key)
            if not isinstance(found, Stored) or found.content_id != stored.content_id:
                return False
            return self.send(downstream, asked, stored, record_hash, age, cache_status)
        finally:
            self._reader.done()
