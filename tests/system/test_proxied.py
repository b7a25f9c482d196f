"""A node that reaches its origins by a proxy alone, as an operator without direct egress runs it."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.contents import Artifact
from tests.system.harness import Node
from tests.system.origins import Origin, Reply
from tests.upstream.proxy import Proxy

TARGET = "/packages/wheel.whl"
WHEEL = Artifact("wheel", 300_000)
BASIC = b"Basic bWU6aHVzaEA6Lw=="
USERINFO = "me:hush%40%3A%2F@"
SECRETS = ("hush", "bWU6aHVzaEA6Lw")


class ProxiedTests(SynchronousTestCase):
    """The origin's name means something to the proxy only."""

    def setUp(self) -> None:
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)
        self.origin.serve(TARGET, Reply(WHEEL, etag='"1"'))
        self.proxy = Proxy({b"origin.invalid:80": int(self.origin.url.rpartition(":")[2])}, wanted=BASIC)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        self.addCleanup(loop.close)
        self.addCleanup(thread.join)
        self.addCleanup(loop.call_soon_threadsafe, loop.stop)
        asyncio.run_coroutine_threadsafe(self.proxy.open(), loop).result(60)
        self.addCleanup(lambda: asyncio.run_coroutine_threadsafe(self.proxy.close(), loop).result(60))

    def start(self, userinfo: str) -> Node:
        """A node whose proxy is named in a file of its own, as secrets are."""
        root = Path(self.mktemp())
        root.mkdir()
        (root / "proxy").write_text(f"http://{userinfo}127.0.0.1:{self.proxy.port}\n")
        (root / "node.toml").write_text('[upstream]\nproxy = { file = "proxy" }\n')
        node = Node(root, "http://origin.invalid", arguments=("--config", str(root / "node.toml")))
        self.addCleanup(node.end)
        return node.start()

    def unseen(self, node: Node, *texts: object) -> None:
        shown = [node.admin("GET", path).content.decode() for path in ("/status", "/metrics")]
        for text in (node.log, *shown, *map(str, texts)):
            for secret in SECRETS:
                self.assertNotIn(secret, text)
        self.assertIn(f"127.0.0.1:{self.proxy.port}", shown[0])

    def test_what_clients_get_comes_by_it_and_its_credentials_are_nowhere(self) -> None:
        node = self.start(USERINFO)
        for _ in range(2):
            answer = node.ask(TARGET)
            self.assertEqual((200, WHEEL.whole()), (answer.status, answer.content), node.log[-3000:])
        self.assertEqual(1, self.origin.count(TARGET))
        self.assertTrue(all(head.startswith(b"CONNECT origin.invalid:80 ") for head in self.proxy.heads))
        self.unseen(node, answer.fields)
        self.assertNotIn("hush", str(self.origin.seen))
        node.stop()

    def test_wrong_credentials_are_an_outage_that_shows_none(self) -> None:
        node = self.start("me:hushhush@")
        answer = node.ask(TARGET)
        self.assertEqual(503, answer.status, node.log[-3000:])
        self.assertEqual(0, self.origin.count(TARGET))
        self.unseen(node, answer.fields, answer.content)
        node.stop()
