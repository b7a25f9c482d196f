"""Small packages made on the spot: wheels and source archives whose octets are the same each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

from attrs import frozen

_EPOCH = (2020, 1, 1, 0, 0, 0)


@frozen
class Package:
    """
    One file of a project.

    :ivar project: as its author spells it.
    :ivar metadata: the core metadata file's octets.
    """

    project: str
    version: str
    filename: str
    content: bytes
    metadata: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def metadata_sha256(self) -> str:
        return hashlib.sha256(self.metadata).hexdigest()

    def write(self, directory: Path) -> Path:
        """:return: where it lies now."""
        path = directory / self.filename
        path.write_bytes(self.content)
        return path


def wheel(project: str, version: str, *, requires: tuple[str, ...] = (), padding: int = 0) -> Package:
    """
    A wheel with one module that says its version.

    :param padding: octets of content that no compression makes smaller.
    """
    name = project.replace("-", "_")
    module = name.lower().replace(".", "_")
    information = f"{name}-{version}.dist-info"
    metadata = _metadata(project, version, requires)
    files = {
        f"{module}.py": f"VERSION = {version!r}\n".encode(),
        f"{information}/METADATA": metadata,
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if padding:
        files[f"{module}_data.bin"] = _noise(f"{project} {version}", padding)
    record = "".join(f"{path},,\n" for path in (*files, f"{information}/RECORD"))
    files[f"{information}/RECORD"] = record.encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), content)
    return Package(project, version, f"{name}-{version}-py3-none-any.whl", out.getvalue(), metadata)


def sdist(project: str, version: str) -> Package:
    """A source archive; nobody here builds it."""
    metadata = _metadata(project, version, ())
    name = f"{project.replace('-', '_')}-{version}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(f"{name}/PKG-INFO")
        member.size = len(metadata)
        archive.addfile(member, io.BytesIO(metadata))
    return Package(project, version, f"{name}.tar.gz", gzip.compress(packed.getvalue(), mtime=0), metadata)


def _metadata(project: str, version: str, requires: tuple[str, ...]) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires), "", ""]).encode()


def _noise(seed: str, octets: int) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(octets)
