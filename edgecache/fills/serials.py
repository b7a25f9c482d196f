"""Which serials are known of the projects of an index: no page goes back behind them (DESIGN 10)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.logger import Logger

from edgecache.rules.asking import Asked
from edgecache.rules.pages import PAGE, serial_of
from edgecache.store.serials import StoredSerials
from edgecache.words.errors import ControlFailed
from edgecache.words.purging import Demanded
from edgecache.words.stored import Serial, Stored

_log = Logger()


@define(eq=False, repr=False)
class Serials:
    """What stored pages and purges say."""

    _stored: StoredSerials
    _demanded: Callable[[int, bytes], Demanded]

    def known(self, asked: Asked) -> Demanded:
        """
        :param asked: for a page.
        :return: the highest serial that is known of its project, and since which epoch serials count.
        """
        assert asked.page is not None
        site, project = asked.site.id, asked.page.project
        demanded = self._said(site, project)
        row = self._stored.of(site, project)
        if row is not None and row[1] >= demanded.since and row[0] > demanded.serial:
            return Demanded(row[0], demanded.since)
        return demanded

    def since(self, site: int, project: bytes) -> int:
        """:return: the epoch since which serials of a project count."""
        return self._said(site, project).since

    def row(self, asked: Asked, serial: int | None) -> Serial | None:
        """:return: what the commit of a page with ``serial`` is to remember."""
        if serial is None or asked.page is None:
            return None
        return Serial(asked.site.id, asked.page.project, serial, self.known(asked).since)

    def is_behind(self, asked: Asked, stored: Stored) -> bool:
        """Is a stored page older than what is known of its project, so that it must not be shown, not even as stale?"""
        return (
            bool(stored.flags & PAGE) and asked.page is not None and self.known(asked).serial > (serial_of(stored) or 0)
        )

    def _said(self, site: int, project: bytes) -> Demanded:
        """What purges say."""
        try:
            return self._demanded(site, project)
        except ControlFailed as failure:
            _log.error("what purges say of serials cannot be read: {why}", why=failure)
            return Demanded()
