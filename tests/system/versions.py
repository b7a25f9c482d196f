"""An origin whose every page tells its version, and the questions that purge tests put to a node in front of it."""

from __future__ import annotations

import threading
from collections import Counter

from attrs import define, field, frozen

from tests.system.clients import Answer
from tests.system.contents import Octets
from tests.system.harness import Node
from tests.system.origins import Hold, Origin, Reply, Seen

ROUNDS = 10
"""New connections per question: that one of two workers gets none of them happens once in 512 runs."""


@frozen
class Page:
    """One URL with its tags; ``padding`` octets bring its content to where it lies in the store."""

    target: str
    tags: str = ""
    padding: int = 0
    cache_control: str = "max-age=86400"


@define(eq=False)
class VersionedOrigin:
    """
    Serves each page as version ``version``, with an ETag that says so, fresh for a day.

    :ivar age: seconds that each reply says it has lain elsewhere.
    :ivar hold: applies to the replies of the version that it was set at.
    :ivar host: address at which the origin is.
    """

    pages: dict[str, Page]
    version: int = 1
    age: int = 0
    hold: Hold | None = None
    host: str = "127.0.0.1"
    origin: Origin = field(init=False)
    _lock: threading.Lock = field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.origin = Origin(self._reply, host=self.host)

    def _reply(self, seen: Seen) -> Reply | None:
        page = self.pages.get(seen.target)
        if page is None:
            return None
        with self._lock:
            version, hold = self.version, self.hold
        return Reply(
            Octets(content_of(page, version)),
            fields=(
                ("Content-Type", "text/plain"),
                ("Cache-Control", page.cache_control),
                ("Surrogate-Key", page.tags),
                *([("Age", str(self.age))] if self.age else ()),
            ),
            etag=f'"v{version}"',
            hold=hold,
        )

    def publish(self, hold: Hold | None = None) -> int:
        """The next version of every page."""
        with self._lock:
            self.version += 1
            self.hold = hold
            return self.version


def content_of(page: Page, version: int) -> bytes:
    """Every octet depends on the version, so that a mixture of two is seen."""
    return f"{page.target} version {version};".encode() + bytes([version % 251]) * page.padding


def version_of(page: Page, answer: Answer) -> int:
    """
    Which version this is.

    :raises AssertionError: it is none, or not all of one.
    """
    words = answer.content.partition(b";")[0].split()
    if answer.status != 200 or len(words) != 3:
        raise AssertionError(f"{page.target}: {answer}")
    version = int(words[2])
    if answer.content != content_of(page, version):
        raise AssertionError(f"{page.target}: not all of version {version}: {answer}")
    return version


def versions_seen(node: Node, page: Page, rounds: int = ROUNDS) -> set[int]:
    """All versions that so many new connections were given."""
    return {version_of(page, node.ask(page.target)) for _ in range(rounds)}


def requests_by_worker(node: Node) -> Counter[str]:
    """What /metrics says that each worker has answered."""
    counted: Counter[str] = Counter()
    for line in node.admin("GET", "/metrics", token=False).content.decode().splitlines():
        name, _, labels = line.partition("{")
        if name == "edgecache_requests_total":
            worker = labels.partition('worker="')[2].partition('"')[0]
            counted[worker] += round(float(line.split()[-1]))
    return counted
