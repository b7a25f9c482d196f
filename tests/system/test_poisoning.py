"""Recipes against caches, each as an attack and then a victim, through a node with two workers (FIELD 8)."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer, ask
from tests.system.contents import Artifact, Octets
from tests.system.harness import Node
from tests.system.origins import Hold, Origin, Reply
from tests.system.processes import until
from tests.system.reflecting import LARGEST, STAYING, answer

SITES = """
[node]
id = "edge-1"
[[site]]
name = "trusting"
profile = "plain"
hosts = ["*"]
origins = ["{url}"]
[[site]]
name = "careful"
profile = "plain"
hosts = ["careful.example"]
origins = ["{url}"]
request_fields = ["accept-language", "origin"]
[[site]]
name = "index"
profile = "index"
hosts = ["index.example"]
origins = ["{url}"]
"""

RECIPES: dict[str, dict[str, str]] = {
    "another host": {"X-Forwarded-Host": "evil.example", "X-Host": "evil.example", "Forwarded": "host=evil.example"},
    "another port, prefix, server": {"X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/x", "X-Forwarded-Server": "e"},
    "another scheme": {"X-Forwarded-Scheme": "http", "X-Forwarded-Proto": "nothttps"},
    "another address": {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "True-Client-IP": "127.0.0.1"},
    "another target": {"X-Original-URL": "/admin", "X-Rewrite-URL": "/admin"},
    "another method": {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE"},
    "content of a GET announced by a field that is none": {"X-Content": "a=b", "Content-Type": "text/evil"},
    "a field that is too large": {"X-Large": "x" * (LARGEST + 1)},
    "a range": {"Range": "bytes=0-0", "If-Range": '"x"'},
    "a range that cannot be": {"Range": "bytes=99999999-"},
    "credentials": {"Authorization": "Basic eDp5", "Cookie": "session=evil"},
    "fields of other nodes": {"Edgecache-Page": "1 0 0x0.0p+0", "Edgecache-Scheme": "https", "Edgecache-Budget": "1"},
    "a look-up by nobody": {"Edgecache-Positions": "edge-2:" + "0" * 32 + ":99", "Edgecache-Selectors": "1"},
    "a network before": {"CDN-Loop": "elsewhere", "Via": "1.1 evil"},
    "fields of a connection": {
        "Connection": "close, Accept-Language, Origin, Host, Cache-Control, Via, Range, Cookie",
        "Accept-Language": "de",
        "Origin": "https://victim.example",
    },
    "an upgrade": {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"},
    "nothing to keep": {"Cache-Control": "no-store"},
    "all that was ever invented": {
        "User-Agent": "evil",
        "Referer": "//evil.example",
        "X-WAP-Profile": "//evil.example",
    },
}

TRUSTED = frozenset(
    # An origin that says what all may store, and does not say of what it was made: that is for Vary, or request_fields.
    (
        "another host",
        "another port, prefix, server",
        "another scheme",
        "another address",
        "content of a GET announced by a field that is none",
        "a field that is too large",
        "credentials",
        "all that was ever invented",
    )
)


_cleanups = ExitStack()
_origin: Origin
_node: Node


def setUpModule() -> None:
    """One node for all."""
    global _origin, _node
    root = Path(_cleanups.enter_context(tempfile.TemporaryDirectory(prefix="edgecache-poison-")))
    _origin = Origin(answer).start()
    _cleanups.callback(_origin.stop)
    (root / "node.toml").write_text(SITES.format(url=_origin.url))
    _node = Node(root, arguments=("--config", str(root / "node.toml")))
    _cleanups.callback(_node.end)
    _node.start()


def tearDownModule() -> None:
    _cleanups.close()


class PoisoningCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.origin, self.node = _origin, _node
        self.origin.forget()

    def ask(self, host: str, target: str, fields: dict[str, str] | None = None, **more: Any) -> Answer:
        return self.node.ask(target, fields={"Host": host, **(fields or {})}, **more)

    def hit(self, host: str, target: str, fields: dict[str, str] | None = None) -> Answer:
        """What a victim gets once it comes from the store; never anything else before."""
        first = self.ask(host, target, fields)

        def look() -> Answer | None:
            found = self.ask(host, target, fields)
            self.assertEqual((first.status, first.content), (found.status, found.content), target)
            return found if found.hit else None

        return first if first.hit else until(look, f"{target} from the store")


class RecipeTests(PoisoningCase):
    def victims(self, host: str, target: str, recipes: set[str]) -> None:
        def shown(found: Answer, path: str) -> tuple[int, str, str | None]:
            return found.status, found.content.decode().replace(path, "PATH"), found.fields.get("location")

        plain = target.format("plain")
        expected = shown(self.hit(host, plain), "plain")
        self.assertEqual(200, expected[0])
        for number, name in enumerate(sorted(recipes)):
            path = target.format(f"a{number}")
            self.ask(host, path, RECIPES[name])
            self.assertEqual(expected, shown(self.hit(host, path), f"a{number}"), f"{host}: {name}")
            # And what is stored already.
            self.ask(host, plain, {"Cache-Control": "no-cache", **RECIPES[name]})
            self.assertEqual(expected, shown(self.hit(host, plain), "plain"), f"{host}: {name}, revalidating")

    def test_a_page_of_an_index(self) -> None:
        self.victims("index.example", "/simple/{}/", set(RECIPES))
        allowed = {"accept", "user-agent"}
        asked = [seen for seen in self.origin.seen if seen.target.startswith("/simple/")]
        self.assertEqual({frozenset(allowed)}, {frozenset(seen.fields) - STAYING for seen in asked})
        self.assertEqual({"GET"}, {seen.method for seen in asked})

    def test_anything_else_of_an_index(self) -> None:
        self.victims("index.example", "/other/{}", set(RECIPES))

    def test_a_plain_site_whose_origin_gets_listed_fields_only(self) -> None:
        self.victims("careful.example", "/listed/{}", set(RECIPES))

    def test_a_plain_site_whose_origin_says_of_what_it_makes_its_answers(self) -> None:
        self.victims("any.example", "/vary/{}", set(RECIPES) - TRUSTED)

    def test_without_either_what_is_left_is_up_to_the_origin(self) -> None:
        """Or the recipes would prove nothing: this is what ``request_fields`` is for (docs/SECURITY.md)."""
        expected = self.ask("any.example", "/trusted/plain").content.decode().replace("plain", "PATH")
        for number, name in enumerate(sorted(TRUSTED)):
            self.ask("any.example", f"/trusted/a{number}", RECIPES[name])
            found = self.hit("any.example", f"/trusted/a{number}").content.decode()
            self.assertNotEqual(expected, found.replace(f"a{number}", "PATH"), name)

    def test_what_connection_took_away_is_not_stored_as_an_answer_to_it(self) -> None:
        for number in range(4):
            target = f"/vary/connection{number}"
            self.ask("any.example", target, RECIPES["fields of a connection"])
            mine = {"Accept-Language": "de", "Origin": "https://victim.example"}
            seen = json.loads(self.hit("any.example", target, mine).content)["fields"]
            self.assertEqual("https://victim.example", seen["origin"])

    def test_a_get_with_content_is_the_origin_s_alone_and_no_index_s_at_all(self) -> None:
        for host, status in (("any.example", 200), ("careful.example", 200), ("index.example", 400)):
            found = self.ask(host, "/fat", content=b"a=evil")
            self.assertEqual((status, False), (found.status, found.stored), host)
            self.assertNotIn("content-length", json.loads(self.hit(host, "/fat").content)["fields"])

    def test_links_are_made_of_the_asker_s_own_host(self) -> None:
        with_links = {"info": {}, "urls": [{"filename": "a-1.tar.gz", "url": f"{self.origin.url}/f/a-1.tar.gz"}]}
        content = json.dumps({**with_links, "releases": {}}).encode()
        self.origin.serve("/pypi/a/json", Reply(Octets(content), fields=(("Content-Type", "application/json"),)))
        evil = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
        for host, fields in (("index.example:81", evil), ("index.example", {}), ("index.example:81", {})):
            found = self.ask(host, "/pypi/a/json", fields)
            self.assertEqual(200, found.status, found)
            self.assertIn(f"http://{host}/", found.content.decode())
            self.assertNotIn(b"evil", found.content)

    def test_a_host_chooses_among_sites_and_crosses_none(self) -> None:
        contents = set()
        for host in ("careful.example", "CAREFUL.example:80", "any.example", "careful.example.evil.example"):
            target = "/crossing"
            self.ask(host, target, {"X-Who": host})
            contents.add(self.hit(host, target).content)
        self.assertEqual(2, len(contents), contents)
        for host in ("careful.example/", "careful.example@any.example", "a b"):
            self.assertEqual(400, self.ask(host, "/crossing").status, host)


class DeceptionTests(PoisoningCase):
    def test_what_is_one_user_s_is_stored_under_no_name_that_it_can_be_given(self) -> None:
        for path in (
            "/account.php/x.css",
            "/account/a.tar.gz",
            "/account%2Fx.js",
            "/account;x.css",
            "/account%00.css",
            "/account%3fx.png",
            "/account//x.whl",
            "/account/%2e/x.whl",
            "/account/a/%2E%2e/b.ico",
        ):
            for host in ("any.example", "index.example"):
                mine = self.ask(host, path, {"Cookie": "alice"})
                self.assertEqual(host == "any.example", b"alice" in mine.content, path)
                other = self.ask(host, path)
                self.assertNotIn(b"alice", other.content + repr(other.fields).encode(), path)

    def test_each_spelling_goes_upstream_as_it_came_and_is_stored_by_itself(self) -> None:
        spellings = (
            "/spelt/a/b",
            "/spelt//a/b",
            "/spelt/a%2fb",
            "/spelt/a%2Fb",
            "/spelt/./a/b",
            "/spelt/x/../a/b",
            "/spelt/a/b;c",
            "/spelt/a/b%00",
            "/spelt/a/b?",
            "/spelt/a/b?x=1&x=2",
            "/spelt/a/b?x=1;x=2",
            "/spelt/a/b?x=2&x=1",
            "/spelt/%61/b",
        )
        for host in ("any.example", "index.example"):
            for target in spellings:
                self.assertEqual(target, json.loads(self.ask(host, target).content)["target"])
            for target in spellings:
                self.assertEqual(target, json.loads(self.hit(host, target).content)["target"])

    def test_nothing_climbs_above_its_site(self) -> None:
        asked = len(self.origin.seen)
        for target in ("/../x", "/a/../../x", "/%2e%2e/x", "/a/..%2f..%2fx", "/a%5c..%5c..%5cx", "/..;a=b/x"):
            for host in ("any.example", "index.example"):
                self.assertEqual(400, self.ask(host, target).status, target)
        self.assertEqual(asked, len(self.origin.seen))


class ErrorTests(PoisoningCase):
    """One client's errors are not others' (CPDoS); nor do they touch what is known of an origin."""

    def test_a_request_that_is_refused_here_reaches_nobody_and_is_not_remembered(self) -> None:
        for number, fields in enumerate(
            (
                {"X-A": "x" * 20_000},
                {"X-A": "a\x01b"},
                {"Expect": "nonsense"},
                {"CDN-Loop": "edge-1"},
                {"CDN-Loop": 'other, EDGE-1;v="1"'},
                {"Transfer-Encoding": "chunked, identity"},
                {"Edgecache-Bypass": "edge_wrong"},
                {"Edgecache-Min-Serial": "1e9"},
            )
        ):
            for host in ("any.example", "index.example"):
                target = f"/refused/{number}"
                asked = len(self.origin.seen)
                self.assertIn(self.ask(host, target, fields).status, (400, 403, 417, 431, 508), fields)
                self.assertEqual(asked, len(self.origin.seen), fields)
                self.assertEqual(200, self.hit(host, target).status)

    def test_a_serial_that_nobody_has_costs_others_nothing(self) -> None:
        expected = self.hit("index.example", "/simple/serial/").content
        for _ in range(5):
            found = self.ask("index.example", "/simple/serial/", {"Edgecache-Min-Serial": "9" * 17})
            self.assertEqual((503, True), (found.status, "retry-after" in found.fields))
        self.assertEqual(expected, self.hit("index.example", "/simple/serial/").content)
        upstreams = json.loads(self.node.admin("GET", "/status").content)["upstreams"]
        self.assertEqual({"healthy"}, {one["state"] for one in upstreams}, upstreams)

    def test_an_origin_s_internal_fields_reach_no_client(self) -> None:
        planted = (("Edgecache-Fresh", "1"), ("Edgecache-Selectors", "1"), ("Surrogate-Key", "a"), ("Cache-Tag", "b"))
        self.origin.serve("/planted", Reply(Artifact("planted", 9), fields=(*planted, ("Cache-Control", "max-age=60"))))
        for found in (self.ask("any.example", "/planted"), self.hit("any.example", "/planted")):
            self.assertEqual([], [name for name in found.fields if name.startswith(("edgecache", "surr", "cache-tag"))])


class RangeTests(PoisoningCase):
    def test_odd_ranges_are_answered_with_the_whole_or_refused_and_leave_the_whole_in_the_store(self) -> None:
        whole = Artifact("ranged", 100_000)
        for number, (value, status) in enumerate(
            (
                ("bytes=" + ",".join(["0-"] * 4900), 200),
                ("bytes=0-9,5-14", 200),
                ("bytes=0-0,-1", 200),
                ("bytes=9-0", 200),
                ("bytes=-", 200),
                ("bytes=0-" + "9" * 20, 200),
                ("bytes=" + "9" * 20 + "-", 200),
                ("lines=0-1", 200),
                ("bytes=-0", 416),
                ("bytes=100000-", 416),
                ("bytes=0-" + "9" * 19, 206),
                ("bytes=-" + "9" * 19, 206),
                ("bytes=99999-99999", 206),
            )
        ):
            target = f"/ranged/{number}"
            self.origin.serve(target, Reply(whole, etag='"r"', fields=(("Cache-Control", "max-age=60"),)))
            for state in ("missed", "stored"):
                found = self.ask("any.example", target, {"Range": value})
                self.assertEqual(status, found.status, (state, value[:40]))
                self.assertLessEqual(len(found.content), whole.size)
                self.assertNotIn("multipart", found.fields.get("content-type", ""))
                stored = self.hit("any.example", target)
                self.assertEqual((200, whole.whole()), (stored.status, stored.content), value[:40])
        self.assertEqual(set(), {seen.fields.get("range") for seen in self.origin.seen} - {None})

    def test_an_if_range_that_does_not_match_exactly_gets_the_whole(self) -> None:
        whole = Artifact("if-range", 10_000)
        self.origin.serve("/if-range", Reply(whole, etag='W/"r"', fields=(("Cache-Control", "max-age=60"),)))
        self.hit("any.example", "/if-range")
        for tag in ('W/"r"', '"r"', "r", "*", "", "Thu, 01 Jan 1970 00:00:00 GMT"):
            found = self.ask("any.example", "/if-range", {"Range": "bytes=1-2", "If-Range": tag})
            self.assertEqual((200, whole.whole()), (found.status, found.content), tag)

    def test_an_octet_of_something_large_does_not_make_the_node_fetch_all_of_it(self) -> None:
        hold = Hold(1 << 20)
        self.origin.serve("/large?a", Reply(Artifact("large", 64 << 20), hold=hold))
        found = self.ask("any.example", "/large?a", {"Range": "bytes=7-7"})
        self.assertEqual((206, 1), (found.status, len(found.content)))
        until(lambda: self.running() == 0, "the end of a fill that nobody wants")
        hold.release()

    def running(self) -> int:
        return int(json.loads(self.node.admin("GET", "/status").content)["counters"]["fills_running"])


class VariantTests(PoisoningCase):
    def test_however_many_variants_there_are_one_purge_names_them_all(self) -> None:
        def shown(number: int) -> Answer:
            return self.ask("any.example", "/vary/many", {"Accept-Language": f"x-{number}"})

        for number in range(60):
            shown(number)
        until(lambda: all(shown(number).hit for number in range(60)), "60 variants in the store")
        self.node.purge(urls=["/vary/many"], mode="delete")
        self.assertEqual([], [number for number in range(60) if shown(number).hit])


class PurgeAbuseTests(PoisoningCase):
    """Who may purge is a token, and nothing else that a request can say."""

    def setUp(self) -> None:
        super().setUp()
        self.hit("any.example", "/kept")

    def tearDown(self) -> None:
        self.assertTrue(self.ask("any.example", "/kept").hit)

    def admin(self, method: str, target: str, fields: dict[str, str], content: bytes | None = None) -> Answer:
        return ask(self.node.admin_url, target, method=method, fields=fields, content=content)

    def scoped(self, *scopes: str) -> str:
        document = {"name": "-".join(scopes), "scopes": list(scopes)}
        return str(json.loads(self.node.admin("POST", "/tokens", document).content)["token"])

    def test_without_a_token_or_with_another_s_scope(self) -> None:
        content = b'{"all": true}'
        typed = {"Content-Type": "application/json"}
        for fields, status in (
            ({}, 401),
            ({"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}, 401),
            ({"Authorization": "Bearer edge_wrong"}, 401),
            ({"Cookie": f"token={self.node.token}"}, 401),
            ({"Authorization": f"Bearer {self.scoped('status', 'bypass', 'verify')}"}, 403),
        ):
            self.assertEqual(status, self.admin("POST", "/purge", {**typed, **fields}, content).status, fields)
            for target in ("/service/s/purge/a", "/service/s/purge_all"):
                self.assertEqual(status, self.admin("POST", target, fields).status, (target, fields))
            self.assertEqual(status, self.admin("PURGE", "/kept", fields).status, fields)
            on_public = self.ask("any.example", "/kept", fields, method="PURGE")
            self.assertEqual(405, on_public.status, fields)

    def test_from_a_page_in_a_browser(self) -> None:
        page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        for target in ("/purge", "/kept", "/status", "/service/s/purge_all", "/tokens"):
            found = self.admin("OPTIONS", target, {**page, **asks})
            self.assertEqual(405, found.status)
            self.assertEqual([], [name for name in found.fields if name.startswith("access-control")])
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
            found = self.admin("POST", "/purge", {**page, "Content-Type": kind}, b'{"all": true}')
            self.assertEqual(401, found.status, kind)
            # A form of our own dashboard's user, who has the token at hand, is none either.
            bearer = {"Authorization": f"Bearer {self.node.token}"}
            found = self.admin("POST", "/purge", {**page, **bearer, "Content-Type": kind}, b'{"all": true}')
            self.assertEqual(415, found.status, kind)
        for target in ("/metrics", "/healthz", "/readyz"):
            found = self.admin("GET", target, page)
            self.assertEqual([], [name for name in found.fields if name.startswith("access-control")])
            for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8081"):
                self.assertEqual(401, self.admin("GET", target, {"Host": host}).status, (target, host))
            self.assertEqual(401, self.admin("GET", target, {"X-Forwarded-For": "127.0.0.1"}).status)

    def test_an_id_sent_again_purges_nothing_again_and_nothing_else(self) -> None:
        first = self.node.admin("POST", "/purge", {"urls": ["/elsewhere"], "id": "once"})
        self.assertIn(first.status, (200, 202))
        again = self.node.admin("POST", "/purge", {"urls": ["/elsewhere"], "id": "once"})
        self.assertEqual(json.loads(first.content)["id"], json.loads(again.content)["id"])
        self.assertEqual(409, self.node.admin("POST", "/purge", {"all": True, "id": "once"}).status)

    def test_a_million_keys_and_a_storm_of_purges(self) -> None:
        keys = {"tags": [f"t{number}" for number in range(20_000)]}
        self.assertEqual(413, self.node.admin("POST", "/purge", keys).status)
        statuses = {self.node.admin("POST", "/purge", {"urls": ["/nowhere"]}).status for _ in range(50)}
        self.assertLessEqual(statuses, {200, 202, 429})
