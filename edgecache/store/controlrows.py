"""
What lies in the control environment (DESIGN 7, 9).

Numbers in keys are big-endian so that they sort, in values little-endian.

  meta    ``purges`` -> last epoch, trimmed; ``log`` + log key -> head, oldest, incarnation, node id;
          ``admitted``, once this node knows what was durable before it began; ``sites`` -> ids (u64) of the sites
          that purges are for, each; ``serial`` + selector
          hash (u64) of a project, or of a whole site -> serial demanded, epoch of that, epoch since
          which serials count. These are for ever: one of some 40 octets for each project that was
          ever purged with a serial, deleted, or found changed by a follower
  log     log key (16) + sequence (u64) -> first epoch, last epoch, length of the purge id, digest, id, content
  ids     hash of a purge id (32) -> log key (16) + sequence (u64)
  epochs  epoch (u64) -> hash (u64), mode (u8), canonical selector
  last    selector hash (u64) -> last epoch of each mode, 0 for none: soft, revalidate, delete
  tokens  name -> sha256 (32), scopes separated by commas

A log's key is a hash of its name, so that keys have one length whatever nodes are called.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import lmdb
from attrs import define, evolve, frozen

from edgecache.store.layout import META_INCARNATION
from edgecache.words.purging import Demanded, Entry, LogName, Row, Scope, SerialDemand, Token
from edgecache.words.reasons import PurgeMode

META, LOG, IDS, EPOCHS, LAST, TOKENS = b"meta", b"log", b"ids", b"epochs", b"last", b"tokens"

U64 = struct.Struct(">Q")
_PURGES = struct.Struct("<QQ")
_LOG_STATE = struct.Struct("<QQ16s")
_LOG_ROW = struct.Struct("<QQH16s")
_EPOCH_ROW = struct.Struct("<QB")
_LAST_ROW = struct.Struct("<QQQ")
_PURGES_KEY = b"purges"
_LOG_PREFIX = b"log"
_ADMITTED_KEY = b"admitted"
_SITES_KEY = b"sites"
_SERIAL_PREFIX = b"serial"
_SERIAL_ROW = struct.Struct("<QQQ")
DIGEST_OCTETS = 16

_MODES = tuple(sorted(PurgeMode))

ODD = (struct.error, ValueError)
"""What reading rows raises that are not what we wrote."""


@frozen
class Purges:
    """
    Where this node stands.

    :ivar epoch: the last one given.
    :ivar trimmed: this epoch and all before it are forgotten.
    """

    epoch: int = 0
    trimmed: int = 0

    def put(self, rows: Rows) -> None:
        """Make it the present state."""
        rows.put(META, _PURGES_KEY, _PURGES.pack(self.epoch, self.trimmed))


@frozen
class LogState:
    """
    One log's extent.

    :ivar head: sequence of the newest entry; 0 before the first.
    :ivar oldest: all entries after this sequence are there.
    """

    name: LogName
    head: int = 0
    oldest: int = 0

    def put(self, rows: Rows) -> None:
        """Make it the present state."""
        value = _LOG_STATE.pack(self.head, self.oldest, self.name.incarnation) + self.name.id.encode()
        rows.put(META, _LOG_PREFIX + log_key(self.name), value)


def log_key(name: LogName) -> bytes:
    """:return: 16 octets that stand for the log in keys."""
    return blake2b(name.incarnation + name.id.encode(), digest_size=16).digest()


def _id_key(purge_id: str) -> bytes:
    return blake2b(purge_id.encode(), digest_size=32).digest()


@define(eq=False, repr=False)
class Rows:
    """Control inside one transaction. It lives as long as that, which is microseconds for readers."""

    _txn: lmdb.Transaction
    _databases: dict[bytes, lmdb._Database]

    def snapshot(self) -> int:
        """:return: a number that is the same as long as nothing was committed in between."""
        return self._txn.id()

    def get(self, database: bytes, key: bytes) -> bytes | None:
        value = self._txn.get(key, db=self._databases[database])
        return None if value is None else bytes(value)

    def put(self, database: bytes, key: bytes, value: bytes, *, append: bool = False) -> None:
        self._txn.put(key, value, db=self._databases[database], append=append)

    def delete(self, database: bytes, key: bytes) -> bool:
        return bool(self._txn.delete(key, db=self._databases[database]))

    def from_key(self, database: bytes, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """:return: rows from ``key`` on, ascending; don't write to ``database`` meanwhile."""
        with self._txn.cursor(self._databases[database]) as cursor:
            if cursor.set_range(key):
                for found, value in cursor.iternext():
                    yield bytes(found), bytes(value)

    def pages(self) -> int:
        """:return: pages in use, as far as they hold rows."""
        stats = [self._txn.stat(each) for each in self._databases.values()]
        return sum(one[kind] for one in stats for kind in ("branch_pages", "leaf_pages", "overflow_pages"))

    def purges(self) -> Purges:
        """Where this node stands."""
        value = self.get(META, _PURGES_KEY)
        return Purges() if value is None else Purges(*_PURGES.unpack(value))

    def log(self, name: LogName) -> LogState:
        """:return: the log's extent; an empty one when nothing of it is here."""
        value = self.get(META, _LOG_PREFIX + log_key(name))
        return LogState(name) if value is None else LogState(name, *_LOG_STATE.unpack_from(value)[:2])

    def log_by_key(self, key: bytes) -> LogState:
        """:raises KeyError: there is no such log."""
        value = self.get(META, _LOG_PREFIX + key)
        if value is None:
            raise KeyError(key)
        head, oldest, incarnation = _LOG_STATE.unpack_from(value)
        return LogState(LogName(value[_LOG_STATE.size :].decode(), incarnation), head, oldest)

    def logs(self) -> list[LogState]:
        """:return: every log that this node has something of."""
        keys = []
        for key, _ in self.from_key(META, _LOG_PREFIX):
            if not key.startswith(_LOG_PREFIX):
                break
            keys.append(key.removeprefix(_LOG_PREFIX))
        return [self.log_by_key(key) for key in keys if len(key) == 16]

    def add_entry(self, entry: Entry) -> None:
        """Append to its log, whose state the caller puts."""
        purge_id = entry.purge_id.encode()
        head = _LOG_ROW.pack(entry.first_epoch, entry.last_epoch, len(purge_id), entry.digest)
        key = log_key(entry.log) + U64.pack(entry.sequence)
        self.put(LOG, key, head + purge_id + entry.content)
        self.put(IDS, _id_key(entry.purge_id), key)

    def entry(self, name: LogName, sequence: int) -> Entry | None:
        """:return: the entry, ``None`` when it is not here, or no longer."""
        value = self.get(LOG, log_key(name) + U64.pack(sequence))
        return None if value is None else _entry(name, sequence, value)

    def entry_by_id(self, purge_id: str) -> Entry | None:
        """:return: the purge of this id, in whichever log it is."""
        key = self.get(IDS, _id_key(purge_id))
        if key is None:
            return None
        return self.entry(self.log_by_key(key[:16]).name, U64.unpack_from(key, 16)[0])

    def entries(self, name: LogName, after: int, most: int) -> list[Entry]:
        """:return: up to ``most`` entries after sequence ``after``."""
        prefix = log_key(name)
        found: list[Entry] = []
        for key, value in self.from_key(LOG, prefix + U64.pack(after + 1)):
            if len(found) >= most or not key.startswith(prefix):
                break
            found.append(_entry(name, U64.unpack_from(key, 16)[0], value))
        return found

    def remove_entry(self, entry: Entry) -> None:
        """Forget it and its id, unless the id has come to mean another entry."""
        key = log_key(entry.log) + U64.pack(entry.sequence)
        self.delete(LOG, key)
        if self.get(IDS, _id_key(entry.purge_id)) == key:
            self.delete(IDS, _id_key(entry.purge_id))

    def adopt(self, name: LogName, sequence: int) -> None:
        """As if the log had been here up to ``sequence``, and was forgotten; a longer one stays as it is."""
        state = self.log(name)
        if state.head >= sequence and self.get(META, _LOG_PREFIX + log_key(name)) is not None:
            return
        for entry in self.entries(name, state.oldest, state.head - state.oldest):
            self.remove_entry(entry)
        LogState(name, sequence, sequence).put(self)

    def admit(self) -> None:
        """Keep that this node is not joining any more (DESIGN 9)."""
        self.put(META, _ADMITTED_KEY, b"")

    def begin_anew(self, incarnation: bytes) -> None:
        """Another log of this node's own begins, of another name; what it was told before is not known for certain."""
        self.put(META, META_INCARNATION, incarnation)
        self.delete(META, _ADMITTED_KEY)

    def admitted(self) -> bool:
        """Was :meth:`admit` called, ever?"""
        return self.get(META, _ADMITTED_KEY) is not None

    def sites(self) -> frozenset[int] | None:
        """:return: ids of those that purges are for; ``None``: an earlier release did not write that down."""
        value = self.get(META, _SITES_KEY)
        return None if value is None else frozenset(each for (each,) in U64.iter_unpack(value))

    def put_sites(self, sites: Iterable[int]) -> None:
        """These, and no others any more."""
        self.put(META, _SITES_KEY, b"".join(map(U64.pack, sorted(sites))))

    def apply(self, epoch: int, row: Row) -> None:
        """Invalidate what ``row`` selects, as this node's ``epoch``."""
        canonical, selector, mode = row
        self.put(EPOCHS, U64.pack(epoch), _EPOCH_ROW.pack(selector, mode) + canonical, append=True)
        last = list(self._last(selector))
        last[_MODES.index(PurgeMode(mode))] = epoch
        self.put(LAST, U64.pack(selector), _LAST_ROW.pack(*last))

    def demand(self, epoch: int, demand: SerialDemand) -> None:
        """Have ``demand`` count from this node's ``epoch`` on; serials only rise unless they are forgotten."""
        serial, at, since = self._serial(demand.selector)
        if demand.forget:
            serial, at, since = 0, epoch, epoch
        elif at < self._serial(demand.site)[2]:
            serial = 0
        if demand.serial > serial:
            serial, at = demand.serial, epoch
        self.put(META, _SERIAL_PREFIX + U64.pack(demand.selector), _SERIAL_ROW.pack(serial, at, since))

    def demanded(self, project: int, site: int) -> Demanded:
        """:return: what purges demand of the project whose tag and whose site have these selector hashes."""
        serial, at, since = self._serial(project)
        since = max(since, self._serial(site)[2])
        return Demanded(serial if at >= since else 0, since)

    def forget(self, epoch: int) -> None:
        """Undo :meth:`apply` as far as nothing later needs it."""
        value = self.get(EPOCHS, U64.pack(epoch))
        if value is None:
            return
        selector, _ = _EPOCH_ROW.unpack_from(value)
        self.delete(EPOCHS, U64.pack(epoch))
        if max(self._last(selector)) <= epoch:
            self.delete(LAST, U64.pack(selector))

    def rows_since(self, epoch: int) -> list[tuple[int, int, int]]:
        """:return: (epoch, selector hash, mode) of all later epochs that are still known, ascending."""
        return [
            (U64.unpack(key)[0], *_EPOCH_ROW.unpack_from(value))
            for key, value in self.from_key(EPOCHS, U64.pack(epoch + 1))
        ]

    def last(self, selector: int) -> dict[PurgeMode, int]:
        """:return: the last epoch of each mode that ``selector`` was purged with."""
        return {mode: epoch for mode, epoch in zip(_MODES, self._last(selector), strict=True) if epoch}

    def tokens(self) -> list[Token]:
        """All of them."""
        return [_token(name, value) for name, value in self.from_key(TOKENS, b"\0")]

    def put_token(self, token: Token) -> None:
        """Add it, in place of one of the same name."""
        scopes = ",".join(sorted(scope.value for scope in token.scopes))
        self.put(TOKENS, token.name.encode(), token.digest + scopes.encode())

    def _serial(self, selector: int) -> tuple[int, int, int]:
        value = self.get(META, _SERIAL_PREFIX + U64.pack(selector))
        return (0, 0, 0) if value is None else _SERIAL_ROW.unpack(value)

    def _last(self, selector: int) -> tuple[int, ...]:
        value = self.get(LAST, U64.pack(selector))
        return (0,) * len(_MODES) if value is None else _LAST_ROW.unpack(value)


def _entry(name: LogName, sequence: int, value: bytes) -> Entry:
    first, last, length, digest = _LOG_ROW.unpack_from(value)
    content = _LOG_ROW.size + length
    return Entry(name, sequence, first, last, value[_LOG_ROW.size : content].decode(), digest, value[content:])


def _token(name: bytes, value: bytes) -> Token:
    named = value[32:].decode().split(",")
    # A scope that a newer release gave means nothing here.
    scopes = frozenset(scope for scope in Scope if scope.value in named)
    return Token(name.decode(), value[:32], scopes)


def trimmed_log(rows: Rows, state: LogState, trimmed: int, most: int) -> LogState:
    """Forget a log's entries whose epochs are all forgotten, at most ``most``. :return: its new extent, put."""
    oldest = state.oldest
    for entry in rows.entries(state.name, oldest, most):
        if entry.last_epoch > trimmed:
            break
        rows.remove_entry(entry)
        oldest = entry.sequence
    if oldest == state.oldest:
        return state
    shorter = evolve(state, oldest=oldest)
    shorter.put(rows)
    return shorter
