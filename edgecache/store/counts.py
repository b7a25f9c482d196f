"""
Counts of downloads, by day: ``DATA/downloads/counts``, an LMDB environment of the node process alone.

What a batch of events adds and how far their files were read is one synced transaction, so each event is counted
once, whenever the process is killed. Counts only grow, and belong to one life of this environment
(:attr:`DownloadCounts.life`): whoever adds those of several nodes takes of each life the highest it has seen.

::

  files     day (u32) + hash (16)        -> count (u64) + JSON: what (``FILE_KEYS`` of ``index.tabulating``)
  clients   day (u32) + hash (16)        -> count (u64) + JSON: what (``CLIENT_KEYS``)
  partials, expiry                       :mod:`edgecache.store.partials`
  segments  name of a file of events     -> octets of it that are counted (u64)
  meta      :data:`LIFE`, :data:`LOG`

See docs/decisions/0140-download-counts.md.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator

import lmdb
import orjson
from attrs import define, field
from twisted.logger import Logger

from edgecache.index.distributions import Distribution, distribution_of
from edgecache.index.downloads import Event, Kind
from edgecache.index.tabulating import CLIENT_KEYS, FILE_KEYS, Row
from edgecache.index.useragents import OTHER, Installer, installer_of
from edgecache.store.aside import MARK, condemn
from edgecache.store.environment import DAMAGE
from edgecache.store.formats import Format, from_json, odd
from edgecache.store.partials import Partials
from edgecache.syncing import sync_directory
from edgecache.words.config import GIB

_log = Logger()

MOST_INSTALLERS = 256
"""Installers of different name or version that one day's counts know; more are ``other``."""

MOST_CLIENTS = 2048
"""The same for everything that clients tell of themselves."""

LIFE, LOG, _LAYOUT = b"life", b"log", b"layout"
_FORMAT = b"1"
_DATABASES = (b"files", b"clients", b"partials", b"expiry", b"segments", b"meta")
_MAP = 64 * GIB
_DAY = Format(">I")
_U64 = Format("<Q")


