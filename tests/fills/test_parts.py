"""Partial content in the store: completed, and ranges answered with it (RFC 9111 §3.3, §3.4)."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from twisted.internet.defer import Deferred

from edgecache.fills import parts as parts_module
from edgecache.fills import waiting
from edgecache.fills.keeping import KEPT_OCTETS
from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward, Store
from edgecache.rules.outbound import outbound
from edgecache.rules.partrecords import Place, part_hash
from edgecache.rules.parts import passing_part
from edgecache.rules.sites import Sites
from edgecache.rules.spans import span_of
from edgecache.store import layout
from edgecache.store.record import unpack
from edgecache.words.counters import Counter
from edgecache.words.messages import Request
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Stored
from tests.fills.rig import Answer, Exchange, Script
from tests.fills.test_artifacts import LARGE, WHEEL, ArtifactCase
from tests.fills.test_breaking import FRESH, TAG, breaks, content_of, digest_of, serves, wrong
from tests.fills.test_keeping import MEGABYTE, REST, TENTH, KeepingCase, nothing, rest, says
from tests.rules.build import NOW, asked, head
from tests.rules.test_parts import plan

LONG = content_of(20_000_000)
"""Of this, a fill that nobody waits for is given up."""


def ranged(content: bytes, *fields: str) -> Script:
    """Whole, or whatever single range is asked for."""

    async def script(exchange: Exchange) -> None:
        asked = exchange.fields.get("range")
        if asked is None:
            await exchange.answer(content, *fields)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(content) - int(last)
        stop = int(last) + 1 if first and last else len(content)
        place = f"Content-Range: bytes {start}-{stop - 1}/{len(content)}"
        await exchange.answer(content[start:stop], place, *fields, status="206 Partial Content")

    return script


class PartsCase(KeepingCase):
    """What breaks off is in the store at once: nothing is kept in hand."""

    async def broken(self, *fields: str, **how: Any) -> Answer:
        self.keep.limit = 0
        before = self.counter(Counter.PARTS_STORED)
        answer = await super().broken(*fields, **how)
        await self.until(lambda: self.counter(Counter.PARTS_STORED) > before)
        return answer

    def records(self) -> list[Stored]:
        """Of responses, as they lie on disk."""
        small = self._environments.small
        with small.env.begin() as txn, txn.cursor(db=small.databases[layout.RECORDS]) as cursor:
            found = [unpack(bytes(value))[0] for _, value in cursor]
        return [one for one in found if isinstance(one, Stored)]

    def parts(self) -> list[tuple[int, int, int | None]]:
        """First octet, the one after the last and complete length of each part that is stored."""
        found = []
        for record in self.records():
            if record.status == 206:
                line = next(one for one in record.head.split(b"\r\n") if one.startswith(b"content-range: "))
                span = span_of(line.removeprefix(b"content-range: "))
                assert span is not None
                self.assertEqual(record.size, span.octets)
                found.append((span.start, span.stop, span.complete))
        return sorted(found)

    async def gone(self) -> None:
        """Until no part is stored any more."""
        await self.until(lambda: not self.parts())


class CompletedTests(PartsCase):
    def test_only_the_rest_is_fetched_all_is_exact_and_the_part_goes(self):
        async def test():
            await self.broken()
            self.assertEqual([(0, TENTH, len(MEGABYTE))], self.parts())
            before = self.counter(Counter.BYTES_FETCHED)
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            [rest] = self.origin.seen
            self.assertEqual((REST, '"one"'), (rest.fields.get("range"), rest.fields.get("if-range")))
            self.assertEqual(len(MEGABYTE) - TENTH, self.counter(Counter.BYTES_FETCHED) - before)
            self.assertEqual(1, self.counter(Counter.COMPLETED))
            await self.gone()

        return self.run_async(test())

    def test_whoever_waits_has_the_beginning_before_the_rest_comes(self):
        async def test():
            await self.broken(content=LONG, after=5_000_000)
            proceed = asyncio.Event()

            self.play(rest(LONG, FRESH, TAG, after=proceed))
            clients = [await self.client() for _ in range(3)]
            for client in clients:
                client.send(self.target)
            for client in clients:
                await client.head()
                self.assertEqual(LONG[:5_000_000], await client.reader.readexactly(5_000_000))
            proceed.set()
            for client in clients:
                self.assertEqual(LONG[5_000_000:], await client.reader.readexactly(len(LONG) - 5_000_000))
            self.assertEqual(LONG, (await self.hit(self.target)).content)
            self.assertEqual(1, len(self.ranges))

        return self.run_async(test())

    def test_who_has_the_beginning_too_and_asks_for_the_rest_waits_for_what_the_fill_fetches(self):
        """A client that goes on where it was cut, or a sibling with a beginning of its own"""

        async def test():
            await self.broken(content=LONG, after=5_000_000)
            self.play(ranged(LONG, FRESH, TAG))
            answer = await self.ask(self.target, "Range: bytes=4990000-", 'If-Range: "one"')
            self.assertEqual((206, True), (answer.status, answer.content == LONG[4_990_000:]))
            self.assertEqual(LONG, (await self.hit(self.target)).content)
            self.assertEqual([f"bytes={5_000_000 - 4096}-"], self.ranges)

        return self.run_async(test())

    def test_but_not_while_too_much_is_copied_first(self):
        """Who hears nothing for long takes it for stalled"""

        async def test():
            self.patch(waiting, "COPIED_AHEAD", 1_000_000)
            await self.broken(content=LONG, after=5_000_000)
            self.play(ranged(LONG, FRESH, TAG))
            answer = await self.ask(self.target, "Range: bytes=4990000-")
            self.assertEqual((206, True), (answer.status, answer.content == LONG[4_990_000:]))
            self.assertEqual({f"bytes={5_000_000 - 4096}-", f"bytes=4990000-{len(LONG) - 1}"}, set(self.ranges))

        return self.run_async(test())

    def test_where_the_whole_is_stored_that_is_validated_and_no_rest_fetched(self):
        """A worker that stops may store a beginning after the one in its place has stored the whole"""

        async def test():
            stale = "Cache-Control: max-age=60", "Age: 60", TAG
            self.play(says("200 OK", *stale, content=MEGABYTE))
            self.assertEqual(200, (await self.ask(self.target)).status)
            await self.until(lambda: bool(self.records()))
            [whole] = self.records()
            parts: Any = self.keep.spill.__self__  # type: ignore[attr-defined]
            request = ask(Request(b"GET", self.target.encode(), b"edge.test", []), Sites(self.config))
            assert isinstance(request, Asked)
            writer = parts._writer.begin()
            writer.write(MEGABYTE[:TENTH])
            parts.keep(request.key_hash, Store(whole, request.key_hash, None, whole), writer)
            await self.until(lambda: bool(self.parts()))
            self.origin.seen.clear()
            self.play(says("304 Not Modified", FRESH, TAG))
            await self.whole()
            [asked] = self.origin.seen
            self.assertEqual(('"one"', None), (asked.fields.get("if-none-match"), asked.fields.get("range")))
            await self.gone()

        return self.run_async(test())

    def test_what_nobody_waits_for_any_longer_is_stored_as_far_as_it_came(self):
        async def test():
            self.target = "/long"
            came = asyncio.Event()

            async def halting(exchange: Exchange) -> None:
                await exchange.answer(b"", FRESH, TAG, f"Content-Length: {len(LONG)}", length=False)
                await exchange.send(LONG[:1_000_000])
                came.set()
                await exchange.wait_closed()

            self.play(halting)
            client = await self.client()
            client.send(self.target)
            await client.head()
            self.assertEqual(LONG[:1_000_000], await client.reader.readexactly(1_000_000))
            client.leave()
            await self.until(lambda: self.parts() == [(0, 1_000_000, len(LONG))])
            self.origin.seen.clear()
            self.play(serves(LONG, FRESH, TAG))
            await self.whole(content=LONG)
            self.assertEqual([f"bytes={1_000_000 - 4096}-"], self.ranges)

        return self.run_async(test())

    def test_by_digest_all_of_it_is_checked_the_beginning_too(self):
        async def test():
            fields = FRESH, digest_of(MEGABYTE)
            await self.broken(*fields)
            self.play(serves(MEGABYTE, *fields))
            await self.whole()
            self.assertEqual([REST], self.ranges)
            # Whose first octets were wrong when they were stored.
            await self.broken(*fields, content=wrong(MEGABYTE, 5))
            self.play(serves(MEGABYTE, *fields))
            await self.whole()
            self.assertEqual([REST, None], self.ranges)

        return self.run_async(test())

    def test_found_wrong_at_the_end_it_is_not_gone_on_with_again(self):
        """Clients have the begin of one of over a MiB by then, and are cut"""

        async def test():
            content, came = content_of(3_000_000), 1_500_000
            # Its first octet, which only a digest finds; and one that the rest begins with.
            for field, at in ((digest_of(content), 0), (digest_of(content), came - 1), (TAG, came - 1)):
                await self.broken(FRESH, field, content=wrong(content, at), after=came)
                self.play(serves(content, FRESH, field))
                self.assertFalse((await self.ask(self.target)).complete)
                await self.gone()
                await self.whole(content=content)
                self.assertIsNone(self.ranges[-1])

        return self.run_async(test())

    def test_while_it_is_doubted_what_is_from_several_none_is_gone_on_with(self):
        """Of what was found wrong there may be another, older beginning: that all came from"""

        async def test():
            content, came, more = content_of(3_000_000), 1_500_000, 1_700_000
            fields = FRESH, digest_of(content)
            await self.broken(*fields, content=wrong(content, 0), after=came)
            self.keep.limit = KEPT_OCTETS

            self.play(rest(content, *fields, stop=more), nothing())
            self.assertFalse((await self.ask(self.target)).complete)
            self.play(serves(content, *fields))
            self.assertFalse((await self.ask(self.target)).complete)
            self.assertEqual(f"bytes={more - 4096}-", self.ranges[-1])
            await self.whole(content=content)
            self.assertIsNone(self.ranges[-1])
            await self.gone()

        return self.run_async(test())

    def test_another_representation_is_fetched_whole_and_the_part_goes(self):
        async def test():
            await self.broken()
            other = content_of(500_000)
            self.play(says("200 OK", FRESH, 'ETag: "two"', content=other))
            await self.whole(content=other)
            self.assertEqual([REST], self.ranges)
            await self.gone()

        return self.run_async(test())

    def test_while_no_upstream_has_the_rest_it_stays(self):
        async def test():
            await self.broken()
            self.play(nothing())
            self.assertEqual(503, (await self.ask(self.target)).status)
            self.assertEqual([(0, TENTH, len(MEGABYTE))], self.parts())
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual({REST}, set(self.ranges))

        return self.run_async(test())

    def test_try_after_try_brings_more(self):
        async def test():
            await self.broken()
            for come in (300_000, 300_000, 700_000):
                self.play(rest(MEGABYTE, FRESH, TAG, stop=come))
                answer = await self.ask(self.target)
                self.assertEqual((False, True), (answer.complete, answer.content == MEGABYTE[:come]))
                await self.until(lambda come=come: self.parts() == [(0, come, len(MEGABYTE))])
            self.origin.seen.clear()
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([f"bytes={700_000 - 4096}-"], self.ranges)

        return self.run_async(test())

    def test_it_goes_once_the_whole_is_stored_whatever_that_was_completed_from(self):
        """It broke off once more, and the next try went on with what was kept in hand of that"""

        async def test():
            await self.broken()
            self.keep.limit = KEPT_OCTETS

            self.play(rest(MEGABYTE, FRESH, TAG, stop=500_000), nothing())
            self.assertFalse((await self.ask(self.target)).complete)
            self.assertEqual([(0, TENTH, len(MEGABYTE))], self.parts())
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual(f"bytes={500_000 - 4096}-", self.ranges[-1])
            await self.gone()

        return self.run_async(test())

    def test_it_takes_the_place_of_nothing_whole(self):
        """What varies only now would hide what is stored without that, and is a part"""

        async def test():
            self.target = "/varying"
            self.play(says("200 OK", FRESH, TAG, content=b"whole"))
            self.assertEqual(b"whole", (await self.ask(self.target)).content)
            await self.hit(self.target)
            self.keep.limit = 0
            self.play(breaks(LONG, 5_000_000, FRESH, 'ETag: "two"', "Vary: Accept-Language"), nothing())
            self.assertFalse((await self.ask(self.target, "Cache-Control: no-cache")).complete)
            # Committed after whatever was to be stored.
            self.origin.scripts["/other"] = says("200 OK", FRESH, TAG, content=b"other")
            await self.hit("/other")
            answer = await self.ask(self.target)
            self.assertEqual((True, b"whole"), (answer.hit, answer.content))

        return self.run_async(test())

    def test_who_waits_for_one_is_told_once_though_two_are_on_their_way(self):
        async def test():
            parts: Any = self.keep.spill.__self__  # type: ignore[attr-defined]
            request, how = asked(), plan('ETag: "one"', size=len(MEGABYTE))
            writers = [parts._writer.begin() for _ in range(2)]
            for writer in writers:
                writer.write(MEGABYTE[:TENTH])
            parts.keep(request.key_hash, how, writers[0])
            taking = Deferred.fromCoroutine(
                parts.take(how.record_hash, request, outbound(request, Forward(ForwardReason.URI_MISS)))
            )
            parts.keep(request.key_hash, how, writers[1])
            beginning = await taking.asFuture(asyncio.get_running_loop())
            self.assertEqual(TENTH, beginning.broken.received)
            beginning.give_back(self.keep, b"")
            await self.until(lambda: not parts._storing)
            gc.collect()
            self.assertEqual([], self.flushLoggedErrors())
            self.assertEqual([(0, TENTH, len(MEGABYTE))], self.parts())

        return self.run_async(test())

    def test_where_the_disk_stands_still_nobody_waits_for_it(self):
        async def test():
            self.patch(parts_module, "STORED_SECONDS", 0.01)
            parts: Any = self.keep.spill.__self__  # type: ignore[attr-defined]
            self.play(says("200 OK", FRESH, TAG, content=b"whole"))
            request = ask(Request(b"GET", self.target.encode(), b"edge.test", []), Sites(self.config))
            assert isinstance(request, Asked)
            lies = part_hash(request.key_hash, Place.BEGINNING)
            parts._storing[lies] = []
            self.assertEqual(b"whole", (await self.ask(self.target)).content)
            self.assertEqual([], parts._storing.pop(lies))

        return self.run_async(test())

    def test_damaged_on_disk_it_is_fetched_whole_by_whom_nothing_was_sent(self):
        async def test():
            fields = FRESH, digest_of(MEGABYTE)
            await self.broken(*fields, after=400_000)
            [part] = self.records()
            blobs = self._environments.blobs
            with blobs.env.begin(write=True) as txn:
                chunk = layout.place(part.content_id, 3)
                self.assertTrue(txn.put(chunk, b"x" * layout.CHUNK_VALUE, db=blobs.databases[layout.CHUNKS]))
            self.play(serves(MEGABYTE, *fields))
            await self.whole()
            self.assertEqual([f"bytes={400_000 - 4096}-", None], self.ranges)
            self.assertGreater(self.counter(Counter.DAMAGED), 0)

        return self.run_async(test())

    def test_a_purge_in_between_forgets_it(self):
        async def test():
            await self.broken()
            await self.purge(self.selector())
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual([None], self.ranges)
            await self.gone()

        return self.run_async(test())

    def test_each_variant_has_its_own(self):
        async def test():
            vary = "Vary: Accept-Language"
            self.keep.limit = 0
            self.play(breaks(MEGABYTE, TENTH, FRESH, TAG, vary), nothing())
            self.assertFalse((await self.ask(self.target, "Accept-Language: de")).complete)
            await self.until(lambda: bool(self.parts()))
            self.origin.seen.clear()
            other = content_of(200_000)
            self.play(says("200 OK", FRESH, 'ETag: "two"', vary, content=other))
            await self.whole("Accept-Language: fr", content=other)
            self.assertEqual([None], self.ranges)
            self.play(serves(MEGABYTE, FRESH, TAG, vary))
            await self.whole("Accept-Language: de")
            self.assertEqual([None, REST], self.ranges)

        return self.run_async(test())

    def test_a_request_whose_response_is_its_own_does_not_go_on_with_it(self):
        async def test():
            await self.broken()
            self.play(ranged(MEGABYTE, FRESH, TAG))
            answer = await self.ask(self.target, "Cache-Control: no-store")
            self.assertEqual(MEGABYTE, answer.content)
            self.assertEqual([None], self.ranges)
            self.assertEqual([(0, TENTH, len(MEGABYTE))], self.parts())

        return self.run_async(test())

    def test_of_what_nothing_would_fit_to_no_part_is_stored(self):
        """No validator; chunks, whose length nobody knows; the store takes nothing"""

        async def test():
            self.keep.limit = 0
            for fields, how in (((FRESH,), {}), ((FRESH, TAG), {"chunked": True})):
                await KeepingCase.broken(self, *fields, **how)
                self.play(serves(MEGABYTE, *fields))
                await self.whole()
                self.assertEqual([None], self.ranges, fields)
            self._page.set_full(True, True)
            await KeepingCase.broken(self)
            self._page.set_full(False, False)
            self.play(serves(MEGABYTE, FRESH, TAG))
            await self.whole()
            self.assertEqual(([None], []), (self.ranges, self.parts()))
            self.assertEqual(0, self.counter(Counter.PARTS_STORED))

        return self.run_async(test())


class RangesTests(PartsCase):
    """A range that is wholly within what is stored is answered with it (RFC 9111 §3.3)."""

    async def part(self, wanted: str, *fields: str) -> Answer:
        return await self.ask(self.target, f"Range: bytes={wanted}", *fields)

    def test_what_is_within_a_beginning_is_a_hit_and_what_is_not_is_fetched(self):
        async def test():
            await self.broken()
            size = len(MEGABYTE)
            for wanted, start, stop in (("0-0", 0, 1), (f"70000-{TENTH - 1}", 70_000, TENTH), ("0-65535", 0, 65_536)):
                answer = await self.part(wanted)
                self.assertEqual((206, True), (answer.status, answer.hit), wanted)
                self.assertEqual(MEGABYTE[start:stop], answer.content)
                self.assertEqual(f"bytes {start}-{stop - 1}/{size}", answer.fields["content-range"])
                self.assertEqual('"one"', answer.fields["etag"])
            self.assertEqual([], self.origin.seen)
            self.assertEqual((3, 3), (self.counter(Counter.PART_HITS), self.counter(Counter.HITS)))
            self.play(ranged(MEGABYTE, FRESH, TAG))
            answer = await self.part(f"5-{TENTH}")
            self.assertEqual((206, False), (answer.status, answer.hit))
            self.assertEqual(MEGABYTE[5 : TENTH + 1], answer.content)
            self.assertEqual([REST], self.ranges)

        return self.run_async(test())

    def test_the_conditions_of_a_range_are_kept(self):
        async def test():
            await self.broken()
            self.assertTrue((await self.part("0-9", 'If-Range: "one"')).hit)
            self.play(ranged(MEGABYTE, FRESH, TAG))
            answer = await self.part("0-9", 'If-Range: "other"')
            self.assertEqual((200, False, True), (answer.status, answer.hit, answer.content == MEGABYTE))

        return self.run_async(test())

    def test_stale_purged_or_not_accepted_it_answers_nobody(self):
        async def test():
            for spoil in ("stale", "purged", "no-cache"):
                fields = ("Cache-Control: max-age=60", "Age: 60", TAG) if spoil == "stale" else (FRESH, TAG)
                await self.broken(*fields)
                if spoil == "purged":
                    await self.purge(self.selector())
                self.play(ranged(MEGABYTE, FRESH, TAG))
                directives = ("Cache-Control: no-cache",) if spoil == "no-cache" else ()
                answer = await self.part("0-9", *directives)
                self.assertEqual((206, False, MEGABYTE[:10]), (answer.status, answer.hit, answer.content), spoil)
                self.assertEqual(1, len(self.origin.seen))

        return self.run_async(test())

    def test_of_a_content_with_a_digest_nothing_is_shown_that_is_not_checked(self):
        async def test():
            await self.broken(FRESH, TAG, digest_of(MEGABYTE))
            self.play(ranged(MEGABYTE, FRESH, TAG, digest_of(MEGABYTE)))
            answer = await self.part("0-9")
            self.assertEqual((206, False, MEGABYTE[:10]), (answer.status, answer.hit, answer.content))

        return self.run_async(test())


class AsideTests(PartsCase):
    """A part that passes to one client, because it is far ahead of the fill or nothing else came, is stored."""

    async def filling(self, *fields: str) -> asyncio.Event:
        """A fill has begun and halts. :return: to be set for it to go on."""
        proceed = asyncio.Event()
        self.target = "/ahead"
        part = ranged(LONG, *fields)

        async def script(exchange: Exchange) -> None:
            if "range" in exchange.fields:
                await part(exchange)
                return
            await exchange.answer(b"", *fields, f"Content-Length: {len(LONG)}", length=False)
            await exchange.send(LONG[:100_000])
            await proceed.wait()
            await exchange.send(LONG[100_000:])

        self.play(script)
        self.first = await self.client()
        self.first.send(self.target)
        await self.first.head()
        return proceed

    async def ending(self, octets: int) -> Answer:
        answer = await self.ask(self.target, f"Range: bytes=-{octets}")
        self.assertEqual((206, LONG[-octets:]), (answer.status, answer.content))
        return answer

    def test_the_next_who_asks_for_the_ending_has_it_from_the_store(self):
        async def test():
            proceed = await self.filling(FRESH, TAG)
            self.assertFalse((await self.ending(100_000)).hit)
            await self.until(lambda: self.parts() == [(len(LONG) - 100_000, len(LONG), len(LONG))])
            for octets in (100_000, 65_536, 1):
                self.assertTrue((await self.ending(octets)).hit)
            self.assertEqual([None, f"bytes={len(LONG) - 100_000}-{len(LONG) - 1}"], self.ranges)
            self.assertFalse((await self.ending(100_001)).hit)
            proceed.set()
            self.assertEqual(LONG, await self.first.reader.readexactly(len(LONG)))

        return self.run_async(test())

    def test_of_another_representation_than_the_one_that_is_filled_it_is_of_no_use(self):
        async def test():
            proceed = await self.filling(FRESH, TAG)
            await self.ending(1000)
            await self.until(lambda: bool(self.parts()))
            proceed.set()
            self.assertEqual(LONG, (await self.hit(self.target)).content)
            await self.purge(self.selector(), mode=1)
            other = await self.filling(FRESH, 'ETag: "two"')
            self.assertFalse((await self.ending(1000)).hit)
            other.set()

        return self.run_async(test())

    def test_nor_where_that_one_may_still_be_fresh(self):
        async def test():
            self.target = "/changed"
            tags = ['"one"']

            async def script(exchange: Exchange) -> None:
                tag, last = tags[-1], exchange.fields.get("range", "").endswith(f"-{len(LONG) - 1}")
                if last:
                    await ranged(LONG, FRESH, f"ETag: {tag}")(exchange)
                    return
                await exchange.answer(b"", FRESH, f"ETag: {tag}", f"Content-Length: {len(LONG)}", length=False)
                await exchange.send(LONG[:100_000])
                await exchange.wait_closed()

            self.play(script)
            client = await self.client()
            client.send(self.target)
            await client.head()
            await self.ending(1000)
            client.leave()
            await self.until(lambda: len(self.parts()) == 2)
            self.assertTrue((await self.ending(1000)).hit)
            tags.append('"two"')
            client = await self.client()
            client.send(self.target)
            self.assertEqual('"two"', (await client.head()).fields["etag"])
            answer = await self.ending(1000)
            self.assertEqual((False, '"two"'), (answer.hit, answer.fields["etag"]))

        return self.run_async(test())

    def test_while_the_store_is_behind_it_passes_only(self):
        """Its client sets the pace, and what waits for the disk waits in memory"""

        async def test():
            parts: Any = self.keep.spill.__self__  # type: ignore[attr-defined]
            budget = parts._writer._shared.budget
            budget.limit = 0
            request = asked("Range: bytes=-300000")
            said = head("Cache-Control: max-age=60", "Content-Range: bytes 700000-999999/1000000", status=206)
            found = passing_part(request, said, 300_000, NOW, NOW, 0)
            assert found is not None
            aside = parts.aside(request, found)
            for start in range(700_000, 1_000_000, 100_000):
                aside.data(MEGABYTE[start : start + 100_000])
            aside.ended()
            await self.until(lambda: not budget.held)
            self.assertEqual(({}, []), (parts._storing, self.parts()))

        return self.run_async(test())

    def test_however_many_are_sent_it_at_once_it_is_written_once(self):
        async def test():
            parts: Any = self.keep.spill.__self__  # type: ignore[attr-defined]
            request = asked("Range: bytes=-300000")
            said = head("Cache-Control: max-age=60", "Content-Range: bytes 700000-999999/1000000", status=206)
            found = passing_part(request, said, 300_000, NOW, NOW, 0)
            assert found is not None
            aside = parts.aside(request, found)
            self.assertIsNone(parts.aside(request, found))
            aside.data(MEGABYTE[700_000:])
            aside.ended()
            self.assertIsNone(parts.aside(request, found))
            await self.until(lambda: self.parts() == [(700_000, 1_000_000, 1_000_000)])
            await self.until(lambda: not parts._storing)
            # Of one whose client had left before its first octet nobody hears.
            del aside
            for _ in range(2):
                self.assertIsNotNone(parts.aside(request, found))

        return self.run_async(test())

    def test_a_part_that_an_origin_gives_unasked_is_what_it_says(self):
        async def test():
            part = says("206 Partial Content", FRESH, TAG, "Content-Range: bytes 5-9/10", content=b"56789")
            self.target = "/unasked"
            self.play(part)
            answer = await self.ask(self.target, "Range: bytes=-5")
            self.assertEqual((206, b"56789"), (answer.status, answer.content))
            await self.until(lambda: self.parts() == [(5, 10, 10)])
            for wanted, content in (("-5", b"56789"), ("6-8", b"678"), ("6-", b"6789"), ("-1", b"9")):
                answer = await self.ask(self.target, f"Range: bytes={wanted}")
                self.assertEqual((206, True, content), (answer.status, answer.hit, answer.content), wanted)
            self.assertEqual(1, len(self.origin.seen))

        return self.run_async(test())

    def test_what_may_not_be_stored_or_contradicts_itself_passes_only(self):
        async def test():
            right = "Content-Range: bytes 5-9/10"
            for number, (fields, content) in enumerate(
                (
                    (("Cache-Control: no-store", TAG, right), b"56789"),
                    (("Cache-Control: private", TAG, right), b"56789"),
                    (("Cache-Control: max-age=0", TAG, right), b"56789"),
                    ((FRESH, TAG, "Vary: *", right), b"56789"),
                    ((FRESH, TAG, "Content-Range: bytes 4-9/10"), b"56789"),
                    ((FRESH, TAG, "Content-Range: bytes 5-9/*"), b"56789"),
                    ((FRESH, TAG, "Content-Range: bytes 5-9/8"), b"56789"),
                    ((FRESH, TAG, "Content-Range: bytes 3-7/10"), b"34567"),
                    ((FRESH, TAG, digest_of(b"0123456789"), right), b"56789"),
                )
            ):
                self.target = f"/{number}"
                self.play(says("206 Partial Content", *fields, content=content))
                for _ in range(2):
                    answer = await self.ask(self.target, "Range: bytes=-5")
                    self.assertEqual((206, False), (answer.status, answer.hit), fields)
            self.assertEqual([], self.parts())

        return self.run_async(test())

    def test_what_others_may_be_sent_is_asked_for_as_the_whole_is_without_conditions(self):
        async def test():
            proceed = await self.filling(FRESH, TAG)
            answer = await self.ask(self.target, "Range: bytes=-1000", 'If-Range: "one"', 'If-None-Match: "other"')
            self.assertEqual((206, LONG[-1000:]), (answer.status, answer.content))
            asked = self.origin.seen[-1].fields
            self.assertIn("range", asked)
            self.assertEqual([], [name for name in ("if-range", "if-none-match") if name in asked])
            proceed.set()

        return self.run_async(test())

    def test_what_was_asked_for_with_a_clients_own_conditions_passes_only(self):
        async def test():
            self.target = "/own"
            self.play(ranged(LONG, FRESH, TAG))
            answer = await self.ask(self.target, "Range: bytes=-1000", 'If-Match: "one"')
            self.assertEqual(206, answer.status)
            self.assertEqual([], self.parts())

        return self.run_async(test())


class NamedTests(ArtifactCase):
    """A beginning from before its page gave a digest is none of what has to have that"""

    page_seconds = 0.001

    def test_what_its_page_names_by_digest_is_checked_from_its_first_octet(self):
        async def test():
            [worker] = self._workers
            worker._keep.limit = 0
            target, bad = "/files/six/-/" + WHEEL, wrong(LARGE, 5)
            tag = 'ETag: "one"'
            self.named(LARGE, breaks(bad, 500_000, tag), hashes={})
            self.assertFalse((await self.ask(target)).complete)
            await self.until(lambda: self.counter(Counter.PARTS_STORED) == 1)
            self.named(LARGE, ranged(LARGE, tag))
            self.assertTrue((await self.ask(target)).content == LARGE)
            self.assertTrue((await self.hit(target)).content == LARGE)

        return self.index(test())
