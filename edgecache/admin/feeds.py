"""
``/feed``: changes for mirrors, to be waited for (long-poll) or as a stream of server-sent events (docs/MIRRORS.md).

What it gives out is :mod:`edgecache.siblings.feed`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from attrs import define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.admin.answers import Answer, Problem, begin, retry_after
from edgecache.admin.parts import AdminParts
from edgecache.admin.queries import seconds_to_wait
from edgecache.admin.requests import AdminRequest
from edgecache.rules.indexpaths import normalised_name, project_tag
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import site_id
from edgecache.siblings.feed import Change, Page, Reset
from edgecache.siblings.purger import either
from edgecache.words.errors import EdgeError
from edgecache.words.purging import Scope, Token

_log = Logger()

WAIT_SECONDS = 30.0
"""For a change, when nothing is said."""
HEARTBEAT_SECONDS = 15.0
"""Of a stream: what is in between must not think that it is dead, and we want to know whether the reader is."""
RETRY_MILLISECONDS = 2000
STALL_SECONDS = 30.0
"""A reader of a stream that takes nothing for so long is cut; its cursor is as good later."""

_STREAM = b"text/event-stream"
_PROJECT = project_tag(b"")


@define(eq=False, repr=False)
class Feeds:
    """The route's handler."""

    _parts: AdminParts

    async def get(self, request: AdminRequest, token: Token) -> Answer | None:
        """``GET /feed?since=<cursor>&timeout=30``, or with ``Accept: text/event-stream``."""
        since, timeout = self._wanted(request)
        if _STREAM in request.field(b"accept").lower():
            last = request.field(b"last-event-id").decode("latin-1")
            with self._listening():
                await self._stream(request, last or since)
            return None
        if since is None:
            # Whoever begins reads everything once, and then what comes after this.
            return Answer({"events": [], "cursor": self._parts.feed.now(), "more": False})
        with self._listening():
            return Answer(self._document(await self._page(since, timeout)))

    async def _page(self, cursor: str, timeout: float) -> Page:
        feed, timers = self._parts.feed, self._parts.timers
        deadline = timers.seconds() + timeout
        while True:
            page = feed.read(cursor)
            left = deadline - timers.seconds()
            if page.events or left <= 0.0:
                return page
            await either(feed.changed(), left, timers)

    async def _stream(self, request: AdminRequest, since: str | None) -> None:
        feed = self._parts.feed
        cursor = feed.now() if since is None else since
        page = feed.read(cursor)
        begin(request, 200, _STREAM)
        # Proxies that collect an answer before they pass it on are asked not to.
        request.responseHeaders.setRawHeaders(b"X-Accel-Buffering", [b"no"])
        stream = _Stream(request, self._parts)
        stream.start()
        try:
            stream.write(b"retry: %d\nid: %b\n\n" % (RETRY_MILLISECONDS, cursor.encode()))
            while self._allowed(request):
                for event in page.events:
                    stream.write(self._event(event))
                if page.events:
                    # What came meanwhile has woken nobody.
                    await stream.drained()
                else:
                    await either(feed.changed(), HEARTBEAT_SECONDS, self._parts.timers)
                page = feed.read(page.cursor)
                if not page.events:
                    stream.write(b": still here\n\n")
        except EdgeError as error:
            # Its status was sent long ago; the reader comes back, and is told then.
            _log.error("feed: a stream ended: {error}", error=error)
        finally:
            stream.stop()

    def _allowed(self, request: AdminRequest) -> bool:
        """:return: is the token still one, and the node not going down?"""
        if self._parts.page.draining:
            return False
        try:
            self._parts.access.check(request, Scope.STATUS, open_here=False)
        except Problem as problem:
            _log.info("feed: a stream ended: {why}", why=problem.detail)
            return False
        return True

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """:raises Problem: too many do."""
        feed, most = self._parts.feed, self._parts.config.purge.feed_listeners
        if feed.listeners >= most:
            detail = f"{most} are listening already ([purge] feed_listeners)."
            raise Problem(503, "too-many-listeners", detail, retry_after(5.0))
        feed.listeners += 1
        try:
            yield
        finally:
            feed.listeners -= 1

    def _wanted(self, request: AdminRequest) -> tuple[str | None, float]:
        arguments: dict[bytes, list[bytes]] = request.args or {}
        for name, values in arguments.items():
            if name not in (b"since", b"timeout") or len(values) > 1:
                detail = f"{name.decode('utf-8', 'backslashreplace')}: known are since and timeout, each once."
                raise Problem(400, "invalid-query", detail)
        timeout = seconds_to_wait(request, WAIT_SECONDS, self._parts.config.purge.wait_longest_seconds)
        since = arguments.get(b"since")
        return None if since is None else since[0].decode("latin-1"), timeout

    def _document(self, page: Page) -> dict[str, Any]:
        events = [self._described(event) for event in page.events]
        return {"events": events, "cursor": page.cursor, "more": page.more}

    def _event(self, event: Change | Reset) -> bytes:
        kind = b"change" if isinstance(event, Change) else b"reset"
        return b"event: %b\nid: %b\ndata: %b\n\n" % (kind, event.cursor.encode(), orjson.dumps(self._described(event)))

    def _described(self, event: Change | Reset) -> dict[str, Any]:
        if isinstance(event, Reset):
            return {"type": "reset", "cursor": event.cursor, "nodes": list(event.logs)}
        names = {site_id(site.name): site.name for site in self._parts.config.sites}
        return {**change_document(event, names), "given_at": self._parts.wall()}


