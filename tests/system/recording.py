"""
What processes really write below a directory, in which order, and when they sync it: their system calls, by strace.

Memory that is mapped and written to is no call. :class:`Mapped` looks at the files now and then: what has changed since
the look before was written meanwhile, and is synced by nobody.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field, frozen

_TRACED = (
    *("openat", "mkdir", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "lseek"),
    *("write", "writev", "pwrite64", "pwritev", "ftruncate", "truncate", "fallocate", "fsync", "fdatasync"),
    # Whose descriptors are whose.
    *("fork", "vfork", "clone", "clone3"),
)
_PAGE = 4096
_UNFINISHED = " <unfinished ...>"
_LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*?)(?: <(\d+\.\d+)>)?$")
_TEXT = re.compile(r'"([^"]*)"')
_OPEN = re.compile(r"^\d+<([^>]*)>")


@frozen
class Call:
    """
    One that succeeded.

    :ivar began: wall time, as ``time.time`` gives it.
    :ivar path: of what it was done to, ``to`` the other one of a rename.
    :ivar data: octets written.
    :ivar at: where, or the new size (of an allocation: the least); -1: at the end.
    :ivar flags: of an open.
    :ivar through: the call returns when what it wrote is on disk (O_DSYNC).
    """

    began: float
    ended: float
    name: str
    path: str
    to: str = ""
    data: bytes = b""
    at: int = -1
    flags: str = ""
    through: bool = False


def prefix(log: Path) -> tuple[str, ...]:
    """
    :return: words before a command that is to be recorded.
    :raises unittest.SkipTest: there is no strace, or it may not trace here.
    """
    strace = shutil.which("strace")
    if strace is None or os.system(f"{strace} -o /dev/null true 2>/dev/null"):
        raise unittest.SkipTest("needs strace, and the right to trace")
    options = ("-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-ttt", "-T", "-s", str(1 << 26))
    return (strace, *options, "-e", "signal=none", "-e", f"trace={','.join(_TRACED)}", "-o", str(log))


def calls(log: Path, below: Path) -> list[Call]:
    """:return: those that changed or synced a directory or something below it, or its parent, as they ended."""
    root, inside, parent = str(below), f"{below}/", str(below.parent)
    found = [call for call in _calls(log) if call.path in (root, parent) or call.path.startswith(inside)]
    return sorted(found, key=lambda call: call.ended)


@define(eq=False)
class Mapped:
    """
    Files below a directory that processes write to as memory.

    :ivar names: of them, relative to it.
    :ivar seen: of each, what the last look found.
    """

    below: Path
    names: tuple[str, ...]
    seen: dict[str, bytes] = field(factory=dict)

    def look(self) -> list[Call]:
        """:return: a write of each page that is another one than at the last look; at first, than zeros."""
        found: list[Call] = []
        for path in (self.below / name for name in self.names):
            octets, now = path.read_bytes(), time.time()
            before = self.seen.get(str(path), b"").ljust(len(octets), b"\0")
            self.seen[str(path)] = octets
            for at in range(0, len(octets), _PAGE):
                page = octets[at : at + _PAGE]
                if page != before[at : at + _PAGE]:
                    found.append(Call(now, now, "write", str(path), data=page, at=at))
        return found


@define
class _Begun:
    at: float
    text: str


@define
class _State:
    """
    :ivar begun: what a thread is at.
    :ivar positions: of files, by path: LMDB seeks before it writes, and holds its lock meanwhile.
    :ivar processes: of threads.
    :ivar through: descriptors of processes that were opened with O_DSYNC.
    """

    begun: dict[str, _Begun] = field(factory=dict)
    positions: dict[str, int] = field(factory=dict)
    processes: dict[str, str] = field(factory=dict)
    through: set[tuple[str, str]] = field(factory=set)


def _calls(log: Path) -> Iterator[Call]:
    state = _State()
    with log.open(encoding="ascii") as lines:
        for line in lines:
            matched = _LINE.match(line)
            if matched is None:
                continue
            pid, stamp, text = matched[1], float(matched[2]), matched[3]
            if text.endswith(_UNFINISHED):
                state.begun[pid] = _Begun(stamp, text.removesuffix(_UNFINISHED))
                continue
            began, ended = stamp, None
            resumed = _RESUMED.match(text)
            if resumed is not None:
                before = state.begun.pop(pid)
                began, ended, text = before.at, stamp, before.text + text[resumed.end() :]
            parts = _CALL.match(text)
            if parts is None or int(parts[3]) < 0:
                continue
            took = float(parts[5] or 0.0)
            call = _call(state, pid, began, began + took if ended is None else ended, *parts.group(1, 2, 3, 4))
            if call is not None:
                yield call


def _call(
    state: _State, pid: str, began: float, ended: float, name: str, words: str, result: str, after: str
) -> Call | None:
    opened, process = _OPEN.match(words), state.processes.setdefault(pid, pid)
    path = "" if opened is None else os.fsdecode(_decoded(opened[1])).removesuffix(" (deleted)")
    rest = words.rpartition(", ")[2]
    # Of what is written to as memory, Mapped has the octets.
    texts = [] if "/popularity" in path else [_decoded(text) for text in _TEXT.findall(words)]
    match name:
        case "openat":
            found = _OPEN.match(result + after)
            flags = words.split(", ")[2]
            (state.through.add if "O_DSYNC" in flags else state.through.discard)((process, result))
            where = os.fsdecode(texts[0] if found is None else _decoded(found[1]))
            return Call(began, ended, "open", where, flags=flags)
        case "mkdir" | "rmdir" | "unlink":
            return Call(began, ended, name, os.fsdecode(texts[0]))
        case "unlinkat":
            # By shutil.rmtree, relative to a directory.
            directory = re.search(r"<([^>]*)>", words)
            base = "" if directory is None else os.fsdecode(_decoded(directory[1]))
            kind = "rmdir" if "AT_REMOVEDIR" in words else "unlink"
            return Call(began, ended, kind, os.path.join(base, os.fsdecode(texts[0])))
        case "rename" | "renameat" | "renameat2":
            return Call(began, ended, "rename", *(os.fsdecode(text) for text in texts))
        case "lseek":
            state.positions[path] = int(result)
            return None
        case "write" if "/popularity" in path:
            return Call(began, ended, "allocate", path, at=int(result))
        case "pwrite64" | "pwritev":
            through = (process, words.partition("<")[0]) in state.through
            data = b"".join(texts)[: int(result)]
            return Call(began, ended, "write", path, data=data, at=int(rest), through=through)
        case "write" | "writev":
            at = state.positions.get(path, -1) if path.endswith("data.mdb") else -1
            if at >= 0:
                state.positions[path] += int(result)
            return Call(began, ended, "write", path, data=b"".join(texts)[: int(result)], at=at)
        case "ftruncate":
            return Call(began, ended, "truncate", path, at=int(rest))
        case "truncate":
            return Call(began, ended, "truncate", os.fsdecode(texts[0]), at=int(rest))
        case "fallocate":
            at, length = words.split(", ")[-2:]
            return Call(began, ended, "allocate", path, at=int(at) + int(length))
        case "fork" | "vfork" | "clone" | "clone3":
            state.processes[result] = process if "CLONE_THREAD" in words else result
            return None
        case "fsync" | "fdatasync":
            return Call(began, ended, "sync", path)
    raise ValueError(f"{name} is traced and not understood")


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
