"""
A fill for which there is more to do than to ask the site's origins (:mod:`edgecache.fills.plainly`), by a coroutine.

What it is about may have to be found first, or its rest asked for; siblings may have it; it may have content, or a
client that leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve
from twisted.internet.defer import CancelledError

from edgecache.fills.artifacts import Sought
from edgecache.fills.uploading import Form
from edgecache.rules.artifacts import is_named
from edgecache.rules.decisions import Freshen
from edgecache.rules.outbound import outbound
from edgecache.rules.policy import invalidated
from edgecache.upstream.responses import Response
from edgecache.words.errors import ClientGone, UpstreamFailed
from edgecache.words.ports import Source

if TYPE_CHECKING:
    from edgecache.fills.fill import Fill


@define(eq=False, repr=False)
class Thoroughly:
    """
    One such fill, until it has its response.

    :ivar _form: of an upload: what is sent ...
    :ivar _peer: ... and by whom.
    """

    _fill: Fill
    _asking: bool = False
    _form: Form | None = None
    _peer: bytes = b""

    async def exchange(self) -> None:
        """Ask, and have the fill decide what becomes of the answer."""
        fill = self._fill
        fills, leader = fill.fills, fill.leader
        content = self._content()
        sought = fills.seek(leader, fill.forward)
        if sought is not None and await self._vouched(sought):
            return
        requested_at = fills.clock()
        try:
            response = await self._answer(content, sought)
        except UpstreamFailed as failure:
            if failure.sent:
                # It may have been taken, whatever became of the answer.
                await self._uploaded()
            fill.fail(failure)
            return
        except (CancelledError, ClientGone):
            fill.leave()
            return  # nobody waits for an answer any longer
        if fill.kept is not None and response.begun:
            # The safe side: a purge since then may have meant the first octets.
            fill.floor = fill.kept.plan.stored.floor
        told = fill.told(response)
        if leader.unsafe:
            selectors = invalidated(leader, response.head)
            if selectors:
                # Before the client hears of it: its next request must not be answered from before.
                await fills.node_process.invalidate(selectors)
        if 200 <= response.head.status < 300:
            await self._uploaded()
        left = fill.followed(response, told, requested_at, sought)
        if left is not None:
            await left

    def wake(self) -> None:
        """The only client of a request that nobody can join has left before its answer: give it up."""
        if self._asking:
            self._fill.cancel()

    def _content(self) -> Source | None:
        """:return: of the request, where it has any."""
        first, leader = self._fill.waiters.first, self._fill.leader
        if first is None or not leader.request.has_content:
            return None
        content = first.downstream.request_content()
        if not leader.upload:
            return content
        self._form, self._peer = Form(content), first.downstream.peer
        return self._form

    async def _answer(self, content: Source | None, sought: Sought | None) -> Response:
        """:raises UpstreamFailed: there is none; and see :meth:`edgecache.fills.attempts.Attempts.ask`."""
        fill = self._fill
        fills, leader, place, first = fill.fills, fill.leader, fill.registered, fill.waiters.first
        asking = outbound(leader, fill.forward, content=content)
        look_up = None
        doubt = fills.doubts.of(leader.key_hash)
        mixed = doubt is not None and doubt.mixed
        if place is not None:
            fill.kept = fills.keep.take(place, leader)
            if fill.kept is None and not fill.tried.restarts and not mixed:
                fill.kept = await fills.parts.take(place, leader, asking, fill.forward.stored)
            # After the floor was taken, which it has to cover.
            look_up = fills.siblings(leader, fill.forward)
        elif first is not None and self._form is None:
            # An upload that is sent counts, whoever waits for its answer.
            first.downstream.on_gone(self)
        fill.asks_home = look_up is not None and look_up.home
        if leader.page is not None:
            fill.known = fills.serials.known(leader).serial
        self._asking = True
        try:
            response = await fills.attempts.ask(
                leader.site,
                asking,
                fill.interim,
                fill.until,
                fill.tried.avoid if doubt is None else fill.tried.avoid | doubt.avoid,
                None if fill.kept is None else fill.kept.broken,
                look_up,
                sought,
                resumable=not mixed,
            )
        finally:
            self._asking = False
        fill.copied = look_up is not None and look_up.copied
        return response

    async def _vouched(self, sought: Sought) -> bool:
        """
        A stored file that its page names by digest is that page's to judge (DESIGN 9).

        :return: everybody was answered.
        """
        fill = self._fill
        stored = fill.forward.stored
        if stored is None or not is_named(fill.leader, stored):
            return False
        try:
            good = await sought.vouched(stored, fill.floor, fill.until)
        except UpstreamFailed as failure:
            fill.fail(failure)
            return True
        if good is None:
            # It may have been told so just now: what siblings have may be older.
            fill.forward = evolve(fill.forward, stored=None, at_origin=True)
            fill.waiters.void()
            return False
        await fill.freshen(Freshen(good, fill.record_hash))
        return True

    async def _uploaded(self) -> None:
        form = self._form
        if form is not None:
            await self._fill.fills.node_process.uploaded(self._fill.leader, bytes(form.begin), self._peer)
