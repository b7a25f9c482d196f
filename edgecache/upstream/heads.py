"""
The head of a response: strict where httptools is lenient (RFC 9112 §2.2, §4, §5, §6).

A head is given whole, up to and including its empty line, and every head gets
a parser of its own. So httptools never sees content: it would take octets
after a HEAD response's head for content, and it calls each 1xx a complete message.
"""

from __future__ import annotations

import re

from attrs import define, field
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from edgecache.words.messages import HOP_BY_HOP, Fields, Outbound

END = b"\r\n\r\n"
"""Ends a head."""

_PROTOCOL = b"HTTP/1."
_BARE_LF = re.compile(rb"(?<!\r)\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?\r\n")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})\"?(?:$|[,;\s])", re.IGNORECASE)

_TAKEN_OFF = HOP_BY_HOP | {b"content-length"}

# Connection must not name them (RFC 9110 §7.6.1). One that does is not
# obeyed: without them a response would be stored, or read, as something else.
_NEVER_HOP_BY_HOP = frozenset(
    (
        b"age",
        b"cache-control",
        b"cdn-cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"date",
        b"etag",
        b"expires",
        b"last-modified",
        b"pragma",
        b"vary",
    )
)


class FramingError(Exception):
    """These octets are not a response that we accept; the text says why. Becomes a ``BadResponse``."""


@define(eq=False, repr=False)
class ParsedHead:
    """
    A head whose framing and connection fields were understood and taken off.

    :ivar fields: end-to-end fields, names in lower case, in the order received.
    :ivar length: of Content-Length, ``None`` without.
    :ivar chunked: Transfer-Encoding is ``chunked``; nothing else is accepted.
    :ivar persistent: another request may follow on the connection (RFC 9112 §9.3).
    :ivar idle_seconds: what a Keep-Alive field announces, ``None`` without.
    """

    status: int
    reason: bytes
    minor: int
    fields: Fields
    length: int | None = None
    chunked: bool = False
    persistent: bool = False
    idle_seconds: int | None = None


class HeadBuffer:
    """
    Octets of a head that did not come in one piece.

    What can never become a head that we accept is refused at once: it would
    otherwise hold a connection up to a deadline.
    """

    __slots__ = ("_limit", "_partial")

    def __init__(self, limit: int) -> None:
        """:param limit: octets of the largest head."""
        self._limit = limit
        self._partial = bytearray()

    def feed(self, data: bytes) -> tuple[bytes | None, bytes]:
        """
        :return: the head, up to and including :data:`END`, and the octets after it; or ``None`` while it is not whole.

        :raises FramingError: too large, or not HTTP.
        """
        partial = self._partial
        # The three octets before may be the beginning of the end.
        searched = max(0, len(partial) - len(END) + 1)
        partial += data
        end = partial.find(END, searched)
        if end >= 0 and end + len(END) <= self._limit:
            end += len(END)
            return bytes(partial[:end]), bytes(partial[end:])
        if len(partial) > self._limit or end >= 0:
            raise FramingError("head is too large")
        if not _PROTOCOL.startswith(bytes(partial[: len(_PROTOCOL)])):
            raise FramingError("not HTTP/1")
        if _BARE_LF.search(partial, searched) is not None:
            raise FramingError("line ends without CR")
        return None, b""


@define(eq=False, repr=False)
class _Lines:
    """Takes the field lines that httptools finds: end-to-end ones, and those that are about the connection."""

    fields: Fields = field(factory=list)
    taken_off: Fields = field(factory=list)
    complete: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _TAKEN_OFF:
            # A tab behind "chunked" is white space to some, and to others (llhttp) another coding: left for refusal.
            self.taken_off.append((name, value.lstrip(b" \t").rstrip(b" ")))
        else:
            self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parse_head(octets: bytes) -> ParsedHead:
    """
    :param octets: from the first octet of the status line to :data:`END`.

    :raises FramingError: with what is wrong.
    """
    matched = _STATUS_LINE.match(octets)
    if matched is None:
        raise FramingError("no status line of HTTP/1.0 or HTTP/1.1")
    found = _Lines()
    try:
        HttpResponseParser(found).feed_data(octets)
    except HttpParserUpgrade:
        # Its way to say "Connection: upgrade was there", which matters with 101 only.
        pass
    except HttpParserError as error:
        raise FramingError(str(error)) from None
    if not found.complete:
        raise FramingError("incomplete head")
    minor, status, reason = matched.groups()
    head = ParsedHead(int(status), reason or b"", 1 if minor == b"1" else 0, found.fields)
    options = _understand(head, found.taken_off)
    # By that name there is a field of the connection only, which is taken off already.
    if options and options != [b"keep-alive"]:
        named = frozenset(options) - _NEVER_HOP_BY_HOP
        head.fields = [line for line in head.fields if line[0] not in named]
    head.persistent = b"close" not in options if head.minor else b"keep-alive" in options
    return head


def ends_for_sure(head: ParsedHead, outbound: Outbound) -> bool:
    """
    Will nothing follow this response, even if its origin is wrong (docs/decisions/0200-octets-behind-a-response.md)?

    Some send content to HEAD, with a 204 or with a 304 that has framing; some do not read the content that they are
    sent, and take it for the next request. What follows then would be the answer to somebody else's. Of other methods
    than GET there are few, and what an origin takes for their end is not known.
    """
    if outbound.method != b"GET" or outbound.content is not None:
        return False
    return head.status not in (204, 304) or not (head.chunked or head.length)


def _understand(head: ParsedHead, lines: Fields) -> list[bytes]:
    """Framing and Keep-Alive into ``head``. :return: the options of Connection."""
    options: list[bytes] = []
    for name, value in lines:
        if name == b"content-length":
            if head.length is not None or _DIGITS.fullmatch(value) is None:
                raise FramingError("Content-Length is not one number")
            head.length = int(value)
        elif name == b"transfer-encoding":
            if head.chunked or not head.minor or value.lower() != b"chunked":
                raise FramingError("Transfer-Encoding is not once chunked, or in HTTP/1.0")
            head.chunked = True
        elif name == b"connection":
            options += [option.strip(b" \t") for option in value.lower().split(b",")]
        elif name == b"keep-alive":
            announced = _TIMEOUT.search(value)
            if announced is not None:
                head.idle_seconds = int(announced[1])
    if head.chunked and head.length is not None:
        raise FramingError("both Content-Length and Transfer-Encoding")
    return options
