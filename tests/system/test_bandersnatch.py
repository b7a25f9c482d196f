"""
bandersnatch mirrors an index through the node while packages are uploaded (must show 2 of the Python index).

``EDGECACHE_UPLOADS=200`` is the full size.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Together, ask
from tests.system.harness import Node
from tests.system.index_nodes import index_node, site
from tests.system.packages import wheel
from tests.system.processes import until
from tests.system.serial_index import JSON, SerialIndex
from tests.system.tools import BANDERSNATCH, Client, tool

UPLOADS = int(os.environ.get("EDGECACHE_UPLOADS", "16"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))
# A mirror's run takes longer than many an upload: of so many, each has some under it.
RUNS = max(3, UPLOADS // 20)
PROJECTS = 12
FOLLOW_SECONDS, FETCH_SECONDS = 1.0, 1.0

_SETTINGS = """[mirror]
directory = {directory}
master = {master}
json = true
timeout = 30
workers = 3
verifiers = 3
hash-index = false
stop-on-error = false
storage-backend = filesystem
compare-method = hash
api-method = simple
allow-non-https = true
simple-format = ALL
"""


class BandersnatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-mirror-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.commands = tool(BANDERSNATCH)
        self.index = SerialIndex(file_host="127.0.0.2")
        self.random = random.Random(SEED)
        self.versions = dict.fromkeys((f"Project_{number}" for number in range(PROJECTS)), 0)
        for name in self.versions:
            self.upload(name)
        self.index.start()
        self.addCleanup(self.index.stop)
        self.mirror = self.root / "mirror"
        self.runs = 0

    def start(self, table: str) -> Node:
        node = index_node(self.root / "node", table, workers=2)
        self.addCleanup(node.end)
        node.start()
        self.client = Client(self.root / "home")
        settings = _SETTINGS.format(directory=self.mirror, master=node.url)
        (self.client.home / "bandersnatch.conf").write_text(settings)
        return node

    def upload(self, name: str) -> int:
        """The next version of a project."""
        self.versions[name] += 1
        return self.index.upload(wheel(name, f"1.{self.versions[name]}"))

    def run_mirror(self) -> str:
        """
        :return: what it said.
        """
        self.runs += 1
        ran = self.client.run(self.commands / "bandersnatch", "-c", "bandersnatch.conf", "mirror")
        said = ran.stdout + ran.stderr
        self.assertEqual(0, ran.returncode, f"EDGECACHE_SEED={SEED}\n{said[-4000:]}")
        return said

    @property
    def serial(self) -> int:
        """Up to which the mirror says that it has everything."""
        return int((self.mirror / "status").read_text())

    def differences(self) -> list[str]:
        """What of the mirror is not as the index is now."""
        wrong = []
        for name, serial in self.index.serials().items():
            page = orjson.loads((self.mirror / "web" / "simple" / name / "index.v1_json").read_bytes())
            shown = {file["filename"] for file in page["files"]}
            if int(page["meta"]["_last-serial"]) != serial or shown != self.index.filenames(name):
                wrong.append(f"{name}: {page['meta']}, not {serial}; {sorted(shown)}")
            for file in page["files"]:
                path = self.mirror / "web" / "simple" / name / file["url"]
                if not path.resolve().exists():
                    wrong.append(f"{name}: no {file['url']}")
        return wrong

    def test_no_stale_page_and_no_serial_that_is_stuck_while_packages_are_uploaded_and_purged(self) -> None:
        node = self.start(site("", self.index.url, purged=True, page_seconds=1.0, recently_validated_seconds=0.0))
        self.run_mirror()
        self.assertEqual([], self.differences())
        over = threading.Event()
        done = 0

        def publish() -> None:
            nonlocal done
            try:
                while done < UPLOADS or self.runs < RUNS:
                    name = self.random.choice(list(self.versions))
                    serial = self.upload(name)
                    node.purge(serials={name: serial})
                    # From here on nobody gets anything older.
                    target = f"/pypi/{name.lower().replace('_', '-')}/json"
                    shown = int(node.ask(target).fields["x-pypi-last-serial"])
                    if shown < serial:
                        raise AssertionError(f"{target}: {shown} after {serial} was purged")
                    done += 1
            finally:
                over.set()

        publisher = Together()
        publisher.start(publish)
        said = ""
        serials = [self.serial]
        while not over.is_set():
            said += self.run_mirror()
            serials.append(self.serial)
        publisher.join()
        self.assertGreaterEqual(done, UPLOADS)
        # The list of the last run may have been one of a second ago; the next has all.
        until(lambda: self._listed(node) == self.index.serials(), "the list is as the index is")
        said += self.run_mirror()
        self.assertEqual([], self.differences(), f"EDGECACHE_SEED={SEED}")
        self.assertEqual(max(self.index.serials().values()), self.serial)
        self.assertEqual(sorted(serials), serials)
        # Between an upload and its purge the list may be newer than a page: that is what its second try is for.
        self.assertNotIn("Giving up", said)

    def _listed(self, node: Node) -> dict[str, int]:
        listed = orjson.loads(ask(f"{node.url}/simple/", fields={"Accept": JSON}).content)["projects"]
        return {one["name"].lower().replace("_", "-"): one["_last-serial"] for one in listed}

    def followed(self) -> Node:
        """A node before an index that pushes no purges: without the follower it would validate each page each time."""
        short = {"page_seconds": 0.0, "recently_validated_seconds": 0.0}
        follow = {"follow_seconds": FOLLOW_SECONDS, "follow_fetch_seconds": FETCH_SECONDS}
        node = self.start(site("", self.index.url, **short, **follow))
        until(lambda: self._follower(node)["state"] == "following", "a list that is followed")
        return node

    def _follower(self, node: Node) -> dict[str, Any]:
        (found,) = orjson.loads(node.admin("GET", "/status").content)["followers"]
        return dict(found)

    def test_without_the_purges_the_mirror_goes_on(self) -> None:
        self.followed()
        self.run_mirror()
        self.assertEqual([], self.differences())
        for _ in range(max(2, UPLOADS // 8)):
            for name in self.random.sample(list(self.versions), 3):
                self.upload(name)
            said = self.run_mirror()
            self.assertNotIn("Giving up", said)
            self.assertEqual(max(self.index.serials().values()), self.serial)
            self.assertEqual([], self.differences(), f"EDGECACHE_SEED={SEED}")

    def test_without_the_purges_no_page_is_older_than_was_promised(self) -> None:
        """Nobody asks for the list here: the follower looks at it by itself."""
        node = self.followed()
        for _ in range(max(2, UPLOADS // 8)):
            name = self.random.choice(list(self.versions))
            target = f"/simple/{name.lower().replace('_', '-')}/"
            # From then on it is covered, and not asked for at the origin each time.
            until(lambda target=target: node.ask(target).hit, f"{target} from the store")
            serial = self.upload(name)
            until(
                lambda target=target, serial=serial: int(node.ask(target).fields["x-pypi-last-serial"]) >= serial,
                f"{target} with serial {serial}, EDGECACHE_SEED={SEED}",
            )
