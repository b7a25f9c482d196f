"""
What ``edgecache warm`` does: it asks a node, as any client would, for what others are going to ask for.

So it changes nothing but what is stored, needs no right that an installer lacks, and what it leaves is just what
installers leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson
from attrs import asdict, define, field
from twisted.internet.defer import Deferred, gatherResults

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import Out, as_lines, call, shown_size
from edgecache.admin.fetching import Fetched, Fetcher
from edgecache.admin.progress import Progress
from edgecache.admin.requirements import Read, Wanted, choose

# As pip asks for a page, so that the form that it gets is there as well.
PAGE_FIELDS = {
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
    "Accept-Encoding": "gzip",
}
FILE_FIELDS = {"Accept": "*/*", "Accept-Encoding": "identity"}

_PAGES = "/simple/"


@define(eq=False, repr=False)
class Warmed:
    """
    What has been done.

    :ivar hits: GETs of what was stored already.
    :ivar octets: of content that came.
    :ivar failed: what did not come, and why.
    :ivar skipped: what was not asked for, and why.
    """

    asked: int = 0
    done: int = 0
    hits: int = 0
    octets: int = 0
    failed: list[dict[str, str]] = field(factory=list)
    skipped: list[dict[str, str]] = field(factory=list)


@define(eq=False, repr=False)
class Warming:
    """
    :ivar path: of the index's site.
    :ivar host: by which that is asked for; empty: any.
    :ivar everything: all files of a version.
    """

    _fetcher: Fetcher
    _progress: Progress
    path: str = ""
    host: str = ""
    everything: bool = False
    warmed: Warmed = field(factory=Warmed)

    async def requirements(self, read: Read) -> None:
        """Pages of what is wanted, then its files."""
        self.warmed.skipped += ({"what": what, "why": why} for what, why in read.skipped)
        await gatherResults([Deferred.fromCoroutine(self._requirement(one)) for one in read.wanted])

    async def targets(self, targets: Iterable[tuple[str, str]]) -> None:
        """:param targets: of path with query, and host."""
        await gatherResults([self._get(target, host) for target, host in dict.fromkeys(targets)])

    async def _requirement(self, wanted: Wanted) -> None:
        page = f"{self.path}{_PAGES}{wanted.name}/"
        fetched = await self._get(page, self.host, keep=True)
        if fetched.problem:
            return
        try:
            document = orjson.loads(fetched.content)
        except orjson.JSONDecodeError:
            self._fail(page, "the page is not JSON (PEP 691); is this site an index?")
            return
        chosen = choose(wanted, document, everything=self.everything)
        if not chosen:
            what = f"{wanted.name}{wanted.specifier}"
            self._fail(what, "no file of the index fits" + (" with one of its hashes" if wanted.hashes else ""))
        targets = []
        for file in chosen:
            target = self._target(page, file.url)
            if target is None:
                self._fail(file.filename, f"the page links to {file.url}, which this node does not serve")
                continue
            # Installers ask for that first.
            targets += [target + ".metadata", target] if file.metadata else [target]
        await gatherResults([self._get(target, self.host) for target in targets])

    def _target(self, page: str, link: str) -> str | None:
        """:return: where a link leads on this node; ``None`` for elsewhere."""
        base = self._fetcher.url + page
        parts = urlsplit(urljoin(base, link))
        if parts.netloc != urlsplit(base).netloc and not parts.path.startswith(f"{self.path}/files/"):
            return None
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def _get(self, target: str, host: str, *, keep: bool = False) -> Deferred[Fetched]:
        self.warmed.asked += 1
        fields = PAGE_FIELDS if keep or target.endswith("/") else FILE_FIELDS
        return self._fetcher.get(target, host, keep=keep, fields=fields).addCallback(self._got)

    def _got(self, fetched: Fetched) -> Fetched:
        warmed = self.warmed
        warmed.done += 1
        warmed.hits += fetched.hit
        warmed.octets += fetched.octets
        if fetched.problem:
            self._fail(fetched.target, fetched.problem)
        self._progress.show(self.line)
        return fetched

    def _fail(self, what: str, why: str) -> None:
        self.warmed.failed.append({"what": what, "why": why})

    @property
    def line(self) -> str:
        """How far it is."""
        warmed = self.warmed
        return (
            f"{warmed.done} of {warmed.asked} fetched, {warmed.hits} were there, {shown_size(warmed.octets)}, "
            f"{len(warmed.failed)} failed"
        )


def index_site(status: dict[str, Any], name: str | None) -> tuple[str, str]:
    """
    :param name: of a site; ``None``: the first index.
    :return: its path, and a host by which it is asked for (empty: any).
    :raises AdminFailed: there is none.
    """
    for site in status["sites"]:
        if site["name"] == name or (name is None and site["profile"] == "index"):
            return site["path"], "" if "*" in site["hosts"] else site["hosts"][0]
    raise AdminFailed(f"the node has no site {name!r}" if name else "the node has no site that is an index")


async def hottest(
    reactor: Any, where: AdminAddress, most: int, sites: Sequence[dict[str, Any]]
) -> list[tuple[str, str]]:
    """
    :param where: another node.
    :param sites: of this one, as its status has them.
    :return: what clients there ask for most on these sites: targets, and hosts by which this node knows the site.
    """
    _, found = await call(reactor, where, "GET", f"/objects?by=hottest&limit={most}")
    hosts = {site["name"]: "" if "*" in site["hosts"] else site["hosts"][0] for site in sites}
    return [(one["url"], hosts[one["site"]]) for one in found["objects"] if one["site"] in hosts]


def targets_of(lines: Sequence[str], path: str = "") -> list[tuple[str, str]]:
    """
    :param lines: each a path or a URL; what begins with ``#`` is none.
    :return: targets and hosts.
    :raises AdminFailed: one is neither.
    """
    found = []
    for line in (line.strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        parts = urlsplit(line)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if line.startswith("/") or (parts.scheme in ("http", "https") and parts.netloc):
            found.append((path + target, parts.netloc.rpartition("@")[2]))
        else:
            raise AdminFailed(f"{line}: neither a path nor a URL")
    return found


def report(warming: Warming, node: str, out: Out, *, as_json: bool) -> int:
    """:return: exit status: 0 when everything has come."""
    warmed = warming.warmed
    if as_json:
        out(as_lines({"node": node, **asdict(warmed)}))
        return 1 if warmed.failed else 0
    for one in warmed.skipped:
        out(f"skipped: {one['what']}: {one['why']}")
    for one in warmed.failed:
        out(f"failed: {one['what']}: {one['why']}")
    out(f"{node}: {warming.line}")
    return 1 if warmed.failed else 0
