"""Origins through a proxy: CONNECT, whatever their scheme; credentials stay where they belong (RFC 9110 §9.3.6)."""

from __future__ import annotations

import gc
import re
import traceback
from pathlib import Path
from typing import Any

import orjson
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, succeed
from twisted.internet.task import Clock
from twisted.logger import eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.admin.parts import UpstreamState
from edgecache.upstream.addresses import Address, AddressBook, parse_origin, unix_address
from edgecache.upstream.client import Client
from edgecache.upstream.dialing import LoopDialer
from edgecache.upstream.proxying import connect_head
from edgecache.upstream.resolving import Resolver
from edgecache.words.checking import checked
from edgecache.words.config import Config, Secret, UpstreamSettings
from edgecache.words.endpoints import proxy_url
from edgecache.words.errors import (
    CertificateWrong,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ConnectTimedOut,
    TLSFailed,
    UpstreamFailed,
)
from edgecache.words.reading import Document, Facts, build, from_plain, plain
from tests.admin.harness import AdminCase
from tests.characters import Character, Cut, Good, Refusing, Saying, Silent
from tests.upstream.authority import Authority
from tests.upstream.proxy import ESTABLISHED, Proxy
from tests.upstream.rig import GET, Rig, Taker
from tests.upstream.test_real import CONTENT, RealCase, loop

README = Path(__file__).parent.parent.parent / "README.md"
BASIC = b"Basic bWU6aHVzaEA6Lw=="
"""Of ``me`` and ``hush@:/``."""
USERINFO = "me:hush%40%3A%2F@"
SECRETS = ("hush", "bWU6aHVzaEA6Lw", "me:")


def through(where: str, **others: Any) -> UpstreamSettings:
    return UpstreamSettings(proxy=Secret(f"http://{where}"), **others)


class URLTests(SynchronousTestCase):
    """``http://host:port``, credentials at most."""

    def test_what_a_url_says(self) -> None:
        for url, host, port, authorization in (
            ("http://proxy.example:3128", "proxy.example", 3128, None),
            ("http://Proxy.Example:3128/", "proxy.example", 3128, None),
            ("http://proxy.example", "proxy.example", 80, None),
            ("http://[2001:db8::1]:3128", "2001:db8::1", 3128, None),
            ("http://@192.0.2.1:1", "192.0.2.1", 1, None),
            (f"http://{USERINFO}proxy.example:3128", "proxy.example", 3128, BASIC),
            ("http://me@proxy.example", "proxy.example", 80, b"Basic bWU6"),
            ("http://m%65:%ff@proxy.example", "proxy.example", 80, b"Basic bWU6/w=="),
        ):
            proxy = proxy_url(url)
            self.assertEqual((host, port, authorization), (proxy.host, proxy.port, proxy.authorization), url)

    def test_what_cannot_be_a_proxy(self) -> None:
        for url in (
            "",
            "proxy.example:3128",
            "//proxy.example:3128",
            "https://proxy.example:3128",
            "socks5://proxy.example:1080",
            "http://",
            "http://:3128",
            "http://proxy.example:0",
            "http://proxy.example:port",
            "http://proxy.example:70000",
            "http://proxy.example/path",
            "http://proxy.example/?q",
            "http://proxy.example/#f",
            "http://pro xy.example",
            "http://proxy.example\n",
            "http://pr\u00f6xy.example",
            "http://[::1",
            "http://me%3Aother:hush@proxy.example",
        ):
            with self.assertRaises(ValueError, msg=url):
                proxy_url(url)

    @settings(max_examples=200)
    @given(st.text(alphabet="ab1/:@#?[]%&\u2100 ", max_size=12))
    def test_whatever_a_password_holds_a_refusal_does_not_show_it(self, text: str) -> None:
        url = f"http://me:hush{text}hush@proxy.example:3128"
        try:
            shown = repr(proxy_url(url))
        except ValueError as error:
            shown = str(error)
        self.assertNotIn("hush", shown)

    def test_a_tunnel_is_asked_for_by_authority_always_with_the_port(self) -> None:
        """RFC 9112 §3.2.3"""
        plain_proxy = proxy_url("http://proxy.example:3128")
        for url, authority in (
            ("http://origin.example/prefix", b"origin.example:80"),
            ("https://me:secret@origin.example", b"origin.example:443"),
            ("http://[2001:db8::1]:8080", b"[2001:db8::1]:8080"),
        ):
            expected = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)
            self.assertEqual(expected, connect_head(parse_origin(url), plain_proxy))

    def test_credentials_go_to_the_proxy_with_it(self) -> None:
        head = connect_head(parse_origin("http://origin.example"), proxy_url(f"http://{USERINFO}proxy.example:3128"))
        self.assertTrue(head.endswith(b"\r\nProxy-Authorization: " + BASIC + b"\r\n\r\n"))


