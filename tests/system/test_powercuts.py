"""
Power cuts: images of a real node's data directory at drawn moments, as a disk may leave it, opened as a start does.

``EDGECACHE_POWERCUTS`` says how many images (default 16; with more than 100 the node works longer, and is killed and
started once in between), ``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store.popularity import NAME
from tests.quickdisk import quick_directory
from tests.system import recording
from tests.system.clients import Answer
from tests.system.contents import Artifact
from tests.system.harness import Node, environment
from tests.system.index_nodes import site
from tests.system.origins import Origin, Reply, Seen
from tests.system.packages import wheel
from tests.system.powercuts import Disk
from tests.system.recording import Call
from tests.system.reopening import NODE, SETTINGS
from tests.system.serial_index import SerialIndex

IMAGES = int(os.environ.get("EDGECACHE_POWERCUTS", "16"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))
LONG = IMAGES > 100
ROUNDS = 12 if LONG else 3

SIZES = (300, 9_000, 40_000, 65_512, 90_000, 300_000)
# Contents a round that nobody asks for again: records' room is full after two, and each has others evicted.
FILLING = 24

# What is written to as memory, so that there is no call of it.
MAPPED = (NAME, "run/page", *(f"{name}/lock.mdb" for name in ("control", "small", "blobs", "downloads/counts")))

_STORE = f"[store]\nsmall_share = {SETTINGS.small_share}\n"


@define(eq=False)
class Facts:
    """
    What clients and operators were told, and when: each is true from then on.

    :ivar ready: when the first life was.
    """

    ready: float = math.inf
    purges: list[tuple[float, str, int, dict[str, int]]] = field(factory=list)
    serials: list[tuple[float, str, int]] = field(factory=list)

    def due(self, at: float, downloads: tuple[int, int]) -> dict[str, Any]:
        """:return: what :class:`tests.system.reopening.Look` compares with."""
        versions: dict[str, int] = {}
        serials: dict[str, int] = {}
        purges = [purge for purge in self.purges if purge[0] <= at]
        for _, _, _, superseded in purges:
            versions.update(superseded)
        for when, project, serial in self.serials:
            if when <= at:
                serials[project] = max(serial, serials.get(project, 0))
        known = {purge_id: sequence for _, purge_id, sequence, _ in purges}
        return {
            "ready": at > self.ready,
            "purges": known,
            "versions": versions,
            "serials": serials,
            "downloads": downloads,
        }


class Work:
    """A node that is recorded, its origins, and what is done with it."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.facts = Facts()
        self.calls: list[Call] = []
        # At which a cut can leave something else than before.
        self.moments: list[float] = []
        self._chance = chance
        self._versions: dict[str, int] = {}
        self._origin = Origin(self._reply).start()
        self._index = SerialIndex().start()
        self._logs = [root / f"{life}.strace" for life in (("first", "second") if LONG else ("only",))]
        file = root / "edgecache.toml"
        sites = [site("", self._index.url), site("/plain", self._origin.url, profile="plain")]
        file.write_text("\n".join([_STORE, *sites]))
        arguments = ("--config", str(file), "--node", NODE)
        self.node = Node(root, profile="index", size="64MiB", arguments=arguments)
        self._mapped = recording.Mapped(self.node.data, MAPPED)

    def close(self) -> None:
        self.node.end()
        self._origin.stop()
        self._index.stop()

    def run(self) -> None:
        """Everything that writes; the long form again after a start that found what was there."""
        for log in self._logs:
            self.node.prefix = recording.prefix(log)
            self.node.start()
            self.facts.ready = min(self.facts.ready, time.time())
            for _ in range(ROUNDS):
                self._round()
                self.calls += self._mapped.look()
            self.node.kill(self._chance)
        for log in self._logs:
            recorded = recording.calls(log, self.node.data)
            self.moments += [call.ended for call in recorded]
            self.calls += recorded
            log.unlink()
        self.calls.sort(key=lambda call: call.ended)

    def _round(self) -> None:
        known = sorted(self._versions)
        for _ in range(6):
            target = f"/{self._chance.choice(SIZES)}/{self._chance.randrange(4)}"
            self._right(target, self.node.ask(f"/plain{target}"))
        for _ in range(FILLING):
            target = f"/{SIZES[2]}/new-{len(self._versions)}"
            self._right(target, self.node.ask(f"/plain{target}"))
        project = self._chance.choice(("alpha", "beta"))
        serial = self._index.upload(wheel(project, f"{len(self.facts.purges)}.0", padding=30_000))
        superseded = {}
        for target in self._chance.sample(known, min(2, len(known))):
            self._versions[target] += 1
            superseded[target] = self._versions[target]
        purge_id = f"purge-{len(self.facts.purges)}"
        answer = self.node.purge(
            id=purge_id,
            urls=[f"/plain{target}" for target in superseded],
            tags=[f"project/{project}"],
            serials={project: serial},
        )
        told = json.loads(answer.content)
        self.facts.purges.append((time.time(), purge_id, told["log"]["sequence"], superseded))
        for _ in range(2):
            page = self.node.ask(f"/simple/{project}/", fields={"Accept": "application/vnd.pypi.simple.v1+json"})
        if page.hit:
            self.facts.serials.append((time.time(), project, int(page.fields["x-pypi-last-serial"])))
        url = urljoin(f"/simple/{project}/", json.loads(page.content)["files"][-1]["url"])
        if self.node.ask(url).status != 200:
            raise AssertionError(f"{url} was not given")

    def _right(self, target: str, answer: Answer) -> None:
        content = Artifact(f"{target}#{self._versions[target]}", int(target.split("/")[1]))
        if answer.content != b"".join(content.read(at, 1 << 18) for at in range(0, content.size, 1 << 18)):
            raise AssertionError(f"{target}: {answer}")

    def _reply(self, seen: Seen) -> Reply | None:
        version = self._versions.setdefault(seen.target, 1)
        name = f"{seen.target}#{version}"
        return Reply(Artifact(name, int(seen.target.split("/")[1])), etag=f'"{name}"')


