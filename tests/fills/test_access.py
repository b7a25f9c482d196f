"""Private sites, the uncached path and uploads on the route, with real sockets (DESIGN 10)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from edgecache.processes.channel import LineChannel
from edgecache.words.config import Access, ClientSettings, Policy, Profile, Secret
from edgecache.words.counters import Counter
from edgecache.words.credentials import credentials, digested
from tests.fills.rig import Exchange, RigCase

FRESH = "Cache-Control: max-age=60"
RIGHT = "Authorization: Bearer right-token"
TOKEN = "edge_bypass"


def serves(content: bytes, *fields: str, status: str = "200 OK") -> Any:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(content, *fields, status=status)

    return script


def counted(*fields: str) -> Any:
    """Each answer is a new version."""
    versions = iter(range(100))

    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"version %d" % next(versions), *fields)

    return script


class PrivateTests(RigCase):
    site: ClassVar[dict[str, Any]] = {
        "access": Access.TOKEN,
        "clients": (ClientSettings("ci", token=Secret(digested(b"right-token"))),),
        "origin_authorization": Secret(credentials("me:hush")),
    }
    workers = 2

    def test_the_store_answers_clients_only_and_the_origin_sees_the_site_s_credentials(self):
        async def test():
            self.origin.scripts["/a"] = serves(b"private", "Cache-Control: public, max-age=60")
            self.origin.scripts["/b"] = serves(b"never stored", "Cache-Control: no-store")
            for worker in (0, 1):
                denied = await self.ask("/a", worker=worker)
                self.assertEqual(401, denied.status)
                self.assertEqual('Basic realm="main", charset="UTF-8"', denied.fields["www-authenticate"])
            self.assertEqual([], self.origin.seen)
            basic = "Authorization: Basic " + base64.b64encode(b"any:right-token").decode()
            for worker, fields in ((0, RIGHT), (1, RIGHT), (0, basic)):
                answer = await self.ask("/a", fields, worker=worker)
                self.assertEqual((200, b"private"), (answer.status, answer.content))
            for answer in (await self.hit("/a", basic), await self.ask("/b", RIGHT)):
                self.assertIn("private", answer.fields["cache-control"])
            self.assertEqual(401, (await self.ask("/a", "Authorization: Bearer wrong")).status)
            self.assertEqual((401, b""), await self.head("/a"))
            expected = "Basic " + base64.b64encode(b"me:hush").decode()
            self.assertEqual({expected}, {seen.fields["authorization"] for seen in self.origin.seen})

        return self.run_async(test())

    def test_an_origin_that_refuses_the_site_s_credentials_is_no_client_s_business(self):
        async def test():
            self.origin.scripts["/a"] = serves(b"who?", 'WWW-Authenticate: Basic realm="origin"', status="401 No")
            answer = await self.ask("/a", RIGHT)
            self.assertEqual(503, answer.status)
            self.assertNotIn("www-authenticate", answer.fields)
            self.assertIn("retry-after", answer.fields)

        return self.run_async(test())

    async def head(self, target: str) -> tuple[int, bytes]:
        answer = await self.ask(target, method="HEAD")
        return answer.status, answer.content

    def test_an_address_that_is_wrong_too_often_waits(self):
        async def test():
            self.origin.scripts["/a"] = serves(b"private", FRESH)
            self.assertEqual(401, (await self.ask("/a", "Authorization: Bearer wrong")).status)
            self.assertEqual(200, (await self.ask("/a", RIGHT)).status)
            client = await self.client()
            statuses = [(await client.ask("/a", f"Authorization: Bearer wrong{n}")).status for n in range(40)]
            self.assertEqual({401, 429}, set(statuses))
            late = await client.ask("/a", "Authorization: Bearer wrong")
            self.assertEqual(429, late.status)
            self.assertGreaterEqual(int(late.fields["retry-after"]), 1)
            # Who was let in from here before is not locked out by a neighbour, and nothing is no attempt.
            self.assertEqual(200, (await client.ask("/a", RIGHT)).status)
            self.assertEqual(401, (await client.ask("/a")).status)
            self.assertGreaterEqual(self.counter(Counter.DENIED), 42)

        return self.run_async(test())


class UncachedTests(RigCase):
    """``Edgecache-Bypass`` with a token that the worker knows, or the node process."""

    def grant(self, *tokens: str) -> None:
        digests = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
        for node in self.nodes:
            node.notify("bypass-tokens", digests=digests)

    def test_each_is_the_origin_s_own_answer_and_the_store_has_the_newest(self):
        async def test():
            self.origin.scripts["/a"] = counted(FRESH, 'ETag: "x"')
            self.grant(TOKEN)
            self.assertEqual(b"version 0", (await self.hit("/a")).content)
            for version in (1, 2):
                answer = await self.ask("/a", f"Edgecache-Bypass: {TOKEN}")
                self.assertEqual(b"version %d" % version, answer.content)
                self.assertIn("fwd=bypass", answer.cache_status)
                self.assertIn("stored", answer.cache_status)
                asked = self.origin.seen[-1].fields
                self.assertEqual("no-cache", asked["cache-control"])
                self.assertNotIn("if-none-match", asked)
                self.assertNotIn("edgecache-bypass", asked)
            await self.until_hit("/a", b"version 2")
            self.assertEqual(2, self.counter(Counter.UNCACHED))

        return self.run_async(test())

    async def until_hit(self, target: str, content: bytes) -> None:
        while (await self.hit(target)).content != content:
            await asyncio.sleep(0.005)

    def test_it_joins_no_fill_that_began_before(self):
        async def test():
            self.grant(TOKEN)
            held = asyncio.Event()

            async def script(exchange: Exchange) -> None:
                number = len(self.origin.seen)
                if number == 1:
                    await held.wait()
                await exchange.answer(b"%d" % number, FRESH)

            self.origin.scripts["/a"] = script
            first = await self.client()
            first.send("/a")
            await self.until(lambda: len(self.origin.seen) == 1)
            self.assertEqual(b"2", (await self.ask("/a", f"Edgecache-Bypass: {TOKEN}")).content)
            held.set()
            self.assertEqual(b"1", (await first.receive()).content)

        return self.run_async(test())

    def test_a_token_that_is_not_known_here_is_the_node_process_s_to_judge(self):
        async def test():
            self.origin.scripts["/a"] = counted(FRESH)
            asked: list[tuple[str, str, str]] = []

            def judge(token: str, peer: str, method: str, path: str) -> dict[str, Any]:
                asked.append((token, peer, path))
                return {"status": 0} if token == "new" else {"status": 403, "detail": "No.", "retry_after": ""}

            node: LineChannel
            for node in self.nodes:
                node.on("bypass", judge)
            self.assertEqual(200, (await self.ask("/a", "Edgecache-Bypass: new")).status)
            refused = await self.ask("/a", "Edgecache-Bypass: wrong")
            self.assertEqual((403, b"No.\n"), (refused.status, refused.content))
            self.assertEqual([("new", "127.0.0.1", "/a"), ("wrong", "127.0.0.1", "/a")], asked)
            self.assertEqual(1, len(self.origin.seen))

        return self.run_async(test())

    def test_without_an_origin_it_is_an_error_and_not_what_is_stored(self):
        async def test():
            self.origin.scripts["/a"] = counted(FRESH, "Cache-Control: stale-if-error=600")
            self.grant(TOKEN)
            await self.hit("/a")
            await self.origin.stop()
            self.assertEqual(503, (await self.ask("/a", f"Edgecache-Bypass: {TOKEN}")).status)
            self.assertEqual(200, (await self.ask("/a")).status)

        return self.run_async(test())


FORM = (
    b'--b\r\nContent-Disposition: form-data; name=":action"\r\n\r\nfile_upload\r\n'
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nMy.Project\r\n'
    b'--b\r\nContent-Disposition: form-data; name="content"; filename="f.whl"\r\n\r\n'
    + bytes(200_000)
    + b"\r\n--b--\r\n"
)
OF_FORM = "Content-Type: multipart/form-data; boundary=b"


class UploadTests(RigCase):
    profile = Profile.INDEX
    site: ClassVar[dict[str, Any]] = {"upload": "/legacy/", "upload_octets": 300_000}
    origins = 2

    def uploads(self) -> list[dict[str, Any]]:
        """What the node process is told of uploads; it answers when :attr:`purged` says so."""
        calls: list[dict[str, Any]] = []
        self.purged = asyncio.Event()

        async def uploaded(**call: Any) -> dict[str, Any]:
            calls.append(call)
            await self.purged.wait()
            return {}

        for node in self.nodes:
            node.on("uploaded", lambda **call: Deferred.fromFuture(asyncio.ensure_future(uploaded(**call))))
        return calls

    async def post(self, content: bytes = FORM, *fields: str, target: str = "/legacy/") -> Any:
        return await self.ask(target, OF_FORM, *fields, method="POST", content=content)

    def test_it_arrives_as_sent_and_is_answered_when_its_project_is_purged(self):
        async def test():
            calls = self.uploads()
            for server in (self.origin, *self.others):
                server.scripts["/legacy/"] = serves(b"taken")
            client = await self.client()
            client.send("/legacy/", OF_FORM, "Authorization: Basic eDp5", "Cookie: no", method="POST", content=FORM)
            await self.until(lambda: len(calls) == 1)
            self.purged.set()
            answer = await client.receive()
            self.assertEqual((200, b"taken"), (answer.status, answer.content))
            (seen,) = self.origin.seen + self.others[0].seen
            self.assertEqual((FORM, "Basic eDp5"), (seen.content, seen.fields["authorization"]))
            self.assertNotIn("cookie", seen.fields)
            call = calls[0]
            self.assertEqual(("main", "127.0.0.1"), (call["site"], call["peer"]))
            self.assertEqual(FORM[: 64 << 10], base64.b64decode(call["begin"]))
            self.assertEqual(1, self.counter(Counter.UPLOADS))

        return self.run_async(test())

    def test_what_the_origin_refuses_changes_nothing(self):
        async def test():
            calls = self.uploads()
            for server in (self.origin, *self.others):
                server.scripts["/legacy/"] = serves(b"exists", status="400 File exists")
            self.assertEqual(400, (await self.post()).status)
            self.assertEqual([], calls)

        return self.run_async(test())

    def test_it_is_sent_once_and_what_may_have_been_taken_is_purged(self):
        async def test():
            calls = self.uploads()
            self.purged.set()

            async def script(exchange: Exchange) -> None:
                exchange.reset()

            for server in (self.origin, *self.others):
                server.scripts["/legacy/"] = script
            self.assertEqual(503, (await self.post()).status)
            self.assertEqual(1, len(calls))
            self.assertEqual(1, len(self.origin.seen + self.others[0].seen))

        return self.run_async(test())

    def test_what_is_no_upload_reaches_no_origin(self):
        async def test():
            self.assertEqual(413, (await self.post(FORM + bytes(100_000))).status)
            elsewhere = await self.post(target="/simple/")
            self.assertEqual((405, "GET, HEAD"), (elsewhere.status, elsewhere.fields["allow"]))
            self.assertEqual([], self.origin.seen + self.others[0].seen)

        return self.run_async(test())


class FallbackUploadTests(UploadTests):
    """What is changed at an origin that only stands in for the first one is lost."""

    policy = Policy.FALLBACK

    def test_no_other_origin_sees_an_upload(self):
        async def test():
            calls = self.uploads()
            self.others[0].scripts["/legacy/"] = serves(b"taken")
            await self.origin.stop()
            self.assertEqual(503, (await self.post(FORM, "Authorization: Basic eDp5")).status)
            self.assertEqual(([], []), (calls, self.others[0].seen))

        return self.run_async(test())
