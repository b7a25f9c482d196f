"""
A fleet of real nodes with certificates before an origin with versions: what they say of purges, and what they serve.

``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import Membership
from tests.system.claims import STATES, FalseClaim, Promises, Readers
from tests.system.clients import Together
from tests.system.fleet import Fleet
from tests.system.harness import UNHURRIED, NodeDied
from tests.system.processes import until
from tests.system.versions import Page, VersionedOrigin

SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))

ONE = Page("/a/1", "red")
DEEP = Page("/a/b/2", "red blue", padding=80_000)
OTHER = Page("/c/3", "blue")
PAGES = (ONE, DEEP, OTHER)

DOCUMENTS: tuple[tuple[dict[str, Any], tuple[Page, ...]], ...] = (
    ({"urls": [ONE.target]}, (ONE,)),
    ({"urls": [OTHER.target, DEEP.target]}, (DEEP, OTHER)),
    ({"prefixes": ["/a/"]}, (ONE, DEEP)),
    ({"tags": ["blue"]}, (DEEP, OTHER)),
    ({"tags": ["red"]}, (ONE, DEEP)),
    ({"all": True}, PAGES),
)
# As fast as one can: the limits have tests of their own.
UNLIMITED = "[purge]\nper_second = 1000000.0\ntoken_per_second = 1000000.0"
# Look-ups among siblings have tests of their own, too.
SITE = 'fill = "origin"'
# Over in a moment, and long enough for a busy machine to renew it in.
LEASE_SECONDS = 2.0
PACE = f"pull_seconds = 0.25\ncall_seconds = 0.75\nlease_seconds = {LEASE_SECONDS}"


@define(eq=False)
class Scene:
    """
    An origin with versions of :data:`PAGES`, and a fleet before it.

    :ivar lease_seconds: of its nodes.
    """

    fleet: Fleet
    versions: VersionedOrigin
    lease_seconds: float
    _directory: tempfile.TemporaryDirectory[str]

    @classmethod
    def open(
        cls,
        count: int = 3,
        *,
        siblings: str = PACE,
        lease_seconds: float = LEASE_SECONDS,
        origin: str = "127.0.0.1",
        **options: Any,
    ) -> Scene:
        """
        :param siblings: lines of ``[siblings]``; their lease is ``lease_seconds``.
        :param options: of :class:`~tests.system.fleet.Fleet`.
        :return: all of it runs, and every node has a lease.
        """
        directory = tempfile.TemporaryDirectory(prefix="edgecache-fleet-")
        versions = VersionedOrigin({page.target: page for page in PAGES}, host=origin)
        url = versions.origin.start().url
        more = f"{UNLIMITED}\n{UNHURRIED}"
        fleet = Fleet(Path(directory.name), count, url, site=SITE, more=more, siblings=siblings, **options)
        scene = cls(fleet, versions, lease_seconds, directory)
        try:
            fleet.start()
        except BaseException:
            scene.close()
            raise
        return scene

    def close(self) -> None:
        """Nothing of it is left."""
        self.fleet.end()
        self.versions.origin.stop()
        self._directory.cleanup()


class FleetTestCase(SynchronousTestCase):
    """A fleet before an origin, which several tests share. Each test finds it whole."""

    scene: Scene

    @classmethod
    def setUpClass(cls) -> None:
        cls.scene = cls.opened()
        cls.addClassCleanup(cls.scene.close)

    @classmethod
    def opened(cls) -> Scene:
        """What the tests of this class play on."""
        return Scene.open()

    @property
    def fleet(self) -> Fleet:
        return self.scene.fleet

    @property
    def versions(self) -> VersionedOrigin:
        return self.scene.versions

    def setUp(self) -> None:
        self.versions.origin.start()
        self.whole(self.fleet.ids)
        bound = Membership.of("n1", self.fleet.ids, lease_seconds=self.scene.lease_seconds).bound_seconds
        self.promises = Promises(frozenset(self.fleet.ids), bound)
        self.readers = Readers(self.fleet, self.promises, PAGES)
        self.clients = Together()
        self.addCleanup(self.readers.over.set)

    def whole(self, names: Iterable[str]) -> None:
        """These nodes run, have leases, and agree."""
        nodes = [self.fleet.nodes[name] for name in names]
        for node in nodes:
            try:
                node.require_alive()
            except NodeDied:
                node.launch()
        for node in nodes:
            node.wait_ready()
            self.fleet.wait_leased(node)
        self.fleet.wait_agreed(names)

    def fill(self, names: Iterable[str] = ()) -> int:
        """Every node, or these, have every page in the current version, and find it."""
        for name in names or self.fleet.ids:
            for page in PAGES:
                until(lambda node=self.fleet.nodes[name], page=page: node.ask(page.target).hit, f"{page} in {name}")
        return self.versions.version

    def purge(self, by: str, number: int, wait: str, *, timeout: float = 30.0) -> dict[str, Any]:
        """Publish, purge at node ``by``, and take the answer at its word."""
        document, pages = DOCUMENTS[number % len(DOCUMENTS)]
        mode = ("revalidate", "delete")[number // len(DOCUMENTS) % 2]
        purge_id = f"{self.id()}-{by}-{number}"
        self.promises.asked_for(purge_id, pages, self.versions.publish())
        return self.promises.claimed(
            self.fleet.nodes[by].admin(
                "POST",
                f"/purge?wait={wait}&timeout={timeout}",
                {**document, "mode": mode, "id": purge_id},
                seconds=60.0,
            )
        )

    def again(self, by: str, purge: dict[str, Any], number: int) -> dict[str, Any]:
        """Send a purge's id again."""
        document, _ = DOCUMENTS[number % len(DOCUMENTS)]
        answer = self.fleet.nodes[by].admin("POST", "/purge?timeout=0", {**document, "id": purge["id"]})
        return self.promises.claimed(answer)

    def state(self, at: str, purge: dict[str, Any], wait: str = "", *, timeout: float = 30.0) -> dict[str, Any]:
        """What node ``at`` says of a purge by now, taken at its word."""
        query = f"?wait={wait}&timeout={timeout}" if wait else ""
        return self.promises.claimed(self.fleet.nodes[at].admin("GET", f"/purge/{purge['id']}{query}", seconds=60.0))

    def taken(self, name: str) -> int:
        """Entries of all logs at a node."""
        return sum(self.fleet.positions(self.fleet.nodes[name]).values())

    def wait_applied(self, name: str, purge: dict[str, Any]) -> None:
        """Until this node has it, whoever it has it from."""
        node = self.fleet.nodes[name]
        until(lambda: node.admin("GET", f"/purge/{purge['id']}").status != 404, f"{purge['id']} at {name}")
        # It is on the disk a moment before the node's own evidence says so.
        until(lambda: name in self.state(name, purge)["applied"], f"{purge['id']} applied at {name}")

    def check_all(self, name: str) -> None:
        """Hold what a node serves against what was promised."""
        for page in PAGES:
            self.readers.check(name, page)

    def require(self, found: dict[str, Any], state: str) -> None:
        """
        :raises FalseClaim: it was waited for, and has not come so far.
        """
        if STATES.index(found["state"]) < STATES.index(state):
            raise FalseClaim(f"waited for {state}: {found}, EDGECACHE_SEED={SEED}")

    def while_all_is_well(self, look: Callable[[], bool], what: str, *others: Together) -> None:
        """:func:`until`, or until a client has found something."""
        together = (self.clients, *others)
        until(lambda: look() or any(each.failures for each in together), what)
        for each in together:
            if each.failures:
                raise each.failures[0]

    def end_readers(self) -> None:
        self.readers.over.set()
        self.clients.join()
