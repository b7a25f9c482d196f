"""What ``edgecache demo`` shows, step by step, with what was measured; each claim is checked while it is made."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import orjson
from attrs import define, field

from edgecache.demo.fleet import DemoFailed, Fleet, Node, Reply, ask, environment, wait_for
from edgecache.demo.wheels import MODULE, PROJECT, filename, wheel
from edgecache.rules.siblinghood import PATIENCE_SECONDS

Out = Callable[[str], None]
"""Takes one line."""

_PAGE = f"/simple/{PROJECT}/"
_JSON = "application/vnd.pypi.simple.v1+json"
_INSTALL_SECONDS = 120


@define(eq=False, repr=False)
class Story:
    """
    Told once.

    :ivar pip: install with pip; without, what it would ask for is asked.
    """

    _fleet: Fleet
    _say: Out
    pip: bool = True
    _step: int = field(init=False, default=0)

    def tell(self) -> None:
        """:raises DemoFailed: something is not as it is said to be."""
        eu, us, ap = self._fleet.nodes
        self._say(f"Three nodes (eu {eu.url}, us {us.url}, ap {ap.url})")
        self._say("before two origins: one takes requests and never answers, the other is an index.")
        self._hung_origin(eu)
        self._one_fetch(us, ap)
        self._upload(eu)
        self._hung_sibling(us, ap)
        self._outage()

    def _hung_origin(self, eu: Node) -> None:
        self._title(f"An origin hangs: the first install through {eu.id} meets it, and gets its package")
        self._install(eu, "1.0")
        reply = self._page(eu)
        self._say(f"  the page again: {reply.seconds * 1000:.0f} ms, Cache-Status: {reply.fields['cache-status']}")
        down = [upstream for upstream in eu.call("GET", "/status")["upstreams"] if not upstream["healthy"]]
        for upstream in down:
            self._say(f"  {upstream['origin']} is out until a probe gets a body out of it: {upstream['detail']}")
        self._require(len(down) == 1, "one origin is known to hang")

    def _one_fetch(self, us: Node, ap: Node) -> None:
        self._title("One fetch for the whole fleet: the same through the others, which find out about that origin")
        for node in (us, ap):
            self._install(node, "1.0")
        asked = self._fleet.asked(f"/files/{filename('1.0')}")
        # A node that is silent is not waited for, and on a machine that stands still a well one is.
        silent = sum(node.unanswered() for node in self._fleet.nodes)
        self._require(1 <= asked <= 1 + silent, f"the index was asked for the wheel once, not {asked} times")
        times = "once" if asked == 1 else f"{asked} times"
        self._say(f"  three nodes have the wheel, and the index was asked for it {times}")
        if silent:
            self._say(
                f"  (a busy machine: {silent} times nobody waited for a node that was silent for {PATIENCE_SECONDS} s)"
            )
        page = self._page(ap)
        self._require("hit" in page.fields["cache-status"], "it is stored")
        self._say(f"  the page at {ap.id}: {page.seconds * 1000:.0f} ms, Cache-Status: {page.fields['cache-status']}")

    def _upload(self, eu: Node) -> None:
        self._title("An upload, and one POST /purge: from its answer on nobody anywhere gets the old page")
        self._fleet.upload("1.1")
        answer, seconds = self._purge(eu, "complete")
        self._say(f"  purged at {eu.id}: {answer['state']} after {seconds * 1000:.0f} ms, {answer['applied']} have it")
        for node in self._fleet.nodes:
            self._require(self._versions(node) == ["1.0", "1.1"], f"{node.id} serves the new page")
        for node in self._fleet.nodes:
            self._install(node, "1.1")

    def _hung_sibling(self, us: Node, ap: Node) -> None:
        self._title(f"A node stands still while something is purged: {ap.id} is stopped (SIGSTOP)")
        ap.child.signal(signal.SIGSTOP)
        self._fleet.upload("2.0")
        answer, seconds = self._purge(us, "durable")
        self._require(ap.id in answer["pending"], f"the answer names {ap.id}")
        bound = answer["effective_by"] - time.time()
        self._say(
            f"  purged at {us.id}: {answer['state']} after {seconds * 1000:.0f} ms, pending: {answer['pending']};"
        )
        self._say(f"  whatever happens to {ap.id}, it serves nothing older as fresh in {bound:.1f} s")
        self._require(self._versions(us)[-1] == "2.0", f"{us.id} serves the new page")
        ap.child.signal(signal.SIGCONT)
        began = time.monotonic()
        wait_for(lambda: self._state(us, answer["id"]) == "complete", "the purge at every node")
        self._say(f"  {ap.id} goes on and has caught up after {time.monotonic() - began:.1f} s: complete")
        self._install(ap, "2.0")

    def _outage(self) -> None:
        self._title("The last origin is ended: what is stored is served on")
        self._fleet.origins["origin-2"].stop()
        for node in self._fleet.nodes:
            self._install(node, "2.0")

    def _title(self, text: str) -> None:
        self._step += 1
        self._say("")
        self._say(f"{self._step}. {text}")

    def _require(self, claim: bool, what: str) -> None:
        if not claim:
            raise DemoFailed(f"step {self._step}: not so: {what}; logs are below {self._fleet.root}")

    def _page(self, node: Node) -> Reply:
        reply = ask(node.url, _PAGE, fields={"Accept": _JSON})
        self._require(reply.status == 200, f"{node.id} has the page: {reply.status}")
        return reply

    def _versions(self, node: Node) -> list[str]:
        versions: list[str] = orjson.loads(self._page(node).content)["versions"]
        return versions

    def _purge(self, node: Node, wait: str) -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        answer = node.call("POST", f"/purge?wait={wait}&timeout=10", {"urls": [_PAGE]})
        return answer, time.monotonic() - began

    def _state(self, node: Node, purge_id: str) -> str:
        state: str = node.call("GET", f"/purge/{purge_id}")["state"]
        return state

    def _install(self, node: Node, version: str) -> None:
        """What of :data:`PROJECT` an installer gets through ``node`` is ``version``."""
        began = time.monotonic()
        if not self.pip:
            files = orjson.loads(self._page(node).content)["files"]
            newest = next(file for file in files if file["filename"] == filename(version))
            reply = ask(node.url, urljoin(_PAGE, newest["url"]))
            self._require(reply.content == wheel(version), f"{node.id} has the wheel of {version}")
            self._say(f"  {version} through {node.id}: {time.monotonic() - began:.1f} s")
            return
        with tempfile.TemporaryDirectory(dir=self._fleet.root) as target:
            options = ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet", "--target", target]
            ran = subprocess.run(
                [sys.executable, "-m", "pip", "install", *options, "--index-url", f"{node.url}/simple/", PROJECT],
                env=environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_INSTALL_SECONDS,
                check=False,
            )
            self._require(ran.returncode == 0, f"pip installs through {node.id}: {ran.stderr[-1000:]}")
            said = (Path(target) / f"{MODULE}.py").read_text()
        self._require(version in said, f"pip installs {version} through {node.id}; it was {said!r}")
        self._say(f"  pip install {PROJECT} through {node.id}: {version}, {time.monotonic() - began:.1f} s")
