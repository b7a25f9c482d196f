"""A node as its operator starts it: ``twistd -n edgecache`` with a command line, real ports and a data directory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import edgecache
from edgecache.processes.nursery import NAME, WORKER_NAME
from tests.system import processes, warm
from tests.system.clients import Answer, ask
from tests.system.processes import until

# Where the package and its plugin lie: a checkout's root, or site-packages.
IMPORT_ROOT = Path(edgecache.__file__).resolve().parent.parent

_CHILDREN = {NAME.decode(), WORKER_NAME.decode()}
"""Forked from the node process, so with its command line."""
_LOOPBACK = "127.0.0.1"
# Commands that run another one, whose words are among their own.
_PREFIXES = ("unshare", "strace")


# twistd ends by the signal that stopped it, once everything is done; as PID 1 it cannot, and unshare says 128 + 15.
_CLEAN = (0, -signal.SIGTERM, 128 + signal.SIGTERM)


# A test run that is killed cleans nothing up; its nodes go with it. (setpriv becomes the command: the pid stays.)
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


# Whoever is held by a test, or not given a turn by the machine, is waited for.
UNHURRIED = """
[upstream]
connect_seconds = 300.0
next_address_seconds = 300.0
tls_seconds = 300.0
head_seconds = 300.0
stall_seconds = 300.0
first_byte_seconds = 300.0
hedge_share = 0.0
"""


class NodeDied(AssertionError):
    """The node ended by itself; its log is the message."""


class Node:
    """
    One node on loopback. ``start`` returns when ``/readyz`` says so; ``kill`` is what a power cut does to processes.

    A node that was stopped or killed starts again with the same ports and data directory.

    :ivar prefix: words before ``twistd``, such as ``unshare --pid`` or ``strace -f``.
    :ivar cold: executed as a command also in tests, whose other nodes are forked, for a second less of CPU
        (:mod:`tests.system.warm`). Nodes with a prefix are executed as well, and all that are not a test's.
    """

    def __init__(
        self,
        root: Path,
        *origins: str,
        profile: str = "plain",
        workers: int = 2,
        size: str = "1GiB",
        arguments: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
        host: str = _LOOPBACK,
        cold: bool = False,
    ) -> None:
        """:param host: where it listens for clients and operators."""
        self.root = root
        self.data = root / "data"
        self.log_path = root / "node.log"
        self.prefix = prefix
        self.cold = cold
        self.workers = workers
        self._host = host
        self._port = processes.free_port()
        self._admin_port = processes.free_port()
        self._arguments = [
            *(word for origin in origins for word in ("--origin", origin)),
            *("--profile", profile, "--listen", f"{host}:{self._port}", "--admin", f"{host}:{self._admin_port}"),
            *("--data", str(self.data), "--workers", str(workers), "--size", size),
            *arguments,
        ]
        self._process: subprocess.Popen[bytes] | warm.Process | None = None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def admin_url(self) -> str:
        return f"http://{self._host}:{self._admin_port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def words(self) -> list[str]:
        """The command that starts it, without a prefix."""
        return [str(Path(sys.executable).with_name("twistd")), "-n", "edgecache", *self._arguments]

    @property
    def leader(self) -> int:
        """The process that was started; the node process, unless there is a prefix."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Node:
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            if warm.is_on() and not (self.cold or self.prefix):
                self._process = warm.start(self.words, cwd=self.root, env=environment(), output=log)
                return
            self._process = subprocess.Popen(
                [*_DIE_WITH_US, *self.prefix, *self.words],
                cwd=self.root,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own, by which its processes are found even after the first has died.
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        until(self._ready, f"{self.admin_url}/readyz of the node")

    def _ready(self) -> bool:
        self.require_alive()
        # Only on loopback it is everybody's.
        token = self._host != _LOOPBACK
        if token and not self._token_path.exists():
            return False
        try:
            return self.admin("GET", "/readyz", token=token, seconds=5).status == 200
        except OSError:
            return False

    def require_alive(self) -> None:
        """
        :raises NodeDied: it is gone.
        """
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise NodeDied(f"exit status {status}\n{self.log[-4000:]}")

    def has_failed(self) -> bool:
        """
        Has it ended by itself, with status 1?

        :raises NodeDied: it has ended otherwise.
        """
        try:
            self.require_alive()
        except NodeDied as died:
            if "exit status 1\n" in str(died):
                return True
            raise
        return False

    def family(self) -> list[int]:
        """Every process of this node."""
        return processes.family(self.leader)

    def worker_pids(self) -> list[int]:
        return [pid for pid in self.family() if processes.name(pid) == WORKER_NAME.decode()]

    def twistd_pid(self) -> int:
        """The node process itself."""
        for pid in self.family():
            line = processes.command_line(pid)
            known = processes.name(pid) in _CHILDREN or os.path.basename(line.split(" ")[0]) in _PREFIXES
            if "twistd" in line and not known:
                return pid
        raise NodeDied(self.log[-4000:])

    def stop(self) -> None:
        """
        SIGTERM, and wait until it has ended cleanly.

        :raises AssertionError: it does not end, or not as it should.
        """
        assert self._process is not None
        if self._process.poll() is None:
            # It may end just now, for a signal that it was sent before.
            with contextlib.suppress(NodeDied, ProcessLookupError):
                os.kill(self.twistd_pid(), signal.SIGTERM)
            try:
                self._process.wait(120)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"SIGTERM did not end the node\n{self.log[-4000:]}") from None
        if self._process.wait() not in _CLEAN:
            raise AssertionError(f"exit status {self._process.returncode} after SIGTERM\n{self.log[-4000:]}")

    def kill(self, order: random.Random | None = None) -> None:
        """SIGKILL to all its processes by pid, in an order drawn from ``order``; returns when they are gone."""
        assert self._process is not None
        victims = self.family()
        if order is not None:
            order.shuffle(victims)
        processes.kill_now(victims)
        self._process.wait()
        until(lambda: not self._rest_of(victims), "the end of killed processes")

    def _rest_of(self, victims: list[int]) -> list[int]:
        """
        Those still there, and what they may have started while dying, killed again.
        """
        rest = [*self.family(), *(pid for pid in victims if processes.command_line(pid))]
        processes.kill_now(rest)
        return rest

    def end(self) -> None:
        """For cleanups: gone, whatever state it is in."""
        if self._process is not None:
            self.kill()

    def ask(self, target: str, **options: Any) -> Answer:
        """:func:`tests.system.clients.ask` on the public listener."""
        return ask(self.url, target, **options)

    def admin(
        self, method: str, target: str, document: Any = None, *, token: bool = True, seconds: float = 120.0
    ) -> Answer:
        """The admin listener, with the token of the first start."""
        fields = {"Authorization": f"Bearer {self.token}"} if token else {}
        content = None
        if document is not None:
            content = json.dumps(document).encode()
            fields["Content-Type"] = "application/json"
        return ask(self.admin_url, target, method=method, fields=fields, content=content, seconds=seconds)

    @property
    def token(self) -> str:
        return self._token_path.read_text().strip()

    @property
    def _token_path(self) -> Path:
        return self.data / "admin.token"

    def purge(self, **document: Any) -> Answer:
        """
        POST /purge, and see that it was taken and is complete (a lone node's always is).

        :raises AssertionError: it was refused.
        """
        answer = self.admin("POST", "/purge?wait=complete&timeout=60", document)
        if answer.status != 200:
            raise AssertionError(f"purge {document}: {answer.status} {answer.content!r}\n{self.log[-2000:]}")
        return answer

    def edgecache(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The operator's command line on this machine; how it ended is the caller's to judge."""
        command = [sys.executable, "-c", "from edgecache.cli import main; main()"]
        return subprocess.run(
            [*command, "--admin", self.admin_url, "--data", str(self.data), *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def unhurried(root: Path) -> tuple[str, ...]:
    """:return: arguments of a node that waits for its origins; ``root`` is for their file."""
    file = root / "unhurried.toml"
    file.write_text(UNHURRIED)
    return "--config", str(file)


def environment() -> dict[str, str]:
    """The test's, with the package importable, and without any setting of pip or uv of this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    # A node is three processes: where nobody keeps compiled modules, each would compile ours anew at every start.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    compiled = kept.get("PYTHONPYCACHEPREFIX") or os.path.join(tempfile.gettempdir(), f"edgecache-tests-{os.getuid()}")
    return {
        **kept,
        "PYTHONPATH": str(IMPORT_ROOT),
        "PYTHONPYCACHEPREFIX": compiled,
        "PIP_CONFIG_FILE": os.devnull,
        "PYTHONUNBUFFERED": "1",
    }
