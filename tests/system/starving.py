"""What a process can run out of, taken from real processes and given back: descriptors, memory, disk."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.harness import Node
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import reply_to


@contextmanager
def limited(pids: Iterable[int], what: int, soft: int) -> Iterator[None]:
    """
    As long as this lasts, these processes may have no more than ``soft`` of ``what`` (``resource.RLIMIT_...``).

    What is forked from them meanwhile keeps the limit: see :func:`unlimited`.
    """
    before = {pid: resource.prlimit(pid, what) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, what, (soft, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, what, limits)


def unlimited(pids: Iterable[int], what: int) -> None:
    """What was forked under a limit is rid of it."""
    for pid in pids:
        with suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, what)
            resource.prlimit(pid, what, (hard, hard))


def address_space(pid: int) -> int:
    """Octets that the process has mapped."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmSize:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


class SmallDisk:
    """A file system of its own (tmpfs, which takes root), with something on it that takes all the rest."""

    def __init__(self, mebibytes: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="edgecache-disk-"))
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.path.rmdir()
            raise unittest.SkipTest(f"no file system can be mounted here: {done.stderr.strip()}")

    def fill(self) -> None:
        """Until nothing is free. What is freed meanwhile is taken by the next call."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
            while ballast.write(b"x" * 4096):
                pass

    def make_room(self) -> None:
        """All of it is free again."""
        (self.path / "ballast").unlink()

    def end(self) -> None:
        """Whoever may still have files there."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)
        self.path.rmdir()


class LosableDisk:
    """
    An ext4 of its own (on a loop device, which takes root) that can be lost from one moment to the next, or only
    take nothing more.
    """

    # <linux/fs.h>: what was not synced until now is not there afterwards, its journal included.
    _SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, struct.pack("I", 2)

    def __init__(self, mebibytes: int) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="edgecache-disk-"))
        self._image, self.path = self._directory / "image", self._directory / "disk"
        with self._image.open("wb") as image:
            image.truncate(mebibytes << 20)
        self.path.mkdir()
        try:
            subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=True, capture_output=True)
            self._mount()
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(self._directory)
            raise unittest.SkipTest(f"no file system can be mounted here: {error}") from error

    def _mount(self) -> None:
        options = ["-o", "loop,errors=remount-ro"]
        subprocess.run(["mount", *options, str(self._image), str(self.path)], check=True, capture_output=True)

    def lose(self) -> None:
        """From now on all that is not in memory is an input/output error."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, self._SHUTDOWN, self._NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def turn_read_only(self) -> None:
        """As ext4 does by itself when it finds an error: nobody who writes there is asked."""
        device = os.stat(self.path).st_dev
        name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("on purpose")

    def find_again(self) -> None:
        """As it was left, once nobody has files there any more."""
        # The kernel may let go of them a moment after whoever had them has ended.
        until(lambda: subprocess.run(["umount", str(self.path)], check=False).returncode == 0, "a disk nobody uses")
        self._mount()

    def end(self) -> None:
        """Whoever may still have files there."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)
        shutil.rmtree(self._directory)


class StarvingCase(SynchronousTestCase):
    """A node, started, in front of an origin of artifacts."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-starved-")
        self.addCleanup(directory.cleanup)
        self.origin = Origin(reply_to).start()
        self.addCleanup(self.origin.stop)
        self.node = Node(Path(directory.name), self.origin.url, cold=True)
        self.addCleanup(self.node.end)
        self.node.start()
