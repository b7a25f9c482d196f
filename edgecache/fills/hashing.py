"""Digests of large contents are computed in a thread: as they come, and on another core than they come on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from twisted.logger import Logger

from edgecache.rules.digests import Check, Digest

_log = Logger()

# Note [waiting for the thread]
#
# The loop waits for it, for some milliseconds at most, where it would have computed as long itself: at the end, and
# when the thread is further behind than it may be. So nobody else needs to know that there is a thread.

HANDED = 128 << 10
"""Fewer octets are hashed at once: handing them over costs about half of that."""

BEHIND = 4 << 20
"""Octets of all contents that may wait for the thread."""

IDLE_SECONDS = 1.0
"""After so long without work the thread ends; the next content starts another."""


class Hashing:
    """The thread of one worker; there while it is needed."""

    def __init__(self) -> None:
        self._jobs: deque[tuple[HandedCheck, Sequence[bytes | memoryview], int]] = deque()
        self._changed = threading.Condition()
        self._behind = 0
        self._running = False

    def check(self, digest: Digest) -> Check:
        """:return: a check of content that is still to come."""
        return HandedCheck(digest, self)

    def hand(self, check: HandedCheck, parts: Sequence[bytes | memoryview], octets: int) -> None:
        """``check`` hashes ``parts`` in the thread, in order. See Note [waiting for the thread]."""
        with self._changed:
            while self._running and self._behind > BEHIND:
                self._changed.wait()
            self._jobs.append((check, parts, octets))
            self._behind += octets
            check.pending += 1
            if self._running or self._start():
                self._changed.notify_all()
                return
        self._catch_up()

    def wait(self, check: HandedCheck) -> None:
        """Until everything of ``check`` is hashed."""
        with self._changed:
            while self._running and check.pending:
                self._changed.wait()
        if check.pending:
            self._catch_up()

    def _start(self) -> bool:
        """:return: is there a thread?"""
        try:
            threading.Thread(target=self._run, name="digests", daemon=True).start()
        except RuntimeError as error:
            _log.warn("contents are hashed in the loop, there is no thread for it: {error}", error=error)
            return False
        self._running = True
        return True

    def _run(self) -> None:
        try:
            while self._one():
                pass
        except BaseException:
            with self._changed:
                self._running = False
                self._changed.notify_all()
            raise

    def _one(self) -> bool:
        """:return: was there anything to do lately?"""
        with self._changed:
            while not self._jobs:
                if not self._changed.wait(IDLE_SECONDS) and not self._jobs:
                    self._running = False
                    return False
        self._hash_next()
        return True

    def _catch_up(self) -> None:
        """Without a thread."""
        while self._jobs:
            self._hash_next()

    def _hash_next(self) -> None:
        check, parts, octets = self._jobs.popleft()
        try:
            check.hash(parts)
        finally:
            with self._changed:
                self._behind -= octets
                check.pending -= 1
                self._changed.notify_all()


class HandedCheck(Check):
    """
    A check that leaves large parts to the thread.

    :ivar pending: parts that are not hashed yet; changed by :class:`Hashing` alone.
    """

    __slots__ = ("_hashing", "pending")

    def __init__(self, digest: Digest, hashing: Hashing) -> None:
        super().__init__(digest)
        self._hashing = hashing
        self.pending = 0

    def update(self, *parts: bytes | memoryview) -> None:
        octets = sum(map(len, parts))
        if octets < HANDED and not self.pending:
            self.hash(parts)
        else:
            self._hashing.hand(self, parts, octets)

    def hash(self, parts: Sequence[bytes | memoryview]) -> None:
        """For :class:`Hashing`: in the thread."""
        super().update(*parts)

    @property
    def right(self) -> bool:
        self._hashing.wait(self)
        return super().right

    @property
    def came(self) -> str:
        self._hashing.wait(self)
        return super().came
