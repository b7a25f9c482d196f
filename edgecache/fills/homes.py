"""A worker's siblings, as it asks them for content: a key's home first, others for want of an origin (DESIGN 9)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field
from twisted.logger import Logger

from edgecache.fills.inquiry import Inquiry
from edgecache.fills.outlet import Outlet
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward
from edgecache.rules.homes import Homes
from edgecache.rules.resuming import Broken, rest_of
from edgecache.rules.siblinghood import (
    COPIES,
    COPY_SECONDS,
    LEAST_SECONDS,
    MARGIN_SECONDS,
    PATIENCE_SECONDS,
    fills_at_home,
    look_up,
    may_ask_siblings,
    only_if_cached,
    with_budget,
)
from edgecache.upstream.addresses import Address, AddressBook, Origin
from edgecache.upstream.responses import Response
from edgecache.words.errors import ControlFailed
from edgecache.words.messages import Head, Outbound

_log = Logger()


@define(eq=False, repr=False)
class LookUp:
    """
    What one fill may ask of siblings.

    :ivar outbound: as a sibling gets it; without a budget.
    :ivar order: ids of all nodes in the order of their scores for the key, this one's too.
    :ivar home: is its home to be asked, before the origin?
    :ivar stale: a stale copy is better than nothing.
    :ivar searched: all that may have something stored were asked for it, which is done once.
    :ivar copied: the response is one that a sibling had stored, for want of an origin.
    """

    outbound: Outbound
    order: list[str]
    home: bool
    stale: bool
    searched: bool = False
    copied: bool = False

    def after(self, broken: Broken) -> LookUp:
        """:return: the same for what is left of a content of which there is something already."""
        return evolve(self, outbound=rest_of(self.outbound, broken.known, broken.received))


@define(eq=False, repr=False)
class SiblingsAsked:
    """
    :ivar own: id of this node.
    :ivar origins: where each sibling answers look-ups, by id.
    :ivar applied: up to where this node has applied the logs of purges, at this moment, as a look-up carries it;
        ``None`` if none can.
    :ivar fenced: has this node no lease? Then it cannot tell what a sibling has to know.
    """

    _own: str
    _homes: Homes
    _origins: dict[str, Origin]
    _book: AddressBook
    _outlet: Outlet
    _applied: Callable[[], bytes | None]
    _fenced: Callable[[], bool]
    _round_trips: dict[Address, float] = field(factory=dict)
    _inquiries: set[Inquiry] = field(factory=set)

    @classmethod
    def of(
        cls,
        own: str,
        homes: Homes,
        origins: dict[str, Origin],
        book: AddressBook,
        outlet: Outlet,
        applied: Callable[[], bytes | None],
        fenced: Callable[[], bool],
    ) -> SiblingsAsked:
        """:param outlet: its standing tells of ejections from now on."""
        siblings = cls(own, homes, origins, book, outlet, applied, fenced)
        outlet.standing.on_ejected(siblings._ejected)
        return siblings

    def look_up(self, asked: Asked, forward: Forward) -> LookUp | None:
        """
        To be called after the fill has taken its floor: what is said to be applied then covers it.

        :return: ``None`` when siblings are not to be asked.
        """
        if not may_ask_siblings(asked, forward) or self._fenced():
            return None
        try:
            positions = self._applied()
        except ControlFailed as failure:
            _log.error("siblings are not asked for content, control cannot be read: {why}", why=failure)
            return None
        if positions is None:
            return None
        order = self._homes.order(asked.key_hash)
        home = fills_at_home(asked) and self.home_of(order) is not None
        return LookUp(look_up(asked, forward, positions), order, home, forward.stored is None)

    async def home(
        self, look_up: LookUp, interim: Callable[[Head], None] | None, until: float, avoid: frozenset[Address]
    ) -> Response | None:
        """
        Ask the key's home.

        :param until: monotonic seconds: when the asker's own time is over.
        :return: ``None``: the origin is to be asked.
        """
        address = self.home_of(look_up.order)
        seconds = until - self._outlet.timers.seconds()
        if address is None or address in avoid or seconds < LEAST_SECONDS:
            return None
        outbound = with_budget(look_up.outbound, seconds - MARGIN_SECONDS)
        return await self._ask(address, outbound, interim, until)

    async def copy(self, look_up: LookUp, avoid: frozenset[Address]) -> Response | None:
        """:return: what a sibling has stored; ``None`` when nobody has anything that serves, or all were asked."""
        if look_up.searched:
            return None
        look_up.searched = True
        outbound = with_budget(only_if_cached(look_up.outbound, stale=look_up.stale), PATIENCE_SECONDS)
        addresses = [address for address in map(self._address, look_up.order) if address is not None]
        for address in [one for one in addresses if one not in avoid][:COPIES]:
            # All that it needs is there, or it is not.
            until = self._outlet.timers.seconds() + COPY_SECONDS
            response = await self._ask(address, outbound, None, until)
            if response is not None:
                look_up.copied = True
                return response
        return None

    def home_of(self, order: list[str]) -> Address | None:
        """:return: of the first that is well; ``None`` if that is this node, or there is none."""
        for node_id in order:
            if node_id == self._own:
                return None
            address = self._address(node_id)
            if address is not None:
                return address
        return None

    def _address(self, node_id: str) -> Address | None:
        """:return: one that is in service, of another node."""
        origin = self._origins.get(node_id)
        if origin is None:
            return None
        share = self._outlet.standing.share
        return next((address for address in self._book.of(origin) if share(address) > 0.0), None)

    async def _ask(
        self, address: Address, outbound: Outbound, interim: Callable[[Head], None] | None, until: float
    ) -> Response | None:
        inquiry = Inquiry(self._outlet, address, outbound, interim, until, self._round_trips.get(address, 0.0))
        self._inquiries.add(inquiry)
        try:
            return await inquiry.start()
        finally:
            self._inquiries.discard(inquiry)
            self._round_trips[address] = inquiry.round_trip

    def _ejected(self, slot: int) -> None:
        for inquiry in [one for one in self._inquiries if one.slot == slot]:
            inquiry.ejected()
