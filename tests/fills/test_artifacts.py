"""Files that the pages of an index name: found by the page wherever they are, and never wrong (DESIGN 10)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from edgecache.rules.selectors import Selector
from edgecache.store.pagelayout import FENCED
from edgecache.words.config import Policy, Profile
from edgecache.words.counters import Counter
from tests.fills.rig import Exchange, Origin, RigCase, Script

LARGE = random.Random(1).randbytes(3_000_000)
SMALL = b"a small wheel"
WHEEL = "six-1.0-py3-none-any.whl"


def flipped(content: bytes) -> bytes:
    """One octet in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes((content[middle] ^ 1,)) + content[middle + 1 :]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def path(content: bytes, name: str = WHEEL, companion: str = "") -> str:
    return f"/files/six/{sha256(content)}/{name}{companion}"


def serves(content: bytes, *fields: str, ranges: bool = True) -> Script:
    """What a plain file server does."""

    async def script(exchange: Exchange) -> None:
        asked = exchange.fields.get("range")
        if asked is None or not ranges:
            await exchange.answer(content, *fields)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, stop = int(first), (int(last) + 1 if last else len(content))
        said = f"Content-Range: bytes {start}-{stop - 1}/{len(content)}"
        await exchange.answer(content[start:stop], said, *fields, status="206 Partial Content")

    return script


def answers(status: int, *fields: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"theirs", *fields, status=f"{status} Whatever")

    return script


class ArtifactCase(RigCase):
    """
    One index of one project, ``six``.

    :ivar logged: what the fills have logged.
    """

    profile = Profile.INDEX

    def index(self, test: Coroutine[Any, Any, None]) -> Deferred[None]:
        self.logged: list[str] = []

        def log(event: dict[str, Any]) -> None:
            if event["log_namespace"].startswith("edgecache.fills"):
                self.logged.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(log)
        self.addCleanup(globalLogPublisher.removeObserver, log)
        return self.run_async(test)

    def page(self, *files: dict[str, Any], status: str = "active") -> None:
        """What the page of the project says from now on, at every origin."""
        meta = {"api-version": "1.4", "_last-serial": 1}
        document = {"meta": meta, "name": "six", "files": files, "project-status": {"status": status}}
        content = json.dumps(document).encode()
        kind = "Content-Type: application/vnd.pypi.simple.v1+json"
        for origin in (self.origin, *self.others):
            origin.scripts["/simple/six/"] = serves(content, kind, f'ETag: "{sha256(content)[:8]}"', ranges=False)

    def named(self, content: bytes, script: Script | None = None, **more: Any) -> str:
        """The page names a file with this content; :return: its path here."""
        self.page(entry(content, **more))
        for origin in (self.origin, *self.others):
            origin.scripts[f"/packages/{WHEEL}"] = script or serves(content)
        return path(content)

    async def purge_project(self) -> None:
        await self.purge(Selector("tag", self.site_id, b"project/six"))

    @property
    def site_id(self) -> int:
        from edgecache.rules.sites import Sites

        return Sites(self.config).all[0].id

    def asked_for(self, name: str = WHEEL) -> int:
        """How often any origin was asked for the file."""
        return sum(origin.count(f"/packages/{name}") for origin in (self.origin, *self.others))


def entry(content: bytes, url: str = f"../../packages/{WHEEL}", name: str = WHEEL, **more: Any) -> dict[str, Any]:
    """One file of a page; ``None`` leaves a key away."""
    said = {"filename": name, "url": url, "hashes": {"sha256": sha256(content)}, "size": len(content), **more}
    return {key: value for key, value in said.items() if value is not None}


