"""Who takes part in a history: publishers, followers of feeds, and who looks at positions."""

from __future__ import annotations

import http.client
import random
import threading
import time
from typing import Any

import orjson
from attrs import define, field

from edgecache.rules.cursors import places_of
from tests.system.clients import Answer
from tests.system.history import Asked, Claimed, Sampled, Told, now
from tests.system.historystage import (
    LIST,
    PLAIN_HOST,
    PLAIN_PAGES,
    PROJECTS,
    Publication,
    Stage,
    page_key,
    plain_key,
    releases_key,
)

UNREACHABLE = (OSError, http.client.HTTPException)
# Longer than a node's own deadline for a first octet.
PATIENCE_SECONDS = 14.0


@define(eq=False)
class Actor:
    """:ivar over: set: leave."""

    stage: Stage
    chance: random.Random
    over: threading.Event

    def pause(self, seconds: float) -> None:
        """Up to twice this: the pace is what an actor is, it waits for nothing."""
        self.over.wait(self.chance.random() * 2 * seconds)


@define(eq=False)
class Publisher(Actor):
    """
    Uploads, and has it purged.

    :ivar name: its purges have it in their ids.
    :ivar turn: held while it has something under way.
    """

    name: str = ""
    turn: threading.Lock = field(factory=threading.Lock)
    purges: int = 0

    def run(self) -> None:
        while not self.over.is_set():
            with self.turn:
                self._publish_and_purge()
            self.pause(0.06)

    def _publish_and_purge(self) -> None:
        publication, chance = self.stage.publication, self.chance
        document, covers, strict = self._choose(publication)
        self.purges += 1
        delete = document["mode"] == "delete"
        voids = [] if not delete else [key for key in _of_projects(covers) if key not in covers]
        asked = Asked(now(), f"{self.name}-{self.purges}", covers, strict or delete, voids)
        self.stage.keeper.keep(asked)
        at = chance.choice(self.stage.fleet.ids)
        wait = chance.choice(("durable", "durable", "effective", "complete"))
        document["id"] = asked.id
        # The same id again is the same purge.
        for _ in range(chance.randrange(1, 4)):
            if self._tell(at, "POST", f"/purge?wait={wait}&timeout={chance.choice((0.5, 3))}", document):
                break
        if chance.random() < 0.3:
            self._tell(chance.choice(self.stage.fleet.ids), "GET", f"/purge/{asked.id}?wait=complete&timeout=0.5")

    def _choose(self, publication: Publication) -> tuple[dict[str, Any], list[str], bool]:
        """:return: a purge of what is new, what it covers, and whether it says serials."""
        chance = self.chance
        mode = chance.choice(("revalidate", "revalidate", "delete"))
        pages = [page_key(name) for name in PROJECTS]
        releases = [releases_key(name) for name in PROJECTS]
        plain = [plain_key(page) for page in PLAIN_PAGES]
        if chance.random() < 0.4:
            publication.publish_plain(PLAIN_PAGES)
            page = chance.choice(PLAIN_PAGES)
            selectors: list[tuple[dict[str, Any], list[str]]] = [
                ({"urls": [f"http://{PLAIN_HOST}{page.target}"]}, [plain_key(page)]),
                ({"tags": ["red"]}, [plain_key(page) for page in PLAIN_PAGES if "red" in page.tags]),
                ({"prefixes": ["/v/"]}, plain),
                ({"all": True}, [*plain, *pages, *releases, LIST]),
            ]
            document, covers = chance.choice(selectors)
            return {**document, "mode": mode}, covers, False
        project = chance.choice(PROJECTS)
        serial = publication.publish(project)
        own = [page_key(project), releases_key(project)]
        match chance.randrange(5):
            case 0 | 1:
                return {"tags": [f"project/{project}"], "serials": {project: serial}, "mode": mode}, own, True
            case 2:
                return {"tags": [f"project/{project}"], "mode": mode}, own, False
            case 3:
                return {"urls": [f"/simple/{project}/"], "mode": mode}, own[:1], False
            case _:
                return {"prefixes": ["/simple/"], "mode": mode}, [*pages, LIST], False

    def _tell(self, at: str, method: str, target: str, document: dict[str, Any] | None = None) -> bool:
        """:return: a node has taken it, or knows of it."""
        called = now()
        try:
            answer = self.stage.fleet.nodes[at].admin(method, target, document, seconds=PATIENCE_SECONDS)
        except UNREACHABLE:
            return False
        # Wall time has no part in a history but for this.
        offset = now() - time.time()
        claimed = _claimed(called, at, answer, offset)
        if claimed is None:
            return False
        self.stage.keeper.keep(claimed)
        return True


