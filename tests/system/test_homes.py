"""Three real nodes before one origin: a miss asks the key's home first, and the origin when that is of no use."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
import tempfile
import tomllib
from pathlib import Path

import orjson
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.homes import HomeNode, Homes
from edgecache.rules.sites import Sites
from edgecache.siblings.certificates import make_ca, make_node
from edgecache.words.counters import Counter
from tests.rules.build import asked, sites
from tests.system.clients import Answer, Download, Together
from tests.system.contents import Artifact
from tests.system.fleet import Fleet
from tests.system.harness import UNHURRIED, Node, NodeDied
from tests.system.meddling import patient
from tests.system.origins import BEFORE_HEAD, Hold, Origin, Reply, text
from tests.system.processes import until

ARTIFACT = 5_000_000
CLIENTS = 100
"""For each node."""


class HomesTestCase(SynchronousTestCase):
    """A fleet for all tests of a class, all of it well when a test begins. Each test has targets of its own."""

    workers = 0
    silence = False
    """Are the tests about how long a sibling's silence is put up with?"""
    eject_seconds = 1.0
    fleet: Fleet
    origin: Origin
    root: Path
    sites: Sites

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-homes-")
        cls.addClassCleanup(directory.cleanup)
        cls.root = Path(directory.name)
        cls.origin = Origin().start()
        cls.addClassCleanup(cls.origin.stop)
        cls.fleet = Fleet(
            cls.root,
            3,
            cls.origin.url,
            workers=cls.workers,
            siblings="pull_seconds = 0.2\ncall_seconds = 1.0\nlease_seconds = 5.0",
            more=f"{'[upstream]' if cls.silence else UNHURRIED}\n"
            f"eject_seconds = {cls.eject_seconds}\nslow_start_seconds = 0.0",
            profile="plain",
            prefix=() if cls.silence else patient(cls.root / "first"),
        )
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()
        site = cls.fleet.status(cls.fleet.nodes["n1"])["sites"][0]["name"]
        cls.sites = sites(name=site)

    def setUp(self) -> None:
        self.origin.start()
        for node in self.fleet.nodes.values():
            try:
                node.require_alive()
            except NodeDied:
                node.start()
        for node in self.fleet.nodes.values():
            self.fleet.wait_leased(node)
            until(lambda node=node: self.well(node), "all upstreams are in service")
        self.clients = Together()

    def well(self, node: Node) -> bool:
        # An origin that was stopped is failing until something is asked of it, which nobody does here.
        return all(upstream["state"] in ("healthy", "failing") for upstream in self.fleet.status(node)["upstreams"])

    def target(self, home: str, number: int = 0) -> str:
        """:return: one of this test's whose home is that node."""
        homes = Homes(tuple(HomeNode(name) for name in self.fleet.ids))
        found = (f"/{self.id().rpartition('.')[2]}/{place}" for place in range(10_000))
        fitting = (one for one in found if homes.order(asked(of=self.sites, target=one).key_hash)[0] == home)
        return [next(fitting) for _ in range(number + 1)][-1]

    def count(self, name: str, counter: Counter) -> int:
        return int(self.fleet.status(self.fleet.nodes[name])["counters"][counter.name.lower()])

    def state(self, of: str, at: str) -> str:
        """How ``at`` finds the node ``of``."""
        url = f"https://127.0.0.1:{self.content_port(of)}"
        upstreams = self.fleet.status(self.fleet.nodes[at])["upstreams"]
        return next(str(one["state"]) for one in upstreams if one["origin"] == url)

    def content_port(self, name: str) -> int:
        listen = tomllib.loads(self.fleet.configuration(name).read_text())["listen"]
        return int(listen["content"][0].rpartition(":")[2])

    def look_up(self, name: str, target: str, certificates: Path, by: str, **fields: str) -> Answer:
        """:return: the answer of a node to a look-up by whoever has that certificate."""
        context = ssl.create_default_context(cafile=str(self.fleet.certificates / "ca.pem"))
        context.load_cert_chain(certificates / f"{by}.pem", certificates / f"{by}.key")
        lines = [f"GET {target} HTTP/1.1", "Host: edge.test", "Connection: close"]
        lines += [f"{field.replace('_', '-')}: {value}" for field, value in fields.items()]
        with (
            socket.create_connection(("127.0.0.1", self.content_port(name)), 120.0) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            secured.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
            octets = b"".join(iter(lambda: secured.recv(65536), b"")).decode()
        head, _, rest = octets.partition("\r\n\r\n")
        while head.startswith("HTTP/1.1 102 "):
            head, _, rest = rest.partition("\r\n\r\n")
        if not head:
            raise ConnectionError("closed without an answer")
        line, *rows = head.split("\r\n")
        named = dict(row.lower().split(": ", 1) for row in rows)
        return Answer(int(line.split(" ")[1]), named, rest.encode())


class MissTests(HomesTestCase):
    def test_what_came_before_its_client_left_no_node_fetches_again(self) -> None:
        """The home and the node that asked it have a beginning each, and the second asks the first for its rest"""
        due = Artifact("iso", 6 * ARTIFACT)
        target, hold = self.target("n1"), Hold(2 * ARTIFACT)
        self.addCleanup(hold.release)
        self.origin.serve(target, Reply(due, etag='"iso"', hold=hold))
        asked = self.fleet.nodes["n2"]
        before = {name: self.count(name, Counter.PARTS_STORED) for name in ("n1", "n2")}
        download = Download(asked.url, target, due)
        download.read_up_to(2 * ARTIFACT)
        download.reset()
        for name, stored in before.items():
            until(lambda name=name, stored=stored: self.count(name, Counter.PARTS_STORED) > stored, f"a part at {name}")
        hold.release()
        again = Download(asked.url, target, due)
        again.read_all()
        self.assertTrue(again.exact, str(again))
        ranges = [one.fields.get("range", "") for one in self.origin.seen if one.target == target]
        self.assertEqual(["", f"bytes={2 * ARTIFACT - 4096}-"], ranges)

    def test_300_clients_of_three_nodes_cost_the_origin_one_request(self) -> None:
        due = Artifact("wheel", ARTIFACT)
        target = self.target("n2")
        hold = Hold(BEFORE_HEAD)
        self.origin.serve(target, Reply(due, etag='"v1"', hold=hold))
        before = sum(self.count(name, Counter.FORWARDED) for name in self.fleet.ids)
        downloads = [Download(node.url, target, due) for node in self.fleet.nodes.values() for _ in range(CLIENTS)]
        for download in downloads:
            self.clients.start(download.read_all)
        hold.wait_reached()
        # Everybody is here: nobody is answered yet.
        until(
            lambda: sum(self.count(name, Counter.FORWARDED) for name in self.fleet.ids) >= before + len(downloads),
            "all clients wait",
        )
        hold.release()
        self.clients.join()
        self.assertEqual([], [str(download) for download in downloads if not download.exact])
        self.assertEqual(1, self.origin.count(target))

    def test_what_a_sibling_gave_is_named_by_its_tags_and_shows_none_of_them(self) -> None:
        target = self.target("n2")
        self.origin.serve(target, text("one", ("Surrogate-Key", "apples pears"), etag='"1"'))
        first = self.fleet.nodes["n1"].ask(target)
        self.assertEqual(b"one", first.content)
        self.assertEqual([], [name for name in first.fields if name.startswith("edgecache-") or "surrogate" in name])
        self.assertIn("n2", first.fields["via"])
        self.origin.serve(target, text("two", ("Surrogate-Key", "apples"), etag='"2"'))
        self.fleet.nodes["n3"].purge(tags=["pears"])
        for name in ("n1", "n2"):
            self.assertEqual(b"two", self.fleet.nodes[name].ask(target).content)
        self.assertEqual(2, self.origin.count(target))

    def test_a_fill_from_a_sibling_that_a_purge_overtakes_is_for_those_who_had_joined(self) -> None:
        target = self.target("n2")
        old, new = Artifact("old", ARTIFACT), Artifact("new", ARTIFACT)
        hold = Hold(ARTIFACT // 2)
        self.origin.serve(target, Reply(old, etag='"old"', hold=hold))
        download = Download(self.fleet.nodes["n1"].url, target, old)
        self.clients.start(download.read_all)
        hold.wait_reached()
        until(lambda: download.position > 0, "the old content comes")
        self.origin.serve(target, Reply(new, etag='"new"'))
        self.fleet.nodes["n3"].purge(urls=[target])
        after = [Download(self.fleet.nodes[name].url, target, new) for name in ("n1", "n2", "n3", "n1")]
        for one in after:
            one.read_all()
        hold.release()
        self.clients.join()
        self.assertTrue(download.exact, download)
        self.assertEqual([], [str(one) for one in after if not one.exact])
        last = Download(self.fleet.nodes["n1"].url, target, new)
        last.read_all()
        self.assertTrue(last.exact, last)

    def test_after_an_unsafe_request_the_origin_is_asked_not_a_sibling_who_knows_nothing_of_it(self) -> None:
        target = self.target("n2")
        self.origin.serve(target, text("before"))
        for name in ("n1", "n2"):
            self.fleet.nodes[name].ask(target)
        self.origin.serve(target, text("after"))
        self.fleet.nodes["n1"].ask(target, method="DELETE")
        self.assertEqual(b"after", self.fleet.nodes["n1"].ask(target).content)

    def test_nobody_goes_back_to_what_the_home_has_when_that_is_older(self) -> None:
        """RFC 9111 §4: of several responses the most recent one is used."""
        target, node = self.target("n2"), self.fleet.nodes["n1"]
        self.origin.serve(target, text("older", etag='"1"'))
        node.ask(target)
        self.origin.serve(target, text("newer", ("Cache-Control", "max-age=0, stale-if-error=0"), etag='"2"'))
        # Of this the home hears nothing: what an unsafe method invalidates is the node's own affair.
        node.ask(target, method="POST")
        for _ in range(3):
            self.assertEqual(b"newer", node.ask(target).content)
        self.assertEqual(b"older", self.fleet.nodes["n2"].ask(target).content, "which was not purged there")

    def test_a_home_that_the_request_has_been_to_already_is_passed_over(self) -> None:
        target = self.target("n2")
        self.origin.serve(target, text("found"))
        answer = self.fleet.nodes["n1"].ask(target, fields={"CDN-Loop": "n2"})
        self.assertEqual((200, b"found"), (answer.status, answer.content))

    def test_what_clients_say_of_positions_is_not_listened_to(self) -> None:
        target = self.target("n2")
        self.origin.serve(target, text("found"))
        answer = self.fleet.nodes["n1"].ask(target, fields={"Edgecache-Positions": "nonsense", "Edgecache-Budget": "0"})
        self.assertEqual((200, b"found"), (answer.status, answer.content))
        self.assertNotIn("edgecache-positions", self.origin.seen[-1].fields)


class WorkersTests(HomesTestCase):
    """Where each node has two workers, the home's answer comes from the owner of the key there."""

    workers = 2
    test_300_clients = MissTests.test_300_clients_of_three_nodes_cost_the_origin_one_request
    test_a_purge_overtakes = MissTests.test_a_fill_from_a_sibling_that_a_purge_overtakes_is_for_those_who_had_joined
    test_tags = MissTests.test_what_a_sibling_gave_is_named_by_its_tags_and_shows_none_of_them

    def test_a_home_that_has_missed_a_purge_says_so_and_catches_up(self) -> None:
        n1, n2 = self.fleet.nodes["n1"], self.fleet.nodes["n2"]
        target = self.target("n2")
        self.origin.serve(target, text("old"))
        until(lambda: n1.ask(target).hit and n2.ask(target).hit, "both have it")
        # Its workers go on, with what the node process told them last.
        stopped = n2.twistd_pid()
        os.kill(stopped, signal.SIGSTOP)
        try:
            self.origin.serve(target, text("new"))
            done = orjson.loads(n1.admin("POST", "/purge", {"urls": [target]}).content)
            self.assertEqual(["n2"], done["pending"])
            before = [self.count("n1", one) for one in (Counter.SIBLING_ASKS, Counter.SIBLING_ANSWERS)]
            self.assertEqual(b"new", n1.ask(target).content)
            after = [self.count("n1", one) for one in (Counter.SIBLING_ASKS, Counter.SIBLING_ANSWERS)]
            self.assertEqual([before[0] + 1, before[1]], after, "the home was asked and had no answer")
            self.assertEqual("healthy", self.state("n2", "n1"), "to be behind is no fault")
        finally:
            os.kill(stopped, signal.SIGCONT)
        done = orjson.loads(n1.admin("GET", f"/purge/{done['id']}?wait=complete&timeout=60").content)
        self.assertEqual("complete", done["state"])
        self.assertEqual(b"new", n2.ask(target).content)


class SilenceTests(HomesTestCase):
    silence = True

    def test_a_home_that_waits_for_its_origin_is_waited_for(self) -> None:
        # A machine that stands still for 300 ms makes a home as good as silent; it does not do so three times.
        self.assertTrue(any(map(self.is_waited_for, range(3))))

    def is_waited_for(self, attempt: int) -> bool:
        target = self.target("n2", attempt)
        hold = Hold(BEFORE_HEAD)
        self.origin.serve(target, text("slow", hold=hold))
        before = self.count("n1", Counter.SIBLING_ANSWERS)
        answers: list[Answer] = []
        self.clients.start(lambda: answers.append(self.fleet.nodes["n1"].ask(target)))
        hold.wait_reached()
        # Longer than any silence is put up with.
        hold.released.wait(4.0)
        hold.release()
        self.clients.join()
        self.assertEqual((200, b"slow"), (answers[0].status, answers[0].content))
        return (1, before + 1) == (self.origin.count(target), self.count("n1", Counter.SIBLING_ANSWERS))

    def test_a_home_that_stands_still_is_left_at_once_and_comes_back(self) -> None:
        for pid in self.fleet.nodes["n2"].family():
            os.kill(pid, signal.SIGSTOP)
        target = self.target("n2")
        self.origin.serve(target, text("found"))
        try:
            answer = self.fleet.nodes["n1"].ask(target)
            until(lambda: self.state("n2", "n1") == "ejected", "the silent home is left out")
        finally:
            for pid in self.fleet.nodes["n2"].family():
                os.kill(pid, signal.SIGCONT)
        self.assertEqual((200, b"found"), (answer.status, answer.content))
        until(lambda: self.state("n2", "n1") == "healthy", "a probe brings it back")


class ReturnTests(HomesTestCase):
    silence = True
    # Longer than any test: only what is learnt otherwise brings a sibling back.
    eject_seconds = 300.0

    def test_a_home_that_stood_still_is_asked_again_once_its_control_calls_succeed(self) -> None:
        family = self.fleet.nodes["n2"].family()
        for pid in family:
            os.kill(pid, signal.SIGSTOP)
        try:
            left, later = self.target("n2", 0), self.target("n2", 1)
            for target in (left, later):
                self.origin.serve(target, text("found"))
            self.assertEqual(b"found", self.fleet.nodes["n1"].ask(left).content)
            until(lambda: self.state("n2", "n1") == "ejected", "the silent home is left out")
            until(lambda: self.problem("n2", "n1"), "its control calls fail")
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        until(lambda: not self.problem("n2", "n1"), "they succeed again")
        until(lambda: self.state("n2", "n1") == "healthy", "and so it is probed")
        answers = self.count("n1", Counter.SIBLING_ANSWERS)
        self.assertEqual(b"found", self.fleet.nodes["n1"].ask(later).content)
        self.assertEqual(answers + 1, self.count("n1", Counter.SIBLING_ANSWERS))

    def problem(self, of: str, at: str) -> str:
        """Why ``at`` cannot speak to the node ``of``."""
        siblings = self.fleet.status(self.fleet.nodes[at])["siblings"]
        return next(str(one["problem"] or "") for one in siblings if one["id"] == of)


class TroubleTests(HomesTestCase):
    def test_without_its_home_a_key_is_filled_from_the_origin(self) -> None:
        self.fleet.nodes["n2"].kill()
        for number in range(4):
            target = self.target("n2", number)
            self.origin.serve(target, text("found"))
            answer = self.fleet.nodes["n1"].ask(target)
            self.assertEqual((200, b"found"), (answer.status, answer.content))
        until(lambda: self.state("n2", "n1") != "healthy", "the dead home is left out")

    def test_a_home_that_dies_in_the_middle_is_gone_on_from_at_the_origin(self) -> None:
        due = Artifact("whole", ARTIFACT)
        target = self.target("n2")
        hold = Hold(ARTIFACT // 2)
        self.origin.serve(target, Reply(due, etag='"v1"', hold=hold))
        download = Download(self.fleet.nodes["n1"].url, target, due)
        self.clients.start(download.read_all)
        hold.wait_reached()
        until(lambda: download.position > 0, "content comes")
        self.origin.serve(target, Reply(due, etag='"v1"'))
        self.fleet.nodes["n2"].kill()
        self.clients.join()
        hold.release()
        self.assertTrue(download.exact, download)

    def test_whoever_has_the_homes_address_and_another_members_certificate_is_asked_nothing(self) -> None:
        self.fleet.nodes["n2"].kill()
        target = self.target("n2")
        self.origin.serve(target, text("found"))
        heard: list[bytes] = []
        with socket.create_server(("127.0.0.1", self.content_port("n2"))) as server:
            self.clients.start(lambda: self.impostor(server, "n3", heard))
            answer = self.fleet.nodes["n1"].ask(target)
            until(lambda: heard, "it was called")
            url = f"https://127.0.0.1:{self.content_port('n2')}"
            line = f'edgecache_upstream_outcomes_total{{origin="{url}",outcome="certificate-wrong"}} '
            until(lambda: line in self.fleet.nodes["n1"].admin("GET", "/metrics").content.decode(), "it is charged")
            server.shutdown(socket.SHUT_RDWR)
            self.clients.join()
        self.assertEqual((200, b"found", 1), (answer.status, answer.content, self.origin.count(target)))
        self.assertEqual({b""}, set(heard))

    def impostor(self, server: socket.socket, name: str, heard: list[bytes]) -> None:
        """Shake hands with a node's certificate, and keep what is said then, until the socket is shut."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.fleet.certificates / "ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.fleet.certificates / f"{name}.pem", self.fleet.certificates / f"{name}.key")
        while True:
            try:
                plain, _ = server.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(20.0)
                try:
                    heard.append(context.wrap_socket(plain, server_side=True).recv(4096))
                except OSError:
                    heard.append(b"")

    def test_while_the_origin_is_down_what_a_sibling_has_stored_serves(self) -> None:
        target = self.target("n2")
        self.origin.serve(target, text("kept", etag='"1"'))
        # A look-up of one that is not the home: nobody else has it.
        found = self.look_up(
            "n3", target, self.fleet.certificates, "n1", Edgecache_Positions="", Edgecache_Budget="9000"
        )
        self.assertEqual(200, found.status)
        until(lambda: self.fleet.nodes["n3"].ask(target).hit, "stored")
        self.assertEqual(1, self.origin.count(target))
        self.origin.stop()
        answer = self.fleet.nodes["n1"].ask(target)
        self.assertEqual((200, b"kept"), (answer.status, answer.content))

    def test_while_the_origin_is_down_a_stale_copy_is_better_than_none(self) -> None:
        target = self.target("n2")
        self.origin.serve(target, text("kept", ("Cache-Control", "max-age=1"), etag='"1"'))
        before = self.count("n3", Counter.STORED)
        found = self.look_up(
            "n3", target, self.fleet.certificates, "n1", Edgecache_Positions="", Edgecache_Budget="9000"
        )
        self.assertEqual(200, found.status)
        until(lambda: self.count("n3", Counter.STORED) > before, "stored")
        self.origin.stop()
        until(lambda: "hit; ttl=-" in self.fleet.nodes["n3"].ask(target).cache_status, "stale")
        answer = self.fleet.nodes["n1"].ask(target)
        self.assertEqual((200, b"kept"), (answer.status, answer.content))

    def test_nobody_has_it_and_the_origin_is_down(self) -> None:
        self.origin.stop()
        self.assertEqual(503, self.fleet.nodes["n1"].ask(self.target("n2")).status)


class LookUpTests(HomesTestCase):
    """What a node answers a sibling."""

    def ask(self, **fields: str) -> Answer:
        target = self.target("n1")
        self.origin.serve(target, text("found"))
        return self.look_up("n1", target, self.fleet.certificates, "n2", **fields)

    def test_a_node_that_is_behind_says_so(self) -> None:
        answer = self.ask(Edgecache_Positions="n2:" + "ab" * 16 + ":7", Edgecache_Budget="9000")
        self.assertEqual((409, "409"), (answer.status, answer.fields.get("edgecache-refused")))

    def test_a_look_up_that_names_no_positions_is_refused(self) -> None:
        self.assertEqual(400, self.ask().status)

    def test_malformed_positions_are_refused(self) -> None:
        self.assertEqual(400, self.ask(Edgecache_Positions="n2", Edgecache_Budget="9000").status)

    def test_only_if_cached_asks_nobody(self) -> None:
        answer = self.ask(Edgecache_Positions="", Edgecache_Budget="9000", Cache_Control="only-if-cached")
        self.assertEqual((504, "504"), (answer.status, answer.fields.get("edgecache-refused")))
        self.assertEqual(0, self.origin.count(self.target("n1")))

    def test_whoever_asks_is_never_forwarded_to_a_third(self) -> None:
        target = self.target("n3")
        self.origin.serve(target, text("found"))
        before = self.count("n1", Counter.SIBLING_ASKS)
        answer = self.look_up(
            "n1", target, self.fleet.certificates, "n2", Edgecache_Positions="", Edgecache_Budget="9000"
        )
        self.assertEqual(200, answer.status)
        self.assertEqual((before, 1), (self.count("n1", Counter.SIBLING_ASKS), self.origin.count(target)))

    def test_look_ups_are_no_requests_of_clients(self) -> None:
        counted = [self.count("n1", one) for one in (Counter.REQUESTS, Counter.HITS, Counter.FORWARDED)]
        self.ask(Edgecache_Positions="", Edgecache_Budget="9000")
        self.assertEqual(
            counted, [self.count("n1", one) for one in (Counter.REQUESTS, Counter.HITS, Counter.FORWARDED)]
        )

    def test_a_member_of_another_fleet_is_refused(self) -> None:
        elsewhere, now = self.root / "elsewhere", datetime.datetime.now(datetime.UTC)
        make_ca(elsewhere, now)
        make_node(elsewhere, now, "n2", ["127.0.0.1"])
        with self.assertRaises(OSError):
            self.look_up("n1", "/a", elsewhere, "n2", Edgecache_Positions="", Edgecache_Budget="9000")

    def test_a_node_of_the_fleets_ca_that_is_no_member_is_refused_and_the_log_says_who(self) -> None:
        make_node(self.fleet.certificates, datetime.datetime.now(datetime.UTC), "n9", ["127.0.0.1"])
        with self.assertRaises(OSError):
            self.look_up("n1", "/a", self.fleet.certificates, "n9", Edgecache_Positions="", Edgecache_Budget="9000")
        until(lambda: "n9 is no member" in self.fleet.nodes["n1"].log, "a line in the log")
