"""What the data directory lies on: which file system, and how much is free there."""

from __future__ import annotations

import ctypes
import math
import os
import tempfile

from attrs import frozen

from edgecache.words.errors import StartError

# Magic numbers of <linux/magic.h> and of the file systems' own headers. LMDB's locks and its map
# need one kernel that sees every write: over these, two machines do not share one.
_NETWORK = {
    0x6969: "NFS",
    0x517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x01021997: "9P",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x564C: "NCP",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x19830326: "BeeGFS",
    0xAAD7AAEA: "PanFS",
}
# Local (fuse-overlayfs, ntfs-3g) or remote (sshfs, glusterfs): statfs cannot tell.
FUSE = 0x65735546

_TRIED_OCTETS = 64 << 10


@frozen
class Disk:
    """
    :ivar magic: ``f_type`` of statfs.
    :ivar free: octets that this user may still write.
    """

    magic: int
    free: int

    @property
    def network(self) -> str | None:
        """The file system's name if it is a network file system."""
        return _NETWORK.get(self.magic)


def inspect(path: str) -> Disk:
    """
    Ask the kernel about the file system of ``path``.

    :raises StartError: it cannot be asked.
    """
    # Python has statvfs only, which does not tell the type. f_type is the first member of
    # struct statfs on every Linux architecture that uvloop is built for, a long.
    buffer = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise StartError(f"data directory {path}: {os.strerror(number)}")
    magic = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    status = os.statvfs(path)
    return Disk(magic, status.f_bavail * status.f_frsize)


def takes_writes(path: str) -> bool:
    """:return: is what is written below this directory on disk in the end, just now? Blocks."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(_TRIED_OCTETS))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def first_in(path: str, seconds: float, most: float, now: float) -> bool:
    """
    :param path: of a file that remembers it, also for later processes.
    :param most: each time that it was asked again soon after, twice as many seconds count; at most so many.
    :param now: seconds since the epoch.
    :return: is this asked for the first time in so many seconds? Not where that cannot be remembered.
    """
    wait, past = seconds, math.inf
    try:
        if os.path.exists(path):
            past = now - os.stat(path).st_mtime
            with open(path, "rb") as file:
                said = file.read(16).strip()
            wait = float(said) if said.isdigit() else seconds
        # Of a clock that was set back, what is to come says nothing.
        if 0.0 <= past < min(wait, most):
            return False
        again = 0.0 <= past < 2 * wait
        with open(path, "wb") as file:
            file.write(b"%d\n" % (min(most, 2 * wait) if again else seconds))
        os.utime(path, (now, now))
    except OSError:
        return False
    return True


def occupied(path: str) -> int:
    """:return: octets that ``path`` takes on disk, holes not counted; 0 where there is nothing."""
    try:
        return os.stat(path).st_blocks * 512
    except FileNotFoundError:
        return 0
