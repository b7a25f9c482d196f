"""What mirrors rely on, on real nodes: the change feed of a fleet, and a node that follows its origin's list."""

from __future__ import annotations

import http.client
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.system.clients import Answer
from tests.system.contents import Octets
from tests.system.fleetcase import ONE, FleetTestCase, Scene
from tests.system.harness import Node
from tests.system.origins import Origin, Reply
from tests.system.processes import until
from tests.system.versions import version_of

CHANGES = int(os.environ.get("EDGECACHE_FEED_CHANGES", "20"))


class Reader:
    """A reader of a node's feed, as a library for server-sent events is one."""

    def __init__(self, node: Node, cursor: str = "") -> None:
        self.cursor = cursor
        parts = urlsplit(node.admin_url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        fields = {"Authorization": f"Bearer {node.token}", "Accept": "text/event-stream"}
        if cursor:
            fields["Last-Event-ID"] = cursor
        self._connection.request("GET", "/feed", headers=fields)
        self._response = self._connection.getresponse()
        assert self._response.status == 200, self._response.status
        # A stream begins with its reader's place: what comes from now on is not missed.
        while not self.cursor:
            self._line()

    def _line(self) -> tuple[str, str]:
        name, _, value = self._response.readline().decode().rstrip("\n").partition(": ")
        if name == "id":
            self.cursor = value
        return name, value

    def events(self) -> Iterator[dict[str, Any]]:
        """One after the other, as they come."""
        while True:
            name, value = self._line()
            if name == "data":
                yield json.loads(value)

    def close(self) -> None:
        self._connection.close()


class FeedTests(FleetTestCase):
    @classmethod
    def opened(cls) -> Scene:
        return Scene.open(2, voter=True)

    def poll(self, node: Node, cursor: str, seconds: float = 20) -> dict[str, Any]:
        answer = node.admin("GET", f"/feed?since={cursor}&timeout={seconds}")
        self.assertEqual(200, answer.status, str(answer))
        document: dict[str, Any] = json.loads(answer.content)
        return document

    def test_whoever_reads_of_a_change_gets_nothing_older_from_any_node(self) -> None:
        """The second complaint: the feed told of a change before the cache showed it, and mirrors kept the old page."""
        nodes = list(self.fleet.nodes.values())
        self.fill()
        reader = Reader(nodes[1])
        self.addCleanup(reader.close)
        events = reader.events()
        expected = []
        for number in range(CHANGES):
            version = self.versions.publish()
            answer = nodes[number % 2].admin("POST", "/purge?timeout=0", {"urls": [ONE.target], "id": f"v{version}"})
            self.assertIn(answer.status, (200, 202, 503))
            expected.append(f"v{version}")
        found = []
        while len(found) < CHANGES:
            event = next(events)
            found.append(event["id"])
            for node in nodes:
                shown = version_of(ONE, node.ask(ONE.target))
                self.assertGreaterEqual(shown, int(event["id"][1:]), f"{node.url} after {event}")
        # Each once; those of one node in its order.
        self.assertEqual(sorted(expected), sorted(found))
        for first in (0, 1):
            self.assertEqual(expected[first::2], [each for each in found if each in expected[first::2]])

    def test_a_place_is_as_good_at_another_node_and_after_a_restart(self) -> None:
        n1, n2 = self.fleet.nodes.values()
        begin = json.loads(n1.admin("GET", "/feed").content)["cursor"]
        n1.admin("POST", "/purge?wait=complete&timeout=60", {"tags": ["project/six"], "id": "x"})
        first = self.poll(n2, begin)
        self.assertEqual((["x"], ["six"]), ([each["id"] for each in first["events"]], first["events"][0]["projects"]))
        n1.stop()
        n1.start()
        self.fleet.wait_leased(n1)
        n2.admin("POST", "/purge?wait=complete&timeout=60", {"tags": ["project/six"], "id": "y"})
        self.assertEqual(["y"], [each["id"] for each in self.poll(n1, first["cursor"])["events"]])
        reader = Reader(n1, begin)
        self.addCleanup(reader.close)
        events = reader.events()
        self.assertEqual(["x", "y"], [next(events)["id"] for _ in range(2)])

    def test_what_not_every_member_has_is_not_given_out_before_its_lease_is_over(self) -> None:
        n1, n2 = self.fleet.nodes.values()
        begin = json.loads(n1.admin("GET", "/feed").content)["cursor"]
        n2.kill()
        answer = n1.admin("POST", "/purge?timeout=60", {"all": True, "id": "z"})
        self.assertEqual((202, "durable"), (answer.status, json.loads(answer.content)["state"]))
        self.assertEqual([], self.poll(n1, begin, 0)["events"])
        (event,) = self.poll(n1, begin)["events"]
        self.assertEqual(("z", "effective", True), (event["id"], event["state"], event["all"]))


class FollowingTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-following-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)
        self.lists({"six": 1, "other": 1})

    def start(self, follow_seconds: float) -> None:
        configuration = self.root / "edgecache.toml"
        # Without the follower every request would ask the origin.
        settings = ("page_seconds = 0", "recently_validated_seconds = 0", f"follow_seconds = {follow_seconds}")
        configuration.write_text("\n".join(("[[site]]", *settings, "follow_fetch_seconds = 3.0", "")))
        arguments = ("--config", str(configuration))
        self.node = Node(self.root, self.origin.url, profile="index", workers=1, arguments=arguments)
        self.addCleanup(self.node.end)
        self.node.start()
        until(lambda: self.follower()["state"] == "following", "a list that is followed")

    def lists(self, serials: dict[str, int]) -> None:
        """The origin has these projects from now on, pages first."""
        kind = ("Content-Type", "application/vnd.pypi.simple.v1+json")
        for name, serial in serials.items():
            document: dict[str, Any] = {
                "meta": {"api-version": "1.1", "_last-serial": serial},
                "name": name,
                "files": [],
            }
            fields = (kind, ("X-PyPI-Last-Serial", str(serial)))
            content = Octets(json.dumps(document).encode())
            self.origin.serve(f"/simple/{name}/", Reply(content, fields=fields, etag=f'"{serial}"'))
        listed = [{"name": name, "_last-serial": serial} for name, serial in serials.items()]
        content = Octets(json.dumps({"meta": {"api-version": "1.1"}, "projects": listed}).encode())
        etag = '"' + "-".join(map(str, serials.values())) + '"'
        self.origin.serve("/simple/", Reply(content, fields=(kind,), etag=etag))

    def page(self, name: str = "six") -> Answer:
        # As pip up to 26.1 asks.
        fields = {"Accept": "application/vnd.pypi.simple.v1+json", "Cache-Control": "max-age=0"}
        return self.node.ask(f"/simple/{name}/", fields=fields)

    def serial(self, name: str = "six") -> int:
        return int(json.loads(self.page(name).content)["meta"]["_last-serial"])

    def follower(self) -> dict[str, Any]:
        (found,) = json.loads(self.node.admin("GET", "/status").content)["followers"]
        return dict(found)

    def test_pages_are_served_from_the_store_until_their_serial_changes_or_nobody_can_tell(self) -> None:
        self.start(0.2)
        until(lambda: self.page().hit, "the page in the store")
        until(lambda: self.page("other").hit, "the other page in the store")
        self.lists({"six": 2, "other": 1})
        until(lambda: self.serial() == 2, "the new page")
        until(lambda: self.page().hit, "the new page in the store")
        before = self.origin.count("/simple/other/")
        self.assertTrue(self.page("other").hit)
        self.assertEqual(before, self.origin.count("/simple/other/"), "nothing has happened to it")
        self.origin.serve("/simple/", Reply(Octets(b"broken"), status=500))
        until(lambda: self.follower()["followed_for"] == 0.0, "the end of what was promised")
        asked = self.origin.count("/simple/other/")
        self.assertFalse(self.page("other").hit)
        self.assertEqual(asked + 1, self.origin.count("/simple/other/"))
        metrics = self.node.admin("GET", "/metrics", token=False).content.decode()
        self.assertIn('edgecache_follower_up{site="default"} 0.0', metrics)
        self.assertIn('edgecache_follower_changes_total{kind="changed",site="default"} 1.0', metrics)
        self.lists({"six": 3, "other": 1})
        until(lambda: self.follower()["state"] == "following", "a list that is followed again")
        self.assertEqual(3, self.serial())

    def test_who_is_given_a_newer_list_finds_no_older_pages_when_it_asks_again(self) -> None:
        self.start(3600.0)
        until(lambda: self.page().hit, "the page in the store")
        until(
            lambda: self.node.ask("/simple/").status == 200 and self.follower()["counts"]["polls"] > 1, "another poll"
        )
        self.lists({"six": 2, "other": 1})
        mirror = {"Accept": "application/vnd.pypi.simple.v1+json"}
        # The list is validated each page_seconds, whatever is followed.
        until(lambda: b'"_last-serial":2' in self.node.ask("/simple/", fields=mirror).content, "the newer list")

        def newest() -> bool:
            # As a mirror does: the list, then the page.
            self.node.ask("/simple/")
            return self.serial() == 2

        until(newest, "the new page")
