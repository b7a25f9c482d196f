"""Command lines of ``edgecache purge`` and ``edgecache audit`` (DESIGN 11)."""

from __future__ import annotations

import os
from typing import Any

from twisted.python import usage

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.auditing import audit
from edgecache.admin.purgeclient import WAITS, purge, purge_state
from edgecache.cli_lines import say, tell
from edgecache.cli_numbers import seconds, whole
from edgecache.words.credentials import credentials


class PurgeOptions(usage.Options):
    """Flags of ``edgecache purge``."""

    synopsis = "Usage: edgecache [options] purge [options]"
    longdesc = (
        "Invalidates what is stored. Exit status 0: it has come as far as --wait says; 1: not within --timeout, "
        "but it goes on. Effective or complete: no node gives it to any client as fresh any more."
    )
    optFlags = [
        ["all", None, "Everything of every site."],
        ["json", "j", "Show the answer as JSON."],
        ["quiet", "q", "No progress on standard error."],
    ]
    optParameters = [
        ["mode", "m", None, "revalidate (default), soft or delete."],
        ["id", None, None, "Identifies the purge, so that it can be sent again; made up if not given."],
        ["wait", "w", "durable", "How far it must have come: durable, effective or complete."],
        ["timeout", "t", 5.0, "Seconds to wait for that.", seconds("--timeout")],
        ["state", None, None, "Only show how far the purge of this id has come."],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        for name in ("urls", "prefixes", "tags"):
            self[name] = []
        self["serials"] = {}

    def opt_url(self, url: str) -> None:
        """A path, or an absolute URL. May be repeated."""
        self["urls"].append(url)

    def opt_prefix(self, prefix: str) -> None:
        """Everything below a path that ends in /. May be repeated."""
        self["prefixes"].append(prefix)

    def opt_tag(self, tag: str) -> None:
        """Everything with this tag, as project/NAME. May be repeated."""
        self["tags"].append(tag)

    def opt_serial(self, text: str) -> None:
        """PROJECT=N: the project, of which no page with a lower serial is good any more. May be repeated."""
        project, _, serial = text.partition("=")
        if not (project and serial.isascii() and serial.isdigit()):
            raise usage.UsageError(f"--serial is PROJECT=N, not {text!r}")
        self["serials"][project] = int(serial)

    def postOptions(self) -> None:
        """:raises usage.UsageError: nothing is named, or what is waited for does not exist."""
        if not (self["state"] or self.document().keys() - {"mode", "id"}):
            raise usage.UsageError("say what to purge: --url, --prefix, --tag, --serial or --all")
        if self["wait"] not in WAITS:
            raise usage.UsageError(f"--wait {self['wait']}: must be {', '.join(WAITS)}")

    def document(self) -> dict[str, Any]:
        """:return: what is sent: as of ``POST /purge``."""
        found: dict[str, Any] = {name: self[name] for name in ("urls", "prefixes", "tags", "serials") if self[name]}
        found |= {name: self[name] for name in ("mode", "id") if self[name] is not None}
        return {**found, "all": True} if self["all"] else found

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        if self["state"]:
            return await purge_state(reactor, where, self["state"], say)
        return await purge(
            reactor,
            where,
            self.document(),
            say,
            wait=self["wait"],
            timeout=self["timeout"],
            as_json=bool(self["json"]),
            progress=None if self["quiet"] else tell,
        )


class AuditOptions(usage.Options):
    """Flags of ``edgecache audit``."""

    synopsis = "Usage: edgecache [options] audit [--node URL]... [options]"
    longdesc = (
        "Asks every node of the fleet for what was purged last, and compares its age with the purge; where siblings "
        "are is [[sibling]] public_url. Exit status 0: every node was asked and none serves anything older; 1: one "
        "does, or could not be asked. EDGECACHE_CLIENT has the credentials (user:password, or Bearer and a token) for "
        "sites that are for their clients only."
    )
    optFlags = [["json", "j", "Show every answer, as JSON."]]
    optParameters = [["keys", "k", 100, "URLs to ask each node for, at most.", whole("--keys", 1)]]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self["nodes"] = []

    def opt_node(self, url: str) -> None:
        """URL of a node's public listener. May be repeated; default: all that the node of --admin is told of."""
        self["nodes"].append(url)

    async def run(self, reactor: Any, where: AdminAddress) -> int:
        """:return: exit status."""
        client = os.environ.get("EDGECACHE_CLIENT", "")
        try:
            authorization = credentials(client) if client else ""
        except ValueError as error:
            raise AdminFailed(f"EDGECACHE_CLIENT {error}") from None
        return await audit(
            reactor,
            where,
            self["nodes"],
            say,
            most=self["keys"],
            as_json=bool(self["json"]),
            authorization=authorization,
        )
