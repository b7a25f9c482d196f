"""Large contents are hashed in a thread; nobody notices."""

from __future__ import annotations

import hashlib
import threading

from twisted.trial.unittest import SynchronousTestCase

from edgecache.fills.hashing import BEHIND, HANDED, Hashing
from edgecache.rules.digests import Digest

CONTENT = bytes(range(256)) * 80_000  # 20 MiB: several times what may wait


def digest_of(content: bytes) -> Digest:
    return Digest("sha-256", hashlib.sha256(content).digest())


class HashingTests(SynchronousTestCase):
    def test_parts_of_any_size_are_hashed_in_their_order(self) -> None:
        hashing = Hashing()
        good, bad = hashing.check(digest_of(CONTENT)), hashing.check(digest_of(CONTENT[1:]))
        position = 0
        for step in (1, HANDED, 7, 3 * HANDED, HANDED - 1, len(CONTENT)):
            good.update(CONTENT[position : position + step])
            bad.update(CONTENT[position : position + step])
            position += step
        self.assertTrue(good.right)
        self.assertFalse(bad.right)
        self.assertEqual(good.came, bad.came)

    def test_the_loop_is_never_further_ahead_than_is_allowed(self) -> None:
        hashing = Hashing()
        check = hashing.check(digest_of(CONTENT))
        for start in range(0, len(CONTENT), 1 << 20):
            check.update(CONTENT[start : start + (1 << 20)])
            self.assertLessEqual(hashing._behind, BEHIND + (1 << 20))
        self.assertTrue(check.right)
        self.assertEqual(0, hashing._behind)

    def test_small_contents_need_no_thread(self) -> None:
        before = threading.active_count()
        check = Hashing().check(digest_of(CONTENT[:1000]))
        check.update(CONTENT[:1000])
        self.assertTrue(check.right)
        self.assertEqual(before, threading.active_count())

    def test_a_content_goes_on_being_hashed_after_a_break(self) -> None:
        """A kept content's check waits for the next try."""
        self.patch(__import__("edgecache.fills.hashing", fromlist=["x"]), "IDLE_SECONDS", 0.01)
        hashing = Hashing()
        check = hashing.check(digest_of(CONTENT))
        check.update(CONTENT[:HANDED])
        hashing.wait(check)  # type: ignore[arg-type]  # Hashing's own
        for thread in threading.enumerate():
            if thread.name == "digests":
                thread.join()
        check.update(CONTENT[HANDED:])
        self.assertTrue(check.right)

    def test_without_a_thread_to_be_had_it_is_hashed_here(self) -> None:
        def none(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patched = self.patch(threading.Thread, "start", none)
        hashing = Hashing()
        good, bad = hashing.check(digest_of(CONTENT)), hashing.check(digest_of(CONTENT[1:]))
        for start in range(0, len(CONTENT), 1 << 20):
            good.update(CONTENT[start : start + (1 << 20)])
            bad.update(CONTENT[start : start + (1 << 20)])
        self.assertEqual((True, False, 0), (good.right, bad.right, hashing._behind))
        patched.restore()
        again = hashing.check(digest_of(CONTENT))
        again.update(CONTENT)
        self.assertTrue(again.right)
