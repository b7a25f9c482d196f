"""A disk that fails for good, or takes nothing more: what is in memory is served, and nothing is promised or lost."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import ask
from tests.system.harness import Node
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.starving import LosableDisk
from tests.system.traffic import check, lost, reply_to

SMALL, LARGE = "/packages/700/known.whl", "/packages/200000/known.whl"


class LostDiskTests(SynchronousTestCase):
    def test_it_serves_on_refuses_purges_and_has_kept_every_acknowledged_one(self) -> None:
        self.fails(LosableDisk.lose)

    def test_likewise_where_the_disk_is_read_only_from_one_moment_to_the_next(self) -> None:
        self.fails(LosableDisk.turn_read_only)

    def fails(self, how: Callable[[LosableDisk], None]) -> None:
        disk = LosableDisk(300)
        self.addCleanup(disk.end)
        origin = Origin(reply_to).start()
        self.addCleanup(origin.stop)
        node = Node(disk.path / "node", origin.url, size="100MiB")
        self.addCleanup(node.end)
        node.start()
        for target in (SMALL, LARGE):
            until(lambda target=target: node.ask(target).hit, target)  # type: ignore[misc]
        node.purge(urls=[node.url + "/x"], id="kept")
        fields = {"Authorization": f"Bearer {node.token}", "Content-Type": "application/json"}
        content = orjson.dumps({"urls": [node.url + "/x"], "id": "refused"})
        how(disk)
        for target in (SMALL, LARGE, "/packages/700/new.whl", "/packages/4300000/new.whl"):
            answer = node.ask(target)
            self.assertTrue(check(target, answer))
            self.assertEqual(target in (SMALL, LARGE), answer.hit)
        refused = ask(node.admin_url, "/purge", method="POST", fields=fields, content=content)
        self.assertEqual(503, refused.status, refused.content)
        self.assertEqual(200, node.admin("GET", "/readyz", token=False).status)
        node.kill()

        disk.find_again()
        node.start()
        self.assertEqual(200, node.admin("GET", "/purge/kept").status)
        self.assertEqual(404, node.admin("GET", "/purge/refused").status)
        self.assertEqual([], lost(node.url, {SMALL}))
        # The last commits of blobs may be taken back (decision 300): then it is asked for again.
        answer = node.ask(LARGE)
        self.assertTrue(check(LARGE, answer), f"{answer}\n{node.log[-3000:]}")
        self.assertEqual(200, node.purge(urls=[node.url + "/x"], id="refused").status)
