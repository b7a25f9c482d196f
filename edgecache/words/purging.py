"""
Purges as entries of logs, and tokens (DESIGN 9, 12): the values that control keeps and siblings exchange.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

Row = tuple[bytes, int, int]
"""One invalidation: canonical selector, its 64-bit hash, number of its :class:`~edgecache.words.reasons.PurgeMode`."""


@frozen
class SerialDemand:
    """
    What a purge says about the serials of a project's pages (DESIGN 10); it goes where the purge goes.

    :ivar site: hash of the selector of everything on a site.
    :ivar selector: hash of the project's tag there; ``site`` again for all projects.
    :ivar serial: a page with a lower one is not good any more; 0 says nothing.
    :ivar forget: whatever was known before is void: the origin may have been restored from a backup.
    """

    site: int
    selector: int
    serial: int = 0
    forget: bool = False


@frozen
class Demanded:
    """
    What all purges so far demand of one project.

    :ivar serial: a page with a lower one is not good; 0: any is.
    :ivar since: the epoch of the last purge that made void what was known before: a serial that came with a page of
        a lower floor means nothing.
    """

    serial: int = 0
    since: int = 0


# Hashed on its own in every step of the protocol.
@frozen(cache_hash=True)
class LogName:
    """
    Whose log it is. A node whose control was lost begins another log, so that no position means two things.

    :ivar incarnation: 16 octets.
    """

    id: str
    incarnation: bytes


Positions = Mapping[LogName, int]
"""Log to the sequence up to which it is on somebody's disk. A log that is missing is not known there at all."""


@frozen
class Position:
    """The place after ``sequence`` entries of a log; 0 is its beginning."""

    log: LogName
    sequence: int


@frozen
class Entry:
    """
    One purge in a log.

    :ivar sequence: 1 for the first; without gaps, and never used again.
    :ivar first_epoch: this node's epoch before the purge was applied here.
    :ivar last_epoch: this node's epoch with all of it applied.
    :ivar purge_id: the purge's id, unique in the fleet.
    :ivar digest: of what the purge asks for: the same id with another digest is another purge.
    :ivar content: octets that only purgers understand.
    """

    log: LogName
    sequence: int
    first_epoch: int
    last_epoch: int
    purge_id: str
    digest: bytes
    content: bytes


@frozen
class TooOld:
    """Entries after the position asked for are gone. :ivar oldest: the position from which on all are there."""

    oldest: Position


class PurgeState(enum.Enum):
    """How far a purge has spread; each implies the ones before."""

    LOCAL = "local"
    """This node has applied it; too few others have."""
    DURABLE = "durable"
    """A majority has it on disk."""
    EFFECTIVE = "effective"
    """Every member has applied it, or is fenced."""
    COMPLETE = "complete"
    """Every member has applied it."""


STATES = tuple(PurgeState)
"""From the least to the most."""


@frozen
class Spreading:
    """
    How far one purge has come among the members (DESIGN 9).

    :ivar applied: ids of the members that have applied it.
    :ivar pending: ids of the members that have not said so.
    :ivar effective_by: wall time from which on it holds everywhere; ``None`` where it does, and while nothing is
        promised because no majority has it.
    """

    state: PurgeState
    applied: tuple[str, ...]
    pending: tuple[str, ...] = ()
    effective_by: float | None = None


class Scope(enum.Enum):
    """What a token allows."""

    PURGE = "purge"
    """Purge, and ask how far a purge has come."""
    STATUS = "status"
    """Read status and metrics."""
    BYPASS = "bypass"
    """Fetch past the store."""
    TOKENS = "tokens"
    """Make and revoke tokens."""
    VERIFY = "verify"
    """Look through the store, which drops what is damaged."""


ALL_SCOPES = frozenset(Scope)


@frozen
class Token:
    """
    A token as it is kept.

    :ivar digest: sha256 of the token; the token itself is kept nowhere.
    """

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
