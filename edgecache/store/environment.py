"""One open LMDB environment, and what is done when it is found damaged."""

from __future__ import annotations

import math
import os
import threading

import lmdb
from attrs import define, field
from twisted.logger import Logger

from edgecache.store.aside import MARK, condemn
from edgecache.store.layout import PAGE

_log = Logger()

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PageFullError, lmdb.CursorFullError)
"""What LMDB says when pages are not what it wrote; nothing in that environment can be relied on."""


@define(eq=False, repr=False)
class Environment:
    """
    One open environment.

    :ivar env: LMDB's own object.
    :ivar databases: handles by name (:mod:`edgecache.store.layout`).
    :ivar condemned: it was found damaged while in use.
    :ivar writing: held by this process's writer while it has a write transaction open, so
        that nobody moves the map under it.
    :ivar most: nothing is added where more octets than these hold something: freeing takes pages, too, before it gives
        any back, and where there are none left nothing can be deleted any more.
    """

    name: str
    path: str
    env: lmdb.Environment
    databases: dict[bytes, lmdb._Database]
    condemned: bool = False
    writing: threading.Lock = field(factory=threading.Lock)
    most: float = math.inf
    _file: tuple[int, int] | None = field(init=False)

    @_file.default
    def _as_opened(self) -> tuple[int, int] | None:
        return self._found()

    def is_there(self) -> bool:
        """Is its file still the one of its name? What is written to one that was removed is lost."""
        return self._file is not None and self._found() == self._file

    def used(self, txn: lmdb.Transaction) -> int:
        """:return: octets of pages that hold something, as ``txn`` sees it; costs microseconds."""
        stats = [txn.stat(database) for database in self.databases.values()]
        return PAGE * sum(one[kind] for one in stats for kind in ("branch_pages", "leaf_pages", "overflow_pages"))

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(os.path.join(self.path, "data.mdb"))
        except OSError:
            return None
        return status.st_dev, status.st_ino

    @property
    def given_up(self) -> bool:
        """
        A write of its head has failed: until this process ends, LMDB opens no transaction here any more, to read or to
        write. What is on disk is whole.
        """
        try:
            self.env.begin().abort()
        except lmdb.PanicError:
            return True
        except lmdb.Error:
            # Something else, which whoever reads or writes sees, too.
            return False
        return False

    @property
    def spent(self) -> str | None:
        """:return: why another process can do here what this one cannot any more, for people. Of control: of any."""
        if self.name == "control" and (self.condemned or os.path.exists(self.path + MARK)):
            return "control is damaged, and moved aside at the next start"
        return f"LMDB has given up {self.name}, which the disk did not take" if self.given_up else None

    def adopt_size(self) -> bool:
        """
        Another process has made the map larger: follow it.

        To be called from the thread that reads, without a transaction open.

        :return: ``False`` when this process is writing just now: try again later.
        """
        if not self.writing.acquire(blocking=False):
            return False
        try:
            self.env.set_mapsize(0)
        finally:
            self.writing.release()
        return True

    def condemn(self, why: str) -> None:
        """
        Its pages are damaged: it is moved aside, control at the next start, small and blobs by the node process while
        it runs. Until then this process stores nothing in it.
        """
        if self.condemned:
            return
        self.condemned = True
        _log.error("store: {name} is damaged and will be moved aside: {why}", name=self.name, why=why)
        if self.is_there():
            condemn(self.path, why)
