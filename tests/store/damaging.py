"""
A store with damaged pages, used as a node does: a program, for LMDB may end it.

Its arguments are a directory with a whole store, one to work in, and seeds. Each line of its output says what one seed
did: the exit status of a first life and, if a signal ended that, of a second one that begins as a node does then.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from edgecache.store.collecting import Collector
from edgecache.store.control import Control
from edgecache.store.crashing import CRASH_FILE, condemn_after
from edgecache.store.environments import Environments
from edgecache.store.page import Page
from edgecache.store.pagewriter import PageWriter
from edgecache.store.reading import StoreReader
from edgecache.store.serials import StoredSerials
from edgecache.store.verifying import Verifier
from edgecache.store.writing import StoreWriter
from edgecache.words.config import MIB, StoreSettings
from edgecache.words.errors import ContentMissing, ControlFailed, StoreFull
from edgecache.words.purging import Position
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Stored
from tests.store.lmdbpages import PAGE, Tree
from tests.store.rooms import LOCAL, Loop, hash_of, octets, response

# Nearly everything is to be evicted.
SETTINGS = StoreSettings(size=64 * MIB, evict_share=0.1)
SIZES = (10, 1_000, 5_000, 40_000, 70_000, 100_000)
KEYS = 150
_SECONDS = 30
_NAMES = ("control", "small", "blobs")


class Life:
    """From a start on."""

    def __init__(self, data: str) -> None:
        self.environments = Environments.open(data, SETTINGS, node_process=True, inspect=lambda _: LOCAL)
        self._written = PageWriter.create(os.path.join(data, "page"), 1)
        page = Page.open(self._written.path, 0)
        self.loop = Loop()
        self.writer = StoreWriter(self.environments, page, 7, self.loop)  # type: ignore[arg-type]  # what it uses of a reactor
        self.reader = StoreReader(self.environments, page, self.writer.damaged)

    def purges(self, count: int) -> None:
        try:
            control = Control.open(
                self.environments.control,
                self._written,
                maybeDeferred,
                node_id="n",
                incarnation=self.environments.incarnation,
            )
        except ControlFailed:
            return
        read = control.read
        looks: tuple[Callable[[], Any], ...] = (
            lambda: read.rows_since(0),
            read.heads,
            read.tokens,
            lambda: read.read_from(Position(control.name, 0)),
            lambda: read.recent(control.name),
            lambda: read.since([1, 1001], 0),
            lambda: read.by_id("id5"),
        )
        for look in looks:
            try:
                look()
            except ControlFailed:
                continue
        for number in range(count):
            rows = [(b"/a/%d" % number, number * 1000 + 1, PurgeMode.REVALIDATE)]
            _ = control.append(b"x" * 200, f"id{number}", rows).addErrback(lambda failure: failure.trap(ControlFailed))

    def fill(self, numbers: range) -> None:
        for number in numbers:
            key, size = b"k%d" % number, SIZES[number % len(SIZES)]
            content = self.writer.begin()
            content.write(octets(size, number))
            self.loop.result(content.commit(hash_of(key), response(key)))
            content.finished()

    def read(self) -> None:
        """
        :raises AssertionError: something has other octets.
        """
        for number in range(KEYS):
            key = b"k%d" % number
            found = self.reader.look_up(hash_of(key), key)
            try:
                if not isinstance(found, Stored):
                    continue
                if b"".join(self.reader.whole(found)) != octets(found.size, number):
                    raise AssertionError(f"{key!r} has other octets")
            except ContentMissing:
                continue
            finally:
                self.reader.done()

    def tidy(self) -> None:
        collector = Collector(self.environments, self._written, SETTINGS, set, Clock(), maybeDeferred)
        for _ in range(10):
            try:
                if not collector.turn(0.0):
                    break
            except StoreFull:
                continue
        verifier = Verifier(self.environments)
        while verifier.turn(64 * MIB):
            pass
        StoredSerials(self.environments, self.reader.unreadable).all(5)

    def end(self) -> None:
        self.loop.result(Deferred.fromCoroutine(self.writer.close()))
        self.environments.close()


def make(data: str) -> None:
    """A store without damage."""
    os.makedirs(data)
    life = Life(data)
    life.fill(range(KEYS))
    life.purges(100)
    life.end()


def damage(data: Path, chance: random.Random) -> str:
    """One page that is in use. :return: which, and how."""
    name = chance.choice(("small", "small", "blobs", "control"))
    path = data / name / "data.mdb"
    tree = Tree.of(path)
    kinds = sorted(set(tree.pages.values()))
    kind = chance.choice(kinds)
    number = chance.choice(tree.some(*kind))
    page = tree.octets[number * PAGE : (number + 1) * PAGE]
    other = chance.choice(sorted(tree.pages))
    foreign = tree.octets[other * PAGE : (other + 1) * PAGE]
    how = chance.choice(("random", "random behind its head", "zero", "another", "numbered", "bits", "bits", "bits"))
    match how:
        case "random":
            page = chance.randbytes(PAGE)
        case "random behind its head":
            page = page[:16] + chance.randbytes(PAGE - 16)
        case "zero":
            page = bytes(PAGE)
        case "another":
            page = foreign
        case "numbered":
            # As if it were the right one, which LMDB cannot see through.
            page = struct.pack("<Q", number) + foreign[8:]
        case _:
            changed = bytearray(page)
            for _ in range(chance.choice((1, 1, 3))):
                at = chance.choice((chance.randrange(8, 16), chance.randrange(16, 64), chance.randrange(PAGE)))
                changed[at] ^= 1 << chance.randrange(8)
            page = bytes(changed)
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        file.write(page)
    return f"{name}: {' '.join(kind)} {number} {how}"


def _live(data: str) -> None:
    life = Life(data)
    life.purges(3)
    life.read()
    life.fill(range(KEYS, KEYS + 20))
    life.fill(range(0, 40, 3))
    life.tidy()
    life.read()
    life.end()


def _lived(data: Path) -> tuple[int, str]:
    """:return: exit status of a process that uses the store, and its last words."""
    words, crash = data / "words", data / CRASH_FILE
    pid = os.fork()
    if not pid:
        signal.alarm(_SECONDS)
        faulthandler.enable(crash.open("w"))
        try:
            _live(str(data))
        except BaseException:  # noqa: BLE001  # told, whatever it is
            words.write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), words.read_text() if words.exists() else ""


def main() -> None:
    whole, room, *seeds = sys.argv[1:]
    # What is logged says that there is damage.
    globalLogPublisher.addObserver(lambda event: None)
    if not os.path.exists(whole):
        pid = os.fork()
        if not pid:
            make(whole)
            os._exit(0)
        os.waitpid(pid, 0)
    for seed in seeds:
        data = Path(room) / seed
        data.mkdir()
        for name in _NAMES:
            shutil.copytree(os.path.join(whole, name), data / name)
        what = damage(data, random.Random(int(seed)))
        code, words = _lived(data)
        second = None
        if code < 0:
            lines = (data / CRASH_FILE).read_text().splitlines()
            condemned = condemn_after(str(data), lines, "it")
            words = f"{condemned}: {lines[:1]}"
            second, again = _lived(data)
            words += again
        sys.stdout.write(json.dumps({"seed": seed, "what": what, "first": code, "then": second, "words": words}) + "\n")
        sys.stdout.flush()
        shutil.rmtree(data)


if __name__ == "__main__":
    main()
