"""A fill of a page of an index (DESIGN 10): collected, judged and stored before anybody is sent anything of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from edgecache.fills.overtaking import overtake
from edgecache.fills.paging import ReadPage
from edgecache.fills.storing import counted
from edgecache.rules.decisions import Freshen, Pass, Store
from edgecache.rules.indexpaths import PageKind, project_tag
from edgecache.rules.pages import PAGE, base_record, is_list, project_selector, serial_of
from edgecache.rules.selectors import Selector
from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentStalled, OldPage, UpstreamFailed
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Serial, Stored

if TYPE_CHECKING:
    from edgecache.fills.fill import Fill

_log = Logger()

RESTARTS = 2
"""After a page that is none, or too old, so many others are asked."""

MOST_PROJECTS = 1_000
"""If more have moved on since the last list, all pages are validated."""


async def store(fill: Fill, plan: Store, response: Response, fallback: bool) -> None:
    """
    Take a page.

    :param fallback: it comes from an origin that only stands in for a better one.
    """
    fills, leader = fill.fills, fill.leader
    fill.give_up_kept()
    fill.begin(plan)
    reading = Deferred.fromCoroutine(fills.paging.read(leader, response, fallback=fallback))
    late = fills.timers.callLater(
        max(fill.until - fills.timers.seconds(), 0.0), _is_late, fill, reading, response.address
    )
    try:
        try:
            page = await reading
        except (UpstreamFailed, CancelledError) as why:
            failure = why if isinstance(why, UpstreamFailed) else _stalled(fill)
            _elsewhere(fill, failure, response.address)
            return
        if page.quarantined and not fill.tried.settled and not _had(fill, page.digest):
            await settle(fill)
            return
        if is_list(leader) and not fallback and not _had(fill, page.digest):
            await catch_up(fill, page.document)
        await overtake(fills, leader, page.serial)
        writer = fills.writer.begin()
        writer.write(page.document)
        record = base_record(plan.stored, page.document, page.digest, writer.content_id, page.serial)
        fill.waiters.derive_ahead(record, plan.record_hash, page.document)
        kept = await writer.commit(plan.record_hash, record, None, fills.serials.row(leader, page.serial))
        writer.finished()
        counted(fills.counts, kept or writer.failed or False)
        await overtake(fills, leader, page.serial)
        document: bytes | None = page.document
        if not kept:
            # Somebody else was faster with a newer one; or the store takes nothing. (Serials it may take all the same.)
            await _remember(fill, page.serial)
            try:
                fills.paging.require(leader, page.serial, response.address.name, fallback=fallback)
            except UpstreamFailed as old:
                _elsewhere(fill, old, response.address)
                return
            newer = fills.look_up(plan.record_hash, leader.key)
            if isinstance(newer, Stored) and newer.flags & PAGE and _is_newer(newer, record):
                record, document = newer, None
        # Only now: whoever came until here has joined, whoever comes from now on finds the record.
        fill.leave()
        fill.waiters.serve_page(evolve(plan, stored=record, own=record), document, kept=kept)
    finally:
        fills.late.end(fill)
        if not fill.late:
            late.cancel()


async def pass_on(fill: Fill, decision: Pass, response: Response, fallback: bool) -> None:
    """A page that may not be stored: derived for one client."""
    fills, leader = fill.fills, fill.leader
    fill.leave()
    if decision.remember and leader.fills:
        fills.unshareable.add(leader)
    own = fill.waiters.own()
    if decision.update is not None:
        await fills.writer.put(decision.update_hash, decision.update)
    if own is None:
        response.cancel()
        return
    reading = Deferred.fromCoroutine(fills.paging.read(own.asked, response, fallback=fallback))
    late = fills.timers.callLater(fill.seconds_left, _cut, fill, reading)
    try:
        page = await reading
        # Whoever asks next may get it from elsewhere.
        await _remember(fill, page.serial)
        await overtake(fills, leader, page.serial)
        fills.paging.require(leader, page.serial, response.address.name, fallback=fallback)
    except (UpstreamFailed, CancelledError) as why:
        failure = why if isinstance(why, UpstreamFailed) else _stalled(fill)
        _log.warn("{target}: {failure}", target=_target(fill), failure=failure)
        fill.waiters.join(own)
        fill.waiters.fail(failure)
        return
    finally:
        if not fill.late:
            late.cancel()
    assert decision.page is not None
    record = base_record(decision.page, page.document, page.digest, b"", page.serial)
    await fill.waiters.pass_page(own, record, page.document)


async def _remember(fill: Fill, serial: int | None) -> None:
    """A page that is not stored is about to be sent: no older one may be after it."""
    row = fill.fills.serials.row(fill.leader, serial)
    if row is not None:
        await fill.fills.writer.raise_serial(row, fill.floor)


def is_old(fill: Fill, plan: Freshen, response: Response, fallback: bool) -> bool:
    """Does somebody vouch for a page that is known to be older than its project? Then somebody else is asked."""
    try:
        fill.fills.paging.require(fill.leader, serial_of(plan.stored), response.address.name, fallback=fallback)
    except UpstreamFailed as failure:
        _elsewhere(fill, failure, response.address)
        return True
    return False


def is_gone(fill: Fill, response: Response, fallback: bool) -> bool:
    """Does the origin say, for the first time, that a project is there no longer?"""
    page = fill.leader.page
    if page is None or page.kind is not PageKind.PROJECT or fallback or fill.tried.settled:
        return False
    if response.head.status not in (404, 410):
        return False
    stored = _stored(fill)
    if stored is not None:
        return bool(stored.flags & PAGE)
    # Names that never were cost no epoch.
    return fill.fills.serials.known(fill.leader).serial > 0


async def catch_up(fill: Fill, document: bytes) -> None:
    """
    A list of all projects has come: no page shall be older than it says, before anybody reads it (FIELD 3).

    :param document: the list.
    """
    fills, site = fill.fills, fill.leader.site.id
    behind = await fills.paging.behind(fill.leader, document)
    if not behind:
        return
    _log.info("{count} projects have moved on, says the list", count=len(behind))
    since = fills.serials.since
    raised = [
        fills.writer.raise_serial(Serial(site, name, serial, since(site, name)), fill.floor)
        for name, serial in behind.items()
    ]
    await gatherResults(raised)
    if len(behind) > MOST_PROJECTS:
        selectors = tuple(Selector("prefix", site, path) for path in (b"/simple/", b"/pypi/"))
    else:
        selectors = tuple(Selector("tag", site, project_tag(name)) for name in behind)
    await fills.node_process.invalidate_here(selectors, PurgeMode.REVALIDATE)


async def settle(fill: Fill) -> None:
    """
    The project is gone, or quarantined: before anybody hears of it, all of its files are to ask their page
    (DESIGN 10). What was fetched before that is not known good after it, so the page is asked for once more.
    """
    fill.give_up_kept()
    fill.forward = evolve(fill.forward, stored=None, no_cache=True, at_origin=True)
    fill.waiters.void()
    _log.warn("{target}: gone or quarantined, and with it the project's files", target=_target(fill))
    await fill.fills.node_process.invalidate_here((project_selector(fill.leader),), PurgeMode.DELETE)
    fill.fills.ask_anew(fill, evolve(fill.tried, settled=True))


def _is_late(fill: Fill, reading: Deferred[ReadPage], address: Address) -> None:
    """It still comes, and is stored when it is here; the clients are not kept waiting so long."""
    fill.late = True
    fill.fills.late.begin(fill, reading, address)
    fill.fills.counts.add(Counter.LATE_PAGES)
    fill.waiters.fail(_stalled(fill), hurried=fill.hurried)


def _cut(fill: Fill, reading: Deferred[ReadPage]) -> None:
    """The one client that could have it is not kept waiting so long, and nobody else wants it."""
    fill.late = True
    fill.fills.counts.add(Counter.LATE_PAGES)
    reading.cancel()


def _stalled(fill: Fill) -> ContentStalled:
    return ContentStalled(fill.leader.site.settings.name, fill.fills.timers.seconds() - fill.began)


def _elsewhere(fill: Fill, failure: UpstreamFailed, address: Address) -> None:
    """A page was of no use, and nobody was sent any of it: somebody else may have a better one."""
    fills = fill.fills
    if isinstance(failure, OldPage) and failure.told >= fill.known and not fill.late and fill.tried.restarts < RESTARTS:
        # It told all that was known when it was asked, and was overtaken on its way: nobody is to blame.
        _log.info("{target}: {failure}; asking again", target=_target(fill), failure=failure)
        fill.forward = evolve(fill.forward, no_cache=True, at_origin=True)
        fills.ask_anew(fill, fill.tried.again())
        return
    fills.counts.add(Counter.UPSTREAM_FAILURES)
    tried = fill.tried.again(address)
    if not fill.late and tried.restarts <= RESTARTS and fills.attempts.another(fill.leader.site, tried.avoid, address):
        _log.warn("{target}: {failure}; asking elsewhere", target=_target(fill), failure=failure)
        fills.ask_anew(fill, tried)
    else:
        fill.fail(failure)


def _is_newer(newer: Stored, record: Stored) -> bool:
    """Is it what somebody else was faster with, and not what this fill was to replace?"""
    return (newer.floor, newer.validated_at) >= (record.floor, record.validated_at)


def _had(fill: Fill, digest: bytes) -> bool:
    stored = _stored(fill)
    return stored is not None and stored.digest == digest


def _stored(fill: Fill) -> Stored | None:
    """:return: what is stored of the page, also where nobody may be shown it: after a delete, or past the store."""
    if fill.forward.stored is not None:
        return fill.forward.stored
    found = fill.fills.look_up(fill.record_hash, fill.leader.key)
    return found if isinstance(found, Stored) else None


def _target(fill: Fill) -> str:
    return fill.leader.request.target.decode("latin-1")
