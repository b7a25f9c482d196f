"""
The follower (DESIGN 10): looks at an origin's list of projects now and then, and invalidates what changed.

It is for origins that push no purges. Each node follows for itself: what it needs is one request to the origin, and
whatever keeps it from that costs nothing but that pages of this node live for ``page_seconds`` again.
"""

# Note [the promise]
#
# What the list showed when a poll began is invalidated by the time that poll is over. Then, and only then, a time is
# published: when that poll began, plus the seconds between polls, plus those that one may take. Until that time pages
# live long. So no page is older than those seconds, but for a fetch of it that was under way; and nobody need do
# anything for the promise to end: a follower that hangs, or a node process that has gone, publishes nothing.
#
# Note [the first list]
#
# What changed while nobody looked is not known. So with the first list after a start all pages are invalidated, and
# from then on those that differ from one list to the next. As every page asked for before that has a lower floor, one
# that was under way meanwhile is as good as it was then.
#
# Note [a newer list]
#
# Clients have the list from the origin, too, and a mirror that finds a page older than its list says stops there. So
# whenever a worker is about to ask for the list, it is looked at here as well, and a mirror that asks again is content.

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.admin.parts import FollowerCounts, FollowerView
from edgecache.index.listing import BadListing, Changes, Listing, parse
from edgecache.rules.indexpaths import project_tag
from edgecache.rules.selectors import Selector, all_selector, rows_of, tag_selector
from edgecache.rules.sites import Site, Sites
from edgecache.store.control import Control
from edgecache.store.pagewriter import PageWriter
from edgecache.store.threads import InThread
from edgecache.upstream.addresses import Address, AddressBook, Origin, origins_of
from edgecache.upstream.client import Client
from edgecache.upstream.polling import NotPolled, Polled, Poller
from edgecache.words.config import Config, Policy
from edgecache.words.errors import ControlFailed, UpstreamFailed
from edgecache.words.ports import Timer, Timers
from edgecache.words.purging import Row, SerialDemand
from edgecache.words.reasons import PurgeMode

_log = Logger()

T = TypeVar("T")

ACCEPT = b"application/vnd.pypi.simple.v1+json, text/html;q=0.1"
"""How the list is asked for."""

_RETRY_SECONDS = 10.0
"""After a failure, where polls are further apart than this."""
_HURRY_SECONDS = 1.0
"""From one poll to the next at least, whoever asks for the list."""
_TOGETHER = 5_000
"""Rows of one change of control; purges come in between."""
_MOST_NAMED = 20_000
"""If more projects have changed, all pages are invalidated."""
_MOST_GONE = 100
"""So many may vanish at once in any case; more than half of all is the origin's mistake."""


class State(enum.Enum):
    """How a follower is."""

    STARTING = "starting"
    FOLLOWING = "following"
    NO_SERIALS = "no-serials"
    """The list does not tell of every change, so pages live as if nobody looked."""
    FAILING = "failing"