class FindingTests(ArtifactCase):
    """The page says where a file is."""

    def test_a_file_is_found_verified_and_kept(self):
        async def test() -> None:
            for content in (SMALL, LARGE):
                target = self.named(content)
                await self.purge_project()
                first = await self.ask(target)
                self.assertEqual((200, content, True), (first.status, first.content, first.complete))
                self.assertIn("fwd=uri-miss; stored", first.cache_status)
                second = await self.hit(target)
                self.assertEqual(content, second.content)
                self.assertEqual(f'"{sha256(content)}"', second.fields["etag"])
                self.assertEqual("max-age=365000000, immutable", second.fields["cache-control"])

        return self.index(test())

    def test_what_the_page_does_not_name_is_404_and_no_file_host_is_asked(self):
        async def test() -> None:
            self.named(SMALL)
            for target in (path(LARGE), path(SMALL, "other.whl"), f"/files/six/-/{WHEEL}x", path(SMALL) + ".metadata"):
                answer = await self.ask(target)
                self.assertEqual(404, answer.status, target)
                self.assertIn("error=destination_not_found", answer.fields["proxy-status"])
                self.assertTrue((await self.hit(target)).hit)
            self.assertEqual(0, self.asked_for())

        return self.index(test())

    def test_a_file_of_a_project_that_there_is_not_is_404(self):
        async def test() -> None:
            self.origin.scripts["/simple/six/"] = answers(404)
            self.assertEqual(404, (await self.ask(path(SMALL))).status)

        return self.index(test())

    def test_without_its_page_it_is_503_and_never_404(self):
        async def test() -> None:
            for script in (answers(500), answers(503), answers(401), answers(200, "Content-Type: text/plain")):
                self.origin.scripts["/simple/six/"] = script
                answer = await self.ask(path(SMALL))
                self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]))
                self.assertIn("destination_unavailable", answer.fields["proxy-status"])

        return self.index(test())

    def test_a_file_that_was_uploaded_after_our_page_is_found(self):
        """Another node may have given the client a newer page than ours."""

        async def test() -> None:
            self.named(SMALL)
            await self.ask(path(SMALL))
            target = self.named(LARGE)
            self.assertEqual(LARGE, (await self.ask(target)).content)

        return self.index(test())

    def test_the_first_file_of_a_project_that_there_was_not_is_found(self):
        async def test() -> None:
            self.origin.scripts["/simple/six/"] = answers(404)
            self.assertEqual(404, (await self.ask("/simple/six/")).status)
            target = self.named(SMALL)
            self.assertEqual(SMALL, (await self.ask(target)).content)

        return self.index(test())

    def test_a_page_that_names_it_is_not_asked_for_again(self):
        async def test() -> None:
            for content, name in ((SMALL, "a.whl"), (LARGE, "b.whl")):
                self.origin.scripts[f"/packages/{name}"] = serves(content)
            names = ("a.whl", "b.whl")
            self.page(
                *(
                    entry(content, f"../../packages/{name}", name)
                    for content, name in zip((SMALL, LARGE), names, strict=True)
                )
            )
            self.assertEqual(SMALL, (await self.ask(path(SMALL, "a.whl"))).content)
            self.assertEqual(LARGE, (await self.ask(path(LARGE, "b.whl"))).content)
            self.assertEqual(1, self.origin.count("/simple/six/"))

        return self.index(test())

    def test_without_a_digest_a_file_is_what_its_host_says(self):
        async def test() -> None:
            self.named(SMALL, serves(SMALL, "Cache-Control: max-age=60", 'ETag: "theirs"'), hashes={})
            target = f"/files/six/-/{WHEEL}"
            self.assertEqual(SMALL, (await self.ask(target)).content)
            stored = await self.hit(target)
            self.assertEqual((SMALL, '"theirs"'), (stored.content, stored.fields["etag"]))
            self.assertNotIn("repr-digest", stored.fields)

        return self.index(test())


