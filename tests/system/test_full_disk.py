"""A disk that is full: hits go on, misses are passed on, a purge is refused honestly; with room, all is as before."""

from __future__ import annotations

from typing import Any

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer
from tests.system.contents import Artifact
from tests.system.harness import Node
from tests.system.origins import Origin, Reply
from tests.system.processes import until
from tests.system.starving import SmallDisk
from tests.system.traffic import check, reply_to

SIZES = (700, 65_536, 200_000, 4_300_000)


FILE = "/packages/tiny-1.0-py3-none-any.whl"


class DownloadsTests(SynchronousTestCase):
    """What cannot be noted is lost, and said to be; what was is counted once, whatever happens before."""

    def setUp(self) -> None:
        self.disk = SmallDisk(64)
        self.addCleanup(self.disk.end)
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)
        self.origin.serve(FILE, Reply(Artifact(FILE, 4000), etag='"1"'))
        self.node = Node(self.disk.path, self.origin.url, profile="index", size="64MiB", workers=0)
        self.addCleanup(self.node.end)
        self.node.start()
        self.got = 0

    def download(self, count: int) -> None:
        """So many times, by an installer that nobody has seen before, which takes room to count."""
        for _ in range(count):
            self.got += 1
            agent = f"pip/{self.got}.0 " + f"{self.got}" * 200
            answer = self.node.ask(FILE, fields={"User-Agent": agent})
            self.assertEqual((200, 4000), (answer.status, len(answer.content)))

    def told(self) -> dict[str, Any]:
        """Of what has finished in earlier turns of its loop, of which there was one since."""
        self.assertEqual(200, self.node.admin("GET", "/readyz").status)
        document: dict[str, Any] = orjson.loads(self.node.admin("GET", "/downloads?by=installer_version").content)
        return document

    def counted(self) -> int:
        rows = self.told()["rows"]
        # Each has its own: none was counted twice.
        self.assertEqual([1] * len(rows), [row["downloads"] for row in rows])
        return len(rows)

    def test_through_a_full_disk_and_a_kill_each_is_counted_once_or_known_to_be_lost(self) -> None:
        self.download(10)
        until(lambda: self.counted() == 10, "ten")
        self.disk.fill()
        for _ in range(6):
            self.download(5)
            self.disk.fill()
        lost = self.told()["lost"]
        self.node.kill()
        self.disk.make_room()
        self.node.start()
        self.download(10)
        until(lambda: not self.told()["behind"], "all counts")
        self.assertEqual(self.got - lost, self.counted())
        self.assertGreater(lost, 0)
        self.assertNotIn("Traceback", self.node.log)


class FullDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SmallDisk(160)
        self.addCleanup(self.disk.end)
        self.origin = Origin(reply_to).start()
        self.addCleanup(self.origin.stop)
        self.node = Node(self.disk.path, self.origin.url, size="64MiB")
        self.addCleanup(self.node.end)
        self.node.start()

    def ask(self, target: str) -> Answer:
        """:return: its answer, which is whole and right."""
        answer = self.node.ask(target)
        self.assertTrue(check(target, answer), f"{answer}\n{self.node.log[-2000:]}")
        return answer

    def purge(self, purge_id: str, *targets: str, **document: Any) -> Answer:
        urls = [self.node.url + target for target in targets]
        document |= {"urls": urls, "id": purge_id}
        return self.node.admin("POST", "/purge?wait=complete&timeout=60", document)

    def stored(self, target: str) -> None:
        until(lambda: self.ask(target).hit, f"{target} in the store")

    def test_it_is_served_purged_honestly_and_stored_again_with_room_and_nothing_is_restarted(self) -> None:
        node, family = self.node, self.node.family()
        known = [f"/packages/{size}/known.whl" for size in SIZES]
        for target in known:
            self.stored(target)
        self.disk.fill()
        refused, accepted = [], []
        for number in range(4):
            for size in SIZES:
                self.ask(f"/packages/{size}/new-{number}.whl")
                self.disk.fill()
            purge_id, target = f"purge-{number}", f"/packages/700/purged-{number}.whl"
            answer = self.purge(purge_id, target)
            self.disk.fill()
            self.assertIn(answer.status, (200, 503))
            (accepted if answer.status == 200 else refused).append(purge_id)
        self.assertEqual([True] * len(known), [self.ask(target).hit for target in known])
        self.assertTrue(refused, "the disk was never full for control")
        for purge_id in refused:
            self.assertEqual(404, node.admin("GET", f"/purge/{purge_id}").status, "what is refused is not done")
        self.assertEqual(200, node.admin("GET", "/readyz").status)

        # The origin has taken it: its answer is the client's, and what was stored before is not fresh any more.
        self.assertEqual(200, node.ask(known[0], method="POST").status)
        self.disk.fill()
        self.assertFalse(self.ask(known[0]).hit)
        self.assertFalse(self.ask(known[0]).hit)
        self.assertEqual(family, node.family())

        # Nor is it after a kill: what is owed had its room before, and what a start writes has that of the life before.
        node.kill()
        self.disk.fill()
        node.start()
        family = node.family()
        self.assertEqual([False] * len(known), [self.ask(target).hit for target in known], "all is validated")

        self.disk.make_room()
        self.stored(known[0])
        for target in known:
            self.assertEqual(200, self.purge(f"again-{target}", target).status)
            self.origin.forget()
            self.assertFalse(self.ask(target).hit)
            self.assertEqual(1, self.origin.count(target))
        self.stored("/packages/4300000/after.whl")
        self.assertEqual(family, node.family())
        self.assertNotIn("Traceback", node.log)

        node.kill()
        node.start()
        for purge_id in [*accepted, *(f"again-{target}" for target in known)]:
            found = node.admin("GET", f"/purge/{purge_id}")
            self.assertEqual((200, purge_id), (found.status, orjson.loads(found.content).get("id")))
