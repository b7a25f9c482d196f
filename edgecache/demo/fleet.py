"""The demo's processes: origins and nodes on loopback, certified and configured as an operator does it."""

from __future__ import annotations

import datetime
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from attrs import define, field, frozen

from edgecache.admin.address import ADMIN_FILE
from edgecache.demo.wheels import filename, wheel
from edgecache.siblings.certificates import make_ca, make_node
from edgecache.words.errors import EdgeError

_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_ASK_SECONDS = 30.0
_LOOK_SECONDS = 0.05
_TWISTD = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "edgecache")


@define(eq=False, repr=False)
class DemoFailed(EdgeError):
    """What was to be shown did not happen. :ivar problem: what did."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@frozen
class Reply:
    """:ivar seconds: from the request to its last octet."""

    status: int
    fields: dict[str, str]
    content: bytes
    seconds: float


def ask(
    url: str, target: str, *, method: str = "GET", fields: dict[str, str] | None = None, content: bytes | None = None
) -> Reply:
    """
    One request on a connection of its own.

    :raises OSError: nobody answers.
    """
    began = time.monotonic()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_ASK_SECONDS)
    try:
        connection.request(method, target, content, fields or {})
        answer = connection.getresponse()
        octets = answer.read()
    finally:
        connection.close()
    named = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, named, octets, time.monotonic() - began)


def environment() -> dict[str, str]:
    """:return: this process's, without what says where packages come from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "EDGECACHE_"))}
    # The package may lie where only this process's search path leads.
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PYTHONPATH": paths}


@define(eq=False, repr=False)
class Child:
    """A process of the demo's; its output is in a file."""

    name: str
    command: list[str]
    directory: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # An interrupt at the terminal is for us, who then end them one by one.
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """To it and to what it has started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """It has ended when this returns."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def require_alive(self) -> None:
        """:raises DemoFailed: it is not."""
        if self._process is None or self._process.poll() is not None:
            last = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise DemoFailed(f"{self.name} has ended; {self.log} ends with:\n{last}")


@define(eq=False, repr=False)
class Node:
    """One of the three."""

    id: str
    child: Child
    url: str
    admin: str
    data: Path

    @property
    def token_file(self) -> Path:
        return self.data / ADMIN_FILE

    def call(self, method: str, target: str, document: Any = None) -> dict[str, Any]:
        """
        :return: what its admin API answers.
        :raises DemoFailed: it refuses.
        :raises OSError: it does not answer.
        """
        fields = {"Authorization": f"Bearer {self.token_file.read_text().strip()}", "Content-Type": "application/json"}
        content = None if document is None else orjson.dumps(document)
        reply = ask(self.admin, target, method=method, fields=fields, content=content)
        if reply.status >= 300:
            raise DemoFailed(f"{self.id}: {method} {target}: {reply.status} {reply.content.decode(errors='replace')}")
        found: dict[str, Any] = orjson.loads(reply.content)
        return found

    def unanswered(self) -> int:
        """:return: how often it has asked a sibling for content and got no answer in time."""
        counters = self.call("GET", "/status")["counters"]
        return int(counters["sibling_asks"] - counters["sibling_answers"])

    def is_member(self) -> bool:
        """:return: does it serve, and is it told of every purge?"""
        self.child.require_alive()
        try:
            status = self.call("GET", "/status")
        except (OSError, DemoFailed):
            return False
        return bool(status["node"]["ready"]) and not status["purges"]["fenced"]


@define(eq=False, repr=False)
class Fleet:
    """
    Three nodes before two origins; to be used in a ``with`` statement, at whose end nothing of it runs any more.

    :ivar root: everything is below it.
    """

    root: Path
    nodes: list[Node] = field(factory=list)
    origins: dict[str, Child] = field(factory=dict)
    _ends: ExitStack = field(factory=ExitStack)

    def __enter__(self) -> Fleet:
        try:
            self._begin()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @property
    def wheels(self) -> Path:
        """Directory of what the index has."""
        return self.root / "wheels"

    def upload(self, version: str) -> None:
        """The index has that version from now on."""
        (self.wheels / filename(version)).write_bytes(wheel(version))

    def asked(self, target: str) -> int:
        """:return: how many requests for it the index has seen."""
        return self.origins["origin-2"].log.read_text().split("\n").count(f"GET {target}")

    def _begin(self) -> None:
        self.wheels.mkdir(parents=True)
        self.upload("1.0")
        hanging, index = _ports(2)
        python = sys.executable
        origin = [python, "-m", "edgecache.demo.origin"]
        self._start("origin-1", [*origin, f"{_HOST}:{hanging}"])
        self._start("origin-2", [*origin, f"{_HOST}:{index}", str(self.wheels)])
        wait_for(lambda: _listens(hanging) and _listens(index), "the origins")
        certificates, now = self.root / "certs", datetime.datetime.now(datetime.UTC)
        make_ca(certificates, now)
        ids = ("eu", "us", "ap")
        ports = {name: _ports(4) for name in ids}
        for name in ids:
            make_node(certificates, now, name, [_HOST])
        for name in ids:
            public, admin, control, content = ports[name]
            directory = self.root / name
            directory.mkdir()
            lines = [
                f'[node]\nid = "{name}"\nregion = "{name}"\nworkers = 1',
                f'[listen]\npublic = ["{_HOST}:{public}"]\nadmin = ["{_HOST}:{admin}"]',
                f'siblings = ["{_HOST}:{control}"]\ncontent = ["{_HOST}:{content}"]',
                '[store]\nsize = "256MiB"',
                f'[[site]]\nprofile = "index"\norigins = ["http://{_HOST}:{hanging}", "http://{_HOST}:{index}"]',
                'policy = "ordered"\npurged = true',
                f'[siblings]\nca = "{certificates}/ca.pem"',
                f'certificate = "{certificates}/{name}.pem"\nkey = "{certificates}/{name}.key"',
            ]
            for other in ids:
                if other != name:
                    urls = [f"https://{_HOST}:{port}" for port in ports[other][2:]]
                    lines.append(f'[[sibling]]\nid = "{other}"\nregion = "{other}"')
                    lines.append(f'control_url = "{urls[0]}"\ncontent_url = "{urls[1]}"')
                    lines.append(f'public_url = "http://{_HOST}:{ports[other][0]}"')
            (directory / "edgecache.toml").write_text("\n".join(lines) + "\n")
            child = self._start(name, [python, *_TWISTD, "--config", "edgecache.toml"], directory)
            data = directory / "edgecache-data"
            self.nodes.append(Node(name, child, f"http://{_HOST}:{public}", f"http://{_HOST}:{admin}", data))
        for node in self.nodes:
            wait_for(node.is_member, f"node {node.id}")

    def _start(self, name: str, command: list[str], directory: Path | None = None) -> Child:
        child = Child(name, command, directory or self.root)
        child.start()
        self._ends.callback(child.stop)
        if name.startswith("origin"):
            self.origins[name] = child
        return child


def wait_for(look: Callable[[], object], what: str, seconds: float = _START_SECONDS) -> None:
    """
    Until ``look`` says yes.

    :raises DemoFailed: it has not for so long.
    """
    until = time.monotonic() + seconds
    while not look():
        if time.monotonic() > until:
            raise DemoFailed(f"{what}: nothing after {seconds:g} s")
        time.sleep(_LOOK_SECONDS)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), 1.0).close()
    except OSError:
        return False
    return True


def _ports(count: int) -> list[int]:
    """Free ones: held together, so that they differ."""
    with ExitStack() as held:
        sockets: Iterable[socket.socket] = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind((_HOST, 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
