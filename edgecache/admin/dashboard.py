"""
The dashboard: a page with its scripts, from this package and from nowhere else (DESIGN 11).

It holds nothing secret, so it needs no token. What it shows it asks the other routes for, with a token of its reader's.
"""

from __future__ import annotations

from importlib.resources import files

from attrs import frozen
from klein import Klein
from twisted.web.http import Request

from edgecache.admin.answers import Answer, Problem, refuse, respond

_TYPES = {"html": b"text/html", "css": b"text/css", "js": b"text/javascript"}

# Scripts and styles are files of ours: what a URL or an origin put into a page could not run.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@frozen
class _File:
    content: bytes
    kind: bytes


class Dashboard:
    """Its files, read once."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        for path in (files("edgecache.admin") / "page").iterdir():
            kind = _TYPES.get(path.name.rpartition(".")[2])
            if kind is not None:
                self._files[path.name] = _File(path.read_bytes(), kind + b"; charset=utf-8")

    def route(self, app: Klein) -> None:
        """Serve them: the page at ``/``, the others below ``/dashboard/``."""

        def page(request: Request) -> bytes:
            return self._send(request, "index.html")

        def part(request: Request, name: str) -> bytes:
            return self._send(request, name)

        app.route("/", methods=["GET"], endpoint="GET /")(page)
        app.route("/dashboard/<name>", methods=["GET"], endpoint="GET /dashboard/<name>")(part)

    def _send(self, request: Request, name: str) -> bytes:
        file = self._files.get(name)
        if file is None:
            return refuse(request, Problem(404, "not-found", f"Nothing is at /dashboard/{name}."))
        return respond(request, Answer(file.content, 200, file.kind, (("Content-Security-Policy", _POLICY),)))
