"""Issue 7, must-show 4: the operator's commands against a node and an index, wheels built on the spot."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lmdb
from twisted.trial.unittest import SynchronousTestCase

from edgecache.store import layout
from edgecache.store.record import unpack
from edgecache.words.config import MIB
from edgecache.words.stored import Flag, Stored
from tests.system.harness import Node
from tests.system.index_servers import Nginx
from tests.system.packages import Package, wheel
from tests.system.processes import until

PACKAGES = 50

STORE_OCTETS = int(float(os.environ.get("EDGECACHE_VERIFY_GIB", "0.05")) * 1024 * MIB)
"""What verify looks through; the full size is 5 GiB."""

_LARGE = 16 * MIB


def damage(data: Path, key_hash: bytes, index: int) -> None:
    """Flip one octet of a chunk in the file itself, as a disk would."""
    environments = {
        name: lmdb.open(str(data / name), max_dbs=16, readonly=True, lock=False) for name in ("small", "blobs")
    }
    try:
        small, blobs = environments["small"], environments["blobs"]
        records, chunks = small.open_db(layout.RECORDS, create=False), blobs.open_db(layout.CHUNKS, create=False)
        with small.begin(db=records) as txn:
            stored = unpack(txn.get(key_hash))[0]
        assert isinstance(stored, Stored) and stored.flags & Flag.IN_BLOBS
        with blobs.begin(db=chunks) as txn:
            value = txn.get(layout.place(stored.content_id, index))
    finally:
        for each in environments.values():
            each.close()
    path = data / "blobs" / "data.mdb"
    with path.open("r+b") as file:
        at = _find(path, value)
        file.seek(at + 1000)
        octet = file.read(1)
        file.seek(at + 1000)
        file.write(bytes((octet[0] ^ 1,)))


def _find(path: Path, value: bytes) -> int:
    """Where a value lies: it begins 16 octets into a page."""
    with path.open("rb") as file:
        at = 0
        while page := file.read(layout.PAGE):
            if page[layout.OVERHEAD : layout.OVERHEAD + 256] == value[:256]:
                return at + layout.OVERHEAD
            at += layout.PAGE
    raise AssertionError("the chunk is not in the file")


class CommandsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def serve(self, packages: list[Package], size: str) -> Node:
        server = Nginx(self.root / "index")
        self.addCleanup(server.stop)
        for package in packages:
            server.tree.add(package)
        node = Node(self.root / "node", server.url, profile="index", workers=1, size=size)
        self.addCleanup(node.end)
        return node.start()

    def command(self, node: Node, name: str, *words: str) -> Any:
        done = node.edgecache(name, "--json", *words)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.progress = done.stderr
        return json.loads(done.stdout)

    def explained(self, node: Node, target: str) -> Any:
        return json.loads(node.admin("GET", f"/explain?url={target}").content)

    def test_fifty_packages_warm_an_empty_node_and_one_damaged_chunk_is_found_dropped_and_fetched_again(self) -> None:
        small = [wheel(f"Warm.Pack-{number}", version) for number in range(PACKAGES) for version in ("1.0", "2.0")]
        large = [wheel(f"large-{number}", "1.0", padding=_LARGE) for number in range(max(3, STORE_OCTETS // _LARGE))]
        octets = len(large) * _LARGE
        node = self.serve([*small, *large], f"{2 * octets // MIB + 256}MiB")

        # Warm
        wanted = [one for one in small if one.version == "2.0"]
        lines = []
        for number, package in enumerate(wanted):
            line = f"warm_pack-{number}" + ("==2.0" if number % 2 else ">=1.0")
            lines.append(line + (f" \\\n    --hash=sha256:{package.sha256}" if number % 3 == 0 else ""))
        requirements = self.root / "requirements.txt"
        requirements.write_text("\n".join([*lines, "# the end", "-e ./somewhere", ""]))
        targets = [f"/files/{one.project}/{one.sha256}/{one.filename}" for one in large]
        warmed = self.command(node, "warm", "-r", str(requirements), *targets)
        self.assertEqual(([], 0), (warmed["failed"], warmed["hits"]))
        self.assertEqual(["-e ./somewhere"], [one["what"] for one in warmed["skipped"]])
        # Page, metadata, wheel.
        self.assertEqual([3 * PACKAGES + len(large)] * 2, [warmed["asked"], warmed["done"]])
        seventh = f"/files/warm-pack-7/{wanted[7].sha256}/{wanted[7].filename}"
        found = self.explained(node, seventh)
        self.assertEqual(("hit", wanted[7].sha256), (found["outcome"], found["stored"]["sha256"]))

        # Verify
        # Warmed is what its client has got; the record is there a moment later.
        stored = until(lambda: self.explained(node, targets[1])["stored"], "the record of what was warmed")
        damage(node.data, bytes.fromhex(stored["record"]), 17)
        rate = max(20 * MIB, octets // 20)
        found = self.command(node, "verify", "--refetch", "--rate", f"{rate // MIB}MiB")
        self.assertEqual(("done", 1), (found["state"], found["damaged"]))
        self.assertEqual([targets[1]], [one["url"] for one in found["found"]])
        self.assertEqual([{"url": targets[1], "status": 200, "problem": ""}], found["refetched"])
        self.assertGreaterEqual(found["hashed"], len(wanted) + len(large))
        shown = [int(line.partition("%")[0]) for line in self.progress.splitlines() if "%" in line]
        self.assertEqual((sorted(shown), 100), (shown, shown[-1]))
        # It has its content before its record is committed.
        until(lambda: self.explained(node, targets[1])["outcome"] == "hit", "what was fetched again is stored")
        self.assertEqual(large[1].sha256, self.explained(node, targets[1])["stored"]["sha256"])

        # Status
        done = node.edgecache("status", "--node", node.admin_url, "--node", "http://127.0.0.1:1")
        head, row, *rest = done.stdout.splitlines()
        self.assertEqual((1, "NODE", "ready"), (done.returncode, head.split()[0], row.split()[2]))
        self.assertIn("not answered: http://127.0.0.1:1", rest[-1])
