"""Command line of ``edgecache downloads`` (DESIGN 11)."""

from __future__ import annotations

from typing import Any

from twisted.python import usage

from edgecache.admin.address import AdminAddress
from edgecache.admin.downloadsclient import downloads
from edgecache.cli_lines import say
from edgecache.cli_nodes import NodesOptions
from edgecache.index.tabulating import CLIENT_KEYS, FILE_KEYS, KEYS, Query, day_number


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

    def postOptions(self) -> None:
        """:raises usage.UsageError: no node would understand that."""
        for flag in ("from", "to"):
            try:
                _ = day_number(self[flag]) if self[flag] is not None else 0
            except ValueError as error:
                raise usage.UsageError(f"--{flag}: {error}") from None
        by = tuple(key for key in self["by"].split(",") if key)
        for key in by:
            if key not in KEYS:
                raise usage.UsageError(f"--by: {key!r} is none of {', '.join(KEYS)}")
        if not Query(0, 0, by, {name: self[name] for name in ("project", "site") if self[name] is not None}).possible:
            raise usage.UsageError("--by: what clients tell of themselves is not counted by file")

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        query = {name: self[name] for name in ("from", "to", "by", "project", "site") if self[name] is not None}
        return await downloads(reactor, self.addresses(where), query, say, as_json=bool(self["json"]))
