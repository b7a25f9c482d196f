"""
What answers about purges promise, and clients that hold the nodes to it (DESIGN 9).

A page's version grows, and a purge is asked for when a new one is out: so each promise is a least version of a page
at a node, from some time on.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import orjson
from attrs import define, field

from tests.system.clients import Answer
from tests.system.fleet import Fleet
from tests.system.versions import Page, version_of

STATES = ("local", "durable", "effective", "complete")
_STATUSES = {"local": 503, "durable": 202, "effective": 200, "complete": 200}


class FalseClaim(AssertionError):
    """An answer contradicts itself, or what a node then serves."""


@define(eq=False)
class Promises:
    """
    Least versions by node and page.

    :ivar bound_seconds: no ``effective_by`` may be later than this.
    """

    members: frozenset[str]
    bound_seconds: float
    claims: int = 0
    _held: dict[tuple[str, str], list[tuple[float, int]]] = field(factory=lambda: defaultdict(list))
    _purges: dict[str, tuple[tuple[Page, ...], int]] = field(factory=dict)
    _lock: threading.Lock = field(factory=threading.Lock)

    def promise(self, nodes: Iterable[str], pages: Iterable[Page], version: int, since: float = 0.0) -> None:
        """From ``since`` (wall time) on these nodes serve nothing older of these pages."""
        targets = [page.target for page in pages]
        with self._lock:
            for node in nodes:
                for target in targets:
                    held = self._held[node, target]
                    # What says nothing that the new one does not say is dropped.
                    held[:] = [each for each in held if each[0] < since or each[1] > version]
                    held.append((since, version))

    def least(self, node: str, page: Page) -> int:
        """What a request that is sent now must be given."""
        now = time.time()
        with self._lock:
            held = self._held.get((node, page.target), ())
            return max((version for since, version in held if since <= now), default=0)

    def restarted(self, node: str) -> None:
        """All leases of ``node`` are gone: what was durable before holds there at once."""
        with self._lock:
            for (name, _), held in self._held.items():
                if name == node and held:
                    held[:] = [(0.0, max(version for _, version in held))]

    def asked_for(self, purge_id: str, pages: Iterable[Page], version: int) -> None:
        """A purge of ``pages`` is going to be asked for under this id, and ``version`` is out."""
        with self._lock:
            self._purges[purge_id] = tuple(pages), version

    def claimed(self, answer: Answer) -> dict[str, Any]:
        """
        Take an answer about a purge at its word.

        :return: the answer's document.
        :raises FalseClaim: it contradicts itself.
        """
        now = time.time()
        document: dict[str, Any] = orjson.loads(answer.content)
        state = document.get("state")
        if _STATUSES.get(str(state)) != answer.status:
            raise FalseClaim(f"{answer.status} {document}")
        applied, pending, by = set(document["applied"]), set(document["pending"]), document["effective_by"]
        right = (
            applied | pending == self.members
            and not applied & pending
            and (state == "complete") is (not pending)
            and (state == "local" or 2 * len(applied) > len(self.members))
            and (by is not None) is (state == "durable")
            and (by is None or by <= now + self.bound_seconds)
        )
        if not right:
            raise FalseClaim(f"{answer.status} {document}, of the members {sorted(self.members)}, at {now}")
        pages, version = self._purges[document["id"]]
        self.promise(applied, pages, version)
        if state in ("effective", "complete"):
            self.promise(self.members, pages, version)
        if by is not None:
            self.promise(self.members, pages, version, since=by)
        with self._lock:
            self.claims += 1
        return document


@define(eq=False)
class Readers:
    """
    Clients that ask all nodes for all pages, and hold each answer against what was promised before it was asked for.

    :ivar checked: answers by node.
    :ivar lost: requests by node that got no answer.
    """

    fleet: Fleet
    promises: Promises
    pages: tuple[Page, ...]
    checked: dict[str, int] = field(factory=lambda: defaultdict(int))
    lost: dict[str, int] = field(factory=lambda: defaultdict(int))
    over: threading.Event = field(factory=threading.Event)
    _lock: threading.Lock = field(factory=threading.Lock)

    def read(self, names: Iterable[str], *, mortal: bool = False) -> None:
        """
        Ask until it is over.

        :param mortal: a node may be gone.
        :raises FalseClaim: a node served what is too old.
        """
        names = tuple(names)
        while not self.over.is_set():
            for name in names:
                for page in self.pages:
                    try:
                        self.check(name, page)
                    except (OSError, http.client.HTTPException):
                        if not mortal:
                            raise
                        self.lost[name] += 1
                        # One that is gone is not back within this.
                        self.over.wait(0.02)

    def check(self, name: str, page: Page) -> int:
        """
        One request.

        :return: the version that was served.
        """
        least = self.promises.least(name, page)
        answer = self.fleet.nodes[name].ask(page.target)
        if not answer.complete:
            raise ConnectionResetError(f"{name}: {answer}")
        version = version_of(page, answer)
        if version < least:
            raise FalseClaim(f"{name} serves version {version} of {page.target} after {least} was promised: {answer}")
        with self._lock:
            self.checked[name] += 1
        return version
