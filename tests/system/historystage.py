"""Real nodes in network namespaces before an origin that publishes, for histories; what they serve is known by key."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from edgecache.rules.membership import Membership
from edgecache.siblings.certificates import make_node
from tests.system import processes
from tests.system.contents import Octets
from tests.system.delaying import DelayingProcess
from tests.system.fleet import Fleet
from tests.system.fleetcase import UNLIMITED
from tests.system.history import Begun, Keeper, Uploaded, now
from tests.system.namespaces import Network
from tests.system.origins import BEFORE_HEAD, Hold, Reply, Seen
from tests.system.packages import Package, wheel
from tests.system.serial_index import SerialIndex
from tests.system.versions import Page, content_of

PLAIN_HOST = "plain.example"
PLAIN_PAGES = (
    Page("/v/small", "red"),
    Page("/v/large", "red blue", padding=80_000),
    Page("/v/deep/other", "blue", padding=5_000),
)
PROJECTS = ("alpha", "beta", "gamma")
LIST = "list"
_FILES = tuple(
    tuple(wheel(name, f"{number}.0", padding=padding) for number, padding in enumerate((0, 60_000, 700_000, 1_300_000)))
    for name in PROJECTS
)
FILES: dict[str, tuple[Package, ...]] = dict(zip(PROJECTS, _FILES, strict=True))

# Five nodes are more than most machines have CPUs for: calls that come too late cost new ones.
_LEASES = {3: 2.0, 5: 5.0}
_PACE = "pull_seconds = {}\ncall_seconds = {}\nlease_seconds = {}"
SETTLED_SECONDS = 1.5
RECOVERY_SECONDS = 8.0
_UPSTREAM = "[upstream]\neject_seconds = 1.0\neject_longest_seconds = 2.0\nslow_start_seconds = 2.0"
_SITES = """purged = true
page_fill = "{page_fill}"
[[site]]
name = "plain"
profile = "plain"
hosts = ["{plain}"]
origins = ["{origin}"]
purged = true
fill = "{fill}"
"""


def page_key(project: str) -> str:
    """Of a project's page, in all its forms."""
    return f"page {project}"


def releases_key(project: str) -> str:
    """Of a project's releases document."""
    return f"releases {project}"


def plain_key(page: Page) -> str:
    return f"plain {page.target}"


def look_of(rows: Any) -> str:
    """What stands for the entries of a page or a list."""
    return hashlib.blake2b(repr(sorted(rows)).encode(), digest_size=8).hexdigest()


class Publication(SerialIndex):
    """
    The origin: an index, and pages with versions beside it.

    :ivar hang: while it is there, requests wait for it.
    """

    def __init__(self, host: str, keeper: Keeper) -> None:
        super().__init__(host=host)
        self.hang: Hold | None = None
        self._keeper = keeper
        self._publishing = threading.Lock()
        self._versions = dict.fromkeys(PLAIN_PAGES, 0)
        self._rounds = {name: itertools.count(1) for name in PROJECTS}
        self._yanked: dict[str, dict[str, str]] = {name: {} for name in PROJECTS}

    def _answer(self, seen: Seen) -> Reply | None:
        path = seen.target.partition("?")[0]
        page = next((page for page in PLAIN_PAGES if page.target == path), None)
        reply = super()._answer(seen) if page is None else self._plain(page)
        if reply is not None:
            reply.hold = self.hang
        return reply

    def _plain(self, page: Page) -> Reply:
        version = self._versions[page]
        fields = (
            ("Content-Type", "text/plain"),
            ("Cache-Control", page.cache_control),
            ("Surrogate-Key", page.tags),
        )
        return Reply(Octets(content_of(page, version)), fields=fields, etag=f'"v{version}"')

    def begin(self) -> None:
        """First versions of everything."""
        for name in PROJECTS:
            self.publish(name)
        self.publish_plain(PLAIN_PAGES)

    def publish(self, project: str) -> int:
        """:return: the new serial."""
        with self._publishing:
            called = now()
            number = next(self._rounds[project])
            files, yanked = FILES[project], self._yanked[project]
            new = files if number == 1 else (files[number % len(files)],)
            yanked.update({package.filename: f"round {number}" for package in new})
            serial = self.upload(*new, yanked=f"round {number}")
            rows = [(package.filename, package.sha256, yanked[package.filename]) for package in files]
            keys = (page_key(project), releases_key(project), LIST)
            looks = {keys[0]: look_of(rows), keys[1]: "", LIST: look_of(self.serials().items())}
            self._keeper.keep(Uploaded(called, now(), dict.fromkeys(keys, serial), looks))
            return serial

    def publish_plain(self, pages: tuple[Page, ...]) -> None:
        """Their next versions."""
        with self._publishing:
            called = now()
            for page in pages:
                self._versions[page] += 1
            versions = {plain_key(page): self._versions[page] for page in pages}
            self._keeper.keep(Uploaded(called, now(), versions, dict.fromkeys(versions, "")))

    def hold(self) -> None:
        """Take requests from now on, and answer none."""
        self.hang = Hold(BEFORE_HEAD)

    def go_on(self) -> None:
        """Answer them, and those that wait."""
        hang, self.hang = self.hang, None
        if hang is not None:
            hang.release()


