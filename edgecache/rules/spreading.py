"""
One member of a fleet that spreads purges: its part of the protocol of DESIGN 9, without clock, disk or network.

Give it what happens, and do what it answers, in the order of the answer. Times are CLOCK_BOOTTIME seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import assert_never

from attrs import define, evolve, field

from edgecache.rules.acquaintance import Acquaintance, Lives, objection
from edgecache.rules.copying import Copies
from edgecache.rules.evidence import Evidence
from edgecache.rules.lease import Lease
from edgecache.rules.membership import Membership
from edgecache.rules.paging import PAGE_OCTETS, Logs, page
from edgecache.rules.receiving import Owed, Receiving
from edgecache.rules.rounds import Rounds, covers
from edgecache.words.purging import Entry, LogName, Positions, Spreading
from edgecache.words.spreading import (
    FREE,
    Admit,
    Adopt,
    Copy,
    Effect,
    Message,
    Pull,
    Pulled,
    Push,
    Refused,
    Renounce,
    Send,
    Sender,
    SiblingState,
    Stands,
)


@define(eq=False, repr=False)
class Member:
    """
    This node among its siblings.

    :ivar own: this node's own log.
    :ivar membership: as configured; see :meth:`configured`.
    :ivar admitted: this node is not joining (DESIGN 9).
    :ivar renounced: why this node can be no member until its control is made anew; ``""`` as a rule.
    """

    own: LogName
    membership: Membership
    _logs: Logs
    _copies: Copies
    _rounds: Rounds
    admitted: bool
    _page_octets: int
    _evidence: Evidence = field(init=False)
    renounced: str = ""
    _admitting: bool = False
    _lease: Lease = field(factory=Lease)
    _receiving: Receiving = field(factory=Receiving)
    _more: dict[str, str] = field(factory=dict)
    _catching_up: set[str] = field(factory=set)
    _acquaintance: Acquaintance = field(factory=Acquaintance)
    _lives: Lives = field(factory=Lives)

    @_evidence.default
    def _no_evidence(self) -> Evidence:
        return Evidence(self.membership)

    @classmethod
    def begin(
        cls,
        own: LogName,
        membership: Membership,
        logs: Logs,
        *,
        positions: Positions,
        admitted: bool,
        life: str,
        page_octets: int = PAGE_OCTETS,
    ) -> Member:
        """
        :param positions: of all logs in control; ``own`` may be missing.
        :param admitted: what control keeps of :class:`~edgecache.words.spreading.Admit`; ``False`` when it is new.
        :param life: of this process; never used before on any node.
        """
        copies = Copies({own: 0, **positions})
        return cls(own, membership, logs, copies, Rounds(life), admitted, page_octets)

    # What happens.

    def tick(self, now: float, wall: float) -> list[Effect]:
        """
        Once a second, and first of all: a round begins.

        :param wall: wall time at ``now``.
        """
        effects = self.clocks(now, wall)
        lease = self.membership.lease_seconds
        self._rounds.forget(now - lease)
        self._catching_up.clear()
        self._more.clear()
        effects += self._answer(lambda owed: owed.since < now - lease)
        effects += self._told(self._sender, self._here, now)
        if not self.renounced:
            name = self._rounds.begin(now, wall - now)
            effects += (self._pull(peer, name) for peer in sorted(self.membership.others))
        effects += self._evidence.passed(now)
        return effects + self._progress(now)

    def clocks(self, now: float, wall: float) -> list[Effect]:
        """
        Look at the clocks: whenever a call took strangely long, or nothing happened for long. A tick does it as well.

        If wall time jumped, this machine may have stood still: what its clock says of leases is void.
        """
        if not self._lease.jumped(now, wall):
            return []
        self._rounds.forget()
        return self._lease.drop()

    def came(self, peer: str, message: Message, now: float, request: Hashable | None = None) -> list[Effect]:
        """
        A message came.

        :param peer: id in the certificate of whoever sent it.
        :param request: with a request: what :attr:`~edgecache.words.spreading.Send.answering` is to be.
        """
        sender = message.sender
        problem = self._objection(peer, sender)
        if not problem:
            problem = self._lives.objection(peer, sender.life, now, self.membership.lease_seconds)
        if problem:
            self.unreachable(peer, problem)
            if isinstance(message, Pull | Push):
                return [Send(peer, Refused(self._sender, problem), request)]
            return []
        if isinstance(message, Refused):
            self.unreachable(peer, f"refuses us: {message.problem}")
            return []
        self._acquaintance.heard(peer, now, sender.joining)
        match message:
            case Pull():
                return self._pull_came(message, now, request)
            case Pulled():
                return self._pulled_came(message, now)
            case Push():
                return self._push_came(message, now, request)
            case Stands():
                return self._told(sender, message.positions, now) + self._progress(now)
            case unexpected:
                assert_never(unexpected)

    def appended(self, entries: Sequence[Entry], now: float) -> list[Effect]:
        """
        Purges that this node accepted are durable in its own log, and published.

        :param entries: in ascending order.
        """
        here = max((entry.sequence for entry in entries), default=0)
        effects = self._stored({self.own: here}, now)
        push = Push(self._sender, tuple(entries))
        effects += (Send(peer, push) for peer in sorted(self.membership.others))
        effects += self._progress(now)
        return effects

    def stored(self, positions: Positions, now: float) -> list[Effect]:
        """Control has these positions on disk and published. :param positions: at least those that moved."""
        return self._stored(positions, now) + self._progress(now)

    def failed(self, now: float) -> list[Effect]:
        """
        Control could not do something it was asked for.

        What it was asked for after that may still succeed. All is asked for again in the next round.
        """
        self._copies.failed()
        self._admitting = False
        self._receiving.forget_entries()
        return self._answer(lambda owed: True)

    def became_admitted(self, now: float) -> list[Effect]:
        """Control keeps that this node is admitted."""
        self.admitted = True
        return self._told(self._sender, self._here, now) + self._progress(now)

    def unreachable(self, peer: str, problem: str) -> None:
        """A message to ``peer`` was not answered. :param problem: for people."""
        if peer in self.membership.others:
            self._acquaintance.trouble(peer, problem)

    def configured(self, membership: Membership, now: float) -> list[Effect]:
        """
        The members are others now.

        :param membership: of the same node. If no configuration of before is in it, the lease is dropped.
        """
        effects: list[Effect] = []
        if not membership.understands(self.membership.hashes):
            effects += self._lease.drop()
        elif not membership.lone:
            # A lone node's lease has no end; and a new one may be shorter.
            effects += self._lease.shorten(now + membership.lease_seconds)
        self.membership = membership
        self._rounds.forget()
        self._acquaintance.keep(membership)
        effects += self._evidence.configured(membership, now)
        return effects + self._progress(now)

    def catch_up(self, peer: str, now: float) -> list[Effect]:
        """``peer`` is known to have what is not here: ask it at once, unless it was asked in this second."""
        if (
            self.renounced
            or peer not in self.membership.others
            or peer in self._catching_up
            or self._lease.offset is None
        ):
            return []
        self._catching_up.add(peer)
        return [self._pull(peer, self._rounds.begin(now, self._lease.offset))]

    # What others ask for.

    @property
    def fresh_until(self) -> float:
        """The lease, as published last."""
        return self._lease.fresh_until

    @property
    def accepts(self) -> bool:
        """May this node append purges to its own log?"""
        return self.admitted and not self.renounced

    @property
    def positions(self) -> Positions:
        """What is on disk here and published; a request for content carries them."""
        return dict(self._here)

    def covers(self, positions: Positions) -> bool:
        """
        Is all that an asker had applied applied here? Else what is fresh here may be too old for it.

        A node without a lease must not answer from its store at all.
        """
        return covers(self._here, positions)

    def stands(self) -> Stands:
        """:return: where this node stands, for siblings that ask for nothing else."""
        return Stands(self._sender, dict(self._here))

    def state(self, log: LogName, sequence: int, now: float, wall: float) -> Spreading:
        """:return: how far an entry of any log has come; see :meth:`Evidence.state`."""
        return self._evidence.state(log, sequence, now, wall)

    def settled(self, log: LogName) -> int:
        """:return: see :meth:`Evidence.settled`."""
        return self._evidence.settled(log)

    def siblings(self) -> list[SiblingState]:
        """:return: what is known of each, in order of their ids."""
        return [
            evolve(
                self._acquaintance.state(peer),
                lacking=self._evidence.lacking(peer, self._here),
                positions=self._evidence.positions(peer, self._here),
            )
            for peer in sorted(self.membership.others)
        ]

    def problem(self, peer: str) -> str:
        """:return: why ``peer`` cannot be spoken to, or is not listened to; ``""`` when all is well."""
        return self._acquaintance.state(peer).problem

    # Inside.

    @property
    def _here(self) -> dict[LogName, int]:
        return self._copies.here

    @property
    def _sender(self) -> Sender:
        joining = not self.admitted or bool(self.renounced)
        everyone = self.membership.everyone
        return Sender(self.own, self.membership.hashes, everyone, joining, life=self._rounds.life)

    def _objection(self, peer: str, sender: Sender) -> str:
        return objection(self.membership, peer, sender)

    def _pull(self, peer: str, name: str) -> Send:
        return Send(peer, Pull(self._sender, name, dict(self._here)))

    def _pull_came(self, message: Pull, now: float, request: Hashable | None) -> list[Effect]:
        sender = message.sender
        effects = self._told(sender, message.positions, now)
        answer = Pulled(self._sender, message.round, dict(self._here))
        if self.accepts:
            answer = page(answer, message.positions, self._logs, self._page_octets)
        effects.append(Send(sender.log.id, answer, request))
        return effects + self._progress(now)

    def _pulled_came(self, message: Pulled, now: float) -> list[Effect]:
        sender, peer = message.sender, message.sender.log.id
        self._catching_up.discard(peer)
        effects = self._told(sender, message.positions, now)
        if not sender.joining:
            skipped = {} if self.renounced else self._copies.skipped(message.too_old)
            if skipped:
                effects.append(Adopt(skipped, everything=True))
            effects += self._copy(message.entries)
        self._rounds.answered(message.round, peer, message.positions, sender.joining)
        if message.more:
            self._more[peer] = message.round
        return effects + self._progress(now)

    def _push_came(self, message: Push, now: float, request: Hashable | None) -> list[Effect]:
        sender = message.sender
        peer = sender.log.id
        if not self.accepts:
            return [Send(peer, self.stands(), request)]
        # Nobody pushes but its own.
        entries = [entry for entry in message.entries if entry.log == sender.log]
        sequence = max((entry.sequence for entry in entries), default=0)
        if self._here.get(sender.log, 0) >= sequence:
            return [Send(peer, self.stands(), request)]
        self._receiving.add(entries, Owed(sender.log, peer, request, sequence, now))
        effects = self._copy(self._pushed(sender.log))
        if self._copies.lacks(sender.log, sequence):
            effects += self.catch_up(peer, now)
        return effects

    def _pushed(self, log: LogName) -> list[Entry]:
        return self._receiving.following(log, self._copies.asked.get(log, 0)) if self._takes(log) else []

    def _copy(self, entries: Iterable[Entry]) -> list[Effect]:
        """:return: what has control take over those that follow what it was asked for."""
        following = self._copies.following(entry for entry in entries if self._takes(entry.log))
        return [Copy(following)] if following else []

    def _takes(self, log: LogName) -> bool:
        if log == self.own or self.renounced:
            return False
        # Its first entry must not reach the disk without the invalidation that comes with its name.
        return log in self._here or not self.membership.one_disk_suffices

    def _told(self, sender: Sender, positions: Positions, now: float) -> list[Effect]:
        """Somebody, perhaps this node, has said where it stands."""
        if positions.get(self.own, 0) > self._here[self.own]:
            return self._renounce(sender.log.id, positions[self.own])
        effects: list[Effect] = []
        named = positions if sender.log in positions else {sender.log: 0, **positions}
        unknown = {} if self.renounced else self._copies.begun(named)
        if unknown:
            # The one disk that had a purge may be the one that this log's node has lost.
            effects.append(Adopt(unknown, everything=self.membership.one_disk_suffices))
        if sender.joining:
            self._evidence.named(named)
        else:
            effects += self._evidence.heard(sender, positions, now)
        return effects

    def _stored(self, positions: Positions, now: float) -> list[Effect]:
        self._copies.stored(positions)
        effects = self._told(self._sender, self._here, now)
        for log in positions:
            effects += self._copy(self._pushed(log))
        return effects

    def _progress(self, now: float) -> list[Effect]:
        """:return: what follows from what is here by now: lease first, then acknowledgements."""
        effects: list[Effect] = []
        if self.renounced:
            return effects
        if not self.admitted:
            if not self._admitting and self._rounds.admits(self.own, self._here, self.membership):
                self._admitting = True
                effects.append(Admit())
        elif self.membership.lone:
            effects += self._lease.until(FREE, 0.0)
        else:
            found = self._rounds.leased(self._here, self.membership)
            if found is not None:
                started, offset = found
                effects += self._lease.until(started + self.membership.lease_seconds, offset)
                self._rounds.forget(started)
        effects += self._answer(lambda owed: owed.sequence <= self._here.get(owed.log, 0))
        if self._more and self._copies.settled:
            # Only now: what a sibling sends must not pile up before a slow disk.
            more, self._more = self._more, {}
            effects += (self._pull(peer, name) for peer, name in more.items())
        return effects

    def _answer(self, due: Callable[[Owed], bool]) -> list[Effect]:
        """Answer pushes, with where we stand: that is all that an answer says."""
        return [Send(each.to, self.stands(), each.request) for each in self._receiving.take(due)]

    def _renounce(self, by: str, sequence: int) -> list[Effect]:
        if self.renounced:
            return []
        self.renounced = (
            f"{by!r} has {sequence} entries of this node's log, which has {self._here[self.own]} here: "
            "control is an older copy, and must be moved aside."
        )
        return [*self._lease.drop(), Renounce(self.renounced)]
