"""
Strict parsing of request heads (RFC 9112 §2 to §6, RFC 9110 §7).

What two parsers could read differently is refused, not repaired: that is
where request smuggling lives. :func:`parse` reads a complete head;
:func:`fault` finds what is wrong with the lines of an unfinished or bad one.
The verdict depends on the octets only, never on how they were cut into
packets (docs/decisions/0010-request-heads.md).
"""

from __future__ import annotations

import re

from attrs import define

from edgecache.wire.fieldlines import (
    FIELD_LINES,
    TOKEN,
    RequestRefused,
    Section,
    authority_of,
    read_section,
)
from edgecache.wire.memo import Memo
from edgecache.words.config import LimitSettings
from edgecache.words.messages import Request

REQUEST_LINE_OCTETS = 8192
"""RFC 9112 §3 wants at least 8000; a longer target than this is 414."""

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_TCHAR = re.compile(TOKEN[:-1])
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT"))


@define(eq=False, repr=False)
class Framed:
    """
    A request, and what its head means for the connection.

    :ivar persistent: and the next three as in :class:`~edgecache.wire.fieldlines.Section`.
    :ivar headless: the response to it never has content: HEAD.
    :ivar straight: HTTP/1.1, persistent, no content, not HEAD: nothing to consider when answering.
    """

    request: Request
    persistent: bool
    chunked: bool
    length: int
    expects: bool
    headless: bool
    straight: bool


def parse(
    head: bytes, limits: LimitSettings, *, secure: bool, trusted: bool, sections: Memo[Section] | None = None
) -> Framed:
    """
    :param head: everything up to and including the empty line.
    :param trusted: let fields between workers in; they are left out otherwise.
    :param sections: remembers the field lines of HTTP/1.1 requests, as read with these limits and this trust.
    :raise RequestRefused: with status 400, 414, 417, 431, 501 or 505.
    """
    end = head.find(b"\r\n")
    block = head[end + 2 : -2]
    section = sections.get(block) if sections is not None else None
    if (
        end + 2 > REQUEST_LINE_OCTETS
        or len(head) > limits.head_octets
        or (section is None and not FIELD_LINES.fullmatch(block))
    ):
        raise fault(head, limits) or RequestRefused(400, "malformed request head")
    method, raw_target, minor = _request_line(head[:end])
    if section is None or minor == 0:
        section = read_section(block, minor, limits, trusted=trusted)
        if sections is not None and minor:
            sections.put(block, section)
    target, authority = _target(method, raw_target)
    fields = section.fields
    if authority is None:
        authority = section.host
    else:
        # RFC 9112 §3.2.2: the target wins, and Host is replaced by it.
        fields = [(b"host", authority), *(line for line in fields if line[0] != b"host")]
    length = section.length or 0
    has_content = section.chunked or length > 0
    if method == b"TRACE" and has_content:
        raise RequestRefused(400, "TRACE with content")
    request = Request(method, target, authority, fields, secure, minor, has_content, section.length)
    headless = method == b"HEAD"
    straight = section.persistent and minor >= 1 and not has_content and not headless
    return Framed(request, section.persistent, section.chunked, length, section.expects, headless, straight)


def fault(data: bytes, limits: LimitSettings) -> RequestRefused | None:
    """
    :param data: the beginning of a head, from the first octet of its request line; may be complete or go beyond.
    :return: what is wrong with it already, ``None`` while it may become a good one.
    """
    return Lines().fault(data, limits)


@define(eq=False, repr=False)
class Lines:
    """
    The lines of a head that is still coming.

    Each is looked at once: some clients send a head line by line, and hundreds of them at the same time.
    """

    _end: int = 0
    """Of the last good line."""
    _fields: int = 0

    def fault(self, data: bytes | bytearray, limits: LimitSettings) -> RequestRefused | None:
        """As :func:`fault`, of ever more of the same octets."""
        if not self._end:
            refused = self._request_line(data, limits)
            if refused is not None or not self._end:
                return refused
        matched = FIELD_LINES.match(data, self._end, limits.head_octets)
        assert matched is not None  # of none is a match, too
        good = matched.end()
        self._fields += data.count(b"\n", self._end, good)
        self._end = good
        if self._fields > limits.fields:
            return RequestRefused(431, "too many fields")
        end = data.find(b"\n", good, limits.head_octets) + 1
        if not end:
            return RequestRefused(431, "request head too large") if len(data) > limits.head_octets else None
        return None if data[good:end] == b"\r\n" else RequestRefused(400, "malformed field line")

    def _request_line(self, data: bytes | bytearray, limits: LimitSettings) -> RequestRefused | None:
        if not _TCHAR.match(data):
            return RequestRefused(400, "not a request")
        end = data.find(b"\n", 0, limits.head_octets) + 1
        longest = min(REQUEST_LINE_OCTETS, limits.head_octets)
        if end > longest or (not end and len(data) > longest):
            # A method of this length is not a long target.
            method = bytes(data[:longest]).split(b" ", 1)[0]
            if len(method) < 64:
                return RequestRefused(414, "request target too long")
            return RequestRefused(400, "no method")
        if not end:
            return None
        if data[end - 2 : end] != b"\r\n":
            return RequestRefused(400, "request line not ended by CR LF")
        try:
            _request_line(bytes(data[: end - 2]))
        except RequestRefused as refused:
            return refused
        self._end = end
        return None


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    """:return: method, target as received, minor version."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RequestRefused(400, "malformed request line")
    method, target, major, minor = match.groups()
    if major != b"1":
        # 0.9 and 2.0 on this connection are somebody's other parser, not another protocol's client.
        if (major, minor) in ((b"0", b"9"), (b"2", b"0")):
            raise RequestRefused(400, "not HTTP/1")
        raise RequestRefused(505, "only HTTP/1 is spoken here")
    if method not in _METHODS:
        # Case matters (RFC 9110 §9.1): an origin that thinks otherwise would frame its response as to the other.
        if method.upper() in _METHODS:
            raise RequestRefused(501, "methods are upper case")
    elif method == b"CONNECT":
        raise RequestRefused(501, "no tunnels here")
    return method, target, int(minor)


def _target(method: bytes, raw: bytes) -> tuple[bytes, bytes | None]:
    """:return: the target in origin-form or ``*``, and the authority if it had one (RFC 9112 §3.2)."""
    if b"#" in raw:
        raise RequestRefused(400, "target with fragment")
    if raw.startswith(b"/"):
        return raw, None
    if raw == b"*" and method == b"OPTIONS":
        return raw, None
    match = _ABSOLUTE.fullmatch(raw)
    if match is None:
        raise RequestRefused(400, "malformed request target")
    rest = match[2]
    if not rest:
        rest = b"*" if method == b"OPTIONS" else b"/"
    elif not rest.startswith(b"/"):
        rest = b"/" + rest
    return rest, authority_of(match[1])
