"""Looking through the store: what is damaged is found, whatever and wherever it is, and dropped."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from edgecache.store import layout
from edgecache.store.layout import CHUNK, PIECE
from edgecache.store.opening import READERS
from edgecache.store.scrubbing import LEAST_RATE, MOST_SLICE, AlreadyRunning, Pass, Scrubbing
from edgecache.store.survey import Survey
from edgecache.store.verifying import Verifier
from edgecache.words.config import MIB
from tests.store.rooms import StoreTestCase, hash_of, octets, response

SIZES = {b"inline": 100, b"small": 2 * PIECE, b"blobs": 2 * CHUNK, b"both": 20 * CHUNK + 2 * PIECE, b"empty": 0}


class FullStoreTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stored = {}
        for salt, (key, size) in enumerate(SIZES.items()):
            content = octets(size, salt)
            digest = hashlib.sha256(content).digest()
            self.stored[key] = self.store(content, response(key, digest=digest))

    def flip(self, name: bytes, key: bytes, at: int = 5) -> None:
        def change(value: bytearray) -> None:
            value[at] ^= 1

        self.alter(name, key, change)


class VerifyingTests(FullStoreTestCase):
    def verify(self, slice_octets: int = 10 * MIB) -> Any:
        verifier = Verifier(self.environments)
        while verifier.turn(slice_octets):
            pass
        return verifier.verified

    def found(self, **settings: Any) -> dict[bytes, str]:
        verified = self.verify(**settings)
        self.assertEqual(len(verified.found), verified.damaged)
        return {each.key: each.why for each in verified.found}

    def test_all_that_is_stored_is_read_and_hashed(self) -> None:
        verified = self.verify()
        self.assertEqual((len(SIZES), sum(SIZES.values()), 0), (verified.records, verified.octets, verified.damaged))
        self.assertEqual(len(SIZES), verified.hashed)

    def test_in_small_steps_it_is_the_same(self) -> None:
        verified = self.verify(1)
        self.assertEqual((len(SIZES), sum(SIZES.values()), 0), (verified.records, verified.octets, verified.damaged))

    def test_damaged_content_is_found_wherever_it_is_and_dropped_alone(self) -> None:
        for key, name, place in (
            (b"inline", layout.RECORDS, hash_of(b"inline")),
            (b"small", layout.CONTENTS, layout.place(self.stored[b"small"].content_id, 1)),
            (b"blobs", layout.CHUNKS, layout.place(self.stored[b"blobs"].content_id, 1)),
            (b"both", layout.CONTENTS, layout.place(self.stored[b"both"].content_id, 0)),
        ):
            self.flip(name, place, -9)
            self.assertEqual([key], list(self.found()))
            self.assertIsNone(self.find(key))
            self.check()
        self.assertEqual(b"", self.content(b"empty"))

    def test_a_record_that_cannot_be_read_is_dropped(self) -> None:
        self.flip(layout.RECORDS, hash_of(b"both"), 200)
        self.assertEqual([b""], list(self.found()))
        self.assertEqual({}, self.found())

    def test_a_part_has_the_digest_of_the_whole_and_is_not_compared_with_it(self) -> None:
        whole = hashlib.sha256(octets(9 * CHUNK)).digest()
        for key, size in ((b"large", 3 * CHUNK), (b"little", 5_000)):
            self.store(octets(9 * CHUNK)[:size], response(key, status=206, digest=whole))
        verified = self.verify()
        self.assertEqual((len(SIZES), 0, []), (verified.hashed, verified.damaged, verified.found))

    def test_content_that_is_whole_and_not_what_its_digest_names_is_dropped(self) -> None:
        for key, size in ((b"large", 3 * CHUNK), (b"little", 9)):
            self.store(octets(size, 50), response(key, digest=hashlib.sha256(b"something else").digest()))
            found = self.found()
            self.assertIn("sha256", found[key])

    def test_what_lmdb_cannot_read_just_now_is_not_damaged(self) -> None:
        verifier = Verifier(self.environments)
        with ExitStack() as readers:
            for _ in range(READERS):
                readers.enter_context(self.environments.blobs.env.begin())
            while verifier.turn(MIB):
                pass
        self.assertIn("READERS", verifier.verified.failed)
        self.assertEqual(0, verifier.verified.damaged)
        self.assertEqual(len(SIZES), self.verify().records)

    def test_what_is_replaced_while_it_is_looked_at_is_not_damaged(self) -> None:
        verifier = Verifier(self.environments)
        # Until its chunks are being read.
        while verifier._content is None:
            verifier.turn(1)
        content = verifier._content
        self.store(octets(5), response(content.stored.key))
        with self.environments.blobs.env.begin(write=True) as txn:
            place = layout.place(content.stored.content_id, content.index)
            txn.delete(place, db=self.environments.blobs.databases[layout.CHUNKS])
        while verifier.turn(MIB):
            pass
        self.assertEqual((0, 1), (verifier.verified.damaged, verifier.verified.changed))
        self.assertEqual(octets(5), self.content(content.stored.key))


class ScrubbingTests(FullStoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.scrubbing = Scrubbing(self.environments, self.clock, lambda: 1_700_000_000.0, maybeDeferred)

    def test_the_rate_is_kept_and_progress_is_seen(self) -> None:
        self.scrubbing.start(LEAST_RATE)
        whole = sum(SIZES.values())
        self.assertEqual((Pass.RUNNING, len(SIZES)), (self.scrubbing.state, self.scrubbing.records))
        self.assertGreater(self.scrubbing.octets, 0.9 * whole)
        seen = [self.scrubbing.verified.octets]
        seconds = 0
        while self.scrubbing.state is Pass.RUNNING:
            self.clock.advance(0.1)
            seconds += 1
            seen.append(self.scrubbing.verified.octets)
        self.assertEqual((Pass.DONE, whole), (self.scrubbing.state, seen[-1]))
        self.assertGreaterEqual(seconds / 10, 0.8 * whole / LEAST_RATE - 1)
        self.assertGreater(len(set(seen)), 3)

    def test_a_turn_of_the_thread_is_short_however_fast_it_may_go(self) -> None:
        self.store(octets(MOST_SLICE + CHUNK), response(b"large"))
        self.scrubbing.start(1 << 40)
        turns = 0
        while self.scrubbing.state is Pass.RUNNING:
            turns += 1
            self.clock.advance(0.01)
        self.assertGreater(turns, 1)

    def test_one_pass_at_a_time_and_it_can_be_cancelled(self) -> None:
        self.scrubbing.start(LEAST_RATE)
        self.assertRaises(AlreadyRunning, self.scrubbing.start)
        self.assertTrue(self.scrubbing.cancel())
        self.assertEqual((Pass.CANCELLED, []), (self.scrubbing.state, self.clock.getDelayedCalls()))
        self.assertFalse(self.scrubbing.cancel())
        self.scrubbing.start(1000 * MIB)
        while self.scrubbing.state is Pass.RUNNING:
            self.clock.advance(0.1)
        self.assertIs(Pass.DONE, self.scrubbing.state)

    def test_a_turn_that_ends_after_the_pass_was_cancelled_changes_nothing(self) -> None:
        turns: list[Deferred[Any]] = []
        scrubbing = Scrubbing(
            self.environments,
            self.clock,
            lambda: 0.0,
            lambda *_: turns.append(Deferred()) or turns[-1],  # type: ignore[func-returns-value]
        )
        scrubbing.start()
        scrubbing.cancel()
        scrubbing.start()
        turns[0].callback(0)
        self.assertIs(Pass.RUNNING, scrubbing.state)
        turns[1].errback(RuntimeError("a fault"))
        self.assertEqual((Pass.FAILED, "a fault"), (scrubbing.state, scrubbing.verified.failed))
        self.assertEqual(1, len(self.flushLoggedErrors(RuntimeError)))


class SurveyTests(FullStoreTestCase):
    def test_the_biggest_come_first_and_all_have_been_seen_once_around(self) -> None:
        survey = Survey(self.environments)
        while not (surveyed := survey.turn(2)).rounds:
            pass
        self.assertEqual([b"both", b"blobs", b"small", b"inline", b"empty"], [one.key for one in surveyed.biggest])
        self.assertEqual((len(SIZES), len(SIZES)), (surveyed.examined, surveyed.records))

    def test_what_has_gone_is_not_shown_and_what_is_new_is_once_seen(self) -> None:
        survey = Survey(self.environments)
        survey.turn()
        self.writer.remove(hash_of(b"both"), self.stored[b"both"].content_id)
        self.store(octets(30 * CHUNK), response(b"new"))
        survey.turn()
        self.assertEqual([b"new", b"blobs"], [one.key for one in survey.turn().biggest[:2]])

    def test_an_empty_store_has_none(self) -> None:
        for key, stored in self.stored.items():
            self.writer.remove(hash_of(key), stored.content_id)
        self.flush()
        self.assertEqual(([], 0), ((found := Survey(self.environments).turn()).biggest, found.records))
