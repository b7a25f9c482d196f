"""Memory of all fills together that waits for the disk."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field

UNCOMMITTED_IN_ALL = 24 << 20
"""Octets of all fills of a worker that may wait for blobs: its memory is flat however many there are."""


class Waiting(Protocol):
    """Whoever holds less once there is room."""

    def drained(self) -> None:
        """There may be room for more."""


@define(eq=False, repr=False)
class Budget:
    """
    How much is held, and who waits for that to become less.

    :ivar limit: octets that should be held at most; nobody is kept from taking more.
    """

    limit: int = UNCOMMITTED_IN_ALL
    held: int = 0
    _waiting: dict[Waiting, None] = field(factory=dict)

    @property
    def exceeded(self) -> bool:
        """Is more held than should be?"""
        return self.held > self.limit

    def take(self, octets: int) -> None:
        """So many more are held."""
        self.held += octets

    def give(self, octets: int) -> None:
        """So many less; whoever waits is told, in order, when that makes room."""
        exceeded = self.exceeded
        self.held -= octets
        if exceeded and not self.exceeded:
            waiting, self._waiting = self._waiting, {}
            for one in waiting:
                one.drained()

    def wait(self, one: Waiting) -> None:
        """Tell ``one`` when there is room again. Asking twice is the same as once."""
        self._waiting[one] = None

    def forget(self, one: Waiting) -> None:
        """``one`` waits no more."""
        self._waiting.pop(one, None)