class Reopener:
    """The program that looks at images."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.reopening"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        )

    def look(self, image: Path, due: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(image), due]) + "\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(120)
        self._process.stdout.close()


class PowerCutTests(SynchronousTestCase):
    """DESIGN 7, 9: after any cut nothing acknowledged is lost, and nothing is there that was not written."""

    work: Work

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls._directory = tempfile.mkdtemp(prefix="edgecache-cut-")
        cls.work = Work(Path(cls._directory), random.Random(SEED))
        try:
            cls.work.run()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls) -> None:
        cls.work.close()
        shutil.rmtree(cls._directory)
        super().tearDownClass()

    def setUp(self) -> None:
        self.room = Path(quick_directory(self))
        self.reopener = Reopener()
        self.addCleanup(self.reopener.close)
        events = [call for call in self.work.calls if ".events" in call.path]
        self._events = [(call.ended, call.path, _downloads(call.data)) for call in events if call.name == "write"]
        self._synced = [call for call in events if call.name == "sync"]
        self.assertTrue(self._synced or not LONG)

    def images(self, disk: Disk, count: int) -> list[tuple[int, dict[str, Any]]]:
        """:return: of each image its number and what was found in it, the counts of all added up."""
        calls = self.work.calls
        chance = random.Random(SEED)
        # Half of them right after something was acknowledged, which is when most can be lost.
        told = [when for when, *_ in self.work.facts.purges]
        near = [chance.choice(told) for _ in range(count // 2)]
        moments = sorted([*near, *(chance.choice(self.work.moments) for _ in range(count - len(near)))])
        found = []
        done = 0
        for number, now in enumerate(moments):
            while done < len(calls) and calls[done].ended <= now:
                disk.apply(calls[done])
                done += 1
            image = self.room / f"image-{number}"
            disk.cut(self.work.node.data, image, random.Random(SEED + number))
            due = self.work.facts.due(now, self._counted(now))
            found.append((number, self.reopener.look(image, due)))
            shutil.rmtree(image, ignore_errors=True)
        return found

    def _counted(self, now: float) -> tuple[int, int]:
        """:return: downloads that are on the disk, and those that may be."""
        synced: dict[str, float] = {}
        for call in self._synced:
            if call.ended <= now:
                synced[call.path] = max(call.began, synced.get(call.path, 0.0))
        return (
            sum(count for when, path, count in self._events if when <= synced.get(path, 0.0)),
            sum(count for when, _, count in self._events if when <= now),
        )

    def test_whatever_of_the_unsynced_pages_and_names_is_left_nothing_acknowledged_is_lost(self) -> None:
        found = self.images(Disk(), IMAGES)
        wrong = [f"image {number}: {what}" for number, each in found for what in each["wrong"]]
        self.assertEqual([], wrong[:5], f"EDGECACHE_SEED={SEED}, {len(wrong)} in {IMAGES} images")
        seen: dict[str, int] = {}
        for _, each in found:
            for name, count in each["counts"].items():
                seen[name] = seen.get(name, 0) + count
        if LONG:
            # What is recorded in docs/TESTING.md.
            sys.stdout.write(f"\nEDGECACHE_SEED={SEED}: {IMAGES} images after {len(self.work.calls)} calls: {seen}\n")
        for name in (
            "records",
            "chunks",
            "superseded",
            "downloads",
            "pages",
            *(("counters", "remembered") if LONG else ()),
        ):
            self.assertTrue(seen.get(name), f"nothing was shown of {name}")

    def test_a_disk_that_does_not_sync_is_found_out(self) -> None:
        """These tests can fail: without the syncs of one file, images of it are not what they must be."""
        for name in ("blobs", "small", "control") if LONG else ("blobs",):
            found = self.images(Disk(lying=f"{name}/data.mdb"), 40 if LONG else 8)
            self.assertTrue(any(each["wrong"] for _, each in found), name)


def _downloads(events: bytes) -> int:
    """:return: how many files were got, by the lines of one write."""
    return sum(line[:1].isdigit() for line in events.split(b"\n"))
