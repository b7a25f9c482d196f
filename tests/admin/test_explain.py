"""/explain: the route's own answer to what would become of a request, and nothing else happens."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.defer import maybeDeferred

from edgecache.admin.parts import UpstreamState
from edgecache.explaining import Explaining
from edgecache.rules.asking import Asked, ask
from edgecache.rules.health import EJECTED_WORD
from edgecache.rules.partrecords import as_part, part_hash, place_of
from edgecache.rules.sites import Sites
from edgecache.rules.spans import Span
from edgecache.store.pagelayout import FREE
from edgecache.store.small import SmallTransaction
from edgecache.words.messages import Request
from edgecache.words.siblingsettings import SiblingSettings, SiblingsSettings
from edgecache.words.stored import Flag, Stored
from tests.admin.harness import NOW, AdminCase

ADDRESSES = {"http://origin.example": [["192.0.2.1", 80, 0], ["192.0.2.2", 80, 1]]}


class ExplainCase(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.page.publish_fresh_until(FREE)
        self.boot = 1_000.0
        self.addresses: dict[str, Any] = dict(ADDRESSES)
        explaining = self.explaining = Explaining(
            lambda: self.parts.config,
            self.environments,
            self.control.read,
            self.page.path,
            self.clock,
            lambda: self.addresses,
            lambda: NOW,
            lambda: self.boot,
        )
        self.addCleanup(explaining.close)
        self.parts.explain = lambda *request: maybeDeferred(explaining.look, *request)

    def counted(self) -> Any:
        """What asking could have changed."""
        assert self.parts.collector is not None
        return self.page.totals(), self.page.pins(), [one.entries for one in self.parts.collector.fills()]

    def explain(self, url: str, status: int = 200, **query: Any) -> Any:
        answer = self.ask("GET", "/explain?" + urlencode([("url", url), *query.items()], doseq=True))
        self.assertEqual(status, answer.status, answer.content)
        return answer.json

    def store(
        self, url: str, host: str = "localhost", *, age: float = 5.0, lifetime: float = 60.0, **values: Any
    ) -> Stored:
        """Store a response to a GET of this."""
        asked = ask(Request(b"GET", url.encode(), host.encode(), []), Sites(self.parts.config))
        assert isinstance(asked, Asked)
        stored = self.record(asked, lifetime=lifetime, **values)
        self.put(asked.key_hash, stored)
        return stored

    def record(self, asked: Asked, *, lifetime: float = 60.0, **values: Any) -> Stored:
        """Of a response to this."""
        generated_at = NOW - 5.0
        stored = Stored(
            site=asked.site.id,
            key=asked.key,
            status=200,
            flags=0,
            floor=self.page.epoch,
            generated_at=generated_at,
            fresh_until=generated_at + lifetime,
            stale_while_revalidate_until=generated_at + lifetime,
            stale_if_error_until=float("inf"),
            validated_at=generated_at,
            date=generated_at,
            last_modified=None,
            etag=b'"e"',
            size=2,
            content_id=bytes(range(16)),
            selectors=asked.selectors,
            head=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        )
        return evolve(stored, **values)

    def put(self, record_hash: bytes, stored: Stored) -> None:
        """Store it, with two octets."""
        small = self.environments.small
        with small.env.begin(write=True) as txn:
            transaction = SmallTransaction(txn, small.databases)
            self.assertTrue(transaction.store(record_hash, stored, [b"ok"], None))
            transaction.finish()

    def store_part(self, url: str, host: str, span: Span) -> None:
        """Store two octets of a response to a GET of this."""
        asked = ask(Request(b"GET", url.encode(), host.encode(), []), Sites(self.parts.config))
        assert isinstance(asked, Asked) and span.complete is not None
        whole = self.record(asked, size=span.complete, head=b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n")
        place = place_of(span)
        assert place is not None
        self.put(part_hash(asked.key_hash, place), as_part(whole, span))


class OutcomeTests(ExplainCase):
    def test_nothing_stored_is_forwarded_to_the_addresses_in_their_order(self) -> None:
        found = self.explain("/simple/attrs/")
        self.assertEqual(
            ("index", "forward", "uri-miss", None), (found["site"], found["outcome"], found["reason"], found["stored"])
        )
        self.assertEqual("eu-1; fwd=uri-miss", found["cache_status"])
        self.assertEqual(["192.0.2.1:80", "192.0.2.2:80"], [one["address"] for one in found["upstreams"]])

    def test_an_address_that_is_out_comes_last_and_it_is_said_why(self) -> None:
        self.page.set_health(0, EJECTED_WORD)
        found = self.explain("/simple/attrs/")["upstreams"]
        self.assertEqual(
            [("192.0.2.2:80", 1.0), ("192.0.2.1:80", 0.0)], [(one["address"], one["share"]) for one in found]
        )
        self.assertEqual(
            ("ejected", "no-head", NOW + 8.0), tuple(found[1][name] for name in ("state", "reason", "next_probe_at"))
        )

    def test_the_only_address_that_fails_is_asked_and_it_is_said_that_it_fails(self) -> None:
        self.upstreams = [
            evolve(one, healthy=True, state="failing", said="stalls in the middle of contents")
            for one in self.upstreams
        ]
        told = self.explain("/simple/attrs/")["summary"]
        self.assertIn(
            "Address 1 of 2 to be asked: http://origin.example at 192.0.2.1:80, which fails: "
            "stalls in the middle of contents.",
            told,
        )

    def test_what_is_fresh_is_a_hit_with_all_that_is_known_of_it(self) -> None:
        self.store("/x", "f.example", flags=int(Flag.HEURISTIC))
        found = self.explain("http://f.example/x")
        self.assertEqual(
            ("files", "hit", "eu-1; hit; ttl=55"), (found["site"], found["outcome"], found["cache_status"])
        )
        stored = found["stored"]
        self.assertEqual(
            (200, 5, 60.0, 55.0, 2, "record"),
            tuple(stored[name] for name in ("status", "age", "lifetime", "fresh_for", "size", "content")),
        )
        self.assertEqual((["heuristic"], '"e"'), (stored["flags"], stored["etag"]))
        self.assertIn({"kind": "url", "value": "/x"}, stored["tags"])
        self.assertEqual([], found["upstreams"])

    def test_of_what_is_stored_in_part_it_is_said_which_and_a_range_within_it_is_a_hit(self) -> None:
        self.store_part("/x", "f.example", Span(0, 2, 10))
        found = self.explain("http://f.example/x")
        self.assertEqual(("forward", "uri-miss", None), (found["outcome"], found["reason"], found["stored"]))
        self.assertEqual([{"start": 0, "stop": 2, "size": 10, "fresh_for": 55.0, "etag": '"e"'}], found["parts"])
        self.assertIn("Of its content the first 2 of 10 octets are stored; a fill asks for the rest.", found["summary"])
        within = self.explain("http://f.example/x", field="Range: bytes=0-1")
        self.assertEqual(("hit", "eu-1; hit; ttl=55"), (within["outcome"], within["cache_status"]))
        self.assertEqual([], within["upstreams"])
        self.assertEqual("forward", self.explain("http://f.example/x", field="Range: bytes=0-2")["outcome"])
        self.store("/x", "f.example")
        self.assertEqual([], self.explain("http://f.example/x")["parts"])

    def test_of_a_part_that_was_purged_nothing_is_said(self) -> None:
        self.store_part("/x", "f.example", Span(8, 10, 10))
        told = self.explain("http://f.example/x")["summary"]
        self.assertIn("Of its content the last 2 of 10 octets are stored.", told)
        self.ask("POST", "/purge", {"urls": ["http://f.example/x"]})
        self.assertEqual([], self.explain("http://f.example/x")["parts"])

    def test_what_is_stale_would_be_validated(self) -> None:
        self.store("/x", "f.example", lifetime=1.0)
        found = self.explain("http://f.example/x")
        self.assertEqual(
            ("forward", "stale", True, True),
            (found["outcome"], found["reason"], found["validates"], found["stale_allowed"]),
        )

    def test_the_requests_own_directives_count(self) -> None:
        self.store("/x", "f.example")
        found = self.explain("http://f.example/x", field=["Cache-Control: no-cache", "Accept: */*"])
        self.assertEqual(("forward", "request"), (found["outcome"], found["reason"]))

    def test_what_came_last_and_was_not_stored_is_told(self) -> None:
        key_hash = self.explain("/simple/attrs/")["key_hash"]
        said = {"cache-control": "private"}
        self.explaining.unstored([[key_hash, NOW, 200, said, "", "http://origin.example (192.0.2.1)"]])
        found = self.explain("/simple/attrs/")
        self.assertEqual((200, said), (found["not_stored"]["status"], found["not_stored"]["fields"]))
        self.assertTrue(any("cache-control: private" in line for line in found["summary"]))

    def test_a_path_is_the_default_site_s_whatever_another_is_called(self) -> None:
        default, other = self.parts.config.sites[:2]
        sites = (evolve(default, hosts=("*",)), evolve(other, hosts=("localhost",)))
        self.parts.config = evolve(self.parts.config, sites=sites)
        self.assertEqual(default.name, self.explain("/x")["site"])

    def test_a_host_of_nobody_is_refused(self) -> None:
        self.parts.config = evolve(self.parts.config, sites=self.parts.config.sites[1:])
        found = self.explain("http://elsewhere.example/x")
        self.assertEqual(("refuse", 421, None), (found["outcome"], found["refused"]["status"], found["site"]))

    def test_only_what_is_stored_was_asked_for_and_there_is_nothing(self) -> None:
        found = self.explain("/simple/attrs/", field="Cache-Control: only-if-cached")
        self.assertEqual(("refuse", 504), (found["outcome"], found["refused"]["status"]))

    def test_a_file_of_an_index_is_found_by_its_page(self) -> None:
        self.assertEqual("/simple/a/", self.explain(f"/files/a/{'0' * 64}/a-1.tar.gz")["page"])

    def test_nothing_is_counted_pinned_or_changed_by_asking(self) -> None:
        self.store("/x", "f.example", lifetime=1.0)
        before = self.counted()
        for path in ("http://f.example/x", "/simple/a/"):
            self.explain(path)
        self.assertEqual(before, self.counted())


class SiblingTests(ExplainCase):
    """With siblings: whose home the key is, and whether that is asked first."""

    def setUp(self) -> None:
        super().setUp()
        others = tuple(
            SiblingSettings(name, f"https://{name}.example:8443", content_url=f"https://{name}.example:8444")
            for name in ("us-1", "ap-1")
        )
        self.parts.config = evolve(
            self.parts.config, siblings=SiblingsSettings("ca", "certificate", "key"), others=others
        )
        self.page.publish_fresh_until(self.boot + 5.0)

    def by_home(self) -> dict[str, Any]:
        """What is said of files, by their home."""
        found = {}
        for number in range(40):
            siblings = self.explain(f"/files/a/{number:064x}/a-1.tar.gz")["siblings"]
            found[siblings["home"]] = siblings
        return found

    def test_a_file_is_asked_of_its_home_and_a_page_of_the_origin(self) -> None:
        self.addresses |= {f"https://{name}.example:8444": [["192.0.2.9", 8444, -1]] for name in ("us-1", "ap-1")}
        found = self.by_home()
        self.assertEqual({"eu-1", "us-1", "ap-1"}, set(found))
        self.assertEqual([True, True, False], [found[name]["home_is_asked"] for name in ("us-1", "ap-1", "eu-1")])
        self.assertEqual({"eu-1", "us-1", "ap-1"}, set(found["us-1"]["order"]))
        self.assertIn("itself", found["eu-1"]["why_not"])
        page = self.explain("/simple/a/")
        self.assertFalse(page["siblings"]["home_is_asked"])
        self.assertIn("page_fill", page["siblings"]["why_not"])

    def test_a_home_that_is_left_out_is_named_and_why_and_who_is_asked_instead(self) -> None:
        for slot, name in enumerate(("us-1", "ap-1"), 4):
            self.addresses[f"https://{name}.example:8444"] = [["192.0.2.9", 8440 + slot, slot]]
        self.page.set_health(4, EJECTED_WORD)
        self.upstreams += [
            UpstreamState(
                "https://us-1.example:8444",
                "192.0.2.9:8444",
                False,
                "no-head",
                state="ejected",
                said="takes requests and does not answer",
                next_probe_at=NOW + 81.0,
                sibling="us-1",
            ),
            UpstreamState("https://ap-1.example:8444", "192.0.2.9:8445", sibling="ap-1"),
        ]
        out = "Its home among the siblings, us-1, is not asked now: ejected (takes requests and does not answer), "
        for order, asked, instead in (
            (["us-1", "ap-1", "eu-1"], "ap-1", "In its place ap-1 would be asked first."),
            (["us-1", "eu-1", "ap-1"], None, "In its place this node asks the origin."),
        ):
            found = self.with_order(order)
            siblings = found["siblings"]
            self.assertEqual(
                ("us-1", False, "its contents are not asked for now", asked),
                tuple(siblings[name] for name in ("home", "home_is_asked", "why_not", "asked_first")),
            )
            self.assertEqual(
                [("us-1", "ejected", NOW + 81.0)],
                [(one["sibling"], one["state"], one["next_probe_at"]) for one in siblings["passed_over"]],
            )
            told = found["summary"]
            at = told.index(f"{out}probed next in 81 s.")
            self.assertEqual(instead, told[at + 1])
        # Whom nobody would have asked before is not spoken of.
        for order, first in ((["ap-1", "us-1", "eu-1"], "ap-1"), (["eu-1", "us-1", "ap-1"], None)):
            siblings = self.with_order(order)["siblings"]
            self.assertEqual((order[0], first, []), tuple(siblings[n] for n in ("home", "asked_first", "passed_over")))

    def with_order(self, order: list[str]) -> Any:
        """What is said of a file for which the nodes come in this order."""
        files = (self.explain(f"/files/a/{number:064x}/a-1.tar.gz") for number in range(200))
        return next(found for found in files if found["siblings"]["order"] == order)

    def test_where_none_of_the_others_has_an_address_this_node_asks_the_origin(self) -> None:
        found = self.by_home()
        self.assertEqual({"eu-1", "us-1", "ap-1"}, set(found))
        self.assertEqual({(False, None)}, {(one["home_is_asked"], one["asked_first"]) for one in found.values()})

    def test_a_home_does_not_matter_where_the_site_fills_from_its_origin(self) -> None:
        siblings = self.explain("/simple/a/")["siblings"]
        self.assertEqual((None, []), (siblings["asked_first"], siblings["passed_over"]))

    def test_a_fenced_node_asks_no_sibling(self) -> None:
        self.page.publish_fresh_until(self.boot - 1.0)
        self.assertIn("fenced", self.explain(f"/files/a/{0:064x}/a-1.tar.gz")["siblings"]["why_not"])


class PurgedTests(ExplainCase):
    def test_the_purge_that_matters_is_named(self) -> None:
        self.store("/x", "f.example")
        self.ask("POST", "/purge", {"urls": ["http://f.example/y"], "id": "another"})
        self.assertIsNone(self.explain("http://f.example/x")["purge"])
        self.ask("POST", "/purge", {"prefixes": ["http://f.example/"], "id": "all of it"})
        found = self.explain("http://f.example/x")
        self.assertEqual(("forward", "stale"), (found["outcome"], found["reason"]))
        purge = found["purge"]
        self.assertEqual(
            ("all of it", "revalidate", "prefix", "/"), tuple(purge[name] for name in ("id", "mode", "kind", "value"))
        )
        self.assertEqual((NOW, "eu-1"), (purge["accepted_at"], purge["accepted_by"]))
        self.assertTrue(any("purge all of it" in line for line in found["summary"]))

    def test_what_was_deleted_is_shown_though_the_route_knows_it_no_more(self) -> None:
        self.store("/x", "f.example")
        self.ask("POST", "/purge", {"urls": ["http://f.example/x"], "mode": "delete"})
        found = self.explain("http://f.example/x")
        self.assertEqual(
            ("uri-miss", "delete", 200), (found["reason"], found["purge"]["mode"], found["stored"]["status"])
        )

    def test_a_fenced_node_validates_and_says_so(self) -> None:
        self.store("/x", "f.example")
        self.page.publish_fresh_until(self.boot - 1.0)
        found = self.explain("http://f.example/x")
        self.assertEqual((True, "forward", "stale"), (found["fenced"], found["outcome"], found["reason"]))
        self.assertTrue(any("fenced" in line for line in found["summary"]))


class QueryTests(ExplainCase):
    def test_what_cannot_be_understood_is_400_and_named(self) -> None:
        for query, named in (
            ({"url": "nowhere"}, "nowhere"),
            ({"url": "ftp://a.example/"}, "ftp"),
            ({"url": "/a b"}, "/a b"),
            ({"url": "/ü"}, "ü"),
            ({"url": "/a", "method": "POST"}, "POST"),
            ({"url": "/a", "field": "nothing"}, "nothing"),
            ({"url": "/a", "header": "A: b"}, "header"),
            ({}, "''"),
        ):
            answer = self.ask("GET", "/explain?" + urlencode(query))
            self.assertEqual((400, "invalid-query"), (answer.status, answer.json["error"]), query)
            self.assertIn(named, answer.json["detail"])

    def test_it_takes_a_token_that_may_read_the_status(self) -> None:
        self.assertEqual(401, self.ask("GET", "/explain?url=/a", token=None, peer="127.0.0.1").status)
        self.assertEqual(403, self.ask("GET", "/explain?url=/a", token=self.scoped("purge")).status)
        self.assertEqual(200, self.ask("GET", "/explain?url=/a", token=self.scoped("status")).status)

    def test_a_voter_serves_nothing(self) -> None:
        self.parts.explain = None
        self.assertEqual((421, "voter"), ((answer := self.ask("GET", "/explain?url=/a")).status, answer.json["error"]))
