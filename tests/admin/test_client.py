"""The operator's commands against a real admin listener on loopback."""

from __future__ import annotations

import os
from typing import Any

import orjson
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from edgecache.admin.address import AdminAddress, AdminFailed, find_token
from edgecache.admin.client import call
from edgecache.admin.parts import UpstreamState
from edgecache.admin.purgeclient import purge, purge_state
from edgecache.admin.site import admin_site
from edgecache.admin.statusclient import status
from edgecache.store.page import Page
from edgecache.words.latency import MISSES
from tests.admin.harness import AdminCase


class ClientTests(TestCase, AdminCase):
    def setUp(self) -> None:
        AdminCase.setUp(self)
        port = reactor.listenTCP(0, admin_site(self.parts, reactor), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.where = AdminAddress(f"http://127.0.0.1:{port.getHost().port}", self.token)
        self.lines: list[str] = []

    async def failed(self, work: Any) -> str:
        try:
            await work
        except AdminFailed as failure:
            return str(failure)
        self.fail("it did not fail")

    async def test_a_purge_is_done_and_told_in_one_line(self) -> None:
        done = await purge(reactor, self.where, {"urls": ["/a"], "id": "x"}, self.lines.append, wait="complete")
        self.assertEqual(0, done)
        self.assertEqual(["purge x: complete (revalidate, 2 selectors)"], self.lines)
        self.assertEqual(2, self.page.epoch)

    async def test_its_state_is_shown_as_json(self) -> None:
        await purge(reactor, self.where, {"all": True, "id": "a/ü?"}, self.lines.append, as_json=True)
        await purge_state(reactor, self.where, "a/ü?", self.lines.append)
        self.assertEqual(orjson.loads(self.lines[0]), orjson.loads(self.lines[1]))

    async def test_what_the_node_refuses_is_told(self) -> None:
        refused = await self.failed(purge(reactor, self.where, {"urls": ["nowhere"]}, self.lines.append))
        self.assertIn("nowhere", refused)
        self.assertIn("400", refused)
        stranger = AdminAddress(self.where.url, "wrong")
        self.assertIn("token-unknown (401)", await self.failed(status(reactor, [stranger], self.lines.append)))
        self.assertIn("404", await self.failed(purge_state(reactor, self.where, "never", self.lines.append)))
        self.assertEqual([], self.lines)

    async def test_status_is_told_for_people_and_as_json(self) -> None:
        self.assertEqual(0, await status(reactor, [self.where], self.lines.append))
        text = "\n".join(self.lines)
        for said in (
            "node eu-1 in eu: ready",
            "worker 0: pid 101",
            "worker 1: not running",
            "small: ",
            "192.0.2.1:80: down, ejected for 1 min 5 s (no-head), probed in 0 min 8 s",
        ):
            self.assertIn(said, text)
        self.lines.clear()
        await status(reactor, [self.where], self.lines.append, as_json=True)
        self.assertEqual("eu-1", orjson.loads(self.lines[0])["node"]["id"])

    async def test_the_last_address_of_an_origin_that_fails_is_not_one_that_is_up(self) -> None:
        detail = "no-head; there is no other"
        self.upstreams = [UpstreamState("http://o.example", "192.0.2.1:80", True, detail, state="failing")]
        await status(reactor, [self.where], self.lines.append)
        self.assertIn(f"  http://o.example at 192.0.2.1:80: failing ({detail})", self.lines)
        self.lines.clear()
        await status(reactor, [self.where, self.where], self.lines.append)
        column = self.lines[0].index("UPSTREAMS")
        self.assertEqual("0/1", self.lines[1][column:].split()[0])

    async def test_what_took_longer_than_the_last_bucket_is_not_said_to_be_within_it(self) -> None:
        self.parts.history.start()
        self.parts.history.stop()
        worker = Page.open(self.page.path, 0)
        self.addCleanup(worker.close)
        for seconds in (0.7, 0.7, 30.0):
            MISSES.count(worker, seconds)
        await status(reactor, [self.where], self.lines.append)
        self.assertIn("  misses: half within 1000 ms, 99 % not within 10000 ms", self.lines)

    async def test_a_node_that_is_not_ready_is_exit_status_1(self) -> None:
        self.page.set_draining(True)
        self.assertEqual(1, await status(reactor, [self.where], self.lines.append))
        self.assertIn("not ready: The node is going down.", self.lines[0])

    async def test_nobody_there_and_somebody_else_there_are_told_apart(self) -> None:
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        self.assertIn("no answer", await self.failed(call(reactor, AdminAddress(url, "t"), "GET", "/status")))
        self.assertIn("not JSON", await self.failed(call(reactor, self.where, "GET", "/metrics")))
        self.assertTrue(await self.failed(call(reactor, AdminAddress("ftp://x", "t"), "GET", "/status")))
        self.assertTrue(await self.failed(call(reactor, AdminAddress("nonsense", "t"), "GET", "/status")))

    async def test_many_purges_at_once_are_all_done(self) -> None:
        """On kept-alive or new connections alike, and each with an epoch of its own."""
        answers = [await call(reactor, self.where, "POST", "/purge", {"urls": [f"/{n}"]}) for n in range(10)]
        self.assertEqual(list(range(2, 21, 2)), [answer["epoch"] for _, answer in answers])


class FindTokenTests(AdminCase):
    def test_the_environment_comes_first_then_the_file(self) -> None:
        self.assertEqual(self.token, find_token(self.data, {}))
        self.assertEqual("other", find_token(self.data, {"EDGECACHE_TOKEN": "other\n"}))
        self.assertEqual(self.token, find_token(self.data, {"EDGECACHE_TOKEN": ""}))

    def test_without_either_the_operator_is_told_where_it_was_looked_for(self) -> None:
        missing = os.path.join(self.data, "elsewhere")
        error = self.assertRaises(AdminFailed, find_token, missing, {})
        self.assertIn(os.path.join(missing, "admin.token"), str(error))

    def test_a_token_is_in_no_repr(self) -> None:
        self.assertNotIn("secret", repr(AdminAddress("http://x", "secret")))
