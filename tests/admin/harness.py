"""An admin listener in memory: the real site, control and page; only the sockets are missing."""

from __future__ import annotations

import os
from typing import Any

import orjson
from attrs import define, evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from edgecache.admin.parts import AdminParts, UpstreamCounts, UpstreamState, WorkerState
from edgecache.admin.site import admin_site
from edgecache.admin.tokens import Tokens
from edgecache.rules.sites import Sites
from edgecache.siblings.purger import LoneNode, Purger, Spread
from edgecache.store.collecting import Collector
from edgecache.store.control import Control
from edgecache.store.environments import Environments
from edgecache.store.pagewriter import PageWriter
from edgecache.words.config import MIB, Config, NodeSettings, Profile, PurgeSettings, SiteSettings, StoreSettings
from tests.quickdisk import quick_directory

NOW = 1_763_000_000.0

CONFIG = Config(
    node=NodeSettings(id="eu-1", region="eu", workers=2),
    sites=(
        SiteSettings(name="index", profile=Profile.INDEX, origins=("http://user:secret@origin.example/pypi",)),
        SiteSettings(name="files", profile=Profile.PLAIN, origins=("http://files.example/pub",), hosts=("f.example",)),
    ),
    store=StoreSettings(size=64 * MIB),
    purge=PurgeSettings(body_octets=100_000),
)


@define(eq=False)
class Response:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)


@define(eq=False)
class Client:
    """One connection to the site."""

    site: Any
    peer: str
    transport: Any = None
    channel: Any = None

    def connect(self) -> None:
        address = IPv4Address("TCP", self.peer, 40000)
        self.channel = self.site.buildProtocol(address)
        self.transport = StringTransportWithDisconnection(peerAddress=address)
        self.transport.protocol = self.channel
        self.transport.abortConnection = self.transport.loseConnection
        self.channel.makeConnection(self.transport)

    def send(self, octets: bytes) -> None:
        if self.channel is None:
            self.connect()
        self.channel.dataReceived(octets)

    def receive(self) -> Response:
        """The one response that has come."""
        head, _, content = self.transport.value().partition(b"\r\n\r\n")
        self.transport.clear()
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Response(int(status.split()[1]), headers, content)


class AdminCase(SynchronousTestCase):
    config = CONFIG

    def setUp(self) -> None:
        self.data = quick_directory(self)
        self.clock = Clock()
        self.clock.advance(1_000)
        self.environments = Environments.open(self.data, self.config.store, node_process=True)
        self.page = PageWriter.create(os.path.join(self.data, "page"), 2)
        self.control = Control.open(
            self.environments.control,
            self.page,
            maybeDeferred,
            node_id=self.config.node.id,
            incarnation=self.environments.incarnation,
        )
        self.addCleanup(self.environments.close)
        self.addCleanup(self.page.close)
        self.tokens = Tokens(self.control, os.path.join(self.data, "admin.token"))
        self.done(self.tokens.load())
        self.workers = [WorkerState(0, 101, True, NOW - 5.0, 3), WorkerState(1, None, False)]
        self.upstreams = [
            UpstreamState(
                "http://origin.example",
                "192.0.2.1:80",
                False,
                "no-head",
                state="ejected",
                reason="no-head",
                since=NOW - 65.0,
                next_probe_at=NOW + 8.0,
                ejections=2,
            ),
            UpstreamState("http://origin.example", "192.0.2.2:80"),
        ]
        self.upstream_counts = UpstreamCounts(
            {("http://origin.example", "good"): 70, ("http://origin.example", "no-head"): 2},
            {("http://origin.example", "no-head"): 2},
        )
        config = evolve(self.config, node=evolve(self.config.node, data=self.data))
        self.parts = AdminParts(
            config=config,
            control=self.control,
            page=self.page,
            purger=Purger(
                self.control, Sites(self.config), self.config.purge, self.clock, lambda: NOW, spread=self.make_spread()
            ),
            tokens=self.tokens,
            collector=Collector(self.environments, self.page, self.config.store, set, self.clock, maybeDeferred),
            timers=self.clock,
            wall=lambda: NOW,
            workers=lambda: self.workers,
            upstreams=lambda: self.upstreams,
            upstream_counts=lambda: self.upstream_counts,
        )
        self.site = admin_site(self.parts, self.clock)
        with open(self.tokens.path) as file:
            self.token = file.read().strip()

    def make_spread(self) -> Spread:
        """:return: who else has purges; nobody."""
        return LoneNode("eu-1")

    def done(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def ask(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        token: str | None = "",
        peer: str = "192.0.2.9",
        content: bytes | None = None,
        **fields: str,
    ) -> Response:
        """:param token: ``None`` sends none, ``""`` the admin's."""
        if document is not None:
            content = orjson.dumps(document)
            fields.setdefault("content_type", "application/json")
        lines = [f"{method} {path} HTTP/1.1"]
        fields.setdefault("host", "edge.example:8081")
        if token is not None:
            fields.setdefault("authorization", f"Bearer {token or self.token}")
        if content is not None:
            fields["content_length"] = str(len(content))
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        client = Client(self.site, peer)
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (content or b""))
        return client.receive()

    def scoped(self, *scopes: str, name: str = "scoped") -> str:
        """:return: a new token with these scopes."""
        answer = self.ask("POST", "/tokens", {"name": name, "scopes": list(scopes)})
        self.assertEqual(201, answer.status)
        return str(answer.json["token"])


def with_purge(**settings: Any) -> Config:
    """:return: the configuration with other ``[purge]`` settings."""
    return evolve(CONFIG, purge=evolve(CONFIG.purge, **settings))
