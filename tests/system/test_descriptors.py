"""A node that has run out of file descriptors serves who is connected, and all is well again once there are some."""

from __future__ import annotations

import http.client
import resource
from urllib.parse import urlsplit

from tests.system import processes
from tests.system.processes import until
from tests.system.starving import StarvingCase, limited, unlimited
from tests.system.traffic import artifact_of

DESCRIPTORS = resource.RLIMIT_NOFILE
# What is open stays open; no new number is below the limit.
NONE = 3


class DescriptorsTests(StarvingCase):
    def connected(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
        connection.connect()
        self.addCleanup(connection.close)
        return connection

    def got(self, connection: http.client.HTTPConnection, target: str) -> tuple[int, bytes]:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def waiting(self, url: str, target: str) -> http.client.HTTPConnection:
        """The kernel has taken the connection, and the request; nobody has accepted it yet."""
        connection = self.connected(url)
        connection.request("GET", target)
        return connection

    def test_who_is_connected_is_served_and_who_waits_is_once_there_are_descriptors_again(self) -> None:
        node, known, new = self.node, "/packages/8192/known.whl", "/packages/8192/new.whl"
        content = artifact_of(known).whole()
        kept = [self.connected(node.url) for _ in range(12)]
        self.assertEqual([(200, content)] * 12, [self.got(each, known) for each in kept])
        # Kept connections to it are closed: the next miss needs a new one.
        self.origin.stop()
        self.origin.start()
        lines = node.log.count("\n")
        with limited(node.family(), DESCRIPTORS, NONE):
            self.assertEqual([(200, content)] * 12, [self.got(each, known) for each in kept])
            self.assertIn(self.got(kept[0], new)[0], (502, 503, 504))
            late = [self.waiting(node.url, known) for _ in range(12)]
            operator = self.waiting(node.admin_url, "/healthz")
            until(lambda: node.log.count("accepting nothing") >= 2, "it is tried again")
            victim = node.worker_pids()[0]
            processes.kill_now([victim])
            until(lambda: "died (signal 9)" in node.log, "its death")
            self.assertEqual(200, self.got(self.survivor(kept, known), known)[0])
        unlimited(node.family(), DESCRIPTORS)
        self.assertEqual(200, operator.getresponse().status)
        until(lambda: len(node.worker_pids()) == 2 and victim not in node.worker_pids(), "its successor")
        unlimited(node.family(), DESCRIPTORS)
        answered = 0
        for each in late:
            try:
                self.assertEqual(content, each.getresponse().read())
                answered += 1
            except (http.client.HTTPException, OSError):
                # It was the dead worker's already.
                continue
        self.assertGreaterEqual(answered, 1)
        self.assertEqual(artifact_of(new).whole(), self.got(self.connected(node.url), new)[1])
        # A loop that does nothing else writes thousands.
        self.assertLess(node.log.count("\n") - lines, 300, node.log[-2000:])

    def survivor(self, kept: list[http.client.HTTPConnection], target: str) -> http.client.HTTPConnection:
        for each in kept:
            try:
                self.got(each, target)
                return each
            except (http.client.HTTPException, OSError):
                continue
        raise AssertionError("every connection was the dead worker's")
