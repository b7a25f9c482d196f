"""A fleet's certificates, listeners and callers on loopback: the real parts, as small as they come."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from attrs import define, evolve, field
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet import reactor  # noqa: TID251  (tests run on the reactor itself)
from twisted.internet.task import Clock

from edgecache.siblings.caller import Caller
from edgecache.siblings.certificates import make_ca, make_node
from edgecache.siblings.identity import Identity
from edgecache.siblings.server import ControlListener
from edgecache.siblings.transport import Call, Handler
from edgecache.words.siblingsettings import SiblingSettings, SiblingsSettings

CALL_SECONDS = 2.0
MESSAGE_OCTETS = 64 << 10
DAY = datetime.timedelta(days=1)


def today() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@define(eq=False)
class Certificates:
    """A CA in ``directory``, and what it signs."""

    directory: Path

    def __attrs_post_init__(self) -> None:
        make_ca(self.directory, today() - 20 * DAY)

    def settings(self, node_id: str) -> SiblingsSettings:
        """Of a node whose certificate was made."""
        at = self.directory
        return SiblingsSettings(str(at / "ca.pem"), str(at / f"{node_id}.pem"), str(at / f"{node_id}.key"))

    def issue(self, node_id: str, *hosts: str, begins: int = -1, days: int = 9) -> Identity:
        """:param begins: in so many days."""
        hosts = hosts or ("127.0.0.1", "localhost")
        make_node(self.directory, today() + begins * DAY, node_id, list(hosts), days=days, force=True)
        return Identity.load(self.settings(node_id), node_id)


def identity_of(certificate: str, key: str, ca: str) -> Identity:
    """Of files that no node would load."""
    return Identity(
        "odd",
        tuple(x509.load_pem_x509_certificates(Path(certificate).read_bytes())),
        load_pem_private_key(Path(key).read_bytes(), None),
        tuple(x509.load_pem_x509_certificates(Path(ca).read_bytes())),
    )


def trusting(identity: Identity, *others: Identity) -> Identity:
    """``identity`` with the CAs of ``others`` besides its own."""
    return evolve(
        identity, authorities=(*identity.authorities, *(one for other in others for one in other.authorities))
    )


class Somewhere(Protocol):
    """Where a node is, and who it should be."""

    port: int
    identity: Identity


@define(eq=False)
class Node:
    """
    A listener on loopback, and a caller.

    :ivar clock: of its deadlines of calls and of what it logs twice.
    :ivar wall: what it takes for the time of day.
    """

    identity: Identity
    handlers: Mapping[Call, Handler]
    members: frozenset[str] = frozenset(("asker", "home"))
    clock: Clock = field(factory=Clock)
    wall: float = field(factory=time.time)
    port: int = field(init=False, default=0)
    listener: ControlListener = field(init=False)
    caller: Caller = field(init=False)

    def start(self, port: int = 0) -> Node:
        """Listen, on any port."""
        self.listener = ControlListener.make(
            self.identity,
            self.members,
            self.handlers,
            message_octets=MESSAGE_OCTETS,
            reactor=reactor,
            timers=self.clock,
            wall=lambda: self.wall,
        )
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen()
        sock.setblocking(False)
        self.port = sock.getsockname()[1]
        self.listener.listen([sock])
        self.caller = Caller(reactor, self.clock, CALL_SECONDS, MESSAGE_OCTETS)
        return self

    async def know(self, *others: Somewhere, host: str = "127.0.0.1", as_id: str | None = None) -> None:
        """Call these from now on."""
        await self.caller.follow(
            self.identity,
            [
                SiblingSettings(as_id or other.identity.id, f"https://{host}:{other.port}", "https://unused:1")
                for other in others
            ],
        )

    async def stop(self) -> None:
        """Leave nothing open."""
        await self.caller.close()
        await self.listener.stop()