class OwnerTests(ArtifactCase):
    """The key's owner finds and verifies; so does whoever it answers."""

    workers = 2

    def test_any_worker_gives_it_out_and_its_host_is_asked_once(self):
        async def test() -> None:
            for content in (SMALL, LARGE):
                target = self.named(content)
                await self.purge_project()
                for worker in (0, 1):
                    answer = await self.ask(target, worker=worker)
                    self.assertEqual((200, content, True), (answer.status, answer.content, answer.complete))
                self.assertEqual(404, (await self.ask(path(b"?"), worker=0)).status)
                self.assertEqual(404, (await self.ask(path(b"?"), worker=1)).status)
            self.assertEqual(2, self.asked_for())

        return self.index(test())

    def test_no_worker_completes_a_wrong_one(self):
        async def test() -> None:
            for content in (SMALL, LARGE):
                target = self.named(content, serves(flipped(content)))
                await self.purge_project()
                for worker in (0, 1):
                    answer = await self.ask(target, worker=worker)
                    self.assertTrue(answer.status == 503 or not answer.complete, answer.status)

        return self.index(test())


class LinkTests(ArtifactCase):
    """Files on other hosts than the index's."""

    def elsewhere(self, host: str = "localhost") -> str:
        """:return: where the file is."""
        return f"http://{host}:{self.files.port}/far/{WHEEL}"

    async def _start(self) -> None:
        self.files = Origin()
        await self.files.start()
        await super()._start()

    async def _stop(self) -> None:
        await self.files.stop()
        await super()._stop()

    def test_a_file_on_another_host_is_fetched_from_there(self):
        async def test() -> None:
            url = self.elsewhere()
            self.page(entry(SMALL, url))
            self.files.scripts[f"/far/{WHEEL}"] = serves(SMALL)
            self.assertEqual(SMALL, (await self.ask(path(SMALL))).content)
            self.assertEqual([url.removesuffix(f"/far/{WHEEL}")], self.links)
            self.assertEqual(SMALL, (await self.hit(path(SMALL))).content)

        return self.index(test())

    def test_a_host_that_only_we_can_reach_is_not_asked(self):
        async def test() -> None:
            self.names["inside.example"] = "10.1.2.3"
            for host in ("inside.example", "169.254.169.254", "10.0.0.1", "[fe80::1]", "unknown.example"):
                self.page(entry(SMALL, f"http://{host}/far/{WHEEL}"))
                await self.purge_project()
                answer = await self.ask(path(SMALL))
                self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]), host)
                expected = "dns_error" if host == "unknown.example" else "destination_ip_prohibited"
                self.assertIn(expected, answer.fields["proxy-status"], host)
            self.assertIn("which is not asked: has the addresses 10.1.2.3", "\n".join(self.logged))

        return self.index(test())

    def test_redirects_of_a_file_s_host_are_the_client_s_to_follow(self):
        async def test() -> None:
            self.page(entry(SMALL, self.elsewhere()))
            self.files.scripts[f"/far/{WHEEL}"] = answers(302, "Location: /signed?x=1", "Set-Cookie: a=b")
            answer = await self.ask(path(SMALL))
            self.assertEqual(
                (302, f"http://localhost:{self.files.port}/signed?x=1"), (answer.status, answer.fields["location"])
            )
            self.assertNotIn("set-cookie", answer.fields)
            self.assertEqual(0, self.files.count("/signed?x=1"))

        return self.index(test())

    def test_it_is_told_nothing_of_the_index_s_clients(self):
        async def test() -> None:
            self.page(entry(SMALL, self.elsewhere()))
            self.files.scripts[f"/far/{WHEEL}"] = serves(SMALL)
            await self.ask(path(SMALL), "Cookie: a=b", "Authorization: Basic YTpi", "X-Whatever: 1")
            (seen,) = self.files.seen
            self.assertEqual(f"localhost:{self.files.port}", seen.fields["host"])
            expected = {"host", "accept", "accept-encoding", "user-agent", "via", "cdn-loop"}
            self.assertEqual(expected, set(seen.fields))

        return self.index(test())


