"""
A disk that forgets: what a power cut may leave of what was written, given the calls that wrote it.

What a sync covers is there. Of what came later, each page is there or not, or as it was at any time in between, or torn
between sectors of 512 octets; a file has its new length or not; a name is made, moved or removed, or not, unless its
directory was synced since. No file system is so bad in everything at once; each of it is allowed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field, frozen

from tests.system.recording import Call

PAGE, SECTOR = 4096, 512
_ZEROS = bytes(PAGE)


@define(eq=False)
class File:
    """
    :ivar now: what its readers see.
    :ivar kept: what is on disk for certain.
    :ivar dirty: of each page that is not, when it was complete, and how it was: the oldest first.
    """

    now: bytearray = field(factory=bytearray)
    kept: bytearray = field(factory=bytearray)
    dirty: dict[int, list[tuple[float, bytes]]] = field(factory=dict)

    def write(self, at: int, data: bytes, done: float) -> range:
        """:return: the pages that it touched."""
        at = len(self.now) if at < 0 else at
        self.now.extend(bytes(max(0, at + len(data) - len(self.now))))
        self.now[at : at + len(data)] = data
        pages = range(at // PAGE, -(-(at + len(data)) // PAGE))
        for page in pages:
            octets = bytes(self.now[page * PAGE : (page + 1) * PAGE])
            # Zeros where nothing was are as good as not written: the length alone says that they are there.
            if page in self.dirty or page * PAGE < len(self.kept) or octets != _ZEROS:
                self.dirty.setdefault(page, []).append((done, octets))
        return pages

    def sync(self, began: float, pages: Iterable[int] | None = None) -> None:
        """What was complete before that is kept."""
        for page in list(self.dirty) if pages is None else pages:
            versions = self.dirty.get(page, [])
            covered = [octets for done, octets in versions if done <= began]
            if not covered:
                continue
            _place(self.kept, page, covered[-1])
            if len(covered) == len(versions):
                del self.dirty[page]
            else:
                self.dirty[page] = versions[len(covered) :]

    def truncate(self, size: int) -> None:
        """Done at once: here files are lengthened by holes, or cut where nobody reads."""
        for octets in (self.now, self.kept):
            del octets[size:]
        self.now.extend(bytes(size - len(self.now)))
        self.dirty = {page: versions for page, versions in self.dirty.items() if page * PAGE < size}

    def left(self, chance: random.Random) -> bytes:
        """:return: what may be found after a cut."""
        found = bytearray(self.kept)
        share = chance.choice((0.0, 0.05, 0.5, 0.5, 0.95, 1.0))
        for page, versions in self.dirty.items():
            if chance.random() >= share:
                continue
            octets = chance.choice((versions[-1], chance.choice(versions)))[1]
            if chance.random() < 0.2:
                octets = _torn(bytes(found[page * PAGE : (page + 1) * PAGE]), octets, chance)
            _place(found, page, octets)
        if chance.random() < 0.5:
            found.extend(bytes(max(0, len(self.now) - len(found))))
        return bytes(found)


def _place(octets: bytearray, page: int, content: bytes) -> None:
    end = page * PAGE + len(content)
    octets.extend(bytes(max(0, end - len(octets))))
    octets[page * PAGE : end] = content


def _torn(old: bytes, new: bytes, chance: random.Random) -> bytes:
    old = old.ljust(len(new), b"\0")
    return b"".join(chance.choice((old, new))[at : at + SECTOR] for at in range(0, len(new), SECTOR))


def _write(path: Path, octets: bytes) -> None:
    """Pages that were never written, or are as if they had not been, are holes."""
    with path.open("wb") as file:
        for at in range(0, len(octets), PAGE):
            page = octets[at : at + PAGE]
            if page != _ZEROS:
                file.seek(at)
                file.write(page)
        file.truncate(len(octets))


Names = dict[str, File | None]
"""What has which path; ``None`` is a directory."""


@frozen(eq=False)
class _Change:
    """Of names. :ivar paths: one, or both of a rename."""

    kind: str
    paths: tuple[str, ...]
    file: File | None = None

    def apply(self, names: Names) -> None:
        path = self.paths[0]
        if self.kind == "make":
            names[path] = self.file
        elif self.kind == "remove":
            names.pop(path, None)
        else:
            to = self.paths[1]
            for each in [each for each in names if _within(each, to)]:
                del names[each]
            for each in [each for each in names if _within(each, path)]:
                names[to + each.removeprefix(path)] = names.pop(each)

    def follows(self, other: _Change) -> bool:
        """Is there no sense in this without that?"""
        return any(_within(mine, its) or _within(its, mine) for mine in self.paths for its in other.paths)


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


@define(eq=False)
class Disk:
    """
    What the calls so far made of everything below a directory; :meth:`cut` makes what may be left of it.

    :ivar lying: files whose paths end so are never synced, whatever is asked for: so that a test can be seen to fail.
    """

    lying: str = "\0"
    _names: Names = field(factory=dict)
    _kept: Names = field(factory=dict)
    _changes: list[_Change] = field(factory=list)

    def apply(self, call: Call) -> None:
        """One more call."""
        path, file = call.path, self._names.get(call.path)
        match call.name:
            case "open" if path not in self._names and "O_CREAT" in call.flags:
                self._change(_Change("make", (path,), File()))
            case "open" if file is not None and "O_TRUNC" in call.flags:
                file.truncate(0)
            case "mkdir":
                self._change(_Change("make", (path,)))
            case "rename":
                self._change(_Change("rename", (path, call.to)))
            case "unlink" | "rmdir":
                self._change(_Change("remove", (path,)))
            case "truncate" if file is not None:
                file.truncate(call.at)
            case "allocate" if file is not None:
                file.truncate(max(call.at, len(file.now)))
            case "write" if file is not None:
                pages = file.write(call.at, call.data, call.ended)
                if call.through and not path.endswith(self.lying):
                    file.sync(call.ended, pages)
            case "sync" if file is not None:
                if not path.endswith(self.lying):
                    file.sync(call.began)
            case "sync":
                self._keep_names(path)

    def file(self, path: str) -> File | None:
        """:return: what is at ``path`` now."""
        return self._names.get(path)

    def cut(self, root: Path, at: Path, chance: random.Random) -> None:
        """Make ``at`` what may be left of ``root``; both are directories, ``at`` is made if anything is left."""
        names = dict(self._kept)
        share = chance.choice((0.0, 0.5, 0.9, 1.0))
        lost: list[_Change] = []
        for change in self._changes:
            if chance.random() < share and not any(change.follows(other) for other in lost):
                change.apply(names)
            else:
                lost.append(change)
        for path in sorted(names):
            if not _within(path, str(root)):
                continue
            place = at / os.path.relpath(path, root)
            file = names[path]
            # What is in a directory that is lost is lost.
            if file is None and (place == at or place.parent.is_dir()):
                place.mkdir()
            elif file is not None and place.parent.is_dir():
                _write(place, file.left(chance))

    def _change(self, change: _Change) -> None:
        change.apply(self._names)
        self._changes.append(change)

    def _keep_names(self, directory: str) -> None:
        """Changes in ``directory`` are on disk, and what they make no sense without, but not its own name."""
        certain: list[_Change] = []
        for change in reversed(self._changes):
            inside = any(os.path.dirname(path) == directory for path in change.paths)
            needed = change.kind != "make" and any(other.follows(change) for other in certain)
            if inside or needed:
                certain.append(change)
        for change in reversed(certain):
            change.apply(self._kept)
            self._changes.remove(change)
