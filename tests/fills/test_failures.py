"""
Whatever an upstream does: what is stored is served, as old as it says; else 503 in time; no error replaces it.

DESIGN 8, FIELD 1, RFC 9111 §4.2.4, RFC 9209. Real sockets; the deadlines are scaled, and no time is asserted.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from edgecache.upstream.addresses import parse_origin
from edgecache.words.config import Policy, Profile
from edgecache.words.counters import Counter
from edgecache.words.errors import (
    BadResponse,
    CertificateWrong,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    ContentStalled,
    ContentTooSlow,
    FileFailed,
    HeadTimedOut,
    NotTaken,
    ResolveFailed,
    TLSFailed,
    UnusablePage,
    UpstreamBusy,
    UpstreamFailed,
    WrongDigest,
    WrongRange,
)
from tests.characters import Good, perform
from tests.failures import kinds
from tests.fills.rig import PATIENT, Answer, Exchange, RigCase, Script
from tests.system.certificates import make_certificate

FRESH = "Cache-Control: max-age=600"
STALE = "Cache-Control: max-age=0"
OLD = b"what the origin said when it was well"
AGE = 1000

SHOWN: list[type[UpstreamFailed]] = []
"""What the tests below bring about; the last one compares it with what there is."""

SHORT = 0.3
"""Seconds of the one deadline that a test is about, once what is stored is stored."""


async def good(exchange: Exchange) -> None:
    """Stale at once, and a while ago it was made."""
    await exchange.answer(OLD, STALE, 'ETag: "old"', f"Age: {AGE}")


async def silent(exchange: Exchange) -> None:
    await exchange.wait_closed()


def says(*octets: bytes, close: bool = True) -> Script:
    async def script(exchange: Exchange) -> None:
        for piece in octets:
            await exchange.send(piece)
        if close:
            exchange.cut()
        else:
            await exchange.wait_closed()

    return script


def answers(status: int, *fields: str, content: bytes = b"an error") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(content, *fields, status=f"{status} Whatever")

    return script


class FailureCase(RigCase):
    """
    ``/stored`` was answered well and is stored, stale by now; ``/other`` is not.
    """

    async def store(self, target: str = "/stored", script: Script = good) -> None:
        before = self.counter(Counter.STORED)
        self.origin.scripts[target] = script
        self.assertEqual(OLD, (await self.ask(target)).content)
        await self.until(lambda: self.counter(Counter.STORED) == before + 1)

    def do(self, target: str, script: Script) -> None:
        for origin in (self.origin, *self.others):
            origin.scripts[target] = script

    def do_both(self, script: Script) -> None:
        self.do("/stored", script)
        self.do("/other", script)

    def require_refused(self, answer: Answer, error: str) -> None:
        """503, when to try again, and why."""
        self.assertEqual(503, answer.status)
        self.assertEqual(
            ("5", f'node-a; error={error}; details="No upstream gave a usable response."', "no-store"),
            (answer.fields["retry-after"], answer.fields["proxy-status"], answer.fields["cache-control"]),
        )
        self.assertEqual("node-a; fwd=uri-miss", answer.cache_status)

    def require_stale(self, answer: Answer, detail: str, proxy_status: str) -> None:
        """What is stored, with its true age, and why."""
        self.assertEqual((200, OLD, True), (answer.status, answer.content, answer.complete))
        age = int(answer.fields["age"])
        self.assertGreaterEqual(age, AGE)
        self.assertEqual(f'node-a; hit; ttl={-age}; detail="{detail}"', answer.cache_status)
        self.assertEqual(f"node-a; {proxy_status}", answer.fields["proxy-status"])

    async def restart(self, **deadlines: float) -> None:
        """The worker starts again, with these; all others never come."""
        await Deferred.fromCoroutine(self._workers.pop().stop()).asFuture(self._loop)
        self.config = evolve(self.config, upstream=evolve(self.upstream, **deadlines))
        self._ports.clear()
        await self._start_worker(0, [], self._loop)

    async def move(self, url: str, address: tuple[str, int] | None, **deadlines: float) -> None:
        """It starts again with another origin, at ``address``; ``None``: nothing is known of it."""
        self.config = evolve(self.config, sites=(evolve(self.config.sites[0], origins=(url,)),))
        self.known = {} if address is None else {parse_origin(url).name: [[*address, 0]]}
        await self.restart(**deadlines)


def shows(kind: type[UpstreamFailed]) -> Callable[[Callable[[Any], Awaitable[None]]], Any]:
    """A test of a failure before the head, which the coroutine brings about once ``/stored`` is stored."""
    SHOWN.append(kind)

    def decorated(breaks: Callable[[Any], Awaitable[None]]) -> Any:
        def test(self: FailureCase) -> Deferred[None]:
            async def whole() -> None:
                await self.store()
                await breaks(self)
                refused, stale, part, condition = await asyncio.gather(
                    self.ask("/other"),
                    self.ask("/stored"),
                    self.ask("/stored", "Range: bytes=5-7"),
                    self.ask("/stored", 'If-None-Match: "old"'),
                )
                self.require_refused(refused, kind.proxy_error)
                self.require_stale(stale, kind.proxy_error, f"error={kind.proxy_error}")
                self.assertEqual((206, OLD[5:8]), (part.status, part.content))
                self.assertIn(kind.proxy_error, part.fields["proxy-status"])
                self.assertEqual(304, condition.status)

            return self.run_async(whole())

        return test

    return decorated


def breaks_off(kind: type[UpstreamFailed], **deadlines: float) -> Callable[[Callable[[Any], Script]], Any]:
    """A test of a failure within the content, of what the function says that the origins do."""
    SHOWN.append(kind)

    def decorated(script: Callable[[Any], Script]) -> Any:
        def test(self: FailureCase) -> Deferred[None]:
            async def whole() -> None:
                await self.store()
                if deadlines:
                    await self.restart(**deadlines)
                self.do_both(script(self))
                for answer in await asyncio.gather(self.ask("/other"), self.ask("/stored")):
                    self.assertEqual((200, False), (answer.status, answer.complete))
                    self.assertTrue(b"new content".startswith(answer.content))
                await self.until(lambda: kind.outcome is not None and kind.outcome.value in self.told)
                for origin in (self.origin, *self.others):
                    await origin.stop()
                self.require_refused(await self.ask("/other"), "connection_refused")
                self.require_stale(await self.ask("/stored"), "connection_refused", "error=connection_refused")

            return self.run_async(whole())

        return test

    return decorated


class BeforeTheHeadTests(FailureCase):
    """No head: 503 or stale, with the cause by its registered name (RFC 9209 §2.3)."""

    @shows(ConnectFailed)
    async def test_refusing(self) -> None:
        await self.origin.stop()

    @shows(ConnectTimedOut)
    async def test_dropping_packets(self) -> None:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(full.close)
        place = full.getsockname()
        # The queue takes this one, and no other: what comes after it is dropped.
        waiting = socket.create_connection(place)
        self.addCleanup(waiting.close)
        await self.move(self.config.sites[0].origins[0], place, connect_seconds=SHORT)

    @shows(ResolveFailed)
    async def test_without_any_address(self) -> None:
        await self.move("http://nowhere.test", None)

    @shows(TLSFailed)
    async def test_not_speaking_tls(self) -> None:
        self.do_both(silent)
        place = ("127.0.0.1", self.origin.port)
        await self.move(f"https://127.0.0.1:{self.origin.port}", place, tls_seconds=SHORT)

    @shows(CertificateWrong)
    async def test_a_wrong_certificate(self) -> None:
        certificate, key = make_certificate(Path(self.directory))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        stage = await perform(self._loop, Good(), context).asFuture(self._loop)
        self.addCleanup(stage.stop)
        place = stage.server.sockets[0].getsockname()
        await self.move(f"https://127.0.0.1:{place[1]}", place)

    @shows(HeadTimedOut)
    async def test_accepting_and_never_answering(self) -> None:
        self.do_both(silent)
        # The only one has all the time there is.
        await self.restart(first_byte_seconds=SHORT)

    @shows(ConnectionLost)
    async def test_closing_without_an_answer(self) -> None:
        self.do_both(says())

    @shows(ConnectionLost)
    async def test_closing_within_the_head(self) -> None:
        self.do_both(says(b"HTTP/1.1 200 OK\r\nContent-Le"))

    @shows(BadResponse)
    async def test_speaking_something_else(self) -> None:
        self.do_both(says(b"220 ready\r\n\r\n"))

    @shows(BadResponse)
    async def test_framing_that_is_no_framing(self) -> None:
        self.do_both(says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"))

    @shows(WrongDigest)
    async def test_content_that_is_not_what_its_digest_names(self) -> None:
        """RFC 9530 §3, rule 7: nobody has seen any of it."""
        digest = base64.b64encode(hashlib.sha256(b"right").digest()).decode()
        self.do_both(answers(200, FRESH, f"Repr-Digest: sha-256=:{digest}:", content=b"wrong"))


class BusyTests(FailureCase):
    upstream = evolve(PATIENT, awaited_heads=1)

    @shows(UpstreamBusy)
    async def test_too_many_awaited_heads(self) -> None:
        self.do("/hangs", silent)
        self.do_both(good)
        (await self.client()).send("/hangs")
        await self.until(lambda: self.origin.count("/hangs") == 1)


class InTimeTests(FailureCase):
    """All are silent: what bounds the client's wait is ``first_byte_seconds``, whatever each one may take."""

    origins = 3
    policy = Policy.ORDERED

    @shows(HeadTimedOut)
    async def test_an_answer_comes_within_the_budget(self) -> None:
        self.do_both(silent)
        await self.restart(first_byte_seconds=SHORT)


