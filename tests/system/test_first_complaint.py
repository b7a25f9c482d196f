"""
The story of the first complaint: a release is purged everywhere, and somebody still gets the one before it.

``EDGECACHE_INSTALLS=100`` is the full size.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Together
from tests.system.fleet import Fleet
from tests.system.installing import OLD_PIP, PIP, UV, Installer, missing
from tests.system.packages import wheel
from tests.system.serial_index import SerialIndex

INSTALLS = int(os.environ.get("EDGECACHE_INSTALLS", "6"))
CLIENTS = 2

BEFORE = wheel("x", "2.0.0")
RELEASE = wheel("x", "2.0.1")


class FirstComplaintTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-complaint-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.index = SerialIndex(file_host="127.0.0.2").start()
        self.addCleanup(self.index.stop)
        self.index.upload(BEFORE)
        # Pages that nobody purges live for a day: what is stale here is stale for everybody.
        self.fleet = Fleet(self.root / "fleet", 2, self.index.url, site="purged = true", profile="index")
        self.addCleanup(self.fleet.end)
        self.fleet.start()

    def test_after_a_complete_purge_every_install_from_every_node_gets_the_release(self) -> None:
        nodes = list(self.fleet.nodes.values())
        indexes = [f"{node.url}/simple/" for node in nodes]
        for number, index in enumerate(indexes):
            ran, target = PIP.install(self.root / f"before-{number}", index, "x>=2.0")
            self.assertEqual([], missing(target, [BEFORE]), ran.stderr)
        serial = self.index.upload(RELEASE)
        answer = nodes[0].admin("POST", "/purge?wait=complete&timeout=60", {"serials": {"x": serial}})
        self.assertEqual(200, answer.status, answer)
        wrong: list[str] = []
        installers: tuple[Installer, ...] = (PIP, OLD_PIP, UV)

        def install(first: int) -> None:
            for number in range(first, INSTALLS, CLIENTS):
                installer = installers[number % len(installers)]
                ran, target = installer.install(
                    self.root / f"after-{number}", indexes[number // len(installers) % 2], "x>=2.0"
                )
                if ran.returncode or missing(target, [RELEASE]):
                    wrong.append(f"{installer.name}: {ran.stdout[-500:]}{ran.stderr[-1000:]}")

        clients = Together()
        for first in range(CLIENTS):
            clients.start(install, first)
        clients.join(600.0)
        self.assertEqual([], wrong, "\n".join(node.log[-2000:] for node in nodes))
