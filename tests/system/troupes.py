"""One node with two workers for a class of tests, each of which has a site and origins with a character of its own."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from tests.characters import Character
from tests.system.clients import Answer, Download
from tests.system.contents import Artifact
from tests.system.harness import Node
from tests.system.processes import until
from tests.system.stages import WHEEL, Role, Stages

FRESH = ((b"Cache-Control", b"max-age=600"),)
OCTETS = WHEEL.whole()

_SHOWN = ("state", "healthy", "reason", "ejections")


def site_table(name: str, policy: str, *origins: str) -> str:
    return (
        f'[[site]]\nname = "{name}"\nprofile = "plain"\nhosts = ["{name if name == "*" else name + ".test"}"]\n'
        f'policy = "{policy}"\norigins = {json.dumps(list(origins))}\n'
    )


@define(eq=False)
class Troupe:
    """
    One site of a node, and the origins behind it.

    :ivar roles: in configured order.
    :ivar urls: of the origins.
    """

    node: Node
    name: str
    roles: list[Role]
    urls: list[str]

    @property
    def host(self) -> str:
        return f"{self.name}.test"

    def ask(self, target: str, **options: Any) -> Answer:
        return self.node.ask(target, fields={"Host": self.host}, **options)

    def stored(self, target: str) -> Answer:
        """What the node has of it; 504 is nothing (RFC 9111 §5.2.1.7)."""
        return self.node.ask(target, fields={"Host": self.host, "Cache-Control": "only-if-cached"})

    def download(self, target: str, due: Artifact = WHEEL) -> Download:
        return Download(self.node.url, target, due, host=self.host)

    @property
    def asked(self) -> list[tuple[int, str, str]]:
        """Every request of the node, probes too: number of the origin, target, Range."""
        return [
            (self.roles.index(role), asked.target.decode(), asked.fields.get(b"range", b"").decode())
            for role, asked in self.roles[0].playbill
        ]

    def conditions(self) -> list[dict[str, Any]]:
        """What ``/status`` says of each, in configured order."""
        document = json.loads(self.node.admin("GET", "/status").content)
        found = {upstream["address"]: upstream for upstream in document["upstreams"]}
        return [found[role.where] for role in self.roles]

    def outcomes(self, number: int) -> Counter[str]:
        """What ``/metrics`` says of how exchanges with that origin ended."""
        return metrics(self.node, "upstream_outcomes_total", "outcome", origin=self.urls[number])


def metrics(node: Node, name: str, label: str, **wanted: str) -> Counter[str]:
    """:return: values of ``edgecache_NAME`` by ``label``, of the samples with the ``wanted`` labels."""
    found: Counter[str] = Counter()
    for line in node.admin("GET", "/metrics", token=False).content.decode().splitlines():
        matched = re.fullmatch(rf"edgecache_{name}\{{(.*)\}} (\S+)", line)
        if matched is not None:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', matched[1]))
            if wanted.items() <= labels.items():
                found[labels[label]] += int(float(matched[2]))
    return found


def of_workers(node: Node, name: str) -> Counter[str]:
    """:return: what each worker has counted."""
    return metrics(node, name, "worker")


class FailoverCase(SynchronousTestCase):
    """One node for all tests of a class; each test has a site of its own."""

    settings: ClassVar[str]
    sites: ClassVar[dict[str, str]]
    """Policy of each site, which has two origins."""
    stages: ClassVar[Stages]
    node: ClassVar[Node]
    troupes: ClassVar[dict[str, Troupe]]
    _directory: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        cls._directory = tempfile.TemporaryDirectory(prefix="edgecache-failover-")
        cls.addClassCleanup(cls._directory.cleanup)
        cls.stages = Stages()
        cls.addClassCleanup(cls.stages.close)
        root = Path(cls._directory.name)
        cls.node = Node(root / "node", arguments=("--config", str(root / "edgecache.toml")), prefix=cls.prefix(root))
        cls.addClassCleanup(cls.node.end)
        cls.troupes = {name: cls.cast(name) for name in cls.sites}
        tables = [site_table("*", "ordered", "http://127.0.0.1:9")]
        tables += [site_table(name, cls.sites[name], *troupe.urls) for name, troupe in cls.troupes.items()]
        (root / "edgecache.toml").write_text("\n".join((cls.settings, *tables)))
        cls.node.start()

    @classmethod
    def prefix(cls, root: Path) -> tuple[str, ...]:
        """Words before ``twistd``."""
        return ()

    @classmethod
    def cast(cls, name: str) -> Troupe:
        """Who plays on the site of that name: two origins of one address each."""
        roles = cls.stages.cast("127.0.0.1", "127.0.0.1")
        return Troupe(cls.node, name, roles, [f"http://{role.where}" for role in roles])

    def tearDown(self) -> None:
        self.assertNotIn("Traceback", self.node.log)

    def troupe(self, *parts: Character) -> Troupe:
        """The site of the test's name, played by ``parts``."""
        found = self.troupes[self._testMethodName.removeprefix("test_")]
        for role, part in zip(found.roles, parts, strict=True):
            role.part = part
        return found

    def ask_both_workers(self, troupe: Troupe, prefix: str) -> int:
        """
        Ask for one target after the other until each worker has asked an origin for some of them: every key has one
        worker that asks for it.

        :return: how many.
        """
        before = of_workers(self.node, "upstream_requests_total")
        for number in range(200):
            self.require_whole(troupe.ask(f"/{prefix}/{number}"))
            grown = of_workers(self.node, "upstream_requests_total") - before
            if len(grown) == 2 and min(grown.values()) >= 3:
                return number + 1
        raise AssertionError("one worker has asked for nothing")

    def require_whole(self, answer: Answer, octets: bytes = OCTETS) -> None:
        self.assertEqual((200, True, len(octets)), (answer.status, answer.complete, len(answer.content)), str(answer))
        self.assertTrue(answer.content == octets, "octets differ")

    def require_ejected(self, troupe: Troupe, outcome: str) -> None:
        """The first origin is out, and the other one is not."""
        bad, good = troupe.conditions()
        self.assertEqual(("ejected", False, outcome, 1), tuple(bad[key] for key in _SHOWN))
        self.assertEqual(("healthy", True, 0), (good["state"], good["healthy"], good["ejections"]))
        self.assertGreater(bad["next_probe_at"], bad["since"])
        self.assertIn(f"({troupe.roles[0].host}): healthy -> ejected: {outcome}; ", self.lines(troupe.roles[0])[0])

    def lines(self, role: Role) -> list[str]:
        """Of the node's log, about changes of state of that address."""
        name = f"upstream http://{role.where} ({role.host})"
        return [line for line in self.node.log.splitlines() if f"{name}: " in line and " -> " in line]

    def spread(self, troupe: Troupe, target: str) -> list[Download]:
        """:return: four downloads that have not begun: two at each worker. The kernel chooses; nobody can ask it."""
        kept: dict[str, list[Download]] = {}
        before = of_workers(self.node, "connections_total")
        while sum(map(len, kept.values())) < 4:
            download = troupe.download(target)
            accepted = until(lambda before=before: of_workers(self.node, "connections_total") - before, "a connection")
            before += accepted
            (worker,) = accepted
            if len(kept.setdefault(worker, [])) < 2:
                kept[worker].append(download)
            else:
                download.close()
        return [download for downloads in kept.values() for download in downloads]
