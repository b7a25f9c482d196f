"""What the admin listener shows and does: handed in by the service, so that nothing here reaches outward."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

from attrs import define, field, frozen

from edgecache.admin.access import Access
from edgecache.admin.audit import AUDIT_FILE, Audit
from edgecache.admin.certificates import Certificates
from edgecache.admin.history import History
from edgecache.admin.objects import Objects
from edgecache.admin.tokens import Tokens
from edgecache.siblings.feed import Feed
from edgecache.siblings.purger import Purger
from edgecache.store.collecting import Collector
from edgecache.store.control import Control
from edgecache.store.folding import Downloads
from edgecache.store.pagewriter import PageWriter
from edgecache.store.scrubbing import Scrubbing
from edgecache.words.config import Config
from edgecache.words.messages import Fields
from edgecache.words.ports import Timers
from edgecache.words.voters import is_voter


@frozen
class WorkerState:
    """
    One worker as its supervisor knows it.

    :ivar pid: ``None`` while there is no process; the node's own with ``--workers 0``.
    :ivar running: it accepts connections.
    :ivar started_at: wall time of the present process's start.
    :ivar restarts: processes that died before this one.
    """

    index: int
    pid: int | None
    running: bool
    started_at: float | None = None
    restarts: int = 0


FAILING = "failing"


@frozen
class UpstreamState:
    """
    One address of one origin.

    :ivar origin: scheme, authority and prefix, never credentials.
    :ivar address: as people write it; empty while the name has none.
    :ivar healthy: is it asked before all others are?
    :ivar detail: why not, or what else is the matter; empty when all is well.
    :ivar resolved_at: wall time when the name last resolved.
    :ivar state: of :class:`edgecache.rules.health.State`; ``failing`` where it would be ejected, were there another
        one; ``unresolved`` without an address, ``unwatched`` where the page has no room for its health.
    :ivar reason: what led to that state.
    :ivar since: wall time when it began.
    :ivar next_probe_at: wall time when we shall ask it ourselves, ``None`` while nothing is planned.
    :ivar ejections: in a row; each one lasts longer.
    :ivar sibling: id of the sibling whose contents are asked for there; empty for origins.
    :ivar said: ``detail`` in plain words.
    """

    origin: str
    address: str
    healthy: bool = True
    detail: str = ""
    resolved_at: float | None = None
    state: str = "healthy"
    reason: str = ""
    since: float | None = None
    next_probe_at: float | None = None
    ejections: int = 0
    sibling: str = ""
    said: str = ""

    @property
    def failing(self) -> bool:
        """Is it asked for want of another one?"""
        return self.state == FAILING


@frozen
class UpstreamCounts:
    """
    What exchanges with upstreams came to, since the node's start, by origin and kind.

    :ivar outcomes: as workers, and our own probes, told them (:class:`edgecache.words.reasons.Outcome`).
    :ivar ejections: by the kind of failure that led to them.
    """

    outcomes: dict[tuple[str, str], int] = field(factory=dict)
    ejections: dict[tuple[str, str], int] = field(factory=dict)


@frozen
class SiblingView:
    """
    One sibling, for people.

    :ivar public_url: where its clients reach it; ``""`` when this node is not told.
    :ivar heard_at: wall time of its last message; ``None`` before the first.
    :ivar lacking: purges that are here and, as far as known, not there.
    :ivar positions: up to where it has said to have applied each node's log, by that node's id.
    :ivar problem: why it cannot be spoken to; ``""`` when all is well.
    """

    id: str
    region: str
    control_url: str
    public_url: str
    voter: bool
    heard_at: float | None
    joining: bool
    lacking: int
    problem: str
    positions: dict[str, int] = field(factory=dict)


@frozen
class FollowerCounts:
    """
    What one follower has seen since the start.

    :ivar unchanged: polls that brought the list that was known.
    :ivar changed: projects with another serial, or new.
    """

    polls: int = 0
    unchanged: int = 0
    failures: int = 0
    changed: int = 0
    vanished: int = 0


@frozen
class FollowerView:
    """
    One follower of an origin's project list, for people.

    :ivar state: of :class:`edgecache.following.State`.
    :ivar detail: why it is not following; empty when all is well.
    :ivar projects: on the last list.
    :ivar polled_at: wall time when the last poll that succeeded began.
    :ivar bound_seconds: how old a page may be at most while the list is followed.
    :ivar followed_for: seconds for which what was promised last holds yet; 0.0: pages live for ``page_seconds``.
    """

    site: str
    state: str
    detail: str
    projects: int
    polled_at: float | None
    bound_seconds: float
    followed_for: float
    counts: FollowerCounts


Explain = Callable[[bytes, bytes, bytes, Fields, bool], Awaitable[dict[str, Any]]]
"""Method, authority, path with query, fields, TLS?; see :class:`edgecache.explaining.Explaining`."""


@frozen
class ReloadState:
    """
    How the last reload went.

    :ivar at: wall time.
    :ivar detail: why nothing changed; empty when the settings were taken over.
    :ivar taken: names of the settings that are other ones since.
    :ivar waiting: names of those that the file has changed and that wait for a restart.
    """

    at: float
    detail: str = ""
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


@define(eq=False, repr=False)
class AdminParts:
    """
    :ivar config: as it is now.
    :ivar collector: of what is stored; ``None`` on a voter.
    :ivar lease: seconds for which this node may still serve what is purgeable as fresh; below 0 it is fenced,
        infinite without siblings.
    :ivar groups: answers with Cache-Group-Invalidation, where it is shared, by what became of it
        (:class:`edgecache.siblings.groups.Groups`).
    :ivar ready: why the node does not serve now; ``None`` when it does.
    :ivar downloads: what is counted; ``None`` where nothing is.
    :ivar reloaded: how the last reload went; ``None`` before the first.
    :ivar scrubbing: of the store; ``None`` without one.
    :ivar explain: what would become of a request; ``None`` on a voter.
    :ivar objects: what is asked for most, and what is biggest.
    :ivar wall: seconds since the epoch.
    :ivar timers: on monotonic time.
    """

    config: Config
    control: Control
    page: PageWriter
    purger: Purger
    tokens: Tokens
    collector: Collector | None
    timers: Timers
    wall: Callable[[], float]
    workers: Callable[[], list[WorkerState]]
    upstreams: Callable[[], list[UpstreamState]] = list
    upstream_counts: Callable[[], UpstreamCounts] = UpstreamCounts
    siblings: Callable[[], list[SiblingView]] = list
    groups: Callable[[], dict[str, int]] = dict
    followers: Callable[[], list[FollowerView]] = list
    lease: Callable[[], float] = field(default=lambda: inf)
    ready: Callable[[], str | None] = field(default=lambda: None)
    downloads: Downloads | None = None
    reloaded: Callable[[], ReloadState | None] = lambda: None
    scrubbing: Scrubbing | None = None
    explain: Explain | None = None
    started_at: float = field(init=False)
    certificates: Certificates = field(init=False, factory=Certificates)
    history: History = field(init=False)
    objects: Objects = field()
    feed: Feed = field(init=False)
    audit: Audit = field(init=False)
    access: Access = field(init=False)

    @started_at.default
    def _now(self) -> float:
        return self.wall()

    @history.default
    def _last_hour(self) -> History:
        return History(self.page.totals, self.timers, self.wall)

    @objects.default
    def _unsurveyed(self) -> Objects:
        return Objects(None, None, self.timers)

    @feed.default
    def _changes(self) -> Feed:
        return Feed(self.control, self.purger.spread, self.timers)

    @audit.default
    def _file(self) -> Audit:
        return Audit(os.path.join(self.config.node.data, AUDIT_FILE), self.wall, self.timers)

    @access.default
    def _access(self) -> Access:
        return Access(self.tokens, self.timers)

    def unready(self) -> str | None:
        """:return: why no traffic should come here now, in one sentence; ``None`` when it should."""
        if self.page.draining:
            return "The node is going down."
        if not is_voter(self.config) and not any(worker.running for worker in self.workers()):
            return "No worker accepts connections."
        return self.ready()