class NosyTests(LinkTests):
    """What the index may know of its clients is nobody else's business."""

    site = {"preserve_host": True, "pass_authorization": True}


class VerifyingTests(ArtifactCase):
    """Of two origins the one that is asked first has the file with one octet flipped."""

    origins = 2
    policy = Policy.ORDERED

    def mirrored(self, content: bytes, *, bad: Script | None = None) -> str:
        """The first origin has it wrong, the second right; :return: its path here."""
        target = self.named(content)
        self.origin.scripts[f"/packages/{WHEEL}"] = bad or serves(flipped(content))
        return target

    def complaints(self) -> list[str]:
        return [line for line in self.logged if "wrong content" in line]

    def test_a_small_file_is_right_whoever_is_asked_first(self):
        async def test() -> None:
            target = self.mirrored(SMALL)
            self.assertEqual(SMALL, (await self.ask(target)).content)
            self.assertEqual(SMALL, (await self.hit(target)).content)
            (complaint,) = self.complaints()
            self.assertIn(f"sha-256 {sha256(SMALL)} was expected, {sha256(flipped(SMALL))} came", complaint)
            self.assertIn(f"127.0.0.1:{self.origin.port}", complaint)
            await self.until(lambda: "wrong-digest" in self.told)
            self.assertEqual(1, self.counter(Counter.WRONG_CONTENTS))

        return self.index(test())

    def test_a_large_file_is_cut_and_right_on_the_client_s_own_retry(self):
        async def test() -> None:
            target = self.mirrored(LARGE)
            first = await self.ask(target)
            self.assertFalse(first.complete)
            self.assertLessEqual(len(first.content), len(LARGE) - (64 << 10))
            etag = first.fields["etag"]
            # pip goes on where it was cut: it must start over (FIELD 3).
            again = await self.ask(target, f"Range: bytes={len(first.content)}-", f"If-Range: {etag}")
            self.assertEqual((200, True), (again.status, again.complete))
            self.assertEqual(LARGE, again.content)
            stored = await self.hit(target)
            self.assertEqual(LARGE, stored.content)
            resumed = await self.ask(target, "Range: bytes=100-", f"If-Range: {etag}")
            self.assertEqual((200, LARGE), (resumed.status, resumed.content))
            self.assertTrue(resumed.hit)

        return self.index(test())

    def test_with_only_the_bad_one_nobody_ever_completes_it_and_nothing_is_stored(self):
        async def test() -> None:
            for content in (SMALL, LARGE):
                target = self.named(content, serves(flipped(content)))
                await self.purge_project()
                for _ in range(3):
                    answer = await self.ask(target)
                    self.assertTrue(answer.status == 503 or not answer.complete, answer.status)
                    self.assertNotIn(answer.content[-1024:], flipped(content)[-1024:] if answer.content else b"?")
                cached = await self.ask(target, "Cache-Control: only-if-cached")
                self.assertEqual(504, cached.status)
            self.assertGreaterEqual(len(self.complaints()), 6)

        return self.index(test())

    def test_another_length_than_the_page_says_is_seen_before_the_head(self):
        async def test() -> None:
            target = self.mirrored(LARGE, bad=serves(LARGE + b"x"))
            for _ in range(2):
                answer = await self.ask(target)
                self.assertEqual((200, LARGE, True), (answer.status, answer.content, answer.complete))
                await self.purge(Selector("url", self.site_id, target.encode()), mode=3)
            self.assertIn(f"{len(LARGE)} octets were expected", "\n".join(self.logged))
            await self.until(lambda: "wrong-digest" in self.told)

        return self.index(test())

    def test_a_file_that_breaks_off_goes_on_at_the_other_origin_whatever_their_entity_tags(self):
        """FIELD 1, rule 6: the digest decides."""

        async def test() -> None:
            async def breaks(exchange: Exchange) -> None:
                await exchange.send(b"HTTP/1.1 200 OK\r\nETag: %s\r\nContent-Length: %d\r\n\r\n" % (b'"1"', len(LARGE)))
                await exchange.send(LARGE[:2_000_000])
                exchange.cut()

            target = self.named(LARGE, serves(LARGE, 'ETag: "2"'))
            self.origin.scripts[f"/packages/{WHEEL}"] = breaks
            answer = await self.ask(target)
            self.assertEqual((LARGE, True), (answer.content, answer.complete))
            (rest,) = [one for one in self.others[0].seen if one.target.endswith(WHEEL)]
            self.assertIn("range", rest.fields)
            self.assertNotIn("if-range", rest.fields)

        return self.index(test())

    def test_after_a_wrong_content_of_several_nobody_is_blamed_and_it_is_fetched_whole(self):
        async def test() -> None:
            async def breaks(exchange: Exchange) -> None:
                if "range" in exchange.fields:
                    await serves(LARGE)(exchange)
                    return
                await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
                await exchange.send(LARGE[:2_000_000])
                exchange.cut()

            late = LARGE[:-1] + b"x"
            target = self.named(LARGE, serves(late))
            self.origin.scripts[f"/packages/{WHEEL}"] = breaks
            first = await self.ask(target)
            self.assertFalse(first.complete)
            self.assertEqual([], [kind for kind in self.told if kind == "wrong-digest"])
            # What breaks off is not put together again.
            self.assertFalse((await self.ask(target)).complete)
            self.assertEqual(1, sum("range" in one.fields for one in self.others[0].seen))
            self.origin.scripts[f"/packages/{WHEEL}"] = serves(LARGE)
            self.others[0].scripts[f"/packages/{WHEEL}"] = serves(LARGE)
            before = self.asked_for()
            self.assertEqual(LARGE, (await self.ask(target)).content)
            self.assertEqual(1, self.asked_for() - before)

        return self.index(test())

    def test_a_mirror_that_does_not_have_it_yet_is_passed_over_and_not_blamed(self):
        async def test() -> None:
            target = self.mirrored(SMALL, bad=answers(404))
            self.assertEqual(SMALL, (await self.ask(target)).content)
            self.assertEqual([], self.told)

        return self.index(test())

    def test_a_file_that_no_host_has_is_404(self):
        async def test() -> None:
            target = self.named(SMALL, answers(404, "Set-Cookie: a=b"))
            answer = await self.ask(target)
            self.assertEqual(404, answer.status)
            self.assertNotIn("set-cookie", answer.fields)

        return self.index(test())


