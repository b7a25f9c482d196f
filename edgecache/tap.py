"""The command line of ``twistd edgecache`` (DESIGN 11)."""

from __future__ import annotations

import importlib
import os
import pwd
import sys
import threading
from typing import Any, NoReturn

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from edgecache import __version__
from edgecache.processes.forking import WORKER_MODULE, Nursery
from edgecache.processes.loop import install_reactor
from edgecache.processes.memory import uncollected
from edgecache.processes.piporigin import default_origin, split_index
from edgecache.processes.settings import load, local_facts, read_secret
from edgecache.words.checking import checked
from edgecache.words.config import Config, Profile
from edgecache.words.errors import ConfigError, StartError
from edgecache.words.reading import Document, build
from edgecache.words.voters import is_voter

_log = Logger()
_PIDFILE = "twistd.pid"
"""twistd's own default for ``--pidfile``."""
SHARED = (
    "edgecache.processes.running",
    "edgecache.rules.health",
    "edgecache.rules.partrecords",
    "edgecache.siblings.origins",
    "edgecache.store.controlreading",
    "edgecache.store.reading",
    "edgecache.store.small",
    "edgecache.upstream.client",
    "edgecache.upstream.linkhosts",
    "edgecache.wire.tls",
    "edgecache.words.latency",
    "edgecache.workerparts",
)
"""Node process and workers need these, and what they import: once, before the two part."""


class Options(usage.Options):
    """Flags; each overrides a setting of the file."""

    longdesc = (
        "Runs one edgecache node. Without options it listens on loopback, 8080 for artifacts and 8081 for the admin "
        "API, stores in ./edgecache-data, and stands in front of the package index that pip uses on this machine."
    )

    optFlags = [["check", None, "Check the settings and exit."]]

    optParameters = [
        ["config", "c", None, "TOML file with settings."],
        ["profile", None, None, "What the origin is: index or plain."],
        ["listen", None, None, "HOST:PORT for artifacts."],
        ["admin", None, None, "HOST:PORT for the admin API."],
        ["data", None, None, "Directory of this node's data."],
        ["size", None, None, "Size of the store, as 20GiB."],
        ["workers", None, None, "Worker processes; 0: everything in one process."],
        ["node", None, None, "Identifier of this node."],
    ]

    config: Config
    _document: Document | None = None

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types here
        self["origins"] = []
        # As it is when the node starts, whatever becomes of the working directory.
        self._facts = local_facts()

    def opt_origin(self, url: str) -> None:
        """URL of an origin: scheme and authority, a path prefix at most. Several are tried in turn."""
        if "@" in url:
            _log.warn("the credentials of --origin are shown to whoever lists processes; a file of settings hides them")
        self["origins"].append(url)

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"edgecache {__version__}\n")
        sys.exit(0)

    def postOptions(self) -> None:
        """
        Read the settings, and install the reactor before anybody imports another one.

        :raises SystemExit: after one line, when a setting cannot be used.
        """
        try:
            if self["check"]:
                self.read_and_check()
                sys.stdout.write("edgecache: the settings can be used\n")
                sys.exit(0)
            self.config = self.read()
            self["nursery"] = self._nursery()
            self["reactor"], self["loop"] = install_reactor()
        except (ConfigError, StartError) as error:
            _refuse(error)
        parent = self.parent
        self["foreground"] = parent is None or bool(parent["nodaemon"])
        if parent is not None and parent["nodaemon"]:
            _clear_pidfile(parent)

    def _nursery(self) -> Nursery | None:
        """
        What workers are forked from, itself forked from this process before that opens anything; ``None``: one is
        executed when the first worker is started.

        Not before twistd goes into the background, or becomes somebody else: what is forked now stays as it is.
        """
        parent = self.parent
        if (
            not self.config.node.workers
            or parent is None
            or not parent["nodaemon"]
            or any(parent[flag] is not None for flag in ("uid", "gid", "chroot", "umask"))
            or parent["rundir"] != "."
            or threading.active_count() > 1
        ):
            return None
        _import(*SHARED)
        try:
            return Nursery.forked(WORKER_MODULE)
        except OSError as error:
            _log.warn("workers' parent cannot be forked now, and is executed later: {error}", error=error)
            return None

    def read_and_check(self) -> Config:
        """
        :return: as :meth:`read`.
        :raises ConfigError: as that; or a file that a setting names cannot be used.
        :raises StartError: as that.
        """
        # Imported late: see makeService.
        from edgecache.preparing import check

        config = self.read()
        try:
            check(config)
        except ConfigError as error:
            raise self.placed(error) from error
        return config

    def placed(self, error: ConfigError) -> ConfigError:
        """:return: the same with file and line of its setting, as it was read last, where it has one."""
        return error if self._document is None else self._document.placed(error)

    def read(self) -> Config:
        """
        :return: what file and flags say now.
        :raises ConfigError: a setting cannot be used.
        :raises StartError: pip does not say which index it uses.
        """
        name, facts = self["config"], self._facts
        # The name as it was given is what people know, as long as it is right.
        document = load(name if name is None or facts.here == os.getcwd() else os.path.join(facts.here, name))
        self._document = document
        self._override(document)
        config = checked(build(document, facts, read_secret), document)
        if is_voter(config):
            if self["profile"] is not None:
                raise ConfigError("--profile", "a voter has no site")
            return config
        if config.sites:
            return config
        origin, simple_path = split_index(default_origin(config, meanwhile=self._meanwhile))
        site = {"profile": self["profile"] or Profile.INDEX.value, "origins": [origin], "simple_path": simple_path}
        document.override("pip's configuration", ("site",), [site])
        return checked(build(document, facts, read_secret), document)

    def _meanwhile(self) -> None:
        """A start imports while it waits for pip. A node that runs needs nothing of that, and is not to be frozen."""
        if "nursery" not in self:
            _import(WORKER_MODULE)

    def _override(self, document: Document) -> None:
        for flag, path, value in (
            ("node", ("node", "id"), self["node"]),
            ("data", ("node", "data"), self["data"] and os.path.join(self._facts.here, self["data"])),
            ("workers", ("node", "workers"), _whole(self["workers"])),
            ("size", ("store", "size"), self["size"]),
            ("listen", ("listen", "public"), self["listen"] and [self["listen"]]),
            ("admin", ("listen", "admin"), self["admin"] and [self["admin"]]),
        ):
            if value is not None:
                document.override(f"--{flag}", path, value)
        # A profile alone, without any site, is about the origin that pip will name.
        if self["origins"] or (self["profile"] is not None and document.data.get("site")):
            place = self._default_site(document)
            if self["origins"]:
                document.override("--origin", (*place, "origins"), self["origins"])
            if self["profile"] is not None:
                document.override("--profile", (*place, "profile"), self["profile"])

    def _default_site(self, document: Document) -> tuple[str, int]:
        """What ``--origin`` and ``--profile`` are about: the only site, or the one that takes every host and path."""
        sites = document.data.setdefault("site", [])
        if not isinstance(sites, list) or not all(isinstance(site, dict) for site in sites):
            raise ConfigError(document.where(("site",)), "is an array of tables: [[site]]")
        if not sites:
            sites.append({"profile": Profile.INDEX.value})
        defaults = [
            at
            for at, site in enumerate(sites)
            if len(sites) == 1 or (site.get("hosts", ["*"]) == ["*"] and not site.get("path"))
        ]
        if len(defaults) != 1:
            raise ConfigError("--origin", "the file has several sites and none of them takes every host")
        return "site", defaults[0]


