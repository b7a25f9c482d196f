"""
What the field lines of a request head say, as far as the connection must know (RFC 9112 §3.2, §5, §6).

A client sends the same lines with every target, so what they say is
remembered apart from the request line.
"""

from __future__ import annotations

import re

from attrs import define

from edgecache.rules.asking import OVERRIDES
from edgecache.words.config import LimitSettings
from edgecache.words.errors import EdgeError
from edgecache.words.messages import Fields

INTERNAL = b"edgecache-"
"""Fields that begin so are between the workers of one node ..."""
PUBLIC = frozenset((b"edgecache-min-serial", b"edgecache-bypass"))
"""... except these, which clients may send (DESIGN 11)."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"
FIELD_LINE = re.compile(TOKEN + rb":" + _VALUE + rb"\r\n")
FIELD_LINES = re.compile(rb"(?:" + FIELD_LINE.pattern + rb")*")
# Narrower than RFC 3986's reg-name: what DNS, hosts files and container networks really use.
_AUTHORITY = re.compile(rb"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
# Eighteen digits fit into 64 bits; a leading zero has no honest use and reads as octal somewhere.
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")

_READ_HERE = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"))
# With "_" for "-" these reach some origins as the real thing (CGI's environment folds both).
_LOOKALIKES = OVERRIDES | {b"host", b"content-length", b"transfer-encoding", b"connection"}


@define(eq=False, repr=False)
class RequestRefused(EdgeError):
    """
    The octets are no request that we take; the connection must be closed after the answer.

    :ivar detail: for the person who reads the answer.
    """

    status: int
    detail: str


@define(eq=False, repr=False)
class Section:
    """
    Field lines, read.

    :ivar fields: as in :class:`~edgecache.words.messages.Request`.
    :ivar host: ``b""`` when HTTP/1.0 sent none.
    :ivar persistent: the client allows another request after this one (RFC 9112 §9.3).
    :ivar chunked: the content has the chunked coding; otherwise ``length`` octets follow, 0 when it is ``None``.
    :ivar expects: the client waits for 100 (Continue) before it sends content.
    """

    fields: Fields
    host: bytes
    persistent: bool
    chunked: bool
    length: int | None
    expects: bool


def read_section(block: bytes, minor: int, limits: LimitSettings, *, trusted: bool) -> Section:
    """
    :param block: field lines that are well-formed (:data:`FIELD_LINES`).
    :param minor: of the version in the request line.
    :param trusted: let :data:`INTERNAL` fields in; they are left out otherwise.
    :raise RequestRefused: with status 400, 417 or 431.
    """
    lines = block.split(b"\r\n")[:-1]
    if len(lines) > limits.fields:
        raise RequestRefused(431, "too many fields")
    fields: Fields = []
    seen: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in _READ_HERE:
            seen.setdefault(name, []).append(value)
        elif b"_" in name and name.replace(b"_", b"-") in _LOOKALIKES:
            raise RequestRefused(400, "field name that imitates another")
        elif name.startswith(INTERNAL) and not trusted and name not in PUBLIC:
            continue
        fields.append((name, value))
    host = _host(seen.get(b"host", []), minor)
    chunked, length = _framing(seen, minor)
    options = _list(seen.get(b"connection", []))
    persistent = b"close" not in options and (minor >= 1 or b"keep-alive" in options)
    expects = _expects(seen.get(b"expect", []), minor) and bool(chunked or length)
    return Section(fields, host, persistent, chunked, length, expects)


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


def _framing(seen: dict[bytes, list[bytes]], minor: int) -> tuple[bool, int | None]:
    """:return: chunked, length (RFC 9112 §6.3; everything ambiguous is refused)."""
    codings, lengths = seen.get(b"transfer-encoding", []), seen.get(b"content-length", [])
    if codings:
        if minor == 0 or lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise RequestRefused(400, "ambiguous or unknown Transfer-Encoding")
        return True, None
    if not lengths:
        return False, None
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