class CompanionTests(ArtifactCase):
    """Metadata and signatures beside a file (PEP 658, PEP 503)."""

    METADATA = b"Metadata-Version: 2.1\n"

    def with_metadata(self, script: Script, promised: Any = True) -> str:
        self.named(SMALL, **{"core-metadata": promised})
        self.origin.scripts[f"/packages/{WHEEL}.metadata"] = script
        return path(SMALL, companion=".metadata")

    def test_metadata_is_verified_with_what_the_page_says_of_it(self):
        async def test() -> None:
            promised = {"sha256": sha256(self.METADATA)}
            target = self.with_metadata(serves(self.METADATA), promised)
            self.assertEqual(self.METADATA, (await self.ask(target)).content)
            self.assertEqual(f'"{sha256(self.METADATA)}"', (await self.hit(target)).fields["etag"])
            await self.purge_project()
            target = self.with_metadata(serves(b"something else"), {"sha256": sha256(b"other metadata")})
            self.assertEqual(503, (await self.ask(target)).status)

        return self.index(test())

    def test_without_a_hash_it_is_what_its_host_says(self):
        async def test() -> None:
            target = self.with_metadata(serves(self.METADATA))
            self.assertEqual(self.METADATA, (await self.ask(target)).content)

        return self.index(test())

    def test_promised_metadata_that_is_not_there_is_503(self):
        """FIELD 3: pip takes 404 for the end of everything."""

        async def test() -> None:
            answer = await self.ask(self.with_metadata(answers(404)))
            self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]))

        return self.index(test())

    def test_a_signature_is_looked_for_beside_its_file(self):
        async def test() -> None:
            self.named(SMALL)
            self.origin.scripts[f"/packages/{WHEEL}.asc"] = serves(b"signed")
            self.assertEqual(b"signed", (await self.ask(path(SMALL, companion=".asc"))).content)
            self.origin.scripts[f"/packages/{WHEEL}.asc"] = answers(404)
            self.page(entry(SMALL), entry(LARGE, name="b.whl", url=f"../../packages/{WHEEL}"))
            self.assertEqual(404, (await self.ask(path(LARGE, "b.whl", ".asc"))).status)

        return self.index(test())


