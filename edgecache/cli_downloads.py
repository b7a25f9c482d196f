"""Command line of ``edgecache downloads`` (DESIGN 11)."""

from __future__ import annotations

from typing import Any

from edgecache.admin.address import AdminAddress
from edgecache.admin.downloadsclient import downloads
from edgecache.cli_lines import say
from edgecache.cli_nodes import NodesOptions
from edgecache.index.tabulating import CLIENT_KEYS, FILE_KEYS


class DownloadsOptions(NodesOptions):
    """Flags of ``edgecache downloads``."""

    synopsis = "Usage: edgecache [options] downloads [--node URL[,TOKENFILE]]... [options]"
    longdesc = (
        "Shows what was downloaded, of one node or added up over several. Exit status 0: every node has answered. "
        "Days are UTC; without --from and --to, the last 30."
    )
    optFlags = [["json", "j", "Show everything, as JSON."]]
    optParameters = [
        ["from", "f", None, "First day, as 2026-01-31."],
        ["to", "t", None, "Last day."],
        [
            "by",
            "b",
            "day,project",
            f"What tells rows apart: {', '.join(FILE_KEYS)}, day; or {', '.join(CLIENT_KEYS)}, day.",
        ],
        ["project", "p", None, "Only this project."],
        ["site", "s", None, "Only this site."],
    ]

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        query = {name: self[name] for name in ("from", "to", "by", "project", "site") if self[name] is not None}
        return await downloads(reactor, self.addresses(where), query, say, as_json=bool(self["json"]))
