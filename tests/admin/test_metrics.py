"""/metrics: names as Prometheus wants them, documented, and used by the rules in conf/prometheus."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import maybeDeferred

from edgecache.admin import metrics
from edgecache.admin.metricnames import OF_WORKERS
from edgecache.admin.metrics import LINKED, resources
from edgecache.admin.parts import (
    FollowerCounts,
    FollowerView,
    ReloadState,
    SiblingView,
    UpstreamCounts,
    UpstreamState,
    WorkerState,
)
from edgecache.store.folding import Downloads
from edgecache.store.page import Page
from edgecache.store.scrubbing import Scrubbing
from edgecache.words.counters import Counter
from edgecache.words.latency import HITS, MISSES
from edgecache.words.siblingsettings import SiblingsSettings
from tests.admin.harness import NOW, AdminCase
from tests.system.certificates import make_certificate

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "conf" / "prometheus"


class MetricsTests(AdminCase):
    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        answer = self.ask("GET", "/metrics")
        self.assertEqual(200, answer.status)
        self.assertTrue(answer.headers["content-type"].startswith("text/plain"))
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.content.decode())
            for sample in family.samples
        }

    def test_every_counter_is_there_for_each_worker_with_a_name_of_its_own(self) -> None:
        worker = Page.open(self.page.path, 1)
        self.addCleanup(worker.close)
        for counter in Counter:
            worker.add(counter, 1000 + counter)
        shown = [key for key, value in self.metrics().items() if key[1] == (("worker", "1"),) and value >= 1000]
        self.assertEqual(len(Counter), len({name for name, _ in shown}))

    def test_counters_end_in_total_and_gauges_do_not(self) -> None:
        names = {name for name, _ in self.metrics()}
        self.assertTrue(
            {"edgecache_requests_total", "edgecache_sent_bytes_total", "edgecache_open_connections"} <= names
        )
        self.assertFalse([name for name in names if not name.startswith(("edgecache_", "process_"))])
        self.assertEqual(len(OF_WORKERS), len({name for name, _ in OF_WORKERS.values()}))

    def test_store_purges_upstreams_and_node_are_there(self) -> None:
        self.ask("POST", "/purge", {"urls": ["/a"], "mode": "delete"})
        metrics = self.metrics()
        for name, labels, value in (
            ("edgecache_purges_total", {"mode": "delete"}, 1),
            ("edgecache_purge_epoch", {}, 2),
            ("edgecache_purge_log_position", {"node": "eu-1"}, 1),
            ("edgecache_upstream_up", {"origin": "http://origin.example", "address": "192.0.2.1:80", "sibling": ""}, 0),
            ("edgecache_upstream_up", {"origin": "http://origin.example", "address": "192.0.2.2:80", "sibling": ""}, 1),
            (
                "edgecache_upstream_failing",
                {"origin": "http://origin.example", "address": "192.0.2.2:80", "sibling": ""},
                0,
            ),
            (
                "edgecache_upstream_consecutive_ejections",
                {"origin": "http://origin.example", "address": "192.0.2.1:80", "sibling": ""},
                2,
            ),
            ("edgecache_upstream_outcomes_total", {"origin": "http://origin.example", "outcome": "good"}, 70),
            ("edgecache_upstream_ejections_total", {"origin": "http://origin.example", "outcome": "no-head"}, 2),
            ("edgecache_worker_up", {"worker": "0"}, 1),
            ("edgecache_worker_up", {"worker": "1"}, 0),
            ("edgecache_worker_restarts_total", {"worker": "0"}, 3),
            ("edgecache_store_full", {"environment": "blobs"}, 0),
            ("edgecache_store_entries", {"environment": "small", "database": "records"}, 0),
            ("edgecache_ready", {}, 1),
            ("edgecache_start_time_seconds", {}, NOW),
            ("edgecache_evicted_records_total", {}, 0),
        ):
            self.assertEqual(value, metrics[name, tuple(sorted(labels.items()))], name)
        self.assertTrue(metrics["edgecache_store_size_bytes", (("environment", "small"),)] > 1 << 24)
        self.assertEqual(1, len([name for name, _ in metrics if name == "edgecache_build_info"]))

    def test_openmetrics_is_spoken_to_who_asks_for_it(self) -> None:
        answer = self.ask("GET", "/metrics", accept="application/openmetrics-text; version=1.0.0")
        self.assertTrue(answer.headers["content-type"].startswith("application/openmetrics-text"))
        self.assertTrue(answer.content.endswith(b"# EOF\n"))

    def test_latencies_are_histograms_in_seconds(self) -> None:
        worker = Page.open(self.page.path, 0)
        self.addCleanup(worker.close)
        for seconds in (0.0002, 0.0002, 3.0):
            HITS.count(worker, seconds)
        MISSES.count(worker, 0.7)
        metrics = self.metrics()

        def bucket(name: str, bound: str) -> float:
            return metrics[f"edgecache_{name}_seconds_bucket", (("le", bound), ("worker", "0"))]

        self.assertEqual([0, 2, 2, 3], [bucket("hit", bound) for bound in ("0.0001", "0.00025", "1.0", "+Inf")])
        self.assertEqual([0, 1], [bucket("miss", bound) for bound in ("0.5", "1.0")])
        self.assertEqual(3, metrics["edgecache_hit_seconds_count", (("worker", "0"),)])
        self.assertAlmostEqual(3.0004, metrics["edgecache_hit_seconds_sum", (("worker", "0"),)])

    def test_hosts_that_only_pages_name_have_one_label_in_all(self) -> None:
        outcomes = {(f"https://host-{number}.example", "good"): 1 for number in range(1000)}
        self.upstream_counts = UpstreamCounts({**outcomes, ("http://origin.example", "good"): 5}, {})
        found = {
            dict(labels)["origin"]: value
            for (name, labels), value in self.metrics().items()
            if name == "edgecache_upstream_outcomes_total"
        }
        self.assertEqual({"http://origin.example": 5.0, LINKED: 1000.0}, found)

    def test_a_process_that_has_gone_has_no_resources(self) -> None:
        self.assertIsNone(resources(1 << 30))
        self.workers = [WorkerState(0, 1 << 30, True)]
        self.assertNotIn(("edgecache_worker_cpu_seconds_total", (("worker", "0"),)), self.metrics())


class NameTests(AdminCase):
    """Everything that can be there is there: siblings, a follower, a reload, a look through the store."""

    def setUp(self) -> None:
        super().setUp()
        certificate, key = (str(path) for path in make_certificate(Path(self.data) / "tls"))
        siblings = SiblingsSettings(certificate, certificate, key)
        self.parts.config = evolve(self.parts.config, siblings=siblings)
        self.parts.siblings = lambda: [SiblingView("us-1", "us", "u", "", False, NOW - 1.0, False, 2, "")]
        self.parts.followers = lambda: [FollowerView("index", "following", "", 1, NOW, 10.0, 5.0, FollowerCounts())]
        self.parts.groups = lambda: {"shared": 1}
        self.parts.lease = lambda: 9.0
        self.parts.reloaded = lambda: ReloadState(NOW)
        self.parts.scrubbing = Scrubbing(self.environments, self.clock, lambda: NOW, lambda *_: self.fail("no turn"))  # type: ignore[arg-type]  # none comes
        self.parts.scrubbing.ended_at = NOW
        self.parts.downloads = Downloads.of(self.parts.config, self.clock, maybeDeferred)
        # This process is as good as any.
        self.workers = [WorkerState(0, 1, True), WorkerState(1, 1, True)]
        self.ask("POST", "/purge", {"urls": ["/a"]})

    def families(self) -> dict[str, Any]:
        content = self.ask("GET", "/metrics").content.decode()
        return {family.name: family for family in text_string_to_metric_families(content)}

    def names(self) -> set[str]:
        """Of time series, as queries name them."""
        return {sample.name for family in self.families().values() for sample in family.samples}

    def test_names_follow_the_practice_of_prometheus(self) -> None:
        for name, family in self.families().items():
            self.assertRegex(name, r"^[a-z][a-z0-9_]*$")
            self.assertTrue(family.documentation)
            self.assertNotRegex(name, "_(ms|milliseconds|minutes|kib|mib|percent|count|sum|bucket)(_|$)")
            # Units stand at the end.
            unit = re.search("_(seconds|bytes)_(?!total$)", name)
            self.assertTrue(unit is None or name.endswith("_timestamp_seconds"), name)

    def test_no_label_has_more_values_than_there_are_parts(self) -> None:
        known = {"worker", "environment", "database", "mode", "outcome", "type", "node", "origin", "address", "site"}
        known |= {"kind", "sibling", "use", "le"}
        infos = {"edgecache_build_info", "edgecache_node_info", "process_start_time_seconds"}
        labels = {
            label
            for family in self.families().values()
            for sample in family.samples
            if sample.name not in infos
            for label in sample.labels
        }
        self.assertEqual(set(), labels - known)

    def test_the_page_of_metrics_has_every_one_and_no_other(self) -> None:
        page = (ROOT / "docs" / "METRICS.md").read_text()
        shown = set(re.findall(r"^\| `(edgecache_\w+)`", page, re.MULTILINE))
        families = {
            name + ("_total" if family.type == "counter" else "_info" if family.type == "info" else "")
            for name, family in self.families().items()
            if name.startswith("edgecache_")
        }
        self.assertEqual(sorted(families), sorted(shown))

    def test_rules_name_metrics_and_labels_that_there_are(self) -> None:
        rules = yaml.safe_load((RULES / "alerts.yml").read_text())
        names = self.names()
        alerts = [rule for group in rules["groups"] for rule in group["rules"]]
        recorded = {one["record"] for one in alerts if "record" in one}
        self.assertGreater(len(alerts), 10)
        for rule in alerts:
            used = set(re.findall(r"[\w:]*\bedgecache_[\w:]+", rule["expr"]))
            self.assertEqual(set(), used - names - recorded, rule)
            if "alert" in rule:
                self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
                self.assertTrue(rule["annotations"]["summary"] and rule["annotations"]["description"])
        named = [rule["alert"] for rule in alerts if "alert" in rule]
        self.assertEqual(len(set(named)), len(named))

    def test_the_scrape_example_asks_the_admin_listener_with_a_token(self) -> None:
        (job,) = yaml.safe_load((RULES / "scrape.yml").read_text())["scrape_configs"]
        self.assertEqual(("edgecache", "Bearer"), (job["job_name"], job["authorization"]["type"]))
        self.assertEqual("/metrics", job.get("metrics_path", "/metrics"))

    def promtool(self, *words: str) -> str:
        """What it complains of."""
        program = shutil.which("promtool")
        if program is None:
            self.skipTest("promtool is not installed here")
        done = subprocess.run([program, *words], capture_output=True, text=True)
        return done.stdout + done.stderr if done.returncode else ""

    def test_promtool_takes_the_rules(self) -> None:
        self.assertEqual("", self.promtool("check", "rules", str(RULES / "alerts.yml")))

    def fired(self, upstreams: list[UpstreamState], minutes: int, fires: dict[str, list[dict[str, str]]]) -> None:
        """What a node tells of its upstreams, for so long, fires these alerts with these labels, and no other."""
        self.upstreams = upstreams
        known = {one.origin for one in upstreams}
        self.patch(metrics, "_configured", lambda config: known)
        told = self.ask("GET", "/metrics").content.decode()
        series = [
            {"series": f"{name[:-1]},instance='edge'}}", "values": f"{value}+0x{minutes}"}
            for name, value in re.findall(r"^(edgecache_upstream_(?:up|failing){.*}) (\S+)$", told, re.MULTILINE)
        ]
        self.assertEqual(2 * len(upstreams), len(series))
        alerts = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
        expected = []
        for alert in ("EdgecacheOriginDown", "EdgecacheUpstreamOut"):
            (rule,) = [one for one in alerts if one.get("alert") == alert]
            with_labels = []
            for labels in fires.get(alert, []):
                told_of = {"instance": "edge", **labels}
                texts = {
                    name: re.sub(r"{{ \$labels\.(\w+) }}", lambda found: told_of[found[1]], text)  # noqa: B023
                    for name, text in rule["annotations"].items()
                }
                with_labels.append({"exp_labels": {**told_of, **rule["labels"]}, "exp_annotations": texts})
            expected.append({"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": with_labels})
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        file = directory / "tests.yml"
        tests = [{"interval": "1m", "input_series": series, "alert_rule_test": expected}]
        file.write_text(yaml.safe_dump({"rule_files": [str(RULES / "alerts.yml")], "tests": tests}))
        self.assertEqual("", self.promtool("test", "rules", str(file)))

    def test_an_origin_whose_last_address_fails_wakes_somebody(self) -> None:
        out = UpstreamState("http://o.example", "192.0.2.1:80", False, "no-head", state="ejected")
        last = UpstreamState("http://o.example", "192.0.2.2:80", True, "no-head; there is no other", state="failing")
        self.fired([out, last], 2, {"EdgecacheOriginDown": [{"origin": "http://o.example"}]})
        self.fired([UpstreamState("http://o.example", "192.0.2.2:80")], 2, {})

    def test_an_origin_whose_name_was_never_found_wakes_somebody(self) -> None:
        unresolved = UpstreamState("http://o.example", "", False, "no address is known", state="unresolved")
        self.fired([unresolved], 2, {"EdgecacheOriginDown": [{"origin": "http://o.example"}]})

    def test_an_origin_that_others_stand_in_for_wakes_nobody_and_is_told_of(self) -> None:
        out = UpstreamState("http://o.example", "192.0.2.1:80", False, "no-head", state="ejected")
        other = UpstreamState("http://other.example", "192.0.2.2:80")
        self.fired([out, other], 2, {})
        labels = {"origin": "http://o.example", "address": "192.0.2.1:80"}
        self.fired([out, other], 11, {"EdgecacheUpstreamOut": [labels]})

    def test_a_sibling_that_is_away_wakes_nobody(self) -> None:
        """Content is asked for elsewhere then, and another rule tells of it."""
        origin = UpstreamState("http://o.example", "192.0.2.1:80")
        for away in ("ejected", "unresolved"):
            address = "" if away == "unresolved" else "192.0.2.9:8444"
            gone = UpstreamState("https://us.example:8444", address, False, "no-head", state=away, sibling="us-1")
            self.fired([origin, gone], 2, {})