HEAD = b'HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: "new"\r\nContent-Length: 11\r\n\r\n'
CHUNKED = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n"
REST = b'HTTP/1.1 206 Partial Content\r\nETag: "new"\r\nContent-Range: bytes 1-10/11\r\nContent-Length: 10\r\n\r\n'


class WithinTheContentTests(FailureCase):
    """The client can tell that it broke off, no half is stored, and what was stored is still there."""

    @breaks_off(ContentStalled, stall_seconds=SHORT)
    def test_a_stall(self) -> Script:
        return says(HEAD, b"new", close=False)

    @breaks_off(ConnectionLost)
    def test_a_short_content(self) -> Script:
        return says(HEAD, b"new")

    @breaks_off(ConnectionLost)
    def test_chunks_that_break_off(self) -> Script:
        return says(CHUNKED, b"3\r\nnew\r\n")

    @breaks_off(BadResponse)
    def test_chunks_that_are_none(self) -> Script:
        return says(CHUNKED, b"3\r\nnew\r\nnonsense\r\n")

    @breaks_off(WrongRange)
    def test_a_rest_that_is_another_part(self) -> Script:
        async def lies(exchange: Exchange) -> None:
            await says(*((REST, b"ew content") if "range" in exchange.fields else (HEAD, b"new")))(exchange)

        return lies


