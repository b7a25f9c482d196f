"""One node per data directory, and none before the last worker of the one before is gone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes.datalock import LOCK, DataLock, lock_data, make_data
from edgecache.words.errors import StartError

HOLD = """
import fcntl, sys
fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class DataLockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = self.mktemp()
        self.clock = Clock()
        self.waits: list[float] = []
        make_data(self.data)

    def lock(self, seconds: float = 1.0) -> DataLock:
        lock = lock_data(
            self.data,
            seconds,
            on_wait=lambda: self.waits.append(self.clock.seconds()),
            clock=self.clock.seconds,
            sleep=self.clock.advance,
        )
        self.addCleanup(lock.release)
        return lock

    def test_a_free_directory_is_taken_at_once(self) -> None:
        self.lock()
        self.assertEqual((0.0, []), (self.clock.seconds(), self.waits))

    def test_a_disk_that_does_not_take_who_holds_it_keeps_nobody_from_starting(self) -> None:
        descriptor = os.open(self.mktemp(), os.O_RDONLY | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        DataLock("lock", descriptor).sign()

    def test_a_second_node_waits_and_then_says_who_holds_it(self) -> None:
        self.lock()
        error = self.assertRaises(StartError, self.lock, 2.0)
        self.assertIn(f"in use by another node (process {os.getpid()}); waited 2 s", str(error))
        self.assertEqual([0.0], self.waits)

    def test_a_second_node_starts_when_the_first_has_gone_meanwhile(self) -> None:
        first = lock_data(self.data, 1.0)
        self.clock.callLater(0.5, first.release)
        self.lock()
        self.assertGreater(self.clock.seconds(), 0.4)

    def test_a_worker_that_inherited_it_holds_it_alone(self) -> None:
        lock = lock_data(self.data, 1.0)
        worker = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock.descriptor)],
            pass_fds=[lock.descriptor],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert worker.stdout is not None
        worker.stdout.readline()
        lock.release()
        self.assertRaises(StartError, self.lock)
        worker.communicate()
        self.lock()

    def test_the_holder_in_the_background_signs_anew(self) -> None:
        lock = self.lock()
        os.pwrite(lock.descriptor, b"1234567\n", 0)
        lock.sign()
        self.assertEqual(f"{os.getpid()}\n", Path(self.data, LOCK).read_text())

    def test_other_programs_do_not_inherit_it(self) -> None:
        self.assertFalse(os.get_inheritable(self.lock().descriptor))

    def test_a_directory_that_cannot_be_made_is_one_clear_error(self) -> None:
        Path(self.data, "file").write_text("")
        path = os.path.join(self.data, "file", "below")
        error = self.assertRaises(StartError, make_data, path)
        self.assertEqual(f"cannot make the data directory {path}: Not a directory", str(error))

    def test_a_file_system_without_locks_is_one_clear_error(self) -> None:
        def no_locks(descriptor: int, operation: int) -> None:
            raise OSError(37, "No locks available")

        self.patch(fcntl, "flock", no_locks)
        self.assertIn("cannot lock the data directory", str(self.assertRaises(StartError, self.lock)))
