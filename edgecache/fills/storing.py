"""
A fill whose content is stored while clients are sent it, and what becomes of that at its end (DESIGN 5, 8).

A page of an index is taken by :mod:`edgecache.fills.pagefill` instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.logger import Logger

from edgecache.fills.completing import Completing
from edgecache.fills.contents import FillAbandoned, Filling
from edgecache.fills.continuing import Continuing
from edgecache.fills.keeping import Kept
from edgecache.fills.parts import Beginning
from edgecache.processes.background import background
from edgecache.rules.decisions import Store
from edgecache.rules.presenting import complete
from edgecache.store.committing import Outcome
from edgecache.store.writing import ContentWriter
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing, NotTaken, UpstreamFailed, WrongDigest
from edgecache.words.ports import Counts
from edgecache.words.stored import Flag, Variants

if TYPE_CHECKING:
    from edgecache.fills.fill import Fill

_log = Logger()

# A member of an enum costs a tenth of a microsecond each time it is named.
STORED, STORE_FAILURES = int(Counter.STORED), int(Counter.STORE_FAILURES)

RESTARTS = 2
"""A fill whose content was wrong is asked again so often, as long as nobody has been sent any of it."""

VARY_SETS = 4
"""Sets of nominated fields remembered under one key."""


def store(fill: Fill, plan: Store, response: Response) -> None:
    """Take a content; everybody who waits, and whoever joins, is sent it."""
    used = None
    if fill.kept is not None and response.begun:
        used, fill.kept = fill.kept, None
        plan = _named_also(plan, used.plan.stored.selectors)
    if fill.fills.doubts.of(fill.leader.key_hash) is not None:
        plan = _flagged(plan, Flag.DOUBTED)
    fill.lasting = True
    content = response.whole
    if content is not None:
        fill.give_up_kept()
        _store_whole(fill, plan, content)
        return
    assert isinstance(response, Continuing)
    fill.begin(plan)
    bringing: Continuing | Completing = response
    if used is not None:
        writer, bringing = used.go_on(fill.fills.writer, response)
        _log.info(
            "{target}: goes on after the {octets} octets that an earlier try has brought",
            target=fill.leader.request.target.decode("latin-1"),
            octets=response.begun,
        )
    else:
        fill.give_up_kept()
        writer = fill.fills.writer.begin()
    storing = fill.storing = Storing(fill, plan, bringing, writer, used)
    bringing.when_slow(storing.filling.too_slow)
    fill.waiters.serve_filling(plan, storing.filling, empty=response.empty, copy=fill.copied)


def _store_whole(fill: Fill, plan: Store, content: bytes) -> None:
    """All of it came at once: clients are sent it at once, and only the commit takes time."""
    fills, stored = fill.fills, plan.stored
    if stored.size < 0:
        plan.stored = complete(stored, len(content), b"")
        plan.own = plan.stored if plan.own is stored else complete(plan.own, len(content), b"")
    fill.begin(plan)
    fills.counts.add(Counter.BYTES_FETCHED, len(content))
    fill.waiters.serve_whole(plan, content, copy=fill.copied)

    def told(outcome: Outcome) -> None:
        # Only now: whoever came until here has joined, whoever comes from now on finds the record.
        fill.leave()
        counted(fills.counts, outcome)

    fills.writer.store(plan.record_hash, plan.stored, content, _primary(fill, plan), told)


def _primary(fill: Fill, plan: Store) -> tuple[bytes, Variants] | None:
    """What the primary key's record says of the variants: this one's nominated fields first."""
    nominated = plan.nominated
    if nominated is None:
        return None
    asked = fill.leader
    sets = [nominated]
    found = fill.fills.look_up(asked.key_hash, asked.key)
    if isinstance(found, Variants):
        sets += [names for names in found.nominated if names != nominated]
    return asked.key_hash, Variants(asked.key, sets[:VARY_SETS])


def counted(counts: Counts, outcome: Outcome) -> None:
    """Count what became of a response that was to be stored. That there is a newer one already is no failure."""
    if outcome is True:
        counts.add(STORED)
    elif outcome is not False:
        counts.add(STORE_FAILURES)


@define(eq=False, repr=False)
class Storing:
    """
    From the head to the commit.

    :ivar filling: the content on its way.
    """

    _fill: Fill
    _plan: Store
    _response: Continuing | Completing
    _writer: ContentWriter
    # What an earlier fill has brought, if it goes on with that.
    _used: Kept | Beginning | None
    filling: Filling = field(init=False)

    @filling.default
    def _on_its_way(self) -> Filling:
        size = self._plan.stored.size
        length = None if size < 0 else size
        fill, used = self._fill, self._used
        here = used.broken.received if isinstance(used, Beginning) else 0
        return Filling(self._writer, self._response, fill.fills.counts, self._filled, fill.waiters.shown, length, here)

    def _filled(self) -> None:
        """The content has come to its end, good or bad."""
        filling, fill = self.filling, self._fill
        fill.storing = None
        failure = filling.failed
        if isinstance(failure, WrongDigest):
            fill.fills.doubts.add(fill.leader.key_hash, failure, filling.response.address)
        if failure is not None:
            fill.leave()
            _log.info(
                "{target}: the content broke off after {octets} octets: {why}",
                target=fill.leader.request.target.decode("latin-1"),
                octets=filling.written,
                why=failure,
            )
            if isinstance(self._response, Completing) and self._response.doubtful:
                assert isinstance(self._used, Beginning)
                self._used.give_up()
            # Before the clients hear of it: their next request may go on with it.
            if not self._keep(failure):
                filling.when_unread(self._writer.abandon)
            if fill.waiters.first is not None:
                self._unshown(failure)
            return
        background(self._commit(), "store a response")

    def _keep(self, failure: Exception) -> bool:
        """:return: what came is kept for the next try (rule 8 of FIELD 1); nobody reads it meanwhile."""
        fill, plan = self._fill, self._plan
        if fill.registered is None or self._writer.failed is not None:
            return False
        # What is the leader's alone in its head must not become the next one's; a fallback's lives seconds anyway.
        if plan.own is not plan.stored or plan.stored.flags & Flag.FALLBACK:
            return False
        broken, used = self._response.broken, self._used
        if broken is None or broken.received != self._writer.written:
            return False
        nothing_new = used is not None and broken.received == used.broken.received
        if isinstance(used, Beginning) and nothing_new:
            return False  # it is stored still
        if isinstance(failure, FillAbandoned):
            # Nobody is about to try again.
            fill.fills.parts.keep(fill.leader.key_hash, plan, self._writer)
        elif not isinstance(failure, UpstreamFailed) or isinstance(failure, NotTaken):
            return False
        elif isinstance(used, Kept) and nothing_new:
            fill.fills.keep.put_back(fill.registered, used)
        else:
            fill.fills.keep.put(fill.registered, Kept(plan, broken, self._writer, fill.leader.key_hash))
        return True

    def _unshown(self, failure: Exception) -> None:
        """The content broke off, or is wrong, and nobody was sent any of it."""
        fill = self._fill
        if isinstance(failure, WrongDigest) and fill.tried.restarts < RESTARTS:
            # Put together from several, it was the first that broke off.
            fill.fills.ask_anew(fill, fill.tried.again(self.filling.response.address))
        elif isinstance(failure, ContentMissing) and not fill.tried.restarts:
            # A stored beginning was damaged: without it, then.
            fill.fills.ask_anew(fill, fill.tried.again())
        elif isinstance(failure, UpstreamFailed):
            fill.fail(failure)
        else:
            fill.waiters.refuse_all()

    async def _commit(self) -> None:
        writer, plan, filling = self._writer, self._plan, self.filling
        stored = complete(plan.stored, filling.written, writer.content_id)
        committed = False
        try:
            if writer.failed is None:
                committed = await writer.commit(plan.record_hash, stored, _primary(self._fill, plan))
        finally:
            # Only now: whoever came until here has joined, whoever comes from now on finds the record.
            self._fill.leave()
            counted(self._fill.fills.counts, committed or writer.failed or False)
            filling.when_unread(writer.finished if committed else writer.abandon)
            if committed and isinstance(self._used, Beginning):
                self._used.give_up()
            elif committed:
                self._fill.fills.parts.outlived(plan.record_hash, stored)


def _flagged(plan: Store, flag: Flag) -> Store:
    stored = evolve(plan.stored, flags=int(plan.stored.flags | flag))
    own = stored if plan.own is plan.stored else evolve(plan.own, flags=int(plan.own.flags | flag))
    return evolve(plan, stored=stored, own=own)


def _named_also(plan: Store, selectors: tuple[int, ...]) -> Store:
    """A sibling may have told more of it, when it began, than its head says."""
    known = plan.stored.selectors
    more = tuple(one for one in selectors if one not in known)
    if not more:
        return plan
    stored = evolve(plan.stored, selectors=known + more)
    return evolve(
        plan, stored=stored, own=stored if plan.own is plan.stored else evolve(plan.own, selectors=known + more)
    )