class SlowTests(FailureCase):
    """Another one is healthy, so the slow one is left; but what that one has is something else."""

    origins = 2
    policy = Policy.ORDERED

    @breaks_off(ContentTooSlow, slow_window_seconds=SHORT)
    def test_a_drip(self) -> Script:
        async def drips(exchange: Exchange) -> None:
            if exchange.port != self.origin.port:
                await exchange.answer(b"other content", FRESH, 'ETag: "other"')
                return
            await exchange.send(HEAD)
            for octet in b"new":
                await exchange.send(bytes((octet,)))
                await asyncio.sleep(0.05)
            await exchange.wait_closed()

        return drips


class ErrorStatusTests(FailureCase):
    """RFC 9111 §4.3.3, RFC 5861 §4"""

    PASSED = (500, 501, 502, 503, 504, 505, 507, 508, 510, 511, 520, 599)

    def test_nothing_stored_is_the_origin_s_own_error(self):
        async def test():
            for status in self.PASSED:
                self.do("/other", answers(status))
                answer = await self.ask("/other")
                self.assertEqual((status, b"an error"), (answer.status, answer.content))

        return self.run_async(test())

    def test_an_error_of_its_own_is_as_good_as_no_answer(self):
        async def test():
            await self.store()
            for status in (500, 502, 503, 504):
                self.do("/stored", answers(status, FRESH))
                for _ in range(2):
                    answer = await self.ask("/stored")
                    self.require_stale(answer, f"origin answered {status}", f"received-status={status}")

        return self.run_async(test())

    def test_no_error_replaces_what_is_stored(self):
        async def test():
            await self.store()
            for status in self.PASSED:
                self.do("/stored", answers(status, FRESH, 'ETag: "error"'))
                await self.ask("/stored")
                await self.until(lambda: self.counter(Counter.FILLS_RUNNING) == 0)
            self.assertEqual(1, self.counter(Counter.STORED))
            await self.origin.stop()
            self.require_stale(await self.ask("/stored"), "connection_refused", "error=connection_refused")

        return self.run_async(test())

    def test_where_staleness_is_forbidden_the_client_is_told_and_the_stored_one_stays(self):
        async def test():
            validated = 0

            async def strict(exchange: Exchange) -> None:
                nonlocal validated
                if exchange.fields.get("if-none-match") == '"old"':
                    validated += 1
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "old"\r\n\r\n')
                else:
                    await exchange.answer(OLD, "Cache-Control: max-age=0, must-revalidate", 'ETag: "old"')

            await self.store(script=strict)
            self.do("/stored", answers(503, FRESH))
            self.assertEqual(503, (await self.ask("/stored")).status)
            self.do("/stored", strict)
            self.assertEqual((200, OLD), ((answer := await self.ask("/stored")).status, answer.content))
            self.assertEqual(1, validated)

        return self.run_async(test())


