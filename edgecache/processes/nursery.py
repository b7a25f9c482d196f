"""
What workers are forked from: ``python -m edgecache.processes.nursery MODULE``, or a fork of a node that begins.

It imports what a worker needs, once, and then forks one whenever it is asked to. It never opens anything: no store,
no event loop, no thread, so that a worker begins as if it had been exec'ed, but in milliseconds
(docs/decisions/0185-nursery.md). The node process starts it and speaks to it (:mod:`edgecache.processes.forking`).
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence

from edgecache.processes.memory import uncollected

REQUESTS, OUTPUT = 3, 4
"""Descriptors: whence requests come, and what is a worker's standard output. Its own is where it answers."""

ALIVE = b"?"
"""Instead of a worker's number: nothing is to be forked, only to be answered."""

FIRST = 3
"""Of a worker's descriptors, after the standard ones."""

MOST = 250
"""Descriptors in one message; the kernel takes 253."""

NAME, WORKER_NAME = b"edge-nursery", b"edge-worker"
"""As ``ps`` and ``/proc`` show them: they have the same command line."""

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def die_with_parent() -> None:
    """Even while this process is stopped or stuck: a new node waits for the lock that it holds."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """What ``python -m`` runs."""
    die_with_parent()
    serve(sys.argv[1])


def serve(module: str) -> None:
    """Fork workers until the node process has gone; does not return."""
    _be(NAME)
    # A terminal's Ctrl-C and a service manager's signals reach every process; the node process decides.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # They inherit it, and each connection needs a descriptor.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with uncollected():
        work = importlib.import_module(module).main
    requests = socket.socket(fileno=REQUESTS)
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    numbers: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([requests, woken], [], [])
        if woken in readable:
            woken.recv(4096)
        _reap(numbers)
        if requests in readable:
            message, descriptors, _, _ = socket.recv_fds(requests, 4096, MOST)
            if not message:
                os._exit(0)
            if message == ALIVE:
                _say(alive=True)
                continue
            _fork(int(message), descriptors, work, numbers)


def _fork(number: int, descriptors: list[int], work: Callable[[], None], numbers: dict[int, int]) -> None:
    own = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        _say(number=number, error=error.strerror)
    else:
        if pid == 0:
            die_with_parent()
            if os.getppid() != own:
                # It has died already.
                os._exit(1)
            _become(descriptors, work)
        numbers[pid] = number
        _say(number=number, pid=pid)
    for descriptor in descriptors:
        os.close(descriptor)


def _become(descriptors: list[int], work: Callable[[], None]) -> None:
    """
    A worker, in the child; does not return.

    :param descriptors: its standard error, then its own ones in their order.
    """
    try:
        _be(WORKER_NAME)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        errors, *own = descriptors
        # Nothing else was ever opened that is numbered higher.
        arrange([0, OUTPUT, errors, *own], most=FIRST + 2 * len(descriptors) + MOST + 16)
        sys.argv = [sys.argv[0], str(len(own) - 2)]
        faulthandler.enable()
        work()
    except BaseException:  # noqa: BLE001  # the rim: these are a worker's last words
        traceback.print_exc()
    finally:
        # Whatever else goes wrong: there must not be two of what it was forked from.
        os._exit(1)


def arrange(descriptors: Sequence[int], most: int) -> None:
    """
    Have these as 0, 1, 2 and so on, in a process just forked, and close all others.

    :param most: none is open that is numbered higher.
    """
    moved = [moved_up(descriptor, len(descriptors)) for descriptor in descriptors]
    for place, descriptor in enumerate(moved):
        os.dup2(descriptor, place, inheritable=place < FIRST)
    os.closerange(len(descriptors), max(most, *moved) + 1)


def moved_up(descriptor: int, least: int) -> int:
    """:return: a copy of it that is numbered ``least`` or higher."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, least)


def _reap(numbers: dict[int, int]) -> None:
    while numbers:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        number = numbers.pop(pid, None)
        if number is not None:
            _say(number=number, status=status)


def _say(**words: object) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def _be(name: bytes) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)


if __name__ == "__main__":
    main()