class AnswerTests(SynchronousTestCase):
    """What the proxy may say, on the injected clock."""

    def setUp(self) -> None:
        self.rig = Rig(through("192.0.2.9:3128", connect_seconds=2.0, interim_responses=2))
        self.told: list[str] = []

    def ask(self, proxy: Character, url: str = "http://origin.example", settle: int = 65536) -> Any:
        address = evolve(self.rig.stage.play("192.0.2.9", proxy, url), port=3128)
        return self.rig.ask(address, settle=settle)

    def refused(self, octets: bytes, why: str, *, close: bool = False) -> None:
        for settle in (65536, 1):
            asking = self.ask(Saying(octets, close=close), settle=settle)
            self.assertIsInstance(asking.failure, ConnectFailed)
            self.assertEqual(f"proxy http://192.0.2.9:3128: {why}", asking.failure.detail)
            self.assertFalse(asking.failure.sent)
        self.assertTrue(self.rig.quiet())

    def test_a_status_that_is_no_2xx_is_a_refusal_in_words_of_ours(self) -> None:
        for status, why in (
            (b"407 hush", "answered 407 Proxy Authentication Required"),
            (b"403 hush", "answered 403 Forbidden"),
            (b"502 hush", "answered 502 Bad Gateway"),
            (b"301 hush", "answered 301 Moved Permanently"),
            (b"101 hush", "answered 101 Switching Protocols"),
            (b"799 hush", "answered 799"),
        ):
            self.refused(b"HTTP/1.1 %b\r\nX: hush\r\nContent-Length: 4\r\n\r\nhush" % status, why)

    def test_what_is_not_http_is_refused_at_once(self) -> None:
        self.refused(b"SSH-2.0-hush\r\n", "not HTTP/1")
        self.refused(b"HTTP/1.1 200 OK\n\n", "line ends without CR")
        self.refused(b"HTTP/1.1 20 OK\r\n\r\n", "no status line of HTTP/1.0 or HTTP/1.1")

    def test_a_head_too_large_or_too_many_interim_ones(self) -> None:
        self.refused(b"HTTP/1.1 200 OK\r\nA: " + b"x" * (64 << 10) + b"\r\n\r\n", "head is too large")
        self.refused(b"HTTP/1.1 102 Processing\r\n\r\n" * 3 + ESTABLISHED, "too many interim responses")

    def test_closed_without_an_answer(self) -> None:
        self.refused(b"", "closed without an answer", close=True)
        self.refused(b"HTTP/1.1 200", "closed without an answer", close=True)

    def test_octets_that_nobody_asked_for_are_no_answer_of_the_origin(self) -> None:
        """They would be taken for the answer to the request that comes next."""
        forged = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"
        asking = self.ask(Saying(ESTABLISHED + forged))
        self.assertEqual("proxy http://192.0.2.9:3128: sent octets after its answer", asking.failure.detail)

    def test_the_framing_of_a_2xx_means_nothing(self) -> None:
        """RFC 9110 §9.3.6"""
        for head in (
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 204\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + ESTABLISHED,
        ):
            for settle in (65536, 1):
                origin = _Behind(head)
                asking = self.ask(origin, settle=settle)
                self.assertEqual((b"good content", []), (asking.taker.content, asking.interims), head)
                self.assertEqual([b"CONNECT", b"GET"], [asked.method for asked in origin.asked])
                self.setUp()

    def test_the_connection_to_the_proxy_and_its_answer_have_one_deadline_together(self) -> None:
        for character in (Silent(), Saying(b"HTTP/1.1 200 OK\r\n"), Saying(b"HTTP/1.1 102 Processing\r\n\r\n")):
            asking = self.ask(character)
            self.rig.stage.advance(1.99)
            self.assertIsNone(asking.failure)
            self.rig.stage.advance(0.02)
            self.assertIsInstance(asking.failure, ConnectTimedOut)
            self.assertEqual("proxy http://192.0.2.9:3128: no answer to CONNECT in time", asking.failure.detail)
            self.assertTrue(self.rig.quiet())
            self.setUp()

    def test_a_proxy_that_refuses_or_hangs_is_named(self) -> None:
        asking = self.ask(Refusing())
        self.assertTrue(asking.failure.detail.startswith("proxy http://192.0.2.9:3128: "), asking.failure)
        self.rig.stage.hang("192.0.2.9")
        asking = self.ask(Good())
        self.rig.stage.advance(2.1)
        self.assertIsInstance(asking.failure, ConnectTimedOut)
        self.assertTrue(asking.failure.detail.startswith("proxy http://192.0.2.9:3128: "), asking.failure)

    def test_who_asks_is_told_once_the_proxy_has_the_connection(self) -> None:
        """What the proxy has to do takes longer than a connection, and another address of it would not be faster."""
        self.rig.stage.play("192.0.2.9", Silent())
        address = Address(parse_origin("http://origin.example"), "192.0.2.9", 3128)
        asking = self.rig.client.ask(address, GET, connected=lambda: self.told.append("connected"))
        self.assertEqual(["connected"], self.told)
        self.rig.stage.advance(2.1)
        self.failureResultOf(asking, ConnectTimedOut)
        self.assertEqual(["connected"], self.told)

    def test_leaving_while_the_proxy_is_asked_leaves_nothing(self) -> None:
        asking = self.ask(Silent())
        asking.answer.cancel()
        self.assertIsInstance(asking.error, CancelledError)
        self.assertTrue(self.rig.quiet())

    def test_the_handshake_has_its_own_deadline_after_the_tunnel(self) -> None:
        asking = self.ask(_Behind(ESTABLISHED), "https://origin.example")
        self.rig.stage.advance(1.99)
        self.assertIsNone(asking.failure)
        self.rig.stage.advance(0.02)
        self.assertIsInstance(asking.failure, TLSFailed)

    def test_a_worker_of_this_node_is_never_asked_through_it(self) -> None:
        owner = Good()
        self.rig.stage.play("/run/1", owner)
        self.assertEqual(b"good content", self.rig.ask(unix_address("/run/1")).taker.content)
        self.assertEqual([b"GET"], [asked.method for asked in owner.asked])


