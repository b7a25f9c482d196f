"""The access log: one line per exchange, in either format."""

from __future__ import annotations

import json
import os

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.asking import ask
from edgecache.wire.access import AccessLog
from edgecache.words.config import Access, ClientSettings, Secret
from edgecache.words.credentials import digested
from edgecache.words.messages import Request
from tests.rules.build import request as rules_request
from tests.rules.build import sites

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncache-status: n; hit; ttl=9\r\n"
STARTED = 1_700_000_000.25


def request() -> Request:
    fields = [(b"host", b"edge.test"), (b"user-agent", b'pip/26.0 {"a":"b"}')]
    return Request(b"GET", b"/simple/a/", b"edge.test", fields)


class AccessLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.later: list[object] = []

    def log(self, combined: bool, path: str | None = None) -> AccessLog:
        log = AccessLog(path or self.path, combined, lambda: STARTED + 0.5, self.later.append)
        log.open()
        self.addCleanup(log.close)
        return log

    def turn(self) -> None:
        """The end of the loop's turn."""
        later, self.later = self.later, []
        for write in later:
            write()  # type: ignore[operator]

    def lines(self) -> list[str]:
        with open(self.path) as file:
            return file.read().splitlines()

    def test_the_client_of_a_private_site_is_named_and_what_it_sent_is_not(self) -> None:
        clients = (ClientSettings("ci", token=Secret(digested(b"hush"))),)
        asked = rules_request("Authorization: Bearer hush")
        asked.asked = ask(asked, sites(access=Access.TOKEN, clients=clients))
        for combined in (False, True):
            self.log(combined).done(asked, HEAD, 3, True, STARTED, b"192.0.2.7")
            self.turn()
        in_json, in_combined = self.lines()
        self.assertEqual("ci", json.loads(in_json)["user"])
        self.assertTrue(in_combined.startswith("192.0.2.7 - ci ["), in_combined)
        self.assertNotIn("hush", in_json + in_combined)

    def test_json(self) -> None:
        self.log(False).done(request(), HEAD, 3, True, STARTED, b"192.0.2.7")
        self.turn()
        expected = {
            "time": "2023-11-14T22:13:20.250Z",
            "client": "192.0.2.7",
            "status": 200,
            "bytes": 3,
            "complete": True,
            "seconds": 0.5,
            "method": "GET",
            "host": "edge.test",
            "target": "/simple/a/",
            "user_agent": 'pip/26.0 {"a":"b"}',
            "cache_status": "n; hit; ttl=9",
        }
        self.assertEqual([expected], [json.loads(line) for line in self.lines()])

    def test_of_several_caches_on_the_way_this_node_is_the_last(self) -> None:
        """RFC 9211 §2"""
        head = HEAD.replace(b"cache-status: ", b"cache-status: cdn; hit; ttl=1\r\ncache-status: ")
        self.log(False).done(request(), head, 3, True, STARTED, b"192.0.2.7")
        self.turn()
        self.assertEqual(["n; hit; ttl=9"], [json.loads(line)["cache_status"] for line in self.lines()])

    def test_combined(self) -> None:
        self.log(True).done(request(), HEAD, 3, True, STARTED, b"192.0.2.7")
        self.turn()
        expected = (
            "192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "
            r'"GET /simple/a/ HTTP/1.1" 200 3 "-" "pip/26.0 {\"a\":\"b\"}"'
        )
        self.assertEqual([expected], self.lines())

    def test_what_was_no_request_has_a_line_too(self) -> None:
        for combined in (False, True):
            self.log(combined).done(None, b"HTTP/1.1 400 Bad Request\r\n", 0, True, STARTED, b"192.0.2.7")
        self.turn()
        first, second = self.lines()
        self.assertEqual(400, json.loads(first)["status"])
        self.assertIn('"-" 400 0', second)

    def test_a_turn_of_the_loop_is_one_write(self) -> None:
        log = self.log(False)
        for _ in range(3):
            log.done(request(), HEAD, 3, True, STARTED, b"192.0.2.7")
        self.assertEqual(([], 1), (self.lines(), len(self.later)))
        self.turn()
        self.assertEqual(3, len(self.lines()))

    def test_after_a_rotation_it_is_opened_anew(self) -> None:
        log = self.log(False)
        log.done(request(), HEAD, 3, True, STARTED, b"192.0.2.7")
        os.rename(self.path, f"{self.path}.1")
        log.open()
        log.done(request(), HEAD, 3, True, STARTED, b"192.0.2.7")
        log.close()
        with open(f"{self.path}.1") as old:
            self.assertEqual((1, 1), (len(old.readlines()), len(self.lines())))

    def test_a_full_disk_loses_lines_and_says_so(self) -> None:
        """Serving goes on."""
        self.log(False, "/dev/full").done(request(), HEAD, 3, True, STARTED, b"192.0.2.7")
        self.turn()
        self.assertEqual([], self.later)

    def test_a_path_that_cannot_be_written_is_an_error_at_the_start(self) -> None:
        self.assertRaises(OSError, self.log, False, os.path.join(self.path, "missing", "access.log"))
