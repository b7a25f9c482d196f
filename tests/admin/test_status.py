"""What a node tells in /status, /objects and /verify, and in what words."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import orjson
from attrs import evolve
from twisted.internet.defer import maybeDeferred

from edgecache.admin.history import STEP_SECONDS, STEPS
from edgecache.admin.objects import Objects
from edgecache.admin.parts import (
    FollowerCounts,
    FollowerView,
    ReloadState,
    SiblingView,
    UpstreamState,
    WorkerState,
)
from edgecache.admin.statusclient import NOT_READY, READY, WARNED, exit_status
from edgecache.admin.warnings import warnings
from edgecache.rules.partrecords import as_part
from edgecache.rules.spans import Span
from edgecache.store.page import Page
from edgecache.store.scrubbing import Scrubbing
from edgecache.store.small import SmallTransaction
from edgecache.store.survey import Survey
from edgecache.words.counters import Counter
from edgecache.words.latency import MISSES
from edgecache.words.siblingsettings import SiblingsSettings
from tests.admin.harness import NOW, AdminCase
from tests.rules.test_parts import plan
from tests.system.certificates import make_certificate

PAGE = Path(__file__).parent.parent.parent / "docs" / "STATUS.md"


class StatusCase(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.parts.scrubbing = Scrubbing(self.environments, self.clock, lambda: NOW, maybeDeferred)
        self.parts.objects = Objects(Survey(self.environments), maybeDeferred, self.clock)
        self.worker = Page.open(self.page.path, 0)
        self.addCleanup(self.worker.close)
        self.workers = [WorkerState(0, 101, True, NOW - 5.0), WorkerState(1, 102, True, NOW - 5.0)]

    def status(self) -> Any:
        answer = self.ask("GET", "/status")
        self.assertEqual(200, answer.status, answer.content)
        return answer.json

    def codes(self) -> list[str]:
        return [warning["code"] for warning in self.status()["warnings"]]

    def certify(self) -> None:
        certificate, key = (str(path) for path in make_certificate(Path(self.data) / "tls"))
        siblings = SiblingsSettings(certificate, certificate, key)
        self.parts.config = evolve(self.parts.config, siblings=siblings)


def shape(document: Any) -> Any:
    """Names and kinds of a document: what a script relies on."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items()}
    if isinstance(document, list):
        return [shape(document[0])] if document else []
    if isinstance(document, bool) or document is None:
        return type(document).__name__
    return "number" if isinstance(document, int | float) else "text"


def fits(example: Any, found: Any) -> bool:
    """Is each name of one in the other? What is ``null`` or empty in one of them may be anything in the other."""
    if isinstance(example, dict) and isinstance(found, dict):
        if not example or not found:
            return True
        return example.keys() == found.keys() and all(fits(example[name], found[name]) for name in example)
    if isinstance(example, list) and isinstance(found, list):
        return not example or not found or fits(example[0], found[0])
    return example == found or "NoneType" in (example, found)


