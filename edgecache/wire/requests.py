"""
Strict parsing of request heads (RFC 9112 §2 to §6, RFC 9110 §7).

What two parsers could read differently is refused, not repaired: that is
where request smuggling lives. :func:`parse` reads a complete head;
:func:`fault` finds what is wrong with the lines of an unfinished or bad one.
The verdict depends on the octets only, never on how they were cut into
packets (docs/decisions/0010-own-request-parser.md).
"""

from __future__ import annotations

import re

from attrs import define

from edgecache.words.config import LimitSettings
from edgecache.words.errors import EdgeError
from edgecache.words.messages import Fields, Request

REQUEST_LINE_OCTETS = 8192
"""RFC 9112 §3 wants at least 8000; a longer target than this is 414."""

INTERNAL = b"edgecache-"
"""Fields that begin so are between the workers of one node ..."""
PUBLIC = frozenset((b"edgecache-min-serial", b"edgecache-bypass"))
"""... except these, which clients may send (DESIGN 11)."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
FIELD_LINE = re.compile(TOKEN + rb":" + _VALUE + rb"\r\n")
_FIELD_LINES = re.compile(rb"(?:" + FIELD_LINE.pattern + rb")*")
_TCHAR = re.compile(TOKEN[:-1])
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]+)(.*)")
# Narrower than RFC 3986's reg-name: what DNS, hosts files and container networks really use.
_AUTHORITY = re.compile(rb"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
# Eighteen digits fit into 64 bits; a leading zero has no honest use and reads as octal somewhere.
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT"))
_READ_HERE = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))
# With "_" for "-" these reach some origins as the real thing (CGI's environment folds both).
_LOOKALIKES = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection"))


@define(eq=False)
class RequestRefused(EdgeError):
    """
    The octets are no request that we take; the connection must be closed after the answer.

    :ivar detail: for the person who reads the answer.
    """

    status: int
    detail: str


@define(eq=False)
class Framed:
    """
    A request, and what its head means for the connection.

    :ivar persistent: the client allows another request after this one (RFC 9112 §9.3).
    :ivar chunked: the content has the chunked coding; otherwise ``length`` octets follow.
    :ivar expects: the client waits for 100 (Continue) before it sends content.
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


def parse(head: bytes, limits: LimitSettings, *, secure: bool, trusted: bool) -> Framed:
    """
    :param head: everything up to and including the empty line.
    :param trusted: let :data:`INTERNAL` fields in; they are left out otherwise.
    :raise RequestRefused: with status 400, 414, 417, 431, 501 or 505.
    """
    end = head.find(b"\r\n")
    block = head[end + 2 : -2]
    if end + 2 > REQUEST_LINE_OCTETS or len(head) > limits.head_octets or not _FIELD_LINES.fullmatch(block):
        raise fault(head, limits) or RequestRefused(400, "malformed request head")
    method, raw_target, minor = _request_line(head[:end])
    fields: Fields = []
    seen: dict[bytes, list[bytes]] = {}
    lines = block.split(b"\r\n")[:-1]
    if len(lines) > limits.fields:
        raise RequestRefused(431, "too many fields")
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in _READ_HERE:
            seen.setdefault(name, []).append(value)
        elif b"_" in name and name.replace(b"_", b"-") in _LOOKALIKES:
            raise RequestRefused(400, "field name that imitates framing")
        elif name.startswith(INTERNAL) and not trusted and name not in PUBLIC:
            continue
        fields.append((name, value))

    target, authority = _target(method, raw_target)
    host = _host(seen.get(b"host", []), minor)
    if authority is None:
        authority = host
    else:
        # RFC 9112 §3.2.2: the target wins, and Host is replaced by it.
        fields = [(b"host", authority), *(line for line in fields if line[0] != b"host")]
    chunked, length = _framing(seen, minor)
    if method == b"TRACE" and (chunked or length):
        raise RequestRefused(400, "TRACE with content")
    options = _list(seen.get(b"connection", []))
    persistent = b"close" not in options and (minor >= 1 or b"keep-alive" in options)
    expects = _expects(seen.get(b"expect", []), minor) and (chunked or length > 0)
    has_content = chunked or length > 0
    request = Request(
        method,
        target,
        authority,
        fields,
        secure=secure,
        minor=minor,
        has_content=has_content,
        content_length=length if b"content-length" in seen else None,
    )
    headless = method == b"HEAD"
    straight = persistent and minor >= 1 and not has_content and not headless
    return Framed(request, persistent, chunked, length, expects, headless, straight)


def fault(data: bytes, limits: LimitSettings) -> RequestRefused | None:
    """
    :param data: the beginning of a head, from the first octet of its request line; may be complete or go beyond.
    :return: what is wrong with it already, ``None`` while it may become a good one.
    """
    if not _TCHAR.match(data):
        return RequestRefused(400, "not a request")
    room = data[: limits.head_octets]
    end = room.find(b"\n") + 1
    longest = min(REQUEST_LINE_OCTETS, limits.head_octets)
    if end > longest or (not end and len(data) > longest):
        # A method of this length is not a long target.
        method = room[:longest].split(b" ", 1)[0]
        return RequestRefused(414, "request target too long") if len(method) < 64 else RequestRefused(400, "no method")
    if not end:
        return None
    try:
        if room[end - 2 : end] != b"\r\n":
            raise RequestRefused(400, "request line not ended by CR LF")
        _request_line(room[: end - 2])
    except RequestRefused as refused:
        return refused
    count = 0
    while True:
        start, end = end, room.find(b"\n", end) + 1
        if not end:
            return RequestRefused(431, "request head too large") if len(data) > len(room) else None
        line = room[start:end]
        if line == b"\r\n":
            return None
        if not FIELD_LINE.fullmatch(line):
            return RequestRefused(400, "malformed field line")
        count += 1
        if count > limits.fields:
            return RequestRefused(431, "too many fields")


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


def authority_of(value: bytes) -> bytes:
    """:return: ``value`` in lower case if it is a host with an optional port, else raises."""
    match = _AUTHORITY.fullmatch(value)
    if match is None or not (match[1] is None or 0 < int(match[1]) <= 65535):
        raise RequestRefused(400, "malformed host")
    return value.lower()


def _host(values: list[bytes], minor: int) -> bytes:
    """RFC 9112 §3.2: exactly one; HTTP/1.0 may do without."""
    if not values and minor == 0:
        return b""
    if len(values) != 1:
        raise RequestRefused(400, "exactly one Host, please")
    return authority_of(values[0])


def _framing(seen: dict[bytes, list[bytes]], minor: int) -> tuple[bool, int]:
    """:return: chunked, length (RFC 9112 §6.3; everything ambiguous is refused)."""
    codings, lengths = seen.get(b"transfer-encoding", []), seen.get(b"content-length", [])
    if codings:
        if minor == 0 or lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise RequestRefused(400, "ambiguous or unknown Transfer-Encoding")
        return True, 0
    if not lengths:
        return False, 0
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise RequestRefused(400, "malformed Content-Length")
    return False, int(lengths[0])


def _expects(values: list[bytes], minor: int) -> bool:
    """RFC 9110 §10.1.1: an HTTP/1.0 client's expectation is ignored, an unknown one fails."""
    if not values or minor == 0:
        return False
    if _list(values) != [b"100-continue"]:
        raise RequestRefused(417, "only 100-continue is met")
    return True


def _list(values: list[bytes]) -> list[bytes]:
    """:return: the lower-case members of a list field (RFC 9110 §5.6.1)."""
    return [member for value in values for part in value.split(b",") if (member := part.strip(b" \t").lower())]
