"""The serials of stored pages, which stay when the pages go (DESIGN 10)."""

from __future__ import annotations

from typing import Any

import lmdb
from attrs import define
from twisted.logger import Logger

from edgecache.store import layout
from edgecache.store.environments import Environments
from edgecache.store.unreadable import Unreadable

_log = Logger()


@define(eq=False, repr=False)
class StoredSerials:
    """Reads of them, each in a transaction of its own."""

    _environments: Environments
    _unreadable: Unreadable

    def of(self, site: int, project: bytes) -> tuple[int, int] | None:
        """
        :param project: normalised name, ``b""`` for the list of all.
        :return: the highest serial of a stored page, and that page's floor; ``None`` if none is known.
        """
        small = self._environments.small
        try:
            with small.env.begin() as txn:
                value: Any = txn.get(layout.serial_key(site, project), None, small.databases[layout.SERIALS])
            return None if value is None else layout.SERIAL_ROW.unpack(value)
        except lmdb.Error as error:
            self._unreadable.environment(small, error)
            return None

    def all(self, site: int) -> dict[bytes, int]:
        """
        Any thread may ask.

        :return: of all projects, by normalised name. Names of absurd length are left out.
        """
        small = self._environments.small
        start = layout.serial_key(site, b"")
        found: dict[bytes, int] = {}
        try:
            with small.env.begin() as txn, txn.cursor(small.databases[layout.SERIALS]) as cursor:
                cursor.set_range(start)
                each: Any
                for each in cursor:
                    key, value = each
                    if not key.startswith(start):
                        break
                    if len(start) < len(key) <= len(start) + layout.SERIAL_NAME:
                        found[key[len(start) :]] = layout.SERIAL_ROW.unpack(value)[0]
        except lmdb.Error as error:
            _log.error("store: serials cannot be read: {error}", error=error)
        return found
