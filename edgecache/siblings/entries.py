"""Purges as octets in logs: what one node writes, and every node that has the log applies (DESIGN 9)."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson
from attrs import define, frozen

from edgecache.rules.demands import demands_of
from edgecache.rules.purging import MOST_SERIAL, PurgeAsked
from edgecache.rules.selectors import rows_of
from edgecache.words.errors import EdgeError
from edgecache.words.purging import Row, SerialDemand
from edgecache.words.reasons import PurgeMode

VERSION = 1
"""Of the octets; neighbouring releases read each other's."""


@define(eq=False, repr=False)
class BadEntry(EdgeError):
    """An entry that this release cannot read."""

    problem: str


@frozen
class PurgeEntry:
    """
    What an entry says.

    :ivar selectors: canonical octets; site ids are in them, so every node selects the same.
    :ivar accepted_at: wall time of the node that accepted it.
    :ivar by: name of the token that it was accepted with.
    """

    selectors: tuple[bytes, ...]
    mode: PurgeMode
    serials: dict[str, int]
    accepted_at: float
    by: str

    def rows(self) -> list[Row]:
        """:return: what control applies."""
        return rows_of(self.selectors, self.mode)

    def demands(self) -> list[SerialDemand]:
        """
        :return: what control keeps of the serials that it names, or makes void.
        :raises BadEntry: a selector is none of this release's.
        """
        try:
            return demands_of(self.selectors, self.mode, self.serials)
        except ValueError as error:
            raise BadEntry(repr(error)) from error

    def pack(self) -> bytes:
        """:return: the octets for the log."""
        return orjson.dumps(
            {
                "version": VERSION,
                # Octets need not be UTF-8: each becomes the character of its number.
                "selectors": [selector.decode("latin-1") for selector in self.selectors],
                "mode": self.mode.name.lower(),
                "serials": self.serials,
                "accepted_at": self.accepted_at,
                "by": self.by,
            }
        )

    @classmethod
    def unpack(cls, content: bytes) -> PurgeEntry:
        """:raises BadEntry: for what this release cannot read."""
        try:
            document = orjson.loads(content)
            if document["version"] != VERSION:
                raise BadEntry(f"version {document['version']}")
            return cls(
                tuple(selector.encode("latin-1") for selector in document["selectors"]),
                PurgeMode[document["mode"].upper()],
                {project: _serial(serial) for project, serial in document["serials"].items()},
                float(document["accepted_at"]),
                str(document["by"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadEntry(repr(error)) from error


def _serial(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MOST_SERIAL:
        raise ValueError(f"no serial: {value!r:.100}")
    return value


def digest(asked: PurgeAsked) -> bytes:
    """:return: 16 octets, the same for purges that ask for the same, whatever the order."""
    told = [
        asked.mode.name.encode(),
        *sorted(selector.canonical for selector in asked.selectors),
        *sorted(b"%b=%d" % (project.encode(), serial) for project, serial in asked.serials.items()),
    ]
    return blake2b(b"\0".join(told), digest_size=16).digest()
