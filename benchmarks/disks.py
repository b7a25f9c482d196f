"""A disk as benchmarks want it: with nothing of a file in memory, or slow."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from benchmarks.load import BadRun
from tests.system import processes


def forget(root: Path) -> None:
    """
    Nothing of the files below ``root`` stays in the page cache; no process has them mapped.

    :raises BadRun: more than a little of them does.
    """
    paths = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    cached, octets = sum(map(resident, paths)), sum(path.stat().st_size for path in paths)
    if cached > octets // 50:
        raise BadRun(f"{root}: {cached >> 20} of {octets >> 20} MiB stay in memory")


def resident(path: Path) -> int:
    """
    :return: octets of the file in the page cache.
    :raises OSError: the kernel does not tell.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        try:
            if libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(mapped)), pages):
                raise OSError(ctypes.get_errno(), "mincore")
        finally:
            del start
    return sum(bytes(pages).translate(_ODD)) * mmap.PAGESIZE


_ODD = bytes(number & 1 for number in range(256))


class SlowDisk:
    """
    A control group (v1 or v2) in which so many reads a second come from the disk of ``path``, of at most 128 KiB each.

    :raises PermissionError: not root, or no such controller.
    """

    def __init__(self, path: Path, reads_per_second: int) -> None:
        device = path.stat().st_dev
        disk = f"{os.major(device)}:{os.minor(device)}"
        name = f"edgecache-{os.getpid()}"
        old, new = Path("/sys/fs/cgroup/blkio"), Path("/sys/fs/cgroup")
        if old.is_dir():
            self._group = old / name
            self._group.mkdir()
            (self._group / "blkio.throttle.read_iops_device").write_text(f"{disk} {reads_per_second}")
        else:
            self._group = new / name
            self._group.mkdir()
            (new / "cgroup.subtree_control").write_text("+io")
            (self._group / "io.max").write_text(f"{disk} riops={reads_per_second}")

    def take(self, pids: Iterable[int]) -> None:
        """These processes, and what they start later, read slowly from now on."""
        for pid in pids:
            (self._group / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """All of them have been ended; reads that they waited for may go on for a while."""
        processes.until(lambda: not (self._group / "cgroup.procs").read_text(), "the end of slow processes")
        self._group.rmdir()
