"""All fills of one worker: who joins which, and what is forwarded on its own (DESIGN 5)."""

# Note [joining while fenced]
#
# A fenced node does not know what was purged since its last round. What a fill brings was asked for when the fill
# began, so whoever joins it may be given what was purged since then: no longer after the purge than the fill is
# old. That must stay well below the lease, after which nobody may serve it (DESIGN 9); without joining at all, every
# client of a node that is cut off would ask the origin on its own.

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field
from twisted.logger import Logger

from edgecache.fills.artifacts import Artifacts, Sought
from edgecache.fills.attempts import Attempts
from edgecache.fills.deriving import Derivations
from edgecache.fills.doubts import Doubts
from edgecache.fills.fill import FIRST, Fill, Tried
from edgecache.fills.homes import LookUp
from edgecache.fills.keeping import Keep
from edgecache.fills.late import LatePages
from edgecache.fills.nodeprocess import NodeProcess
from edgecache.fills.owners import Owners
from edgecache.fills.paging import Paging
from edgecache.fills.parts import Parts
from edgecache.fills.representing import Representing, as_it_is
from edgecache.fills.sending import Sender
from edgecache.fills.serials import Serials
from edgecache.fills.stale import Stale
from edgecache.fills.unshareable import Unshareable
from edgecache.fills.unstored import Unstored
from edgecache.fills.waiting import Waiter, Waiters
from edgecache.rules import status_fields
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Ahead, Forward, Freshen, Part, Refuse, Store
from edgecache.rules.indexpaths import project_tag
from edgecache.rules.lately import Lately
from edgecache.rules.outbound import outbound
from edgecache.rules.parts import may_answer
from edgecache.rules.policy import other_variant
from edgecache.rules.selectors import tag_selector
from edgecache.rules.siblinghood import marked
from edgecache.rules.varying import variant_hash
from edgecache.store.epochs import Epochs
from edgecache.store.reading import StoreReader
from edgecache.store.writing import StoreWriter
from edgecache.upstream.responses import Response
from edgecache.wire.turns import Turns
from edgecache.words.counters import Counter
from edgecache.words.ports import Counts, Downstream, Timers
from edgecache.words.reasons import ForwardReason, PurgeMode
from edgecache.words.stored import Stored, Variants

_log = Logger()

STARTS = 4
"""Fills that begin in one turn of the loop: each takes some hundred microseconds until it waits for somebody else."""

SAY_AGAIN_SECONDS = 1.0
"""An upstream that fails in the same way is logged so often; what was asked of it meanwhile, only counted."""

ENOUGH = 0.5
"""A fill that had less of ``first_byte_seconds`` says little by its failure; none begins anew with less than that."""

FENCED_JOIN_SECONDS = 0.5
"""While fenced, fills that began longer ago are not joined; the shortest lease is a second."""


