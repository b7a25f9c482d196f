"""
Maps that are full while nobody can make room: misses are passed on, hits go on, and then all is as before.

The node process, which evicts, is stopped meanwhile.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer
from tests.system.harness import Node
from tests.system.meddling import meddled
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import check, reply_to

KNOWN = "/packages/700/known.whl"


class FullMapTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-maps-")
        self.addCleanup(directory.cleanup)
        origin = Origin(reply_to).start()
        self.addCleanup(origin.stop)
        file = Path(directory.name) / "edgecache.toml"
        file.write_text("[store]\nsmall_share = 0.1\n")
        self.node = Node(Path(directory.name), origin.url, size="64MiB", arguments=("--config", str(file)))
        self.addCleanup(self.node.end)

    def ask(self, target: str) -> Answer:
        """:return: its answer, which is whole and right."""
        answer = self.node.ask(target)
        self.assertTrue(check(target, answer), f"{answer}\n{self.node.log[-2000:]}")
        return answer

    def store(self) -> dict[str, Any]:
        """What the node says of it."""
        document: dict[str, Any] = orjson.loads(self.node.admin("GET", "/status").content)["store"]
        return document

    def test_of_what_is_small_and_of_blobs(self) -> None:
        node = self.node.start()
        family = node.family()
        until(lambda: self.ask(KNOWN).hit, KNOWN)
        # Each a little more than its map holds.
        for name, size, count in (("small", 60_000, 130), ("blobs", 4_300_000, 17)):
            leader = node.twistd_pid()
            os.kill(leader, signal.SIGSTOP)
            try:
                for number in range(count):
                    self.ask(f"/packages/{size}/{number}.whl")
                self.assertTrue(self.ask(KNOWN).hit)
            finally:
                os.kill(leader, signal.SIGCONT)
            until(lambda name=name: f"store: {name} takes nothing new, serving goes on" in node.log, "what workers say")  # type: ignore[misc]
            until(lambda: not any(one["full"] for one in self.store()["environments"].values()), "room")
            new = f"/packages/{size}/new.whl"
            until(lambda new=new: self.ask(new).hit, "it in the store")  # type: ignore[misc]
            self.assertEqual(200, node.purge(urls=[node.url + new]).status)
            self.assertFalse(self.ask(new).hit)
        self.assertEqual(0, self.store()["collected"]["failures"])
        self.assertEqual(family, node.family())
        self.assertNotIn("Traceback", node.log)

    def test_of_control_the_oldest_purges_are_forgotten_and_every_new_one_counts(self) -> None:
        """Of a megabyte here, a thousandth of what it is: each purge is in most of its pages."""
        node = self.node
        node.prefix = meddled(node.root / "first", "import edgecache.store.environments as e; e.CONTROL_MAP = 1 << 20")
        node.start()
        for number in range(50):
            if not number % 10:
                until(lambda: self.ask(KNOWN).hit, KNOWN)
            urls = [f"{node.url}/{number}/{each}" for each in range(150)]
            self.assertEqual(200, node.purge(urls=[*urls, node.url + KNOWN], id=f"purge-{number}").status)
            self.assertFalse(self.ask(KNOWN).hit)
        self.assertEqual(404, node.admin("GET", "/purge/purge-0").status, "nothing had to be forgotten")
        node.kill()
        node.start()
        self.assertEqual(200, node.admin("GET", "/purge/purge-49").status)
        self.assertNotIn("Traceback", node.log)
