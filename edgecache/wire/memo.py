"""
Remembers what heads mean: installers send the same head octets over and over.

A client asks for the same pages with the same fields, and a second client of
the same kind sends the very same octets; for another page, all but the request
line are the same. ``benchmarks/wire.py`` says what a remembered head costs, a
half-remembered and a new one.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import define, field

Meaning = TypeVar("Meaning")

GENERATION_OCTETS = 384 << 10
"""Keys of one generation; values take about eight times that, and there are two generations."""

LEAST = 400
"""A shorter head counts as so much: what is known of it takes some kilobytes, however short it is."""

LONGEST = 4096
"""A longer head is an odd one, and not worth its memory."""


@define(eq=False, repr=False)
class Memo(Generic[Meaning]):
    """
    Two generations: a full young one becomes the old one, and what is asked for again moves up.

    That is bounded and needs no bookkeeping on a hit, unlike LRU.
    """

    _young: dict[bytes, Meaning] = field(factory=dict)
    _old: dict[bytes, Meaning] = field(factory=dict)
    _room: int = GENERATION_OCTETS

    def get(self, octets: bytes) -> Meaning | None:
        """:return: what :meth:`put` was given for exactly these octets."""
        meaning = self._young.get(octets)
        if meaning is None and self._old:
            meaning = self._old.get(octets)
            if meaning is not None:
                self.put(octets, meaning)
        return meaning

    def put(self, octets: bytes, meaning: Meaning) -> None:
        """Remember, for as long as there is room."""
        if len(octets) > LONGEST:
            return
        self._room -= max(len(octets), LEAST)
        if self._room < 0:
            self._old, self._young = self._young, {}
            self._room = GENERATION_OCTETS
        self._young[octets] = meaning