class ProxyCase(RealCase):
    """Real sockets, a real proxy, real TLS through it."""

    def setUp(self) -> None:
        super().setUp()
        directory = Path(self.mktemp())
        directory.mkdir()
        self.authority = Authority(directory)

    async def proxied(self, character: Character, url: str, **how: Any) -> tuple[Proxy, Client, Address]:
        """:return: the proxy, a client that uses it, and the address at which it asks for ``url``."""
        tls = self.authority.server("origin.example") if url.startswith("https") else None
        behind = (await self.play(character, context=tls)).address().port
        origin = parse_origin(url)
        proxy = Proxy({f"origin.example:{origin.port}".encode(): behind}, **how)
        await proxy.start(loop())
        self.addCleanup(proxy.stop, loop())
        patient = through(
            f"{USERINFO}127.0.0.1:{proxy.port}", ca=self.authority.path, connect_seconds=60.0, tls_seconds=60.0
        )
        client = Client(LoopDialer(loop()), self.timers, patient)
        self.addCleanup(client.close)
        return proxy, client, Address(origin, "127.0.0.1", proxy.port)


class TunnelTests(ProxyCase):
    """What goes through it."""

    async def test_http_and_https_both_by_connect_and_one_tunnel_serves_many_requests(self) -> None:
        for url in ("http://origin.example", "https://origin.example", "http://origin.example:8080"):
            origin = Good(content=CONTENT)
            proxy, client, address = await self.proxied(origin, url, wanted=BASIC)
            for _ in range(3):
                self.assertEqual(CONTENT, (await self.fetch(address, client=client)).content)
            self.assertEqual((1, 1, 3), (len(proxy.heads), origin.connections, len(origin.asked)), url)
            self.assertEqual(b"/thing", origin.asked[0].target)

    async def test_the_proxys_credentials_never_reach_the_origin_nor_the_origins_the_proxy(self) -> None:
        origin = Good()
        proxy, client, address = await self.proxied(origin, "https://you:other@origin.example", wanted=BASIC)
        await self.fetch(address, client=client)
        (asked,) = origin.asked
        self.assertNotIn(b"proxy-authorization", asked.fields)
        self.assertEqual(b"Basic eW91Om90aGVy", asked.fields[b"authorization"])
        self.assertNotIn(b"eW91Om90aGVy", proxy.heads[0] + bytes(proxy.carried))

    async def test_wrong_credentials(self) -> None:
        _, client, address = await self.proxied(Good(), "http://origin.example", wanted=b"Basic b3RoZXI=")
        failure = await self.failed(address, ConnectFailed, client)
        expected = f"proxy http://127.0.0.1:{address.port}: answered 407 Proxy Authentication Required"
        self.assertEqual(expected, failure.detail)

    async def test_an_origin_that_the_proxy_does_not_reach(self) -> None:
        proxy, client, address = await self.proxied(Good(), "http://origin.example")
        proxy.hosts.clear()
        failure = await self.failed(address, ConnectFailed, client)
        self.assertTrue(failure.detail.endswith(": answered 502 Bad Gateway"), failure)

    async def test_a_wrong_certificate_behind_it_is_the_origins(self) -> None:
        proxy, client, _ = await self.proxied(Good(), "https://origin.example")
        proxy.hosts[b"other.example:443"] = proxy.hosts[b"origin.example:443"]
        address = Address(parse_origin("https://other.example"), "127.0.0.1", proxy.port)
        failure = await self.failed(address, CertificateWrong, client)
        self.assertNotIn("proxy", failure.detail)

    async def test_content_that_is_cut_behind_it_is_lost(self) -> None:
        _, client, address = await self.proxied(Cut(content=CONTENT, after=100_000), "http://origin.example")
        failure = await self.failed(address, ConnectionLost, client)
        self.assertNotIn("proxy", failure.detail)

    async def test_a_paused_response_goes_on_where_it_stopped(self) -> None:
        _, client, address = await self.proxied(Good(content=CONTENT), "http://origin.example")
        response = await client.ask(address, GET)
        response.pause()
        taker = Taker()
        response.attach(taker)
        response.resume()
        await taker.over
        self.assertEqual(CONTENT, taker.content)