def _whole(text: str | None) -> int | str | None:
    """What is no number is left as it is: who reads the settings refuses it, and names the flag."""
    return text if text is None or not text.removeprefix("-").isdecimal() else int(text)


def _import(*modules: str) -> None:
    with uncollected():
        for module in modules:
            importlib.import_module(module)


def _clear_pidfile(parent: Any) -> None:
    """
    In the foreground the lock on the data directory says who runs, not a file that outlives a kill.

    A container's process 1 that was killed finds its own number in that file and would never start again.
    """
    if parent["pidfile"] == _PIDFILE:
        parent["pidfile"] = ""
        return
    try:
        with open(parent["pidfile"]) as file:
            stale = int(file.read()) == os.getpid()
    except (OSError, ValueError):
        return  # twistd says what is wrong with it
    if stale:
        os.remove(parent["pidfile"])


def _hand_over(parent: Any, paths: list[str]) -> None:
    """What was made so far belongs to the user that twistd is about to become (``--uid``)."""
    if parent is None or parent["uid"] is None:
        return
    group = parent["gid"] if parent["gid"] is not None else pwd.getpwuid(parent["uid"]).pw_gid
    try:
        for path in paths:
            os.chown(path, parent["uid"], group)
    except OSError as error:
        raise StartError(f"cannot give {error.filename} to user {parent['uid']}: {error.strerror}") from error


def _refuse(error: Exception) -> NoReturn:
    sys.stderr.write(f"edgecache: {error}\n")
    sys.exit(1)


def makeService(options: Options) -> IService:
    """
    Take hold of data directory and ports, while there is a terminal to complain to.

    :raises SystemExit: after one line, when this node cannot start here.
    """
    # Imported late: these modules import the reactor, which postOptions has to install first.
    with uncollected():
        from edgecache.preparing import prepare

        importlib.import_module("edgecache.voting" if is_voter(options.config) else "edgecache.service")

    def waiting() -> None:
        lease, data = options.config.node.lease_seconds, options.config.node.data
        sys.stderr.write(f"edgecache: waiting up to {lease:g} s for the node that holds {data}\n")

    try:
        prepared = prepare(options.config, on_wait=waiting)
        _hand_over(options.parent, prepared.paths)
    except ConfigError as error:
        _refuse(options.placed(error))
    except StartError as error:
        _refuse(error)
    runs = prepared, options["reactor"], options["loop"], options.read_and_check, options["foreground"]
    if is_voter(options.config):
        from edgecache.voting import VoterService

        return VoterService(*runs)
    from edgecache.service import NodeService

    return NodeService(*runs, nursery=options["nursery"])
