"""
Power cuts of a node among siblings: what it has told them that it has applied of their purges, it has (DESIGN 9).

As :mod:`tests.system.test_powercuts`, with control alone at work; ``EDGECACHE_POWERCUTS`` says how many images.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.quickdisk import quick_directory
from tests.system import recording
from tests.system.fleet import Fleet
from tests.system.powercuts import Disk
from tests.system.test_powercuts import IMAGES, LONG, SEED, Reopener

PURGES = 40 if LONG else 8


class SiblingsPowerCutTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp(prefix="edgecache-cut-siblings-")
        self.addCleanup(shutil.rmtree, directory)
        log = Path(directory) / "strace"
        recorded = recording.prefix(log)
        fleet = Fleet(
            Path(directory),
            2,
            "http://127.0.0.1:9",
            profile="plain",
            size="64MiB",
            of=lambda name: {"prefix": recorded} if name == "n1" else {},
        )
        self.addCleanup(fleet.end)
        fleet.start()
        # When it was told, by whom, which number of whose log; the node's own, and the sibling's.
        self.told: list[tuple[float, str, str, int]] = []
        chance = random.Random(SEED)
        for number in range(PURGES):
            # The sibling's first: each image has something of it to show.
            by = chance.choice(("n1", "n2", "n2")) if number else "n2"
            document = {"urls": [f"/{at}" for at in range(chance.choice((1, 3, 200)))], "id": f"purge-{number}"}
            answer = orjson.loads(fleet.nodes[by].admin("POST", "/purge?wait=complete&timeout=30", document).content)
            self.assertEqual("complete", answer["state"], answer)
            self.told.append((time.time(), document["id"], by, answer["log"]["sequence"]))
        fleet.nodes["n1"].kill(chance)
        self.root = fleet.nodes["n1"].data
        self.calls = recording.calls(log, self.root)

    def due(self, at: float) -> dict[str, Any]:
        told = [each for each in self.told if each[0] <= at]
        return {
            "node": "n1",
            "ready": bool(told),
            "purges": {purge_id: sequence for _, purge_id, by, sequence in told if by == "n1"},
            "copied": {purge_id: (by, sequence) for _, purge_id, by, sequence in told if by != "n1"},
            "versions": {},
            "serials": {},
            "downloads": (0, 0),
        }

    def wrong(self, disk: Disk, count: int) -> tuple[list[str], int]:
        """:return: what is not as it must be, and how many of the sibling's purges were looked at."""
        room = Path(quick_directory(self))
        reopener = Reopener()
        self.addCleanup(reopener.close)
        # Most of them right after an answer, which is when most can be lost.
        chance = random.Random(SEED)
        moments = sorted(chance.choice(self.told)[0] for _ in range(count))
        wrong, copied, done = [], 0, 0
        for number, moment in enumerate(moments):
            while done < len(self.calls) and self.calls[done].ended <= moment:
                disk.apply(self.calls[done])
                done += 1
            image = room / f"image-{number}"
            disk.cut(self.root, image, random.Random(SEED + number))
            found = reopener.look(image, self.due(moment))
            shutil.rmtree(image, ignore_errors=True)
            wrong += [f"image {number}: {what}" for what in found["wrong"]]
            copied += found["counts"].get("copied", 0)
        return wrong, copied

    def test_what_was_applied_of_others_purges_is_there_and_a_disk_that_does_not_sync_is_found_out(self) -> None:
        count = max(6, IMAGES // 2)
        wrong, copied = self.wrong(Disk(), count)
        self.assertEqual([], wrong[:5], f"EDGECACHE_SEED={SEED}, {len(wrong)} in {count} images")
        self.assertGreater(copied, 0, "nothing was shown")
        if LONG:
            sys.stdout.write(f"\nEDGECACHE_SEED={SEED}: {count} images, {copied} copied purges looked at\n")
        self.assertTrue(self.wrong(Disk(lying="control/data.mdb"), count)[0], f"EDGECACHE_SEED={SEED}")