def change_document(change: Change, names: dict[int, str]) -> dict[str, Any]:
    """
    :param names: of the sites of this node, by id; others are shown by their ids.
    :return: what a reader is told of a purge: what it names, on whichever sites. Times are seconds since the epoch.
    """
    entry, purge = change.entry, change.purge
    found: dict[str, dict[str, None]] = {kind: {} for kind in ("url", "prefix", "tag", "project", "all")}
    sites: dict[str, None] = {}
    for canonical in () if purge is None else purge.selectors:
        selector = Selector.of(canonical)
        sites[names.get(selector.site, f"{selector.site:016x}")] = None
        value = selector.value.decode("utf-8", "backslashreplace")
        found[selector.kind][value] = None
        if selector.kind == "tag" and selector.value.startswith(_PROJECT):
            name = normalised_name(selector.value.removeprefix(_PROJECT))
            found["project"][name.decode("utf-8", "backslashreplace")] = None
    return {
        "type": "change",
        "cursor": change.cursor,
        "id": entry.purge_id,
        "mode": "revalidate" if purge is None else purge.mode.name.lower(),
        # What cannot be read may name anything.
        "all": purge is None or bool(found["all"]),
        "projects": list(found["project"]),
        "urls": list(found["url"]),
        "prefixes": list(found["prefix"]),
        "tags": list(found["tag"]),
        "sites": list(sites),
        "serials": {} if purge is None else purge.serials,
        "state": change.spreading.state.value,
        "accepted_by": entry.log.id,
        "accepted_at": None if purge is None else purge.accepted_at,
    }


@define(eq=False, repr=False)
class _Stream:
    """The way to one reader: nothing piles up for one that does not read."""

    _request: AdminRequest
    _parts: AdminParts
    _paused: bool = False
    _draining: Deferred[None] | None = None

    def start(self) -> None:
        """Hear how fast the reader is."""
        self._request.registerProducer(self, True)  # type: ignore[no-untyped-call]  # Twisted has no types here

    def write(self, data: bytes) -> None:
        """Some of it may wait for the reader."""
        self._request.write(data)  # type: ignore[no-untyped-call]  # Twisted has no types here

    async def drained(self) -> None:
        """Wait until the reader takes more; one that does not is cut, and this never ends."""
        if not self._paused:
            return
        draining: Deferred[None] = Deferred(lambda _: None)
        self._draining = draining
        await either(draining, STALL_SECONDS, self._parts.timers)
        if self._paused:
            _log.info("feed: a reader took nothing for {seconds} s and was cut", seconds=STALL_SECONDS)
            # Not from here: whoever waits for the end of this would be called within it.
            self._parts.timers.callLater(0.0, self._request.channel.forceAbortClient)
            await Deferred()

    def stop(self) -> None:
        """It is over, or the reader has gone."""
        if not self._request.gone:
            self._request.unregisterProducer()  # type: ignore[no-untyped-call]  # Twisted has no types here

    # twisted.internet.interfaces.IPushProducer

    def pauseProducing(self) -> None:
        """The reader is slower than changes come."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has caught up."""
        self._paused = False
        draining, self._draining = self._draining, None
        if draining is not None and not draining.called:
            draining.callback(None)

    def stopProducing(self) -> None:
        """It has gone."""
        self.resumeProducing()
