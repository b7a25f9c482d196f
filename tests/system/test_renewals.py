"""Certificates that change while a node runs: SIGHUP takes the new one, on every leg, and a bad one is no loss."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from edgecache.siblings.certificates import make_node
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.impostors import BOTH, issue
from tests.system.origins import Origin, text
from tests.system.processes import until
from tests.system.secure_origin import SecureOrigin
from tests.system.test_reload import Load
from tests.upstream.authority import Authority


class RenewalCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="edgecache-renewals-"))
        self.addCleanup(shutil.rmtree, self.root)

    def reload(self, node: Node) -> str:
        """SIGHUP. :return: what /status says of it once it is over."""

        def told() -> str:
            return node.admin("GET", "/status").content.decode().partition('"reload":')[2].partition("}")[0]

        before = told()
        os.kill(node.twistd_pid(), signal.SIGHUP)
        until(lambda: told() != before, "the end of the reload")
        return told()

    def said(self, node: Node, words: str) -> None:
        until(lambda: words in node.log, f"{words!r} in the log\n{node.log[-3000:]}")


class UpstreamTests(RenewalCase):
    """``[upstream] ca``, ``client_certificate``, and what an origin shows."""

    def test_a_new_ca_and_a_new_certificate_of_ours_count_from_the_reload_on(self) -> None:
        old, new = Authority(self.root, "old"), Authority(self.root, "new")
        origin = SecureOrigin(old.server("localhost", clients=old))
        self.addCleanup(origin.stop)
        ca, shown = self.root / "trusted.pem", self.root / "shown.pem"
        settings = self.root / "node.toml"
        settings.write_text(f'[upstream]\nca = "{ca}"\nclient_certificate = "{shown}"\n')
        self._trust(old, ca, shown)
        node = Node(
            self.root / "n", f"https://localhost:{origin.port}", workers=1, arguments=("--config", str(settings))
        )
        self.addCleanup(node.end)
        node.start()
        self.assertEqual(b"right", node.ask("/a").content, node.log)

        origin.context = new.server("localhost", clients=new)
        name = f"https://localhost:{origin.port} (127.0.0.1)"
        for target in "bc":
            self.assertEqual(503, node.ask(f"/{target}").status)
        self.said(node, f"upstream {name}: TLS failed: ")
        # Said once, however many requests fail for it.
        self.assertEqual(1, node.log.count(f"upstream {name}: TLS failed: "))

        shown.write_text("no certificate")
        self.assertIn("[upstream] client_certificate", self.reload(node))
        ca.write_bytes(Path(new.path).read_bytes())
        shown.write_bytes(b"".join(Path(path).read_bytes() for path in old.issue("node")))
        self.assertIn('"detail":""', self.reload(node))
        refused = f"upstream {name}: TLS failed: it refuses this node's certificate: "
        # Its word comes after the handshake: who writes at that moment may only find the connection closed.
        until(lambda: node.ask("/d").status == 503 and refused in node.log, refused)
        self._trust(new, ca, shown)
        self.assertIn('"detail":""', self.reload(node))
        self.assertEqual(b"right", node.ask("/e").content, node.log[-3000:])

    def _trust(self, authority: Authority, ca: Path, shown: Path) -> None:
        ca.write_bytes(Path(authority.path).read_bytes())
        shown.write_bytes(b"".join(Path(path).read_bytes() for path in authority.issue("node")))


class SiblingTests(RenewalCase):
    """``[siblings] certificate``, ``key`` and ``ca``, of control calls and of look-ups."""

    def test_an_expired_one_is_refused_by_name_and_a_renewed_one_is_taken_under_load(self) -> None:
        origin = Origin(lambda seen: text("stored")).start()
        self.addCleanup(origin.stop)
        fleet = Fleet(self.root, 2, origin.url, workers=1, siblings='quorum = "any"\nlease_seconds = 60')
        self.addCleanup(fleet.end)
        n1, n2 = fleet.start().nodes.values()
        load = Load(n1.url)
        load.start()
        now = datetime.datetime.now(datetime.UTC)
        make_node(fleet.certificates, now - datetime.timedelta(days=9), "n2", ["127.0.0.1"], days=2, force=True)
        self.assertIn('"detail":""', self.reload(n2))
        self.said(n1, "siblings: n2 cannot be called: the certificate has expired")
        self.said(n1, "siblings: a connection from 127.0.0.1 was refused: the certificate has expired")
        self.said(n2, "siblings: n1 cannot be called: it refuses this node's certificate: ")
        content = fleet.ports("n2")[1]
        at = iter(range(1000))
        until(
            lambda: (
                n1.ask(f"/{next(at)}").status == 200
                and f":{content} (127.0.0.1): TLS failed: certificate has" in n1.log
            ),
            "n2 is the home of something",
            looks=1000,
            pause_seconds=0.0,
        )
        expired = self.shown(n2)
        self.assertIn("certificate-expired", expired)

        issue(fleet.certificates, "n2", None, node="n2", uses=BOTH)
        said = json.loads(self.reload(n2) + "}")["detail"]
        self.assertRegex(said, r"edgecache\.toml:\d+: \[siblings\] key: .* is not the key of ")
        self.assertIn(f"everything stays as it was: {said}", n2.log)

        make_node(fleet.certificates, now, "n2", ["127.0.0.1"], force=True)
        self.assertIn('"detail":""', self.reload(n2))
        self.said(n1, "siblings: n2 answers again")
        self.said(n2, "siblings: n1 answers again")
        self.assertNotIn("certificate-expired", self.shown(n2))
        load.more(50)
        load.stop()
        self.assertEqual([], load.failures)

    def shown(self, node: Node) -> str:
        return node.admin("GET", "/status").content.decode()