class SecrecyTests(ProxyCase):
    """Credentials of a proxy appear nowhere but in its own CONNECT."""

    def unseen(self, text: object) -> None:
        for secret in SECRETS:
            self.assertNotIn(secret, str(text))

    async def test_in_no_error_repr_log_or_traceback(self) -> None:
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        proxy, client, address = await self.proxied(Good(), "https://origin.example", wanted=b"Basic b3RoZXI=")
        cases: list[UpstreamFailed] = [await self.failed(address, ConnectFailed, client)]
        proxy.wanted = None
        proxy.hosts.clear()
        cases.append(await self.failed(address, ConnectFailed, client))
        await proxy.stop(loop())
        cases.append(await self.failed(address, ConnectFailed, client))
        for failure in cases:
            self.unseen(repr(failure))
            self.unseen(failure)
            # What a log of the failure would show, causes included.
            self.unseen("".join(traceback.format_exception(failure)))
        for event in logged:
            self.unseen(eventAsText(event))
        self.unseen(repr(client._settings) + repr(client._proxy) + repr(address) + address.name)

    async def test_nothing_is_left_to_fail_unheard(self) -> None:
        _, client, address = await self.proxied(Good(), "http://origin.example", wanted=b"Basic b3RoZXI=")
        await self.failed(address, ConnectFailed, client)
        gc.collect()
        self.assertEqual([], self.flushLoggedErrors())


class ShownTests(AdminCase):
    """What operators are shown of a node that uses a proxy."""

    config = evolve(AdminCase.config, upstream=through(f"{USERINFO}192.0.2.9:3128"))

    def test_neither_status_nor_metrics_show_credentials(self) -> None:
        self.upstreams = [UpstreamState("http://files.example", "192.0.2.9:3128")]
        for path in ("/status", "/metrics"):
            answer = self.ask("GET", path)
            self.assertEqual(200, answer.status)
            self.assertIn(b"192.0.2.9:3128", answer.content)
            for secret in SECRETS:
                self.assertNotIn(secret.encode(), answer.content)


