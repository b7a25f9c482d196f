"""``/downloads``, its kin of PEP 381, and ``edgecache downloads``."""

from __future__ import annotations

import bz2
import os
from pathlib import Path
from typing import Any, cast

import orjson
from attrs import evolve
from twisted.internet import reactor as running  # noqa: TID251  # the one that conftest installed
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.python import usage
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from edgecache import cli
from edgecache.admin.address import AdminAddress
from edgecache.admin.downloadsclient import downloads
from edgecache.admin.site import admin_site
from edgecache.index.downloads import HEADER, SUFFIX, Kind, common
from edgecache.index.tabulating import day_number
from edgecache.rules.sites import site_id
from edgecache.store.folding import Downloads
from tests.admin.harness import NOW, AdminCase

DAY = "2025-11-13"
PIP = b'pip/24.0 {"installer":{"name":"pip","version":"24.0"},"python":"3.12.1"}'
UV = b'uv/0.5.0 {"installer":{"name":"uv","version":"0.5.0"},"python":"3.13.0"}'


class DownloadsCase(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(day_number(DAY), NOW // 86400)
        self.downloads = Downloads.of(self.parts.config, Clock(), maybeDeferred)
        self.addCleanup(lambda: self.done(self.downloads.stop()))
        self.site = admin_site(evolve(self.parts, downloads=self.downloads), self.clock)
        self.happened(("six", PIP, 0), ("six", PIP, 0), ("six", UV, -1), ("attrs", PIP, -40))

    def happened(self, *downloads: tuple[str, bytes, int]) -> None:
        directory = Path(self.data, "downloads")
        directory.mkdir(exist_ok=True)
        lines = [HEADER + b"eu-1"]
        for number, (project, agent, days) in enumerate(downloads):
            path = f"/files/{project}/-/{project}-1.0.tar.gz".encode()
            lines.append(b"=%d\t%b" % (number, common(Kind.FILE, site_id("index"), path, agent)))
            lines.append(b"%d\t192.0.2.%d\t\t\t10\t\t%d" % ((NOW + days * 86400) * 1000, number, number))
        (directory / (os.urandom(8).hex() + SUFFIX)).write_bytes(b"\n".join(lines) + b"\n")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        answer = self.ask("GET", "/downloads" + query)
        self.assertEqual(200, answer.status, answer.content)
        return [tuple(row.values()) for row in answer.json["rows"]]


class RouteTests(DownloadsCase):
    def test_the_last_month_by_day_and_project(self) -> None:
        document = self.ask("GET", "/downloads").json
        self.assertRegex(document.pop("life"), "^[0-9a-f]{16}$")
        expected = {
            "node": "eu-1",
            "from": "2025-10-15",
            "to": DAY,
            "by": ["day", "project"],
            "where": {},
            "rows": [
                {"day": "2025-11-12", "project": "six", "downloads": 1},
                {"day": DAY, "project": "six", "downloads": 2},
            ],
            "total": 3,
            "truncated": False,
            "behind": False,
            "lost": 0,
            "damaged": 0,
        }
        self.assertEqual(expected, document)

    def test_other_days(self) -> None:
        self.assertEqual([(2,)], self.rows(f"?day={DAY}&by="))
        self.assertEqual([("attrs", 1), ("six", 3)], self.rows("?from=2025-01-01&by=project"))
        self.assertEqual([("attrs", 1)], self.rows("?from=2025-01-01&to=2025-11-01&by=project"))

    def test_by_file_and_by_installer(self) -> None:
        self.assertEqual([("index", "six-1.0.tar.gz", "sdist", "1.0", 3)], self.rows("?by=site,filename,type,version"))
        self.assertEqual([("pip", "3.12", 2), ("uv", "3.13", 1)], self.rows("?by=installer,python"))

    def test_only_one_project_or_installer(self) -> None:
        self.assertEqual([("uv", 1)], self.rows("?project=SIX&by=installer&installer=uv"))
        self.assertEqual([], self.rows("?project=none"))

    def test_rows_that_are_too_many_are_said_to_be(self) -> None:
        document = self.ask("GET", "/downloads?limit=1").json
        self.assertEqual((1, True, 3), (len(document["rows"]), document["truncated"], document["total"]))

    def test_lines_of_json(self) -> None:
        for path, fields in (("/downloads?format=ndjson", {}), ("/downloads", {"accept": "application/x-ndjson"})):
            answer = self.ask("GET", path, **fields)
            lines = [orjson.loads(line) for line in answer.content.splitlines()]
            self.assertEqual(["eu-1", "eu-1"], [line["node"] for line in lines])
            self.assertEqual([1, 2], [line["downloads"] for line in lines])

    def test_what_nobody_can_answer_is_refused(self) -> None:
        for query in ("day=yesterday", "by=age", "colour=red", "by=python&project=six", "limit=0", "format=xml"):
            answer = self.ask("GET", "/downloads?" + query)
            self.assertEqual((400, "invalid-query"), (answer.status, answer.json["error"]), query)
        self.assertEqual(400, self.ask("GET", "/downloads?by=day&by=site").status)

    def test_whoever_may_see_the_status_may_see_them(self) -> None:
        for path in ("/downloads", f"/local-stats/days/{DAY}.bz2", "/last-modified"):
            self.assertEqual(401, self.ask("GET", path, token=None).status)
            self.assertEqual(403, self.ask("GET", path, token=self.scoped("purge", name=f"p{len(path)}")).status)
            self.assertEqual(200, self.ask("GET", path, token=self.scoped("status", name=f"s{len(path)}")).status)

    def test_a_day_as_pep_381_has_it(self) -> None:
        answer = self.ask("GET", f"/local-stats/days/{DAY}.bz2")
        text = "# package,filename,useragent,count\nsix,six-1.0.tar.gz,pip/24.0,2\n"
        self.assertEqual((200, text), (answer.status, bz2.decompress(answer.content).decode()))
        for name in ("2025-11-11.bz2", "today.bz2", "2025-13-01.bz2"):
            self.assertEqual(404, self.ask("GET", f"/local-stats/days/{name}").status, name)

    def test_the_date_of_pep_381_is_up_to_when_all_is_counted(self) -> None:
        answer = self.ask("GET", "/last-modified")
        self.assertEqual((b"2025-11-13T02:13:20Z\n", "text/plain"), (answer.content, answer.headers["content-type"]))

    def test_where_nothing_is_counted_that_is_said(self) -> None:
        self.site = admin_site(self.parts, self.clock)
        answer = self.ask("GET", "/downloads")
        self.assertEqual((404, "not-counted"), (answer.status, answer.json["error"]))

    def test_counts_that_cannot_be_read_are_an_answer_too(self) -> None:
        self.ask("GET", "/downloads")
        self.done(self.downloads.stop())
        self.downloads._directory = "/dev/null/downloads"
        answer = self.ask("GET", "/downloads")
        self.assertEqual((503, "not-read"), (answer.status, answer.json["error"]))

    def test_metrics_have_their_number(self) -> None:
        self.ask("GET", "/downloads")
        self.assertIn(b"edgecache_downloads_total 4.0", self.ask("GET", "/metrics").content)


class _Says(Resource):
    isLeaf = True

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__()
        self.document, self.asked = document, []

    def render_GET(self, request: Any) -> bytes:
        self.asked.append((request.uri, request.getHeader("authorization")))
        return orjson.dumps(self.document)


class CommandTests(TestCase):
    """``edgecache downloads``, of nodes on real sockets."""

    def node(self, name: str, life: str, *rows: tuple[str, int], **more: Any) -> AdminAddress:
        document = {
            "node": name,
            "life": life,
            "truncated": False,
            "behind": False,
            "lost": 0,
            "rows": [{"project": project, "downloads": count} for project, count in rows],
            **more,
        }
        self.said = _Says(document)
        port = cast(Any, running).listenTCP(0, Site(self.said), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return AdminAddress(f"http://127.0.0.1:{port.getHost().port}", f"token of {name}")

    def show(self, *nodes: AdminAddress, as_json: bool = False) -> Deferred[tuple[int, list[str]]]:
        async def run() -> tuple[int, list[str]]:
            lines: list[str] = []
            status = await downloads(running, nodes, {"by": "project"}, lines.append, as_json=as_json)
            return status, lines

        return Deferred.fromCoroutine(run())

    async def test_nodes_are_added_up_each_once(self) -> None:
        one, two = self.node("n1", "a", ("six", 3), ("attrs", 10)), self.node("n2", "b", ("six", 4))
        status, lines = await self.show(one, two, one)
        expected = [
            "project  downloads",
            "attrs           10",
            "six              7",
            "17 downloads from 2 nodes: n1, n2",
        ]
        self.assertEqual((0, expected), (status, lines))
        self.assertEqual([(b"/downloads?by=project&limit=100000", "Bearer token of n2")], self.said.asked)

    async def test_a_node_that_does_not_answer_is_named(self) -> None:
        status, lines = await self.show(self.node("n1", "a", ("six", 3)), AdminAddress("http://127.0.0.1:1", ""))
        self.assertEqual((1, "3 downloads from 1 nodes: n1"), (status, lines[2]))
        self.assertRegex(lines[3], "^not answered: http://127.0.0.1:1: ")

    async def test_what_is_missing_in_an_answer_is_noted_and_json_has_all(self) -> None:
        status, lines = await self.show(self.node("n1", "a", lost=5, truncated=True), as_json=True)
        document = orjson.loads("".join(lines))
        self.assertEqual(
            (0, ["n1"], {}, 0, 2),
            (status, document["nodes"], document["not_answered"], document["total"], len(document["notes"])),
        )

    def test_its_flags(self) -> None:
        options = cast(Any, cli.Options)()
        options.parseOptions(
            ["downloads", "--node", "http://a.example:8081", "--node", "b:8081,x.token", "--by", "project"]
        )
        self.assertEqual(["http://a.example:8081", "b:8081,x.token"], options.subOptions["nodes"])
        self.assertRaises(usage.UsageError, cast(Any, cli.Options)().parseOptions, ["downloads", "--nonsense"])
