"""
A process that nodes of tests are forked from: it has imported what each of them would import anew.

Most of the CPU that a start of a node costs is for imports, and the tests start 300: executed, ``tests/system`` takes
416 s of CPU, forked 265. So ``tests/conftest.py`` asks for it (:func:`switch_on`), and nobody else does: what measures
nodes is to have real ones. The first start in each process of tests then starts this one (``python warm.py TWISTD``),
which imports what can be without a reactor, a thread or a descriptor (:data:`PRELOADED`), and then forks whenever it is
asked to. What is forked becomes what ``twistd -n edgecache ...`` is when it begins: session, working directory,
environment, descriptors, signals, limits, name, command line of Python's, collector; then it runs ``twistd``. It ends
with this process, and this one with the tests.

Different from a command that is executed:

* modules are there that would come later or, in a worker, never; an import that is missing would not be missed;
* ``/proc/PID/cmdline`` and ``environ`` are this process's; RssAnon counts pages that are shared;
* all nodes of one test process hash text with one seed, and have their memory at the same addresses;
* what Python and the C library read when they begin (``PYTHON...``, ``LD_...``, umask) is of the first start.

A test about any of that has ``Node(cold=True)``; whatever has a prefix is executed anyhow; and with
``EDGECACHE_COLD=1`` all are (docs/TESTING.md).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from edgecache.processes import nursery
from edgecache.processes.memory import uncollected

PRELOADED = (
    "twisted.scripts.twistd",
    "twisted.plugins.edgecache_plugin",
    # By which twistd's other plugins are described, and it looks at all of them.
    "twisted.cred.strcred",
    "twisted.trial.itrial",
    "twisted.words.iwords",
    "edgecache.tap",
    "edgecache.service",
    "edgecache.worker_main",
    "edgecache.fleet",
    "edgecache.explaining",
    # Of the admin listener all that does without klein, which imports the reactor, and what klein imports besides.
    "edgecache.admin.downloads",
    "edgecache.admin.explain",
    "edgecache.admin.fastly",
    "edgecache.admin.feeds",
    "edgecache.admin.metrics",
    "edgecache.admin.verify",
    "twisted.web.server",
    "twisted.web.template",
    "werkzeug.routing",
    "werkzeug.test",
)
"""With what they import; nothing that a node, its workers or a voter would not import."""

_REQUESTS = 0
"""Descriptor of this process whence requests come: its standard input."""
_MOST = 1 << 20
"""Octets of a request: the kernel takes fewer."""

_asked_for = False
_starting = threading.Lock()
_parents: dict[str, socket.socket] = {}


def switch_on() -> None:
    """From now on nodes of this process are forked, but for those that are to be executed."""
    global _asked_for
    _asked_for = True


def is_on() -> bool:
    return _asked_for and not os.environ.get("EDGECACHE_COLD")


class Process:
    """A node process that was forked; as much of :class:`subprocess.Popen` as its harness needs."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told
        self._looking = threading.Lock()

    def poll(self) -> int | None:
        """:return: its exit status, negative for a signal; ``None`` while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """
        :return: as ``poll`` does.
        :raises subprocess.TimeoutExpired: it has not ended in so many seconds.
        """
        status = self._look(timeout)
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"the node of process {self.pid}", timeout)
        return status

    def _look(self, seconds: float | None) -> int | None:
        with self._looking:
            if self.returncode is None:
                self._told.settimeout(seconds)
                try:
                    status = self._told.recv(_MOST)
                except (BlockingIOError, TimeoutError):
                    return None
                # Nothing: what it was forked from has ended, and all that was forked with it.
                self.returncode = int(status) if status else -signal.SIGKILL
                self._told.close()
            return self.returncode


def start(words: list[str], *, cwd: Path, env: Mapping[str, str], output: IO[bytes]) -> Process:
    """
    :param words: of the command: ``twistd`` with its path, ``-n``, ``edgecache`` and so on.
    :param output: its standard output and its standard error.
    :raises AssertionError: what it is forked from does not live; its standard error, which is ours, says why.
    """
    with _starting:
        if words[0] not in _parents:
            _parents[words[0]] = _started(words[0], env)
    told, tells = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tells, suppress(BrokenPipeError, ConnectionResetError):
        request = json.dumps([words, str(cwd), dict(env)]).encode()
        socket.send_fds(_parents[words[0]], [request], [tells.fileno(), output.fileno()])
    pid = told.recv(_MOST)
    if not pid:
        told.close()
        raise AssertionError("what nodes are forked from has ended")
    return Process(int(pid), told)


def _started(twistd: str, env: Mapping[str, str]) -> socket.socket:
    """:return: where it takes requests, until this is closed: then it ends, and all that was forked from it."""
    requests, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        # Not to die with the thread that asks first, as it would by a parent-death signal.
        process = subprocess.Popen(
            [sys.executable, __file__, twistd],
            env=env,
            stdin=its.fileno(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def end() -> None:
        requests.close()
        process.wait()

    atexit.register(end)
    return requests


def _preload(twistd: str) -> None:
    """:raises SystemExit: what nobody may have before a fork has come with it."""
    # As for the script that twistd is.
    sys.path[0] = os.path.dirname(twistd)
    before = os.listdir("/proc/self/fd")
    with uncollected():
        for module in PRELOADED:
            importlib.import_module(module)
    tasks, after = os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")
    if "twisted.internet.reactor" in sys.modules or len(tasks) > 1 or before != after:
        sys.exit(f"tests.system.warm.PRELOADED brings a reactor, threads {tasks}, or descriptors {before} {after}")


def _serve() -> None:
    """Fork until the test process has gone; returns in each child, which is to run twistd."""
    own, tester = os.getpid(), os.getppid()
    requests = socket.socket(fileno=_REQUESTS)
    running: dict[int, tuple[int, int]] = {}
    while True:
        readable, _, _ = select.select([_REQUESTS, *running], [], [])
        for ended in running.keys() & set(readable):
            pid, tells = running.pop(ended)
            _, status = os.waitpid(pid, 0)
            # Nobody may want to know any more.
            with suppress(BrokenPipeError):
                os.write(tells, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(tells)
            os.close(ended)
        if _REQUESTS not in readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _MOST, 2)
        if not message:
            os._exit(0)
        tells, output = descriptors
        pid = os.fork()
        if pid == 0:
            nursery.die_with_parent()
            if os.getppid() != own:
                os._exit(1)
            # Its number is another's from now on.
            requests.detach()
            _become(*json.loads(message), output=output, tester=tester)
            return
        os.close(output)
        os.write(tells, b"%d" % pid)
        running[os.pidfd_open(pid)] = pid, tells


def _become(words: list[str], cwd: str, env: dict[str, str], *, output: int, tester: int) -> None:
    """What a command is that the test process has just executed."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    nothing = os.open(os.devnull, os.O_RDWR)
    nursery.arrange([nothing, output, output], most=max(map(int, os.listdir("/proc/self/fd"))))
    for limit in {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}:
        resource.setrlimit(limit, resource.prlimit(tester, limit))
    Path("/proc/self/comm").write_text(os.path.basename(words[0]))
    sys.argv = words
    gc.unfreeze()


if __name__ == "__main__":
    _preload(sys.argv[1])
    _serve()
    from twisted.scripts.twistd import run

    sys.exit(run())  # type: ignore[no-untyped-call]  # Twisted has no types here