@define(eq=False, repr=False)
class Fills:
    """
    The fills of one worker; it owns their keys, so there is one per key and node at a time.

    :ivar clock: wall time, seconds since the epoch.
    :ivar fenced: can this node not vouch for being up to date? See Note [joining while fenced].
    :ivar artifacts: finds the files that pages of an index name.
    :ivar doubts: keys whose content was found wrong lately.
    :ivar representing: answers with what is derived from pages.
    :ivar stale: answers with what is stored, where nothing better is to be had.
    :ivar late: pages that clients were no longer kept waiting for.
    :ivar unstored: told of what is not stored.
    :ivar starts: how many fills begin in one turn of the loop; without it, all that are asked for.
    :ivar lately: failures that were logged.
    :ivar unshareable: keys whose response could not be shared lately.
    :ivar first_byte_seconds: what clients are kept waiting at most.
    """

    reader: StoreReader
    writer: StoreWriter
    attempts: Attempts
    epochs: Epochs
    keep: Keep
    parts: Parts
    sender: Sender
    counts: Counts
    clock: Callable[[], float]
    node_process: NodeProcess
    node_id: bytes
    fenced: Callable[[], bool]
    timers: Timers
    first_byte_seconds: float
    owners: Owners
    serials: Serials
    paging: Paging
    derivations: Derivations
    artifacts: Artifacts | None = None
    doubts: Doubts = field(init=False)
    unshareable: Unshareable = field(init=False)
    representing: Representing = field(init=False)
    stale: Stale = field(init=False)
    late: LatePages = field(factory=LatePages)
    unstored: Unstored | None = None
    starts: Turns | None = None
    lately: Lately = field(factory=lambda: Lately(SAY_AGAIN_SECONDS))
    _running: dict[bytes, Fill] = field(factory=dict)
    _begun: int = 0

    @doubts.default
    def _no_doubts(self) -> Doubts:
        return Doubts(self.timers.seconds)

    @unshareable.default
    def _all_shareable(self) -> Unshareable:
        return Unshareable(self.clock)

    @representing.default
    def _answers_of_pages(self) -> Representing:
        return Representing(self)

    @stale.default
    def _better_than_nothing(self) -> Stale:
        return Stale(self)

    def join(
        self,
        asked: Asked,
        forward: Forward,
        record_hash: bytes,
        downstream: Downstream,
        until: float | None = None,
    ) -> None:
        """
        Answer ``downstream`` from the running fill of its key, or from a new one.

        :param until: monotonic seconds, of who has waited for somebody else already; see :class:`Waiter`.
        """
        forward = self.stale.honest(asked, forward)
        if until is None:
            until = self.until(asked)
        waiter = Waiter(asked, forward, record_hash, downstream, self._begun, until)
        if self.stale.first(waiter):
            self.refresh(asked, forward, record_hash)
            return
        if self._part_answers(waiter):
            return
        if asked.head_only and not asked.bypass and self._join_running(waiter):
            return  # the head of the fill is the answer
        if forward.alone or not asked.fills:
            self._start(asked, forward, record_hash, None, [waiter], until)
        elif forward.stored is None and self.unshareable.has(asked):
            if not asked.whole and asked.page is None:
                # Nothing will be stored, it seems: the client's own conditions and range may as well go along.
                waiter.forward = evolve(forward, alone=True)
            # Otherwise what comes may be stored after all: one odd request must not keep a key from it.
            self._start(asked, waiter.forward, record_hash, None, [waiter], until)
        else:
            running = self._running.get(record_hash)
            # One of another variant is not to be joined, and goes on being found by those who want that.
            place = None if running is None or running.plan is None else other_variant(asked, running.plan)
            self._join_at(waiter, place or record_hash)

    def past_store(self, asked: Asked, downstream: Downstream) -> None:
        """
        Answer ``downstream`` from the origin alone: not from the store, a running fill, a sibling, or what is kept of
        a content that broke off. What comes is stored: nothing is newer. Nobody joins, for then it would not be the
        origin's answer to each.
        """
        forward = Forward(ForwardReason.BYPASS, no_cache=True, at_origin=True, alone=asked.head_only)
        waiter = Waiter(asked, forward, asked.key_hash, downstream, self._begun, self.until(asked))
        self._start(asked, forward, asked.key_hash, None, [waiter], waiter.until)

    def until(self, asked: Asked) -> float:
        """:return: monotonic seconds: when who has just come with ``asked`` has waited as long as anybody may."""
        seconds, sibling = self.first_byte_seconds, asked.sibling
        if sibling is not None and sibling.budget_seconds < seconds:
            seconds = sibling.budget_seconds
        return self.timers.seconds() + seconds

    @property
    def enough_seconds(self) -> float:
        """How long an upstream has to be waited for before those who have joined meanwhile are told as well."""
        return ENOUGH * self.first_byte_seconds

    def begin_anew(self, waiters: list[Waiter]) -> list[Waiter]:
        """
        The fill of ``waiters`` has failed, and had less than :attr:`enough_seconds`: those who have that much left
        begin one together, which has that much as well: that it fails is told to all.

        :return: the others.
        """
        enough = self.timers.seconds() + self.enough_seconds
        # It is to end when the first of them has to be told.
        for waiter in sorted((one for one in waiters if one.until >= enough), key=lambda one: one.until):
            if waiter.asked.fills:
                self._join_at(waiter, waiter.record_hash)
            else:
                self.alone(waiter)
        return [one for one in waiters if one.until < enough]

    def refresh(self, asked: Asked, forward: Forward, record_hash: bytes) -> None:
        """Validate a stored response behind the client's back (RFC 5861 §3), unless that is happening already."""
        if self._joinable(asked, record_hash) is None:
            self._begin(asked, self.stale.honest(asked, forward), record_hash, [], self.until(asked))

    def alone(self, waiter: Waiter) -> None:
        """Forward ``waiter`` on its own: it may not share what it waited for."""
        waiter.collapsed = False
        self._start(waiter.asked, waiter.forward, waiter.record_hash, None, [waiter], waiter.until)

    def again(self, waiter: Waiter) -> None:
        """Its fill began too early for ``waiter``: the next one is for all of whom that is so."""
        self._join_at(waiter, waiter.record_hash)

    def apart(self, waiter: Waiter, plan: Store | Freshen) -> None:
        """
        ``waiter`` may not have the response that it waited for. All who want another variant, or one that was validated
        for them, have a fill of their own; anybody else is forwarded alone. So is who was parted already: an origin may
        go on naming other fields.
        """
        asked = waiter.asked
        place = other_variant(asked, plan) or (waiter.record_hash if asked.directives.no_cache else None)
        if place is None or waiter.parted or waiter.forward.alone or not asked.fills:
            self.alone(waiter)
        else:
            waiter.parted = True
            self._join_at(waiter, place)

    def ahead(self, waiter: Waiter, part: Part, stored: Stored) -> None:
        """Fetch just the ``part`` that ``waiter`` asked for of what will be ``stored``, unless that is here already."""
        ahead = Ahead(part.start, part.stop, stored.size, stored.etag)
        waiter.forward = evolve(waiter.forward, stored=None, alone=True, ahead=ahead)
        if not self._part_answers(waiter, stored):
            self.alone(waiter)

    def _part_answers(self, waiter: Waiter, like: Stored | None = None) -> bool:
        """:param like: what is being filled. :return: what ``waiter`` wants was within a part that is stored."""
        asked, forward = waiter.asked, waiter.forward
        if not may_answer(asked, forward):
            return False
        if like is None:
            if forward.alone:
                return False
            running = self._running.get(waiter.record_hash)
            plan = None if running is None else running.plan
            if isinstance(plan, Store) and other_variant(asked, plan) is None:
                like = plan.stored
        place = waiter.record_hash if like is None else variant_hash(asked.key_hash, like.variant)
        return self.parts.answer(asked, place, waiter.downstream, like)

    def wait(self, waiter: Waiter) -> None:
        """The part that ``waiter`` wants cannot be had on its own: it waits for the whole."""
        waiter.patient = True
        waiter.forward = evolve(waiter.forward, alone=False, ahead=None)
        asked, record_hash = waiter.asked, waiter.record_hash
        if self._join_running(waiter):
            return
        found = self.look_up(record_hash, asked.key)
        if isinstance(found, Stored) and self.epochs.since(found) is None:
            status = status_fields.forwarded(asked.site, waiter.forward.reason, stored=True, collapsed=True)
            age = max(0, int(self.clock() - found.generated_at))
            if self.sender.send_later(waiter.downstream, asked, found, record_hash, age, status):
                return
        self._start(asked, waiter.forward, record_hash, record_hash, [waiter], waiter.until)

    def restart(self, fill: Fill, forward: Forward) -> None:
        """Ask again for everybody who waits for ``fill``, with another question, in the time that is left."""
        place, waiters = fill.record_hash, fill.waiters.take()
        self._start(fill.leader, forward, place, place, waiters, fill.until, fill.tried)

    def ask_anew(self, fill: Fill, tried: Tried) -> None:
        """
        What came was of no use, and nobody was sent any of it: ask the same again.

        :param tried: now.
        """
        waiters = fill.waiters.take()
        self._start(fill.leader, fill.forward, fill.record_hash, fill.registered, waiters, fill.until, tried)

    def continued(self, asked: Asked, forward: Forward) -> Callable[[Response], Response]:
        """:return: what makes the owner's response to ``asked`` go on from an origin, should the owner die."""
        if asked.page is not None:
            return as_it_is  # an origin has nothing that would fit to what is derived
        seeking = self.seek(asked, forward)
        return lambda response: self.attempts.continued(asked.site, outbound(asked, forward), response, seeking)

    def seek(self, asked: Asked, forward: Forward) -> Sought | None:
        """:return: what finds the file of an index that is asked for; ``None`` for everything else."""
        return None if self.artifacts is None else self.artifacts.seek(asked, forward)

    def siblings(self, asked: Asked, forward: Forward) -> LookUp | None:
        """:return: what siblings may be asked for a fill whose floor is taken."""
        selectors, artifact = asked.selectors[1:2], asked.artifact
        if artifact is not None:
            # Of a project that is gone, or quarantined, its files.
            selectors += (tag_selector(asked.site.id, project_tag(artifact.project)),)
        # Only ours were told of a local invalidation (RFC 9111 §4.4): a sibling may have what was there before.
        if self.epochs.lately(selectors) is PurgeMode.DELETE:
            return None
        return self.attempts.look_up(asked, forward)

    def found_at(self, fill: Fill, record_hash: bytes) -> None:
        """What ``fill`` brings will lie there: once another variant is stored, it is looked for there."""
        if fill.registered is not None:
            self._running.setdefault(record_hash, fill)

    def forget(self, fill: Fill) -> None:
        """``fill`` takes nobody any longer."""
        for place in (fill.registered, None if fill.plan is None else fill.plan.record_hash):
            if place is not None and self._running.get(place) is fill:
                del self._running[place]

    def look_up(self, record_hash: bytes, key: bytes) -> Stored | Variants | None:
        """One look-up in a read transaction of its own; content is not read."""
        try:
            return self.reader.look_up(record_hash, key)
        finally:
            self.reader.done()

    def refuse(self, asked: Asked, refuse: Refuse, downstream: Downstream, reason: ForwardReason | None = None) -> None:
        """Answer with an error of ours."""
        if asked.sibling is None:
            self.counts.add(Counter.REFUSED)
        else:
            refuse = marked(refuse)
        cache_status = b"" if reason is None else status_fields.forwarded(asked.site, reason)
        head, content = status_fields.refusal(asked.site, self.node_id, refuse, self.clock(), cache_status)
        if refuse.close:
            downstream.close_after()
        downstream.send(head, b"" if asked.head else content)

    def _join_at(self, waiter: Waiter, record_hash: bytes) -> None:
        """Join the fill that runs for what lies there, or begin it."""
        waiter.collapsed, waiter.record_hash = False, record_hash
        if not self._join_running(waiter):
            self._begin(waiter.asked, waiter.forward, record_hash, [waiter], waiter.until)

    def _join_running(self, waiter: Waiter) -> bool:
        running = self._joinable(waiter.asked, waiter.record_hash)
        if running is None:
            return False
        waiter.collapsed = True
        self.counts.add(Counter.COLLAPSED)
        running.waiters.join(waiter)
        if waiter.until < running.until and waiter.asked.sibling is None:
            # It has waited for another one. (A sibling goes by its own clock.)
            left = max(waiter.until - self.timers.seconds(), 0.0)
            self.timers.callLater(left, running.waiters.expire, waiter)
        return True

    def _joinable(self, asked: Asked, record_hash: bytes) -> Fill | None:
        running = self._running.get(record_hash)
        if running is None or not running.joinable_by(asked, self.clock()):
            return None
        if self.fenced() and self.timers.seconds() - running.began > FENCED_JOIN_SECONDS:
            return None
        return running

    def _begin(self, asked: Asked, forward: Forward, record_hash: bytes, waiters: list[Waiter], until: float) -> None:
        """Start a fill, unless one is late, and nobody but who keeps that waiting could be asked."""
        late = self.late.of(record_hash)
        if late is not None and not self.attempts.another(asked.site, late.avoid, late.address):
            Waiters(self, asked, self._begun, waiters).fail(late.failure)
            return
        tried = FIRST if late is None else Tried(avoid=late.avoid)
        self._start(asked, forward, record_hash, record_hash, waiters, until, tried)

    def _start(
        self,
        asked: Asked,
        forward: Forward,
        record_hash: bytes,
        registered: bytes | None,
        waiters: list[Waiter],
        until: float,
        tried: Tried = FIRST,
    ) -> None:
        epoch = self.epochs.current()
        self._begun += 1
        waiting = Waiters(self, asked, self._begun, waiters)
        now = self.timers.seconds()
        fill = Fill(self, asked, forward, record_hash, epoch, registered, waiting, now, until, tried)
        if registered is not None:
            # A fill from before a purge goes on for those who wait for it; nobody new finds it.
            self._running[registered] = fill
        if self.starts is None:
            fill.start()
        else:
            self.starts.take(1, lambda: _start_for(fill, waiters))


def _start_for(fill: Fill, waiters: list[Waiter]) -> None:
    if fill.registered is None and waiters and all(waiter.downstream.gone for waiter in waiters):
        # They have left before it was their turn, and nobody else is answered by it.
        return
    fill.start()
