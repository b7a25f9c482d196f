"""
The demo's origins, each a process: an index of the wheels in a directory, or one that takes requests and never answers.

``python -m edgecache.demo.origin HOST:PORT DIRECTORY`` or ``python -m edgecache.demo.origin HOST:PORT``. An empty
directory gets a wheel.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from edgecache.demo.wheels import filename, wheel

_META = {"api-version": "1.1"}
_PAGE = "application/vnd.pypi.simple.v1+json"


class Hanging(BaseHTTPRequestHandler):
    """What an overloaded server looks like from outside."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """For ever."""
        threading.Event().wait()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody looks."""


class Index(Hanging):
    """The simple API (PEP 691) of the wheels in a directory, as they are when asked for."""

    directory: Path

    def do_GET(self) -> None:
        """Answer."""
        print(f"GET {self.path}", flush=True)  # noqa: T201  # its log
        path = self.path.partition("?")[0]
        first, _, name = path.strip("/").partition("/")
        wheels = self._wheels()
        if path == "/simple/":
            self._page({"meta": _META, "projects": [{"name": project} for project in sorted(wheels)]})
        elif first == "simple" and path.endswith("/") and name in wheels:
            self._page(_project(name, wheels[name]))
        elif first == "files" and name in {file.name for files in wheels.values() for file in files}:
            content = (self.directory / name).read_bytes()
            self._send(200, "application/octet-stream", content, "max-age=31536000, immutable")
        else:
            self._send(404, "text/plain", b"there is no such file\n", "no-store")

    def _wheels(self) -> dict[str, list[Path]]:
        """:return: by normalised name of their project."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.directory.glob("*.whl")):
            name = path.name.partition("-")[0].replace("_", "-").lower()
            found.setdefault(name, []).append(path)
        return found

    def _page(self, document: dict[str, Any]) -> None:
        self._send(200, _PAGE, orjson.dumps(document), "max-age=600")

    def _send(self, status: int, kind: str, content: bytes, cache_control: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", cache_control)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:16]}"')
        self.end_headers()
        self.wfile.write(content)


def _project(name: str, wheels: list[Path]) -> dict[str, Any]:
    files = []
    for path in wheels:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entry = {"filename": path.name, "url": f"/files/{path.name}", "hashes": {"sha256": digest}}
        files.append({**entry, "size": len(content)})
    versions = sorted({path.name.split("-")[1] for path in wheels})
    return {"meta": _META, "name": name, "versions": versions, "files": files}


def main(where: str, directory: str | None = None) -> None:
    """Serve until the process is ended."""
    host, _, port = where.rpartition(":")
    handler: type[BaseHTTPRequestHandler] = Hanging
    if directory is not None:
        handler = type("Here", (Index,), {"directory": Path(directory)})
        if not any(Path(directory).iterdir()):
            Path(directory, filename("1.0")).write_bytes(wheel("1.0"))
    ThreadingHTTPServer((host, int(port)), handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
