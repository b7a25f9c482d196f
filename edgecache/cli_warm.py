"""Command line of ``edgecache warm`` (DESIGN 11)."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.python import usage

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.auditing import public_urls
from edgecache.admin.client import call
from edgecache.admin.fetching import Fetcher
from edgecache.admin.progress import Progress
from edgecache.admin.requirements import read_requirements
from edgecache.admin.warming import Warming, hottest, index_site, report, targets_of
from edgecache.cli_lines import say
from edgecache.cli_nodes import address_of
from edgecache.cli_numbers import whole
from edgecache.words.credentials import credentials


class WarmOptions(usage.Options):
    """Flags of ``edgecache warm``."""

    synopsis = "Usage: edgecache [options] warm [options] [URL]..."
    longdesc = (
        "Asks the node for what its clients are going to ask for, as any client would. A requirements file is taken as "
        "it is: of each project the newest version that fits, and of that the file that this interpreter would take; "
        "dependencies are not resolved, so have them in the file (pip freeze, pip-compile, uv export). Exit status 0: "
        "everything has come; 1: something has not. EDGECACHE_CLIENT has the credentials (user:password, or Bearer and "
        "a token) for sites that are for their clients only."
    )
    optFlags = [
        ["json", "j", "Show the result as JSON."],
        ["quiet", "q", "No progress on standard error."],
        ["all-files", None, "All files of a version, for whatever platform."],
    ]
    optParameters = [
        ["hottest-of", None, None, "URL[,TOKENFILE] of another node's admin listener: what its clients ask for most."],
        ["most", None, 256, "So many of those, at most.", whole("--most", 1)],
        ["site", "s", None, "Name of the site that requirements are for; default: the first index."],
        ["at-a-time", "n", 8, "Requests at the same time.", whole("--at-a-time", 1)],
        ["to", None, None, "URL of the node's public listener; default: as the node tells."],
        ["ca", None, None, "Certificates to trust there, in PEM, in the place of the system's."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self["requirements"] = []
        self["lists"] = []
        self["urls"] = []

    def opt_requirement(self, path: str) -> None:
        """A requirements file. May be repeated."""
        self["requirements"].append(path)

    opt_r = opt_requirement

    def opt_urls(self, path: str) -> None:
        """A file with a path or URL per line; - is standard input. May be repeated."""
        self["lists"].append(path)

    def parseArgs(self, *urls: str) -> None:
        """:param urls: absolute, or paths."""
        self["urls"] = list(urls)

    def postOptions(self) -> None:
        """:raises usage.UsageError: there is nothing to do."""
        if not (self["requirements"] or self["lists"] or self["urls"] or self["hottest-of"]):
            raise usage.UsageError("say what to warm: -r FILE, --urls FILE, --hottest-of NODE, or URLs")

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        read = read_requirements(self["requirements"])
        targets = targets_of([*self["urls"], *(line for path in self["lists"] for line in _lines_of(path))])
        fetcher, status = await fetcher_of(reactor, where, self["to"], self["ca"], at_a_time=self["at-a-time"])
        if self["hottest-of"]:
            other = address_of(self["hottest-of"], where)
            targets += await hottest(reactor, other, self["most"], status["sites"])
        progress = Progress(None if self["quiet"] else sys.stderr)
        warming = Warming(fetcher, progress, everything=bool(self["all-files"]))
        try:
            if read.wanted:
                warming.path, warming.host = index_site(status, self["site"])
            await warming.requirements(read)
            await warming.targets(targets)
        finally:
            await fetcher.close()
        progress.end(warming.line)
        return report(warming, fetcher.url, say, as_json=bool(self["json"]))


async def fetcher_of(
    reactor: Any, where: AdminAddress, url: str | None, authorities: str | None, *, at_a_time: int = 8
) -> tuple[Fetcher, dict[str, Any]]:
    """
    :param url: of the public listener; ``None``: what the node tells of it.
    :param authorities: file of certificates to trust.
    :return: what asks it, and the node's status.
    :raises AdminFailed: the node could not be asked, has no public listener, or the credentials are none.
    """
    _, status = await call(reactor, where, "GET", "/status")
    known = public_urls(status, where.url)
    if url is None and not known:
        raise AdminFailed("the node has no public listener; name one with --to")
    client = os.environ.get("EDGECACHE_CLIENT", "")
    try:
        authorization = credentials(client) if client else ""
    except ValueError as error:
        raise AdminFailed(f"EDGECACHE_CLIENT {error}") from None
    fetcher = Fetcher.of(
        reactor, url or known[0], at_a_time=at_a_time, authorization=authorization, authorities=authorities
    )
    return fetcher, status


def _lines_of(path: str) -> list[str]:
    if path == "-":
        return sys.stdin.read().splitlines()
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AdminFailed(f"{path}: {reason}") from error
