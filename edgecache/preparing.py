"""
What a node takes hold of before twistd goes into the background and sheds its privileges: data directory and ports.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from edgecache.common import RUN
from edgecache.processes.datalock import DataLock, lock_data, make_data
from edgecache.processes.exposed import warn_of
from edgecache.processes.sockets import OwnerSockets, PublicSockets, bind_once
from edgecache.siblings.identity import Identity
from edgecache.siblings.tls import context_of
from edgecache.store import disk
from edgecache.upstream.tls import client_context
from edgecache.wire.tls import tls_context
from edgecache.words.config import Config
from edgecache.words.endpoints import endpoint
from edgecache.words.errors import ConfigError, StartError

_log = Logger()

_RESERVED_FILES = 1024
"""Descriptors besides clients' connections and the upstreams': environments, pipes, logs, admin."""


@frozen(eq=False, repr=False)
class Prepared:
    """What :func:`prepare` has taken hold of."""

    config: Config
    lock: DataLock
    public: PublicSockets
    admin: list[Any]
    siblings: list[Any]
    content: PublicSockets
    owners: OwnerSockets

    def release(self) -> None:
        """Listen no more: workers have copies of these sockets."""
        self.public.close()
        self.content.close()
        for sock in self.owners.sockets:
            sock.close()

    @property
    def paths(self) -> list[str]:
        """What was made on disk, directories first."""
        data = self.config.node.data
        return [data, self.lock.path, os.path.join(data, RUN), *self.owners.paths]


def check(config: Config) -> None:
    """
    What ``--check`` looks at besides the settings themselves: the files that they name, and where logs are to be.

    :raises ConfigError: one cannot be used.
    """
    if config.tls is not None:
        tls_context(config.tls)
    if config.siblings is not None:
        from edgecache.fleet import membership

        membership(config)
        context_of(Identity.load(config.siblings, config.node.id))
    upstream = config.upstream
    if any(setting is not None for setting in (upstream.ca, upstream.client_certificate, upstream.ciphers)):
        client_context(upstream)
    for where, path in (("[log] access", config.log.access), ("[index] download_log", config.index.download_log)):
        directory = os.path.dirname(os.path.normpath(path))
        # The data directory is made at the first start.
        made = directory == os.path.normpath(config.node.data)
        if path not in ("", "-") and not made and not os.path.isdir(directory):
            raise ConfigError(where, f"{path}: there is no such directory")
    keys = [one.key for one in (config.tls, config.siblings) if one is not None]
    shown = config.upstream.client_key or config.upstream.client_certificate
    for key in (*keys, *([shown] if shown is not None else [])):
        warn_of(key, "a private key")


def prepare(
    config: Config, *, inspect: Callable[[str], disk.Disk] = disk.inspect, on_wait: Callable[[], None] = lambda: None
) -> Prepared:
    """
    Check and take everything that can be refused: certificate, data directory, ports. Blocks.

    :param on_wait: called when another node holds the data directory and may be going down.
    :raises StartError: one line for the operator.
    """
    check(config)
    data = config.node.data
    make_data(data)
    network = inspect(data).network
    if network is not None:
        raise StartError(f"the data directory {data} is on a network file system ({network}); it must be a local one")
    # Before the ports: those of a node that is going down become free with its lock.
    lock = lock_data(data, config.node.lease_seconds, on_wait=on_wait)
    public = PublicSockets.bind([endpoint(text) for text in config.listen.public], config.node.workers)
    admin = bind_once([endpoint(text) for text in config.listen.admin])
    siblings = bind_once([endpoint(text) for text in config.listen.siblings])
    content = PublicSockets.bind([endpoint(text) for text in config.listen.content], config.node.workers)
    make_data(os.path.join(data, RUN))
    owners = OwnerSockets.bind(os.path.join(data, RUN), config.node.workers)
    _raise_file_limit(config)
    return Prepared(config, lock, public, admin, siblings, content, owners)


def _raise_file_limit(config: Config) -> None:
    """Workers inherit it: a connection is a descriptor, and so is its upstream's."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    wanted = (config.limits.connections if config.listen.public else 0) + _RESERVED_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _log.warn(
            "only {hard} files may be open per process; [limits] connections = {connections} may need {wanted}",
            hard=hard,
            connections=config.limits.connections,
            wanted=wanted,
        )


def shown(sock: Any) -> str:
    """:return: where a socket listens, for people."""
    name = sock.getsockname()
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