def _of_projects(covers: list[str]) -> list[str]:
    """:return: keys of all documents of the projects of which some are covered."""
    projects = [name for name in PROJECTS if page_key(name) in covers or releases_key(name) in covers]
    return [key for name in projects for key in (page_key(name), releases_key(name))]


def _claimed(called: float, at: str, answer: Answer, offset: float) -> Claimed | None:
    """:return: ``None`` for an answer that says nothing about a purge: it was not taken, or is not known."""
    if answer.status not in (200, 202, 503) or not answer.complete:
        return None
    said = orjson.loads(answer.content)
    if "state" not in said:
        return None
    by = said["effective_by"]
    return Claimed(
        called,
        now(),
        at,
        said["id"],
        answer.status,
        said["state"],
        said["applied"],
        said["pending"],
        None if by is None else by + offset,
        f"{said['log']['node']}/{said['log']['incarnation']}",
        said["log"]["sequence"],
    )


@define(eq=False)
class Follower(Actor):
    """
    Reads a node's feed.

    :ivar nodes: where it reads: at one of them, or now here, now there.
    """

    name: str = ""
    nodes: tuple[str, ...] = ()
    events: int = 0
    _cursor: str = ""

    def begin(self) -> None:
        """Before anything is purged: from here on it misses nothing."""
        self._go_to(self._get(self.nodes[0], "/feed")["cursor"])

    def run(self) -> None:
        while not self.over.is_set():
            try:
                page = self._get(self.chance.choice(self.nodes), f"/feed?since={self._cursor}&timeout=0.5")
            except (*UNREACHABLE, KeyError):
                # One that is gone is not back within this.
                self.over.wait(0.05)
                continue
            returned = now()
            for event in page["events"]:
                if event["type"] == "reset":
                    self._go_to(event["cursor"])
                else:
                    self.stage.keeper.keep(Told(returned, self.name, event["id"], _places(event["cursor"])))
            self.events += len(page["events"])
            self._cursor = page["cursor"]

    def _go_to(self, cursor: str) -> None:
        self._cursor = cursor
        self.stage.keeper.keep(Told(now(), self.name, "", _places(cursor)))

    def _get(self, node: str, target: str) -> dict[str, Any]:
        """
        :raises KeyError: this is no page of a feed.
        """
        answer = self.stage.fleet.nodes[node].admin("GET", target, seconds=PATIENCE_SECONDS)
        if answer.status != 200 or not answer.complete:
            raise KeyError(target)
        document: dict[str, Any] = orjson.loads(answer.content)
        return document


def _places(cursor: str) -> dict[str, int]:
    places = places_of(cursor)
    assert places is not None
    return {str(log): place for log, place in places.items()}


@define(eq=False)
class Sampler(Actor):
    """Asks all nodes how much of each log they have."""

    samples: int = 0

    def run(self) -> None:
        while not self.over.is_set():
            for name in self.stage.fleet.ids:
                self.look(name)
            self.pause(0.15)

    def look(self, name: str) -> None:
        """Once; of one that does not answer nothing is known."""
        called = now()
        try:
            answer = self.stage.fleet.nodes[name].admin("GET", "/status", seconds=2.0)
        except UNREACHABLE:
            return
        if answer.status != 200 or not answer.complete:
            return
        logs = orjson.loads(answer.content)["purges"]["logs"]
        positions = {f"{log['node']}/{log['incarnation']}": log["position"] for log in logs if log["position"]}
        self.samples += 1
        self.stage.keeper.keep(Sampled(called, now(), name, positions))
