"""Several real nodes with certificates of one CA, on loopback."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson

from edgecache.siblings.certificates import make_ca, make_node
from tests.system import processes
from tests.system.harness import Node


class Voter(Node):
    """The process that only votes: nothing about clients, content or origins is said on its command line."""

    def __init__(self, root: Path, arguments: tuple[str, ...]) -> None:
        super().__init__(root, workers=0)
        self._arguments = [
            "--admin",
            self.admin_url.removeprefix("http://"),
            "--data",
            str(self.data),
            *arguments,
        ]


class Fleet:
    """
    Nodes ``n1``, ``n2`` and so on, all siblings; and perhaps a voter ``v``.

    :ivar ids: of the nodes that serve.
    :ivar nodes: by id, those that serve.
    :ivar voter: ``None`` without.
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
        voter: bool = False,
        of: Callable[[str], dict[str, Any]] = lambda name: {},
        **options: Any,
    ) -> None:
        """
        :param host: where each node is reached by the others.
        :param site: more lines of ``[[site]]``.
        :param siblings: more lines of ``[siblings]``.
        :param more: more lines of the file: tables. A voter has none of them.
        :param of: more options of each node.
        """
        self._root = root
        self.ids = [f"n{number + 1}" for number in range(count)]
        self.certificates = certificates = root / "certificates"
        now = datetime.datetime.now(datetime.UTC)
        make_ca(certificates, now)
        self._host = host
        members = [*self.ids, "v"] if voter else self.ids
        self._ports = {name: (processes.free_port(), processes.free_port()) for name in members}
        for name in members:
            make_node(certificates, now, name, [host(name)])
            (root / name).mkdir(parents=True)
        arguments = {name: ("--config", str(self.configuration(name)), "--node", name) for name in members}
        self.nodes: dict[str, Node] = {
            name: Node(root / name, *origins, workers=workers, arguments=arguments[name], **options, **of(name))
            for name in self.ids
        }
        self.voter = Voter(root / "v", arguments["v"]) if voter else None
        for name in self.ids:
            control, content = self._ports[name]
            listen = f'[listen]\nsiblings = ["{host(name)}:{control}"]\ncontent = ["{host(name)}:{content}"]'
            self._write(name, [more, listen, f"[[site]]\n{site}" if site else ""], siblings)
        if voter:
            listen = f'[listen]\nsiblings = ["{host("v")}:{self._ports["v"][0]}"]'
            self._write("v", [listen], f"voter = true\n{siblings}")

    def _write(self, name: str, tables: list[str], siblings: str) -> None:
        """The file of one member."""
        text = [
            *tables,
            "[siblings]",
            f'ca = "{self.certificates}/ca.pem"',
            f'certificate = "{self.certificates}/{name}.pem"',
            f'key = "{self.certificates}/{name}.key"',
            siblings,
        ]
        for other in self._ports:
            if other == name:
                continue
            host, (control, content) = self._host(other), self._ports[other]
            text += ["[[sibling]]", f'id = "{other}"', f'control_url = "https://{host}:{control}"']
            if other in self.nodes:
                text += [f'content_url = "https://{host}:{content}"', f'public_url = "{self.nodes[other].url}"']
            else:
                text.append("voter = true")
        self.configuration(name).write_text("\n".join(text) + "\n")

    @property
    def members(self) -> list[Node]:
        """All of them, the voter as well."""
        return [*self.nodes.values(), *([] if self.voter is None else [self.voter])]

    def ports(self, name: str) -> tuple[int, int]:
        """Of control calls, and of look-ups of content."""
        return self._ports[name]

    def configuration(self, name: str) -> Path:
        """The file of one node."""
        return self._root / name / "edgecache.toml"

    def start(self) -> Fleet:
        """All of them; returns when each has a lease."""
        for node in self.members:
            node.launch()
        for node in self.members:
            node.wait_ready()
        for node in self.members:
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

    def wait_agreed(self, names: Iterable[str] = ()) -> None:
        """Until all, or these, have the same."""
        among = [self.nodes[name] for name in names] or self.members
        found: list[dict[str, int]] = []

        def agree() -> bool:
            found[:] = [self.positions(node) for node in among]
            return all(each == found[0] for each in found)

        try:
            processes.until(agree, "the same positions on every node")
        except processes.NeverHappened as failure:
            raise AssertionError(f"{failure}: {found}") from failure

    def end(self) -> None:
        for node in self.members:
            node.end()
