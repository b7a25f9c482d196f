"""
What is evicted: S3-FIFO by octets, with a shelter for pages of an index (DESIGN 7).

S3-FIFO's small queue is called *probation* here, because small is an environment. What is new goes there, and leaves it
evicted unless it was hit twice. What was evicted so and comes back soon is *known* (:mod:`edgecache.rules.ghosts`) and
goes to main at once. In main, each hit (three count) is worth another round. What would be evicted and is to be
sheltered goes through a third queue, which only its like can push it out of.

A store keeps the queues, and asks :func:`queue_of_new` and :func:`plan`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from attrs import define, frozen

HITS = 3
"""More hits than this are not counted: two bits."""

PROBATION_SHARE = 0.1
"""Of all octets; main gets the rest."""

GHOST_SHARE = 0.9
"""Of all octets: how much may have been evicted from probation since, for a key still to be known."""

SHELTER_SHARE = 0.02
"""Of all octets, for what is sheltered."""

_SPARED = 8
"""Steps in a row that find nothing to evict in main; then it is probation's turn. Where everything was hit, going round
main first takes a transaction per :func:`plan`, thousands of them, and meanwhile nothing is stored."""

_WORTH_KEEPING = 2
_TENTH = 10


class Queue(enum.IntEnum):
    """Where something stands; numbers are on disk."""

    PROBATION = 0
    MAIN = 1
    SHELTER = 2


PROBATION, MAIN, SHELTER = Queue


@define(eq=False, repr=False)
class Entry:
    """
    One thing that stands in a queue.

    :ivar octets: that evicting it gives back where room is needed.
    :ivar hits: since it was stored or last considered, at most :data:`HITS`.
    :ivar sheltered: a page of an index, or something as small on which as much hangs.
    """

    octets: int
    hits: int
    sheltered: bool


E = TypeVar("E", bound=Entry)
Shown = TypeVar("Shown", bound=Entry, covariant=True)


class Heads(Protocol[Shown]):
    """The queues, as far as a plan has to see them."""

    def oldest(self, queue: Queue) -> Iterator[Shown]:
        """:return: what stands in ``queue``, the oldest first."""


@define
class Standing:
    """
    Octets in each queue, of what takes room in one place.

    :ivar evicting: something was evicted there once.
    """

    probation: int = 0
    main: int = 0
    shelter: int = 0
    evicting: bool = False

    @property
    def octets(self) -> int:
        """In all queues."""
        return self.probation + self.main + self.shelter

    def add(self, queue: Queue, octets: int) -> None:
        """:param octets: negative for what leaves ``queue``."""
        if queue is PROBATION:
            self.probation += octets
        elif queue is MAIN:
            self.main += octets
        else:
            self.shelter += octets


@frozen
class Step(Generic[E]):
    """
    :ivar to: the queue at whose end it goes on; ``None``: it is evicted.
    :ivar hits: that it still has there.
    :ivar remembered: evicted, and known when it comes back.
    """

    entry: E
    to: Queue | None
    hits: int = 0
    remembered: bool = False


def queue_of_new(known: bool, standing: Standing) -> Queue:
    """
    :param known: it was evicted from probation not long ago.
    :return: where something new begins.
    """
    # As long as everything fits nothing is on probation; yet the queues take their shapes.
    if known or (not standing.evicting and standing.probation > PROBATION_SHARE * standing.octets):
        return MAIN
    return PROBATION


def plan(heads: Heads[E], standing: Standing, capacity: int, needed: int, most: int) -> list[Step[E]]:
    """
    Nothing is changed; whoever asked takes the steps, in order.

    :param standing: of where room is needed.
    :param capacity: octets that fit there.
    :param needed: octets to evict, about.
    :param most: steps, at most.
    :return: fewer octets only after ``most`` steps, or once everything in the queues was considered.
    """
    left = Standing(standing.probation, standing.main, standing.shelter)
    queues = {queue: heads.oldest(queue) for queue in Queue}
    steps: list[Step[E]] = []
    spared = 0
    while needed > 0 and len(steps) < most:
        queue = PROBATION if spared == _SPARED else _overfull(left, capacity)
        entry = next(queues[queue], None)
        if entry is None:
            queue, entry = _any(queues)
            if entry is None:
                break
        step = _step(queue, entry, capacity)
        left.add(queue, -entry.octets)
        spared = spared + 1 if queue is MAIN and step.to is MAIN else 0
        if step.to is None:
            needed -= entry.octets
        else:
            left.add(step.to, entry.octets)
        steps.append(step)
    return steps


def _overfull(standing: Standing, capacity: int) -> Queue:
    """:return: the queue that something has to leave."""
    if standing.shelter > SHELTER_SHARE * capacity:
        return SHELTER
    if standing.main > (1 - PROBATION_SHARE) * (capacity - standing.shelter):
        return MAIN
    return PROBATION


def _any(queues: dict[Queue, Iterator[E]]) -> tuple[Queue, E | None]:
    for queue in (PROBATION, MAIN, SHELTER):
        entry = next(queues[queue], None)
        if entry is not None:
            return queue, entry
    return PROBATION, None


def _step(queue: Queue, entry: E, capacity: int) -> Step[E]:
    """What becomes of an entry whose turn it is."""
    if queue is PROBATION:
        if entry.hits >= _WORTH_KEEPING:
            return Step(entry, MAIN)
    elif entry.hits:
        return Step(entry, MAIN, min(entry.hits, HITS) - 1)
    if queue is not SHELTER and entry.sheltered and entry.octets * _TENTH <= SHELTER_SHARE * capacity:
        return Step(entry, SHELTER)
    return Step(entry, None, remembered=queue is not MAIN)
