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
