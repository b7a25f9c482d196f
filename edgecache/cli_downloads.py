"""Command line of ``edgecache downloads`` (DESIGN 11)."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.python import usage

from edgecache.admin.client import AdminAddress, AdminFailed
from edgecache.admin.downloadsclient import downloads
from edgecache.cli_purge import say
from edgecache.index.tabulating import CLIENT_KEYS, FILE_KEYS


class DownloadsOptions(usage.Options):
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

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self["nodes"] = []

    def opt_node(self, node: str) -> None:
        """URL of a node's admin listener; after a comma the file with its token, if it is another. May be repeated."""
        self["nodes"].append(node)

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        query = {name: self[name] for name in ("from", "to", "by", "project", "site") if self[name] is not None}
        nodes = [address_of(node, where) for node in self["nodes"]] or [where]
        return await downloads(reactor, nodes, query, say, as_json=bool(self["json"]))


def address_of(node: str, where: AdminAddress) -> AdminAddress:
    """
    :param node: URL of an admin listener; after a comma the file of its token, which is that of ``where`` otherwise.
    :raises AdminFailed: the file cannot be read.
    """
    url, _, path = node.partition(",")
    url = url if "://" in url else f"http://{url}"
    if not path:
        return evolve(where, url=url)
    try:
        with open(path, encoding="utf-8") as file:
            return AdminAddress(url, file.read().strip())
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is not UTF-8"
        raise AdminFailed(f"{path}: {reason}") from error
