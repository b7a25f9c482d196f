"""The store against a model: whatever is done in whatever order, what is read is what was stored last."""

from __future__ import annotations

import unittest
from typing import Any

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edgecache.store import layout
from edgecache.store.filling import ContentWriter
from edgecache.store.layout import CHUNK, PIECE
from edgecache.store.queues import Queues
from edgecache.words.errors import ContentMissing
from edgecache.words.stored import Stored, Variants
from tests.store.rooms import SPAWN, StoreTestCase, hash_of, octets, response

KEYS = st.sampled_from([b"a", b"b", b"c"])
SIZES = st.sampled_from([0, 1, 1000, PIECE - 1, PIECE + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + PIECE + 9])
FLOORS = st.integers(1, 4)


class Room(StoreTestCase):
    """A store that lives as long as one run of the machine."""

    __test__ = False

    def runTest(self) -> None:
        """Never run: it only lends what it has."""


class StoreMachine(RuleBasedStateMachine):
    """
    :ivar model: what each key must answer: its response and its content.
    :ivar sending: sources that may be read.
    :ivar filling: fills of this life that have not come to their end.
    """

    fills = Bundle("fills")
    sources = Bundle("sources")

    def __init__(self) -> None:
        super().__init__()
        self.room = Room()
        self.room.setUp()
        self.model: dict[bytes, tuple[Stored, bytes]] = {}
        self.sending: set[Any] = set()
        self.filling: set[ContentWriter] = set()
        self.salt = 0

    def teardown(self) -> None:
        for source in self.sending:
            source.close()
        self.room.doCleanups()

    @rule(target=fills, key=KEYS, size=SIZES, floor=FLOORS, step=st.sampled_from([777_777, 16_384, 70_000]))
    def begin(self, key: bytes, size: int, floor: int, step: int) -> tuple[ContentWriter, bytes, Stored]:
        self.salt += 1
        content = octets(size, self.salt)
        writer = self.room.fill(content, step)
        self.filling.add(writer)
        return writer, content, response(key, floor=floor)

    @rule(fill=fills, position=st.floats(0, 1), limit=st.sampled_from([1, 5000, 65536, 300_000]))
    def read_while_it_fills(self, fill: tuple[ContentWriter, bytes, Stored], position: float, limit: int) -> None:
        writer, content, _ = fill
        if writer not in self.filling:
            return
        start = int(position * len(content))
        data = writer.read(start, limit)
        assert data == content[start : start + len(data)]
        assert bool(data) == (start < len(content))

    @rule(fill=consumes(fills))
    def commit(self, fill: tuple[ContentWriter, bytes, Stored]) -> None:
        writer, content, stored = fill
        if writer not in self.filling:
            return
        self.filling.remove(writer)
        before = self.model.get(stored.key)
        expected = before is None or before[0].floor <= stored.floor
        assert self.room.commit(writer, stored) is expected
        if expected:
            self.model[stored.key] = (evolve(stored), content)
        writer.finished()

    @rule(fill=consumes(fills))
    def abandon(self, fill: tuple[ContentWriter, bytes, Stored]) -> None:
        self.filling.discard(fill[0])
        fill[0].abandon()

    @rule(key=KEYS, floor=FLOORS, head=st.binary(max_size=2000))
    def freshen(self, key: bytes, floor: int, head: bytes) -> None:
        if key in self.model:
            stored, content = self.model[key]
            newer = evolve(stored, floor=floor, head=head)
            expected = floor >= stored.floor
            assert self.room.loop.result(self.room.writer.put(hash_of(key), newer)) is expected
            if expected:
                self.model[key] = (newer, content)

    @rule(key=KEYS, floor=FLOORS)
    def raise_floor(self, key: bytes, floor: int) -> None:
        if key in self.model:
            stored, content = self.model[key]
            self.room.writer.raise_floor(hash_of(key), stored.content_id, floor)
            self.model[key] = (evolve(stored, floor=max(floor, stored.floor)), content)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        if key in self.model:
            self.room.writer.remove(hash_of(key), self.model.pop(key)[0].content_id)

    @rule(target=sources, key=KEYS)
    def open_source(self, key: bytes) -> tuple[Any, bytes]:
        self.room.flush()
        found = self.room.find(key)
        if found is None or found.size < CHUNK:
            return None, b""
        source = self.room.reader.open_source(hash_of(key), found)
        assert source is not None
        self.sending.add(source)
        return source, self.model[key][1]

    @rule(source=sources, position=st.floats(0, 1), limit=st.sampled_from([1000, 65536, 1 << 20]))
    def read_source(self, source: tuple[Any, bytes], position: float, limit: int) -> None:
        stream, content = source
        if stream in self.sending:
            start = int(position * len(content))
            data = stream.read(start, limit)
            assert stream.failed is None
            assert data == content[start : start + len(data)]
            assert bool(data) == (start < len(content))

    @rule()
    def collect(self) -> None:
        """What the node process does: chunks of nobody's orphans that nobody pins, then tail and row."""
        self.room.flush()
        pins = self.room.node_page.pins()
        for content_id, row in self.room.rows(layout.ORPHANS).items():
            if layout.ORPHAN_ROW.unpack(row)[0] == SPAWN or content_id in pins:
                continue
            for name in (layout.CHUNKS, layout.CONTENTS, layout.ORPHANS):
                environment = self.room.environments.blobs if name == layout.CHUNKS else self.room.environments.small
                for key in self.room.rows(name):
                    if key.startswith(content_id):
                        with environment.env.begin(write=True) as txn:
                            txn.delete(key, db=environment.databases[name])

    @rule(key=KEYS)
    def damage(self, key: bytes) -> None:
        """One octet of the record changes: a miss, and soon not there at all."""
        self.room.flush()
        if key not in self.model:
            return

        def flip(value: bytearray) -> None:
            # In the checksum: what was parsed before is then not taken for this (Note [memo of records]).
            value[8] ^= 1

        self.room.alter(layout.RECORDS, hash_of(key), flip)
        assert self.room.find(key) is None
        stored, _ = self.model.pop(key)
        self.room.flush()
        # The collector drops the row and frees the content (Note [one row per record]).
        for sequence, row in self.room.rows(layout.QUEUE).items():
            if layout.QUEUE_ROW.unpack_from(row)[1] == stored.content_id:
                with self.room.environments.small.env.begin(write=True) as txn:
                    databases = self.room.environments.small.databases
                    queues = Queues(txn, databases, None)
                    queues.drop(layout.U64_KEY.unpack(sequence)[0])
                    queues.finish()
                    txn.put(stored.content_id, layout.ORPHAN_ROW.pack(layout.NOBODY, 0), db=databases[layout.ORPHANS])

    @rule()
    def restart(self) -> None:
        """Everything that was asked for is on disk; fills and streams of the old life are over."""
        for source in self.sending:
            source.close()
        self.sending.clear()
        for writer in self.filling:
            writer.abandon()
        self.filling.clear()
        self.room.flush()
        self.room.restart()

    @invariant()
    def everything_reads_as_it_was_stored(self) -> None:
        self.room.flush()
        for key in (b"a", b"b", b"c"):
            found = self.room.find(key)
            assert not isinstance(found, Variants)
            if key not in self.model:
                assert found is None
                continue
            stored, content = self.model[key]
            assert found is not None
            assert (found.content_id, found.floor, found.head) == (stored.content_id, stored.floor, stored.head)
            try:
                assert self.room.content(key) == content
            except ContentMissing as missing:
                raise AssertionError(missing) from missing

    @invariant()
    def rows_and_contents_belong_together(self) -> None:
        self.room.check()


class StoreMachineTests(unittest.TestCase):
    def test_the_store_does_what_its_model_does(self) -> None:
        from hypothesis.stateful import run_state_machine_as_test

        run_state_machine_as_test(StoreMachine, settings=settings(max_examples=12, stateful_step_count=25))
