"""A small index of our own: packages are uploaded to it while it runs, and each change has a serial (FIELD 3)."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import orjson
from attrs import define, field

from edgecache.rules.indexpaths import normalised_name
from tests.system.contents import Octets
from tests.system.index_servers import anchor
from tests.system.origins import Origin, Reply, Seen
from tests.system.packages import Package

JSON = "application/vnd.pypi.simple.v1+json"
_FILE_FIELDS = (
    ("Content-Type", "application/octet-stream"),
    ("Cache-Control", "max-age=365000000, immutable"),
    ("Accept-Ranges", "bytes"),
)
_UPLOADED = "2020-01-01T00:00:00.000000Z"


@define(eq=False)
class _Project:
    name: str
    serial: int
    files: dict[str, tuple[Package, dict[str, Any]]] = field(factory=dict)


class SerialIndex:
    """
    Pages in both forms, the list, releases documents and files, as the public index has them; on threads of the test.

    :ivar origin: who answers; it has files as well, unless ``file_host`` is another address.
    :ivar file_origin: who has the files.
    :ivar weak: entity tags of its pages are weak.
    :ivar interim: octets before the head of each page.
    :ivar age: seconds for which its pages lay in a cache before us.
    """

    def __init__(
        self, *, host: str = "127.0.0.1", file_host: str = "", json_pages: bool = True, credentials: str = ""
    ) -> None:
        """
        :param host: address at which it is.
        :param file_host: another address of loopback that has the files.
        :param json_pages: without, it knows HTML only.
        :param credentials: the Authorization that everybody needs.
        """
        self.origin = Origin(self._answer, host=host)
        self.file_origin = Origin(self._answer, host=file_host) if file_host else self.origin
        self._json_pages = json_pages
        self._credentials = credentials
        self._lock = threading.Lock()
        self._projects: dict[str, _Project] = {}
        self._contents: dict[str, bytes] = {}
        self._serial = 0
        self.weak = False
        self.interim = b""
        self.age = 0

    def start(self) -> SerialIndex:
        self.origin.start()
        self.file_origin.start()
        return self

    def stop(self) -> None:
        self.origin.stop()
        self.file_origin.stop()

    @property
    def url(self) -> str:
        return self.origin.url

    def upload(self, *packages: Package, **keys: Any) -> int:
        """
        Publish them in one step.

        :param keys: further keys of their entries, ``yanked`` for one.
        :return: the new serial.
        """
        with self._lock:
            self._serial += 1
            for package in packages:
                name = normalised_name(package.project.encode()).decode()
                project = self._projects.setdefault(name, _Project(package.project, 0))
                project.serial = self._serial
                project.files[package.filename] = (package, keys)
                path = f"/packages/{name}/{package.filename}"
                self._contents[path] = package.content
                self._contents[f"{path}.metadata"] = package.metadata
            return self._serial

    def withdraw(self, name: str) -> None:
        """There is no such project any more; its files are still where they were."""
        with self._lock:
            self._serial += 1
            del self._projects[name]

    def set_back(self, name: str, serial: int) -> None:
        """The project is as an old backup has it: by its serial, and without its last file."""
        with self._lock:
            project = self._projects[name]
            project.serial = serial
            project.files.popitem()

    def lose_metadata(self, package: Package) -> None:
        """It is promised, and not there."""
        name = normalised_name(package.project.encode()).decode()
        with self._lock:
            del self._contents[f"/packages/{name}/{package.filename}.metadata"]

    def serve_instead(self, package: Package, content: bytes) -> None:
        """From now on the file has this content, whatever the page says."""
        name = normalised_name(package.project.encode()).decode()
        with self._lock:
            self._contents[f"/packages/{name}/{package.filename}"] = content

    def serial(self, name: str) -> int:
        """:param name: normalised."""
        with self._lock:
            return self._projects[name].serial

    def serials(self) -> dict[str, int]:
        """Of all projects, by normalised names."""
        with self._lock:
            return {name: project.serial for name, project in self._projects.items()}

    def filenames(self, name: str) -> set[str]:
        """:param name: normalised."""
        with self._lock:
            return set(self._projects[name].files)

    def _answer(self, seen: Seen) -> Reply | None:
        if self._credentials and seen.fields.get("authorization") != self._credentials:
            challenge = (("WWW-Authenticate", 'Basic realm="index"'),)
            return Reply(Octets(b"who are you?\n"), status=401, fields=challenge)
        path = seen.target.partition("?")[0]
        with self._lock:
            content = self._contents.get(path)
            if content is not None:
                return Reply(Octets(content), fields=_FILE_FIELDS, etag=f'"{len(content)}-{hash(content):x}"')
            as_json = self._json_pages and JSON in seen.fields.get("accept", "")
            match path.strip("/").split("/"):
                case ["simple"]:
                    reply = self._list(as_json)
                case ["simple", name] if name in self._projects and path.endswith("/"):
                    reply = self._page(name, as_json)
                case ["pypi", name, "json"] if name in self._projects:
                    reply = self._releases(name, None)
                case ["pypi", name, version, "json"] if name in self._projects:
                    reply = self._releases(name, version)
                case _:
                    return None
        reply.interim = self.interim
        if self.age:
            reply.fields += (("Age", str(self.age)),)
        if self.weak and reply.etag is not None:
            reply.etag = f"W/{reply.etag}"
        return reply

    def _list(self, as_json: bool) -> Reply:
        known = sorted(self._projects.items())
        if as_json:
            projects = [{"name": project.name, "_last-serial": project.serial} for _, project in known]
            meta = {"api-version": "1.1", "_last-serial": self._serial}
            return _page(JSON, orjson.dumps({"meta": meta, "projects": projects}), self._serial)
        anchors = "".join(f'<a href="{name}/">{project.name}</a><br/>\n' for name, project in known)
        return _page("text/html", _html(anchors), self._serial)

    def _page(self, name: str, as_json: bool) -> Reply:
        project = self._projects[name]
        entries = [
            {
                "filename": package.filename,
                "url": self._link(name, package),
                "hashes": {"sha256": package.sha256},
                "size": len(package.content),
                "upload-time": _UPLOADED,
                "core-metadata": {"sha256": package.metadata_sha256},
                "yanked": False,
                **keys,
            }
            for package, keys in project.files.values()
        ]
        if as_json:
            document = {
                "meta": {"api-version": "1.1", "_last-serial": project.serial},
                "name": name,
                "versions": sorted({package.version for package, _ in project.files.values()}),
                "files": entries,
            }
            return _page(JSON, orjson.dumps(document), project.serial)
        return _page("text/html", _html("".join(map(anchor, entries))), project.serial)

    def _link(self, name: str, package: Package) -> str:
        return f"{self.file_origin.url}/packages/{name}/{package.filename}"

    def _releases(self, name: str, version: str | None) -> Reply:
        project = self._projects[name]
        releases: dict[str, list[dict[str, Any]]] = {}
        for package, keys in project.files.values():
            releases.setdefault(package.version, []).append(
                {
                    "filename": package.filename,
                    "url": self._link(name, package),
                    "digests": {"sha256": package.sha256},
                    "size": len(package.content),
                    "upload_time_iso_8601": _UPLOADED,
                    "packagetype": "bdist_wheel" if package.filename.endswith(".whl") else "sdist",
                    "requires_python": None,
                    "yanked": bool(keys.get("yanked", False)),
                    "yanked_reason": keys["yanked"] if isinstance(keys.get("yanked"), str) else None,
                }
            )
        shown = version or list(releases)[-1]
        if shown not in releases:
            return Reply(Octets(b"no such version\n"), status=404)
        information = {
            "name": project.name,
            "version": shown,
            "summary": "",
            "requires_dist": _requirements(project.files.values(), shown),
            "requires_python": None,
        }
        document = {"info": information, "last_serial": project.serial, "urls": releases[shown]}
        if version is None:
            document["releases"] = releases
        return _page("application/json", orjson.dumps(document), project.serial)


def _requirements(files: Iterable[tuple[Package, dict[str, Any]]], version: str) -> list[str]:
    """As the metadata of a version's first file says."""
    first = next(package for package, _ in files if package.version == version)
    lines = first.metadata.decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


def _page(kind: str, content: bytes, serial: int) -> Reply:
    fields = (
        ("Content-Type", kind),
        ("Cache-Control", "max-age=600, public"),
        ("Vary", "Accept"),
        ("X-PyPI-Last-Serial", str(serial)),
    )
    return Reply(Octets(content), fields=fields, etag=f'"{serial}-{hash(content):x}"')


def _html(anchors: str) -> bytes:
    return f"<!DOCTYPE html><html><body>\n{anchors}</body></html>\n".encode()
