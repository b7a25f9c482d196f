"""
The admin listener's routes (DESIGN 11).

Every answer but the metrics is JSON; every refusal names what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from attrs import define
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException

from edgecache.admin.access import Access
from edgecache.admin.answers import Answer, Problem, problem_of, refuse, respond, retry_after
from edgecache.admin.documents import purge_document, status_document
from edgecache.admin.metrics import exposition
from edgecache.admin.parts import AdminParts
from edgecache.admin.requests import JSON, AdminRequest
from edgecache.admin.tokens import ADMIN, NAME
from edgecache.siblings.purger import PurgeAnswer
from edgecache.words.errors import EdgeError
from edgecache.words.purging import PurgeState, Scope, Token

_log = Logger()

_WAITS = (PurgeState.DURABLE, PurgeState.EFFECTIVE, PurgeState.COMPLETE)
_MOST_SECONDS = 60.0

Handler = Callable[..., Awaitable[Answer]]


@define(eq=False)
class Admin:
    """
    What each route does.

    Handlers get the request and the token that it came with.
    """

    _parts: AdminParts
    _access: Access

    def application(self) -> Klein:
        """:return: all routes."""
        app = Klein()
        self._route(app, "/healthz", "GET", self.healthz, Scope.STATUS, open_here=True)
        self._route(app, "/readyz", "GET", self.readyz, Scope.STATUS, open_here=True)
        self._route(app, "/metrics", "GET", self.metrics, Scope.STATUS, open_here=True)
        self._route(app, "/status", "GET", self.status, Scope.STATUS)
        self._route(app, "/purge", "POST", self.purge, Scope.PURGE)
        self._route(app, "/purge/<path:purge_id>", "GET", self.purge_state, Scope.PURGE)
        self._route(app, "/tokens", "POST", self.make_token, Scope.TOKENS)
        self._route(app, "/tokens/<name>", "DELETE", self.revoke_token, Scope.TOKENS)
        app.handle_errors(HTTPException)(_unrouted)  # type: ignore[arg-type]  # klein knows no subclass of its request
        return app

    async def healthz(self, request: AdminRequest, token: Token) -> Answer:
        """The node process runs and answers."""
        return Answer({"status": "ok"})

    async def readyz(self, request: AdminRequest, token: Token) -> Answer:
        """Traffic may come here: a worker accepts it and the node is not going down."""
        unready = self._parts.unready()
        if unready is not None:
            raise Problem(503, "not-ready", unready, retry_after(1.0))
        return Answer({"status": "ready"})

    async def metrics(self, request: AdminRequest, token: Token) -> Answer:
        """For Prometheus."""
        content, content_type = exposition(self._parts, request.field(b"accept").decode("latin-1"))
        return Answer(content, content_type=content_type.encode())

    async def status(self, request: AdminRequest, token: Token) -> Answer:
        """Everything that the dashboard shows."""
        return Answer(status_document(self._parts))

    async def purge(self, request: AdminRequest, token: Token) -> Answer:
        """Do a purge. A lone node is complete at once, whatever is waited for."""
        _wanted(request)
        return _purged(await self._parts.purger.accept(_document(request), token.name))

    async def purge_state(self, request: AdminRequest, token: Token, purge_id: str) -> Answer:
        """How far a purge has come."""
        _wanted(request)
        answer = self._parts.purger.state(purge_id)
        if answer is None:
            raise Problem(404, "unknown-purge", f"No purge with the id {purge_id!r} is known here, or no longer.")
        return _purged(answer)

    async def make_token(self, request: AdminRequest, token: Token) -> Answer:
        """``{"name": ..., "scopes": [...]}``: the answer is the only place where the token can be read."""
        document = _document(request)
        if not isinstance(document, dict) or set(document) != {"name", "scopes"}:
            raise Problem(400, "invalid-token", 'The body must be {"name": "...", "scopes": ["..."]}.')
        name, listed = document["name"], document["scopes"]
        if not isinstance(name, str) or NAME.fullmatch(name) is None or name == ADMIN:
            detail = f"name: {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores, and not {ADMIN!r}."
            raise Problem(400, "invalid-token", detail)
        scopes = _scopes(listed)
        if not scopes <= token.scopes:
            missing = ", ".join(sorted(scope.value for scope in scopes - token.scopes))
            raise Problem(403, "scope-missing", f"scopes: your own token {token.name!r} lacks {missing}.")
        made = await self._parts.tokens.create(name, scopes)
        _log.info("token {name} made by {by}", name=name, by=token.name)
        return Answer({"name": name, "scopes": sorted(scope.value for scope in scopes), "token": made}, 201)

    async def revoke_token(self, request: AdminRequest, token: Token, name: str) -> Answer:
        """It does not work from now on."""
        if name == ADMIN:
            detail = f"The token {ADMIN!r} is what its file says; remove the file and restart the node."
            raise Problem(409, "admin-token", detail)
        if not await self._parts.tokens.revoke(name):
            raise Problem(404, "unknown-token", f"No token has the name {name!r}.")
        _log.info("token {name} revoked by {by}", name=name, by=token.name)
        return Answer({"name": name, "revoked": True})

    def _route(
        self, app: Klein, path: str, method: str, handler: Handler, scope: Scope, *, open_here: bool = False
    ) -> None:
        async def handle(request: AdminRequest, **arguments: str) -> bytes:
            try:
                token = self._access.check(request, scope, open_here=open_here)
                if request.too_large:
                    limit = self._parts.config.purge.body_octets
                    raise Problem(413, "too-large", f"The body is larger than {limit} octets ([purge] body_octets).")
                answer = await handler(request, token, **arguments)
            except EdgeError as error:
                problem = problem_of(error)
                if problem is None:
                    return _broken(request)
                return refuse(request, problem)
            except CancelledError:
                # The client has gone.
                raise
            except Exception:  # noqa: BLE001  # the rim: a bug is logged, and told as one
                return _broken(request)
            return respond(request, answer)

        app.route(path, methods=[method], endpoint=f"{method} {path}", strict_slashes=False)(handle)


def _broken(request: AdminRequest) -> bytes:
    _log.failure("admin: {method} {uri} failed", method=request.method, uri=request.uri)
    return refuse(request, Problem(500, "internal", "A fault of this program; the log says more."))


def _unrouted(request: AdminRequest, failure: Failure) -> bytes:
    """No route: klein's own errors, as JSON."""
    error = failure.value
    assert isinstance(error, HTTPException)
    path = request.path.decode("utf-8", "backslashreplace")
    if error.code == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        method = request.method.decode("latin-1")
        detail = f"{method} is not for {path}; allowed: {allowed}."
        return refuse(request, Problem(405, "method-not-allowed", detail, (("Allow", allowed),)))
    return refuse(request, Problem(error.code or 404, "not-found", f"Nothing is at {path}."))


