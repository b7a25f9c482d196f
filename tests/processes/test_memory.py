"""Memory that is given back to the system, and that is not."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

_GROUPS = """
import ctypes, resource, sys, threading
from edgecache.processes.memory import keep_freed

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1:]:
    keep_freed()

def groups():
    for group in range(9):
        if group == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(65536) for _ in range(128)]
        for block in blocks:
            ctypes.memset(block, 1, 65536)
        for block in blocks:
            libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=groups)
thread.start()
thread.join()
"""


class KeepFreedTests(SynchronousTestCase):
    def faults(self, *arguments: str) -> int:
        """:return: pages that a thread takes anew for eight groups of chunks, each freed before the next."""
        ran = subprocess.run([sys.executable, "-c", _GROUPS, *arguments], capture_output=True, text=True, check=True)
        return int(ran.stdout)

    def test_the_next_group_of_chunks_needs_no_pages_anew(self) -> None:
        self.assertLess(self.faults("keep"), 100)
        # As it is without it, so that this can be seen to fail.
        self.assertGreater(self.faults(), 1000)
