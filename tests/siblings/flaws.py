"""The protocol with one guard removed, each: a simulation that does not notice is worth nothing."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence, Set

from attrs import evolve

from edgecache.rules.evidence import Evidence
from edgecache.rules.lease import Lease
from edgecache.rules.membership import Membership
from edgecache.rules.rounds import Rounds
from edgecache.rules.spreading import Member
from edgecache.words.purging import Entry, LogName, Positions
from edgecache.words.spreading import Adopt, Changed, Copy, Effect, Pulled, Push, Sender

from .host import Host
from .simulation import Flaw

# Who takes part, and quorums.


class _OneSuffices(Membership):
    __slots__ = ()

    def leased(self, answered: Set[str]) -> bool:
        return bool(answered)

    def durable(self, sequences: dict[str, int]) -> int:
        return sequences[self.own]


def _membership(method: str) -> type[Membership]:
    return type("Flawed", (Membership,), {"__slots__": (), method: getattr(_OneSuffices, method)})


def _with(kind: type[Membership], membership: Membership) -> Membership:
    return kind(membership.own, membership.groups)


def _quorum(kind: type[Membership]) -> type[Member]:
    class Flawed(Member):
        @classmethod
        def begin(cls, own: LogName, membership: Membership, *rest: object, **more: object) -> Member:  # type: ignore[override]
            return super().begin(own, _with(kind, membership), *rest, **more)  # type: ignore[arg-type]

        def configured(self, membership: Membership, now: float) -> list[Effect]:
            return super().configured(_with(kind, membership), now)

    return Flawed


class _NewSetOnly(Membership):
    __slots__ = ()

    def leased(self, answered: Set[str]) -> bool:
        return self.groups[0].leased(answered | {self.own})

    def durable(self, sequences: dict[str, int]) -> int:
        return (
            evolve(self, groups=self.groups[:1]).durable(sequences)
            if len(self.groups) > 1
            else super().durable(sequences)
        )


class _NewLease(Membership):
    """While lease_seconds changes, the new length is used at once."""

    __slots__ = ()

    @property
    def lease_seconds(self) -> float:
        return self.groups[0].lease_seconds


class _EasilyAdmitted(Membership):
    __slots__ = ()

    def admits(self, admitted: Set[str], joining: Set[str]) -> bool:
        return bool(admitted | joining)


class _NobodyNew(Membership):
    __slots__ = ()

    @property
    def one_disk_suffices(self) -> bool:
        return False


class _AnyConfiguration(Member):
    def _objection(self, peer: str, sender: Sender) -> str:
        return ""


# Rounds and the lease.


class _FromTheAnswer(Member):
    """A lease counts from when the answer came."""

    def _pulled_came(self, message: Pulled, now: float) -> list[Effect]:
        found = self._rounds._running.get(message.round)
        if found is not None:
            found.started = now
        return super()._pulled_came(message, now)


class _CountedUnapplied(Rounds):
    def answered(self, name: str, peer: str, positions: Positions, joining: bool) -> None:
        super().answered(name, peer, dict.fromkeys(positions, 0), joining)


class _FirstPageSuffices(Member):
    """A sibling counts once its first page is here."""

    def _pulled_came(self, message: Pulled, now: float) -> list[Effect]:
        if message.more:
            reached = {log: min(at, self._here.get(log, 0)) for log, at in message.positions.items()}
            reached.update({entry.log: entry.sequence for entry in message.entries})
            message = evolve(message, positions=reached)
        return super()._pulled_came(message, now)


class _AnyRound(Rounds):
    """An answer counts in whatever round is the latest: names are used again in each life."""

    def answered(self, name: str, peer: str, positions: Positions, joining: bool) -> None:
        super().answered(f"{self.life}.{name.rpartition('.')[2]}", peer, positions, joining)


class _JoiningCounts(Rounds):
    def answered(self, name: str, peer: str, positions: Positions, joining: bool) -> None:
        super().answered(name, peer, positions, False)


class _NamesDontMatter(Rounds):
    def admits(self, own: LogName, have: Positions, membership: Membership) -> bool:
        for each in self._running.values():
            each.settle(have)
            if membership.admits(each.of(joining=False), each.of(joining=True)):
                return True
        return False


class _Unmoved(Lease):
    def jumped(self, now: float, wall: float) -> bool:
        self.offset = wall - now
        return False


# Entries.


class _BeforeTheDisk(Member):
    """What control was asked for is told as if it were there."""

    def _copy(self, entries: Sequence[Entry]) -> list[Effect]:  # type: ignore[override]
        effects = super()._copy(entries)
        for effect in effects:
            if isinstance(effect, Copy):
                self._here.update({entry.log: entry.sequence for entry in effect.entries})
        return effects


class _NothingRevalidated(Member):
    """A trimmed log is skipped, and that is all."""

    def _pulled_came(self, message: Pulled, now: float) -> list[Effect]:
        return [
            evolve(effect, everything=False) if isinstance(effect, Adopt) else effect
            for effect in super()._pulled_came(message, now)
        ]


class _JoiningVouches(Member):
    """A node that is joining acknowledges, and answers pulls, like any other."""

    @property
    def _sender(self) -> Sender:
        return Sender(self.own, self.membership.hashes, self.membership.everyone)

    @property
    def accepts(self) -> bool:
        return not self.renounced


class _BackupUnnoticed(Member):
    def _renounce(self, by: str, sequence: int) -> list[Effect]:
        return []


class _AnyonesEntries(Member):
    """Entries of any log are taken from a push, from anybody."""

    def _objection(self, peer: str, sender: Sender) -> str:
        return ""

    def _push_came(self, message: Push, now: float, request: Hashable | None) -> list[Effect]:
        return self._copy(message.entries) + super()._push_came(message, now, request)


# What others have.


class _OldLivesBelieved(Evidence):
    def _has(self, member: str, log: LogName) -> int:
        told = self._told.get(member)
        return 0 if told is None else told.positions.get(log, 0)


class _JoiningBelieved(Member):
    def _told(self, sender: Sender, positions: Positions, now: float) -> list[Effect]:
        return super()._told(evolve(sender, joining=False), positions, now)


class _OwnMembersOnly(Evidence):
    @property
    def everyone(self) -> frozenset[str]:
        return self._membership.everyone


class _NewMembersOnly(Evidence):
    @property
    def everyone(self) -> frozenset[str]:
        return self._membership.groups[0].members


class _EffectiveEarly(Evidence):
    def passed(self, now: float) -> Iterator[Changed]:
        return super().passed(now + self._membership.bound_seconds / 2)


def _rounds(kind: type[Rounds]):  # type: ignore[no-untyped-def]
    def spoil(member: Member, host: Host) -> None:
        member._rounds = kind(member._rounds.life)

    return spoil


def _evidence(kind: type[Evidence]):  # type: ignore[no-untyped-def]
    def spoil(member: Member, host: Host) -> None:
        member._evidence = kind(member.membership)

    return spoil


def _unmoved(member: Member, host: Host) -> None:
    member._lease = _Unmoved()


_ALL = [
    Flaw("a lease needs one sibling", _quorum(_membership("leased"))),
    Flaw("a purge is durable on one disk", _quorum(_membership("durable"))),
    Flaw("only the new members' majority counts", _quorum(_NewSetOnly)),
    Flaw("a longer lease is used at once", _quorum(_NewLease)),
    Flaw("the first answer admits", _quorum(_EasilyAdmitted)),
    Flaw("a new log under quorum any changes nothing", _quorum(_NobodyNew)),
    Flaw("any configuration is understood", _AnyConfiguration),
    Flaw("a lease counts from the answer", _FromTheAnswer),
    Flaw("an answer counts before its entries are here", spoil=_rounds(_CountedUnapplied)),
    Flaw("the first page suffices", _FirstPageSuffices),
    Flaw("rounds of an earlier life count", spoil=_rounds(_AnyRound)),
    Flaw("answers of joining nodes count", spoil=_rounds(_JoiningCounts)),
    Flaw("nobody need know the new log", spoil=_rounds(_NamesDontMatter)),
    Flaw("wall time may jump", spoil=_unmoved),
    Flaw("acknowledged before it is on disk", _BeforeTheDisk),
    Flaw("a trimmed log revalidates nothing", _NothingRevalidated),
    Flaw("a joining node vouches", _JoiningVouches),
    Flaw("a new control is admitted", flaws=frozenset({"a new control is admitted"})),
    Flaw("a lost log keeps its name", flaws=frozenset({"a lost log keeps its name"})),
    Flaw("a backup is unnoticed", _BackupUnnoticed),
    Flaw("anybody's entries count", _AnyonesEntries),
    Flaw("old lives are believed", spoil=_evidence(_OldLivesBelieved)),
    Flaw("joining nodes are believed", _JoiningBelieved),
    Flaw("only own members are waited for", spoil=_evidence(_OwnMembersOnly)),
    Flaw("members of before are not waited for", spoil=_evidence(_NewMembersOnly)),
    Flaw("effective before leases are over", spoil=_evidence(_EffectiveEarly)),
    *(
        Flaw(name, flaws=frozenset({name}))
        for name in (
            "the lease outlives its process",
            "the floor is taken at the end",
            "a fill is joined after a purge",
            "a fenced request joins",
            "a fenced sibling answers",
            "positions of an asker are ignored",
        )
    ),
]

FLAWS = {flaw.name: flaw for flaw in _ALL}