class SettingTests(SynchronousTestCase):
    """The setting: as a string, in a file, in the environment; on its way to a worker; refused."""

    def read(self, proxy: str, extra: str = "") -> Config:
        document = Document.parse(f"[upstream]\nproxy = {proxy}\n{extra}", "e.toml", "/etc")
        return checked(
            build(document, Facts("h", 1, "/"), lambda kind, name: f"http://{USERINFO}p.example:1"), document
        )

    def test_it_is_a_secret_that_may_be_elsewhere(self) -> None:
        for written in (f'"http://{USERINFO}p.example:1"', '{ env = "PROXY" }', '{ file = "proxy" }'):
            config = self.read(written)
            self.assertEqual(Secret(f"http://{USERINFO}p.example:1"), config.upstream.proxy)
            self.assertNotIn("hush", repr(config))
            self.assertEqual(config, from_plain(orjson.loads(orjson.dumps(plain(config)))))

    def test_the_readmes_example_can_be_used(self) -> None:
        (block,) = re.findall(r"```toml\n(\[upstream\].*?)```", README.read_text(), re.DOTALL)
        document = Document.parse(block, "README.md", "/etc")
        config = checked(build(document, Facts("h", 1, "/"), lambda kind, name: "http://p.example:1"), document)
        self.assertEqual("/etc/node.key", config.upstream.client_key)

    def test_one_that_cannot_be_used_is_refused_by_its_place_and_not_shown(self) -> None:
        for written in (
            "https://me:hush@p.example:1",
            "http://me:hu/sh@p.example:1",
            "http://me:hush@p.example:1/hush",
            "http://me:hush@:1",
            "http://me:hush@p.example:hush",
        ):
            error = str(self.assertRaises(ConfigError, self.read, f'"{written}"'))
            self.assertTrue(error.startswith("e.toml:2: [upstream] proxy: "), error)
            for part in ("hush", "hu/", "/sh", "me:"):
                self.assertNotIn(part, error)

    def test_the_nodes_own_listener_is_no_proxy(self) -> None:
        error = str(self.assertRaises(ConfigError, self.read, '"http://me:hush@localhost:8080"'))
        self.assertEqual("e.toml:2: [upstream] proxy: http://localhost:8080 is this node's own listener", error)


class AddressTests(SynchronousTestCase):
    """With a proxy the addresses are the proxy's: no origin's name is looked up here."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, int]] = []

    def resolver(self, settings: UpstreamSettings, *urls: str) -> Resolver:
        def look_up(host: str, port: int) -> Any:
            self.asked.append((host, port))
            return succeed(["192.0.2.8", "192.0.2.9"])

        resolver = Resolver(map(parse_origin, urls), self.clock, settings, look_up, lambda _: None)
        self.addCleanup(resolver.stop)
        self.successResultOf(resolver.start())
        return resolver

    def test_every_origin_has_the_proxys_addresses_with_slots_of_its_own(self) -> None:
        urls = ("https://origin.example", "http://192.0.2.1")
        resolver = self.resolver(through(f"{USERINFO}proxy.example:3128"), *urls)
        expected = {
            "https://origin.example": [["192.0.2.8", 3128, 0], ["192.0.2.9", 3128, 1]],
            "http://192.0.2.1": [["192.0.2.8", 3128, 2], ["192.0.2.9", 3128, 3]],
        }
        self.assertEqual({"origins": expected}, resolver.document)
        self.assertEqual({("proxy.example", 3128)}, set(self.asked))
        book = AddressBook()
        book.update(resolver.document, [parse_origin(urls[0])])
        self.assertEqual(
            ["https://origin.example (192.0.2.8:3128)", "https://origin.example (192.0.2.9:3128)"],
            [address.name for address in book.of(parse_origin(urls[0]))],
        )

    def test_the_name_is_looked_up_again(self) -> None:
        self.resolver(through("proxy.example:3128"), "http://192.0.2.1")
        self.clock.advance(30)
        self.assertEqual(2, len(self.asked))

    def test_an_address_needs_no_look_up(self) -> None:
        resolver = self.resolver(through("[2001:db8::9]:3128"), "http://origin.example")
        self.assertEqual({"http://origin.example": [["2001:db8::9", 3128, 0]]}, resolver.document["origins"])
        self.assertEqual([], self.asked)


class _Behind(Good):
    """A proxy and the origin behind it in one: answers CONNECT with ``connected``, then as an origin."""

    def __init__(self, connected: bytes) -> None:
        super().__init__()
        self.connected = connected

    def answer(self, asked: Any, player: Any) -> None:
        if asked.method == b"CONNECT":
            player.send(self.connected)
        else:
            super().answer(asked, player)
