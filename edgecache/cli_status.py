"""Command lines of ``edgecache status`` and ``edgecache explain`` (DESIGN 11)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from twisted.python import usage

from edgecache.admin.address import AdminAddress
from edgecache.admin.client import as_lines, call
from edgecache.admin.statusclient import status
from edgecache.cli_lines import say
from edgecache.cli_nodes import NodesOptions


class StatusOptions(NodesOptions):
    """Flags of ``edgecache status``."""

    synopsis = "Usage: edgecache [options] status [--node URL[,TOKENFILE]]... [options]"
    longdesc = (
        "Shows how a node is, or several in a table. Exit status 0: every node is ready for traffic; 1: one is not, or "
        "did not answer; 3, with --strict: all are ready, and one has warnings."
    )
    optFlags = [
        ["json", "j", "Show everything, as JSON."],
        ["strict", None, "Warnings have exit status 3."],
    ]

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        nodes = self.addresses(where)
        return await status(reactor, nodes, say, as_json=bool(self["json"]), strict=bool(self["strict"]))


class ExplainOptions(usage.Options):
    """Flags of ``edgecache explain``."""

    synopsis = "Usage: edgecache [options] explain [options] URL"
    longdesc = (
        "Shows what would become of a request, and why: nothing is asked, and nothing changes. Exit status 0: the "
        "store would answer; 3: it would be forwarded; 4: it would be refused."
    )
    optFlags = [["json", "j", "Show everything, as JSON."]]
    optParameters = [["method", "m", "GET", "GET or HEAD."]]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self["fields"] = []

    def opt_field(self, field: str) -> None:
        """A field of the request, as "Cache-Control: no-cache". May be repeated."""
        self["fields"].append(field)

    def parseArgs(self, url: str) -> None:  # type: ignore[override]  # as Twisted wants it
        """:param url: absolute, or a path of the default site."""
        self["url"] = url

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        query = [("url", self["url"]), ("method", self["method"]), *(("field", each) for each in self["fields"])]
        _, found = await call(reactor, where, "GET", "/explain?" + urlencode(query))
        for line in [as_lines(found)] if self["json"] else found["summary"]:
            say(line)
        return {"hit": 0, "stale-hit": 0, "forward": 3}.get(found["outcome"], 4)
