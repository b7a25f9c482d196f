"""The operator's command line: each command but ``certs`` and ``demo`` asks a running node (DESIGN 11)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.python import usage

from edgecache import __version__
from edgecache.admin.address import AdminAddress, find_token
from edgecache.cli_lines import say
from edgecache.processes.memory import uncollected
from edgecache.processes.settings import load, local_facts, read_secret
from edgecache.words.config import Config
from edgecache.words.endpoints import Endpoint, endpoint
from edgecache.words.errors import ConfigError, EdgeError
from edgecache.words.reading import build

_COMMANDS = ("status", "explain", "purge", "downloads", "audit", "warm", "verify", "certs", "demo")


def _of(module: str, name: str) -> Callable[[], usage.Options]:
    """:return: makes what reads a command's flags. Importing is nearly all of its time, and it needs only its own."""

    def make() -> usage.Options:
        with uncollected():
            options: usage.Options = getattr(importlib.import_module(f"edgecache.cli_{module}"), name)()
        return options

    return make


class Options(usage.Options):
    """Which node, and what to do."""

    synopsis = "Usage: edgecache [options] command [options]"
    optParameters = [
        ["config", "c", None, "TOML file of the node: says where its admin API and its data are."],
        ["admin", None, None, "HOST:PORT, or URL, of the admin API."],
        ["data", None, None, "Data directory of the node, for its token. EDGECACHE_TOKEN goes before that."],
    ]
    subCommands = [
        ["status", None, _of("status", "StatusOptions"), "Show how nodes are."],
        ["explain", None, _of("status", "ExplainOptions"), "Show what would become of a request, and why."],
        ["purge", None, _of("purge", "PurgeOptions"), "Invalidate what is stored."],
        ["downloads", None, _of("downloads", "DownloadsOptions"), "Show what was downloaded."],
        ["audit", None, _of("purge", "AuditOptions"), "Ask nodes whether they serve anything older than its purge."],
        ["warm", None, _of("warm", "WarmOptions"), "Have the node fetch what its clients are going to ask for."],
        ["verify", None, _of("verify", "VerifyOptions"), "Look through the store for damage."],
        ["certs", None, _of("certs", "CertsOptions"), "Make certificates of siblings."],
        ["demo", None, _of("demo", "DemoOptions"), "Show what a fleet of three does, on this machine alone."],
    ]

    def opt_version(self) -> None:
        """Print the version and exit."""
        say(f"edgecache {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        """:raises usage.UsageError: there is no command."""
        if self.subCommand is None:
            raise usage.UsageError("say what to do: " + ", ".join(_COMMANDS))

    def where(self) -> AdminAddress:
        """
        :raises ConfigError: the file, or the address, cannot be used.
        :raises AdminFailed: there is no token.
        """
        config = self._config()
        admin, named = self["admin"], "--admin"
        if admin is None:
            if not config.listen.admin:
                raise ConfigError("[listen] admin", "is empty: the node has no admin API; name it with --admin")
            admin, named = config.listen.admin[0], "[listen] admin"
        url = admin if "://" in admin else f"http://{_reachable(admin, named)}"
        return AdminAddress(url, find_token(self["data"] or config.node.data, os.environ))

    def _config(self) -> Config:
        """Where a node is, and no more of its file: who asks may not have its secrets, and it may be broken."""
        document = load(self["config"])
        document.data = {name: table for name, table in document.data.items() if name in ("node", "listen")}
        return build(document, local_facts(), read_secret)


def _reachable(admin: str, named: str) -> Endpoint:
    """A node that listens everywhere is on loopback too."""
    try:
        where = endpoint(admin)
    except ValueError as error:
        raise ConfigError(named, str(error)) from None
    return Endpoint({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host), where.port)


def main(arguments: list[str] | None = None) -> None:
    """
    Entry point of the ``edgecache`` command.

    :raises SystemExit: always, with the exit status.
    """
    options = Options()  # type: ignore[no-untyped-call]  # Twisted has no types here
    try:
        options.parseOptions(arguments)  # type: ignore[no-untyped-call]  # the same
        if options.subCommand in ("certs", "demo"):
            sys.exit(options.subOptions.act(say))
        where = options.where()
    except usage.UsageError as error:
        sys.stderr.write(f"{options}\nedgecache: {error}\n")
        sys.exit(2)
    except EdgeError as error:
        sys.stderr.write(f"edgecache: {error}\n")
        sys.exit(1)
    # Not before it is needed: a third of the time that a command takes.
    with uncollected():
        from twisted.internet.defer import Deferred

        from edgecache.processes.loop import install_reactor

    reactor, _ = install_reactor()

    async def run(clock: Any) -> None:
        try:
            status = await options.subOptions.run(clock, where)
        except EdgeError as error:
            sys.stderr.write(f"edgecache: {error}\n")
            status = 1
        raise SystemExit(status)

    # Imported late: it imports the reactor, which has to be ours.
    from twisted.internet.task import react

    react(lambda clock: Deferred.fromCoroutine(run(clock)), [], reactor)
