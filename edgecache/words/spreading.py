"""
What siblings tell each other about purges, and what a member wants done (DESIGN 9). Plain values.

:class:`edgecache.rules.spreading.Member` takes the messages and gives the effects;
:mod:`edgecache.siblings.messages` writes the messages as documents.
"""

from __future__ import annotations

from collections.abc import Hashable

from attrs import field, frozen

from edgecache.words.purging import Entry, LogName, Positions, PurgeState

VERSION = 1
"""Of the messages. A release understands its own and both neighbouring ones, and ignores what it does not know."""

FENCED = float("-inf")
"""A lease that is over: everything purgeable is validated."""

FREE = float("inf")
"""A lease that does not end: there are no siblings."""


@frozen
class Sender:
    """
    Who sends a message.

    :ivar log: the sender's own; its id is the sender's.
    :ivar hashes: of the sender's configurations; see :class:`~edgecache.rules.membership.Membership`.
    :ivar members: ids of all whom the sender waits for.
    :ivar joining: it does not know yet what was durable before it began; it vouches for nothing.
    :ivar life: of the sender's process, unlike any other's; ``""``: of a release that does not say.
    """

    log: LogName
    hashes: tuple[bytes, ...]
    members: frozenset[str]
    joining: bool = False
    version: int = VERSION
    life: str = ""


@frozen
class Pull:
    """
    Asks for what the sender lacks. Answered with :class:`Pulled`.

    :ivar round: comes back in the answer; unique among all rounds of all lives of the sender.
    :ivar positions: of the sender; what is not beyond them is on its disk, unless it is joining.
    """

    sender: Sender
    round: str
    positions: Positions


@frozen
class Pulled:
    """
    Answer to a :class:`Pull`: one page of what its sender lacked.

    :ivar positions: of this sender when it answered: what the asker must have before this answer counts.
    :ivar entries: per log in ascending order without gaps; empty from a joining sender.
    :ivar too_old: logs of which entries that the asker lacks are forgotten: the position from which on they are here.
    :ivar more: not all fitted.
    """

    sender: Sender
    round: str
    positions: Positions
    entries: tuple[Entry, ...] = ()
    too_old: Positions = field(factory=dict)
    more: bool = False


@frozen
class Push:
    """New entries of the sender's own log, ascending without gaps; answered with :class:`Stands` once durable."""

    sender: Sender
    entries: tuple[Entry, ...]


@frozen
class Stands:
    """Where the sender stands. :ivar positions: what is not beyond them is on its disk, and all its workers see it."""

    sender: Sender
    positions: Positions


@frozen
class Refused:
    """Answer to a request that was not looked at. :ivar problem: one sentence that says why."""

    sender: Sender
    problem: str


Request = Pull | Push
Message = Pull | Pulled | Push | Stands | Refused


@frozen
class Send:
    """
    Send a message, once. Nothing is sent again because it was lost: the next round makes up for it.

    :ivar answering: what :meth:`~edgecache.rules.spreading.Member.came` was given with the request that this
        answers; ``None`` for a request. Every request that came is answered once, some of them later.
    """

    to: str
    message: Message
    answering: Hashable | None = None


@frozen
class Copy:
    """
    Have control take these entries over, in this order, after all that it was asked before.

    Then tell :meth:`~edgecache.rules.spreading.Member.stored`, or :meth:`~edgecache.rules.spreading.Member.failed`.
    """

    entries: tuple[Entry, ...]


@frozen
class Adopt:
    """
    Have control know these logs from these positions on, as if all before had been here and was forgotten.

    In one synced transaction, also with the invalidation; after all that control was asked before. A log that is
    further already stays as it is. Then tell ``stored`` or ``failed``.

    :ivar everything: also invalidate everything on all sites (DESIGN 9: if the log is trimmed, revalidate everything).
    """

    positions: Positions
    everything: bool


@frozen
class Admit:
    """Have control keep for ever that this node is no longer joining. Then tell ``admitted``, or ``failed``."""


@frozen
class Publish:
    """Publish the lease. :ivar fresh_until: CLOCK_BOOTTIME seconds, or :data:`FENCED`, or :data:`FREE`."""

    fresh_until: float


@frozen
class Changed:
    """Every entry of ``log`` up to ``sequence`` has reached ``state``, or a later one."""

    log: LogName
    sequence: int
    state: PurgeState


@frozen
class Renounce:
    """
    This node's control is older than what siblings have of its own log: a backup, or a copied directory.

    Sequence numbers would be used twice, so control must be moved aside before the node can be a member again. Until
    then it is fenced and accepts nothing.
    """

    problem: str


Effect = Send | Copy | Adopt | Admit | Publish | Changed | Renounce


@frozen
class SiblingState:
    """
    What a member knows of another, for people.

    :ivar heard_at: CLOCK_BOOTTIME seconds of its last message that was taken, ``None`` before the first.
    :ivar joining: it said that it is.
    :ivar lacking: entries that are here, and not there as far as known.
    :ivar positions: up to where it has said to have applied each log, as far as it can be believed.
    :ivar problem: why messages to it or from it are refused, or do not arrive; ``""`` when all is well.
    """

    id: str
    heard_at: float | None = None
    joining: bool = False
    lacking: int = 0
    problem: str = ""
    positions: tuple[tuple[LogName, int], ...] = ()
