"""Keys whose last response could not be shared: nobody queues for the next one (FIELD 1)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from edgecache.rules.asking import Asked

UNSHAREABLE_SECONDS = 120.0
"""So long a key is remembered."""

UNSHAREABLE_KEYS = 10_000
"""Remembered at most; the oldest are forgotten."""


@define(eq=False, repr=False)
class Unshareable:
    """Those of one worker, the oldest first."""

    _clock: Callable[[], float]
    # Until when.
    _known: dict[bytes, float] = field(factory=dict)

    def add(self, asked: Asked) -> None:
        """The response to ``asked`` may not be shared: let nobody like that queue for it for a while."""
        key_hash = _known_as(asked)
        self._known.pop(key_hash, None)
        self._known[key_hash] = self._clock() + UNSHAREABLE_SECONDS
        if len(self._known) > UNSHAREABLE_KEYS:
            del self._known[next(iter(self._known))]

    def has(self, asked: Asked) -> bool:
        """Could the response for this key not be shared lately?"""
        key_hash = _known_as(asked)
        until = self._known.get(key_hash)
        if until is None:
            return False
        if until > self._clock():
            return True
        del self._known[key_hash]
        return False


def _known_as(asked: Asked) -> bytes:
    """What is not for all with credentials may well be without."""
    return asked.key_hash + b"authorized" if asked.authorized else asked.key_hash
