"""Contents that broke off for good: the next try goes on with what came (FIELD 1, rule 8)."""

from __future__ import annotations

import asyncio

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from edgecache.fills.keeping import KEPT_CONTENTS, KEPT_OCTETS, KEPT_SECONDS, Keep, Kept, kept_octets
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Store
from edgecache.rules.policy import on_response
from edgecache.rules.purges import PurgeTable
from edgecache.rules.resuming import Broken, Known
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import site_id
from edgecache.store import layout
from edgecache.store.epochs import Epochs
from edgecache.store.layout import CHUNK
from edgecache.store.record import unpack
from edgecache.words.config import Policy
from edgecache.words.counters import Counter
from edgecache.words.errors import StoreFull
from edgecache.words.reasons import ForwardReason, PurgeMode
from tests.fills.rig import PATIENT, Answer, Exchange, RigCase, Script
from tests.fills.test_breaking import FRESH, TAG, BreakingCase, breaks, content_of, digest_of, serves, wrong
from tests.rules.build import NOW, asked, head
from tests.store.rooms import StoreTestCase, octets
from tests.store.test_epochs import Board, Remembering

MEGABYTE = content_of(1_000_000)
TENTH = 100_000
REST = f"bytes={TENTH - 4096}-"


def first_then(*scripts: Script) -> Script:
    """One after the other, the last one again and again."""
    left = list(scripts)

    async def script(exchange: Exchange) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(exchange)

    return script


def nothing() -> Script:
    """A connection that ends without an answer."""

    async def script(exchange: Exchange) -> None:
        exchange.cut()

    return script


def says(status: str, *fields: str, content: bytes = b"") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(content, *fields, status=status)

    return script


def rest(content: bytes, *fields: str, after: asyncio.Event | None = None, stop: int | None = None) -> Script:
    """The rest that is asked for, once ``after`` is set, and broken off before octet ``stop``."""

    async def script(exchange: Exchange) -> None:
        start = int(exchange.fields["range"].removeprefix("bytes=").rstrip("-"))
        place = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
        length = f"Content-Length: {len(content) - start}"
        await exchange.answer(b"", *fields, place, length, status="206 Partial Content", length=False)
        if after is not None:
            await after.wait()
        await exchange.send(content[start:stop])
        if stop is not None:
            exchange.cut()

    return script


class KeepingCase(RigCase):
    """One origin, which breaks off; asked for the rest at once, it does not answer."""

    target = "/"

    def selector(self) -> Selector:
        """Of the target."""
        return Selector("url", site_id("main"), self.target.encode())

    def play(self, *scripts: Script) -> None:
        """The origin's part for the target."""
        self.origin.scripts[self.target] = first_then(*scripts)

    @property
    def keep(self) -> Keep:
        """The only worker's."""
        [worker] = self._workers
        keep: Keep = worker._keep
        return keep

    async def broken(self, *fields: str, content: bytes = MEGABYTE, after: int = TENTH, **how: bool) -> Answer:
        """What the client of the first try for another target gets."""
        self.target += "a"
        self.play(breaks(content, after, *(fields or (FRESH, TAG)), **how), nothing())
        answer = await self.ask(self.target)
        self.assertFalse(answer.complete and answer.status == 200)
        self.origin.seen.clear()
        return answer

    @property
    def ranges(self) -> list[str | None]:
        """What was asked for since."""
        return [one.fields.get("range") for one in self.origin.seen]

    async def whole(self, *fields: str, content: bytes = MEGABYTE) -> None:
        """The next client gets exactly ``content``, and the one after that has it from the store."""
        answer = await self.ask(self.target, *fields)
        self.assertEqual((200, True, True), (answer.status, answer.complete, answer.content == content))
        self.assertEqual(content, (await self.hit(self.target, *fields)).content)