class PartTests(ArtifactCase):
    """Ranges and HEAD, as lazy wheels need them (FIELD 3)."""

    def test_head_is_answered_from_the_page_and_agrees_with_the_file(self):
        async def test() -> None:
            target = self.named(LARGE)
            answer = await self.ask(target, method="HEAD")
            expected = (200, str(len(LARGE)), "bytes")
            self.assertEqual(expected, (answer.status, answer.fields["content-length"], answer.fields["accept-ranges"]))
            self.assertEqual(0, self.asked_for())
            self.assertEqual(len(LARGE), len((await self.ask(target)).content))
            self.assertEqual(answer.fields["etag"], (await self.hit(target)).fields["etag"])

        return self.index(test())

    def test_head_asks_the_host_where_the_page_tells_no_size(self):
        async def test() -> None:
            target = self.named(LARGE, size=None)
            answer = await self.ask(target, method="HEAD")
            self.assertEqual(
                (str(len(LARGE)), "bytes"), (answer.fields["content-length"], answer.fields["accept-ranges"])
            )
            self.assertEqual(1, self.asked_for())
            self.assertEqual(404, (await self.ask(path(SMALL), method="HEAD")).status)

        return self.index(test())

    def test_the_end_of_a_large_file_is_fetched_on_its_own_and_says_that_nobody_vouches_for_it(self):
        async def test() -> None:
            go_on = asyncio.Event()

            async def slowly(exchange: Exchange) -> None:
                if "range" in exchange.fields:
                    await serves(LARGE)(exchange)
                    return
                await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
                await exchange.send(LARGE[:1000])
                await go_on.wait()
                await exchange.send(LARGE[1000:])

            target = self.named(LARGE, slowly)
            last = await self.ask(target, f"Range: bytes={len(LARGE) - 1000}-")
            self.assertEqual((206, LARGE[-1000:]), (last.status, last.content))
            self.assertIn('detail="unverified"', last.cache_status)
            self.assertEqual("no-store", last.fields["cache-control"])
            go_on.set()

        return self.index(test())

    def test_a_host_that_knows_no_ranges_makes_the_part_wait_for_the_whole(self):
        """uv takes Accept-Ranges at its word (FIELD 3)."""

        async def test() -> None:
            refused = asyncio.Event()

            async def without_ranges(exchange: Exchange) -> None:
                await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
                if "range" in exchange.fields:
                    await exchange.wait_closed()
                    refused.set()
                    return
                await exchange.send(LARGE[:1000])
                await refused.wait()
                await exchange.send(LARGE[1000:])

            target = self.named(LARGE, without_ranges)
            answer = await self.ask(target, f"Range: bytes={len(LARGE) - 1000}-")
            self.assertEqual((206, LARGE[-1000:]), (answer.status, answer.content))
            self.assertEqual(2, self.asked_for())

        return self.index(test())

    def test_a_part_of_what_is_still_coming_says_so(self):
        async def test() -> None:
            target = self.named(LARGE)
            answer = await self.ask(target, "Range: bytes=0-999")
            self.assertEqual((206, LARGE[:1000]), (answer.status, answer.content))
            self.assertIn('detail="unverified"', answer.cache_status)
            await self.hit(target)
            stored = await self.ask(target, "Range: bytes=0-999", "Cache-Control: no-cache")
            self.assertEqual((206, True), (stored.status, stored.hit))
            self.assertNotIn("unverified", stored.cache_status)

        return self.index(test())


