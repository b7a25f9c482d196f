"""
An old pip, 25 and the current one, uv and poetry through one node before pypiserver, devpi-server and nginx (FIELD 3).

By default each client and each server has its turn with what is special of it; ``EDGECACHE_CLIENTS=all`` plays
everything with everybody.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import orjson
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from edgecache.siblings.certificates import make_ca, make_node
from tests.system.clients import ask
from tests.system.harness import Node
from tests.system.index_nodes import index_node, site
from tests.system.index_servers import Devpi, Nginx, pypiserver
from tests.system.installing import ALL, OLD_PIP, PIP, PIP_25, UV, Installer, Poetry, Ran, missing
from tests.system.middlemen import Middleman
from tests.system.packages import Package, wheel
from tests.system.processes import until
from tests.system.serial_index import JSON, SerialIndex

FULL = os.environ.get("EDGECACHE_CLIENTS") == "all"

HELPER = wheel("helper-lib", "1.0")
SAMPLE = wheel("Sample.Pkg", "1.0", requires=("helper-lib>=1",))
YANKED = wheel("Sample.Pkg", "1.1", requires=("helper-lib>=1",))
PLAIN = wheel("plain-old", "1.0", requires=("helper-lib",), padding=300_000)
LARGE = wheel("large", "1.0", padding=3_000_000)
TOKEN = "a-token-of-this-test"
_ORIGIN_PAIR = "reader:of-the-origin"
ORIGIN_AUTHORIZATION = "Basic " + base64.b64encode(_ORIGIN_PAIR.encode()).decode()


class World:
    """
    All servers, and the node before them.

    :ivar indexes: where the node has each, for clients.
    :ivar private: the origin that wants a password.
    """

    def __init__(self) -> None:
        self._ends = contextlib.ExitStack()
        self.root = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="edgecache-clients-")))
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        files = self.root / "files"
        files.mkdir()
        for package in (HELPER, SAMPLE, PLAIN, LARGE):
            package.write(files)
        html_only, html_url = pypiserver(files, self.root / "pypiserver.log")
        self._ends.callback(html_only.stop)
        devpi = Devpi(self.root)
        self._ends.callback(devpi.stop)
        for package in (HELPER, SAMPLE):
            devpi.upload(package)
        self.nginx = both = Nginx(self.root / "nginx")
        self._ends.callback(both.stop)
        for package in (HELPER, SAMPLE, LARGE):
            both.tree.add(package)
        both.tree.add(YANKED, yanked="broken on Tuesdays")
        # Nothing to learn its dependencies from but the wheel.
        both.tree.add(PLAIN, **{"core-metadata": False})
        self.private = SerialIndex(credentials=ORIGIN_AUTHORIZATION)
        self.private.upload(HELPER)
        self.private.upload(SAMPLE)
        self.private.start()
        self._ends.callback(self.private.stop)
        self.node = index_node(
            self.root / "node",
            site("", both.url),
            site("/html", html_url),
            site("/devpi", devpi.url, simple_path=Devpi.simple_path),
            site("/private", self.private.url, origin_authorization=_ORIGIN_PAIR, access="token"),
            f'[[site.client]]\nname = "ci"\ntoken = "{TOKEN}"',
        )
        self._ends.callback(self.node.end)
        self.node.start()
        self.indexes = {
            "nginx": f"{self.node.url}/simple/",
            "pypiserver": f"{self.node.url}/html/simple/",
            "devpi": f"{self.node.url}/devpi/simple/",
        }

    def close(self) -> None:
        self._ends.close()


_worlds: list[World] = []


def tearDownModule() -> None:
    for world in _worlds:
        world.close()


class IndexClientsTestCase(SynchronousTestCase):
    """One world for all classes here: its servers take longer to start than many a test."""

    world: ClassVar[World]

    @classmethod
    def setUpClass(cls) -> None:
        if not _worlds:
            _worlds.append(World())
        cls.world = _worlds[0]

    @property
    def node(self) -> Node:
        return self.world.node

    @property
    def indexes(self) -> dict[str, str]:
        return self.world.indexes

    def setUp(self) -> None:
        self._homes = 0

    def home(self) -> Path:
        self._homes += 1
        return self.world.root / "homes" / f"{self.id().rpartition('.')[2]}-{self._homes}"

    def said(self, ran: Ran) -> str:
        return f"{ran.args}\n{ran.stdout[-2000:]}\n{ran.stderr[-3000:]}\n--- node:\n{self.node.log[-3000:]}"

    def installs(self, installer: Installer, index: str, requirement: str, *expected: Package) -> Ran:
        """Into an empty home; what is there afterwards is right octet for octet."""
        ran, target = installer.install(self.home(), index, requirement)
        self.assertEqual(0, ran.returncode, self.said(ran))
        self.assertEqual([], missing(target, expected), self.said(ran))
        return ran

    def watched(self, index: str = "nginx") -> tuple[Middleman, str]:
        """:return: who stands before the node from now on, and where the index is then."""
        middleman = Middleman.before(self.node.url)
        self.addCleanup(middleman.close)
        return middleman, self.indexes[index].replace(self.node.url, middleman.url)


class InstallTests(IndexClientsTestCase):
    """Packages and what they need, from each kind of index."""

    def _plays(self, installer: Installer, *servers: str) -> None:
        for server in self.indexes if FULL else servers:
            self.installs(installer, self.indexes[server], "Sample.Pkg==1.0", SAMPLE, HELPER)

    def test_an_old_pip(self) -> None:
        self._plays(OLD_PIP, "pypiserver", "nginx")

    def test_pip_25(self) -> None:
        self._plays(PIP_25, "devpi")

    def test_the_current_pip(self) -> None:
        self._plays(PIP, "pypiserver", "nginx")

    def test_uv(self) -> None:
        self._plays(UV, "pypiserver", "devpi", "nginx")

    def test_poetry(self) -> None:
        self._plays(Poetry(), "nginx")

    def test_names_that_are_not_normalised(self) -> None:
        """Installers normalise what they are given; browsers, scripts and old tools are redirected."""
        for installer, server in ((OLD_PIP, "devpi"), (UV, "nginx")):
            self.installs(installer, self.indexes[server], "SAMPLE_pkg==1.0", SAMPLE, HELPER)
        for server, index in self.indexes.items():
            for spelt in ("Sample.Pkg/", "SAMPLE__pkg", "sample-pkg"):
                answer = ask(f"{index}{spelt}", fields={"Accept": JSON})
                self.assertIn(answer.status, (301, 308), f"{server}: {spelt}: {answer}")
                self.assertRegex(answer.fields["location"], r"(^|/)sample-pkg/$")

    def test_json_and_html_of_each_page_whatever_the_origin_has(self) -> None:
        for server, index in self.indexes.items():
            for accept, kind in ((JSON, JSON), ("text/html", "text/html"), ("*/*", "text/html")):
                answer = ask(f"{index}sample-pkg/", fields={"Accept": accept})
                self.assertEqual(200, answer.status, f"{server}: {answer}")
                self.assertEqual(kind, answer.fields["content-type"].partition(";")[0], server)
                self.assertIn(b"files/sample-pkg/" + SAMPLE.sha256.encode(), answer.content, server)


class HashTests(IndexClientsTestCase):
    """--require-hashes"""

    def _pinned(self, home: Path, *packages: Package) -> str:
        home.mkdir(parents=True, exist_ok=True)
        file = home / "requirements.txt"
        lines = (f"{package.project}=={package.version} --hash=sha256:{package.sha256}" for package in packages)
        file.write_text("\n".join(lines) + "\n")
        return str(file)

    def test_right_ones(self) -> None:
        for installer, server in ((OLD_PIP, "pypiserver"), (PIP, "nginx"), (UV, "devpi")):
            home = self.home()
            words = ("--require-hashes", "-r", self._pinned(home, SAMPLE, HELPER))
            ran, target = evolve(installer, words=words).install(home, self.indexes[server])
            self.assertEqual(0, ran.returncode, self.said(ran))
            self.assertEqual([], missing(target, (SAMPLE, HELPER)))


class LazyMetadataTests(IndexClientsTestCase):
    """Dependencies are learned without the whole file."""

    def _asked(self, middleman: Middleman) -> list[str]:
        """First line of each request, and its Range."""
        found = []
        for head in middleman.heads:
            lines = head.decode("latin-1").split("\r\n")
            ranges = [line for line in lines if line.lower().startswith("range:")]
            found.append(" ".join([lines[0], *ranges]))
        return found

    def test_by_ranges_of_the_wheel_where_the_index_has_no_metadata(self) -> None:
        """pip's fast-deps and uv, after HEAD; poetry at once."""
        lazy = ("--use-feature=fast-deps",)
        pips = (evolve(OLD_PIP, words=lazy), evolve(PIP, words=lazy))
        for installer in (*(pips if FULL else pips[:1]), UV, Poetry()):
            middleman, index = self.watched()
            self.installs(installer, index, "plain-old", PLAIN, HELPER)
            asked = self._asked(middleman)
            self.assertTrue(any(".whl HTTP/1.1 Range" in line for line in asked), f"{installer.name}: {asked}")

    def test_by_the_metadata_file_where_the_index_has_it(self) -> None:
        # poetry as well, but each of its calls takes seconds.
        for installer in (PIP_25, PIP, UV, Poetry()) if FULL else (PIP_25, PIP, UV):
            middleman, index = self.watched()
            self.installs(installer, index, "Sample.Pkg==1.0", SAMPLE, HELPER)
            asked = self._asked(middleman)
            self.assertTrue(any(".whl.metadata HTTP/1.1" in line for line in asked), f"{installer.name}: {asked}")