class NextTryTests(KeepingCase):
    def test_only_the_rest_is_fetched_and_all_is_exact_and_stored(self):
        async def test():
            answer = await self.broken()
            self.assertEqual((False, MEGABYTE[:TENTH]), (answer.complete, answer.content))
            self.assertEqual(0, self.counter(Counter.STORED))
            before = self.counter(Counter.BYTES_FETCHED)
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            [rest] = self.origin.seen
            self.assertEqual((REST, '"one"'), (rest.fields.get("range"), rest.fields.get("if-range")))
            self.assertEqual(len(MEGABYTE) - TENTH, self.counter(Counter.BYTES_FETCHED) - before)
            self.assertEqual((2, 1), (self.counter(Counter.RESUMES), self.counter(Counter.RESUMED)))
            await self.until(lambda: self.counter(Counter.STORED) == 1)

        return self.run_async(test())

    def test_all_who_wait_stream_what_came_before_the_rest_comes(self):
        async def test():
            await self.broken()
            proceed = asyncio.Event()

            self.play(rest(MEGABYTE, FRESH, TAG, after=proceed))
            clients = [await self.client() for _ in range(3)]
            for client in clients:
                client.send(self.target)
            for client in clients:
                await client.head()
                self.assertEqual(MEGABYTE[:TENTH], await client.reader.readexactly(TENTH))
            proceed.set()
            for client in clients:
                self.assertEqual(MEGABYTE[TENTH:], await client.reader.readexactly(len(MEGABYTE) - TENTH))
            self.assertEqual([REST], self.ranges)

        return self.run_async(test())

    def test_another_response_is_taken_instead(self):
        async def test():
            other = content_of(500_000)
            for script in (says("200 OK", FRESH, 'ETag: "two"', content=other), serves(other, FRESH)):
                await self.broken()
                self.play(says("200 OK", FRESH, 'ETag: "two"', content=other), script)
                await self.whole(content=other)
                self.assertEqual([REST], self.ranges)

        return self.run_async(test())

    def test_all_of_it_once_more_will_do_as_well(self):
        async def test():
            await self.broken()
            self.play(says("200 OK", FRESH, TAG, content=MEGABYTE))
            await self.whole()
            self.assertEqual([REST], self.ranges)

        return self.run_async(test())

    def test_what_is_no_rest_is_asked_for_anew_as_a_whole(self):
        async def test():
            start, length = TENTH - 4096, len(MEGABYTE)
            part = f"Content-Range: bytes {start}-{start + 9}/{length}"
            for script in (
                says("206 Partial Content", FRESH, TAG, part, content=MEGABYTE[start : start + 10]),
                says("416 Range Not Satisfiable", f"Content-Range: bytes */{start}"),
            ):
                await self.broken()
                self.play(script, serves(MEGABYTE, FRESH, TAG))
                await self.whole()
                self.assertEqual([REST, None], self.ranges)
            self.assertNotIn("wrong-range", self.told)
            await self.broken()
            wrongly = f"Content-Range: bytes {TENTH}-{length - 1}/{length}"
            self.play(
                says("206 Partial Content", FRESH, TAG, wrongly, content=MEGABYTE[TENTH:]),
                serves(MEGABYTE, FRESH, TAG),
            )
            await self.whole()
            self.assertEqual([REST, None], self.ranges)
            await self.until(lambda: "wrong-range" in self.told)

        return self.run_async(test())

    def test_of_a_content_that_does_not_go_on_nothing_is_kept(self):
        """Rule 1: neither a strong entity tag nor a digest; too little; its head is partly one client's alone"""

        async def test():
            for fields, after in (
                ((FRESH,), TENTH),
                ((FRESH, 'ETag: W/"one"'), TENTH),
                ((FRESH, TAG), 4096),
                (('Cache-Control: max-age=60, private="Set-Cookie"', "Set-Cookie: a=b", TAG), TENTH),
            ):
                await self.broken(*fields, after=after)
                self.play(serves(MEGABYTE, *fields))
                await self.whole()
                self.assertEqual([None], self.ranges, fields)

        return self.run_async(test())

    def test_it_is_kept_while_nobody_answers_or_errors_do(self):
        async def test():
            await self.broken()
            self.play(nothing())
            self.assertEqual(503, (await self.ask(self.target)).status)
            self.play(says("502 Bad Gateway"))
            self.assertGreaterEqual((await self.ask(self.target)).status, 500)
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual({REST}, set(self.ranges))

        return self.run_async(test())

    def test_try_after_try_brings_more(self):
        async def test():
            await self.broken()
            untils: list[float] = []
            for came in (300_000, 300_000, 700_000):
                self.origin.seen.clear()
                self.play(rest(MEGABYTE, FRESH, TAG, stop=came))
                answer = await self.ask(self.target)
                self.assertEqual((False, True), (answer.complete, answer.content == MEGABYTE[:came]))
                # One rest of one address (rule 9).
                self.assertEqual(1, len(self.ranges))
                untils.append(next(iter(self.keep._kept.values()))[0].until)
            self.assertEqual(untils[0], untils[1])
            self.assertLess(untils[1], untils[2])
            self.origin.seen.clear()
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([f"bytes={700_000 - 4096}-"], self.ranges)

        return self.run_async(test())

    def test_where_the_octets_do_not_agree_it_breaks_off_and_the_next_try_starts_over(self):
        async def test():
            await self.broken()
            other = wrong(MEGABYTE, TENTH - 1)
            self.play(serves(other, FRESH, TAG))
            self.assertFalse((await self.ask(self.target)).complete)
            self.assertEqual(0, self.counter(Counter.STORED))
            await self.whole(content=other)
            self.assertIsNone(self.ranges[-1])

        return self.run_async(test())

    def test_of_more_octets_than_the_whole_has_none_is_trusted(self):
        async def test():
            await self.broken()

            async def too_much(exchange: Exchange) -> None:
                start = TENTH - 4096
                place = f"Content-Range: bytes {start}-{len(MEGABYTE) - 1}/{len(MEGABYTE)}"
                framing = "Transfer-Encoding: chunked"
                await exchange.answer(b"", FRESH, TAG, place, framing, status="206 Partial Content", length=False)
                much = MEGABYTE[start:] + b"more"
                await exchange.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(much), much))

            self.play(too_much)
            self.assertFalse((await self.ask(self.target)).complete)
            self.assertEqual(([REST], 0), (self.ranges, self.keep.octets))

        return self.run_async(test())

    def test_what_may_not_be_stored_any_longer_comes_whole_all_the_same(self):
        async def test():
            await self.broken()
            self.play(serves(MEGABYTE, "Cache-Control: no-store", TAG))
            for _ in range(2):
                answer = await self.ask(self.target)
                self.assertEqual((True, True), (answer.complete, answer.content == MEGABYTE))
            self.assertEqual([REST, None, None], self.ranges)
            self.assertEqual(0, self.keep.octets)
            self.assertEqual(0, self.counter(Counter.STORED))

        return self.run_async(test())

    def test_age_and_lifetime_are_those_of_the_rest(self):
        """RFC 9111 §3.4"""

        async def test():
            await self.broken("Cache-Control: max-age=1", "Age: 1", "X-First: here", TAG)
            self.play(serves(MEGABYTE, "Cache-Control: max-age=600", "X-Rest: there", TAG))
            answer = await self.ask(self.target)
            fields = [answer.fields.get(name) for name in ("cache-control", "age", "x-first", "x-rest", "etag")]
            self.assertEqual(["max-age=600", None, "here", "there", '"one"'], fields)
            self.assertEqual(str(len(MEGABYTE)), answer.fields["content-length"])
            self.assertNotIn("content-range", answer.fields)

        return self.run_async(test())

    def test_what_the_store_does_not_take_is_not_kept(self):
        async def test():
            self._page.set_full(True, True)
            await self.broken()
            self.assertEqual(0, self.keep.octets)
            self._page.set_full(False, False)
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([None], self.ranges)

        return self.run_async(test())

    def test_chunks_learn_their_length(self):
        async def test():
            await self.broken(FRESH, TAG, chunked=True)
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([REST], self.ranges)

        return self.run_async(test())

    def test_another_variant_is_fetched_as_a_whole(self):
        async def test():
            vary = "Vary: Accept-Language"
            self.play(breaks(MEGABYTE, TENTH, FRESH, TAG, vary), nothing())
            self.assertFalse((await self.ask(self.target, "Accept-Language: de")).complete)
            self.origin.seen.clear()
            other = content_of(200_000)
            self.play(says("200 OK", FRESH, 'ETag: "two"', vary, content=other))
            await self.whole("Accept-Language: fr", content=other)
            self.assertEqual([None], self.ranges)

        return self.run_async(test())

    def test_a_small_part_of_it_is_there_at_once(self):
        async def test():
            await self.broken()
            self.play(serves(MEGABYTE, FRESH, TAG))
            answer = await self.ask(self.target, "Range: bytes=10-19")
            self.assertEqual((206, MEGABYTE[10:20]), (answer.status, answer.content))
            self.assertEqual([REST], self.ranges)
            self.assertEqual(MEGABYTE, (await self.hit(self.target)).content)

        return self.run_async(test())


