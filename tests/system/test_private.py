"""Several indexes behind one node: below paths of their own, private, fetched past the store, and uploaded to."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.clients import Answer, ask
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.index_servers import Server
from tests.system.meddling import patient
from tests.system.origins import Origin, text
from tests.system.packages import wheel
from tests.system.tools import TWINE, Client, tool

SITES = """
[[site]]
path = "/team-a"
profile = "index"
origins = ["{private}"]
purged = true
access = "token"
upload = "/"
[[site.client]]
name = "ci"
token = {{ file = "ci.token" }}
[[site.client]]
name = "alice"
user = "alice"
password = "her-password"

[[site]]
name = "open"
profile = "index"
origins = ["{open}"]
purged = true
"""

_TOKEN = "a-token-of-ci"


def basic(pair: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


CI = {"Authorization": f"Bearer {_TOKEN}"}


class FleetTests(SynchronousTestCase):
    """Siblings ask each other by their certificates; a client's credentials end at the node that it asks."""

    def test_a_private_site_of_two_nodes_is_one_store_behind_each_node_s_door(self) -> None:
        origin = Origin(lambda seen: text(seen.target, ("Cache-Control", "public, max-age=600"))).start()
        self.addCleanup(origin.stop)
        site = f"""
            access = "token"
            origin_authorization = "me:hush"
            [[site.client]]
            name = "ci"
            token = "{_TOKEN}"
        """
        root = Path(self.mktemp()).absolute()
        first = patient(root / "first")
        fleet = Fleet(root, 2, origin.url, site=site, siblings="pull_seconds = 0.2", prefix=first)
        self.addCleanup(fleet.end)
        first, second = fleet.start().nodes.values()
        for number in range(8):
            target = f"/file-{number}"
            for node in (first, second, first):
                self.assertEqual(401, node.ask(target).status)
                answer = node.ask(target, fields=CI)
                self.assertEqual((200, target), (answer.status, answer.content.decode()))
                self.assertIn("private", answer.fields["cache-control"])
            self.assertEqual(1, origin.count(target))
        self.assertEqual({basic("me:hush")["Authorization"]}, {seen.fields["authorization"] for seen in origin.seen})


class PrivateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="edgecache-test-"))
        self.private, self.open = (self.index(name) for name in ("a", "b"))
        config = self.root / "edge.toml"
        config.write_text(SITES.format(private=self.private, open=self.open))
        (self.root / "ci.token").write_text(_TOKEN + "\n")
        self.node = Node(self.root / "node", profile="index", arguments=("--config", str(config)))
        self.addCleanup(self.node.end)
        self.node.start()

    def index(self, name: str) -> str:
        """:return: URL of an index with one project, which takes uploads of anybody."""
        files = self.root / name
        files.mkdir()
        wheel("some-project", "1.0").write(files)
        port = processes.free_port()
        command = [sys.executable, "-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", str(port), "--disable-fallback"]
        url = f"http://127.0.0.1:{port}"
        server = Server([*command, "-P", ".", "-a", ".", str(files)], f"{url}/simple/", self.root / f"{name}.log")
        self.addCleanup(server.stop)
        return url

    def page(self, path: str, fields: dict[str, str] | None = None) -> Answer:
        return ask(self.node.url, f"{path}/simple/some-project/", fields={"Accept": "text/html", **(fields or {})})

    def test_a_node_of_two_indexes(self) -> None:
        with self.subTest("each below its path, one for its clients only"):
            self.assertEqual(200, self.page("").status)
            denied = self.page("/team-a")
            self.assertEqual((401, True), (denied.status, "www-authenticate" in denied.fields))
            for fields in (CI, basic(f"x:{_TOKEN}"), basic("alice:her-password")):
                self.assertEqual(200, self.page("/team-a", fields).status)
            self.assertEqual(401, self.page("/team-a", basic("alice:wrong")).status)
        with self.subTest("an upload is passed on, and the next page has it"):
            self.assertNotIn(b"2.0", self.page("/team-a", CI).content)
            self.publish("2.0")
            for _ in range(4):
                self.assertIn(b"some_project-2.0", self.page("/team-a", CI).content)
            self.assertNotIn(b"2.0", self.page("").content)
        with self.subTest("a purge names pages as clients know them"):
            wheel("some-project", "3.0").write(self.root / "b")
            self.assertNotIn(b"3.0", self.page("").content)
            self.node.admin("POST", "/purge", {"urls": ["/simple/some-project/"]})
            self.assertIn(b"some_project-3.0", self.page("").content)
            wheel("some-project", "3.0").write(self.root / "a")
            self.assertNotIn(b"3.0", self.page("/team-a", CI).content)
            # The scope of the token says it all: no client's credentials besides.
            for token, status in (("wrong", 405), ((self.node.data / "admin.token").read_text().strip(), 200)):
                target = "/team-a/simple/some-project/"
                told = ask(self.node.url, target, method="PURGE", fields={"Fastly-Key": token})
                self.assertEqual(status, told.status)
            self.assertIn(b"some_project-3.0", self.page("/team-a", CI).content)
        with self.subTest("a token leads past the store"):
            wheel("some-project", "4.0").write(self.root / "b")
            self.assertNotIn(b"4.0", self.page("").content)
            self.assertEqual(403, self.page("", {"Edgecache-Bypass": "wrong"}).status)
            made = json.loads(self.node.admin("POST", "/tokens", {"name": "mirror", "scopes": ["bypass"]}).content)
            fresh = self.page("", {"Edgecache-Bypass": made["token"]})
            self.assertIn(b"some_project-4.0", fresh.content)
            self.assertIn("fwd=bypass", fresh.fields["cache-status"])
            # It is stored a moment after its last octet was sent.
            processes.until(lambda: b"some_project-4.0" in self.page("").content, "the newest page, stored")
            self.node.admin("DELETE", "/tokens/mirror")
            self.assertEqual(403, self.page("", {"Edgecache-Bypass": made["token"]}).status)
        with self.subTest("no secret is in the log, the status or the audit"):
            shown = self.node.log + (self.node.data / "audit.log").read_text()
            shown += self.node.admin("GET", "/status").content.decode()
            for secret in (_TOKEN, "her-password", made["token"]):
                self.assertNotIn(secret, shown)

    def publish(self, version: str) -> None:
        """With twine, as a publisher does."""
        client = Client(self.root / "publisher")
        package = wheel("some-project", version)
        package.write(client.home)
        url = f"{self.node.url}/team-a/"
        options = ("--non-interactive", "--disable-progress-bar", "-u", "me", "-p", "x")
        done = client.run(tool(TWINE) / "twine", "upload", "--repository-url", url, *options, package.filename)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
