"""A project's files by name, as its page lists them: where each is, and what it must hash to."""

from __future__ import annotations

from typing import Any

import orjson
from attrs import frozen

from edgecache.index.errors import BadPage
from edgecache.rules.indexpaths import ArtifactAsked


@frozen
class NamedFile:
    """
    One file of a page.

    :ivar url: at the origin, absolute, without fragment.
    :ivar sha256: 32 octets; ``b""`` where neither page nor path names it.
    :ivar size: octets, where the page tells (PEP 700).
    :ivar metadata_sha256: of the ``.metadata`` file beside it, 32 octets; ``b""``: there is one, hashed with
        nothing we know; ``None``: the page promises none (PEP 658, 714).
    """

    filename: bytes
    url: bytes
    sha256: bytes = b""
    size: int | None = None
    metadata_sha256: bytes | None = None


@frozen(eq=False, repr=False)
class Catalogue:
    """The files of one page. Quarantined projects have none (PEP 792)."""

    _files: dict[str, list[tuple[Any, ...]]]

    @classmethod
    def parse(cls, document: bytes) -> Catalogue:
        """
        :param document: canonical, of a project.
        :raises BadPage: it is another document.
        """
        found: dict[str, list[tuple[Any, ...]]] = {}
        try:
            for file in orjson.loads(document)["files"]:
                row = (
                    file["url"],
                    file["hashes"].get("sha256", ""),
                    file.get("size"),
                    file.get("core-metadata", False),
                )
                found.setdefault(file["filename"], []).append(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadPage(f"not a canonical document: {error!r}") from error
        return cls(found)

    def __len__(self) -> int:
        return sum(map(len, self._files.values()))

    def find(self, artifact: ArtifactAsked) -> NamedFile | None:
        """
        The file that a path names, or the one that the companion asked for belongs to.

        A page may list a file twice, with different digests: the path's decides. A path without digest names the
        first. A page that lists no digest for a file leaves the path's, which the file must hash to all the same.

        :return: ``None`` if the page does not list it, or only with another digest. Where the page lists a file of
            the whole name, companion and all, that is it.
        """
        found = self._named(artifact.filename, artifact.sha256)
        if found is None and artifact.companion:
            found = self._named(artifact.filename + artifact.companion, artifact.sha256)
        return found

    def _named(self, filename: bytes, sha256: bytes) -> NamedFile | None:
        try:
            rows = self._files.get(filename.decode(), ())
        except UnicodeDecodeError:
            return None
        asked = sha256.hex()
        for url, told, size, metadata in rows:
            if not asked or not told or told == asked:
                return NamedFile(
                    filename,
                    url.partition("#")[0].encode("ascii"),
                    bytes.fromhex(told) or sha256,
                    size,
                    _metadata(metadata),
                )
        return None


def _metadata(told: bool | dict[str, str]) -> bytes | None:
    if type(told) is dict:
        return bytes.fromhex(told.get("sha256", ""))
    return b"" if told else None