class StoppedTests(KeepingCase):
    def rows(self, environment: str, name: bytes) -> list[bytes]:
        """What lies on disk."""
        found = getattr(self._environments, environment)
        with found.env.begin() as txn, txn.cursor(db=found.databases[name]) as cursor:
            return [bytes(value) for _, value in cursor]

    def test_a_worker_that_stops_leaves_it_to_the_store(self):
        """Nobody's chunks are left: they are those of partial content."""

        async def test():
            await self.broken()
            [worker] = self._workers
            # Only then can an orphan be given away: what is not there yet never comes to be.
            await self.until(lambda: self.rows("blobs", layout.CHUNKS) and not worker._writer._shared.budget.held)
            self._workers.clear()
            await Deferred.fromCoroutine(worker.stop()).asFuture(asyncio.get_running_loop())
            self.assertEqual([], self.rows("small", layout.ORPHANS))
            [record] = [unpack(value)[0] for value in self.rows("small", layout.RECORDS)]
            self.assertEqual((206, TENTH), (record.status, record.size))

        return self.run_async(test())


class PurgedTests(KeepingCase):
    def test_a_purge_in_between_forgets_it(self):
        async def test():
            for by_tag in (False, True):
                await self.broken(FRESH, TAG, "Surrogate-Key: project/a")
                await self.purge(Selector("tag", site_id("main"), b"project/a") if by_tag else self.selector())
                self.play(serves(MEGABYTE, FRESH, TAG))
                await self.whole()
                self.assertEqual([None], self.ranges)

        return self.run_async(test())

    def test_a_purge_of_something_else_does_not(self):
        async def test():
            await self.broken()
            await self.purge(Selector("url", site_id("main"), b"/b"))
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([REST], self.ranges)

        return self.run_async(test())

    def test_a_purge_of_what_only_the_rest_is_tagged_with_makes_the_whole_one_of_before(self):
        async def test():
            await self.broken()
            await self.purge(Selector("tag", site_id("main"), b"project/a"))
            self.play(serves(MEGABYTE, FRESH, TAG, "Surrogate-Key: project/a"))
            answer = await self.ask(self.target)
            self.assertEqual(([REST], True), (self.ranges, answer.content == MEGABYTE))
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            self.assertFalse((await self.ask(self.target)).hit)

        return self.run_async(test())

    def test_a_purge_while_the_rest_comes_makes_the_whole_one_of_before(self):
        async def test():
            await self.broken()
            proceed = asyncio.Event()
            right = serves(MEGABYTE, FRESH, TAG)

            async def waiting(exchange: Exchange) -> None:
                await proceed.wait()
                await right(exchange)

            self.play(waiting, right)
            client = await self.client()
            client.send(self.target)
            await self.until(lambda: len(self.origin.seen) == 1)
            await self.purge(self.selector())
            proceed.set()
            self.assertEqual(MEGABYTE, (await client.receive()).content)
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            self.assertFalse((await self.ask(self.target)).hit)

        return self.run_async(test())