class CutTests(IndexClientsTestCase):
    """The connection ends in the middle of a file."""

    def test_the_current_pip_goes_on_where_it_was(self) -> None:
        middleman, index = self.watched()
        middleman.cut(1_500_000)
        self.installs(evolve(PIP, words=("--resume-retries", "3")), index, "large", LARGE)
        self.assertEqual(1, middleman.cuts)
        again = middleman.heads[-1].decode("latin-1")
        self.assertRegex(again, r"(?s)\r\nRange: bytes=1[0-9]{6}-\r\n.*If-Range: \"")

    def test_uv_starts_again(self) -> None:
        middleman, index = self.watched()
        middleman.cut(1_500_000)
        self.installs(UV, index, "large", LARGE)
        self.assertEqual(1, middleman.cuts)


class YankedTests(IndexClientsTestCase):
    """PEP 592"""

    def test_who_pins_it_gets_it_with_a_warning(self) -> None:
        for installer in ALL if FULL else (OLD_PIP, UV):
            ran = self.installs(installer, self.indexes["nginx"], "Sample.Pkg==1.1", YANKED, HELPER)
            self.assertIn("broken on Tuesdays", ran.stdout + ran.stderr)

    def test_nobody_else_does(self) -> None:
        for installer in ALL if FULL else (PIP, UV):
            self.installs(installer, self.indexes["nginx"], "sample-pkg", SAMPLE, HELPER)


