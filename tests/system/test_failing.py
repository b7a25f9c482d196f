"""A node with two workers in front of two origins that are killed, stand still, and come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer, Download, Together
from tests.system.contents import Artifact
from tests.system.harness import _DIE_WITH_US, Node, environment
from tests.system.processes import free_port, until

WHEEL = Artifact("failing", 1_000_000)
PAGES = tuple(f"/page/{n}" for n in range(6))
"""Some for each worker."""

# Scaled, so that a test takes seconds. Each is far longer than a good origin needs.
SETTINGS = """
[upstream]
connect_seconds = 2.0
head_seconds = 3.0
first_byte_seconds = 4.0
stall_seconds = 2.0
eject_seconds = 0.5
eject_longest_seconds = 1.0
slow_start_seconds = 1.0
"""


def _stored(node: Node) -> int:
    """Responses that both workers have stored, as /metrics says."""
    lines = node.admin("GET", "/metrics", token=False).content.decode().splitlines()
    return sum(int(float(line.split(" ")[-1])) for line in lines if line.startswith("edgecache_stored_responses_total"))


class OriginProcess:
    """
    One origin in a process of its own (:mod:`tests.system.failing_origin`), so that it can be killed and stopped.

    :ivar log_path: a line per request: its target, and its Range.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.log_path = root / f"{name}.requests"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[str]:
        return self.log_path.read_text().splitlines() if self.log_path.exists() else []

    def start(self, character: str = "good") -> None:
        process = subprocess.Popen(
            [
                *_DIE_WITH_US,
                *(sys.executable, "-m", "tests.system.failing_origin", str(self.port), character, str(self.log_path)),
            ],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        # Its only line: from now on it accepts.
        if process.stdout.readline() != b"ready\n":
            raise AssertionError(f"the origin ended with {process.wait()}")
        process.stdout.close()
        self._process = process

    def kill(self) -> None:
        """As a power cut does it. Harmless when it is not there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It accepts, through its kernel, and never answers."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)


class FailingCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-failing-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.origins = [OriginProcess(self.root, name) for name in ("one", "two")]
        for origin in self.origins:
            self.addCleanup(origin.kill)

    def begin(self, *characters: str) -> Node:
        for origin, character in zip(self.origins, characters, strict=True):
            origin.start(character)
        configuration = self.root / "edgecache.toml"
        configuration.write_text(SETTINGS)
        node = Node(
            self.root / "node",
            *(origin.url for origin in self.origins),
            workers=2,
            arguments=("--config", str(configuration)),
        )
        self.addCleanup(node.end)
        return node.start()

    def store_pages(self, node: Node) -> None:
        for page in PAGES:
            self.assertEqual(200, node.ask(page).status)
        until(lambda: _stored(node) >= len(PAGES), "the pages in the store")

    def all_down(self) -> None:
        for origin in self.origins:
            origin.kill()

    def asked(self, target: str) -> list[str]:
        """Requests for ``target`` that any origin has seen."""
        return [line for origin in self.origins for line in origin.requests if line.split(" ")[0] == target]


class OutageTests(FailingCase):
    """Must-show 6: all down."""

    def require_stale(self, answer: Answer, cause: str) -> None:
        self.assertEqual((200, b"a page"), (answer.status, answer.content))
        # The origins made it a while ago (RFC 9111 §4.2.3).
        age = int(answer.fields["age"])
        self.assertGreaterEqual(age, 1000)
        self.assertIn(f"hit; ttl={1000 - age}", answer.cache_status)
        self.assertIn(f'detail="{cause}"', answer.cache_status)
        self.assertTrue(answer.fields["proxy-status"].endswith(f"; error={cause}"), answer.fields["proxy-status"])

    def require_refused(self, answer: Answer, cause: str) -> None:
        self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]))
        self.assertIn(f"; error={cause}", answer.fields["proxy-status"])
        self.assertIn("fwd=uri-miss", answer.cache_status)

    def test_killed_origins_leave_stale_answers_and_503_and_come_back_by_themselves(self) -> None:
        node = self.begin("good", "good")
        self.store_pages(node)
        self.all_down()
        # Kept-alive connections may end in more than one way; after them the cause is the same for all.
        for page in PAGES:
            node.ask(page)
        for page in PAGES:
            self.require_stale(node.ask(page), "connection_refused")
        for number in range(4):
            self.require_refused(node.ask(f"/unknown/{number}"), "connection_refused")
        for origin in self.origins:
            origin.start()
        for page in (*PAGES, "/unknown/0"):
            until(lambda page=page: "proxy-status" not in node.ask(page).fields, f"{page} from an origin")
        self.assertNotIn("Traceback", node.log)

    def test_origins_that_stand_still_are_no_better_than_dead_ones(self) -> None:
        node = self.begin("good", "good")
        self.store_pages(node)
        for origin in self.origins:
            origin.freeze()
        clients = Together()
        for page in PAGES:
            clients.start(lambda page=page: self.require_stale(node.ask(page), "connection_read_timeout"))
        clients.start(lambda: self.require_refused(node.ask("/unknown"), "connection_read_timeout"))
        clients.join()

    def test_a_restarted_node_serves_stale_from_disk(self) -> None:
        node = self.begin("good", "good")
        self.store_pages(node)
        self.all_down()
        node.kill()
        node.start()
        for page in PAGES:
            self.require_stale(node.ask(page), "connection_refused")


class ErrorTests(FailingCase):
    def test_an_error_that_wants_to_be_stored_replaces_nothing(self) -> None:
        node = self.begin("good", "good")
        self.store_pages(node)
        for origin in self.origins:
            origin.kill()
            origin.start("broken")
        for page in PAGES * 2:
            answer = node.ask(page)
            self.assertEqual((200, b"a page"), (answer.status, answer.content))
            self.assertIn("received-status=503", answer.fields["proxy-status"])


class ContentTests(FailingCase):
    """Must-show 2, with a process that hangs in the middle of a content."""

    def test_a_stall_is_not_seen_by_any_client(self) -> None:
        node = self.begin("stalling", "good")
        clients, downloads = Together(), []
        for _ in range(4):
            download = Download(node.url, "/wheel", WHEEL)
            downloads.append(download)
            clients.start(download.read_all)
        clients.join()
        self.assertEqual([], [str(download) for download in downloads if not download.exact])
        resumed = [line for line in self.asked("/wheel") if line.endswith(" bytes=95904-")]
        stalled = [line for line in self.origins[0].requests if line.startswith("/wheel")]
        # Whose turn it was is chance; if it was the bad one's, one request brought the rest for all.
        self.assertEqual(len(stalled), len(resumed))
        self.assertLessEqual(len(stalled), 1)
