"""Pages of an index on real nodes: what siblings give each other is the page itself (DESIGN 9, 10)."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system.fleet import Fleet
from tests.system.meddling import patient
from tests.system.origins import Octets, Origin, Reply

JSON = "application/vnd.pypi.simple.v1+json"


def page_of(version: int) -> str:
    files = [{"filename": f"six-{version}.tar.gz", "url": f"/p/six-{version}.tar.gz", "hashes": {"sha256": "ab" * 32}}]
    meta = {"api-version": "1.1", "_last-serial": version}
    return orjson.dumps({"meta": meta, "name": "six", "files": files}).decode()


class SiblingTests(SynchronousTestCase):
    """A home fills pages for its siblings, and what one of them has serves when the origin is gone."""

    def test_each_node_derives_from_the_page_that_its_sibling_gave_it(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-pages-")
        self.addCleanup(directory.cleanup)
        origin = Origin().start()
        self.addCleanup(origin.stop)
        site = f'name = "main"\nprofile = "index"\norigins = ["{origin.url}"]\npage_fill = "home"\npage_seconds = 600.0'
        root = Path(directory.name)
        fleet = Fleet(root, 2, site=site, profile="index", workers=2, prefix=patient(root / "first"))
        self.addCleanup(fleet.end)
        for name in ("six", "seven"):
            document = page_of(1).replace('"six"', f'"{name}"')
            content = Octets(document.encode())
            origin.serve(f"/simple/{name}/", Reply(content, fields=(("Content-Type", JSON),), etag='"theirs"'))
        fleet.start()
        for name in fleet.ids:
            fleet.wait_leased(fleet.nodes[name])
        for project in ("six", "seven"):
            answers = [
                node.ask(f"/simple/{project}/", fields={"Accept": accept, "Accept-Encoding": coding})
                for node in fleet.nodes.values()
                for accept, coding in ((JSON, "identity"), (JSON, "gzip"), ("text/html", "identity"))
            ]
            self.assertEqual({200}, {answer.status for answer in answers}, str(answers))
            for first, second in zip(answers[:3], answers[3:], strict=True):
                self.assertEqual((first.content, first.fields["etag"]), (second.content, second.fields["etag"]))
                self.assertEqual("1", second.fields["x-pypi-last-serial"])
            self.assertEqual(answers[0].content, gzip.decompress(answers[1].content))
            self.assertIn(b"../../files/", answers[0].content)
            told = {name for answer in answers for name in answer.fields if name.startswith("edgecache-")}
            self.assertEqual(set(), told, "what siblings tell each other is nobody else's")
            self.assertEqual(1, origin.count(f"/simple/{project}/"), "the home alone asks")
