"""``edgecache audit``: what it asks for, and what it makes of the answers."""

from __future__ import annotations

from typing import Any

import orjson
from attrs import evolve
from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.auditing import SLACK_SECONDS, Key, audit, keys_of, nodes_of, public_urls, verdict_of
from edgecache.admin.parts import SiblingView
from edgecache.admin.site import admin_site
from edgecache.words.config import Access, ClientSettings, Secret
from tests.admin.harness import AdminCase

STATUS: dict[str, Any] = {
    "now": 1_000.0,
    "node": {"id": "eu-1", "tls": False},
    "listen": {"public": ["0.0.0.0:8080"]},
    "sites": [
        {"id": "1", "hosts": ["*"], "profile": "index"},
        {"id": "2", "hosts": ["files.example"], "profile": "plain"},
        {"id": "3", "hosts": ["*"], "profile": "index", "path": "/team-a", "access": "token"},
    ],
    "purges": {"recent": []},
    "siblings": [],
}


def purge(purge_id: str, *selectors: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    sample = [{"kind": kind, "site": site, "value": value} for kind, site, value in selectors]
    purged: dict[str, Any] = {"id": purge_id, "state": "complete", "mode": "revalidate", "accepted_at": 990.0}
    return {**purged, "sample": sample, **more}


def keys(*purges: dict[str, Any], most: int = 10) -> list[Key]:
    return keys_of({**STATUS, "purges": {"recent": list(purges)}}, 50.0, most)


class KeysTests(SynchronousTestCase):
    def test_each_selector_is_asked_for_by_a_url_that_it_surely_names(self) -> None:
        found = keys(
            purge("a", ("url", "1", "/x?y"), ("prefix", "2", "/pub/"), ("tag", "1", "project/foo"), ("all", "1", "")),
            purge("b", ("tag", "1", "release"), ("tag", "2", "project/foo"), ("url", "9", "/gone")),
        )
        expected = [("", "/x?y"), ("files.example", "/pub/"), ("", "/simple/foo/"), ("", "/simple/")]
        self.assertEqual(expected, [(key.host, key.target) for key in found])
        self.assertEqual({40.0}, {key.purged for key in found})

    def test_a_site_below_a_path_is_asked_there_as_a_client_of_it(self) -> None:
        found = keys(purge("a", ("tag", "3", "project/foo"), ("all", "3", ""), ("url", "1", "/x")))
        expected = [("/team-a/simple/foo/", True), ("/team-a/simple/", True), ("/x", False)]
        self.assertEqual(expected, [(key.target, key.private) for key in found])

    def test_the_newest_purge_of_a_url_counts(self) -> None:
        one = ("url", "1", "/x")
        found = keys(purge("new", one), purge("old", one, accepted_at=100.0))
        self.assertEqual(["new"], [key.purge for key in found])

    def test_what_does_not_hold_everywhere_yet_or_was_soft_is_no_case(self) -> None:
        one = ("url", "1", "/x")
        self.assertEqual([], keys(purge("a", one, state="durable"), purge("b", one, mode="soft")))

    def test_no_more_than_asked_for(self) -> None:
        self.assertEqual(2, len(keys(purge("a", *(("url", "1", f"/{n}") for n in range(9))), most=2)))


class VerdictTests(SynchronousTestCase):
    def test_what_is_older_than_its_purge_is_older(self) -> None:
        self.assertEqual("older", verdict_of(200, "100", 90.0)[0])
        self.assertEqual("older", verdict_of(404, "100", 90.0)[0])

    def test_what_is_younger_or_within_the_slack_is_current(self) -> None:
        self.assertEqual("current", verdict_of(200, "10", 90.0)[0])
        self.assertEqual("current", verdict_of(200, str(int(90 + SLACK_SECONDS)), 90.0)[0])
        self.assertEqual("current", verdict_of(200, None, 90.0)[0])

    def test_what_is_not_stored_is_absent_and_the_rest_unclear(self) -> None:
        self.assertEqual("absent", verdict_of(504, None, 90.0)[0])
        for status, age in ((500, None), (503, "5"), (421, None), (200, "old"), (200, "-1")):
            self.assertEqual("unclear", verdict_of(status, age, 90.0)[0], (status, age))


class PublicURLTests(SynchronousTestCase):
    def test_a_node_that_listens_everywhere_is_where_its_admin_is(self) -> None:
        self.assertEqual(["http://edge.example:8080"], public_urls(STATUS, "http://edge.example:8081"))
        secure = {**STATUS, "node": {"tls": True}, "listen": {"public": ["[::1]:443"]}}
        self.assertEqual(["https://[::1]:443"], public_urls(secure, "http://x:1"))
        self.assertEqual([], public_urls({**STATUS, "listen": {"public": []}}, "http://x:1"))


class NodesTests(SynchronousTestCase):
    """Who is asked when nobody is named."""

    def nodes(self, *siblings: tuple[str, str, bool], **more: Any) -> tuple[list[str], list[str]]:
        views = [{"id": name, "public_url": url, "voter": voter} for name, url, voter in siblings]
        return nodes_of({**STATUS, "siblings": views, **more}, "http://edge.example:8081")

    def test_the_node_itself_and_every_sibling_that_serves(self) -> None:
        expected = (["http://edge.example:8080", "https://us.example"], [])
        self.assertEqual(expected, self.nodes(("us-1", "https://us.example", False), ("v", "", True)))

    def test_whoever_cannot_be_found_is_named(self) -> None:
        found = self.nodes(("us-1", "", False), listen={"public": []})
        self.assertEqual(([], ["eu-1", "us-1"]), found)


class Aged(Resource):
    """A node whose store has everything, with one age; it keeps what it is asked."""

    isLeaf = True

    def __init__(self, age: int) -> None:
        super().__init__()
        self.age = age
        self.asked: list[tuple[bytes, bytes, bytes]] = []
        self.shown: list[tuple[bytes, bytes | None]] = []

    def render(self, request: Any) -> bytes:
        fields = [request.getHeader(name) for name in (b"cache-control", b"accept-encoding")]
        self.shown.append((request.uri, request.getHeader(b"authorization")))
        self.asked.append((request.method, request.uri, b" ".join(fields)))
        request.setHeader(b"age", b"%d" % self.age)
        return b""


class AuditTests(TestCase, AdminCase):
    def setUp(self) -> None:
        AdminCase.setUp(self)
        self.where = AdminAddress(self.listen(admin_site(self.parts, reactor)), self.token)
        self.lines: list[str] = []

    def listen(self, site: Any) -> str:
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def node(self, age: int) -> tuple[Aged, str]:
        aged = Aged(age)
        return aged, self.listen(Site(aged))

    async def test_every_node_is_asked_for_its_store_alone_in_each_coding(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a b?c"]})
        aged, url = self.node(0)
        self.assertEqual(0, await audit(reactor, self.where, [url], self.lines.append))
        self.assertEqual(
            {(b"HEAD", b"/a%20b?c", b"only-if-cached " + coding) for coding in (b"identity", b"gzip")}, set(aged.asked)
        )
        # The site with a name of its own is asked for by that.
        self.assertEqual(["1 nodes, 2 URLs: 4 current, 0 absent, 0 older, 0 unclear"], self.lines)

    async def test_only_private_sites_are_shown_a_client_s_credentials(self) -> None:
        site, other = self.parts.config.sites
        clients = (ClientSettings("audit", token=Secret("sha256:" + "0" * 64)),)
        sites = (evolve(site, access=Access.TOKEN, clients=clients, path="/team-a"), other)
        parts = evolve(self.parts, config=evolve(self.parts.config, sites=sites))
        where = AdminAddress(self.listen(admin_site(parts, reactor)), self.token)
        self.ask("POST", "/purge", {"urls": ["/a"]})
        aged, url = self.node(0)
        self.assertEqual(0, await audit(reactor, where, [url], self.lines.append, authorization="Bearer x"))
        self.assertEqual({(b"/team-a/a", b"Bearer x"), (b"/a", None)}, set(aged.shown))

    async def test_the_node_with_older_content_is_named(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"})
        (_, young), (_, old) = self.node(0), self.node(600)
        self.assertEqual(1, await audit(reactor, self.where, [young, old], self.lines.append))
        self.assertEqual(4, sum(line.startswith(f"older: {old}: ") for line in self.lines))
        self.assertIn("Age 600 s", self.lines[0])
        self.assertIn("purge x", self.lines[0])
        self.assertNotIn(young, "".join(self.lines))

    async def test_siblings_are_asked_unasked_and_one_that_is_nowhere_is_no_good_news(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"]})
        (own, here), (other, there) = self.node(0), self.node(0)
        us, ap = (
            SiblingView(name, "", "", url, False, None, False, 0, "") for name, url in (("us", there), ("ap", ""))
        )
        listen = evolve(self.parts.config.listen, public=(here.removeprefix("http://"),))
        for siblings, status in (([us], 0), ([us, ap], 1)):
            parts = evolve(
                self.parts, config=evolve(self.parts.config, listen=listen), siblings=lambda found=siblings: found
            )
            where = AdminAddress(self.listen(admin_site(parts, reactor)), self.token)
            self.assertEqual(status, await audit(reactor, where, [], self.lines.append))
        self.assertEqual(len(own.asked), len(other.asked))
        self.assertGreater(len(own.asked), 0)
        self.assertEqual(1, sum(line.startswith("not asked: ap: ") for line in self.lines), self.lines)

    async def test_a_voter_knows_nothing_that_could_be_asked_for(self) -> None:
        parts = evolve(self.parts, config=evolve(self.parts.config, sites=()))
        where = AdminAddress(self.listen(admin_site(parts, reactor)), self.token)
        try:
            await audit(reactor, where, [], self.lines.append)
        except AdminFailed as failure:
            self.assertIn("ask another node", str(failure))
        else:
            self.fail("it found nothing wrong, having asked nothing")

    async def test_a_node_that_does_not_answer_is_no_good_news(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"]})
        self.assertEqual(1, await audit(reactor, self.where, ["http://127.0.0.1:1"], self.lines.append))
        self.assertIn("no answer", self.lines[0])

    async def test_everything_can_be_had_as_json(self) -> None:
        self.ask("POST", "/purge", {"tags": ["project/foo"]})
        _, url = self.node(0)
        await audit(reactor, self.where, [url], self.lines.append, as_json=True)
        document = orjson.loads(self.lines[0])
        self.assertEqual(1, document["keys"])
        self.assertEqual({"/simple/foo/"}, {answer["target"] for answer in document["answers"]})
