"""``--node`` of those commands that ask several nodes, and where these are."""

from __future__ import annotations

import os

from attrs import evolve
from twisted.python import usage

from edgecache.admin.address import AdminAddress, AdminFailed


class NodesOptions(usage.Options):
    """Flags of a command that asks one node, or those that are named."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self["nodes"] = []

    def opt_node(self, node: str) -> None:
        """URL of a node's admin listener; after a comma the file with its token, if it is another. May be repeated."""
        self["nodes"].append(node)

    def addresses(self, where: AdminAddress) -> list[AdminAddress]:
        """
        :param where: who is asked when nobody is named.
        :raises AdminFailed: the file of a token cannot be read.
        """
        return [address_of(node, where) for node in self["nodes"]] or [where]


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
