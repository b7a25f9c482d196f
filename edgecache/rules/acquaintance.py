"""What a member knows of its siblings, for people, and whether it listens to them (DESIGN 9)."""

from __future__ import annotations

from attrs import define, evolve, field

from edgecache.rules.membership import Membership
from edgecache.words.spreading import VERSION, Sender, SiblingState


def objection(membership: Membership, peer: str, sender: Sender) -> str:
    """
    :param peer: id in the certificate of whoever sent a message.
    :return: why the message is not looked at, one sentence; ``""`` if it is.
    """
    if sender.log.id != peer:
        return f"The message is from {sender.log.id!r}, the certificate from {peer!r}."
    if peer not in membership.others:
        return f"{peer!r} is no sibling of {membership.own!r}."
    if abs(sender.version - VERSION) > 1:
        return f"Version {sender.version} of the protocol and version {VERSION} do not understand each other."
    if not membership.understands(sender.hashes):
        return (
            f"{peer!r} is configured otherwise than {membership.own!r}: members, quorum or lease_seconds differ; "
            f"members are {', '.join(sorted(sender.members))} there and "
            f"{', '.join(sorted(membership.everyone))} here."
        )
    return ""


LATE_MESSAGES = 10
"""More than a process that has ended may have under way: those may be late by minutes."""

_MOST_LIVES = 8


@define(eq=False, repr=False)
class _Life:
    """:ivar late: messages of it that came when the next life had been heard of for longer than a lease."""

    first: float
    last: float
    late: int = 0


@define(eq=False, repr=False)
class Lives:
    """
    Which processes speak for each sibling: one after the other; or two at a time, which write one log.

    A machine was cloned, or a data directory copied with its identity. Of two entries with one number each sibling has
    one, and says that it has the other as well. So neither is listened to: what they accept is not durable, and they
    have no lease. The one that stays is listened to when the other has been silent for two leases.
    """

    # The newest last.
    _of: dict[str, dict[str, _Life]] = field(factory=dict)

    def objection(self, peer: str, life: str, now: float, lease_seconds: float) -> str:
        """
        A message of this life came.

        :return: why it is not looked at, one sentence; ``""`` if it is.
        """
        if not life:
            return ""
        silent = now - 2 * lease_seconds
        lives = self._of.setdefault(peer, {})
        heard = lives.setdefault(life, _Life(now, now))
        while (newest := next(reversed(lives.values()))) is not heard and newest.last <= silent:
            lives.popitem()
        if newest is not heard and newest.first + lease_seconds < now:
            heard.late = 1 if heard.last <= silent else heard.late + 1
        heard.last = now
        if len(lives) > _MOST_LIVES:
            del lives[next(iter(lives))]
        if not any(one.late >= LATE_MESSAGES and one.last > silent for one in lives.values() if one is not newest):
            return ""
        return f"{peer!r} is there twice: two processes speak for it, with copies of one data directory; stop one."


@define(eq=False, repr=False)
class Acquaintance:
    """Each sibling as it was last seen."""

    _states: dict[str, SiblingState] = field(factory=dict)

    def heard(self, peer: str, now: float, joining: bool) -> None:
        """All is well with it."""
        self._states[peer] = SiblingState(peer, now, joining)

    def trouble(self, peer: str, problem: str) -> None:
        """:param problem: why messages to it or from it come to nothing."""
        self._states[peer] = evolve(self.state(peer), problem=problem)

    def state(self, peer: str) -> SiblingState:
        """:return: what is known of it, except what it lacks."""
        return self._states.get(peer) or SiblingState(peer)

    def keep(self, membership: Membership) -> None:
        """Forget those that are no siblings any more."""
        for gone in self._states.keys() - membership.others:
            del self._states[gone]
