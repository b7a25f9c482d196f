"""
Events of downloads: the lines that workers append, and the log lines that come of them (DESIGN 10, FIELD 3).

An event is one line, its fields separated by tabs: milliseconds since the epoch, client, TLS protocol, TLS
cipher, octets of content sent, range, number. The range is empty for a complete whole response, else
``first-last/total`` of what was sent. The number stands for what all requests of one head have in common, which
another line of the same file has said before: ``=number``, kind, site, path, User-Agent. The path names project,
file and digest. A User-Agent may have tabs, so it comes last; nothing else can.
"""

from __future__ import annotations

import enum
import re

from attrs import define, field

from edgecache.index.distributions import Distribution
from edgecache.rules.dates import format_date

HEADER = b"edgecache-downloads 1 "
"""A file of events begins with this and the id of the node."""

DIRECTORY, SUFFIX = "downloads", ".events"
"""Where files of events are, below the data directory, and how their names end; one that does not is not complete."""

_EVENT_FIELDS, _COMMON_FIELDS = 7, 4
# Until the year 5138. What is damaged may have more digits than any day has a number, or than Python reads.
_TIME, _OCTETS = re.compile(rb"[0-9]{1,14}"), re.compile(rb"[0-9]{1,19}")
_RANGE = re.compile(rb"([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})")
_CONTENT_RANGE = re.compile(rb"\r\ncontent-range: *bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}) *\r\n", re.IGNORECASE)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,19}) *\r\n", re.IGNORECASE)
_MISSING = b"(null)"

DAY_MILLISECONDS = 86_400_000


class Kind(enum.Enum):
    """What was sent."""

    FILE = b"D"
    PAGE = b"S"


_KINDS = {kind.value: kind for kind in Kind}


@define(eq=False, repr=False)
class Event:
    """
    Content of one response, handed to the client's connection.

    :ivar time: its end, milliseconds since the epoch.
    :ivar client: address, ``b""`` if unknown.
    :ivar tls: protocol, ``b""`` without TLS; likewise ``cipher``.
    :ivar part: first octet, one after the last, octets of the whole; ``None`` for a whole response.
    :ivar begun: it is the begin of a response that was to be whole.
    :ivar site: id of the site, 16 hexadecimal digits.
    :ivar path: of the request, without query.
    """

    time: int
    client: bytes
    tls: bytes
    cipher: bytes
    octets: int
    part: tuple[int, int, int] | None
    begun: bool
    kind: Kind
    site: bytes
    path: bytes
    user_agent: bytes

    @property
    def day(self) -> int:
        """Days since the epoch (UTC)."""
        return self.time // DAY_MILLISECONDS


def common(kind: Kind, site: int, path: bytes, user_agent: bytes) -> bytes:
    """:return: what all requests of one head have in common."""
    return b"%b\t%016x\t%b\t%b" % (kind.value, site, path, user_agent)


def sent_range(head: bytes, octets: int) -> bytes | None:
    """
    :param head: of a response that was not whole, or not complete.
    :param octets: of content that were sent.
    :return: what of the file that was, as an event has it; ``None`` when that is nothing, or unknown. One that was
        to be whole is told by a ``<`` in front.
    """
    status = head[9:12]
    if octets <= 0:
        return None
    if status == b"206":
        matched = _CONTENT_RANGE.search(head)
        if matched is None:
            return None
        first = int(matched[1])
        return b"%d-%d/%b" % (first, first + octets - 1, matched[2])
    matched = _CONTENT_LENGTH.search(head) if status == b"200" else None
    return None if matched is None else b"<0-%d/%b" % (octets - 1, matched[1])


@define(eq=False, repr=False)
class Reader:
    """
    Reads the lines of one file of events, in order.

    :ivar damaged: lines that were neither, as after a power cut.
    """

    damaged: int = 0
    _common: dict[bytes, tuple[Kind, bytes, bytes, bytes]] = field(factory=dict)

    def read(self, line: bytes) -> Event | None:
        """
        :param line: without its end.
        :return: ``None`` when it is no event.
        """
        if line.startswith(b"="):
            self._learn(line)
            return None
        event = None if line.startswith(HEADER) else self._event(line)
        self.damaged += event is None and not line.startswith(HEADER)
        return event

    def _learn(self, line: bytes) -> None:
        number, *fields = line[1:].split(b"\t", _COMMON_FIELDS)
        if len(fields) == _COMMON_FIELDS and fields[0] in _KINDS and len(fields[1]) == 16:
            self._common[number] = (_KINDS[fields[0]], fields[1], fields[2], fields[3])
        else:
            self.damaged += 1

    def _event(self, line: bytes) -> Event | None:
        fields = line.split(b"\t")
        if len(fields) != _EVENT_FIELDS or not _TIME.fullmatch(fields[0]) or not _OCTETS.fullmatch(fields[4]):
            return None
        told = self._common.get(fields[6])
        given, part = fields[5], None
        if given:
            matched = _RANGE.fullmatch(given.removeprefix(b"<"))
            if matched is None:
                return None
            part = (int(matched[1]), int(matched[2]) + 1, int(matched[3]))
            if not part[0] < part[1] <= part[2]:
                return None
        if told is None:
            return None
        return Event(
            int(fields[0]), fields[1], fields[2], fields[3], int(fields[4]), part, given.startswith(b"<"), *told
        )


def log_line(event: Event, file: Distribution | None) -> bytes:
    """
    :param file: what was downloaded; ``None`` for a page.
    :return: one line of the index's own log. No node knows countries.
    """
    named = (_MISSING, _MISSING, _MISSING)
    if file is not None:
        named = (_field(file.project), _field(file.version), _field(file.kind))
    fields = (
        b"simple" if event.kind is Kind.PAGE else b"download",
        format_date(event.time // 1000),
        _MISSING,
        event.path.replace(b"|", b"%7C"),
        event.tls or _MISSING,
        event.cipher or _MISSING,
        *named,
        event.user_agent or _MISSING,
    )
    return b"|".join(fields) + b"\n"


def _field(text: str) -> bytes:
    # A filename is escaped in the path, but not here: it must not end the field or the line.
    return re.sub(r"[|\x00-\x1f\x7f]", "_", text).encode("utf-8", "replace") or _MISSING