@define(eq=False, repr=False)
class DownloadCounts:
    """
    One thread at a time.

    :ivar life: 16 hexadecimal digits, made with the environment.
    """

    _env: lmdb.Environment
    _db: dict[bytes, lmdb._Database]
    life: str
    _path: str
    _labels: dict[tuple[bytes, int], set[bytes]] = field(factory=dict)

    @classmethod
    def open(cls, directory: str) -> DownloadCounts:
        """
        What is damaged is moved aside (once), and counting begins anew, in another life.

        :raises lmdb.Error, OSError: it cannot be opened.
        """
        path = os.path.join(directory, "counts")
        try:
            if os.path.exists(path + MARK):
                raise lmdb.CorruptedError("found in use")
            return cls._opened(path)
        except (*DAMAGE, lmdb.VersionMismatchError) as error:
            aside = path + ".aside"
            _log.error("downloads: the counts are damaged ({error}); moved to {aside}", error=error, aside=aside)
            shutil.rmtree(aside, ignore_errors=True)
            if os.path.lexists(path):
                os.rename(path, aside)
            sync_directory(directory)
            if os.path.exists(path + MARK):
                os.unlink(path + MARK)
            return cls._opened(path)

    @classmethod
    def _opened(cls, path: str) -> DownloadCounts:
        os.makedirs(path, mode=0o700, exist_ok=True)
        # The map is address space; the file is as large as what was counted.
        env = lmdb.open(path, map_size=_MAP, max_dbs=len(_DATABASES), max_readers=16, mode=0o600, readahead=False)
        try:
            with env.begin(write=True) as txn:
                databases = {name: env.open_db(name, txn=txn) for name in _DATABASES}
                meta = databases[b"meta"]
                if txn.get(_LAYOUT, db=meta) is None:
                    txn.put(_LAYOUT, _FORMAT, db=meta)
                    txn.put(LIFE, secrets.token_hex(8).encode(), db=meta)
                if txn.get(_LAYOUT, db=meta) != _FORMAT:
                    raise lmdb.InvalidError("another layout")
                life = bytes(txn.get(LIFE, b"", db=meta)).decode()
            # Events are removed once they are counted here.
            for directory in (path, os.path.dirname(path)):
                sync_directory(directory)
        except BaseException:
            env.close()
            raise
        return cls(env, databases, life, path)

    def condemn(self, why: str) -> None:
        """It is damaged: close it, and have it moved aside when it is opened again."""
        self._env.close()
        condemn(self._path, why)

    def close(self) -> None:
        """No other thread may be at it."""
        self._env.close()

    def segments(self) -> dict[str, int]:
        """:return: how many octets of each file of events are counted."""
        with self._env.begin() as txn:
            rows = txn.cursor(self._db[b"segments"])
            return {_name(bytes(name)): _U64.unpack(octets)[0] for name, octets in rows}

    def log_place(self) -> tuple[int, int, int] | None:
        """:return: device and inode of the log, and its length when the last batch was counted."""
        with self._env.begin() as txn:
            found = txn.get(LOG, db=self._db[b"meta"])
        return None if found is None else tuple(from_json(found))

    def begin(self, sites: dict[bytes, str], now: int, *, logged: bool) -> Batch:
        """
        :param sites: names by the ids that events have.
        :param now: milliseconds since the epoch.
        :param logged: events are wanted for a log.
        """
        txn = self._env.begin(write=True)
        partials = Partials(txn, self._db[b"partials"], self._db[b"expiry"])
        return Batch(self, txn, self._db, partials, sites, now, logged)

    def trim(self, before: int) -> int:
        """Forget days before this one. :return: rows deleted."""
        deleted = 0
        with self._env.begin(write=True) as txn:
            for name in (b"files", b"clients"):
                cursor = txn.cursor(self._db[name])
                while cursor.first() and _DAY.unpack(cursor.key()[:4])[0] < before:
                    if not txn.delete(cursor.key(), db=self._db[name]):
                        raise lmdb.CorruptedError("a row is not where it is")
                    deleted += 1
        return deleted

    def days(self) -> list[int]:
        """:return: days that have counts, oldest first."""
        found: list[int] = []
        with self._env.begin() as txn:
            cursor = txn.cursor(self._db[b"files"])
            more = cursor.first()
            while more:
                day = _DAY.unpack(cursor.key()[:4])[0]
                if found and day <= found[-1]:
                    raise lmdb.CorruptedError("days are not in their order")
                found.append(day)
                more = cursor.set_range(_DAY.pack(day + 1))
        return found

    def rows(self, first: int, last: int, *, clients: bool = False) -> Iterator[Row]:
        """
        :param first: with ``last`` the days, both included.
        :param clients: those by everything that clients tell, else those by file.
        """
        keys = CLIENT_KEYS if clients else FILE_KEYS
        with self._env.begin() as txn:
            cursor = txn.cursor(self._db[b"clients" if clients else b"files"])
            more = cursor.set_range(_DAY.pack(max(0, first)))
            while more:
                key, value = cursor.item()
                day = _DAY.unpack(key[:4])[0]
                if day > last:
                    return
                yield {
                    "day": day,
                    **_what(keys, value),
                    "downloads": _U64.unpack(value[:8])[0],
                }
                more = cursor.next()

    def known(self, txn: lmdb.Transaction, name: bytes, day: int) -> set[bytes]:
        """:return: what is counted separately on that day; the caller adds to it."""
        found = self._labels.get((name, day))
        if found is None:
            found = set()
            cursor = txn.cursor(self._db[b"clients"])
            more = cursor.set_range(_DAY.pack(day))
            while more and cursor.key()[:4] == _DAY.pack(day):
                told = from_json(cursor.value()[8:])
                found.add(orjson.dumps(told[1:3] if name == b"installers" else told[1:]))
                more = cursor.next()
            while len(self._labels) > 8:
                del self._labels[next(iter(self._labels))]
            self._labels[name, day] = found
        return found

    def forget_labels(self) -> None:
        """A batch was given up: what it had added is not known."""
        self._labels.clear()


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise odd(error) from error


def _what(keys: tuple[str, ...], row: bytes) -> Row:
    try:
        return dict(zip(keys, from_json(row[8:]), strict=True))
    except (TypeError, ValueError) as error:
        raise odd(error) from error


_Named = tuple[Distribution, tuple[int, bytes], tuple[int, bytes]]
"""What was downloaded, and the rows of files and of clients that this counts in: day and keys."""


