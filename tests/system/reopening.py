"""
What a node's start finds in a data directory, looked at with the node's own code: is it all true, and is nothing lost?

A program: each line of its input is a data directory and what must hold of it, each line of its output what does not.
Every directory is looked at in a process of its own: LMDB may end it, and opens a file once per process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from edgecache.common import RUN
from edgecache.index.tabulating import Query
from edgecache.rules.eviction import HITS
from edgecache.rules.sites import site_id
from edgecache.store import layout, popularity
from edgecache.store.checks import payload
from edgecache.store.collecting import Collector
from edgecache.store.control import Control
from edgecache.store.counts import DownloadCounts
from edgecache.store.disk import Disk
from edgecache.store.environments import Environments
from edgecache.store.folding import Answer, Downloads
from edgecache.store.page import Page
from edgecache.store.pagelayout import FENCED
from edgecache.store.pagewriter import PageWriter
from edgecache.store.queues import read_standing
from edgecache.store.reading import StoreReader
from edgecache.store.record import Damaged, unpack
from edgecache.store.serials import StoredSerials
from edgecache.store.verifying import Verifier
from edgecache.words.config import GIB, MIB, StoreSettings
from edgecache.words.errors import ContentMissing
from edgecache.words.stored import Flag, Stored
from tests.system.contents import Artifact

NODE = "node"
# Records have so little room that some are evicted all the time, and what they have in blobs with them.
SETTINGS = StoreSettings(size=64 * MIB, small_share=0.03)
_SECONDS = 600
_SITE = site_id("default")
_RECORDED = (layout.RECORDS, layout.QUEUE, layout.PLACES, layout.CONTENTS, layout.ORPHANS)


@define(eq=False)
class Look:
    """
    At one data directory.

    :ivar due: ``ready``: the node had begun to answer; ``purges``: sequence of each id; ``versions``: the oldest of
        each target that may be fresh; ``serials``: of projects; ``downloads``: at least, at most; of a node that is
        not called :data:`NODE` also ``node``, and ``copied``: of purges that others have taken, whose log and number.
    """

    data: str
    due: dict[str, Any]
    wrong: list[str] = field(factory=list)
    said: list[str] = field(factory=list)
    counts: dict[str, int] = field(factory=dict)

    def all(self) -> None:
        """Twice: what the first start does must not undo anything. Then all of it is evicted."""
        path = Path(self.data, popularity.NAME)
        counted = path.read_bytes() if path.exists() else b""
        first = self._open(lambda: self._hits(counted, path))
        second = self._open()
        if second[0] < first[0] or second[1] < first[1]:
            self._no(f"the log or the epochs went back from {first} to {second} at the second start")
        self._emptied()

    @property
    def _node(self) -> str:
        return str(self.due.get("node", NODE))

    def _no(self, what: str) -> None:
        self.wrong.append(what)

    def _open(self, opened: Callable[[], None] = lambda: None) -> tuple[int, int]:
        """
        :param opened: called before anything is evicted.
        :return: how far its own log, and its epochs, are in the end.
        """
        environments = self._environments()
        opened()
        writer = self._page()
        page = Page.open(writer.path, 0)
        try:
            for name in ("control", "small", "blobs"):
                # One that was never complete is begun anew.
                if self.due["ready"] and os.path.exists(os.path.join(self.data, "aside", name)):
                    self._no(f"{name} was moved aside")
            control = Control.open(
                environments.control, writer, maybeDeferred, node_id=self._node, incarnation=environments.incarnation
            )
            self._purges(control)
            self._records(environments, page, control)
            self._chunks(environments)
            self._serials(environments, page)
            self._downloads()
            self._tidy(environments, writer)
            self._verified(environments)
            for one in (environments.control, environments.small, environments.blobs):
                if one.condemned:
                    self._no(f"{one.name} was condemned")
            return control.head().sequence, control.read.purges().epoch
        finally:
            page.close()
            writer.close()
            environments.close()

    def _environments(self) -> Environments:
        return Environments.open(self.data, SETTINGS, node_process=True, inspect=lambda _: Disk(0xEF53, 100 * GIB))

    def _page(self) -> PageWriter:
        """Whatever the last life left of its page, the new one says nothing of it."""
        run = os.path.join(self.data, RUN)
        os.makedirs(run, exist_ok=True)
        self._count("pages", any(os.path.getsize(os.path.join(run, name)) for name in os.listdir(run)))
        writer = PageWriter.create(os.path.join(run, "page"), 2)
        health = {writer.health(slot) for slot in range(writer.addresses)}
        common = (writer.fresh_until, writer.epoch, writer.trimmed, writer.draining, writer.full, health)
        if common != (FENCED, 0, 0, False, (False, False), {0}) or writer.pins() or any(writer.totals()):
            self._no(f"the page is not new: {common}, {writer.pins()}, {writer.totals()}")
        return writer

    def _hits(self, left: bytes, path: Path) -> None:
        """What counts them is as it was left, or new, and all of it has room; none counts more than it may."""
        found = path.read_bytes()
        whole = left.startswith(popularity.MAGIC) and len(left) == len(found)
        if found != (left if whole else popularity.MAGIC.ljust(len(found), b"\0")):
            self._no("the counters of hits are neither what was left nor new")
        if path.stat().st_blocks * 512 < len(found):
            self._no("the counters of hits have holes: on a full disk, who counts one dies")
        counters = popularity.Popularity.open(self.data, node_process=False)
        hits = bytes(counters.hits)
        self._count("counters", len(hits) - hits.count(0))
        self._count("remembered", (counters.small.clock > 0) + (counters.blobs.clock > 0))
        if hits.translate(None, bytes(range(HITS + 1))):
            self._no("more hits are counted than can be")
        counters.close()

    def _emptied(self) -> None:
        """Whatever hits left, and the queues: all can be evicted, and then nothing is left of it."""
        environments, writer = self._environments(), self._page()
        try:
            self._collect(environments, writer, evolve(SETTINGS, evict_share=1e-9))
            small, blobs = environments.small, environments.blobs
            left = {name.decode(): self._keys(small, name) for name in _RECORDED}
            left[layout.CHUNKS.decode()] = self._keys(blobs, layout.CHUNKS)
            with small.env.begin() as txn:
                sums = [standing.octets for standing in read_standing(txn, small.databases)]
            if any(left.values()) or any(sums):
                self._no(f"after all was evicted there is left: {left}, {sums}")
        finally:
            writer.close()
            environments.close()

    @staticmethod
    def _collect(environments: Environments, writer: PageWriter, settings: StoreSettings) -> None:
        collector = Collector(environments, writer, settings, set, Clock(), maybeDeferred)
        while collector.turn(0.0):
            pass

    def _purges(self, control: Control) -> None:
        """What was acknowledged is in the log, and the next one is numbered after all of it."""
        last = 0
        for purge_id, sequence in self.due["purges"].items():
            entry = control.by_id(purge_id)
            last = max(last, sequence)
            if entry is None:
                self._no(f"purge {purge_id}, acknowledged as {sequence}, is in no log")
            elif entry.sequence != sequence or entry.last_epoch > control.read.purges().epoch:
                self._no(f"purge {purge_id}, acknowledged as {sequence}, is {entry}")
        for purge_id, (node, sequence) in self.due.get("copied", {}).items():
            entry = control.by_id(purge_id)
            self._count("copied")
            if entry is None or (entry.log.id, entry.sequence) != (node, sequence):
                self._no(f"purge {purge_id}, which is number {sequence} of {node} and was applied here, is {entry}")
        for head in control.read.heads():
            found = control.read.recent(head.log, head.sequence + 1)
            if [entry.sequence for entry in found] != list(range(head.sequence, 0, -1)):
                self._no(f"the log has gaps: {[entry.sequence for entry in found]} up to {head}")
        added: list[Any] = []
        _ = control.append(b"after", f"after {time.time_ns()}", [(b"/x", 1, 2)]).addBoth(added.append)
        if not added or getattr(getattr(added[0], "entry", None), "sequence", 0) <= last:
            self._no(f"a new purge after {last} was numbered {added}")

    def _records(self, environments: Environments, page: Page, control: Control) -> None:
        """Whatever is found is what it says; what is older than an acknowledged purge is not taken for fresh."""
        small = environments.small
        with small.env.begin() as txn, txn.cursor(small.databases[layout.RECORDS]) as cursor:
            rows = [(bytes(key), bytes(value)) for key, value in cursor]
        reader = StoreReader(environments, page)
        for key_hash, value in rows:
            try:
                stored = unpack(value)[0]
            except Damaged as damage:
                self._no(f"record {key_hash.hex()} is damaged: {damage}")
                continue
            if isinstance(stored, Stored):
                self._count("records")
                self._record(reader, control, key_hash, stored)

    def _record(self, reader: StoreReader, control: Control, key_hash: bytes, stored: Stored) -> None:
        try:
            content = self._content(reader, key_hash, stored)
        except ContentMissing as missing:
            # Of blobs alone a power cut may take the last commits back.
            self._count("missing")
            if not stored.flags & Flag.IN_BLOBS or missing.index >= stored.size // layout.CHUNK:
                self._no(f"{stored.key!r}: a piece is missing in small")
            return
        target, mark, version = stored.etag.decode().strip('"').partition("#")
        if not mark or stored.flags & Flag.PAGE:
            return
        artifact = Artifact(f"{target}#{version}", stored.size)
        if content != b"".join(artifact.read(at, 1 << 18) for at in range(0, stored.size, 1 << 18)):
            self._no(f"{stored.key!r} has other octets than {stored.etag!r}")
        if int(version) < self.due["versions"].get(target, 0):
            self._count("superseded")
            if control.read.since(stored.selectors, stored.floor) is None:
                self._no(f"{stored.etag!r} with floor {stored.floor} was purged, and would be fresh")

    @staticmethod
    def _content(reader: StoreReader, key_hash: bytes, stored: Stored) -> bytes:
        found = reader.look_up(key_hash, stored.key)
        try:
            assert isinstance(found, Stored)
            if found.size < layout.CHUNK:
                return reader.content(found)
        finally:
            reader.done()
        return reader.part(key_hash, stored.content_id, stored.size, 0, stored.size)

    def _chunks(self, environments: Environments) -> None:
        """Every chunk that blobs' tree speaks of was written."""
        blobs = environments.blobs
        try:
            with blobs.env.begin(buffers=True) as txn, txn.cursor(blobs.databases[layout.CHUNKS]) as cursor:
                for key, value in cursor:
                    content_id, index = layout.PLACE.unpack(key)
                    self._count("chunks")
                    if payload(value, layout.CHUNK, layout.seed(content_id, index)) is None:
                        self._no(f"chunk {index} of {content_id.hex()} is not what was written")
        except lmdb.Error as error:
            self._no(f"blobs: {error}")

    def _serials(self, environments: Environments, page: Page) -> None:
        serials = StoredSerials(environments, StoreReader(environments, page).unreadable)
        for project, serial in self.due["serials"].items():
            found = serials.of(_SITE, project.encode())
            if found is None or found[0] < serial:
                self._no(f"of {project}, serial {serial} was shown, and {found} is known")

    def _downloads(self) -> None:
        directory = os.path.join(self.data, "downloads")
        if not os.path.isdir(directory):
            if self.due["downloads"][0]:
                self._no("there are no downloads")
            return
        downloads = Downloads(directory, {}, "", 3650, Clock(), maybeDeferred)
        downloads.start()
        answers: list[Answer] = []
        query = Query(0, 1 << 31)
        _ = downloads.ask(query, lambda answer: answer).addBoth(answers.append)
        stopped: Deferred[None] = Deferred.fromCoroutine(downloads.stop())
        assert stopped.called
        counted = sum(int(row["downloads"]) for row in answers[0].rows)
        least, most = self.due["downloads"]
        self._count("downloads", counted)
        if not least <= counted <= most:
            self._no(f"{counted} downloads are counted of {least} to {most}")
        if self.due["ready"] and os.path.exists(os.path.join(directory, "counts.aside")):
            self._no("the counts were moved aside")
        DownloadCounts.open(directory).close()

    def _tidy(self, environments: Environments, writer: PageWriter) -> None:
        """Once nobody fills anything, all that lies there belongs to a record."""
        self._collect(environments, writer, SETTINGS)
        rows = {
            name: self._keys(environments.blobs if name == layout.CHUNKS else environments.small, name)
            for name in (layout.CHUNKS, layout.CONTENTS, layout.ORPHANS)
        }
        small = environments.small
        with small.env.begin() as txn, txn.cursor(small.databases[layout.QUEUE]) as cursor:
            owned = {layout.QUEUE_ROW.unpack_from(value)[1] for _, value in cursor}
        for name in (layout.CHUNKS, layout.CONTENTS):
            if {key[:16] for key in rows[name]} - owned:
                self._no(f"{name.decode()} of no record stay for ever")
        if rows[layout.ORPHANS]:
            self._no("orphans stay")

    def _verified(self, environments: Environments) -> None:
        verifier = Verifier(environments)
        while verifier.turn(64 * MIB):
            pass
        found = verifier.verified
        if found.failed:
            self._no(f"verify failed: {found.failed}")
        for each in found.found:
            if "is missing" not in each.why:
                self._no(f"verify found {each}")

    @staticmethod
    def _keys(environment: Any, name: bytes) -> list[bytes]:
        with environment.env.begin() as txn, txn.cursor(environment.databases[name]) as cursor:
            return [bytes(key) for key in cursor.iternext(keys=True, values=False)]

    def _count(self, name: str, more: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + more


def _looked(data: str, due: dict[str, Any]) -> dict[str, Any]:
    look = Look(data, due)

    def hear(event: Any) -> None:
        if event["log_level"] >= LogLevel.error:
            look.said.append(str(event.get("log_format")))

    globalLogPublisher.addObserver(hear)
    try:
        look.all()
    except Exception:  # noqa: BLE001  # it is told, with all that is known about it
        look.wrong.append(traceback.format_exc())
    return {"wrong": look.wrong, "said": look.said, "counts": look.counts}


def main() -> None:
    for line in sys.stdin:
        data, due = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            signal.alarm(_SECONDS)
            os.write(write, json.dumps(_looked(data, due)).encode()[:60_000])
            os._exit(0)
        os.close(write)
        with open(read, "rb") as answer:
            told = answer.read()
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            told = json.dumps({"wrong": [f"it ended with {code}"], "said": [], "counts": {}}).encode()
        sys.stdout.write(told.decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