class IndexErrorTests(FailureCase):
    """FIELD 3"""

    profile = Profile.INDEX

    def test_an_installer_that_never_tries_again_after_504_gets_503(self):
        async def test():
            self.do("/simple/a/", answers(504))
            answer = await self.ask("/simple/a/")
            self.assertEqual((503, "5"), (answer.status, answer.fields["retry-after"]))

        return self.run_async(test())


class BehindTests(FailureCase):
    """A refresh behind the client's back (RFC 5861 §3): the client is served at once, whatever becomes of it."""

    async def refreshes(self, *scripts: Script) -> None:
        window = "Cache-Control: max-age=0, stale-while-revalidate=86400"

        async def open_window(exchange: Exchange) -> None:
            await exchange.answer(OLD, window, 'ETag: "old"')

        await self.store(script=open_window)
        await self.restart(first_byte_seconds=SHORT, stall_seconds=SHORT)
        for script in scripts:
            self.do("/stored", script)
            await self.refresh()
        self.assertEqual(1, self.counter(Counter.STORED))
        # It is still there, and still replaced by what is good.
        await self.restart()
        self.do("/stored", answers(200, FRESH, content=b"new"))
        await self.refresh()
        await self.until(lambda: self.counter(Counter.STORED) == 2)
        self.assertEqual(b"new", (await self.ask("/stored")).content)

    async def refresh(self) -> None:
        """Ask until that made the origin be asked: a refresh that goes on yet starts no other."""
        seen = self.origin.count("/stored")
        while self.origin.count("/stored") == seen:
            answer = await self.ask("/stored")
            self.assertEqual((OLD, True), (answer.content, answer.hit))
            await asyncio.sleep(0.01)
        await self.until(lambda: self.counter(Counter.FILLS_RUNNING) == 0)

    def test_an_error_replaces_nothing(self):
        return self.run_async(self.refreshes(*(answers(status, FRESH) for status in ErrorStatusTests.PASSED)))

    def test_a_failure_replaces_nothing(self):
        head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 9\r\n\r\n"
        return self.run_async(
            self.refreshes(
                silent, says(), says(b"220 ready\r\n\r\n"), says(head, b"abc"), says(head, b"abc", close=False)
            )
        )


class FallbackCase(FailureCase):
    policy = Policy.FALLBACK
    origins = 2

    async def first_is_down(self) -> None:
        await self.origin.stop()

    async def first_is_back(self) -> None:
        await self.origin.start()


