"""
Requirements files, as far as names, versions and hashes go: which files of an index they mean.

Nothing is resolved: a file that was (by ``pip freeze``, ``pip-compile``, ``uv export``) names everything itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, sys_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from edgecache.admin.address import AdminFailed

_HASH = re.compile(r"--hash[= ](\w+):([0-9a-fA-F]+)")
_OPTION = re.compile(r"^--?([A-Za-z][\w-]*)(?:[= ]\s*(.*))?$")
_COMMENT = re.compile(r"(^|\s)#.*$")
_FILES = ("r", "requirement")
_CONSTRAINTS = ("c", "constraint")


@frozen
class Wanted:
    """
    One requirement.

    :ivar name: of the project, normalised.
    :ivar hashes: sha256 in hexadecimal; empty: any file will do.
    """

    name: str
    specifier: SpecifierSet
    hashes: frozenset[str] = frozenset()


@define(eq=False, repr=False)
class Read:
    """
    What files say.

    :ivar skipped: what is not a name with versions, and why nothing is done about it.
    """

    wanted: list[Wanted] = field(factory=list)
    skipped: list[tuple[str, str]] = field(factory=list)


def read_requirements(paths: Iterable[str]) -> Read:
    """
    :param paths: of files; those that they name with ``-r`` are read too.
    :raises AdminFailed: one cannot be read.
    """
    read, constraints = Read(), dict[str, SpecifierSet]()
    for path in paths:
        _read(path, read, constraints, seen=set())
    if constraints:
        read.wanted = [
            Wanted(one.name, one.specifier & constraints.get(one.name, SpecifierSet()), one.hashes)
            for one in read.wanted
        ]
    return read


def _read(path: str, read: Read, constraints: dict[str, SpecifierSet], seen: set[str]) -> None:
    if os.path.realpath(path) in seen:
        return
    seen.add(os.path.realpath(path))
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise AdminFailed(f"{path}: {reason}") from error
    for line in _lines(text):
        option = _OPTION.match(line)
        if option is None:
            requirement = _requirement(line, read)
            if requirement is not None:
                read.wanted.append(requirement)
            continue
        name, value = option[1], (option[2] or "").strip()
        other = os.path.join(os.path.dirname(path), value)
        if name in _FILES:
            _read(other, read, constraints, seen)
        elif name in _CONSTRAINTS:
            inner = Read()
            _read(other, inner, constraints, seen)
            for one in inner.wanted:
                constraints[one.name] = constraints.get(one.name, SpecifierSet()) & one.specifier
        elif name in ("e", "editable"):
            read.skipped.append((line, "it is no file of an index"))
        # Other options say where pip looks: this node's index is meant.


def _lines(text: str) -> Iterator[str]:
    """Of requirements: continued ones joined, without comments."""
    for line in text.replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        line = _COMMENT.sub("", line).strip()
        if line:
            yield line


def _requirement(line: str, read: Read) -> Wanted | None:
    hashes = frozenset(value.lower() for name, value in _HASH.findall(line) if name == "sha256")
    text = re.split(r"\s--\w", line, maxsplit=1)[0].strip()
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        read.skipped.append((text, f"it is no name with versions: {str(error).splitlines()[0]}"))
        return None
    if requirement.url is not None:
        read.skipped.append((text, "it is no file of an index"))
        return None
    environment: Any = {**default_environment(), "extra": ""}
    if requirement.marker is not None and not requirement.marker.evaluate(environment):
        read.skipped.append((text, "its marker excludes this machine"))
        return None
    return Wanted(str(canonicalize_name(requirement.name)), requirement.specifier, hashes)


@frozen
class Chosen:
    """
    A file of a page.

    :ivar url: as the page links it.
    :ivar metadata: it has its core metadata beside it (PEP 658), which installers ask for first.
    """

    filename: str
    url: str
    metadata: bool


def choose(wanted: Wanted, page: Mapping[str, Any], *, everything: bool, tags: Sequence[Tag] = ()) -> list[Chosen]:
    """
    :param page: of the project, as JSON (PEP 691).
    :param everything: all files of the version, not only what this interpreter would take.
    :param tags: that fit, the best first; default: this interpreter's.
    :return: the files of the newest version that fits; none when nothing does.
    """
    versions: dict[Version, list[tuple[Mapping[str, Any], frozenset[Tag]]]] = {}
    exact = any(one.operator in ("==", "===") for one in wanted.specifier)
    for file in page.get("files", ()):
        version, fits = _told_by_name(file["filename"], wanted.name)
        if version is None or (wanted.hashes and file.get("hashes", {}).get("sha256") not in wanted.hashes):
            continue
        if (file.get("yanked") and not exact and not wanted.hashes) or not _is_for_this_python(file):
            continue
        versions.setdefault(version, []).append((file, fits))
    left = list(wanted.specifier.filter(versions)) if versions else []
    if not left:
        return []
    files = versions[max(left)]
    if not everything:
        files = _best(files, list(tags) or list(sys_tags()))
    return [
        Chosen(file["filename"], file["url"], bool(file.get("core-metadata") or file.get("dist-info-metadata")))
        for file, _ in files
    ]


def _best(
    files: list[tuple[Mapping[str, Any], frozenset[Tag]]], tags: list[Tag]
) -> list[tuple[Mapping[str, Any], frozenset[Tag]]]:
    rank = {tag: place for place, tag in enumerate(tags)}
    wheels = [(min(rank[tag] for tag in fits & rank.keys()), file, fits) for file, fits in files if fits & rank.keys()]
    if wheels:
        _, file, fits = min(wheels, key=lambda one: one[0])
        return [(file, fits)]
    return [(file, fits) for file, fits in files if not fits][:1]


def _told_by_name(filename: str, name: str) -> tuple[Version | None, frozenset[Tag]]:
    """:return: version and tags of a file of this project; no tags of a source archive."""
    try:
        if filename.endswith(".whl"):
            project, version, _, tags = parse_wheel_filename(filename)
        else:
            project, version = parse_sdist_filename(filename)
            tags = frozenset()
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None, frozenset()
    return (version, tags) if project == name else (None, frozenset())


def _is_for_this_python(file: Mapping[str, Any]) -> bool:
    needed = file.get("requires-python")
    if not needed:
        return True
    try:
        return SpecifierSet(needed).contains(default_environment()["python_full_version"], prereleases=True)
    except InvalidSpecifier:
        return True