class DigestTests(KeepingCase):
    """Rules 6 and 7"""

    def test_it_is_verified_as_a_whole_whatever_the_entity_tag(self):
        async def test():
            for size in (500_000, 3_000_000):
                content = content_of(size)
                await self.broken(FRESH, TAG, digest_of(content), content=content)
                self.play(serves(content, FRESH, 'ETag: "two"'))
                await self.whole(content=content)
                [rest] = self.origin.seen
                self.assertEqual((REST, None), (rest.fields.get("range"), rest.fields.get("if-range")))

        return self.run_async(test())

    def test_wrong_when_put_together_it_is_asked_for_anew_and_nobody_is_blamed(self):
        async def test():
            content = content_of(500_000)
            await self.broken(FRESH, digest_of(content), content=wrong(content))
            failures = self.counter(Counter.UPSTREAM_FAILURES)
            self.play(serves(content, FRESH, digest_of(content)))
            await self.whole(content=content)
            self.assertEqual([REST, None], self.ranges)
            self.assertEqual(failures, self.counter(Counter.UPSTREAM_FAILURES))

        return self.run_async(test())

    def test_of_a_long_one_what_may_be_shown_is_shown_at_once(self):
        async def test():
            content = content_of(3_000_000)
            await self.broken(FRESH, digest_of(content), content=content, after=2_000_000)
            proceed = asyncio.Event()
            right = serves(content, FRESH)

            self.play(rest(content, FRESH, after=proceed), right)
            client = await self.client()
            client.send(self.target)
            await client.head()
            self.assertEqual(content[:2_000_000], await client.reader.readexactly(2_000_000))
            proceed.set()
            self.assertEqual(content[2_000_000:], await client.reader.readexactly(1_000_000))

        return self.run_async(test())