def _purged(answer: PurgeAnswer) -> Answer:
    """DESIGN 9: what the states of a purge are as statuses."""
    document = purge_document(answer)
    match answer.state:
        case PurgeState.COMPLETE | PurgeState.EFFECTIVE:
            return Answer(document)
        case PurgeState.DURABLE:
            return Answer(document, 202)
        case PurgeState.LOCAL:
            return Answer(document, 503, headers=retry_after(1.0))


def _document(request: AdminRequest) -> Any:
    """:raises Problem: it is not JSON, or not said to be, which a page of somebody else cannot do unasked."""
    if request.media_type() != JSON:
        given = request.field(b"content-type").decode("latin-1")
        raise Problem(415, "not-json", f"Content-Type must be application/json, not {given!r}.")
    try:
        return orjson.loads(request.body.getvalue())
    except orjson.JSONDecodeError as error:
        raise Problem(400, "not-json", f"The body is not JSON: {error}.") from error


def _wanted(request: AdminRequest) -> tuple[PurgeState, float]:
    """:return: ``wait`` and ``timeout`` of the query. :raises Problem: they make no sense."""
    arguments: dict[bytes, list[bytes]] = request.args or {}
    for name in arguments:
        if name not in (b"wait", b"timeout"):
            raise _bad_query(f"{name.decode('utf-8', 'backslashreplace')}: unknown; known are wait and timeout.")
    wait = arguments.get(b"wait", [b"durable"])[-1].decode("utf-8", "backslashreplace")
    states = {state.value: state for state in _WAITS}
    if wait not in states:
        raise _bad_query(f"wait: {wait!r} is none of {', '.join(states)}.")
    text = arguments.get(b"timeout", [b"5"])[-1].decode("utf-8", "backslashreplace")
    try:
        timeout = float(text)
    except ValueError:
        timeout = -1.0
    if not 0.0 <= timeout <= _MOST_SECONDS:
        raise _bad_query(f"timeout: {text!r} is no number of seconds from 0 to {_MOST_SECONDS:g}.")
    return states[wait], timeout


def _bad_query(detail: str) -> Problem:
    return Problem(400, "invalid-query", detail)


def _scopes(listed: Any) -> frozenset[Scope]:
    known = {scope.value: scope for scope in Scope}
    if not isinstance(listed, list) or not listed:
        raise Problem(400, "invalid-token", f"scopes must be a list with some of {', '.join(known)}.")
    for scope in listed:
        if not isinstance(scope, str) or scope not in known:
            raise Problem(400, "invalid-token", f"scopes: {scope!r} is none of {', '.join(known)}.")
    return frozenset(known[scope] for scope in listed)
