"""
What a worker adds to a request for the key's owner, or to one of its own, as fields that come from nobody else
(:data:`edgecache.rules.lookups.INTERNAL`).
"""

from __future__ import annotations

import re

from attrs import frozen

from edgecache.words.messages import Fields, combined

SCHEME = b"edgecache-scheme"
"""``https`` if the client's connection was secure: links that must be absolute begin with it."""

PAGE = b"edgecache-page"
"""A page itself is needed, not what clients get of it: :class:`PageNeeded`."""

_NEEDED = re.compile(rb"([01]) ([0-9]{1,20}) (0x[01]\.[0-9a-f]{1,13}p[+-][0-9]{1,4})")


@frozen
class PageNeeded:
    """
    How good the page has to be.

    :ivar at_origin: if it has to be asked for, siblings are not asked.
    :ivar floor: it is known good up to this epoch.
    :ivar validated_since: it was validated then or later: wall time, seconds since the epoch.
    """

    at_origin: bool = False
    floor: int = 0
    validated_since: float = 0.0

    @property
    def value(self) -> bytes:
        """The field's."""
        return b"%d %d %b" % (self.at_origin, self.floor, self.validated_since.hex().encode("ascii"))


def page_needed(fields: Fields) -> PageNeeded | None:
    """:return: what :data:`PAGE` says; ``None`` without it."""
    value = combined(fields, PAGE)
    matched = None if value is None else _NEEDED.fullmatch(value)
    return (
        None
        if matched is None
        else PageNeeded(matched[1] == b"1", int(matched[2]), float.fromhex(matched[3].decode("ascii")))
    )


def is_secure(fields: Fields, secure: bool) -> bool:
    """:param secure: is the connection over which it came?"""
    return secure or combined(fields, SCHEME) == b"https"
