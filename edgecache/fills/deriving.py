"""
What clients get of the pages of an index (DESIGN 10): derived from a base record once, in a thread, and stored.

See :mod:`edgecache.rules.pages` for what is stored where.
"""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from edgecache.index.representing import Links, derive, etag_of, filled_in
from edgecache.processes.background import background
from edgecache.rules.asking import Asked
from edgecache.rules.pages import View, derived_record, serial_of, view_of
from edgecache.rules.representations import SOURCE
from edgecache.rules.sites import Site
from edgecache.store.layout import CHUNK
from edgecache.store.reading import StoreReader
from edgecache.store.threads import InThread
from edgecache.store.writing import StoreWriter
from edgecache.words.counters import Counter
from edgecache.words.errors import ContentMissing, EdgeError
from edgecache.words.ports import Counts
from edgecache.words.stored import Stored

VIEWS = 32
"""Remembered per page; a client can ask for ``/pypi/<name>/json`` under any number of hosts."""


QUEUED_OCTETS = 64 << 20
"""Documents that wait for their turn; more would take seconds, and memory."""


class TooMuchToDerive(EdgeError):
    """As much waits to be derived as may."""


@define(eq=False, repr=False)
class Derivations:
    """
    Derives what clients get, each representation of a page once at a time.

    :ivar in_thread: it takes from a fraction of a millisecond to a second.
    :ivar most: octets of documents that may wait for that; a single one may have more.
    """

    _reader: StoreReader
    _writer: StoreWriter
    _counts: Counts
    in_thread: InThread
    # Content by its record's hash until that is on disk; who waits for content.
    _ready: dict[bytes, bytes] = field(factory=dict)
    _waiting: dict[bytes, list[Deferred[None]]] = field(factory=dict)
    most: int = QUEUED_OCTETS
    _queued: int = 0

    def view(self, asked: Asked, base: Stored) -> View:
        """:return: what ``asked`` is sent of ``base``, as far as the base says."""
        representation = asked.representation
        view: View | None = base.views.get(representation)
        if view is None:
            assert representation is not None
            etag = etag_of(base.digest, serial_of(base), representation, links_of(asked.site))
            if len(base.views) >= VIEWS:
                base.views.clear()
            view = base.views[representation] = view_of(asked, base, representation, etag)
        return view

    async def content(self, asked: Asked, base: Stored, record_hash: bytes, document: bytes | None) -> bytes | None:
        """
        :param record_hash: where ``base`` is stored.
        :param document: its content, if it is at hand.
        :return: what ``asked`` is sent; ``None`` if the page's content is gone.
        :raises TooMuchToDerive: try again later.
        """
        representation = asked.representation
        if representation is SOURCE:
            return self.document(record_hash, base) if document is None else document
        if representation is not None and representation.filled_in:
            form = await self.content(_of_form(asked), base, record_hash, document)
            return None if form is None else filled_in(form, representation.base)
        view = self.view(asked, base)
        place = view.record_hash
        while place in self._waiting:
            waiting: Deferred[None] = Deferred()
            self._waiting[place].append(waiting)
            await waiting
        ready = self._ready.get(place)
        if ready is not None:
            return ready
        if document is None:
            stored = self._stored(view)
            if stored is not None:
                return stored
            document = self.document(record_hash, base)
            if document is None:
                return None
        self._waiting[place] = []
        try:
            content = await self.derived(asked, document)
            self._ready[place] = content
        finally:
            for waiting in self._waiting.pop(place):
                waiting.callback(None)
        background(self._store(view, base, content), "store what a page's clients get")
        return content

    async def derived(self, asked: Asked, document: bytes) -> bytes:
        """
        :return: what ``asked`` is sent of a canonical document; it is not stored.
        :raises TooMuchToDerive: try again later.
        """
        page, representation = asked.page, asked.representation
        assert page is not None and representation is not None
        if representation is SOURCE:
            return document
        octets = len(document)
        if self._queued and self._queued + octets > self.most:
            raise TooMuchToDerive
        self._counts.add(Counter.DERIVED)
        self._queued += octets
        try:
            return await self.in_thread(derive, page.kind, page.project, document, representation, links_of(asked.site))
        finally:
            self._queued -= octets

    def has_form(self, asked: Asked, base: Stored) -> bool:
        """Need only be filled in what is stored?"""
        if asked.representation is None or not asked.representation.filled_in:
            return False
        view = self.view(_of_form(asked), base)
        try:
            return isinstance(self._reader.look_up(view.record_hash, view.key), Stored)
        finally:
            self._reader.done()

    def document(self, record_hash: bytes, base: Stored) -> bytes | None:
        """:return: the canonical document of a page that was found there; ``None`` if it is gone."""
        return self._read(record_hash, base)

    def _stored(self, view: View) -> bytes | None:
        try:
            found = self._reader.look_up(view.record_hash, view.key)
        finally:
            self._reader.done()
        return self._read(view.record_hash, found) if isinstance(found, Stored) else None

    def _read(self, record_hash: bytes, stored: Stored) -> bytes | None:
        """Content of any size, with nothing in between that could free it but another process."""
        reader = self._reader
        try:
            found = reader.look_up(record_hash, stored.key)
            if not isinstance(found, Stored) or found.content_id != stored.content_id:
                return None
            if found.size < CHUNK:
                return reader.content(found)
            full = found.size // CHUNK
            head = reader.chunks(record_hash, found.content_id, 0, full)
            return head + (reader.tail(record_hash, found.content_id, found.size) if found.size % CHUNK else b"")
        except ContentMissing:
            return None
        finally:
            reader.done()

    async def _store(self, view: View, base: Stored, content: bytes) -> None:
        writer = self._writer.begin()
        writer.write(content)
        try:
            await writer.commit(view.record_hash, derived_record(view, base))
        finally:
            self._ready.pop(view.record_hash, None)
            writer.finished()
            if writer.failed is not None:
                self._counts.add(Counter.STORE_FAILURES)


def _of_form(asked: Asked) -> Asked:
    assert asked.representation is not None
    return evolve(asked, representation=asked.representation.form)


def links_of(site: Site) -> Links:
    """:return: where its clients find files."""
    return Links(site.settings.public_url.encode("ascii").rstrip(b"/"), site.path)
