"""
A fleet of real nodes with certificates before an origin with versions: what they say of purges, and what they serve.

``EDGECACHE_SEED`` repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from edgecache.rules.membership import Membership
from tests.system.claims import STATES, FalseClaim, Promises, Readers
from tests.system.clients import Together
from tests.system.fleet import Fleet
from tests.system.harness import NodeDied
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
# A call that hangs, two rounds, and an answer.
CAUGHT_UP_SECONDS = 1.0 + 2 * 0.5 + 0.5


class FleetTestCase(SynchronousTestCase):
    """A fleet before an origin with versions: one for all tests of a class. Each test finds it whole."""

    count = 3
    # A lease that is over in a few seconds.
    siblings = "pull_seconds = 0.5\ncall_seconds = 1.0\nlease_seconds = 3.0"
    lease_seconds = 3.0
    options: dict[str, Any] = {}
    origin = "127.0.0.1"
    fleet: Fleet
    versions: VersionedOrigin

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-fleet-")
        cls.addClassCleanup(directory.cleanup)
        cls.versions = VersionedOrigin({page.target: page for page in PAGES}, host=cls.origin)
        url = cls.versions.origin.start().url
        cls.addClassCleanup(cls.versions.origin.stop)
        cls.fleet = Fleet(
            Path(directory.name), cls.count, url, site=SITE, more=UNLIMITED, siblings=cls.siblings, **cls.options
        )
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()

    def setUp(self) -> None:
        self.versions.origin.start()
        for node in self.fleet.nodes.values():
            try:
                node.require_alive()
            except NodeDied:
                node.start()
            self.fleet.wait_leased(node)
        self.fleet.wait_agreed()
        bound = Membership.of("n1", self.fleet.ids, lease_seconds=self.lease_seconds).bound_seconds
        self.promises = Promises(frozenset(self.fleet.ids), bound)
        self.readers = Readers(self.fleet, self.promises, PAGES)
        self.clients = Together()
        self.addCleanup(self.readers.over.set)

    def fill(self) -> int:
        """Every node has every page in the current version, and finds it."""
        for name in self.fleet.ids:
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
        self.assertIn(name, self.state(name, purge)["applied"])

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
