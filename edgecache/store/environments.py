"""
The three LMDB environments of a data directory: opening, moving aside, closing.

``DATA/control`` is written by the node process alone; ``DATA/small`` and ``DATA/blobs`` by every
process. One :class:`Environments` per process: LMDB forbids opening a file twice in one.

Note [a pair]: small and blobs are one store. Each carries control's incarnation; where one is
missing, damaged or of another incarnation, both go to ``DATA/aside`` (which holds the latest such
pair only) and the store begins empty. So no record can meet chunks of another life.

Note [an older copy]: where small has seen epochs that control has not, control is a backup, or its disk has lied. It
would give those epochs again, to purges that records of before would be taken to have outlived, and numbers of its log
as well. So it gets another incarnation, as if it had been lost: small and blobs are void, and another log begins.

Note [who syncs what]: every commit syncs its pages before it writes LMDB's head, so that any head on disk is that of
a whole state. The heads that workers write to blobs are themselves synced by the next commit: a power cut may take the
last commit back. What is missing then is a chunk that a record speaks of, which reading finds. The node process,
whose commits free chunks and must not be taken back once their rows in small are gone, syncs heads too. Names of new
files are synced by whoever makes them, before anything is answered.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable

import lmdb
from attrs import define, evolve, field
from twisted.logger import Logger

from edgecache.store import disk, layout
from edgecache.store.aside import MARK, move_aside
from edgecache.store.controlrows import ODD, Rows
from edgecache.store.disk import Disk
from edgecache.store.environment import DAMAGE, Environment
from edgecache.store.opening import Unusable, Unwritable, create, meta, open_one
from edgecache.store.popularity import Popularity
from edgecache.store.sizes import fitted, map_sizes
from edgecache.syncing import sync_directory
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.errors import StartError

_log = Logger()

CONTROL_MAP = 1024 * MIB
"""Four million epochs and their log fit; the file is only as large as what was written."""


@define(eq=False, repr=False)
class Environments:
    """
    What this process has open.

    :ivar incarnation: 16 octets, the same as long as control lives.
    :ivar created: control was made just now, so nothing of any log is known.
    :ivar popularity: of what is, or was, in small and blobs.
    """

    control: Environment
    small: Environment
    blobs: Environment
    incarnation: bytes
    created: bool = False
    popularity: Popularity = field(factory=Popularity.in_memory)
    # Somebody may still be at them.
    _retired: list[Environment] = field(factory=list)
    _moved: bool = False

    @classmethod
    def open(
        cls,
        data: str,
        settings: StoreSettings,
        *,
        node_process: bool,
        inspect: Callable[[str], Disk] = disk.inspect,
    ) -> Environments:
        """
        Open ``data``. The node process makes what is missing and moves aside what is
        unusable; a worker takes what the node process has left.

        The caller holds the lock on the data directory.

        :raises StartError: network file system, no permission, no space, or (worker) no store.
        """
        try:
            opened = _open_all(data, settings, inspect) if node_process else _open_made(data)
            _bound(opened, settings)
            return opened
        except Unusable as unusable:
            raise StartError(f"store in {data} cannot be used: {unusable}") from unusable
        except (lmdb.Error, OSError) as error:
            raise StartError(f"store in {data} cannot be opened: {error}") from error

    def reader_check(self) -> int:
        """Free the slots of readers that died; each pins pages. At start and every minute. :return: slots freed."""
        return sum(one.env.reader_check() for one in (self.control, self.small, self.blobs))

    @property
    def given_up(self) -> str | None:
        """:return: the name of one that nothing but another process can use (:attr:`Environment.given_up`)."""
        return next((one.name for one in (self.control, self.small, self.blobs) if one.given_up), None)

    @property
    def spent(self) -> str | None:
        """:return: of the first (:attr:`Environment.spent`)."""
        return next((why for one in (self.control, self.small, self.blobs) if (why := one.spent) is not None), None)

    @property
    def damaged(self) -> bool:
        """Was small or blobs condemned, by whichever process? Or moved aside, and could not be begun anew since?"""
        return self._moved or any(os.path.exists(one.path + MARK) for one in (self.small, self.blobs))

    def renew(self, settings: StoreSettings, inspect: Callable[[str], Disk] = disk.inspect) -> None:
        """
        Move small and blobs aside, and begin empty ones in their places, while this process and others have them
        open: those go on with what they have. For the node process.

        :raises StartError: it cannot be done; until it is, no worker can be started.
        """
        data = os.path.dirname(self.small.path)
        self._moved = True
        try:
            small, blobs = _anew(
                data, settings, self.incarnation, "one of them was found damaged while in use", inspect
            )
            _keep_names(data, ("small", "blobs"))
        except (lmdb.Error, OSError, Unusable) as error:
            raise StartError(f"small and blobs cannot be begun anew: {error}") from error
        self._moved = False
        self._retired += [self.small, self.blobs]
        self.small, self.blobs = small, blobs
        _bound(self, settings)

    def as_they_are(self) -> Environments:
        """:return: the same, which :meth:`renew` does not change; its owner closes it."""
        return evolve(self, retired=[])

    def close(self) -> None:
        """No transaction may be open and no writer thread may run."""
        for one in (self.control, self.small, self.blobs, *self._retired):
            one.env.close()
        self.popularity.close()


def open_control(data: str) -> tuple[Environment, bytes]:
    """
    Open control alone, for a node that stores nothing. The caller holds the lock on the data directory.

    :return: it, and its incarnation.
    :raises StartError: no permission, no space, or it can be neither used nor moved aside.
    """
    try:
        control, _ = _open_control(data)
        control.env.reader_check()
        _keep_names(data, ("control",))
        return control, meta(control, layout.META_INCARNATION)
    except Unusable as unusable:
        raise StartError(f"control in {data} cannot be used: {unusable}") from unusable
    except (lmdb.Error, OSError) as error:
        raise StartError(f"control in {data} cannot be opened: {error}") from error


def _open_all(data: str, settings: StoreSettings, inspect: Callable[[str], Disk]) -> Environments:
    os.makedirs(data, mode=0o700, exist_ok=True)
    found = inspect(data)
    if found.network is not None:
        raise StartError(f"data directory {data} is on a network file system ({found.network}); LMDB needs a local one")
    if found.magic == disk.FUSE:
        _log.warn("data directory {data} is on FUSE: it must be local, and is slow", data=data)
    settings = fitted(data, settings, found)
    control, created = _open_control(data)
    try:
        incarnation = meta(control, layout.META_INCARNATION)
        popularity = Popularity.open(data, node_process=True)
        small, blobs = _open_pair(data, settings, incarnation, inspect)
        known, seen = _last_epoch(control), _seen_epoch(small)
        if seen > known:
            for one in (small, blobs):
                one.env.close()
            incarnation = _begun_anew(control)
            why = f"control is an older copy: it knows {known} epochs, of which small has seen {seen}"
            small, blobs = _anew(data, settings, incarnation, why, inspect)
    except BaseException:
        control.env.close()
        raise
    environments = Environments(control, small, blobs, incarnation, created, popularity)
    environments.reader_check()
    _keep_names(data, ("control", "small", "blobs"))
    return environments


def _bound(environments: Environments, settings: StoreSettings) -> None:
    """Half of what is left above ``full_share`` is for those who free; others stop there, if nobody says so before."""
    for one in (environments.small, environments.blobs):
        one.most = one.env.info()["map_size"] * (1 + settings.full_share) / 2


def _open_made(data: str) -> Environments:
    """What a worker opens; map sizes are those that the node process chose."""
    opened: list[Environment] = []
    try:
        for name, names in _NAMES.items():
            # See Note [who syncs what].
            opened.append(open_one(data, name, names, 0, readonly=name == "control", metasync=name != "blobs"))
        control, small, blobs = opened
        incarnation = meta(control, layout.META_INCARNATION)
        for one in (small, blobs):
            if meta(one, layout.META_INCARNATION) != incarnation:
                raise Unusable(f"{one.name} belongs to another incarnation")
        popularity = Popularity.open(data, node_process=False)
    except BaseException:
        for one in opened:
            one.env.close()
        raise
    return Environments(control, small, blobs, incarnation, popularity=popularity)


def _last_epoch(control: Environment) -> int:
    """:return: that control has given."""
    with control.env.begin() as txn:
        return Rows(txn, control.databases).purges().epoch


def _seen_epoch(small: Environment) -> int:
    """:return: the last one that anything in small is good up to."""
    with small.env.begin() as txn:
        value = txn.get(layout.META_EPOCH, db=small.databases[layout.META])
    seen: int = 0 if value is None else layout.U64_KEY.unpack(value)[0]
    return seen


def _begun_anew(control: Environment) -> bytes:
    """See Note [an older copy]. :return: its incarnation from now on."""
    incarnation = secrets.token_bytes(layout.INCARNATION_OCTETS)
    with control.env.begin(write=True) as txn:
        Rows(txn, control.databases).begin_anew(incarnation)
    return incarnation


_NAMES = {
    "control": layout.CONTROL_DATABASES,
    "small": layout.SMALL_DATABASES,
    "blobs": layout.BLOBS_DATABASES,
}


def _open_control(data: str) -> tuple[Environment, bool]:
    """:return: control, and whether it is new."""
    try:
        return _made_control(data)
    except Unusable as unusable:
        move_aside(data, ("control",), str(unusable))
    return _made_control(data)


def _made_control(data: str) -> tuple[Environment, bool]:
    """:raises Unusable: also where nobody could say where this node stands: no start would ever come further."""
    control, new = _made(data, "control", CONTROL_MAP, secrets.token_bytes(layout.INCARNATION_OCTETS), None)
    try:
        _ = _last_epoch(control)
    except (*DAMAGE, *ODD) as error:
        control.env.close()
        raise Unusable(str(error)) from error
    return control, new


def _open_pair(
    data: str, settings: StoreSettings, incarnation: bytes, inspect: Callable[[str], Disk]
) -> tuple[Environment, Environment]:
    """See Note [a pair]."""
    sizes = map_sizes(settings)
    opened: list[Environment] = []
    try:
        news = []
        for name, size in zip(("small", "blobs"), sizes, strict=True):
            environment, new = _made(data, name, size, incarnation, incarnation, settings.evict_share)
            opened.append(environment)
            news.append(new)
        if news[0] != news[1]:
            raise Unusable("one of small and blobs is missing")
    except Unusable as unusable:
        for environment in opened:
            environment.env.close()
        return _anew(data, settings, incarnation, str(unusable), inspect)
    small, blobs = opened
    return small, blobs


def _anew(
    data: str, settings: StoreSettings, incarnation: bytes, why: str, inspect: Callable[[str], Disk]
) -> tuple[Environment, Environment]:
    """Move small and blobs aside, and make empty ones."""
    move_aside(data, ("small", "blobs"), why)
    # What was moved still takes its room on the disk.
    sizes = map_sizes(fitted(data, settings, inspect(data)))
    opened: list[Environment] = []
    try:
        for name, size in zip(("small", "blobs"), sizes, strict=True):
            opened.append(_made(data, name, size, incarnation, incarnation)[0])
    except BaseException:
        for environment in opened:
            environment.env.close()
        raise
    small, blobs = opened
    return small, blobs


def _made(
    data: str, name: str, size: int, incarnation: bytes, expected: bytes | None, share: float = 1.0
) -> tuple[Environment, bool]:
    """
    Open an environment, making it when there is none.

    :param incarnation: written into a new one.
    :param expected: what one that exists must carry; ``None`` takes any.
    :param share: see :func:`~edgecache.store.opening.open_one`.
    :raises Unusable: it is damaged, half-made, or of another incarnation or layout.
    """
    if os.path.exists(os.path.join(data, name + MARK)):
        raise Unusable("it was found damaged while in use")

    def opened() -> Environment:
        return open_one(data, name, _NAMES[name], size, readonly=False, incarnation=incarnation, share=share)

    try:
        environment = opened()
    except Unwritable as unwritable:
        # A disk that fails, or failed once, must cost nothing; what is damaged fails again.
        if not disk.takes_writes(data):
            raise StartError(f"the data directory {data} takes no writes: {unwritable}") from unwritable
        environment = opened()
    new = not environment.databases
    try:
        if new:
            create(environment, _NAMES[name], incarnation)
        found = meta(environment, layout.META_INCARNATION)
        if expected is not None and found != expected:
            raise Unusable("it belongs to another incarnation of control")
    except BaseException:
        environment.env.close()
        raise
    return environment, new


def _keep_names(data: str, names: Iterable[str]) -> None:
    """Before anything is answered: what is synced in a file is lost with the file's name."""
    for name in names:
        sync_directory(os.path.join(data, name))
    sync_directory(data)
