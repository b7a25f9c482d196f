"""Real processes seen from outside: free ports, families of processes through /proc, memory, CPU, signals by pid."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_given: set[int] = set()

_PARTS = 32

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class NeverHappened(AssertionError):
    """Something that a process had to do was not seen within the bounded number of looks."""


def until(look: Callable[[], T | None], what: str, *, looks: int = 2400, pause_seconds: float = 0.05) -> T:
    """
    The first true answer of ``look``.

    A process that is starting tells nobody when it is done: here is the one place that asks again. Nothing is
    slept on that can be waited for.

    :raises NeverHappened: after so many looks.
    """
    for _ in range(looks):
        answer = look()
        if answer:
            return answer
        time.sleep(pause_seconds)
    raise NeverHappened(f"{what}: not seen in {looks} looks, {pause_seconds} s apart")


@cache
def _part() -> int:
    """:return: number of the ports that no other process of tests on this machine gives away, while this one lives."""
    locks = Path(tempfile.gettempdir()) / f"edgecache-test-ports-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for part in range(_PARTS):
        lock = os.open(locks / str(part), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return part
    # More runs at once than there are parts.
    return random.randrange(_PARTS)


def free_port() -> int:
    """
    A loopback port that nobody listens on, and that this run has not given away yet: its server may be still to start.

    Below the ephemeral range, so that no outgoing connection takes it before.
    """
    for _ in range(200):
        port = random.randrange(10_000 + _part(), 32_000, _PARTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise NeverHappened("a free port: 200 were taken")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None for one that is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may contain spaces and parentheses: fields begin after its last ")".
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def family(leader: int) -> list[int]:
    """Every live process of the session that ``leader`` leads, and every descendant of it."""
    parents: dict[int, int] = {}
    members: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        fields = _stat(int(name))
        if fields is not None:
            parents[int(name)] = int(fields[1])
            if int(name) == leader or int(fields[3]) == leader:
                members.add(int(name))
    found = True
    while found:
        children = {pid for pid, parent in parents.items() if parent in members} - members
        members |= children
        found = bool(children)
    return sorted(members)


def command_line(pid: int) -> str:
    """What the process was started as; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name(pid: int) -> str:
    """What it calls itself; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def listening_ports(pid: int) -> set[int]:
    """TCP ports (IPv4) on which the process listens."""
    own = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    # State 0A is LISTEN; the local address is hexadecimal host:port.
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own}


def kill_now(pids: Iterable[int]) -> None:
    """SIGKILL to each, in the order given; one that is gone already is no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def anonymous_octets(pids: Iterable[int]) -> int:
    """RssAnon of all of them together: memory of their own, without the page cache that they map."""
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_seconds(pid: int) -> float:
    """User and system time of one process with all its threads, in clock ticks of 10 ms."""
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