class PurgeTests(ArtifactCase):
    """What is purged asks its page, and its page alone (DESIGN 9)."""

    def test_a_file_that_its_page_still_names_is_served_and_its_host_is_not_asked(self):
        async def test() -> None:
            target = self.named(SMALL)
            await self.ask(target)
            await self.hit(target)
            site = self.site_id
            for selector in (
                Selector("tag", site, b"project/six"),
                Selector("url", site, target.encode()),
                Selector("all", site, b""),
                Selector("prefix", site, b"/files/"),
            ):
                await self.purge(selector)
                answer = await self.ask(target)
                self.assertEqual((200, SMALL, False), (answer.status, answer.content, answer.hit))
                self.assertTrue((await self.hit(target)).hit)
            self.assertEqual(1, self.asked_for())

        return self.index(test())

    def test_a_file_that_its_page_names_no_more_is_404(self):
        async def test() -> None:
            for gone in ("left out", "quarantined", "404"):
                target = self.named(SMALL)
                await self.purge_project()
                self.assertEqual(SMALL, (await self.ask(target)).content, gone)
                await self.hit(target)
                match gone:
                    case "left out":
                        self.page(entry(LARGE, name="b.whl"))
                    case "quarantined":
                        self.page(entry(SMALL), status="quarantined")
                    case _:
                        self.origin.scripts["/simple/six/"] = answers(404)
                await self.purge_project()
                for method in ("HEAD", "GET"):
                    self.assertEqual(404, (await self.ask(target, method=method)).status, gone)

        return self.index(test())

    def test_while_the_page_cannot_be_had_it_is_served_stale(self):
        async def test() -> None:
            target = self.named(SMALL)
            await self.ask(target)
            await self.hit(target)
            self.origin.scripts["/simple/six/"] = answers(500)
            await self.purge_project()
            answer = await self.ask(target)
            self.assertEqual((200, SMALL), (answer.status, answer.content))
            self.assertIn("destination_unavailable", answer.fields["proxy-status"])

        return self.index(test())

    def test_purges_that_come_while_its_page_is_asked_are_for_those_who_ask_later(self):
        """A project that is purged more often than its page can be fetched."""

        async def test() -> None:
            target = self.named(SMALL)
            await self.ask(target)
            await self.hit(target)
            await self.purge_project()
            page = self.origin.scripts["/simple/six/"]

            async def overtaken(exchange: Exchange) -> None:
                await self.purge_project()
                await page(exchange)

            self.origin.scripts["/simple/six/"] = overtaken
            for _ in range(3):
                answer = await self.ask(target)
                self.assertEqual((200, SMALL, None), (answer.status, answer.content, answer.fields.get("proxy-status")))
                self.assertIn("fwd=stale", answer.cache_status)
            self.assertEqual(1, self.asked_for())

        return self.index(test())

    def test_what_was_deleted_is_fetched_anew(self):
        async def test() -> None:
            target = self.named(SMALL)
            await self.ask(target)
            await self.hit(target)
            await self.purge(Selector("url", self.site_id, target.encode()), mode=3)
            self.assertEqual(SMALL, (await self.ask(target)).content)
            self.assertEqual(2, self.asked_for())

        return self.index(test())

    def test_a_fenced_node_serves_it(self):
        async def test() -> None:
            target = self.named(SMALL)
            await self.ask(target)
            await self.hit(target)
            self._page.publish_fresh_until(FENCED)
            self.assertTrue((await self.ask(target)).hit)

        return self.index(test())
