"""What the path of a distribution file says about it (PEP 427, PEP 625, PEP 691)."""

from __future__ import annotations

import functools
import re
from urllib.parse import unquote_to_bytes

from attrs import frozen

from edgecache.rules.indexpaths import FILES, ArtifactAsked, artifact_of, is_file, normalised_name

_BESIDE = (b".metadata", b".asc", b".sig", b".provenance")
"""What lies beside a distribution and is none."""

# As indexes and their logs call them; the longer of two that fit comes first.
_TYPES = (
    (".whl", "bdist_wheel"),
    (".egg", "bdist_egg"),
    (".exe", "bdist_wininst"),
    (".msi", "bdist_msi"),
    (".rpm", "bdist_rpm"),
    (".deb", "bdist_dumb"),
    (".dmg", "bdist_dmg"),
    (".tar.gz", "sdist"),
    (".tar.bz2", "sdist"),
    (".tar.xz", "sdist"),
    (".tar.z", "sdist"),
    (".tgz", "sdist"),
    (".zip", "sdist"),
)

_PLATFORM = re.compile(r"[.-](?:win32|win-amd64|win_amd64|win-arm64|macosx|linux|noarch|x86_64|i[3-6]86).*")
_RPM_RELEASE = re.compile(r"-\d+$")
_NAME_AND_VERSION = re.compile(r"(.+?)-(v?\d.*)")


@frozen
class Distribution:
    """
    One distribution file.

    :ivar project: normalised name (PEP 503).
    :ivar version: as the filename has it; ``""`` where it has none.
    :ivar kind: ``sdist``, ``bdist_wheel`` and so on; ``""`` for an unknown one.
    :ivar sha256: hexadecimal, ``""`` where the path has none.
    """

    project: str
    version: str
    kind: str
    filename: str
    sha256: str


def is_distribution(path: bytes) -> bool:
    """
    Does a path of an index name a file whose delivery is a download? Metadata and signatures are none.

    :param path: without query.
    """
    return (is_file(path) or _artifact(path) is not None) and not path.lower().endswith(_BESIDE)


@functools.lru_cache(maxsize=2048)
def distribution_of(path: bytes) -> Distribution:
    """
    :param path: without query; a path of ours (``/files/...``, whatever stands before it) or any other that ends in
        a filename.

    >>> distribution_of(b"/packages/Zope.Interface-5.0-py3-none-any.whl").project
    'zope-interface'
    """
    artifact = _artifact(path)
    if artifact is not None:
        project, sha256 = artifact.project.decode("ascii"), artifact.sha256.hex()
        filename = artifact.filename.decode("utf-8", "replace")
    else:
        project, sha256 = "", ""
        filename = unquote_to_bytes(path.rpartition(b"/")[2]).decode("utf-8", "replace")
    stem, kind = _stem_and_type(filename)
    name, version = _parts(stem, kind, project)
    return Distribution(project or _normalised(name), version, kind, filename, sha256)


def _artifact(path: bytes) -> ArtifactAsked | None:
    """:return: what it means as a path of ours, below whatever path its site has."""
    ours = path.rfind(FILES)
    return artifact_of(path[ours:]) if ours >= 0 else None


def _stem_and_type(filename: str) -> tuple[str, str]:
    lowered = filename.lower()
    for suffix, kind in _TYPES:
        if lowered.endswith(suffix):
            return filename[: -len(suffix)], kind
    return filename, ""


def _parts(stem: str, kind: str, project: str) -> tuple[str, str]:
    """:return: name and version."""
    if kind in ("bdist_wheel", "bdist_egg"):
        name, _, rest = stem.partition("-")
        return name, rest.partition("-")[0]
    if kind not in ("sdist", ""):
        stem = _PLATFORM.sub("", stem)
        if kind == "bdist_rpm":
            stem = _RPM_RELEASE.sub("", stem)
    for at in (place.start() for place in re.finditer("-", stem) if project):
        # Old sdists have dashes in their versions too: only the project says where its name ends.
        if _normalised(stem[:at]) == project:
            return stem[:at], stem[at + 1 :]
    name, _, version = stem.rpartition("-")
    if name and version[:1].isdigit():
        return name, version
    matched = _NAME_AND_VERSION.fullmatch(stem)
    return (matched[1], matched[2]) if matched is not None else (stem, "")


def _normalised(name: str) -> str:
    return normalised_name(name.encode()).decode()
