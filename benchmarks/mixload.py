"""
The load of the mix: what a side calls the corpus's pages and files, who asks for what in which order, and a run of
the client that does so.

The order is the same for all sides: thousand after thousand with exactly so many of each kind (a few requests of
150 MB that fall into one run and not into another would be all that is seen), and within a kind by popularity.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from attrs import Factory, define, field, frozen

from benchmarks.corpus import COLD, CONDITIONAL, METADATA, PAGES, Corpus, File, Project
from benchmarks.indexes import IndexSide
from benchmarks.load import FILE_FIELDS, PAGE_FIELDS, BadRun
from benchmarks.mixclient import END
from tests.system import processes
from tests.system.clients import Answer, ask

THOUSANDS = 20

# Machines of a farm: the same installer, some Pythons and systems.
_AGENTS = tuple(
    PAGE_FIELDS["User-Agent"].replace("3.11.7", python).replace("Debian GNU/Linux", system)
    for python in ("3.9.19", "3.10.14", "3.11.7", "3.12.4")
    for system in ("Debian GNU/Linux", "Ubuntu")
)

_LINK = re.compile(rb'href="([^"]+)"')


@define(eq=False)
class Targets:
    """
    What one side calls the corpus: learned from its own pages, as an installer does.

    :ivar tags: entity tag of each page for PAGE_FIELDS; only those that it also answers 304 to.
    """

    side: IndexSide
    files: dict[str, str] = Factory(dict)
    tags: dict[str, str] = Factory(dict)

    def learn(self, project: Project) -> None:
        """:raises BadRun: its page is not there, or names not all that it should."""
        target = self.side.page(project.name)
        answer = ask(self.side.url, target, fields=PAGE_FIELDS)
        page = content_of(answer)
        if answer.status != 200 or project.revision_of(page) < 0:
            raise BadRun(f"{self.side.name} {target}: {answer.status}, {page[:200]!r}")
        links = {link.rpartition("/")[2]: link for link in _links(page)}
        for file in project.files:
            if file.name not in links:
                raise BadRun(f"{self.side.name} {target}: no {file.name}")
            url = urlsplit(urljoin(f"{self.side.url}{target}", links[file.name]))
            self.files[file.name] = url.path
        self.tags.pop(project.name, None)
        tag = answer.fields.get("etag")
        if tag is not None:
            again = ask(self.side.url, target, fields=PAGE_FIELDS | {"If-None-Match": tag})
            if again.status == 304:
                self.tags[project.name] = tag

    def warm(self, project: Project) -> None:
        """
        See that what is asked for often is right and stored.

        :raises BadRun: other octets than the corpus has, or none.
        """
        for file in project.files:
            self._require(self.files[file.name], file.sha256)
            if file.metadata is not None:
                self._require(f"{self.files[file.name]}.metadata", hashlib.sha256(file.metadata).hexdigest())

    def _require(self, target: str, sha256: str) -> None:
        answer = processes.until(lambda: self._whole(target), f"{target} of {self.side.name}", looks=100)
        if hashlib.sha256(answer.content).hexdigest() != sha256:
            raise BadRun(f"{self.side.name} {target}: wrong octets")

    def _whole(self, target: str) -> Answer | None:
        """proxpi sends a client elsewhere while it still fetches."""
        answer = ask(self.side.url, target, fields=FILE_FIELDS)
        return answer if answer.status == 200 else None


def content_of(answer: Answer) -> bytes:
    return gzip.decompress(answer.content) if answer.fields.get("content-encoding") == "gzip" else answer.content


def _links(page: bytes) -> Iterator[str]:
    if page.startswith(b"{"):
        for entry in json.loads(page)["files"]:
            yield entry["url"].partition("#")[0]
    else:
        for link in _LINK.findall(page):
            yield html.unescape(link.decode()).partition("#")[0]


@frozen
class Wish:
    """One request of the order: a page (``file`` is ``None``), or a file, or the metadata beside it."""

    project: str
    file: str | None
    agent: int
    conditional: bool = False
    metadata: bool = False


def order(corpus: Corpus) -> list[Wish | None]:
    """:return: so many thousand requests; ``None`` is the next cold file, whichever that is."""
    chance = random.Random("edgecache: the order")
    giants = corpus.giants_in_a_thousand()
    wheels = 1000 - PAGES - CONDITIONAL - COLD - METADATA - giants

    def drawn(count: int) -> list[Project]:
        return chance.choices(corpus.projects, corpus.popularity, k=count)

    def agent() -> int:
        return chance.randrange(len(_AGENTS))

    found: list[Wish | None] = []
    for thousand in range(THOUSANDS):
        wishes: list[Wish | None] = [Wish(each.name, None, agent()) for each in drawn(PAGES)]
        wishes += [Wish(each.name, None, agent(), conditional=True) for each in drawn(CONDITIONAL)]
        wishes += [Wish(each.name, each.files[0].name, agent(), metadata=True) for each in drawn(METADATA)]
        wishes += [Wish(each.name, each.files[0].name, agent()) for each in drawn(wheels)]
        wishes += [None] * COLD
        chance.shuffle(wishes)
        for number in range(giants):
            # Far from each other.
            each = corpus.giants[(thousand + number) % len(corpus.giants)]
            wishes.insert((number * 1000) // giants, Wish(each.name, each.files[0].name, agent()))
        found += wishes
    return found


@contextmanager
def pinned(cpus: set[int]) -> Iterator[None]:
    """What is started here stays on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@frozen
