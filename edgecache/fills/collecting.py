"""The content of one response, collected: of a page of an index, nobody is sent anything before it is whole."""

from __future__ import annotations

import zlib

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.index.errors import BadPage
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import UnusablePage, UpstreamFailed
from edgecache.words.ports import Counts

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP = (b"gzip", b"x-gzip")


@define(eq=False, repr=False)
class Collecting:
    """
    A sink for a response's content, up to a limit.

    :ivar result: fires with the content; fails with :class:`~edgecache.words.errors.UpstreamFailed`, also if there is
        too much of it. Cancelling ends it.
    """

    _response: Response
    _counts: Counts
    _limit: int
    result: Deferred[bytes] = field(init=False)
    _pieces: list[bytes] = field(factory=list)
    _octets: int = 0

    def __attrs_post_init__(self) -> None:
        self.result = Deferred(lambda _: self._response.cancel())

    def start(self) -> Deferred[bytes]:
        """Begin to take content."""
        length = self._response.length
        if length is not None and length > self._limit:
            self._too_much()
        else:
            self._response.attach(self)
        return self.result

    def data(self, data: bytes) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self._counts.add(Counter.BYTES_FETCHED, len(data))
        self._octets += len(data)
        if self._octets > self._limit:
            self._pieces.clear()
            self._too_much()
        else:
            self._pieces.append(data)

    def end(self) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self.result.callback(b"".join(self._pieces))

    def fail(self, failure: UpstreamFailed) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self._pieces.clear()
        self.result.errback(failure)

    def _too_much(self) -> None:
        self._response.cancel()
        name = self._response.address.name
        self.result.errback(UnusablePage(name, 0.0, f"a page of more than {self._limit} octets"))


def unpacked(content: bytes, coding: bytes | None, limit: int) -> bytes:
    """
    :param coding: value of Content-Encoding, ``None`` without the field.
    :param limit: octets.
    :return: the content without its coding. An index is asked for none, and some send gzip all the same.
    :raises BadPage: it has another coding, is damaged, or is larger than ``limit``.
    """
    name = b"identity" if coding is None else coding.strip().lower()
    if name in (b"", b"identity"):
        return content
    if name not in _GZIP:
        raise BadPage("a content coding that was not asked for")
    unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = unpacking.decompress(content, limit + 1)
    except zlib.error:
        raise BadPage("damaged gzip") from None
    if len(found) > limit:
        raise BadPage(f"a page of more than {limit} octets")
    if not unpacking.eof or unpacking.unused_data:
        raise BadPage("gzip that breaks off, or goes on after its end")
    return found
