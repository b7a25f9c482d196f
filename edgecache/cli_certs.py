"""``edgecache certs``: a private CA and node certificates for siblings (DESIGN 9, 11). It asks no node."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.python import usage

from edgecache.admin.client import as_lines
from edgecache.cli_numbers import whole
from edgecache.siblings.certificates import CA_DAYS, NODE_DAYS, Made, make_ca, make_node

Out = Callable[[str], None]
"""Takes one line."""

DAYS = whole("--days", 1, 36500)
"""From one to a hundred years."""


class _MakeOptions(usage.Options):
    """What both have in common."""

    optFlags = [["force", "f", "Replace a key that is there."]]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here


class CAOptions(_MakeOptions):
    """Flags of ``edgecache certs ca``."""

    synopsis = "Usage: edgecache certs [--out DIR] ca [options]"
    longdesc = "Makes the CA of a fleet. Every node needs ca.pem, and none ca.key. A new CA needs new certificates."
    optParameters = [["days", None, CA_DAYS, "It is valid for so long.", DAYS]]

    def make(self, out: Path, now: datetime.datetime) -> Made:
        """Write the files."""
        return make_ca(out, now, days=self["days"], force=bool(self["force"]))


class NodeOptions(_MakeOptions):
    """Flags of ``edgecache certs node``."""

    synopsis = "Usage: edgecache certs [--out DIR] node ID --host HOST [--host HOST ...] [options]"
    longdesc = "Makes the certificate of node ID, which the others reach as HOST, signed by the CA in the directory."
    optParameters = [["days", None, NODE_DAYS, "It is valid for so long.", DAYS]]

    def __init__(self) -> None:
        super().__init__()
        self["hosts"] = []

    def opt_host(self, host: str) -> None:
        """A name or an address of the node. May be repeated."""
        self["hosts"].append(host)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """The id may stand before the flags."""
        words = list(options or ())
        ids = 0
        while ids < len(words) and not words[ids].startswith("-"):
            ids += 1
        super().parseOptions(words[ids:] + words[:ids])  # type: ignore[no-untyped-call]  # Twisted has no types here

    def parseArgs(self, node_id: str) -> None:  # type: ignore[override]  # what it takes is for the subclass to say
        """:param node_id: as its ``[node] id``."""
        self["node"] = node_id

    def postOptions(self) -> None:
        """:raises usage.UsageError: no host is named."""
        if not self["hosts"]:
            raise usage.UsageError("say with --host how the others reach the node")

    def make(self, out: Path, now: datetime.datetime) -> Made:
        """Write the files."""
        return make_node(out, now, self["node"], self["hosts"], days=self["days"], force=bool(self["force"]))


class CertsOptions(usage.Options):
    """Flags of ``edgecache certs``."""

    synopsis = "Usage: edgecache certs [--out DIR] ca|node ID [options]"
    longdesc = (
        "Makes certificates of siblings. Each node gets ca.pem, its own .pem and .key; keep ca.key elsewhere. "
        "Two nodes and a voter, which is a node here like any: certs ca, certs node eu-1 --host edge-eu.example, "
        "certs node us-1 --host edge-us.example, certs node vote-1 --host vote.example."
    )
    optFlags = [["json", "j", "Show what was made as JSON."]]
    optParameters = [["out", "o", "certs", "Directory of the files."]]
    subCommands: ClassVar[list[list[Any]]] = [
        ["ca", None, CAOptions, "Make the CA of a fleet."],
        ["node", None, NodeOptions, "Make the certificate of a node."],
    ]

    def postOptions(self) -> None:
        """:raises usage.UsageError: it is not said what to make."""
        if self.subCommand is None:
            raise usage.UsageError("say what to make: ca or node")

    def act(self, say: Out) -> int:
        """
        Make them.

        :return: exit status.
        :raises CertificatesFailed: nothing was made.
        """
        made = self.subOptions.make(Path(self["out"]), datetime.datetime.now(datetime.UTC))
        if self["json"]:
            expires_at = made.not_after.timestamp()
            say(as_lines({"certificate": str(made.certificate), "key": str(made.key), "expires_at": expires_at}))
            return 0
        say(f"{made.certificate}  valid until {made.not_after:%Y-%m-%d}")
        say(f"{made.key}  secret")
        return 0