class FallbackTests(FallbackCase):
    """FIELD 1, FIELD 3: it stands in, and replaces nothing."""

    fallback_seconds = 600.0

    def test_it_is_not_asked_while_the_first_one_answers(self):
        async def test():
            self.origin.scripts["/a"] = answers(200, STALE, content=OLD)
            for _ in range(4):
                self.assertEqual(OLD, (await self.ask("/a")).content)
            self.assertEqual((4, 0), (self.origin.count("/a"), self.others[0].count("/a")))

        return self.run_async(test())

    def test_where_nothing_is_stored_it_answers_and_is_kept_for_a_while(self):
        async def test():
            await self.first_is_down()
            self.others[0].scripts["/a"] = answers(200, "Cache-Control: max-age=86400", content=b"fallback")
            self.assertEqual(b"fallback", (await self.ask("/a")).content)
            answer = await self.hit("/a")
            self.assertEqual((b"fallback", "max-age=600"), (answer.content, answer.fields["cache-control"]))
            self.assertEqual(1, self.others[0].count("/a"))

        return self.run_async(test())

    def test_what_the_first_one_said_is_served_stale_instead(self):
        async def test():
            await self.store()
            await self.first_is_down()
            self.others[0].scripts["/stored"] = answers(200, FRESH, content=b"months old")
            for _ in range(2):
                answer = await self.ask("/stored")
                self.require_stale(answer, "only a fallback answered", 'details="only a fallback answered"')
            self.assertEqual(1, self.counter(Counter.STORED))

        return self.run_async(test())

    def test_its_own_error_is_an_error(self):
        async def test():
            await self.store()
            await self.first_is_down()
            self.do("/stored", answers(503, FRESH))
            self.require_stale(await self.ask("/stored"), "origin answered 503", "received-status=503")

        return self.run_async(test())

    def test_when_both_are_down_what_is_stored_is_served(self):
        async def test():
            await self.store()
            await self.first_is_down()
            await self.others[0].stop()
            self.require_stale(await self.ask("/stored"), "connection_refused", "error=connection_refused")
            self.require_refused(await self.ask("/other"), "connection_refused")

        return self.run_async(test())

    def test_an_error_of_the_first_one_lets_it_answer(self):
        async def test():
            self.origin.scripts["/a"] = answers(503)
            self.others[0].scripts["/a"] = answers(200, FRESH, content=b"fallback")
            self.assertEqual((200, b"fallback"), ((answer := await self.ask("/a")).status, answer.content))

        return self.run_async(test())

    def test_where_staleness_is_forbidden_it_answers_and_the_first_one_s_stays(self):
        async def test():
            async def strict(exchange: Exchange) -> None:
                if exchange.fields.get("if-none-match") == '"old"':
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "old"\r\n\r\n')
                else:
                    await exchange.answer(OLD, "Cache-Control: max-age=0, must-revalidate", 'ETag: "old"')

            await self.store(script=strict)
            await self.first_is_down()
            self.others[0].scripts["/stored"] = answers(200, FRESH, content=b"fallback")
            for _ in range(2):
                self.assertEqual(b"fallback", (await self.ask("/stored")).content)
            await self.first_is_back()
            self.assertEqual(OLD, (await self.ask("/stored")).content)
            self.assertEqual(1, self.counter(Counter.STORED))

        return self.run_async(test())

    def test_its_304_about_something_else_reaches_no_client_that_asked_for_no_condition(self):
        async def test():
            validated = 0

            async def dated(exchange: Exchange) -> None:
                nonlocal validated
                if exchange.fields.get("if-none-match") == '"old"':
                    validated += 1
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "old"\r\n\r\n')
                    return
                await exchange.answer(
                    OLD,
                    "Cache-Control: max-age=0, must-revalidate",
                    'ETag: "old"',
                    "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
                )

            async def other(exchange: Exchange) -> None:
                if "if-none-match" in exchange.fields:
                    await exchange.send(b'HTTP/1.1 304 Not Modified\r\nETag: "other"\r\n\r\n')
                else:
                    await exchange.answer(b"fallback", FRESH, 'ETag: "other"')

            await self.store(script=dated)
            await self.first_is_down()
            self.others[0].scripts["/stored"] = other
            self.assertEqual((200, b"fallback"), ((answer := await self.ask("/stored")).status, answer.content))
            self.assertEqual(304, (await self.ask("/stored", 'If-None-Match: "other"')).status)
            await self.first_is_back()
            self.assertEqual(OLD, (await self.ask("/stored")).content)
            self.assertEqual(1, validated)

        return self.run_async(test())


class ReturningTests(FallbackCase):
    """The first origin is back: a fallback's answer lives ``fallback_seconds``, here none."""

    fallback_seconds = 0.0

    def test_the_next_answer_is_the_first_one_s_and_replaces_the_other(self):
        async def test():
            async def later_date(exchange: Exchange) -> None:
                if "if-none-match" in exchange.fields:
                    # Its own tag differs; it looked at the date alone.
                    await exchange.send(b"HTTP/1.1 304 Not Modified\r\n\r\n")
                else:
                    await exchange.answer(b"first", FRESH, 'ETag: "first"')

            await self.first_is_down()
            self.others[0].scripts["/a"] = answers(
                200, FRESH, 'ETag: "other"', "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", content=b"fallback"
            )
            self.assertEqual(b"fallback", (await self.ask("/a")).content)
            await self.until(lambda: self.counter(Counter.STORED) == 1)
            self.origin.scripts["/a"] = later_date
            await self.first_is_back()
            self.assertEqual(b"first", (await self.ask("/a")).content)
            answer = await self.hit("/a")
            self.assertEqual((b"first", "max-age=600"), (answer.content, answer.fields["cache-control"]))

        return self.run_async(test())


class TableTests(SynchronousTestCase):
    def test_every_kind_of_failure_is_shown(self) -> None:
        # Those of pages are in test_paging, our own in test_continuing; those of files of an index in test_artifacts.
        expected = sorted(
            kind.__name__ for kind in kinds() if not issubclass(kind, FileFailed | NotTaken | UnusablePage)
        )
        self.assertEqual(expected, sorted({kind.__name__ for kind in SHOWN}))