class PrivateIndexTests(IndexClientsTestCase):
    """Clients have a token of the node's, the node has a password of the origin's."""

    def _index(self, credentials: str) -> str:
        return f"{self.node.url}/private/simple/".replace("http://", f"http://{credentials}")

    def test_with_a_token(self) -> None:
        for installer in ALL if FULL else (OLD_PIP, UV, Poetry()):
            self.installs(installer, self._index(f"ci:{TOKEN}@"), "Sample.Pkg", SAMPLE, HELPER)
        asked = self.world.private.origin.seen
        self.assertTrue({"simple", "packages"} <= {seen.target.split("/")[1] for seen in asked})
        self.assertEqual({ORIGIN_AUTHORIZATION}, {seen.fields["authorization"] for seen in asked})

    def test_without_one(self) -> None:
        for installer, credentials in ((PIP, "ci:wrong@"), (UV, "")):
            ran, target = installer.install(self.home(), self._index(credentials), "Sample.Pkg")
            self.assertNotEqual(0, ran.returncode, self.said(ran))
            self.assertFalse(target.exists() and list(target.glob("sample*")))


class CachingTests(IndexClientsTestCase):
    """Over TLS pip keeps pages and files, and validates pages; so does uv anywhere."""

    def setUp(self) -> None:
        super().setUp()
        root = self.home()
        now = datetime.datetime.now(datetime.UTC)
        make_ca(root, now)
        make_node(root, now, "edge", ["127.0.0.1"])
        self.log = root / "access.log"
        self.ca = str(root / "ca.pem")
        self.tls = index_node(
            root / "node",
            site("", self.world.nginx.url),
            f'[tls]\ncertificate = "{root}/edge.pem"\nkey = "{root}/edge.key"',
            f'[log]\naccess = "{self.log}"',
        )
        self.addCleanup(self.tls.end)
        self.tls.start()
        self.index = f"{self.tls.url.replace('http://', 'https://')}/simple/"

    def _answered(self, wheels: int) -> set[tuple[str, int]]:
        """
        Kind of what was asked for, and the status, of each request since the last call.

        :param wheels: that were downloaded: a line is written after its client has everything.
        """

        def lines() -> list[dict[str, Any]]:
            return [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.endswith(b"}")]

        until(lambda: sum(line["target"].endswith(".whl") for line in lines()) >= wheels, "lines of the wheels")
        found = {(line["target"].split("/")[1], line["status"]) for line in lines()}
        self.log.write_bytes(b"")
        return found

    def test_what_was_installed_before_costs_a_304_for_each_page_and_nothing_else(self) -> None:
        for installer in (OLD_PIP, PIP, UV) if FULL else (PIP, UV):
            home = self.home()
            for due, wheels in (({("simple", 200), ("files", 200)}, 2), ({("simple", 304)}, 0)):
                ran, target = installer.install(home, self.index, "Sample.Pkg==1.0", certificate=self.ca)
                self.assertEqual(0, ran.returncode, self.said(ran) + self.tls.log[-3000:])
                self.assertEqual([], missing(target, (SAMPLE, HELPER)))
                shutil.rmtree(target)
                self.assertEqual(due, self._answered(wheels), installer.name)