@frozen
class Setting:
    """What a seed decides before anything happens."""

    seed: int
    count: int
    workers: int
    fill: str
    page_fill: str
    cables: tuple[tuple[str, str], ...]

    @classmethod
    def drawn(cls, seed: int, count: int, *, workers: tuple[int, ...] = (0, 1, 2)) -> Setting:
        """:param workers: of each node; one of these."""
        chance = random.Random(seed)
        ids = [f"n{number + 1}" for number in range(count)]
        pairs = [(here, there) for here in ids for there in ids if here != there]
        return cls(
            seed,
            count,
            chance.choice(workers),
            chance.choice(("origin", "home")),
            chance.choice(("origin", "home")),
            tuple(sorted(chance.sample(pairs, count))),
        )

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.count} nodes, {self.workers} workers, fill from {self.fill}, pages from "
            f"{self.page_fill}"
        )


@define(eq=False)
class Stage:
    """
    All of it, running; ``close`` leaves nothing but the records.

    :ivar long: processes whose cables can be made longer, by the node that calls.
    """

    setting: Setting
    directory: Path
    keeper: Keeper
    publication: Publication
    network: Network
    fleet: Fleet
    long: dict[str, DelayingProcess] = field(factory=dict)

    @classmethod
    def open(cls, setting: Setting, directory: Path) -> Stage:
        """:param directory: for the records and the nodes."""
        lease = _LEASES[setting.count]
        keeper = Keeper(directory / "history.ndjson")
        network = Network([f"n{number + 1}" for number in range(setting.count)])
        publication = Publication(network.origin, keeper)
        try:
            publication.start()
            publication.begin()
            fleet = Fleet(
                directory,
                setting.count,
                publication.url,
                workers=setting.workers,
                profile="index",
                host=network.sibling,
                site=_SITES.format(
                    plain=PLAIN_HOST, origin=publication.url, fill=setting.fill, page_fill=setting.page_fill
                ),
                siblings=_PACE.format(lease / 8, 3 * lease / 8, lease),
                more=f"{UNLIMITED}\n{_UPSTREAM}",
                of=lambda name: {"host": network.host(name), "prefix": network.prefix(name)},
            )
        except BaseException:
            publication.stop()
            network.end()
            raise
        stage = cls(setting, directory, keeper, publication, network, fleet)
        try:
            stage._lay_cables()
            fleet.start()
        except BaseException:
            stage.close()
            raise
        bound = Membership.of("n1", fleet.ids, lease_seconds=lease).bound_seconds
        keeper.keep(Begun(setting.seed, fleet.ids, bound, SETTLED_SECONDS, RECOVERY_SECONDS))
        return stage

    def _lay_cables(self) -> None:
        """Calls and look-ups of these pairs go through a proxy in the namespace of the caller."""
        moment = datetime.datetime.now(datetime.UTC)
        for name in self.fleet.ids:
            make_node(self.fleet.certificates, moment, name, [self.network.sibling(name), "127.0.0.1"], force=True)
        for here in self.fleet.ids:
            behind = {}
            file = self.fleet.configuration(here)
            text = file.read_text()
            for there in [there for caller, there in self.setting.cables if caller == here]:
                host = self.network.sibling(there)
                for where in {word.split('"')[0] for word in text.split("https://") if word.startswith(f"{host}:")}:
                    port = processes.free_port()
                    behind[port] = where
                    text = text.replace(f"https://{where}", f"https://127.0.0.1:{port}")
            if behind:
                file.write_text(text)
                self.long[here] = DelayingProcess(self.network.prefix(here), behind)
        for process in self.long.values():
            process.wait_ready()

    def close(self) -> None:
        self.publication.go_on()
        self.fleet.end()
        for process in self.long.values():
            process.end()
        self.publication.stop()
        self.network.end()


def new_directory() -> Path:
    """For one history; who made it removes it, or tells where it is."""
    return Path(tempfile.mkdtemp(prefix="edgecache-history-"))