@define(eq=False, repr=False)
class Follower:
    """
    Of one site.

    :ivar publish: puts into the page until when a site is followed.
    :ivar boot: CLOCK_BOOTTIME seconds.
    :ivar in_thread: for parsing.
    """

    _site: Site
    _poller: Poller
    _control: Control
    _publish: Callable[[int, float], None]
    _timers: Timers
    _boot: Callable[[], float]
    _wall: Callable[[], float]
    _in_thread: InThread
    state: State = State.STARTING
    detail: str = ""
    counts: FollowerCounts = field(factory=FollowerCounts)
    _known: Polled | None = None
    _listing: Listing | None = None
    _plain: bytes = b""
    _projects: int = 0
    _polled_at: float | None = None
    _until: float = 0.0
    _began: float = 0.0
    _timer: Timer | None = None
    _running: Deferred[bool] | None = None
    _stopped: bool = False

    @property
    def place(self) -> int:
        """Of its site among all."""
        return self._site.followed

    @property
    def bound_seconds(self) -> float:
        """See Note [the promise]."""
        settings = self._site.settings
        return settings.follow_seconds + settings.follow_fetch_seconds

    def start(self) -> None:
        """The first poll."""
        self._begin()

    def stop(self) -> None:
        """What was promised holds no more."""
        self._stopped = True
        self._promise(0.0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._running.cancel()

    def hurry(self) -> None:
        """See Note [a newer list]."""
        timer = self._timer
        if timer is not None and self._timers.seconds() >= self._began + _HURRY_SECONDS:
            timer.cancel()
            self._begin()

    def view(self) -> FollowerView:
        """:return: how it is."""
        return FollowerView(
            self._site.settings.name,
            self.state.value,
            self.detail,
            self._projects,
            self._polled_at,
            self.bound_seconds,
            max(0.0, self._until - self._boot()),
            self.counts,
        )

    # One poll after the other

    def _begin(self) -> None:
        self._timer = None
        began = self._began = self._timers.seconds()
        running = self._running = Deferred.fromCoroutine(self._poll())
        _ = running.addErrback(self._broken).addCallback(self._next, began)

    def _next(self, failed: bool, began: float) -> None:
        if self._stopped:
            return
        seconds = self._site.settings.follow_seconds
        if failed:
            seconds = min(seconds, _RETRY_SECONDS)
        self._timer = self._timers.callLater(max(0.0, began + seconds - self._timers.seconds()), self._begin)

    def _broken(self, failure: Failure) -> bool:
        if not failure.check(CancelledError):  # type: ignore[no-untyped-call]  # Twisted has no types here
            _log.failure("follower of {site}: a poll broke off", failure, site=self._site.settings.name)
        return True

    async def _poll(self) -> bool:
        """:return: did it fail?"""
        began, wall = self._boot(), self._wall()
        self._count(polls=1)
        try:
            await self._follow(began)
        except (UpstreamFailed, NotPolled, BadListing, ControlFailed) as error:
            self._count(failures=1)
            why = error.why if isinstance(error, NotPolled | BadListing) else str(error)
            self._became(State.FAILING, f"the project list cannot be followed: {why}")
            return True
        self._polled_at = wall
        return False

    async def _follow(self, began: float) -> None:
        settings = self._site.settings
        polled = await self._within(settings.follow_fetch_seconds, self._poller.poll(self._known))
        if polled.content is None:
            self._count(unchanged=1)
        elif polled.content_type.endswith(b"json"):
            site = self._site.id
            await self._compared(
                await self._in_thread(parse, polled.content, lambda name: tag_selector(site, project_tag(name)))
            )
        else:
            await self._seen(polled.content)
        # The content itself is needed no more.
        self._known = evolve(polled, content=None)
        listing = self._listing
        if listing is not None and listing.complete:
            self._promise(began + self.bound_seconds)
            self._became(State.FOLLOWING, "")
            return
        self._promise(0.0)
        if listing is None:
            detail = "the project list has no serials, so it does not tell which pages have changed"
        else:
            detail = f"{listing.without} of {listing.projects} projects are listed without a serial"
        self._became(State.NO_SERIALS, detail)

    def _promise(self, until: float) -> None:
        """See Note [the promise]."""
        self._until = until
        self._publish(self._site.followed, until)

    def _count(self, **more: int) -> None:
        self.counts = evolve(self.counts, **{name: getattr(self.counts, name) + count for name, count in more.items()})

    def _became(self, state: State, detail: str) -> None:
        if (state, detail) == (self.state, self.detail):
            return
        self.state, self.detail = state, detail
        site = self._site.settings.name
        if state is State.FOLLOWING:
            _log.info(
                "follower of {site}: {projects} projects; pages are at most {bound} s older than their list",
                site=site,
                projects=self._projects,
                bound=self.bound_seconds,
            )
        else:
            _log.warn("follower of {site}: {detail}; pages are validated as without it", site=site, detail=detail)

    # What a list means

    async def _compared(self, listing: Listing) -> None:
        before = self._listing
        if before is None:
            # See Note [the first list].
            await self._invalidate(self._all_pages(), [])
        else:
            changes = await self._in_thread(before.changes, listing)
            if len(changes.vanished) > max(_MOST_GONE, before.projects // 2):
                raise NotPolled(f"{len(changes.vanished)} of {before.projects} projects have vanished")
            if changes.changed or changes.vanished:
                await self._changed(changes)
            else:
                self._count(unchanged=1)
        self._listing, self._projects, self._plain = listing, listing.projects, b""

    async def _changed(self, changes: Changes) -> None:
        site, mode = self._site, int(PurgeMode.REVALIDATE)
        keys = [key for key, _ in changes.changed] + changes.vanished
        if len(keys) > _MOST_NAMED:
            rows = self._all_pages()
        else:
            # Names are not kept, and nobody reads them there: it is the hash that counts.
            rows = [(b"tag %016x project/?%016x" % (site.id, key), key, mode) for key in keys]
            rows += rows_of(
                (Selector("url", site.id, b"/simple/").canonical, Selector("tag", site.id, b"").canonical),
                PurgeMode.REVALIDATE,
            )
        whole = all_selector(site.id)
        await self._invalidate(rows, [SerialDemand(whole, key, serial) for key, serial in changes.changed])
        self._count(changed=len(changes.changed), vanished=len(changes.vanished))
        _log.info(
            "follower of {site}: {changed} projects have changed, {vanished} have vanished",
            site=site.settings.name,
            changed=len(changes.changed),
            vanished=len(changes.vanished),
        )

    async def _seen(self, content: bytes) -> None:
        """A list without serials: of that itself it is known that it has changed."""
        seen = hashlib.sha256(content).digest()
        if seen == self._plain:
            self._count(unchanged=1)
        else:
            selector = Selector("url", self._site.id, b"/simple/")
            await self._invalidate(rows_of([selector.canonical], PurgeMode.REVALIDATE), [])
        self._plain, self._listing = seen, None

    def _all_pages(self) -> list[Row]:
        prefixes = (Selector("prefix", self._site.id, path).canonical for path in (b"/simple/", b"/pypi/"))
        return rows_of(prefixes, PurgeMode.REVALIDATE)

    async def _invalidate(self, rows: list[Row], demands: list[SerialDemand]) -> None:
        for at in range(0, max(len(rows), len(demands)), _TOGETHER):
            await self._control.local(rows[at : at + _TOGETHER], demands[at : at + _TOGETHER])

    async def _within(self, seconds: float, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """:raises NotPolled: it takes longer."""
        running = Deferred.fromCoroutine(work)
        late = False

        def cut() -> None:
            nonlocal late
            late = True
            running.cancel()

        timer = self._timers.callLater(seconds, cut)
        try:
            return await running
        except CancelledError:
            if late:
                raise NotPolled(f"it did not come within {seconds:g} s") from None
            raise
        finally:
            if not late:
                timer.cancel()


@define(eq=False, repr=False)
class Followers:
    """Those of all sites of a node that have one."""

    _followers: list[Follower]
    _client: Client

    @classmethod
    def of(
        cls,
        config: Config,
        client: Client,
        control: Control,
        page: PageWriter,
        timers: Timers,
        boot: Callable[[], float],
        wall: Callable[[], float],
        in_thread: InThread,
        addresses: Callable[[], dict[str, Any]],
        in_service: Callable[[int], bool],
    ) -> Followers:
        """
        :param client: theirs alone; it is closed with them.
        :param addresses: of all origins, as workers are told.
        :param in_service: is the address in this slot asked before others?
        """

        def found(origin: Origin) -> list[Address]:
            book = AddressBook()
            book.update(addresses(), (origin,))
            return sorted(book.of(origin), key=lambda address: not in_service(address.slot))

        def follower(site: Site) -> Follower:
            settings = site.settings
            origins = origins_of(settings)
            if settings.policy is Policy.FALLBACK:
                # What stands in for the first one may be months old.
                origins = origins[:1]
            target = settings.simple_path.encode("ascii")
            poller = Poller(client, origins, found, target, ACCEPT, settings.follow_octets)
            return Follower(site, poller, control, page.publish_followed, timers, boot, wall, in_thread)

        return cls([follower(site) for site in Sites(config).all if site.followed >= 0], client)

    @property
    def empty(self) -> bool:
        """Is there none?"""
        return not self._followers

    def start(self) -> None:
        """The first polls."""
        for follower in self._followers:
            follower.start()

    def stop(self) -> None:
        """What was promised holds no more."""
        for follower in self._followers:
            follower.stop()
        self._client.stop()

    def hurry(self, site: int) -> None:
        """
        A worker is about to ask for the list.

        :param site: place of the site among all.
        """
        for follower in self._followers:
            if follower.place == site:
                follower.hurry()

    def views(self) -> list[FollowerView]:
        """:return: how each is."""
        return [follower.view() for follower in self._followers]
