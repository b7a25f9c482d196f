"""What the pages of projects say of their files, parsed once per page as long as it is needed."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.fills.pages import FoundPage
from edgecache.index.catalogue import Catalogue
from edgecache.store.threads import InThread

MOST = 16
"""Kept; an install of a project and what it depends on asks for files of so many in a row."""

MOST_OCTETS = 4 << 20
"""Of the pages they were made of; one that is larger is alone."""

AT_ONCE = 64 << 10
"""Smaller pages take less than handing them to a thread."""


@define(eq=False, repr=False)
class Catalogues:
    """The ones used last, by digest of their page."""

    _in_thread: InThread
    _kept: dict[bytes, tuple[Catalogue, int]] = field(factory=dict)
    # An install asks for many files of one page at once: it is parsed for the first, the others wait.
    _parsing: dict[bytes, list[Deferred[None]]] = field(factory=dict)

    def has(self, digest: bytes) -> bool:
        """Is what :meth:`of` answers of that page at hand?"""
        return digest in self._kept

    async def of(self, page: FoundPage) -> Catalogue:
        """
        :return: what ``page`` says of its files.
        :raises BadPage: nothing that can be understood.
        """
        digest, document = page.stored.digest, page.document
        while digest in self._parsing:
            waiting: Deferred[None] = Deferred()
            self._parsing[digest].append(waiting)
            await waiting
        found = self._kept.pop(digest, None)
        if found is None:
            assert document is not None
            if len(document) <= AT_ONCE:
                found = Catalogue.parse(document), len(document)
            else:
                found = await self._parsed(digest, document)
        self._kept.pop(digest, None)
        self._kept[digest] = found
        octets = sum(size for _, size in self._kept.values())
        while len(self._kept) > 1 and (len(self._kept) > MOST or octets > MOST_OCTETS):
            octets -= self._kept.pop(next(iter(self._kept)))[1]
        return found[0]

    async def _parsed(self, digest: bytes, document: bytes) -> tuple[Catalogue, int]:
        self._parsing[digest] = []
        try:
            found = self._kept[digest] = await self._in_thread(Catalogue.parse, document), len(document)
            return found
        finally:
            for waiting in self._parsing.pop(digest):
                waiting.callback(None)
