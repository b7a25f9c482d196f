"""The admin listener: routes, refusals, and what a stranger can do to it."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from edgecache.admin.purges import purged
from edgecache.admin.site import CONNECTIONS, admin_site
from edgecache.rules.sites import Sites
from edgecache.siblings.purger import Purger
from edgecache.store.page import Page
from edgecache.words.counters import Counter
from edgecache.words.purging import PurgeState, Spreading
from edgecache.words.siblingsettings import SiblingsSettings
from tests.admin.harness import NOW, AdminCase, Client, with_purge


class PurgeTests(AdminCase):
    def test_a_purge_is_complete_when_answered_and_says_everything(self) -> None:
        answer = self.ask("POST", "/purge", {"urls": ["/simple/a/"], "mode": "delete", "id": "release 7"})
        self.assertEqual(200, answer.status)
        document = answer.json
        self.assertEqual(self.control.name.incarnation.hex(), document["log"].pop("incarnation"))
        self.assertEqual([("url", "/simple/a/")] * 2, [(each["kind"], each["value"]) for each in document["sample"]])
        self.assertEqual(
            {site["id"] for site in self.ask("GET", "/status").json["sites"]},
            {each["site"] for each in document.pop("sample")},
        )
        self.assertEqual(
            {
                "id": "release 7",
                "state": "complete",
                "mode": "delete",
                "selectors": 2,
                "serials": {},
                "accepted_at": NOW,
                "accepted_by": "eu-1",
                "token": "admin",
                "log": {"node": "eu-1", "sequence": 1},
                "epoch": 2,
                "applied": ["eu-1"],
                "pending": [],
                "effective_by": None,
            },
            document,
        )
        self.assertEqual(2, self.page.epoch)

    def test_its_state_can_be_asked_for_by_id(self) -> None:
        posted = self.ask("POST", "/purge", {"all": True, "id": "a/b c"})
        for path in ("/purge/a/b%20c", "/purge/a%2Fb%20c"):
            self.assertEqual((200, posted.json), ((found := self.ask("GET", path)).status, found.json))

    def test_the_same_id_again_is_the_same_purge_and_another_purge_is_a_conflict(self) -> None:
        first = self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"})
        again = self.ask("POST", "/purge", {"urls": ["/a"], "id": "x"})
        self.assertEqual((200, first.content), (again.status, again.content))
        other = self.ask("POST", "/purge", {"urls": ["/b"], "id": "x"})
        self.assertEqual((409, "id-conflict"), (other.status, other.json["error"]))
        self.assertIn("'x'", other.json["detail"])
        self.assertEqual(2, self.page.epoch)

    def test_an_unknown_purge_is_404_with_its_name(self) -> None:
        answer = self.ask("GET", "/purge/nothing")
        self.assertEqual((404, "unknown-purge"), (answer.status, answer.json["error"]))
        self.assertIn("nothing", answer.json["detail"])

    def test_whatever_is_waited_for_a_lone_node_is_complete(self) -> None:
        for wait in ("durable", "effective", "complete"):
            answer = self.ask("POST", f"/purge?wait={wait}&timeout=5", {"urls": ["/a"]})
            self.assertEqual((200, "complete"), (answer.status, answer.json["state"]))

    def test_what_cannot_be_understood_is_400_and_named(self) -> None:
        for path, document, named in (
            ("/purge", {"urls": ["nowhere"]}, "nowhere"),
            ("/purge", {"urls": "/a"}, "urls"),
            ("/purge", ["/a"], "object"),
            ("/purge", {"prefixes": ["/a"]}, "/a"),
            ("/purge", {"mode": "hard", "all": True}, "hard"),
            ("/purge", {"everything": True}, "everything"),
            ("/purge?wait=forever", {"all": True}, "forever"),
            ("/purge?timeout=soon", {"all": True}, "soon"),
            ("/purge?timeout=nan", {"all": True}, "nan"),
            ("/purge?timeout=-1", {"all": True}, "-1"),
            ("/purge?until=complete", {"all": True}, "until"),
        ):
            answer = self.ask("POST", path, document)
            self.assertEqual(400, answer.status, (path, document))
            self.assertIn(named, answer.json["detail"])
            self.assertEqual({"error", "detail"}, set(answer.json))
        self.assertEqual(0, self.page.epoch)

    def test_the_content_must_be_json_and_say_so(self) -> None:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            fields = {"content_type": content_type} if content_type else {}
            answer = self.ask("POST", "/purge", content=b'{"all": true}', **fields)
            self.assertEqual((415, "not-json"), (answer.status, answer.json["error"]))
        for content in (b"", b"{", b"\xff", b'{"urls": ["\\ud800"]}', b"[" * 2_000):
            answer = self.ask("POST", "/purge", content=content, content_type="application/json")
            self.assertEqual((400, "not-json"), (answer.status, answer.json["error"]), content[:50])
        good = self.ask("POST", "/purge", content=b'{"all": true}', content_type="Application/JSON; charset=utf-8")
        self.assertEqual(200, good.status)

    def test_a_purge_that_is_not_on_disk_is_503_and_may_be_sent_again(self) -> None:
        self.successResultOf(self.control.close())
        answer = self.ask("POST", "/purge", {"all": True})
        self.assertEqual(
            (503, "not-written", "1"), (answer.status, answer.json["error"], answer.headers["retry-after"])
        )

    def test_the_states_of_a_purge_have_their_statuses(self) -> None:
        complete = self.done(self.parts.purger.accept({"all": True}, "tester"))
        statuses = {state: purged(evolve(complete, spreading=Spreading(state, ("eu-1",)))) for state in PurgeState}
        self.assertEqual(
            {PurgeState.COMPLETE: 200, PurgeState.EFFECTIVE: 200, PurgeState.DURABLE: 202, PurgeState.LOCAL: 503},
            {state: answer.status for state, answer in statuses.items()},
        )
        self.assertEqual((("Retry-After", "1"),), statuses[PurgeState.LOCAL].headers)


class StormTests(AdminCase):
    config = with_purge(per_second=1.0)

    def test_more_purges_than_configured_are_429(self) -> None:
        for _ in range(5):
            self.assertEqual(200, self.ask("POST", "/purge", {"all": True}).status)
        answer = self.ask("POST", "/purge", {"all": True})
        self.assertEqual((429, "1"), (answer.status, answer.headers["retry-after"]))
        self.assertIn("per_second", answer.json["detail"])


class AccessTests(AdminCase):
    everything = (
        ("GET", "/status"),
        ("GET", "/metrics"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/purge/x"),
        ("POST", "/purge"),
        ("POST", "/tokens"),
        ("DELETE", "/tokens/x"),
    )

    def test_without_a_token_nothing_is_done_from_afar(self) -> None:
        for method, path in self.everything:
            answer = self.ask(method, path, {"all": True}, token=None)
            self.assertEqual((401, "token-missing"), (answer.status, answer.json["error"]), path)
            self.assertTrue(answer.headers["www-authenticate"].startswith("Bearer"))
        self.assertEqual(0, self.page.epoch)

    def test_other_schemes_and_doubled_fields_are_no_token(self) -> None:
        for value in ("Basic eDp5", self.token, "Bearer", f"Bearer {self.token}\r\nAuthorization: Bearer {self.token}"):
            self.assertEqual(401, self.ask("GET", "/status", token=None, authorization=value).status, value)

    def test_the_scheme_is_case_insensitive(self) -> None:
        self.assertEqual(200, self.ask("GET", "/status", token=None, authorization=f"bEARER  {self.token}").status)

    def test_on_loopback_health_and_metrics_need_none_and_the_rest_does(self) -> None:
        for method, path in self.everything:
            for peer in ("127.0.0.1", "127.8.8.8"):
                answer = self.ask(method, path, {"all": True}, token=None, peer=peer, host="localhost:8081")
                open_here = path in ("/healthz", "/readyz", "/metrics")
                self.assertEqual(200 if open_here else 401, answer.status, path)

    def test_a_claim_to_be_local_is_not_believed(self) -> None:
        claims: list[dict[str, Any]] = [
            {"peer": "192.0.2.9", "host": "localhost"},
            {"peer": "192.0.2.9", "x_forwarded_for": "127.0.0.1"},
            {"peer": "127.0.0.1", "host": "localhost", "x_forwarded_for": "127.0.0.1"},
            {"peer": "127.0.0.1", "host": "localhost", "forwarded": "for=127.0.0.1"},
            {"peer": "127.0.0.1", "host": "localhost", "via": "1.1 proxy"},
            {"peer": "127.0.0.1", "host": "rebound.example:8081"},
        ]
        for claim in claims:
            self.assertEqual(401, self.ask("GET", "/metrics", token=None, **claim).status, claim)

    def test_a_wrong_token_is_401_even_where_none_is_needed_and_guessing_is_slowed(self) -> None:
        answers = [
            self.ask("GET", "/healthz", token=f"guess {n}", peer="127.0.0.1", host="localhost") for n in range(60)
        ]
        self.assertEqual((401, "token-unknown"), (answers[0].status, answers[0].json["error"]))
        self.assertEqual((429, "1"), (answers[-1].status, answers[-1].headers["retry-after"]))
        self.assertEqual(200, self.ask("GET", "/status").status)

    def test_a_token_does_what_its_scopes_allow_and_no_more(self) -> None:
        purge, status = self.scoped("purge", name="ci"), self.scoped("status", name="scraper")
        allowed = {
            purge: {"/purge", "/purge/x"},
            status: {"/status", "/metrics", "/healthz", "/readyz"},
        }
        for token, paths in allowed.items():
            for method, path in self.everything:
                answer = self.ask(method, path, {"urls": ["/a"]}, token=token)
                self.assertEqual(path not in paths, answer.status == 403, (path, answer.content))
                if answer.status == 403:
                    self.assertEqual("scope-missing", answer.json["error"])
        self.assertEqual("ci", self.ask("POST", "/purge", {"urls": ["/a"]}, token=purge).json["token"])

    def test_cookies_mean_nothing(self) -> None:
        self.assertEqual(401, self.ask("GET", "/status", token=None, cookie=f"token={self.token}").status)
        self.assertNotIn("set-cookie", self.ask("GET", "/status").headers)

    def test_every_answer_forbids_pages_and_caches_to_have_it(self) -> None:
        answers = [
            self.ask("GET", "/status"),
            self.ask("GET", "/metrics"),
            self.ask("POST", "/purge", {"all": True}),
            self.ask("GET", "/status", token=None),
            self.ask("GET", "/nothing"),
            self.ask("OPTIONS", "/purge", origin="http://page.example"),
        ]
        for answer in answers:
            self.assertEqual("no-store", answer.headers["cache-control"])
            self.assertEqual("nosniff", answer.headers["x-content-type-options"])
            self.assertEqual("DENY", answer.headers["x-frame-options"])
            self.assertIn("frame-ancestors 'none'", answer.headers["content-security-policy"])
            self.assertEqual("edgecache", answer.headers["server"])
            self.assertFalse([name for name in answer.headers if name.startswith("access-control")])


class TokenTests(AdminCase):
    def test_a_made_token_works_until_it_is_revoked(self) -> None:
        token = self.scoped("purge")
        self.assertEqual(200, self.ask("POST", "/purge", {"all": True}, token=token).status)
        self.assertEqual(200, self.ask("DELETE", "/tokens/scoped").status)
        self.assertEqual(401, self.ask("POST", "/purge", {"all": True}, token=token).status)
        self.assertEqual(404, self.ask("DELETE", "/tokens/scoped").status)

    def test_a_name_given_again_replaces_the_token(self) -> None:
        old, new = self.scoped("status"), self.scoped("status")
        self.assertEqual(401, self.ask("GET", "/status", token=old).status)
        self.assertEqual(200, self.ask("GET", "/status", token=new).status)

    def test_nobody_gives_more_than_he_has(self) -> None:
        maker = self.scoped("tokens", "purge")
        self.assertEqual(201, self.ask("POST", "/tokens", {"name": "a", "scopes": ["purge"]}, token=maker).status)
        answer = self.ask("POST", "/tokens", {"name": "b", "scopes": ["status"]}, token=maker)
        self.assertEqual(403, answer.status)
        self.assertIn("status", answer.json["detail"])

    def test_bad_names_and_scopes_are_named(self) -> None:
        for document, named in (
            ({"name": "admin", "scopes": ["purge"]}, "admin"),
            ({"name": "../x", "scopes": ["purge"]}, "../x"),
            ({"name": "x" * 65, "scopes": ["purge"]}, "xxx"),
            ({"name": "x", "scopes": []}, "scopes"),
            ({"name": "x", "scopes": ["root"]}, "root"),
            ({"name": "x", "scopes": [["purge"]]}, "purge"),
            ({"name": "x"}, "scopes"),
        ):
            answer = self.ask("POST", "/tokens", document)
            self.assertEqual(400, answer.status, document)
            self.assertIn(named, answer.json["detail"])

    def test_the_admin_token_is_what_its_file_says(self) -> None:
        self.assertEqual(409, self.ask("DELETE", "/tokens/admin").status)
        self.assertEqual(200, self.ask("GET", "/status").status)


class RoutingTests(AdminCase):
    def test_an_unknown_path_is_404_as_json(self) -> None:
        for path in ("/nothing", "/status/x", "/%E2%82%AC", "/purge/"):
            answer = self.ask("GET", path)
            self.assertIn(answer.status, (404, 405), path)
            self.assertEqual({"error", "detail"}, set(answer.json))

    def test_a_wrong_method_is_405_and_says_which(self) -> None:
        for method, path, allowed in (
            ("GET", "/purge", "POST"),
            ("POST", "/status", "GET"),
            ("DELETE", "/metrics", "GET"),
            ("OPTIONS", "/purge", "POST"),
            ("get", "/status", "GET"),
        ):
            answer = self.ask(method, path)
            self.assertEqual(405, answer.status, (method, path))
            self.assertIn(allowed, answer.headers["allow"])

    def test_head_is_get_without_content(self) -> None:
        answer = self.ask("HEAD", "/status")
        self.assertEqual((200, b""), (answer.status, answer.content))
        self.assertGreater(int(answer.headers["content-length"]), 100)

    def test_odd_paths_and_hosts_are_no_fault_of_ours(self) -> None:
        for path in ("/%ff", "/purge/%ff", "/status?%ff=1", "//status", "/purge/" + "x" * 5000, "*"):
            self.assertIn(self.ask("GET", path).status, (200, 400, 404, 405), path)
        for host in ("", "\xff", "a" * 300, "xn--\xfc", "a b", "[::1", "[::1]:80:80", "..."):
            self.assertEqual(200, self.ask("GET", "/status", host=host).status, host)
        self.assertEqual([], self.flushLoggedErrors())

    def test_a_fault_of_ours_is_500_told_in_the_log_only(self) -> None:
        self.upstreams = ["secret detail"]  # type: ignore[list-item]  # a bug
        answer = self.ask("GET", "/status")
        self.assertEqual((500, "internal"), (answer.status, answer.json["error"]))
        self.assertNotIn(b"secret", answer.content)
        self.assertEqual(1, len(self.flushLoggedErrors()))


class BoundTests(AdminCase):
    def test_too_much_content_is_dropped_and_answered_413(self) -> None:
        answer = self.ask("POST", "/purge", content=b" " * 100_001, content_type="application/json")
        self.assertEqual((413, "too-large"), (answer.status, answer.json["error"]))
        just = b'{"all": true}' + b" " * (100_000 - 13)
        self.assertEqual(200, self.ask("POST", "/purge", content=just, content_type="application/json").status)

    def test_chunked_content_is_counted_as_it_comes(self) -> None:
        client = Client(self.site, "192.0.2.9")
        client.send(
            b"POST /purge HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            b"Authorization: Bearer " + self.token.encode() + b"\r\n\r\n"
        )
        request = client.channel.requests[-1]
        for _ in range(200):
            client.send(b"400\r\n" + b" " * 1024 + b"\r\n")
            self.assertLessEqual(len(request.body.getvalue()), 100_000)
        client.send(b"0\r\n\r\n")
        self.assertEqual(413, client.receive().status)

    def test_who_has_no_token_is_not_listened_to_for_long(self) -> None:
        client = Client(self.site, "192.0.2.9")
        client.send(
            b"POST /purge HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n"
        )
        for octets in (1_000, 49_000):
            client.send(b" " * octets)
            self.assertEqual(b"", client.channel.requests[-1].body.getvalue())
        client.send(b" " * 40_000)
        self.assertEqual(401, client.receive().status)

    def test_forms_are_not_parsed(self) -> None:
        content = b"&".join(b"a%d=b" % number for number in range(5000))
        client = Client(self.site, "192.0.2.9")
        client.send(
            b"POST /purge HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\nAuthorization: Bearer %b\r\n\r\n" % (len(content), self.token.encode())
        )
        request = client.channel.requests[-1]
        client.send(content)
        self.assertEqual({}, request.args)
        self.assertEqual(415, client.receive().status)

    def test_a_request_that_drips_is_cut_at_its_deadline(self) -> None:
        client = Client(self.site, "192.0.2.9")
        client.send(b"GET /status HTTP/1.1\r\n")
        for number in range(29):
            self.clock.advance(1)
            client.send(b"X-%d: y\r\n" % number)
        self.assertTrue(client.transport.connected)
        self.clock.advance(1.5)
        self.assertFalse(client.transport.connected)
        self.assertEqual({}, self.site.channels)

    def test_an_idle_connection_is_closed_and_a_used_one_is_kept(self) -> None:
        client = Client(self.site, "192.0.2.9")
        request = b"GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + self.token.encode() + b"\r\n\r\n"
        for _ in range(5):
            client.send(request)
            self.assertEqual(200, client.receive().status)
            self.clock.advance(40)
        self.assertTrue(client.transport.connected)
        self.clock.advance(61)
        self.assertFalse(client.transport.connected)
        self.clock.advance(60)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_whoever_holds_connections_pushes_out_the_oldest_that_waits_for_nothing(self) -> None:
        waiting, *idle = [Client(self.site, "192.0.2.9") for _ in range(CONNECTIONS)]
        feed = b"GET /feed?timeout=50&since=" + self.ask("GET", "/feed").json["cursor"].encode()
        waiting.send(feed + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + self.token.encode() + b"\r\n\r\n")
        for client in idle:
            client.connect()
        self.assertEqual(200, self.ask("GET", "/status").status)
        connected = [client.transport.connected for client in (waiting, *idle[:2])]
        self.assertEqual([True, False, True], connected)
        self.assertEqual(CONNECTIONS, len(self.site.channels))
        waiting.transport.loseConnection()

    def test_there_is_an_end_to_connections_that_wait_for_answers(self) -> None:
        clients = [Client(self.site, "192.0.2.9") for _ in range(CONNECTIONS)]
        for client in clients:
            client.connect()
            client.channel._handlingRequest = True
        self.assertIsNone(self.site.buildProtocol(None))
        clients[0].transport.loseConnection()
        self.assertIsNotNone(self.site.buildProtocol(None))


class PipeliningTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = Client(self.site, "127.0.0.1")
        self.client.connect()
        self.many = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100

    def answers(self) -> int:
        return int(self.client.transport.value().count(b"HTTP/1.1 200 "))

    def test_one_request_is_answered_in_a_turn_of_the_loop(self) -> None:
        self.client.send(self.many)
        self.assertEqual(1, self.answers())
        self.clock.advance(0)
        self.assertEqual(100, self.answers())
        self.client.send(self.many)
        self.assertEqual(101, self.answers())

    def test_a_client_that_does_not_read_gets_no_further_answer_and_is_cut(self) -> None:
        self.client.send(self.many)
        # What a transport does when its buffer is full.
        self.client.channel.pauseProducing()
        self.clock.advance(0)
        self.assertEqual(1, self.answers())
        self.assertEqual("paused", self.client.transport.producerState)
        for _ in range(80):
            self.clock.advance(1)
        self.assertFalse(self.client.transport.connected)
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_it_goes_on_once_the_client_reads(self) -> None:
        self.client.send(self.many)
        self.client.channel.pauseProducing()
        self.clock.advance(1)
        self.client.channel.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(100, self.answers())
        self.assertEqual("producing", self.client.transport.producerState)


class HealthTests(AdminCase):
    def test_a_node_with_a_worker_is_ready(self) -> None:
        self.assertEqual({"status": "ok"}, self.ask("GET", "/healthz").json)
        self.assertEqual({"status": "ready"}, self.ask("GET", "/readyz").json)

    def test_no_worker_draining_or_any_other_reason_is_not_ready_but_alive(self) -> None:
        def check(named: str) -> None:
            answer = self.ask("GET", "/readyz")
            self.assertEqual((503, "not-ready"), (answer.status, answer.json["error"]))
            self.assertIn(named, answer.json["detail"])
            self.assertEqual(200, self.ask("GET", "/healthz").status)

        workers, self.workers = self.workers, [evolve(worker, running=False) for worker in self.workers]
        check("worker")
        self.workers = workers
        self.page.set_draining(True)
        check("going down")


class StatusTests(AdminCase):
    def test_it_shows_node_workers_store_purges_and_upstreams(self) -> None:
        for number in range(3):
            self.ask("POST", "/purge", {"urls": ["/a"], "id": str(number), "mode": "soft"})
        self.scoped("purge", name="ci")
        worker = Page.open(self.page.path, 0)
        self.addCleanup(worker.close)
        worker.add(Counter.HITS, 7)
        status = self.ask("GET", "/status").json
        self.assertEqual(("eu-1", "eu", 0.0), tuple(status["node"][key] for key in ("id", "region", "uptime_seconds")))
        self.assertTrue(status["node"]["ready"])
        self.assertEqual(
            [(0, 101, True, 3, 7), (1, None, False, 0, 0)],
            [
                (each["index"], each["pid"], each["running"], each["restarts"], each["counters"]["hits"])
                for each in status["workers"]
            ],
        )
        self.assertEqual(7, status["counters"]["hits"])
        self.assertEqual({counter.name.lower() for counter in Counter}, set(status["counters"]))
        self.assertEqual({"small", "blobs"}, set(status["store"]["environments"]))
        self.assertEqual(0, status["store"]["environments"]["small"]["entries"]["records"])
        self.assertEqual(["2", "1", "0"], [purge["id"] for purge in status["purges"]["recent"]])
        self.assertEqual(
            (6, 6, {"soft": 3, "revalidate": 0, "delete": 0}),
            tuple(status["purges"][key] for key in ("epoch", "published_epoch", "accepted")),
        )
        self.assertEqual([("eu-1", 3)], [(log["node"], log["position"]) for log in status["purges"]["logs"]])
        self.assertEqual(
            ("192.0.2.1:80", False, "no-head", "ejected", "no-head", NOW - 65.0, NOW + 8.0, 2),
            tuple(
                status["upstreams"][0][key]
                for key in ("address", "healthy", "detail", "state", "reason", "since", "next_probe_at", "ejections")
            ),
        )
        self.assertEqual([("admin", 5), ("ci", 1)], [(t["name"], len(t["scopes"])) for t in status["tokens"]])
        self.assertTrue({"edgecache", "python", "twisted", "lmdb"} <= set(status["versions"]))

    def test_the_nodes_own_log_is_there_before_its_first_purge(self) -> None:
        own = {"node": "eu-1", "incarnation": self.control.name.incarnation.hex(), "position": 0}
        self.assertEqual([own], self.ask("GET", "/status").json["purges"]["logs"])
        self.ask("POST", "/purge", {"all": True})
        self.assertEqual([{**own, "position": 1}], self.ask("GET", "/status").json["purges"]["logs"])

    def test_no_secret_is_in_it(self) -> None:
        content = self.ask("GET", "/status").content
        for secret in (b"secret", b"user", self.token.encode(), self.tokens.known[0].digest.hex().encode()):
            self.assertNotIn(secret, content)
        self.assertIn(b"http://origin.example/pypi", content)


class VoterTests(AdminCase):
    """A node that serves nobody answers operators as any other does, but for purges (DESIGN 9)."""

    def setUp(self) -> None:
        super().setUp()
        self.reason: str | None = None
        config = evolve(self.parts.config, sites=(), siblings=SiblingsSettings("ca", "certificate", "key", voter=True))
        purger = Purger(self.control, Sites(config), config.purge, self.clock, lambda: NOW)
        parts = evolve(
            self.parts, config=config, purger=purger, collector=None, workers=list, ready=lambda: self.reason
        )
        self.site = admin_site(parts, self.clock)

    def test_it_is_ready_without_workers_unless_something_else_is_the_matter(self) -> None:
        self.assertEqual(200, self.ask("GET", "/readyz").status)
        self.reason = "It is joining."
        self.assertEqual("It is joining.", self.ask("GET", "/readyz").json["detail"])

    def test_status_and_metrics_say_that_nothing_is_stored(self) -> None:
        status = self.ask("GET", "/status").json
        self.assertEqual((True, {}, []), (status["node"]["voter"], status["store"]["environments"], status["workers"]))
        self.assertIn("edgecache_purge_epoch", self.ask("GET", "/metrics").content.decode())

    def test_a_purge_is_refused_whichever_front_it_comes_by(self) -> None:
        answers = [
            self.ask("POST", "/purge", {"all": True}),
            self.ask("POST", "/service/x/purge_all"),
            self.ask("PURGE", "/a"),
        ]
        self.assertEqual([(421, "voter")] * 3, [(answer.status, answer.json["error"]) for answer in answers])
        self.assertEqual(0, self.control.head().sequence)
