"""
A page of an index with 20,000 files: what making it costs, and what serving it costs once it is made.

``python benchmarks/index.py`` takes a minute; ``--making`` only makes pages (no servers, ten seconds). Making is CPU
of this thread, and is given beside the bare JSON library on the same page: parsing it and writing it again is what no
rewriter can do without. Serving is CPU of a node's worker: the page's hits per octet beside those of a file of the
same size, and its 304s beside those of a page with 20 files; the origin's log says how often it was asked.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
from attrs import frozen

from benchmarks.load import FILE_FIELDS, PAGE_FIELDS, BadRun, Load, get, is_hit, run
from benchmarks.servers import Nginx, artifact, write_artifact
from benchmarks.tables import table, told
from edgecache.index.catalogue import Catalogue
from edgecache.index.documents import Document, canonical
from edgecache.index.representing import Links, derive, etag_of
from edgecache.rules.indexpaths import PageKind
from edgecache.rules.representations import Coding, Media, Representation
from tests.system import processes
from tests.system.harness import Node

FILES, FEW = 20_000, 20
BIG, SMALL = "big", "small"
MAKING_GOAL_SECONDS = 1.0
OCTET_GOAL, NOT_MODIFIED_GOAL = 1.2, 1.2

_JSON = Media.JSON.value
_ORIGIN = """
  server {{
    listen 127.0.0.1:{port} reuseport backlog=1024;
    root {files};
    location /simple/ {{ types {{ application/vnd.pypi.simple.v1+json json; }} index index.json; }}
    location /packages/ {{ add_header Cache-Control "public, max-age=86400"; }}
  }}
"""


def page(project: str, files: int) -> bytes:
    """A PEP 691 page like those of the public index: digests, metadata, sizes, times."""
    entries = []
    for number in range(files):
        sha256, metadata, place = (hashlib.sha256(f"{project} {number} {n}".encode()).hexdigest() for n in range(3))
        name = f"{project}-1.{number // 10}.{number % 10}-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
        entries.append(
            {
                "core-metadata": {"sha256": metadata},
                "data-dist-info-metadata": {"sha256": metadata},
                "filename": name,
                "hashes": {"sha256": sha256},
                "provenance": None,
                "requires-python": ">=3.8",
                "size": 1_000_000 + number,
                "upload-time": "2026-01-02T03:04:05.678901Z",
                "url": f"https://files.example/packages/{place[:2]}/{place[2:4]}/{place[4:]}/{name}",
                "yanked": False,
            }
        )
    versions = [f"1.{number}.0" for number in range(files // 10)]
    meta = {"_last-serial": 12_345_678, "api-version": "1.4"}
    return orjson.dumps({"files": entries, "meta": meta, "name": project, "versions": versions})


def seconds(work: Callable[[], object], rounds: int) -> float:
    """CPU of this thread, the least of so many times: what else the machine does only adds to it."""
    found = []
    for _ in range(rounds):
        before = time.thread_time()
        work()
        found.append(time.thread_time() - before)
    return min(found)


def making(rounds: int) -> list[tuple[bool, str]]:
    """What one page costs until it is all there; prints a table."""
    content = page(BIG, FILES)
    kind, project, url = PageKind.PROJECT, BIG.encode(), f"https://index.example/simple/{BIG}/".encode()
    parsed = orjson.loads(content)
    bare = seconds(lambda: orjson.dumps(orjson.loads(content)), rounds)
    rows = [["", "ms", "to bare JSON", "MB"]]

    def row(name: str, work: Callable[[], object], size: int) -> float:
        took = seconds(work, rounds)
        rows.append([name, f"{took * 1e3:.0f}", f"{took / bare:.2f}", f"{size / 1e6:.2f}"])
        return took

    rows.append(["bare JSON, read and written", f"{bare * 1e3:.0f}", "1.00", f"{len(content) / 1e6:.2f}"])
    document = canonical(kind, project, content, _JSON, url)
    if len(orjson.loads(document.octets)["files"]) != len(parsed["files"]):
        raise BadRun("files are missing")
    total = row("canonical, of JSON", lambda: canonical(kind, project, content, _JSON, url), len(document.octets))

    def derived(media: Media, coding: Coding) -> bytes:
        return derive(kind, project, document.octets, Representation(media, coding), Links())

    for media in (Media.JSON, Media.TEXT):
        plain = 0.0
        for coding in Coding:
            took = row(
                f"{media.name} {coding.name.lower()}",
                lambda m=media, c=coding: derived(m, c),
                len(derived(media, coding)),
            )
            plain = plain or took
        total += plain
    html = derived(Media.TEXT, Coding.IDENTITY)
    row("canonical, of HTML", lambda: canonical(kind, project, html, b"text/html", url), len(html))
    row("catalogue of its files", lambda: Catalogue.parse(document.octets), len(document.octets))
    print(f"\nMaking a page of {FILES} files, least of {rounds} times, CPU\n")
    print(table(rows), end="\n\n")
    per_tag = seconds(lambda: tag_of(document), 1000)
    print(f"an entity tag takes {per_tag * 1e6:.0f} µs, of whatever page\n")
    text = f"canonical, JSON and HTML of {FILES} files: {total:.2f} s (goal: {MAKING_GOAL_SECONDS} s)"
    return [(total <= MAKING_GOAL_SECONDS, text)]


def tag_of(document: Document) -> bytes:
    return etag_of(bytes(32), document.serial, Representation(Media.JSON, Coding.GZIP), Links())


class Origin(Nginx):
    """Two pages as JSON, and a file of a page's size."""

    def __init__(self, root: Path) -> None:
        self.port = processes.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.access_log = root / "access.log"
        files = root / "files"
        for project, count in ((BIG, FILES), (SMALL, FEW)):
            directory = files / "simple" / project
            directory.mkdir(parents=True)
            (directory / "index.json").write_bytes(page(project, count))
        (files / "packages").mkdir()
        self.files = files
        super().__init__(root / "nginx", _ORIGIN.format(port=self.port, files=files), access=str(self.access_log))

    def file(self, size: int) -> str:
        """:return: the path of a file of that size."""
        write_artifact(self.files / "packages" / f"{size}.whl", artifact(size))
        return f"/packages/{size}.whl"

    def full_answers(self, project: str) -> int:
        """How often it sent a whole page."""
        lines = self.access_log.read_text().splitlines()
        return sum(f" /simple/{project}/" in line and '" 200 ' in line for line in lines)


