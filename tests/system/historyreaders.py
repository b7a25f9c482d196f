"""Clients of one node in a history, which ask for everything in every form, and know what it has to be."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable

import orjson
from attrs import define, evolve, field

from tests.system.clients import Answer
from tests.system.contents import Octets
from tests.system.history import Read, now
from tests.system.historyactors import PATIENCE_SECONDS, UNREACHABLE, Actor
from tests.system.historystage import (
    FILES,
    LIST,
    PLAIN_HOST,
    PLAIN_PAGES,
    PROJECTS,
    look_of,
    page_key,
    plain_key,
    releases_key,
)
from tests.system.serial_index import JSON
from tests.system.versions import Page, version_of

_ANCHOR = re.compile(r'<a href="[^"#]*#sha256=([0-9a-f]{64})"([^>]*)>([^<]*)</a>')
_YANKED = re.compile(r'data-yanked="([^"]*)"')
_SERIAL = "x-pypi-last-serial"


@define(eq=False)
class Reader(Actor):
    """
    Asks one node for everything, in every form.

    :ivar requests: so far.
    """

    name: str = ""
    node: str = ""
    requests: int = 0
    _tags: dict[tuple[str, str], tuple[str, int]] = field(factory=dict)

    def run(self) -> None:
        ways: list[tuple[int, Callable[[], Read]]] = [
            (30, self._page),
            (10, self._html),
            (6, self._releases),
            (4, self._list),
            (22, self._plain),
            (4, self._file),
            (4, self._part),
        ]
        weights, acts = [weight for weight, _ in ways], [act for _, act in ways]
        while not self.over.is_set():
            self.stage.keeper.keep(self.chance.choices(acts, weights)[0]())
            self.pause(0.008)

    def read_all(self) -> None:
        """Every page once."""
        for name in PROJECTS:
            self.stage.keeper.keep(self._page(name))
        for page in PLAIN_PAGES:
            self.stage.keeper.keep(self._plain(page))

    def _page(self, name: str = "") -> Read:
        project = name or self.chance.choice(PROJECTS)
        fields = {"Accept": JSON}
        least = 0
        match self.chance.randrange(8):
            case 0:
                fields["Cache-Control"] = "max-age=0"
            case 1:
                least = self.stage.publication.serial(project)
                fields["Edgecache-Min-Serial"] = str(least)
        return self._versioned(f"/simple/{project}/", page_key(project), "json", fields, least=least, judge=_json_page)

    def _html(self) -> Read:
        project = self.chance.choice(PROJECTS)
        fields = {"Accept": "text/html", "Accept-Encoding": "gzip"}
        return self._versioned(f"/simple/{project}/", page_key(project), "html gzip", fields, judge=_html_page)

    def _releases(self) -> Read:
        project = self.chance.choice(PROJECTS)
        # Its links are absolute: each node has its own.
        form = f"json of {self.node}"
        return self._versioned(f"/pypi/{project}/json", releases_key(project), form, {}, judge=_releases)

    def _list(self) -> Read:
        return self._versioned("/simple/", LIST, "json", {"Accept": JSON}, judge=_list)

    def _plain(self, page: Page | None = None) -> Read:
        shown = page or self.chance.choice(PLAIN_PAGES)

        def judge(read: Read, answer: Answer) -> Read:
            return evolve(read, version=version_of(shown, answer))

        return self._versioned(shown.target, plain_key(shown), "", {"Host": PLAIN_HOST}, judge=judge)

    def _versioned(
        self,
        target: str,
        key: str,
        form: str,
        fields: dict[str, str],
        *,
        judge: Callable[[Read, Answer], Read],
        least: int = 0,
    ) -> Read:
        tag, tagged = self._tags.get((key, form), ("", 0))
        if tag and self.chance.random() < 0.4:
            fields["If-None-Match"] = tag
        read = Read(now(), 0.0, self.node, self.name, key, form=form, least=least)
        read, answer = self._ask(read, target, fields)
        if answer is None or read.failure:
            return read
        if answer.status == 304:
            return evolve(read, version=tagged)
        if answer.status != 200:
            return read
        try:
            read = judge(evolve(read, octets=hashlib.blake2b(answer.content, digest_size=8).hexdigest()), answer)
        except (AssertionError, ValueError, KeyError) as failure:
            return evolve(read, wrong=f"{type(failure).__name__}: {failure}")
        self._tags[key, form] = answer.fields.get("etag", ""), read.version
        return read

    def _file(self) -> Read:
        project = self.chance.choice(PROJECTS)
        package = self.chance.choice(FILES[project])
        target = f"/files/{project}/{package.sha256}/{package.filename}"
        read = Read(now(), 0.0, self.node, self.name, package.filename)
        read, answer = self._ask(read, target, {})
        if answer is None:
            return read
        if answer.status == 200 and not answer.complete:
            return evolve(read, download="cut")
        if answer.status == 200:
            wrong = "" if answer.content == package.content else "other octets"
            return evolve(read, wrong=wrong, download="whole")
        return read

    def _part(self) -> Read:
        project = self.chance.choice(PROJECTS)
        package = self.chance.choice(FILES[project][1:])
        content = Octets(package.content)
        # Never all of it: that would be a download.
        first = self.chance.randrange(1, content.size)
        length = self.chance.randrange(1, min(200_000, content.size - first) + 1)
        fields = {"Range": f"bytes={first}-{first + length - 1}"}
        target = f"/files/{project}/{package.sha256}/{package.filename}"
        read, answer = self._ask(Read(now(), 0.0, self.node, self.name, package.filename), target, fields)
        if answer is None or read.failure or answer.status not in (200, 206):
            return read
        whole = answer.status == 200
        due = package.content if whole else content.read(first, length)
        return evolve(read, wrong="" if answer.content == due else "other octets", download="whole" if whole else "")

    def _ask(self, read: Read, target: str, fields: dict[str, str]) -> tuple[Read, Answer | None]:
        self.requests += 1
        # A client of its own each time: ranges of several are never one download.
        fields = {"User-Agent": f"{self.name}/{self.requests}", **fields}
        try:
            answer = self.stage.fleet.nodes[self.node].ask(target, fields=fields, seconds=PATIENCE_SECONDS)
        except UNREACHABLE as failure:
            return evolve(read, returned=now(), failure=f"{type(failure).__name__}: {failure}"), None
        stale = "proxy-status" in answer.fields or answer.parameter("ttl").startswith("-")
        return (
            evolve(
                read,
                returned=now(),
                status=answer.status,
                fresh=not stale,
                cache_status=f"{answer.cache_status} {answer.fields.get('proxy-status', '')}".strip(),
                failure="" if answer.complete else "cut",
            ),
            answer,
        )


def _json_page(read: Read, answer: Answer) -> Read:
    document = orjson.loads(answer.content)
    serial = document["meta"]["_last-serial"]
    if answer.fields[_SERIAL] != str(serial):
        raise ValueError(f"serial {answer.fields[_SERIAL]} in the head, {serial} in the page")
    rows = [(file["filename"], file["hashes"]["sha256"], file["yanked"]) for file in document["files"]]
    return evolve(read, version=serial, look=look_of(rows))


def _html_page(read: Read, answer: Answer) -> Read:
    text = gzip.decompress(answer.content).decode()
    rows = [(name, digest, _YANKED.findall(rest)[0]) for digest, rest, name in _ANCHOR.findall(text)]
    return evolve(read, version=int(answer.fields[_SERIAL]), look=look_of(rows))


def _releases(read: Read, answer: Answer) -> Read:
    return evolve(read, version=orjson.loads(answer.content)["last_serial"])


def _list(read: Read, answer: Answer) -> Read:
    document = orjson.loads(answer.content)
    serials = {project["name"]: project["_last-serial"] for project in document["projects"]}
    lists = {page_key(name): serial for name, serial in serials.items()}
    return evolve(read, version=document["meta"]["_last-serial"], look=look_of(serials.items()), lists=lists)
