"""A wall clock that is set by an hour, forward and back, under a running node (libfaketime; monotonic clocks go on)."""

from __future__ import annotations

import tempfile
import threading
import unittest
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer
from tests.system.contents import Artifact
from tests.system.harness import Node, unhurried
from tests.system.origins import Hold, Origin, Reply, text
from tests.system.processes import until

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
PAGE = "/page"
SECONDS = 7200


@unittest.skipUnless(LIBRARY, "needs libfaketime (Debian's package faketime)")
class StepTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-clocks-")
        self.addCleanup(directory.cleanup)
        self.clock = Path(directory.name) / "clock"
        self.set_clock(0)
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)
        self.origin.serve(PAGE, text("a page", ("Cache-Control", f"max-age={SECONDS}"), etag='"1"'))
        faked = (
            f"LD_PRELOAD={LIBRARY}",
            f"FAKETIME_TIMESTAMP_FILE={self.clock}",
            "FAKETIME_NO_CACHE=1",
            "NO_FAKE_STAT=1",
        )
        root = Path(directory.name)
        self.node = Node(
            root,
            self.origin.url,
            arguments=unhurried(root),
            prefix=("env", *faked, "FAKETIME_DONT_FAKE_MONOTONIC=1"),
        )
        self.addCleanup(self.node.end)
        self.node.start()

    def set_clock(self, seconds: int) -> None:
        """By so much it is wrong from now on."""
        new = self.clock.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.clock)

    def ask(self) -> Answer:
        answer = self.node.ask(PAGE)
        self.assertEqual((200, b"a page"), (answer.status, answer.content))
        return answer

    def test_nothing_is_fresh_for_longer_nothing_is_cut_and_purges_go_on(self) -> None:
        node, origin = self.node, self.origin
        family = node.family()
        until(lambda: self.ask().hit, "the page")
        for step in (3600, 0, -3600):
            self.step(step)
            origin.forget()
            # Forward, it is an hour older, and fresh still; back, nobody knows how old it is.
            self.assertEqual(step > 0, self.ask().hit, step)
            until(lambda: self.ask().hit, "the validated page")
            self.assertEqual(step <= 0, bool(origin.count(PAGE)), step)
            self.assertEqual(200, node.purge(urls=[node.url + PAGE]).status)
            self.assertFalse(self.ask().hit, "purged")
            until(lambda: self.ask().hit, "the purged page, validated")
            self.assertEqual(200, node.admin("GET", "/readyz").status)
        self.assertEqual(family, node.family())
        self.assertNotIn("Traceback", node.log)

    def step(self, seconds: int) -> None:
        """While something is under way, which goes on: a step is no time that has passed."""
        large, hold = Artifact(f"large {seconds}", 3_000_000), Hold(1_000_000)
        self.origin.serve("/large", Reply(large, fields=(("Cache-Control", "no-store"),), hold=hold))
        under_way: list[Answer] = []
        reading = threading.Thread(target=lambda: under_way.append(self.node.ask("/large", seconds=60)))
        reading.start()
        hold.wait_reached()
        self.set_clock(seconds)
        # Everybody's loop has turned since.
        self.assertEqual(200, self.node.admin("GET", "/readyz").status)
        hold.release()
        reading.join(60)
        self.assertEqual([(200, large.whole())], [(answer.status, answer.content) for answer in under_way])
