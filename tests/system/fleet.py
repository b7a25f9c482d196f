"""Several real nodes with certificates of one CA, on loopback."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from edgecache.siblings.certificates import make_ca, make_node
from tests.system import processes
from tests.system.harness import Node


class Fleet:
    """
    Nodes ``n1``, ``n2`` and so on, all siblings.

    :ivar nodes: by id.
    :ivar certificates: where they lie, with their keys and the CA's.
    """

    def __init__(
        self,
        root: Path,
        count: int,
        *origins: str,
        workers: int = 0,
        host: Callable[[str], str] = lambda name: "127.0.0.1",
        site: str = "",
        siblings: str = "",
        more: str = "",
        of: Callable[[str], dict[str, Any]] = lambda name: {},
        **options: Any,
    ) -> None:
        """
        :param host: where each node is reached by the others.
        :param site: more lines of ``[[site]]``.
        :param siblings: more lines of ``[siblings]``.
        :param more: more lines of the file: tables.
        :param of: more options of each node.
        """
        self._root = root
        self.ids = [f"n{number + 1}" for number in range(count)]
        self.certificates = certificates = root / "certificates"
        now = datetime.datetime.now(datetime.UTC)
        make_ca(certificates, now)
        ports = {name: (processes.free_port(), processes.free_port()) for name in self.ids}
        for name in self.ids:
            make_node(certificates, now, name, [host(name)])
        self.nodes: dict[str, Node] = {}
        for name in self.ids:
            text = [
                more,
                f'[listen]\nsiblings = ["{host(name)}:{ports[name][0]}"]\ncontent = ["{host(name)}:{ports[name][1]}"]',
                f"[[site]]\n{site}" if site else "",
                "[siblings]",
                f'ca = "{certificates}/ca.pem"',
                f'certificate = "{certificates}/{name}.pem"',
                f'key = "{certificates}/{name}.key"',
                siblings,
            ]
            for other in self.ids:
                if other != name:
                    control, content = ports[other]
                    text += [
                        "[[sibling]]",
                        f'id = "{other}"',
                        f'control_url = "https://{host(other)}:{control}"',
                        f'content_url = "https://{host(other)}:{content}"',
                    ]
            own = root / name
            own.mkdir(parents=True)
            self.configuration(name).write_text("\n".join(text) + "\n")
            arguments = ("--config", str(self.configuration(name)), "--node", name)
            self.nodes[name] = Node(own, *origins, workers=workers, arguments=arguments, **options, **of(name))

    def configuration(self, name: str) -> Path:
        """The file of one node."""
        return self._root / name / "edgecache.toml"

    def start(self) -> Fleet:
        """All of them; returns when each has a lease."""
        for node in self.nodes.values():
            node.launch()
        for node in self.nodes.values():
            node.wait_ready()
        for node in self.nodes.values():
            self.wait_leased(node)
        return self

    def wait_leased(self, node: Node) -> None:
        """Until it is a member and not fenced."""
        processes.until(lambda: self.status(node)["purges"]["fenced"] is False, "a lease")

    def status(self, node: Node) -> dict[str, Any]:
        """What the node says of itself."""
        answer = node.admin("GET", "/status")
        assert answer.status == 200, answer
        document: dict[str, Any] = orjson.loads(answer.content)
        return document

    def positions(self, node: Node) -> dict[str, int]:
        """How much of each log it has, by ``id/incarnation``; nothing of those that are empty."""
        logs = self.status(node)["purges"]["logs"]
        return {f"{log['node']}/{log['incarnation']}": log["position"] for log in logs if log["position"]}

    def wait_agreed(self) -> None:
        """Until all have the same."""
        found: list[dict[str, int]] = []

        def agree() -> bool:
            found[:] = [self.positions(node) for node in self.nodes.values()]
            return all(each == found[0] for each in found)

        try:
            processes.until(agree, "the same positions on every node")
        except processes.NeverHappened as failure:
            raise AssertionError(f"{failure}: {found}") from failure

    def end(self) -> None:
        for node in self.nodes.values():
            node.end()
