"""Opening one LMDB environment: what must hold of it, and how an empty one is made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

import lmdb
from twisted.logger import Logger

from edgecache.store import layout
from edgecache.store.environment import DAMAGE, Environment
from edgecache.store.queues import take_over
from edgecache.words.errors import StartError

_log = Logger()

# Each process uses a few read slots per environment; a slot is a cache line of the lock file.
READERS = 1024

# The file is there and readable, and it is not, or no longer, what we wrote.
_UNUSABLE = (
    *DAMAGE,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.NotFoundError,
    lmdb.BadTxnError,
    lmdb.BadDbiError,
)


# What it says, without a class of its own, when it is to write a page where no page can be. A disk that fails says the
# same; then there is no store with either file.
_UNWRITABLE = (os.strerror(errno.EIO), os.strerror(errno.EINVAL))


class Unusable(Exception):
    """An environment must be moved aside; the message says why."""


class Unwritable(Unusable):
    """It was damaged so that it cannot be written; or the disk has failed, once or for good."""


def open_one(
    data: str,
    name: str,
    names: Iterable[bytes],
    size: int,
    *,
    readonly: bool,
    incarnation: bytes | None = None,
    share: float = 1.0,
    metasync: bool = True,
) -> Environment:
    """
    :param names: of the databases that it must have.
    :param size: of the map; 0 for what is in the file.
    :param incarnation: an empty one may be made, and is to be given it; by the node process alone.
    :param share: of the map, what is there already takes so much at most: it is made larger than ``size`` for that.
    :param metasync: a head waits for the disk, too (Note [who syncs what] in :mod:`edgecache.store.environments`).
    :return: the environment; without databases if it is empty and ``incarnation`` may be given to it.
    :raises Unusable: it is damaged, or of another layout.
    :raises Unwritable: so it seems; if it is opened again, and that fails as well, it is so.
    :raises StartError: this user may not use it.
    """
    path = os.path.join(data, name)
    may_create = incarnation is not None
    if may_create:
        os.makedirs(path, mode=0o700, exist_ok=True)
        file = os.path.join(path, "data.mdb")
        if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK):
            raise StartError(f"{file} is not readable and writable for this user")
    try:
        env = lmdb.open(
            path,
            map_size=size,
            max_dbs=16,
            max_readers=READERS,
            mode=0o600,
            create=may_create,
            readonly=readonly,
            metasync=metasync,
            # A cold 64 KiB chunk is read in one go; records and small pages lie scattered.
            readahead=name == "blobs",
        )
    except _UNUSABLE as error:
        raise Unusable(str(error)) from error
    environment = Environment(name, path, env, {})
    try:
        _cover(environment)
        if may_create and env.stat()["entries"] == 0:
            return environment
        for each in names:
            environment.databases[each] = env.open_db(each, create=may_create and each in layout.ADDED)
        if meta(environment, layout.META_LAYOUT) != bytes((layout.LAYOUT,)):
            raise Unusable("it has another layout")
        if may_create:
            _leave_room(environment, share)
            _commit_size(environment)
    except _UNUSABLE as error:
        env.close()
        raise Unusable(str(error)) from error
    except lmdb.Error as error:
        env.close()
        if str(error).endswith(_UNWRITABLE):
            raise Unwritable(str(error)) from error
        raise
    except BaseException:
        env.close()
        raise
    return environment


def _leave_room(environment: Environment, share: float) -> None:
    """
    What is there was stored when the map was larger: it keeps room in which something can be evicted.

    In a map that is no larger than that nothing can be deleted any more, and all of it would have to go.
    """
    env = environment.env
    with env.begin() as txn:
        needed = int(environment.used(txn) / share) // layout.PAGE * layout.PAGE
    if env.info()["map_size"] < needed:
        _log.warn(
            "store: {name} has {used} MiB already, and keeps a map of {size} MiB; a smaller one begins empty, "
            "when small and blobs are removed",
            name=environment.name,
            used=int(needed * share) >> 20,
            size=needed >> 20,
        )
        env.set_mapsize(needed)


def _commit_size(environment: Environment) -> None:
    """
    A commit, so that this map size is in the file: workers open with what they find there.

    On a full disk that is what it was before: a node that was killed serves what it has.
    """
    try:
        with environment.env.begin(write=True) as txn:
            txn.put(layout.META_LAYOUT, bytes((layout.LAYOUT,)), db=environment.databases[layout.META])
            if environment.name == "small":
                take_over(txn, environment.databases)
    except lmdb.DiskError as error:
        _log.warn("store: {name} keeps its former size: {error}", name=environment.name, error=error)


def _cover(environment: Environment) -> None:
    """
    A file that was cut short is lengthened by a hole up to what its head speaks of.

    Reading beyond its end would be SIGBUS; zeros are found out by LMDB's checks or our checksums.
    A file that is whole may also lack its last pages: some were taken and given back unwritten.
    """
    file = os.path.join(environment.path, "data.mdb")
    needed = (environment.env.info()["last_pgno"] + 1) * layout.PAGE
    size = os.stat(file).st_size
    if 0 < size < needed:
        os.truncate(file, needed)


def create(environment: Environment, names: Iterable[bytes], incarnation: bytes) -> None:
    """All databases and the meta rows in one transaction: an environment is empty or complete."""
    env = environment.env
    handles: dict[bytes, lmdb._Database] = {}
    with env.begin(write=True) as txn:
        for name in names:
            handles[name] = env.open_db(name, txn=txn)
        txn.put(layout.META_LAYOUT, bytes((layout.LAYOUT,)), db=handles[layout.META])
        txn.put(layout.META_INCARNATION, incarnation, db=handles[layout.META])
    environment.databases.update(handles)


def meta(environment: Environment, key: bytes) -> bytes:
    """
    :return: a row of ``meta``.
    :raises Unusable: there is none.
    """
    with environment.env.begin() as txn:
        value: bytes | None = txn.get(key, db=environment.databases[layout.META])
    if value is None:
        raise Unusable(f"it has no {key.decode()} row")
    return bytes(value)
