"""The fronts of purging on the admin listener: waiting, the Fastly API's shape, PURGE, sizes, and the audit."""

from __future__ import annotations

import os
import stat
from typing import Any

import orjson
from attrs import evolve

from edgecache.admin import audit
from edgecache.admin.audit import KEPT_FILES
from edgecache.admin.publicpurges import PublicPurges
from edgecache.words.config import FastlySoft
from edgecache.words.purging import PurgeState
from edgecache.words.reasons import PurgeMode
from tests.admin.harness import CONFIG, NOW, AdminCase, Client, Response, with_purge
from tests.siblings.spreads import HandFleet

MILLION = 1_000_000


class FleetCase(AdminCase):
    """Of three nodes, whose acknowledgements the test gives."""

    def make_spread(self) -> HandFleet:
        self.fleet = HandFleet(lambda: NOW)
        return self.fleet

    def begin(self, method: str, path: str, document: Any = None) -> Client:
        """:return: the connection of a request that is not answered yet."""
        client = Client(self.site, "192.0.2.9")
        content = b"" if document is None else orjson.dumps(document)
        client.send(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        return client

    def pending(self, client: Client) -> bool:
        return client.transport.value() == b""


class WaitingTests(FleetCase):
    def test_a_purge_is_answered_when_it_is_durable_unless_more_is_waited_for(self) -> None:
        durable = self.begin("POST", "/purge", {"urls": ["/a"], "id": "x"})
        complete = self.begin("POST", "/purge?wait=complete&timeout=60", {"urls": ["/a"], "id": "x"})
        self.assertEqual((True, True), (self.pending(durable), self.pending(complete)))
        self.fleet.apply("us-1", "x")
        answer = durable.receive()
        self.assertEqual((202, "durable", ["ap-1"]), (answer.status, answer.json["state"], answer.json["pending"]))
        self.assertEqual(NOW + 10.0, answer.json["effective_by"])
        self.assertTrue(self.pending(complete))
        self.fleet.apply("ap-1", "x")
        answer = complete.receive()
        self.assertEqual((200, "complete", None), (answer.status, answer.json["state"], answer.json["effective_by"]))

    def test_too_few_within_the_timeout_is_503_and_the_purge_is_kept(self) -> None:
        client = self.begin("POST", "/purge?timeout=2", {"urls": ["/a"], "id": "x"})
        self.clock.advance(2.0)
        answer = client.receive()
        self.assertEqual((503, "1", "local"), (answer.status, answer.headers["retry-after"], answer.json["state"]))
        self.fleet.apply("us-1", "x")
        self.assertEqual((202, 1), (self.ask("GET", "/purge/x").status, self.control.head().sequence))

    def test_the_state_is_told_at_once_or_long_polled(self) -> None:
        self.begin("POST", "/purge", {"urls": ["/a"], "id": "x"})
        self.assertEqual(503, self.ask("GET", "/purge/x").status)
        polled = self.begin("GET", "/purge/x?wait=durable&timeout=30")
        self.assertTrue(self.pending(polled))
        self.fleet.apply("us-1", "x")
        self.assertEqual("durable", polled.receive().json["state"])

    def test_nobody_waits_longer_than_is_allowed(self) -> None:
        client = self.begin("POST", "/purge?wait=complete&timeout=1e9", {"urls": ["/a"]})
        self.clock.advance(CONFIG.purge.wait_longest_seconds - 0.1)
        self.assertTrue(self.pending(client))
        self.clock.advance(0.1)
        self.assertEqual("local", client.receive().json["state"])

    def test_a_client_that_leaves_takes_nothing_with_it(self) -> None:
        client = self.begin("POST", "/purge?wait=complete", {"urls": ["/a"], "id": "x"})
        client.transport.loseConnection()
        self.assertEqual(([], 0), (self.clock.getDelayedCalls(), self.fleet.waiting("x")))
        self.assertEqual(1, len(self.fleet.told))

    def test_a_joining_node_says_so(self) -> None:
        self.fleet.joining = "This node is joining."
        answer = self.ask("POST", "/purge", {"all": True})
        self.assertEqual((503, "joining", "1"), (answer.status, answer.json["error"], answer.headers["retry-after"]))
        self.assertEqual(0, self.page.epoch)

    def test_a_query_given_twice_is_refused(self) -> None:
        answer = self.ask("POST", "/purge?wait=durable&wait=complete", {"all": True})
        self.assertEqual((400, "invalid-query"), (answer.status, answer.json["error"]))


class FastlyTests(AdminCase):
    def fastly(self, path: str, *, token: str = "", **fields: Any) -> Response:
        return self.ask("POST", path, token=None, fastly_key=token or self.token, accept="application/json", **fields)

    def newest(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("GET", "/status").json["purges"]["recent"][0]
        return answer

    def tags(self) -> set[str]:
        return {each["value"] for each in self.newest()["sample"] if each["kind"] == "tag"}

    def test_a_key_in_the_path_is_a_tag(self) -> None:
        answer = self.fastly("/service/SVC1/purge/project/foo-bar")
        self.assertEqual((200, {"status": "ok", "id": self.newest()["id"]}), (answer.status, answer.json))
        self.assertEqual({"project/foo-bar"}, self.tags())

    def test_a_key_is_taken_as_it_was_sent(self) -> None:
        for path, key in (("a%2Fb", "a/b"), ("a//b", "a//b"), ("a/", "a/"), ("%C3%A9%20%3F", "é ?")):
            self.assertEqual(200, self.fastly(f"/service/s/purge/{path}").status, path)
            self.assertEqual({key}, self.tags())

    def test_a_path_that_is_not_quite_right_does_nothing(self) -> None:
        for path in ("//service/s/purge/k", "/service//s/purge/k", "/service/s//purge/k", "/service/a%2Fb/purge/k"):
            self.assertEqual(404, self.fastly(path).status, path)
        self.assertEqual(415, self.fastly("/service/s/purge/").status)
        self.assertEqual(0, self.control.head().sequence)

    def test_what_others_call_soft_asks_upstream_first_and_hard_is_gone(self) -> None:
        for fields, mode in (
            ({"fastly_soft_purge": "1"}, "revalidate"),
            ({"fastly_soft_purge": "0"}, "delete"),
            ({}, "delete"),
        ):
            self.fastly("/service/s/purge/k", **fields)
            self.assertEqual(mode, self.newest()["mode"], fields)

    def test_many_keys_come_in_a_document_or_in_a_field(self) -> None:
        answers = [
            self.fastly("/service/s/purge", document={"surrogate_keys": ["a", "b"]}),
            self.fastly("/service/s/purge", surrogate_key="a b"),
        ]
        for answer in answers:
            told = answer.json
            self.assertEqual((200, "ok"), (answer.status, told["status"]))
            self.assertEqual({"a": told["id"], "b": told["id"]}, {key: told[key] for key in ("a", "b")})
            self.assertEqual({"a", "b"}, self.tags())

    def test_everything_is_purged_by_name_only(self) -> None:
        self.assertEqual("ok", self.fastly("/service/s/purge_all").json["status"])
        self.assertEqual({"all"}, {each["kind"] for each in self.newest()["sample"]})

    def test_what_is_wrong_is_named_where_these_clients_look_and_nothing_is_done(self) -> None:
        for path, fields, named in (
            ("/service/s/purge", {"document": {"surrogate_keys": ["k"] * 257}}, "256"),
            ("/service/s/purge", {"surrogate_key": "k " * 257}, "256"),
            ("/service/s/purge", {"document": {"surrogate_keys": []}}, "256"),
            ("/service/s/purge", {"document": {"surrogate_keys": "k"}}, "'k'"),
            ("/service/s/purge", {"document": {"surrogate_keys": [5]}}, "5"),
            ("/service/s/purge", {"document": {"keys": ["k"]}}, "surrogate_keys"),
            ("/service/s/purge", {"surrogate_key": "k", "document": {"surrogate_keys": ["a"]}}, "content"),
            ("/service/s/purge", {"surrogate_key": "\xff"}, "UTF-8"),
            ("/service/s/purge/k?soft=1", {}, "soft"),
            ("/service/s/purge/" + "k" * 9000, {}, "8192"),
        ):
            answer = self.fastly(path, **fields)
            self.assertEqual(400, answer.status, (path, answer.content))
            self.assertIn(named, answer.json["msg"])
        self.assertEqual(415, self.fastly("/service/s/purge", content=b"{}").status)
        self.assertEqual(0, self.control.head().sequence)

    def test_a_token_may_come_in_either_field_but_in_one(self) -> None:
        self.assertEqual(200, self.ask("POST", "/service/s/purge/k").status)
        both = self.ask("POST", "/service/s/purge/k", fastly_key=self.token)
        self.assertEqual((401, "token-missing"), (both.status, both.json["error"]))
        wrong = self.fastly("/service/s/purge/k", token="wrong")
        self.assertEqual((401, "token-unknown"), (wrong.status, wrong.json["error"]))
        self.assertEqual(403, self.fastly("/service/s/purge/k", token=self.scoped("status")).status)


class FastlySoftTests(FastlyTests):
    config = evolve(CONFIG, purge=evolve(CONFIG.purge, fastly_soft=FastlySoft.SOFT))

    def test_what_others_call_soft_asks_upstream_first_and_hard_is_gone(self) -> None:
        """Unless soft is to be soft."""
        self.fastly("/service/s/purge/k", fastly_soft_purge="1")
        self.assertEqual("soft", self.newest()["mode"])


class FastlyFleetTests(FleetCase):
    def test_durable_is_what_these_clients_take_for_success(self) -> None:
        client = self.begin("POST", "/service/s/purge_all")
        self.fleet.apply("us-1", self.fleet.told[0].purge_id)
        answer = client.receive()
        self.assertEqual((200, "ok"), (answer.status, answer.json["status"]))

    def test_too_few_is_no_success(self) -> None:
        client = self.begin("POST", "/service/s/purge_all?timeout=1")
        self.clock.advance(1.0)
        answer = client.receive()
        self.assertEqual((503, "error", "1"), (answer.status, answer.json["status"], answer.headers["retry-after"]))


class PurgeMethodTests(AdminCase):
    def sample(self) -> list[tuple[str, str]]:
        recent = self.ask("GET", "/status").json["purges"]["recent"]
        return [(each["kind"], each["value"]) for each in recent[0]["sample"]]

    def test_a_path_is_that_path_of_every_site_even_if_it_is_one_of_ours(self) -> None:
        for path in ("/simple/a/", "/purge", "/status", "/a//b?c=d", "/%C3%A9"):
            answer = self.ask("PURGE", path)
            self.assertEqual((200, "delete"), (answer.status, answer.json["mode"]), path)
            self.assertEqual([("url", path)] * 2, self.sample())

    def test_an_absolute_url_is_that_sites(self) -> None:
        """Of the site with that origin, and of the default site, which answers to any name."""
        self.assertEqual(2, self.ask("PURGE", "http://files.example/pub/x").json["selectors"])
        self.assertEqual([("url", "/pub/x"), ("url", "/x")], sorted(self.sample()))

    def test_it_can_be_soft(self) -> None:
        self.assertEqual("revalidate", self.ask("PURGE", "/a", fastly_soft_purge="1").json["mode"])

    def test_it_needs_the_scope_and_has_no_content(self) -> None:
        self.assertEqual(401, self.ask("PURGE", "/a", token=None).status)
        self.assertEqual(403, self.ask("PURGE", "/a", token=self.scoped("status")).status)
        self.assertEqual(400, self.ask("PURGE", "/a", content=b"x").status)
        self.assertEqual(400, self.ask("PURGE", "nonsense").status)
        self.assertEqual(0, self.page.epoch)


class PublicPurgeTests(AdminCase):
    """What a worker is told to answer."""

    def purge(self, url: str = "http://f.example/x", token: str = "", soft: bool = False) -> tuple[int, Any, Any]:
        told = self.done(PublicPurges.of(self.parts).purge(url, token or self.token, soft, "192.0.2.7"))
        return told["status"], dict(told["fields"]), orjson.loads(told["content"])

    def test_with_a_token_it_is_done(self) -> None:
        status, _, document = self.purge()
        self.assertEqual((200, "complete", "delete"), (status, document["state"], document["mode"]))
        self.assertEqual(PurgeMode.DELETE, max(mode for _, _, mode in self.control.read.rows_since(0)))

    def test_without_the_scope_the_method_is_not_allowed(self) -> None:
        for token, error in (("wrong", "token-unknown"), (self.scoped("status"), "scope-missing")):
            status, fields, document = self.purge(token=token)
            self.assertEqual((405, "GET, HEAD", error), (status, fields["Allow"], document["error"]))
        self.assertEqual(0, self.page.epoch)

    def test_guesses_share_the_pace_of_the_admin_listener(self) -> None:
        statuses = [self.purge(token=f"guess {number}")[0] for number in range(60)]
        self.assertEqual({405, 429}, set(statuses))
        self.assertEqual(429, self.ask("GET", "/status", token="another guess").status)

    def test_what_cannot_be_understood_is_named(self) -> None:
        status, _, document = self.purge(url="http://f.example/" + "x" * 9000)
        self.assertEqual((400, "invalid-purge"), (status, document["error"]))


class SizeTests(AdminCase):
    config = evolve(CONFIG, purge=evolve(CONFIG.purge, body_octets=4 << 20))

    def refused(self, content: bytes) -> Response:
        answer = self.ask("POST", "/purge", content=content, content_type="application/json")
        self.assertEqual((0, 0), (self.page.epoch, self.control.head().sequence))
        return answer

    def test_a_million_urls_are_refused_before_they_are_objects(self) -> None:
        long = orjson.dumps({"urls": [f"/simple/project-{number}/" for number in range(MILLION)]})
        self.assertEqual((413, "too-large"), ((answer := self.refused(long)).status, answer.json["error"]))
        self.assertIn("body_octets", answer.json["detail"])
        # Small enough in octets: they are counted as such.
        short = b'{"urls": [' + b",".join([b'"/"'] * MILLION) + b"]}"
        self.assertLess(len(short), 4 << 20)
        self.assertEqual((413, "too-many"), ((answer := self.refused(short)).status, answer.json["error"]))
        self.assertIn("10000", answer.json["detail"])

    def test_lists_and_numbers_instead_of_urls_fare_no_better(self) -> None:
        for item, status in ((b"[]", 413), (b"{}", 413), (b"1", 400), (b"null", 400)):
            content = b'{"urls": [' + b",".join([item] * 100_000) + b"]}"
            self.assertEqual(status, self.refused(content).status, item)
        self.assertEqual(413, self.refused(b"[" * 100_000).status)

    def test_as_many_as_are_allowed_are_purged(self) -> None:
        half = CONFIG.purge.selectors // 2
        answer = self.ask("POST", "/purge", {"urls": [f'/"{number}"' for number in range(half)], "id": '"'})
        self.assertEqual((200, 2 * half), (answer.status, answer.json["selectors"]))


class AuditTests(AdminCase):
    def lines(self) -> list[dict[str, Any]]:
        with open(self.parts.audit.path, "rb") as file:
            self.octets = file.read()
        return [orjson.loads(line) for line in self.octets.splitlines()]

    def test_every_purge_names_token_peer_front_and_what_it_was(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"})
        self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"}, token=self.scoped("purge", name="ci"))
        self.ask("PURGE", "/b")
        self.ask("POST", "/service/s/purge/k", peer="198.51.100.1")
        lines = self.lines()
        self.assertEqual(
            ["purged", "token-made", "purged-again", "purged", "purged"], [line["event"] for line in lines]
        )
        self.assertEqual(
            [("admin", "purge", "x"), ("ci", "purge", "x")],
            [(line["token"], line["front"], line["id"]) for line in lines if line.get("id") == "x"],
        )
        self.assertEqual(["PURGE", "fastly"], [line["front"] for line in lines[-2:]])
        self.assertEqual("198.51.100.1", lines[-1]["peer"])
        self.assertEqual(("revalidate", 2, 2), tuple(lines[0][name] for name in ("mode", "selectors", "epoch")))
        self.assertTrue(lines[0]["time"].startswith("2025-11-13T"), lines[0]["time"])

    def test_every_refusal_says_why(self) -> None:
        self.ask("POST", "/purge", {"urls": ["nowhere"]})
        self.ask("POST", "/purge", {"all": True}, token=self.scoped("status"))
        self.ask("POST", "/purge", {"all": True}, token="a wrong token")
        self.ask("GET", "/status", token="a wrong token")
        self.ask("DELETE", "/tokens/never")
        refused = [line for line in self.lines() if line["event"] == "refused"]
        self.assertEqual(
            [
                (400, "invalid-purge", "admin"),
                (403, "scope-missing", "scoped"),
                (401, "token-unknown", ""),
                (401, "token-unknown", ""),
                (404, "unknown-token", "admin"),
            ],
            [(line["status"], line["error"], line["token"]) for line in refused],
        )

    def test_what_changes_nothing_and_is_nobodys_attempt_leaves_no_line(self) -> None:
        self.ask("GET", "/purge/never")
        self.ask("GET", "/metrics", token=None)
        self.ask("GET", "/status")
        self.assertFalse(os.path.exists(self.parts.audit.path))

    def test_no_token_is_ever_in_it(self) -> None:
        made = self.scoped("purge")
        for token in (made, "guessed-token-value"):
            self.ask("POST", "/purge", {"urls": [token], "id": token}, token=token)
            self.ask("POST", f"/service/{token}/purge/{token}", token=token)
            self.ask("POST", f"/purge?token={token}", {"all": True}, token=token)
            self.ask("PURGE", f"/{token}", token=token)
            self.done(PublicPurges.of(self.parts).purge(f"http://x/{token}", token, False, "192.0.2.7"))
        self.ask("POST", "/purge", {"urls": ["/a"], "id": made})
        self.assertGreater(len(self.lines()), 8)
        for token in (made, "guessed-token-value", self.token):
            self.assertNotIn(token.encode(), self.octets)

    def test_a_storm_of_refusals_is_counted_and_not_written(self) -> None:
        for _ in range(500):
            self.parts.audit.refused(error="invalid-purge")
            self.clock.advance(0.01)
        self.assertLess(len(self.lines()), 150)
        self.clock.advance(5.0)
        self.ask("POST", "/purge", {"urls": ["nowhere"]})
        suppressed = sum(line.get("suppressed_before", 0) for line in self.lines())
        self.assertEqual(501, len(self.lines()) + suppressed)

    def test_only_its_owner_reads_it_and_long_things_are_cut(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/" + "x" * 5000]})
        self.assertEqual(0o600, stat.S_IMODE(os.stat(self.parts.audit.path).st_mode))
        self.assertLess(len(self.lines()[0]["first"]), 320)

    def test_it_is_rotated_and_the_oldest_goes(self) -> None:
        self.patch(audit, "FILE_OCTETS", 1000)
        for number in range(60):
            self.ask("POST", "/purge", {"urls": ["/a"], "id": str(number)})
        beside = sorted(name for name in os.listdir(self.data) if name.startswith("audit.log"))
        self.assertEqual(["audit.log", *(f"audit.log.{number}" for number in range(1, KEPT_FILES + 1))], beside)
        for name in beside:
            self.assertLessEqual(os.path.getsize(os.path.join(self.data, name)), 1000)
        self.assertEqual("59", self.lines()[-1]["id"])

    def test_a_file_that_was_moved_away_is_begun_anew(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"], "id": "1"})
        os.rename(self.parts.audit.path, self.parts.audit.path + ".theirs")
        self.ask("POST", "/purge", {"urls": ["/a"], "id": "2"})
        self.assertEqual(["2"], [line["id"] for line in self.lines()])

    def test_where_it_cannot_be_written_purges_go_on_and_the_log_says_so(self) -> None:
        os.mkdir(self.parts.audit.path)
        for _ in range(3):
            self.assertEqual(200, self.ask("POST", "/purge", {"urls": ["/a"]}).status)
        self.assertEqual(3, self.control.head().sequence)


class ReplayTests(AdminCase):
    config = with_purge(per_second=1000.0, token_per_second=1000.0)

    def test_a_purge_sent_over_and_over_is_done_once(self) -> None:
        answers = {self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"}).content for _ in range(50)}
        self.assertEqual((1, 2, 1), (len(answers), self.page.epoch, self.control.head().sequence))

    def test_an_id_taken_for_something_else_does_nothing_however_it_comes(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"})
        for document in ({"all": True, "id": "x"}, {"urls": ["/a"], "mode": "delete", "id": "x"}):
            self.assertEqual(409, self.ask("POST", "/purge", document).status)
        self.assertEqual((2, PurgeState.COMPLETE.value), (self.page.epoch, self.ask("GET", "/purge/x").json["state"]))
