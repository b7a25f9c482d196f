"""
Network namespaces with nodes in them, and cables between them that a test can pull, in one direction too (root only).

Each node's namespace has two links: one to the test, which stays, and one to a bridge in a namespace of its own. The
namespaces have no names: each lives as long as a process that dies with the test.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess

from tests.system.processes import NeverHappened

DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Words before a command that is to die with the test."""

_TOOLS = ("ip", "bridge", "nsenter", "unshare", "setpriv")
_BRIDGE = "switch"

# Of a bridge's port: nothing passes, and nobody is told. A link that is down would be noticed at once.
_CUT, _WHOLE = "0", "3"

# A link address that nobody has: what is sent there is dropped by whoever gets it, and nobody is told.
_NOBODY = "02:00:00:00:00:00"


def unavailable() -> str:
    """Why there can be none here; empty when there can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", _BRIDGE, "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def can_lose() -> bool:
    """Can packets be lost here? That needs ``nft``, and a kernel that knows it."""
    if shutil.which("nft") is None:
        return False
    words = ["unshare", "--net", "nft", "add table inet loss"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


class _Namespace:
    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [*DIE_WITH_US, "unshare", "--net", "sh", "-c", "echo here; exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"here\n":
            raise NeverHappened("a network namespace")
        self._keeper.stdout.close()
        self.pid = self._keeper.pid
        self.prefix = ("nsenter", "--target", str(self.pid), "--net", "--")
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words: str) -> None:
        run(*self.prefix, *words)

    def end(self) -> None:
        self._keeper.kill()
        self._keeper.wait()


class Network:
    """A namespace for each of ``names``; all of them reach one another, and the test reaches each."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._spaces: dict[str, _Namespace] = {}
        self._losing: set[str] = set()
        self._switch = _Namespace()
        try:
            self._switch.run("ip", "link", "add", _BRIDGE, "type", "bridge")
            self._switch.run("ip", "link", "set", _BRIDGE, "up")
            self._net = _free_net()
            for number, name in enumerate(names):
                self._spaces[name] = self._plugged(number, name)
        except BaseException:
            self.end()
            raise

    def _plugged(self, number: int, name: str) -> _Namespace:
        space = _Namespace()
        try:
            own, switch = str(space.pid), str(self._switch.pid)
            # Names of links in the test's own namespace: unique by pid.
            here = f"ec{own}"
            run("ip", "link", "add", here, "type", "veth", "peer", "name", "test", "netns", own)
            run("ip", "address", "add", f"{self._net}.{4 * number + 1}/30", "dev", here)
            run("ip", "link", "set", here, "up")
            space.run("ip", "address", "add", f"{self.host(name)}/30", "dev", "test")
            space.run("ip", "link", "set", "test", "up")
            # The test's addresses on the other nodes' links.
            space.run("ip", "route", "add", f"{self._net}.0/24", "via", f"{self._net}.{4 * number + 1}")
            space.run("ip", "link", "add", "others", "type", "veth", "peer", "name", name, "netns", switch)
            self._switch.run("ip", "link", "set", name, "master", _BRIDGE, "up")
            space.run("ip", "address", "add", f"{self.sibling(name)}/24", "dev", "others")
            space.run("ip", "link", "set", "others", "up")
        except BaseException:
            space.end()
            raise
        return space

    def host(self, name: str) -> str:
        """Where the test reaches this node."""
        return f"{self._net}.{4 * self._names.index(name) + 2}"

    @property
    def origin(self) -> str:
        """Where all nodes reach the test."""
        return f"{self._net}.1"

    def sibling(self, name: str) -> str:
        """Where the others reach this node."""
        return f"10.0.0.{self._names.index(name) + 1}"

    def prefix(self, name: str) -> tuple[str, ...]:
        """Words before a command that is to run there; the process is the one that was started."""
        return self._spaces[name].prefix

    def cut(self, name: str) -> None:
        """Nothing passes between this node and the others, and none of them is told."""
        self._switch.run("bridge", "link", "set", "dev", name, "state", _CUT)

    def mute(self, speaker: str, *hearers: str) -> None:
        """What ``speaker`` sends to these is lost, and nobody is told; what they send to it arrives."""
        for hearer in hearers:
            where = ("to", self.sibling(hearer), "dev", "others")
            self._spaces[speaker].run("ip", "neighbor", "replace", *where, "lladdr", _NOBODY, "nud", "permanent")

    def lose(self, name: str, percent: int) -> None:
        """Of what this node and the others send each other, so many packets of a hundred are lost (if they can)."""
        ruleset = "\n".join(
            f"add table inet loss\nadd chain inet loss {hook} {{ type filter hook {hook} priority 0; }}\n"
            f"add rule inet loss {hook} {direction} others numgen random mod 100 < {percent} drop"
            for hook, direction in (("input", "iifname"), ("output", "oifname"))
        )
        run(*self.prefix(name), "nft", ruleset)
        self._losing.add(name)

    def heal(self) -> None:
        """All passes again."""
        for name in self._losing:
            run(*self.prefix(name), "nft", "delete table inet loss")
        self._losing.clear()
        for name, space in self._spaces.items():
            self._switch.run("bridge", "link", "set", "dev", name, "state", _WHOLE)
            space.run("ip", "neighbor", "flush", "dev", "others", "nud", "permanent")

    def end(self) -> None:
        """With its processes each namespace goes; a little later, if there is something to be said to one cut off."""
        for space in self._spaces.values():
            run("ip", "link", "delete", f"ec{space.pid}")
            space.end()
        self._switch.end()


def _free_net() -> str:
    """Of the range for measurements (RFC 2544), one that no other run of the same test has."""
    taken = subprocess.run(["ip", "-oneline", "address"], capture_output=True, text=True, check=True).stdout
    while True:
        net = f"198.{18 + random.randrange(2)}.{random.randrange(256)}"
        if f" {net}." not in taken:
            return net


def run(*words: str) -> None:
    """
    :raises AssertionError: it failed.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.returncode} {done.stderr.strip()}")
