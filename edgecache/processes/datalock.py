"""
One node per data directory.

The lock is an ``flock`` on an open file description, which workers inherit: it is free only when
the node process and the last of its workers are gone. A node that started earlier could meet a
worker that still serves what has been purged since.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable

from attrs import frozen
from twisted.logger import Logger

from edgecache.syncing import sync_directory
from edgecache.words.errors import StartError

_log = Logger()

LOCK = "lock"
"""Its name in the data directory; the holder's process id stands in it, for people."""

_RETRY_SECONDS = 0.05


@frozen
class DataLock:
    """
    The held lock.

    :ivar descriptor: what workers inherit; closing the last copy frees the lock.
    """

    path: str
    descriptor: int

    def sign(self) -> None:
        """Write down who holds it: this process, which twistd may have put into the background since."""
        try:
            os.ftruncate(self.descriptor, 0)
            os.pwrite(self.descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            # It is held all the same.
            _log.warn("{path} does not say who holds it: {reason}", path=self.path, reason=error.strerror)

    def release(self) -> None:
        """This process lets go; workers that still run keep it held."""
        os.close(self.descriptor)


def make_data(data: str) -> None:
    """
    Make the data directory if it is not there, so that a power cut leaves it there.

    :raises StartError: it cannot be made.
    """
    made, path = [], os.path.abspath(data)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
        made.append(path)
    try:
        os.makedirs(data, mode=0o700, exist_ok=True)
        for directory in made:
            sync_directory(directory)
    except OSError as error:
        raise StartError(f"cannot make the data directory {data}: {error.strerror}") from error


def lock_data(
    data: str,
    seconds: float,
    *,
    on_wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> DataLock:
    """
    Lock the data directory, before anything else happens in it.

    This blocks: nothing runs yet that could be kept waiting.

    :param seconds: to wait for a node that is going down.
    :param on_wait: called once when there is need to wait.
    :raises StartError: another node holds it, or it cannot be written.
    """
    try:
        path = os.path.join(data, LOCK)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"cannot use the data directory {data}: {error.strerror}") from error
    until = clock() + seconds
    waited = False
    while not _taken(descriptor, data):
        if clock() >= until:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            by = f" (process {holder})" if holder else ""
            raise StartError(f"the data directory {data} is in use by another node{by}; waited {seconds:g} s")
        if not waited:
            waited = True
            on_wait()
        sleep(_RETRY_SECONDS)
    lock = DataLock(path, descriptor)
    lock.sign()
    return lock


def _taken(descriptor: int, data: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        os.close(descriptor)
        raise StartError(f"cannot lock the data directory {data}: {error.strerror}") from error
    return True