class FallbackTests(BreakingCase):
    """DESIGN 8: a fallback's answers live seconds and never replace better ones"""

    policy = Policy.FALLBACK

    def test_nothing_of_a_fallback_is_kept(self):
        async def test():
            await self.origin.stop()
            [fallback] = self.others
            fallback.scripts["/a"] = first_then(breaks(MEGABYTE, TENTH, FRESH, TAG), nothing())
            self.assertFalse((await self.ask("/a")).complete)
            self.assertEqual([None, REST], [one.fields.get("range") for one in fallback.seen])
            fallback.seen.clear()
            fallback.scripts["/a"] = serves(MEGABYTE, FRESH, TAG)
            answer = await self.ask("/a")
            self.assertEqual((True, True), (answer.complete, answer.content == MEGABYTE))
            self.assertEqual([None], [one.fields.get("range") for one in fallback.seen])

        return self.run_async(test())

    def test_with_the_rest_of_a_fallback_it_lives_seconds(self):
        async def test():
            self.origin.scripts["/a"] = first_then(breaks(MEGABYTE, TENTH, FRESH, TAG), nothing())
            [fallback] = self.others
            fallback.scripts["/a"] = nothing()
            self.assertFalse((await self.ask("/a")).complete)
            fallback.scripts["/a"] = serves(MEGABYTE, FRESH, TAG)
            answer = await self.ask("/a")
            self.assertEqual((True, True), (answer.complete, answer.content == MEGABYTE))
            self.assertEqual(REST, fallback.seen[-1].fields.get("range"))
            self.assertLessEqual(int(answer.cache_status.partition("ttl=")[2].partition(";")[0]), 5)

        return self.run_async(test())