@define(eq=False, repr=False)
class Batch:
    """
    One transaction. :meth:`commit` or :meth:`abort` ends it.

    :ivar downloads: that it counts.
    :ivar lines: events that are counted, or pages, in order: what the log shall have, if there is one.
    """

    _counts: DownloadCounts
    _txn: lmdb.Transaction
    _db: dict[bytes, lmdb._Database]
    _partials: Partials
    _sites: dict[bytes, str]
    _now: int
    _logged: bool
    downloads: int = 0
    lines: list[tuple[Event, Distribution | None]] = field(factory=list)
    _files: dict[tuple[int, bytes], int] = field(factory=dict)
    _clients: dict[tuple[int, bytes], int] = field(factory=dict)
    # Most events of a batch are of few heads.
    _named: dict[tuple[int, bytes, bytes, bytes], _Named] = field(factory=dict)

    def add(self, events: Iterable[Event]) -> None:
        """Count them; best in the order of their times."""
        oldest = self._now
        for event in events:
            oldest = min(oldest, event.time)
            if event.kind is Kind.PAGE:
                if self._logged:
                    self.lines.append((event, None))
            elif event.part is None:
                if not self._partials.spares(event):
                    self._count(event)
            else:
                for _ in range(self._partials.add(event)):
                    self._count(event)
        self._partials.expire(oldest)

    def note(self, name: str, octets: int) -> None:
        """So much of a file of events is counted with this."""
        self._txn.put(name.encode(), _U64.pack(octets), db=self._db[b"segments"])

    def forget(self, name: str) -> None:
        """A file of events is gone, and stays so even after a power cut."""
        self._txn.delete(name.encode(), db=self._db[b"segments"])

    def place_log(self, place: tuple[int, int, int]) -> None:
        """See :meth:`DownloadCounts.log_place`."""
        self._txn.put(LOG, orjson.dumps(place), db=self._db[b"meta"])

    def commit(self) -> None:
        """
        All of it is on disk after this.

        :raises lmdb.Error: nothing is.
        """
        try:
            self._grow(b"files", self._files)
            self._grow(b"clients", self._clients)
        except BaseException:
            # Who makes room for it needs the next transaction.
            self._txn.abort()
            raise
        self._txn.commit()

    def abort(self) -> None:
        """Nothing happened."""
        self._txn.abort()
        self._counts.forget_labels()

    def _grow(self, name: bytes, added: dict[tuple[int, bytes], int]) -> None:
        for (day, what), count in added.items():
            key = _DAY.pack(day) + hashlib.blake2b(what, digest_size=16).digest()
            before = self._txn.get(key, db=self._db[name])
            total = count + (_U64.unpack(before[:8])[0] if before is not None else 0)
            self._txn.put(key, _U64.pack(total) + what, db=self._db[name])

    def _count(self, event: Event) -> None:
        key = (event.day, event.site, event.path, event.user_agent)
        found = self._named.get(key)
        if found is None:
            found = self._named[key] = self._names(event)
        file, what, who = found
        self._files[what] = self._files.get(what, 0) + 1
        self._clients[who] = self._clients.get(who, 0) + 1
        self.downloads += 1
        if self._logged:
            self.lines.append((event, file))

    def _names(self, event: Event) -> _Named:
        file = distribution_of(event.path)
        installer = self._bounded(event.day, installer_of(event.user_agent))
        site = self._sites.get(event.site, event.site.decode("ascii", "replace"))
        told = [installer.name, installer.version]
        what = orjson.dumps([site, file.project, file.version, file.kind, file.filename, file.sha256, *told])
        who = orjson.dumps([site, *_told(installer)])
        return file, (event.day, what), (event.day, who)

    def _bounded(self, day: int, installer: Installer) -> Installer:
        """Names, versions and details are a stranger's choice: each day knows only so many."""
        if not self._has_room(b"installers", day, [installer.name, installer.version], MOST_INSTALLERS):
            return OTHER
        if not self._has_room(b"clients", day, _told(installer), MOST_CLIENTS):
            return Installer(installer.name, installer.version)
        return installer

    def _has_room(self, name: bytes, day: int, label: list[str], most: int) -> bool:
        known, packed = self._counts.known(self._txn, name, day), orjson.dumps(label)
        if packed not in known:
            if len(known) >= most:
                return False
            known.add(packed)
        return True


def _told(installer: Installer) -> list[str]:
    ci = {True: "yes", False: "no", None: ""}[installer.ci]
    return [
        installer.name,
        installer.version,
        installer.python_series,
        installer.implementation,
        installer.system,
        ci,
    ]