@frozen
class OneNode:
    """A node with one worker."""

    node: Node
    name: str = "edgecache"

    def url(self, tls: bool) -> str:
        return self.node.url

    def counted(self, tls: bool) -> list[int]:
        return self.node.worker_pids()

    def besides(self, tls: bool) -> list[int]:
        return sorted(set(self.node.family()) - set(self.counted(tls)))

    def stop(self) -> None:
        self.node.end()


def answer(url: str, target: str, fields: dict[str, str]) -> tuple[int, dict[str, str], int]:
    """:return: status, fields, octets of content."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    try:
        connection.request("GET", target, headers=fields)
        response = connection.getresponse()
        content = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, len(content)
    finally:
        connection.close()


def serving(root: Path, rounds: int, length: int) -> list[tuple[bool, str]]:
    """Hits and 304s of a node; prints a table."""
    origin = Origin(root / "origin")
    side = OneNode(Node(root / "node", origin.url, profile="index", workers=1, size="2GiB"))
    plain = PAGE_FIELDS | {"Accept-Encoding": "identity"}
    try:
        side.node.start()
        big, small = f"/simple/{BIG}/", f"/simple/{SMALL}/"
        began = time.perf_counter()
        status, first, size = answer(side.node.url, big, plain)
        whole = time.perf_counter() - began
        if status != 200 or not first.get("content-type", "").startswith(_JSON.decode()):
            raise BadRun(f"{status} {first}")
        tags = {}
        for target in (big, small):
            for fields in (PAGE_FIELDS, plain):
                _, got, _ = answer(side.node.url, target, fields)
                tags[target] = got["etag"]
        file = origin.file(size)
        while not is_hit(get(side.node.url, file, FILE_FIELDS)):
            pass
        loads: dict[str, list[Load]] = {name: [] for name in ("page", "file", "304", "304 small")}
        for _ in range(rounds):
            for name, target, fields, connections in (
                ("page", big, plain, 4),
                ("file", file, FILE_FIELDS, 4),
                ("304", big, plain | {"If-None-Match": tags[big]}, 64),
                ("304 small", small, plain | {"If-None-Match": tags[small]}, 64),
            ):
                if "304" in name and answer(side.node.url, target, fields)[0] != 304:
                    raise BadRun(f"no 304 of {target}")
                loads[name].append(run(side, False, target, connections=connections, seconds=length, fields=fields))
        asked = origin.full_answers(BIG)
    finally:
        side.stop()
        origin.stop()

    def cost(load: Load, name: str) -> float:
        return load.cpu_seconds / (load.requests if "304" in name else load.octets)

    def ratio(name: str, other: str) -> float:
        pairs = zip(loads[name], loads[other], strict=True)
        return statistics.median(cost(one, name) / cost(two, other) for one, two in pairs)

    rows = [["", "CPU", "ratio"]]
    for name, unit, scale, other in (
        ("file", "ns an octet", 1e9, "file"),
        ("page", "ns an octet", 1e9, "file"),
        ("304 small", "µs", 1e6, "304 small"),
        ("304", "µs", 1e6, "304 small"),
    ):
        median = statistics.median(cost(load, name) for load in loads[name])
        rows.append([name, f"{median * scale:.2f} {unit}", f"{ratio(name, other):.2f}"])
    print(f"\nServing a page of {size / 1e6:.1f} MB, {rounds} rounds of {length} s; first request {whole:.2f} s\n")
    print(table(rows), end="\n\n")
    octets, unmodified = ratio("page", "file"), ratio("304", "304 small")
    return [
        (asked == 1, f"the origin sent the page {asked} times for all of that (goal: once)"),
        (octets <= OCTET_GOAL, f"{octets:.2f} of a file's CPU per octet (goal: {OCTET_GOAL})"),
        (
            unmodified <= NOT_MODIFIED_GOAL,
            f"{unmodified:.2f} of a small page's CPU per 304 (goal: {NOT_MODIFIED_GOAL})",
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--making", action="store_true", help="no servers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each run of wrk")
    options = parser.parse_args()
    results = making(options.rounds)
    if not options.making:
        with tempfile.TemporaryDirectory(prefix="edgecache-index-") as name:
            results += serving(Path(name), options.rounds, options.seconds)
    return told(results)


if __name__ == "__main__":
    sys.exit(main())
