"""Command line of ``edgecache verify`` (DESIGN 11)."""

from __future__ import annotations

import sys
from typing import Any

from twisted.python import usage

from edgecache.admin.address import AdminAddress
from edgecache.admin.progress import Progress
from edgecache.admin.verifyclient import cancel, verify
from edgecache.cli_lines import say
from edgecache.cli_warm import fetcher_of
from edgecache.words.reading import octets


class VerifyOptions(usage.Options):
    """Flags of ``edgecache verify``."""

    synopsis = "Usage: edgecache [options] verify [options]"
    longdesc = (
        "Has the node read all that it stores and compare it with its checksums, and with its sha256 where an index "
        "gives one. What is damaged is dropped, so that the next client's request fetches it anew. The pass goes on "
        "when this command is interrupted. Exit status 0: nothing was damaged, or all of it was fetched again; 1: "
        "something was, or the pass did not come to its end."
    )
    optFlags = [
        ["json", "j", "Show the result as JSON."],
        ["quiet", "q", "No progress on standard error."],
        ["refetch", None, "Ask for what was dropped, so that it is there again."],
        ["cancel", None, "Only end the pass that runs."],
    ]
    optParameters = [
        ["rate", "r", None, "At most so much a second, as 200MiB; default: the node's own choice (64MiB)."],
        ["to", None, None, "URL of the node's public listener, for --refetch; default: as the node tells."],
        ["ca", None, None, "Certificates to trust there, in PEM, in the place of the system's."],
    ]

    def postOptions(self) -> None:
        """:raises usage.UsageError: the rate is none."""
        if self["rate"] is not None:
            try:
                self["rate"] = octets(self["rate"])
            except ValueError as error:
                raise usage.UsageError(f"--rate: {error}") from None

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        as_json = bool(self["json"])
        if self["cancel"]:
            return await cancel(reactor, where, say, as_json=as_json)
        fetcher = None
        if self["refetch"]:
            fetcher, _ = await fetcher_of(reactor, where, self["to"], self["ca"])
        progress = Progress(None if self["quiet"] else sys.stderr)
        found = await verify(reactor, where, say, progress, rate=self["rate"], fetcher=fetcher, as_json=as_json)
        if fetcher is not None:
            await fetcher.close()
        return found
