"""Listening sockets: bound once by the node process, kept open, and handed to workers (DESIGN 4)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from attrs import define, field

from edgecache.words.endpoints import Endpoint
from edgecache.words.errors import StartError

BACKLOG = 1024
"""Connections that wait while a worker is being restarted; the kernel caps it (``net.core.somaxconn``)."""

_SUN_PATH = 107
"""Octets in the path of a Unix socket on Linux, less the final zero."""


@define(eq=False, repr=False)
class PublicSockets:
    """
    One listening socket per address and worker, all of one port.

    :ivar by_worker: for each worker, its sockets in the order of the addresses.
    :ivar addresses: where they listen, for people.
    """

    by_worker: list[list[socket.socket]]
    addresses: list[str]

    @classmethod
    def bind(cls, endpoints: list[Endpoint], workers: int) -> PublicSockets:
        """
        Bind every endpoint once per worker, at least once.

        One socket shared by all would leave some workers without work; with SO_REUSEPORT the kernel
        spreads connections, but it would also let a second node join in: so it is tried without first.

        :raises StartError: a port is in use, or the address is not this machine's.
        """
        count = max(1, workers)
        by_worker: list[list[socket.socket]] = [[] for _ in range(count)]
        addresses: list[str] = []
        for where, family, address in _resolved(endpoints):
            if address[1]:
                _bound(where, family, address, shared=False).close()
            for own in by_worker:
                sock = _bound(where, family, address, shared=count > 1)
                # Port 0 is any port, but then the same for all.
                address = sock.getsockname()
                _listen(sock, where)
                own.append(sock)
            addresses.append(str(Endpoint(address[0], address[1])))
        return cls(by_worker, addresses)

    def close(self) -> None:
        """Connections that wait in them are reset."""
        for own in self.by_worker:
            for sock in own:
                sock.close()


def bind_once(endpoints: list[Endpoint]) -> list[socket.socket]:
    """
    Listening sockets that nobody else shares: for the admin listener.

    :raises StartError: a port is in use, or the address is not this machine's.
    """
    sockets = []
    for where, family, address in _resolved(endpoints):
        sock = _bound(where, family, address, shared=False)
        _listen(sock, where)
        sockets.append(sock)
    return sockets


@define(eq=False, repr=False)
class OwnerSockets:
    """
    Unix sockets on which workers ask each other, one per worker (DESIGN 4, owners of keys).

    :ivar sockets: by worker.
    """

    sockets: list[socket.socket]
    _base: str
    # Of a path that is too long for a socket's name: kept open, so that it has a short one.
    _directory: int | None = field(default=None)

    @property
    def paths(self) -> list[str]:
        """By worker, as this process and the workers connect to them; others once it is in the background."""
        base = self._base if self._directory is None else f"/proc/{os.getpid()}/fd/{self._directory}"
        return [f"{base}/owner-{index}.sock" for index in range(len(self.sockets))]

    @classmethod
    def bind(cls, directory: str, workers: int) -> OwnerSockets:
        """
        :param directory: of the data directory whose lock is held: what lies there is stale.
        :param workers: fewer than two need none.
        :raises StartError: when the file system has no such sockets.
        """
        owner = cls([], directory)
        if workers < 2:
            return owner
        try:
            Path(directory).mkdir(mode=0o700, exist_ok=True)
            if len(os.fsencode(directory)) + len("/owner-000.sock") > _SUN_PATH:
                owner._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY)
            for _ in range(workers):
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                owner.sockets.append(sock)
                path = owner.paths[-1]
                Path(path).unlink(missing_ok=True)
                sock.bind(path)
                os.chmod(path, 0o600)
                sock.listen(BACKLOG)
                sock.setblocking(False)
        except OSError as error:
            owner.close()
            raise StartError(f"cannot make the workers' sockets in {directory}: {error.strerror}") from error
        return owner

    def of(self, worker: int) -> socket.socket | None:
        """:return: the socket of ``worker``, ``None`` when it is alone."""
        return self.sockets[worker] if self.sockets else None

    def close(self) -> None:
        """Close them and remove their names."""
        for sock, path in zip(self.sockets, self.paths, strict=True):
            sock.close()
            Path(path).unlink(missing_ok=True)
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None


def _resolved(endpoints: list[Endpoint]) -> list[tuple[Endpoint, int, tuple[str, int]]]:
    found = []
    for where in endpoints:
        try:
            answers = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise StartError(f"cannot listen on {where}: {error.strerror}") from error
        for family, _, _, _, address in dict.fromkeys(answers):
            found.append((where, int(family), (str(address[0]), int(address[1]))))
    return found


def _bound(where: Endpoint, family: int, address: tuple[str, int], *, shared: bool) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"cannot listen on {where}: {error.strerror}") from error
    try:
        # Connections of a process that is gone (TIME_WAIT) do not keep us from its port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # [::] is IPv6 alone; whoever wants both families writes both.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise StartError(f"cannot listen on {where}: {error.strerror}") from error
    return sock


def _listen(sock: socket.socket, where: Endpoint) -> None:
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        # Two sockets may share an address until one of them listens.
        sock.close()
        raise StartError(f"cannot listen on {where}: {error.strerror}") from error
