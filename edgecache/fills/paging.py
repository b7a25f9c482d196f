"""The pages of an index as they come from upstreams: read, judged, and compared with what is known (DESIGN 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from attrs import define, frozen
from twisted.logger import Logger

from edgecache.fills.collecting import Collecting, unpacked
from edgecache.fills.serials import Serials
from edgecache.index.documents import QUARANTINED, BadPage, canonical
from edgecache.index.serials import newer_projects
from edgecache.rules.asking import Asked
from edgecache.rules.indexpaths import PageAsked
from edgecache.rules.outbound import upstream_target
from edgecache.rules.pages import document_url, serial_field, serial_told
from edgecache.store.serials import StoredSerials
from edgecache.store.threads import InThread
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import OldPage, UnusablePage
from edgecache.words.ports import Counts

_log = Logger()


@frozen(eq=False, repr=False)
class ReadPage:
    """
    A page that came whole, and is one.

    :ivar document: canonical.
    :ivar digest: its sha256.
    :ivar serial: ``None`` where neither head nor content tells one.
    :ivar quarantined: its files must not be had any more (PEP 792).
    :ivar dropped: entries that are left out ...
    :ivar why_dropped: ... and what is wrong with the first of them.
    """

    document: bytes
    digest: bytes
    serial: int | None
    quarantined: bool
    dropped: int = 0
    why_dropped: str = ""


@define(eq=False, repr=False)
class Paging:
    """
    Reads pages.

    :ivar octets: a larger page is none.
    """

    _serials: Serials
    _counts: Counts
    _stored: StoredSerials
    _in_thread: InThread
    octets: int

    async def read(self, asked: Asked, response: Response, *, fallback: bool) -> ReadPage:
        """
        :param response: a 200 to ``asked``, whose content nobody has taken yet.
        :param fallback: it comes from an origin that only stands in for a better one.
        :raises UpstreamFailed: it broke off, is no page, or an older one than was seen before.
        """
        assert asked.page is not None
        content = await Collecting(response, self._counts, self.octets).start()
        head = response.head
        told = _Told(head.get(b"content-type") or b"", head.get(b"content-encoding"), response.delimited_by_close)
        url = document_url(asked, upstream_target(asked))
        try:
            page: ReadPage = await self._in_thread(
                _read, asked.page, content, told, self.octets, url, serial_field(head)
            )
        except BadPage as bad:
            self._counts.add(Counter.BAD_PAGES)
            raise UnusablePage(response.address.name, 0.0, bad.why) from bad
        if page.dropped:
            _log.warn(
                "{target}: {count} entries of {upstream} are left out, the first: {why}",
                target=asked.target.decode("latin-1"),
                count=page.dropped,
                upstream=response.address.name,
                why=page.why_dropped,
            )
        self.require(asked, page.serial, response.address.name, fallback=fallback)
        return page

    def require(self, asked: Asked, serial: int | None, upstream: str, *, fallback: bool) -> None:
        """
        :raises OldPage: more is known of the project already. (One without a serial cannot be judged, and is taken
            from whoever is no fallback.)
        """
        known = self._serials.known(asked).serial
        if known <= (serial or 0) or (serial is None and not fallback):
            return
        self._counts.add(Counter.OLD_PAGES)
        raise OldPage(upstream, 0.0, f"serial {serial or 'none'}, and {known} was seen before", serial or 0)

    async def behind(self, asked: Asked, document: bytes) -> dict[bytes, int]:
        """
        :param document: a list of all projects.
        :return: projects of which a page is known, and in the list a higher serial.
        """
        return await self._in_thread(newer_projects, document, _known(self._stored, asked.site.id))


@frozen
class _Told:
    """What a response says of its content."""

    content_type: bytes
    coding: bytes | None
    by_close: bool


def _known(stored: StoredSerials, site: int) -> Callable[[], dict[bytes, int]]:
    return lambda: stored.all(site)


def _read(asked: PageAsked, content: bytes, told: _Told, limit: int, url: bytes, field: int | None) -> ReadPage:
    """In a thread."""
    content = unpacked(content, told.coding, limit)
    if told.by_close and not _ends(content):
        raise BadPage("its end may be missing")
    page = canonical(asked.kind, asked.project, content, told.content_type, url)
    digest = hashlib.sha256(page.octets).digest()
    serial = serial_told(field, page.serial)
    return ReadPage(page.octets, digest, serial, page.status == QUARANTINED, page.dropped, page.why_dropped)


def _ends(content: bytes) -> bool:
    """Can nothing be missing? (JSON that breaks off is none.)"""
    end = content.rstrip()[-7:].lower()
    return end.endswith(b"}") or end == b"</html>"