class MixLoad:
    """
    One run against one side.

    :ivar cpu_seconds: of all its processes.
    :ivar failed: answers with an error's status, and connections that broke.
    :ivar unmodified: 304s.
    :ivar p50_seconds: of small answers, ``large_p50_seconds`` of the others (:data:`benchmarks.mixclient.SMALL`).
    :ivar used: cold ones that were asked for.
    :ivar generator_seconds: CPU of the client.
    """

    requests: int
    octets: int
    seconds: float
    failed: int
    unmodified: int
    p50_seconds: float
    p99_seconds: float
    large_p50_seconds: float
    large_p99_seconds: float
    used: int
    generator_seconds: float
    cpu_seconds: float


@define(eq=False)
class Driver:
    """Runs the client against one side, whose cold files it uses up."""

    targets: Targets
    wishes: list[Wish | None]
    cold: list[File]
    directory: Path
    _used: int = field(default=0, init=False)

    @property
    def exhausted(self) -> bool:
        """Cold files were asked for twice: more hits than there should be."""
        return self._used > len(self.cold)

    def run(self, start: int, *, connections: int, seconds: int) -> MixLoad:
        """
        :param start: where in the order it begins.
        :raises BadRun: the client failed, or a process of the side ended.
        """
        heads: dict[bytes, int] = {}
        numbers = []
        for wish in self.wishes[start:] + self.wishes[:start]:
            numbers.append(0 if wish is None else heads.setdefault(self._head(wish), len(heads) + 1))
        first = self._used % len(self.cold)
        cold = [
            self._octets(self.targets.files[file.name], FILE_FIELDS) for file in self.cold[first:] + self.cold[:first]
        ]
        side = self.targets.side
        found = drive(side.url, side.pids(), self.directory, list(heads), cold, numbers, connections, seconds)
        self._used += found.used
        return found

    def _head(self, wish: Wish) -> bytes:
        agent = {"User-Agent": _AGENTS[wish.agent]}
        if wish.file is None:
            tag = self.targets.tags.get(wish.project) if wish.conditional else None
            condition = {"If-None-Match": tag} if tag else {}
            return self._octets(self.targets.side.page(wish.project), PAGE_FIELDS | agent | condition)
        suffix = ".metadata" if wish.metadata else ""
        return self._octets(self.targets.files[wish.file] + suffix, FILE_FIELDS | agent)

    def _octets(self, target: str, fields: dict[str, str]) -> bytes:
        return head_of(self.targets.side.url, target, fields)


def head_of(url: str, target: str, fields: dict[str, str]) -> bytes:
    """:return: a GET of the server at ``url``."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def drive(
    url: str,
    pids: list[int],
    directory: Path,
    heads: list[bytes],
    cold: list[bytes],
    order: list[int],
    connections: int,
    seconds: float,
) -> MixLoad:
    """
    One run of the client (:class:`benchmarks.mixclient.Requests` says what it asks for).

    :param pids: whose CPU is counted.
    :raises BadRun: the client failed, or one of those processes ended.
    """
    directory.mkdir(exist_ok=True)
    (directory / "heads").write_bytes(b"".join(head + END for head in heads))
    (directory / "cold").write_bytes(b"".join(head + END for head in cold))
    (directory / "order").write_text(" ".join(map(str, order)))
    before = sum(processes.cpu_seconds(pid) for pid in pids)
    command = [sys.executable, str(_CLIENT), str(directory), str(urlsplit(url).port), str(connections), str(seconds)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        cost = sum(processes.cpu_seconds(pid) for pid in pids) - before
    except ProcessLookupError:
        raise BadRun(f"{url}: a process is gone") from None
    if ran.returncode != 0:
        raise BadRun(f"{url}: the client ended with {ran.returncode}: {ran.stderr[-2000:]}")
    return MixLoad(**json.loads(ran.stdout), cpu_seconds=cost)


_CLIENT = Path(__file__).with_name("mixclient.py")