class ExampleTests(StatusCase):
    """docs/STATUS.md shows every name that there is."""

    def example(self, name: str) -> Any:
        (found,) = re.findall(rf"`GET {name}[^`]*`[^`\n]*:\n\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
        return orjson.loads(found)

    def agree(self, example: Any, found: Any) -> None:
        self.maxDiff = None
        if not fits(shape(example), shape(found)):
            self.assertEqual(shape(example), shape(found))

    def test_the_status(self) -> None:
        self.certify()
        self.parts.siblings = lambda: [
            SiblingView("us-1", "us", "u", "", False, NOW - 1.0, False, 2, "", {"eu-1": 3, "us-1": 5})
        ]
        self.parts.followers = lambda: [FollowerView("index", "following", "", 1, NOW, 10.0, 5.0, FollowerCounts())]
        self.parts.reloaded = lambda: ReloadState(NOW, "", ("[log] access",), ())
        self.parts.groups = lambda: {"shared": 1}
        self.parts.objects.popular(0, [[["index", "edge.example", "/simple/a/"], 4]])
        self.parts.history.start()
        self.clock.advance(STEP_SECONDS)
        self.parts.history.stop()
        self.ask("POST", "/purge", {"urls": ["/a"]})
        found = self.status()
        example = self.example("/status")
        # Those of counters and databases are in other places.
        for document in (found, example):
            for names in (
                document["counters"],
                *(one["entries"] for one in document["store"]["environments"].values()),
            ):
                names.clear()
            for worker in document["workers"]:
                worker["counters"].clear()
        self.agree(example, found)

    def test_verify(self) -> None:
        self.agree(self.example("/verify"), self.ask("GET", "/verify").json)

    def test_objects(self) -> None:
        self.agree(self.example(r"/objects\?by=biggest"), self.ask("GET", "/objects?by=biggest").json)


class HistoryTests(StatusCase):
    def test_each_step_has_what_was_counted_in_it(self) -> None:
        history = self.parts.history
        history.start()
        self.addCleanup(history.stop)
        for number in (3, 0, 5):
            self.worker.add(Counter.REQUESTS, number)
            self.worker.add(Counter.BYTES_SENT, 100 * number)
            self.clock.advance(STEP_SECONDS)
        found = self.status()["history"]
        self.assertEqual(([3, 0, 5], [300, 0, 500]), (found["requests"], found["sent_bytes"]))
        self.assertEqual((3, STEP_SECONDS), (len(found["times"]), found["step_seconds"]))

    def test_an_hour_is_kept(self) -> None:
        history = self.parts.history
        history.start()
        self.addCleanup(history.stop)
        for _ in range(STEPS + 10):
            self.clock.advance(STEP_SECONDS)
        self.assertEqual(STEPS, len(self.status()["history"]["requests"]))

    def test_latencies_are_told_since_the_start_and_of_the_last_minutes(self) -> None:
        history = self.parts.history
        history.start()
        self.addCleanup(history.stop)
        MISSES.count(self.worker, 5.0)
        for _ in range(40):
            self.clock.advance(STEP_SECONDS)
        MISSES.count(self.worker, 0.02)
        found = self.status()["latency"]["misses"]
        self.assertEqual((2, 1, 0.025), (sum(found["counts"]), sum(found["recent"]), found["p99"]))
        self.assertEqual(len(found["bounds"]) + 1, len(found["counts"]))


class ObjectsTests(StatusCase):
    def test_what_is_hottest_is_added_up_over_workers(self) -> None:
        for worker, count in ((0, 4), (1, 5)):
            self.parts.objects.popular(worker, [[["index", "h", "/a"], count], [["index", "h", f"/{worker}"], 1]])
        # What a worker tells replaces what it told before.
        self.parts.objects.popular(1, [[["index", "h", "/a"], 6]])
        found = self.ask("GET", "/objects?by=hottest&limit=1").json
        self.assertEqual([{"site": "index", "host": "h", "url": "/a", "count": 10, "share": 10 / 11}], found["objects"])
        self.assertEqual(11, found["sampled"])

    def test_of_what_is_stored_in_part_it_is_said_of_how_much(self) -> None:
        whole = plan('ETag: "one"', size=10).stored
        small = self.environments.small
        with small.env.begin(write=True) as txn:
            transaction = SmallTransaction(txn, small.databases)
            for key_hash, stored in ((b"w" * 32, whole), (b"p" * 32, as_part(whole, Span(0, 2, 10)))):
                self.assertTrue(transaction.store(key_hash, stored, [b"0123456789"[: stored.size]], None))
            transaction.finish()
        found = self.ask("GET", "/objects?by=biggest").json["objects"]
        self.assertEqual([(10, None), (2, 10)], [(one["bytes"], one["of"]) for one in found])

    def test_what_is_not_understood_is_400(self) -> None:
        for query in ("by=coldest", "limit=many", "limit=-1", "page=2"):
            self.assertEqual(400, self.ask("GET", f"/objects?{query}").status, query)


class VerifyTests(StatusCase):
    def test_a_pass_is_begun_seen_and_ended(self) -> None:
        self.assertEqual("none", self.ask("GET", "/verify").json["state"])
        begun = self.ask("POST", "/verify", {"rate_bytes": 1 << 20})
        self.assertEqual((202, 1 << 20), (begun.status, begun.json["rate_bytes"]))
        self.assertEqual("done", self.ask("GET", "/verify").json["state"])

    def test_a_second_one_at_a_time_is_refused(self) -> None:
        scrubbing = self.parts.scrubbing
        assert scrubbing is not None
        scrubbing.state = type(scrubbing.state).RUNNING
        answer = self.ask("POST", "/verify", {})
        self.assertEqual((409, "already-running"), (answer.status, answer.json["error"]))
        self.assertEqual("cancelled", self.ask("DELETE", "/verify").json["state"])

    def test_a_rate_that_is_none_is_400(self) -> None:
        for document in ({"rate_bytes": 1}, {"rate_bytes": "fast"}, {"speed": 1}, []):
            self.assertEqual(400, self.ask("POST", "/verify", document).status, document)

    def test_it_has_a_scope_of_its_own(self) -> None:
        token = self.scoped("status")
        self.assertEqual(
            [200, 403, 403],
            [
                self.ask(method, "/verify", {} if method == "POST" else None, token=token).status
                for method in ("GET", "POST", "DELETE")
            ],
        )
        self.assertEqual(202, self.ask("POST", "/verify", {}, token=self.scoped("verify", name="other")).status)


class WarningTests(StatusCase):
    def test_a_node_that_is_well_has_none(self) -> None:
        self.upstreams = self.upstreams[1:]
        self.assertEqual([], self.codes())

    def test_an_origin_without_any_address_in_service_is_worse_than_one_address(self) -> None:
        self.assertEqual(["upstream-down"], self.codes())
        self.upstreams = self.upstreams[:1]
        self.assertEqual(["origin-down", "upstream-down"], self.codes())

    def test_an_origin_whose_last_address_fails_is_down_though_it_is_asked_on(self) -> None:
        """The last one is never left out: nothing else would say that nothing can be fetched."""
        self.upstreams = [
            UpstreamState("http://files.example", "192.0.2.1:80", False, "no-head", state="ejected"),
            UpstreamState("http://files.example", "192.0.2.2:80", True, "no-head; there is no other", state="failing"),
        ]
        found = self.status()["warnings"]
        self.assertEqual(["origin-down", "upstream-down", "upstream-failing"], [one["code"] for one in found])
        self.assertEqual("critical", found[0]["severity"])

    def test_an_address_that_has_just_come_back_is_nothing_to_look_at(self) -> None:
        back = UpstreamState("http://o.example", "192.0.2.1:80", True, "a probe went well", state="recovering")
        self.upstreams = [back]
        self.assertEqual([], self.codes())

    def test_a_sibling_is_named_and_what_is_the_matter_with_it_is_said_once(self) -> None:
        self.upstreams = [
            UpstreamState("https://192.0.2.9:7443", "192.0.2.9:7443", False, "no-head", state="ejected", sibling="us-1")
        ]
        self.parts.siblings = lambda: [SiblingView("us-1", "us", "u", "", False, NOW, False, 0, "")]
        (found,) = self.status()["warnings"]
        self.assertEqual("upstream-down", found["code"])
        self.assertIn("Sibling us-1's contents", found["detail"])
        self.parts.siblings = lambda: [SiblingView("us-1", "us", "u", "", False, NOW - 9.0, False, 0, "no answer")]
        self.assertEqual(["sibling-problem"], self.codes())

    def test_a_silent_sibling_says_for_how_long(self) -> None:
        self.upstreams = []
        self.parts.siblings = lambda: [
            SiblingView("us-1", "us", "u", "", False, NOW - 90.0, False, 0, ""),
            SiblingView("ap-1", "us", "u", "", False, None, False, 0, ""),
        ]
        first, second = (one["detail"] for one in self.status()["warnings"])
        self.assertIn("for 90 s", first)
        self.assertIn("since this node's start", second)

    def test_an_origin_that_others_stand_in_for_is_no_reason_to_wake_anybody(self) -> None:
        down, other = UpstreamState("http://files.example", "192.0.2.1:80", False, "no-head"), "http://other.example"
        self.upstreams = [down, UpstreamState(other, "192.0.2.2:80", True)]
        found = self.status()
        files = next(site for site in found["sites"] if site["name"] == "files")
        severity = {one["code"]: one["severity"] for one in found["warnings"]}
        self.assertEqual("critical", severity["origin-down"])
        files["origins"].append(f"{other}:80/pub")
        severity = {one["code"]: one["severity"] for one in warnings(found)}
        self.assertEqual("warning", severity["origin-down"])

    def test_each_thing_that_is_the_matter_has_a_code(self) -> None:
        self.upstreams = []
        self.parts.lease = lambda: -1.0
        self.parts.siblings = lambda: [
            SiblingView("a", "", "u", "", False, NOW - 1.0, False, 0, "its certificate is wrong"),
            SiblingView("b", "", "u", "", False, None, False, 0, ""),
            SiblingView("c", "", "u", "", False, NOW, True, 0, ""),
        ]
        self.parts.reloaded = lambda: ReloadState(NOW, "line 3", (), ("[store] size",))
        self.parts.followers = lambda: [FollowerView("index", "lost", "no answer", 1, NOW, 1.0, 0.0, FollowerCounts())]
        self.workers = [WorkerState(0, 101, True, NOW, 7)]
        for counter in (Counter.DAMAGED, Counter.DOWNLOADS_LOST):
            self.worker.add(counter)
        self.page.set_draining(True)
        self.assertEqual(
            {
                "not-ready", "fenced", "sibling-problem", "sibling-silent", "sibling-joining", "reload-failed",
                "restart-needed", "follower", "worker-restarts", "damage", "downloads-lost",
            },
            set(self.codes()),
        )  # fmt: skip
        severities = [warning["severity"] for warning in self.status()["warnings"]]
        self.assertEqual(sorted(severities), severities)

    def test_a_certificate_is_looked_at_again_when_its_file_is_another(self) -> None:
        self.certify()
        self.parts.wall = time.time
        self.assertIn("certificate-expires", self.codes())
        Path(self.parts.config.siblings.ca).write_text("nothing")  # type: ignore[union-attr]  # it was set
        self.assertIn("certificate-unreadable", self.codes())

    def test_one_that_has_expired_is_critical(self) -> None:
        self.certify()
        found = self.status()
        found["certificates"][0]["expires_in_seconds"] = -1.0
        self.assertIn(("critical", "certificate-expired"), [(one["severity"], one["code"]) for one in warnings(found)])

    def test_exit_statuses_tell_ready_warned_and_not(self) -> None:
        self.upstreams = []
        well = self.status()
        warned = {**well, "warnings": [{"severity": "warning"}]}
        down = {**well, "node": {**well["node"], "ready": False}}
        self.assertEqual(
            [READY, READY, NOT_READY], [exit_status([well, one], strict=False) for one in (well, warned, down)]
        )
        self.assertEqual(
            [READY, WARNED, NOT_READY], [exit_status([well, one], strict=True) for one in (well, warned, down)]
        )
