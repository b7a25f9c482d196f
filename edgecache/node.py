"""
The route of a request: from the parsed head to the answer (DESIGN 5).

:meth:`Node.answer` is the whole of it. A hit never leaves that call: no task, no Deferred, no lock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

from attrs import define

from edgecache.fills.fills import Fills
from edgecache.fills.owners import Owners
from edgecache.fills.sending import ANSWERED, UNDERIVED, Sender
from edgecache.fills.warming import BELIEVED_SECONDS, Warming
from edgecache.processes.background import background
from edgecache.rules import status_fields
from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward, Refuse, Reuse
from edgecache.rules.indexpaths import PageKind
from edgecache.rules.policy import at_once, on_request
from edgecache.rules.purgerequests import purge_request
from edgecache.rules.siblinghood import for_sibling, marked
from edgecache.rules.sites import Sites
from edgecache.rules.varying import variant_hash, variant_of
from edgecache.siblings.content import Applied, Processing, SiblingConnection
from edgecache.store.epochs import Epochs
from edgecache.store.page import Page
from edgecache.store.pagelayout import FREE
from edgecache.store.reading import StoreReader
from edgecache.store.writing import StoreWriter
from edgecache.upstream.addresses import Address
from edgecache.wire.gate import Gate
from edgecache.wire.purging import PublicPurging
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream, Timers
from edgecache.words.reasons import ForwardReason, PurgeMode
from edgecache.words.stored import Stored, Variants

# A member of an enum costs a tenth of a microsecond each time it is named.
HITS, STALE_HITS = int(Counter.HITS), int(Counter.STALE_HITS)
SIBLING_HITS, SIBLING_LOOK_UPS = int(Counter.SIBLING_HITS), int(Counter.SIBLING_LOOK_UPS)


@define(eq=False, repr=False)
class Node:
    """
    One worker's route.

    :ivar clock: wall time, seconds since the epoch; read once per request.
    :ivar boot_clock: CLOCK_BOOTTIME, seconds: what leases are measured by.
    :ivar behind: called with the id of a sibling who has applied what this node has not.
    """

    _sites: Sites
    _reader: StoreReader
    _writer: StoreWriter
    _page: Page
    _epochs: Epochs
    _sender: Sender
    _fills: Fills
    _owners: Owners
    _node_id: bytes
    _clock: Callable[[], float]
    _boot_clock: Callable[[], float]
    _timers: Timers
    _applied: Applied
    _behind: Callable[[str], None]
    _gate: Gate
    _purging: PublicPurging | None = None
    # The project list of a site that is followed is about to be asked for.
    _listing: Callable[[int], None] | None = None
    # Without it whoever asks waits for the disk in the same thread.
    _warming: Warming | None = None

    def answer_worker(self, request: Request, downstream: Downstream) -> None:
        """Answer a request that another worker forwards because this one owns its key."""
        self.answer(request, downstream, True)

    def answer_sibling(self, request: Request, downstream: Downstream) -> None:
        """
        Answer a sibling's look-up, unless it knows of purges that this node does not have yet.

        What it may be filled from is the origin alone (:func:`edgecache.rules.siblinghood.may_ask_siblings`).
        """
        assert isinstance(downstream, SiblingConnection)
        self._page.add(SIBLING_LOOK_UPS)
        asked = request.asked
        if asked is None:
            asked = request.asked = ask(request, self._sites)
        if downstream.not_after <= self._clock():
            refuse = Refuse(403, "The certificate has expired.", close=True)
        elif type(asked) is Refuse:
            refuse = asked
        elif asked.sibling is None or not asked.joinable:
            refuse = Refuse(400, "A look-up is a GET that names its positions.")
        elif not self._applied.cover(asked.sibling.positions):
            self._behind(downstream.sibling)
            refuse = Refuse(409, "This node has not applied yet what the asker has.")
        else:
            self.answer(request, downstream)
            return
        self._say(request, marked(refuse), downstream)

    def answer(self, request: Request, downstream: Downstream, owned: bool = False, looks: int = 0) -> None:
        """
        Answer from the store at once, or else through the key's fill.

        :param request: a client's, or this worker's own: then ``request.asked`` is set.
        :param owned: another worker has let it in.
        :param looks: how often the disk was waited for already.
        """
        asked = request.asked
        if type(asked) is Asked and asked.straight_until and self._answer_at_once(asked, downstream):
            return
        if asked is None:
            asked = request.asked = ask(request, self._sites, admitted=owned)
        if type(asked) is Refuse:
            if asked.status == 401:
                asked = self._gate.denied(request, asked, downstream.peer)
            if not (request.method == b"PURGE" and asked.status == 405 and self._purge(request, downstream, owned)):
                self._refuse(request, asked, downstream)
        elif asked.gated and not self._let_in(asked, downstream):
            return
        elif asked.joinable:
            warming = self._warming
            absent = None if warming is None or asked.straight_until else warming.absent(asked, looks)
            if warming is None or absent is None:
                if asked.simple and not asked.straight_until:
                    asked.straight_until = inf if warming is None else self._clock() + BELIEVED_SECONDS
                self._consider(request, asked, downstream, owned)
            else:
                read = warming.read(absent)
                background(self._answer_after(read, request, downstream, owned, looks + 1), "read from the disk")
        else:
            self._fills.join(asked, Forward(ForwardReason.METHOD, alone=True), asked.key_hash, downstream)

    def passes(self, request: Request) -> bool:
        """See :attr:`edgecache.wire.listener.Listener.passes`: who is refused is told at once."""
        if request.asked is None:
            request.asked = ask(request, self._sites)
        return type(request.asked) is Asked

    async def _answer_after(
        self, read: Awaitable[None], request: Request, downstream: Downstream, owned: bool, looks: int
    ) -> None:
        """Once a thread has read what only the disk has."""
        await read
        if not downstream.gone:
            self.answer(request, downstream, owned, looks)

    def _answer_at_once(self, asked: Asked, downstream: Downstream) -> bool:
        """
        The straight path: something is stored, it is fresh, nothing was purged since, and nothing else matters.

        :return: that is so, and it is answered.
        """
        now = self._clock()
        if now >= asked.straight_until:
            asked.straight_until = 0.0
            return False
        # In this order, and before anything is looked up: see Note [order of the page] in edgecache.store.page.
        fresh_until, epoch = self._page.lease()
        reader = self._reader
        try:
            stored, record_hash = reader.look_up(asked.key_hash, asked.key), asked.key_hash
            if type(stored) is Variants:
                stored, record_hash = self._variant(asked, stored)
            if (
                type(stored) is not Stored
                or stored.floor < epoch
                or (fresh_until != FREE and fresh_until <= self._boot_clock())
            ):
                return False
            reuse = at_once(asked, stored, now)
            if reuse is None:
                return False
            reader.hit()
            if self._sender.send(downstream, asked, stored, record_hash, reuse.age, reuse.lines) is not ANSWERED:
                return False
            self._page.add(HITS)
            return True
        finally:
            reader.done()

    def _consider(self, request: Request, asked: Asked, downstream: Downstream, owned: bool) -> None:
        """Everything that a store and a request may say, and whatever comes of it."""
        now = self._clock()
        # In this order, and before anything is looked up: see Note [order of the page] in edgecache.store.page.
        followed = asked.site.followed >= 0 and asked.sibling is None and self._is_followed(asked.site.followed)
        fresh_until, epoch = self._page.lease()
        fenced = fresh_until != FREE and fresh_until <= self._boot_clock()
        try:
            stored, record_hash, vary_miss = self._select(asked)
            # Of most records it is known at a glance: nothing at all was purged since.
            purged = None if stored is None or stored.floor >= epoch else self._epochs.since(stored)
            needed = asked.needed
            if needed is not None and stored is not None and purged is None and stored.floor < needed.floor:
                purged = PurgeMode.REVALIDATE
            decision = on_request(asked, stored, purged, fenced, now, vary_miss=vary_miss, followed=followed)
            if asked.sibling is not None:
                decision = for_sibling(asked, decision, stored)
            if isinstance(decision, Reuse):
                assert stored is not None
                self._reader.hit()
                status = status_fields.hit(asked.site, decision)
                lines = decision.lines or status_fields.lines_of(decision.age, status)
                sent = self._sender.send(downstream, asked, stored, record_hash, decision.age, lines)
                if sent:
                    if sent is UNDERIVED:
                        self._fills.representing.answer(downstream, asked, stored, record_hash, decision.age, status)
                    if asked.sibling is not None:
                        self._page.add(SIBLING_HITS)
                    elif needed is None:
                        self._page.add(STALE_HITS if decision.stale else HITS)
                    if decision.behind is not None:
                        self._refresh(asked, decision.behind, record_hash, owned)
                    elif stored.floor < epoch and self._epochs.is_old(stored):
                        self._writer.raise_floor(record_hash, stored.content_id, epoch)
                    return
                decision = Forward(ForwardReason.URI_MISS)
        finally:
            self._reader.done()
        if isinstance(decision, Refuse):
            self._refuse(request, decision, downstream)
        else:
            # Whatever siblings have may be what was deleted: local invalidations never reach them.
            decision.at_origin = purged is PurgeMode.DELETE or (needed is not None and needed.at_origin)
            self._forward(asked, decision, record_hash, downstream, owned)

    def _is_followed(self, site: int) -> bool:
        """Not for siblings: by the time they have it, their own followers may have looked already."""
        return self._page.followed_until(site) > self._boot_clock()

    def _select(self, asked: Asked) -> tuple[Stored | None, bytes, bool]:
        """:return: the stored response that the request selects, where it lies, and "only others" (RFC 9111 §4.1)."""
        found = self._reader.look_up(asked.key_hash, asked.key)
        if not isinstance(found, Variants):
            return found, asked.key_hash, False
        stored, record_hash = self._variant(asked, found)
        return stored, record_hash, stored is None

    def _variant(self, asked: Asked, found: Variants) -> tuple[Stored | None, bytes]:
        """:return: the variant that the request selects, and where it lies, or would lie."""
        # Evicted before a variant, it would make that unreachable.
        self._reader.hit()
        missed = b""
        for names in found.nominated:
            variant = variant_of(asked, names)
            record_hash = variant_hash(asked.key_hash, variant)
            stored = self._reader.look_up(record_hash, asked.key)
            if isinstance(stored, Stored) and stored.variant == variant:
                return stored, record_hash
            missed = missed or record_hash
        return None, missed or asked.key_hash

    def _forward(self, asked: Asked, forward: Forward, record_hash: bytes, downstream: Downstream, owned: bool) -> None:
        """Of a request that the store might have answered."""
        if asked.sibling is None:
            self._page.add(Counter.FORWARDED, int(asked.needed is None))
        elif not owned:
            downstream = Processing(downstream, self._timers).begin()
        page, followed = asked.page, asked.site.followed
        if followed >= 0 and self._listing is not None and page is not None and page.kind is PageKind.LIST:
            self._listing(followed)
        # A HEAD starts no fill, but the owner may be filling.
        at_owner = not asked.bypass if asked.head_only else asked.fills and not forward.alone
        owner = self._owner(asked) if at_owner and not owned else None
        if owner is None:
            self._fills.join(asked, forward, record_hash, downstream)
        else:
            background(self._ask_owner(owner, asked, forward, record_hash, downstream), "ask the owner of a key")

    def _owner(self, asked: Asked) -> Address | None:
        """The worker that is to answer it, if not this one: whoever names no host (HTTP/1.0) cannot be passed on."""
        return self._owners.elsewhere(asked.key_hash) if asked.request.authority else None

    async def _ask_owner(
        self, owner: Address, asked: Asked, forward: Forward, record_hash: bytes, downstream: Downstream
    ) -> None:
        until = self._fills.until(asked)
        if not await self._owners.ask(owner, asked, downstream, self._fills.continued(asked, forward)):
            self._fills.join(asked, forward, record_hash, downstream, until)

    def _refresh(self, asked: Asked, forward: Forward, record_hash: bytes, owned: bool) -> None:
        owner = None if owned else self._owner(asked)
        if owner is None:
            self._fills.refresh(asked, forward, record_hash)
        else:
            self._owners.refresh(owner, asked)

    def _let_in(self, asked: Asked, downstream: Downstream) -> bool:
        """:return: is it for the store to answer? Otherwise it is, or will be, answered."""
        refuse = self._gate.waits(asked, downstream.peer) if asked.client else None
        if refuse is not None:
            self._refuse(asked.request, refuse, downstream)
        elif asked.uncached is None:
            return True
        elif self._gate.knows(asked.uncached):
            self._uncached(asked, downstream)
        else:
            background(self._ask_uncached(asked, downstream), "look at a token")
        return False

    async def _ask_uncached(self, asked: Asked, downstream: Downstream) -> None:
        refuse = await self._gate.refused(asked, downstream.peer)
        if refuse is None:
            self._uncached(asked, downstream)
        else:
            self._refuse(asked.request, refuse, downstream)

    def _uncached(self, asked: Asked, downstream: Downstream) -> None:
        self._page.add(Counter.FORWARDED)
        self._page.add(Counter.UNCACHED)
        self._fills.past_store(asked, downstream)

    def _purge(self, request: Request, downstream: Downstream, owned: bool) -> bool:
        """:return: is it one that a token may allow? Then it will be answered."""
        named = None if self._purging is None or owned else purge_request(request)
        if named is not None and self._purging is not None:
            background(self._purging.answer(named, downstream), "answer a PURGE")
        return named is not None

    def _refuse(self, request: Request, refuse: Refuse, downstream: Downstream) -> None:
        if isinstance(request.asked, Asked) and request.asked.sibling is not None:
            refuse = marked(refuse)
        else:
            self._page.add(Counter.REFUSED)
        self._say(request, refuse, downstream)

    def _say(self, request: Request, refuse: Refuse, downstream: Downstream) -> None:
        site = request.asked.site if isinstance(request.asked, Asked) else None
        head, content = status_fields.refusal(site, self._node_id, refuse, self._clock())
        if refuse.close:
            downstream.close_after()
        downstream.send(head, b"" if request.method == b"HEAD" else content)
