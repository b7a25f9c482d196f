"""
An index like the public one in small (FIELD 3): its pages and files, who asks for which, and the server of it.

Everything but time is drawn from one seed: two runs ask for the same. Pages are 10 to 500 kB of JSON, of which each
names one wheel that is there and many that are not; wheels are real archives with their metadata, log-normal in
size, and two of them are giants. Links are relative to the origin's root, so that also a cache that rewrites none
can stand in front.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import random
import statistics
import time
import zipfile
from pathlib import Path

from attrs import define, frozen

from benchmarks.servers import Nginx
from tests.system import processes
from tests.system.contents import PIECE, Artifact

PROJECTS = 300
GIANTS = (120 << 20, 150 << 20)
MEAN_FILE = 1_400_000
"""Octets of a file that is asked for, on average (FIELD 3)."""
COLD_PROJECTS, COLD_FILES = 10, 400
"""Files that are asked for once: as many of them in each of so many projects."""

_MEDIAN_WHEEL, _MEAN_WHEEL = 150_000, 900_000
_PAGE_OCTETS = (10_000, 500_000)
_SEED = "edgecache: the mix"

# Of each thousand requests: 46 % pages, half of them with the tag of what the client has; 1 % cold files. What is left
# of the 54 % of files is metadata, wheels, and as many giants as the mean needs.
PAGES, CONDITIONAL, COLD, METADATA = 230, 230, 10, 190


@frozen
class File:
    """
    One that the origin has.

    :ivar metadata: of a wheel: octets of what lies beside it as ``.metadata``; else ``None``.
    """

    name: str
    path: Path
    size: int
    sha256: str
    metadata: bytes | None


@define(eq=False)
class Project:
    """
    One page.

    :ivar revision: how often it was published; the page names a file after it (:func:`revision_of`).
    """

    name: str
    files: list[File]
    others: int
    revision: int = 0

    def page(self) -> bytes:
        """As PEP 691 has it, with the newest "upload" last."""
        entries = [_entry(self.name, f"{self.name}-0.{number}.0-py3-none-any.whl") for number in range(self.others)]
        entries += [_entry(self.name, file.name, file) for file in self.files]
        entries.append(_entry(self.name, f"{self.name}-9.{self.revision}.0.tar.gz"))
        meta = {"_last-serial": 1_000_000 + self.revision, "api-version": "1.1"}
        return json.dumps({"files": entries, "meta": meta, "name": self.name, "versions": []}).encode()

    def revision_of(self, page: bytes) -> int:
        """:return: what a page, of whatever server, shows as the newest upload; -1 if it shows none."""
        _, found, rest = page.rpartition(f"{self.name}-9.".encode())
        return int(rest.partition(b".")[0]) if found else -1


def _entry(project: str, name: str, file: File | None = None) -> dict[str, object]:
    digest = file.sha256 if file else hashlib.sha256(name.encode()).hexdigest()
    entry: dict[str, object] = {
        "filename": name,
        "hashes": {"sha256": digest},
        "provenance": None,
        "requires-python": ">=3.8",
        "size": file.size if file else 1_234_567,
        "upload-time": "2026-01-02T03:04:05.678901Z",
        "url": f"/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{name}",
        "yanked": False,
    }
    if name.endswith(".whl"):
        metadata = file.metadata if file else name.encode()
        known = {"sha256": hashlib.sha256(metadata or b"").hexdigest()}
        entry |= {"core-metadata": known, "data-dist-info-metadata": known}
    return entry


class Corpus:
    """
    All of it, on disk below ``root``.

    :ivar projects: the most popular first.
    :ivar giants: wheels of the last two, of over 100 MiB.
    :ivar cold: projects whose files are asked for once.
    """

    def __init__(self, root: Path, projects: int = PROJECTS) -> None:
        self.root = root
        chance = random.Random(_SEED)
        entry = len(json.dumps(_entry("p123", "p123-0.100.0-py3-none-any.whl")))
        low, high = (math.log(octets / entry) for octets in _PAGE_OCTETS)
        # Sizes are the quantiles of their distributions, dealt out: a few draws of such a wide one would be anything.
        others = [round(math.exp(low + (high - low) * (at + 0.5) / projects)) for at in range(projects)]
        wide = math.sqrt(2 * math.log(_MEAN_WHEEL / _MEDIAN_WHEEL))
        normal = statistics.NormalDist()
        sizes = [math.exp(wide * normal.inv_cdf((at + 0.5) / projects)) for at in range(projects)]
        chance.shuffle(others)
        chance.shuffle(sizes)
        self.popularity = [1 / (rank + 1) for rank in range(projects)]
        asked = sum(a * b for a, b in zip(sizes, self.popularity, strict=True)) / sum(self.popularity)
        wheels = [max(4096, round(size * _MEAN_WHEEL / asked)) for size in sizes]
        self.projects = [self._project(f"p{at}", others[at], wheels[at]) for at in range(projects)]
        self.giants = [self._project(f"giant{at}", 20, size) for at, size in enumerate(GIANTS)]
        self.cold = [self._cold(f"cold{at}", chance) for at in range(COLD_PROJECTS)]
        for project in self.all():
            self.publish(project)
        names = {"meta": {"api-version": "1.1"}, "projects": [{"name": each.name} for each in self.all()]}
        self._write(self.root / "simple", json.dumps(names).encode(), 0)

    def all(self) -> list[Project]:
        return [*self.projects, *self.giants, *self.cold]

    def giants_in_a_thousand(self) -> int:
        """So many make the mean of all files that are asked for what it should be."""
        files = 1000 - PAGES - CONDITIONAL
        rest = files * MEAN_FILE - (files - COLD - METADATA) * _MEAN_WHEEL
        return max(1, round(rest / statistics.mean(GIANTS)))

    def publish(self, project: Project) -> int:
        """An upload: the page names one more. :return: its revision."""
        project.revision += 1
        self._write(self.root / "simple" / project.name, project.page(), project.revision)
        return project.revision

    def _write(self, directory: Path, page: bytes, revision: int) -> None:
        """A page and its compressed twin. The origin makes the tag of time and length: the revision is the time."""
        directory.mkdir(parents=True, exist_ok=True)
        at = int(time.time()) // 86_400 * 86_400 - 86_400 + revision
        for name, octets in (("index.json.gz", gzip.compress(page, 6)), ("index.json", page)):
            new = directory / f".{name}"
            new.write_bytes(octets)
            os.utime(new, (at, at))
            new.rename(directory / name)

    def _project(self, name: str, others: int, size: int) -> Project:
        file = self._wheel(name, size)
        return Project(name, [file], others)

    def _wheel(self, project: str, size: int) -> File:
        metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n\n".encode()
        metadata += Artifact(f"metadata {project}", 2000 + 16 * (size % 2000)).whole().hex().encode()
        name = f"{project}-1.0-py3-none-any.whl"
        path = self.root / name
        self.root.mkdir(parents=True, exist_ok=True)
        # Stored, not deflated: a size is what was asked for, and making them is quick.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            # (A ZipInfo of its own has a time that does not change from run to run, nor does the digest.)
            archive.writestr(zipfile.ZipInfo(f"{project}-1.0.dist-info/METADATA"), metadata)
            content = Artifact(f"wheel {project}", size)
            with archive.open(zipfile.ZipInfo(f"{project}/data.bin"), "w", force_zip64=True) as member:
                for start in range(0, size, PIECE):
                    member.write(content.read(start, PIECE))
        return self._placed(path, metadata)

    def _cold(self, name: str, chance: random.Random) -> Project:
        files = []
        for number in range(COLD_FILES):
            path = self.root / f"{name}-1.{number}.tar.gz"
            path.write_bytes(Artifact(path.name, chance.randrange(4_096, 48_000)).whole())
            files.append(self._placed(path, None))
        return Project(name, files, 0)

    def _placed(self, path: Path, metadata: bytes | None) -> File:
        """Move it to where pages say that it is."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        directory = self.root / "packages" / sha256[:2] / sha256[2:4] / sha256[4:]
        directory.mkdir(parents=True)
        if metadata is not None:
            (directory / f"{path.name}.metadata").write_bytes(metadata)
        place = path.rename(directory / path.name)
        return File(path.name, place, place.stat().st_size, sha256, metadata)


_ORIGIN = """
  server {{
    listen 127.0.0.1:{port} reuseport backlog=1024;
    root {files};
    location /simple/ {{
      types {{ application/vnd.pypi.simple.v1+json json; }} index index.json;
      gzip_static on; gzip_vary on; add_header Cache-Control "public, max-age=600";
    }}
    location /packages/ {{ add_header Cache-Control "public, max-age=365000000, immutable"; }}
  }}
"""


class CorpusOrigin(Nginx):
    """The corpus over HTTP: pages as JSON, compressed beforehand, fresh for ten minutes; files for ever."""

    def __init__(self, root: Path, corpus: Corpus) -> None:
        self.port = processes.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._access = root / "access.log"
        root.mkdir(parents=True)
        body = _ORIGIN.format(port=self.port, files=corpus.root)
        super().__init__(root / "nginx", body, access=str(self._access))

    def requests(self) -> int:
        """So many came until now."""
        with self._access.open("rb") as log:
            return sum(piece.count(b"\n") for piece in iter(lambda: log.read(1 << 20), b""))