class DisabledTests(KeepingCase):
    upstream = evolve(PATIENT, resumes=0)

    def test_where_no_rest_may_ever_be_asked_for_nothing_is_kept(self):
        async def test():
            await self.broken()
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([None], self.ranges)

        return self.run_async(test())


class KeepTests(StoreTestCase):
    """What is kept, for how long, and how much of it: exact on the clock."""

    def setUp(self) -> None:
        super().setUp()
        self.clock, self.board, self.control = Clock(), Board(), Remembering()
        self.clock.advance(NOW)
        self.keep = Keep(Epochs(self.board, self.control, PurgeTable(0, 4)), self.clock)
        self.addCleanup(lambda: self.assertEqual([], self.clock.getDelayedCalls()))
        self.addCleanup(lambda: self.keep.close())

    def kept(self, asking: Asked | None = None, size: int = 3 * CHUNK + 5, *lines: str) -> Kept:
        """What came of a content, in the store; kept under the key of ``asking`` from now on."""
        asking = asked() if asking is None else asking
        writer = self.fill(octets(size))
        self.loop.until(lambda: not writer._shared.budget.held)
        response = head("Cache-Control: max-age=60", 'ETag: "one"', *lines)
        plan = on_response(
            asking,
            Forward(ForwardReason.URI_MISS),
            response,
            length=10 * size,
            delimited_by_close=False,
            requested_at=NOW,
            responded_at=NOW,
            floor=self.board.epoch,
        )
        assert isinstance(plan, Store), plan
        known = Known(10 * size, b"", b'"one"', None)
        kept = Kept(plan, Broken(known, response, size, octets(size)[-4096:], None), writer)
        self.keep.put(asking.key_hash, kept)
        return kept

    def taken(self, asking: Asked | None = None) -> Kept | None:
        asking = asked() if asking is None else asking
        return self.keep.take(asking.key_hash, asking)

    def freed(self, kept: Kept) -> bool:
        """Does nobody in the store own its chunks any longer?"""
        self.flush()
        self.flush()
        row = self.rows(layout.ORPHANS)[kept.writer.content_id]
        return bool(layout.ORPHAN_ROW.unpack(row)[0] == layout.NOBODY)

    def test_who_takes_it_has_it_alone(self) -> None:
        kept = self.kept()
        self.assertIs(kept, self.taken())
        self.assertIsNone(self.taken())
        self.assertEqual(0, self.keep.octets)
        self.clock.advance(KEPT_SECONDS)
        self.assertFalse(self.freed(kept))
        self.assertEqual(octets(kept.broken.received)[:100], kept.writer.read(0, 100))

    def test_after_a_minute_it_is_freed(self) -> None:
        kept = self.kept()
        self.clock.advance(KEPT_SECONDS - 0.01)
        self.assertFalse(self.freed(kept))
        self.clock.advance(0.01)
        self.assertTrue(self.freed(kept))
        self.assertIsNone(self.taken())

    def test_a_try_that_brings_nothing_prolongs_nothing(self) -> None:
        kept = self.kept()
        self.clock.advance(40)
        self.assertIs(kept, self.taken())
        self.clock.advance(10)
        self.keep.put_back(asked().key_hash, kept)
        self.clock.advance(9.99)
        self.assertFalse(self.freed(kept))
        self.clock.advance(0.01)
        self.assertTrue(self.freed(kept))

    def test_put_back_too_late_it_is_freed_and_a_newer_one_stays(self) -> None:
        kept = self.kept()
        self.assertIs(kept, self.taken())
        self.clock.advance(KEPT_SECONDS)
        newer = self.kept()
        self.keep.put_back(asked().key_hash, kept)
        self.assertTrue(self.freed(kept))
        self.assertIs(newer, self.taken())

    def test_of_one_key_the_last_is_kept(self) -> None:
        old, new = self.kept(), self.kept()
        self.assertEqual((True, False), (self.freed(old), self.freed(new)))
        self.assertEqual(new.broken.received, self.keep.octets)

    def test_of_too_many_the_oldest_is_freed(self) -> None:
        keys = [asked(target=f"/{number}") for number in range(KEPT_CONTENTS + 1)]
        kept = []
        for key in keys:
            kept.append(self.kept(key, CHUNK))
            self.clock.advance(0.1)
        self.assertEqual([True, False], [self.freed(one) for one in kept[:2]])
        self.assertIsNone(self.taken(keys[0]))
        self.assertEqual(kept[1:], [self.taken(key) for key in keys[1:]])

    def test_of_too_many_octets_the_oldest_are_freed(self) -> None:
        self.keep.limit = 6 * CHUNK
        keys = [asked(target=f"/{number}") for number in range(3)]
        kept = []
        for key, chunks in zip(keys, (3, 1, 5), strict=True):
            kept.append(self.kept(key, chunks * CHUNK))
            self.clock.advance(1)
        self.assertEqual([True, False, False], [self.freed(one) for one in kept])
        self.assertEqual(6 * CHUNK, self.keep.octets)

    def test_one_of_too_many_octets_by_itself_leaves_the_others_alone(self) -> None:
        self.keep.limit = 6 * CHUNK
        kept = self.kept()
        self.assertTrue(self.freed(self.kept(asked(target="/large"), 7 * CHUNK)))
        self.assertIs(kept, self.taken())

    def test_a_purge_that_names_it_frees_it(self) -> None:
        lines = ("Surrogate-Key: project/a",)
        for selector in self.kept(None, CHUNK, *lines).plan.stored.selectors:
            kept = self.kept(None, CHUNK, *lines)
            self.board.epoch += 1
            self.control.rows.append((self.board.epoch, selector, PurgeMode.SOFT))
            self.assertIsNone(self.taken())
            self.assertTrue(self.freed(kept))
        kept = self.kept()
        self.board.epoch += 1
        self.control.rows.append((self.board.epoch, 1, PurgeMode.DELETE))
        self.assertIs(kept, self.taken())

    def test_what_the_store_has_refused_meanwhile_is_not_gone_on_with(self) -> None:
        kept = self.kept()
        kept.writer.failed = StoreFull("blobs", "full")
        self.assertIsNone(self.taken())
        self.assertEqual(0, self.keep.octets)

    def test_another_variant_leaves_it_to_whom_it_may_concern(self) -> None:
        german, french = asked("Accept-Language: de"), asked("Accept-Language: fr")
        kept = self.kept(german, CHUNK, "Vary: Accept-Language")
        self.assertIsNone(self.taken(french))
        self.assertIs(kept, self.taken(german))

    def test_a_request_whose_response_is_its_own_leaves_it(self) -> None:
        for line in ("Cache-Control: no-store", "Authorization: Basic eA=="):
            kept = self.kept()
            self.assertIsNone(self.taken(asked(line)))
            self.assertIs(kept, self.taken())
        # A response that all may have although it was asked for with a name and a password.
        kept = self.kept(asked("Authorization: Basic eA=="), CHUNK, "Cache-Control: public")
        self.assertIs(kept, self.taken(asked("Authorization: Basic eQ==")))

    def test_closed_it_frees_all_and_keeps_nothing(self) -> None:
        kept = self.kept()
        self.keep.close()
        self.assertTrue(self.freed(kept))
        self.assertTrue(self.freed(self.kept()))

    def test_a_small_store_keeps_little(self) -> None:
        self.assertEqual(KEPT_OCTETS, kept_octets(1 << 40, 2))
        self.assertEqual(1 << 20, kept_octets(64 << 20, 2))
