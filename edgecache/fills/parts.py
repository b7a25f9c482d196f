"""Partial content in the store: kept, answered with, and gone on with (:mod:`edgecache.rules.parts`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.fills.completing import Completing
from edgecache.fills.continuing import Continuing
from edgecache.fills.hashing import Hashing
from edgecache.fills.keeping import Keep, Kept
from edgecache.fills.sending import Sender
from edgecache.rules import status_fields
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Part, Reuse, Store
from edgecache.rules.partrecords import Place, as_whole, part_hash
from edgecache.rules.parts import answers, beginning_of, digest_of, first_head, is_same, plan_of
from edgecache.rules.policy import on_request
from edgecache.rules.presenting import head_of, present
from edgecache.rules.resuming import Broken, known_of, overlap
from edgecache.store.epochs import Epochs
from edgecache.store.reading import StoreReader
from edgecache.store.sources import StoredSource
from edgecache.store.writing import ContentWriter, StoreWriter
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing
from edgecache.words.messages import Outbound
from edgecache.words.ports import Counts, Downstream, Timer, Timers
from edgecache.words.stored import Flag, Stored, Variants

STORED_SECONDS = 1.0
"""So long a fill waits for a beginning that is on its way to the store; then all comes anew."""


@define(eq=False, repr=False)
class Beginning:
    """
    A stored beginning that a fill may go on with. It stays stored until the whole is, whatever happens.

    :ivar plan: how the whole is to be stored; its floor is that of these octets.
    """

    plan: Store
    broken: Broken
    _parts: Parts
    _part: Stored
    _lies: bytes
    _source: StoredSource

    def go_on(self, writer: StoreWriter, response: Continuing) -> tuple[ContentWriter, Completing]:
        """:return: what takes the whole content, and what brings it."""
        self._parts.counts.add(Counter.COMPLETED)
        return writer.begin(), Completing(response, self._source, self.broken, self._parts.timers)

    def give_back(self, keep: Keep, key: bytes) -> None:
        """Nothing came of it this time."""
        self._source.close()

    def give_up(self) -> None:
        """The whole is stored, or is another one."""
        self._source.close()
        self._parts.remove(self._lies, self._part)


@define(eq=False, repr=False)
class Parts:
    """Those of one worker, which owns their keys."""

    _reader: StoreReader
    _writer: StoreWriter
    _epochs: Epochs
    _sender: Sender
    counts: Counts
    timers: Timers
    _clock: Callable[[], float]
    _fenced: Callable[[], bool]
    _hashing: Hashing = field(factory=Hashing)
    # What is on its way to the store, and who waits for that.
    _storing: dict[bytes, list[Deferred[None]]] = field(factory=dict)
    # What passes and is stored meanwhile; who leaves may forget to say so.
    _passing: WeakValueDictionary[bytes, Aside] = field(factory=WeakValueDictionary)

    # Stored

    def keep(self, key_hash: bytes, plan: Store, writer: ContentWriter) -> None:
        """
        Store what came of a content that nobody brings, or wants, to its end.

        :param key_hash: of what was asked for.
        :param writer: has it; nobody reads it any longer.
        """
        part = None if writer.failed is not None else beginning_of(plan, writer.written)
        if part is None or self._epochs.since(part) is not None:
            writer.abandon()
            return
        lies = part_hash(plan.record_hash, Place.BEGINNING)
        self._store(key_hash, Store(part, lies, plan.nominated, part), writer)

    def spilled(self, kept: Kept) -> None:
        """What is not kept in hand any longer."""
        self.keep(kept.key_hash, kept.plan, kept.writer)

    def aside(self, asked: Asked, plan: Store) -> Aside | None:
        """
        :param plan: of a part that passes.
        :return: stores it meanwhile; ``None`` while another one passes that would lie there: however many ask for it,
            it is written once.
        """
        lies = plan.record_hash
        if lies in self._passing or lies in self._storing:
            return None
        aside = Aside(plan.stored.size, self._writer.begin(), partial(self._store, asked.key_hash, plan))
        self._passing[lies] = aside
        return aside

    def outlived(self, record_hash: bytes, whole: Stored) -> None:
        """All of what would lie there is stored, whatever it was completed from: its beginning is of no more use."""
        lies = part_hash(record_hash, Place.BEGINNING)
        part = self._stored(lies, whole.key)
        if part is not None and part.validated_at <= whole.validated_at:
            self.remove(lies, part)

    def remove(self, lies: bytes, part: Stored) -> None:
        """It is of no more use."""
        self._writer.remove(lies, part.content_id)

    def _store(self, key_hash: bytes, plan: Store, writer: ContentWriter) -> None:
        if plan.nominated is not None and self._stored(key_hash, plan.stored.key) is not None:
            # Something whole lies where the nominated fields would: it is worth more, also when it is stale.
            writer.abandon()
            return
        waiting = self._storing.setdefault(plan.record_hash, [])
        primary = None if plan.nominated is None else (key_hash, Variants(plan.stored.key, [plan.nominated]))

        def committed(stored: bool) -> None:
            if stored:
                self.counts.add(Counter.PARTS_STORED)
            writer.finished()
            if self._storing.get(plan.record_hash) is waiting:
                del self._storing[plan.record_hash]
            told, waiting[:] = waiting[:], []
            for each in told:
                each.callback(None)

        _ = writer.commit(plan.record_hash, plan.stored, primary).addCallback(committed)

    # Answered with

    def answer(self, asked: Asked, record_hash: bytes, downstream: Downstream, like: Stored | None = None) -> bool:
        """
        A range that is wholly within a part.

        :param record_hash: where the whole would lie.
        :param like: what is being filled: a part of something else is of no use.
        :return: it is answered.
        """
        fenced = self._fenced()
        for place in Place:
            lies = part_hash(record_hash, place)
            try:
                part = self._reader.look_up(lies, asked.key)
                if isinstance(part, Stored) and self._answered(asked, lies, part, fenced, downstream, like):
                    return True
            finally:
                self._reader.done()
        return False

    def _answered(
        self, asked: Asked, lies: bytes, part: Stored, fenced: bool, downstream: Downstream, like: Stored | None
    ) -> bool:
        found = as_whole(part)
        if found is None:
            return False
        whole, span = found
        # See Note [nothing unverified twice] in edgecache.rules.parts.
        if digest_of(whole) is not None or (like is not None and not is_same(whole, like)):
            return False
        reuse = on_request(asked, whole, self._epochs.since(part), fenced, self._clock())
        if not isinstance(reuse, Reuse) or reuse.stale:
            return False
        wanted = present(asked, whole, reuse.age)
        if not isinstance(wanted, Part) or not answers(span, wanted):
            return False
        head = head_of(asked, whole, wanted, reuse.age, status_fields.hit(asked.site, reuse))
        self._reader.hit()
        start, stop = wanted.start - span.start, wanted.stop - span.start
        if not self._sender.send_part(downstream, head, part, lies, start, stop):
            return False
        self.counts.add(Counter.HITS)
        self.counts.add(Counter.PART_HITS)
        return True

    # Gone on with

    def has(self, record_hash: bytes, key: bytes) -> bool:
        """Is, or will there be, a beginning of what would lie there?"""
        lies = part_hash(record_hash, Place.BEGINNING)
        return lies in self._storing or self._stored(lies, key) is not None

    async def take(
        self, record_hash: bytes, asked: Asked, outbound: Outbound, stored: Stored | None = None
    ) -> Beginning | None:
        """
        :param outbound: what is asked for the whole.
        :param stored: the whole that would be validated.
        :return: the beginning of the response that ``asked`` would have as well; ``None`` if there is none, or a
            purge has named it since.
        """
        lies = part_hash(record_hash, Place.BEGINNING)
        if lies in self._storing:
            await self._stored_soon(self._storing[lies])
        part = self._stored(lies, asked.key)
        if part is None or asked.directives.no_store or (asked.authorized and not part.flags & Flag.AUTHORIZED):
            # Of the latter the response is likely its own, and then it would be asked for twice.
            return None
        found = as_whole(part)
        if found is None or self._epochs.since(part) is not None:
            self.remove(lies, part)
            return None
        whole, span = found
        if stored is not None and is_same(whole, stored):
            # That a worker was slow to store it is no reason to fetch the rest of what is all here.
            self.remove(lies, part)
            return None
        head, digest = first_head(whole), digest_of(whole)
        known = known_of(outbound, head, whole.size, delimited_by_close=False, digest=digest)
        source = self._reader.open_source(lies, part)
        if source is None:
            return None
        try:
            tail = self._reader.part(lies, part.content_id, span.stop, span.stop - overlap(span.stop), span.stop)
        except ContentMissing:
            source.close()
            return None
        if known is None:
            source.close()
            self.remove(lies, part)
            return None
        check = None if digest is None else self._hashing.check(digest)
        broken = Broken(known, head, span.stop, tail, check)
        return Beginning(plan_of(asked, whole), broken, self, part, lies, source)

    async def _stored_soon(self, waiting: list[Deferred[None]]) -> None:
        """Until it is stored; but clients wait for their first octet meanwhile, and a disk may stand still."""
        stored: Deferred[None] = Deferred()
        waiting.append(stored)
        timer: Timer | None = None

        def late() -> None:
            nonlocal timer
            timer = None
            stored.callback(None)

        timer = self.timers.callLater(STORED_SECONDS, late)
        try:
            await stored
        finally:
            if stored in waiting:
                waiting.remove(stored)
            if timer is not None:
                timer.cancel()

    def _stored(self, lies: bytes, key: bytes) -> Stored | None:
        try:
            found = self._reader.look_up(lies, key)
        finally:
            self._reader.done()
        return found if isinstance(found, Stored) else None


@define(eq=False, repr=False)
class Aside:
    """A part that passes to one client, and is stored once all of it has come."""

    _octets: int
    _writer: ContentWriter
    _store: Callable[[ContentWriter], None]

    def data(self, data: bytes) -> None:
        """The next octets."""
        if self._writer.congested or self._writer.failed is not None:
            # Nobody paces it but its client: what waits for the disk meanwhile would be held in memory.
            self._writer.abandon()
        self._writer.write(data)

    def ended(self) -> None:
        """No more will come. Only once. Its client may have all, and be gone, before its upstream has ended."""
        if self._writer.written == self._octets:
            self._store(self._writer)
        else:
            self._writer.abandon()
