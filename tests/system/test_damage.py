"""Pages that a disk damaged while the node runs: LMDB says so, or ends the process; the node comes back by itself."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.store.lmdbpages import BRANCH, LEAF, PAGE, Tree, alone
from tests.system.harness import Node
from tests.system.origins import Origin
from tests.system.processes import until
from tests.system.traffic import check, reply_to

# So many that the records' tree has a branch.
TARGETS = [f"/packages/700/{number}.whl" for number in range(20)] + ["/packages/200000/large.whl"]


class DamageTestCase(SynchronousTestCase):
    workers = 2

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-damage-")
        self.addCleanup(directory.cleanup)
        origin = Origin(reply_to).start()
        self.addCleanup(origin.stop)
        self.node = Node(Path(directory.name), origin.url, workers=self.workers)
        self.addCleanup(self.node.end)
        self.node.start()
        self.all_hit()

    def all_hit(self) -> None:
        """Everything is stored, and each answer so far was right."""
        until(self._hits, "hits")

    def _hits(self) -> bool:
        answers = [(target, self.node.ask(target)) for target in TARGETS]
        return len([target for target, answer in answers if check(target, answer) and answer.hit]) == len(TARGETS)

    def damage(self, name: str, database: str, kind: str, change: Callable[[bytes], bytes]) -> None:
        """Of every page of this kind, under whoever has it in use."""
        path = self.node.data / name / "data.mdb"
        with path.open("r+b") as file:
            for number in Tree.of(path).some(database, kind):
                file.seek(number * PAGE)
                page = file.read(PAGE)
                file.seek(number * PAGE)
                file.write(change(page))

    def ask_all(self) -> None:
        """Whatever happens to workers, what is answered is right."""
        for target in TARGETS:
            try:
                check(target, self.node.ask(target))
            except OSError:
                continue

    def aside(self) -> bool:
        return (self.node.data / "aside" / "small" / "data.mdb").exists()


class RunningTests(DamageTestCase):
    def test_a_worker_that_lmdb_ends_is_replaced_over_a_new_store(self) -> None:
        node_process = self.node.twistd_pid()
        self.damage("small", "records", BRANCH, alone)
        until(lambda: self.ask_all() or self.aside(), "the damaged store aside")
        self.all_hit()
        self.assertEqual(node_process, self.node.twistd_pid())
        self.assertIn("died in small", self.node.log)
        self.node.stop()
        self.node.start()
        self.assertTrue(self._hits(), "the new store stays")

    def test_what_lmdb_calls_damaged_is_replaced_and_no_process_dies(self) -> None:
        before = set(self.node.worker_pids())
        for name, database in (("blobs", "chunks"),):
            self.damage(name, database, LEAF, lambda page: bytes(PAGE))
        until(lambda: self.ask_all() or self.aside(), "the damaged store aside")
        until(lambda: not before & set(self.node.worker_pids()), "workers that use the new store")
        self.all_hit()
        self.assertNotIn(" died (", self.node.log)

    def test_a_node_process_that_lmdb_ends_starts_again_without_what_it_died_of(self) -> None:
        self.damage("small", "records", BRANCH, alone)
        with contextlib.suppress(OSError):
            # It may have died before it answers.
            self.node.admin("POST", "/verify", {})
        until(lambda: not os.path.exists(f"/proc/{self.node.leader}/exe"), "its end")
        self.node.end()
        self.node.start()
        self.assertTrue(self.aside())
        self.assertIn("died in small", self.node.log)
        self.all_hit()

    def test_a_start_takes_no_harm_from_noise_in_any_other_file(self) -> None:
        self.node.kill()
        data, noise = self.node.data, random.Random("noise")
        popularity = data / "popularity"
        # Its begin says that it is one.
        popularity.write_bytes(popularity.read_bytes()[:PAGE] + noise.randbytes(popularity.stat().st_size - PAGE))
        for name in ("run/page", "audit.log", "crash", "lock", "downloads/1.events", "small/lock.mdb"):
            (data / name).parent.mkdir(exist_ok=True)
            (data / name).write_bytes(noise.randbytes(70_000))
        (data / "admin.token").write_bytes(b"")
        self.node.start()
        self.assertTrue(self._hits())
        self.node.purge(all=True)
        self.assertNotIn("Traceback", self.node.log)


class InsideTests(DamageTestCase):
    """``--workers 0``: one process for all."""

    workers = 0

    def test_it_begins_anew_while_it_serves(self) -> None:
        self.damage("small", "records", LEAF, lambda page: bytes(PAGE))
        until(lambda: self.ask_all() or self.aside(), "the damaged store aside")
        self.all_hit()
