"""
The admin listener's routes (DESIGN 11).

Every answer but the dashboard and the metrics is JSON; every refusal names what is wrong.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import define
from klein import Klein
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException

from edgecache.admin.access import peer_of, presented
from edgecache.admin.answers import Answer, Problem, problem_of, refuse, respond, retry_after
from edgecache.admin.dashboard import Dashboard
from edgecache.admin.documents import status_document
from edgecache.admin.downloads import DownloadRoutes
from edgecache.admin.explain import Explanations
from edgecache.admin.fastly import Fastly
from edgecache.admin.feeds import Feeds
from edgecache.admin.metrics import exposition
from edgecache.admin.objects import TOP
from edgecache.admin.parts import AdminParts
from edgecache.admin.purges import Purges, json_document
from edgecache.admin.queries import arguments, number
from edgecache.admin.requests import AdminRequest, named
from edgecache.admin.tokens import ADMIN, NAME
from edgecache.admin.verify import VerifyRoutes
from edgecache.words.errors import EdgeError
from edgecache.words.purging import Scope, Token

_log = Logger()

MOST_OBJECTS = 1000
"""That one answer tells of."""

Handler = Callable[..., Awaitable[Answer | None]]
"""``None``: it has answered already, bit by bit."""


@define(eq=False, repr=False)
class Admin:
    """
    What each route does.

    Handlers get the request and the token that it came with.
    """

    _parts: AdminParts

    def application(self) -> Klein:
        """:return: all routes."""
        app = Klein()
        # Two slashes are not one: they can be in a key, or in the id of a purge.
        app.url_map.merge_slashes = False
        Dashboard().route(app)
        self._route(app, "/healthz", "GET", self.healthz, Scope.STATUS, open_here=True)
        self._route(app, "/readyz", "GET", self.readyz, Scope.STATUS, open_here=True)
        self._route(app, "/metrics", "GET", self.metrics, Scope.STATUS, open_here=True)
        self._route(app, "/status", "GET", self.status, Scope.STATUS)
        self._route(app, "/objects", "GET", self.objects, Scope.STATUS)
        self._route(app, "/explain", "GET", Explanations(self._parts).get, Scope.STATUS)
        verify = VerifyRoutes(self._parts)
        self._route(app, "/verify", "GET", verify.get, Scope.STATUS)
        self._route(app, "/verify", "POST", verify.post, Scope.VERIFY)
        self._route(app, "/verify", "DELETE", verify.delete, Scope.VERIFY)
        purges = Purges(self._parts)
        self._route(app, "/purge", "POST", purges.post, Scope.PURGE)
        self._route(app, "/purge/<path:purge_id>", "GET", purges.state, Scope.PURGE)
        fastly = Fastly(purges)
        self._route(app, "/service/<service>/purge/<path:key>", "POST", fastly.one, Scope.PURGE)
        self._route(app, "/service/<service>/purge", "POST", fastly.bulk, Scope.PURGE)
        self._route(app, "/service/<service>/purge_all", "POST", fastly.everything, Scope.PURGE)
        self._route(app, "/feed", "GET", Feeds(self._parts).get, Scope.STATUS)
        downloads = DownloadRoutes(self._parts)
        self._route(app, "/downloads", "GET", downloads.get, Scope.STATUS)
        self._route(app, "/local-stats/days/<name>", "GET", downloads.day, Scope.STATUS)
        self._route(app, "/last-modified", "GET", downloads.last_modified, Scope.STATUS)
        self._route(app, "/tokens", "POST", self.make_token, Scope.TOKENS)
        self._route(app, "/tokens/<name>", "DELETE", self.revoke_token, Scope.TOKENS)
        app.handle_errors(HTTPException)(_unrouted)  # type: ignore[arg-type]  # klein knows no subclass of its request
        return app

    def purging(self) -> Klein:
        """:return: the one route of ``PURGE``, for which the gate lets every target be the root."""
        app = Klein()
        self._route(app, "/", "PURGE", Purges(self._parts).by_url, Scope.PURGE)
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
        # What it finds is in the next one.
        _ = self._parts.objects.look()
        return Answer(status_document(self._parts))

    async def objects(self, request: AdminRequest, token: Token) -> Answer:
        """``GET /objects?by=hottest&limit=100``, or ``by=biggest``: more than fits into the status."""
        asked = arguments(request, "by", "limit")
        limit = number(asked, "limit", TOP, MOST_OBJECTS)
        objects = self._parts.objects
        match asked.get("by", ["hottest"])[-1]:
            case "hottest":
                return Answer({"by": "hottest", **objects.hottest(limit)})
            case "biggest":
                await objects.look()
                found = objects.biggest(self._parts.config.sites, self._parts.wall(), limit)
                return Answer({"by": "biggest", **found})
            case by:
                raise Problem(400, "invalid-query", f"by: {by!r} is none of hottest, biggest.")

    async def make_token(self, request: AdminRequest, token: Token) -> Answer:
        """``{"name": ..., "scopes": [...]}``: the answer is the only place where the token can be read."""
        document = json_document(request)
        if not isinstance(document, dict) or set(document) != {"name", "scopes"}:
            raise Problem(400, "invalid-token", 'The body must be {"name": "...", "scopes": ["..."]}.')
        name = document["name"]
        if not isinstance(name, str) or NAME.fullmatch(name) is None or name == ADMIN:
            detail = f"name: {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores, and not {ADMIN!r}."
            raise Problem(400, "invalid-token", detail)
        scopes = _scopes(document["scopes"])
        if not scopes <= token.scopes:
            missing = ", ".join(sorted(scope.value for scope in scopes - token.scopes))
            raise Problem(403, "scope-missing", f"scopes: your own token {token.name!r} lacks {missing}.")
        made = await self._parts.tokens.create(name, scopes)
        _log.info("token {name} made by {by}", name=name, by=token.name)
        listed = sorted(scope.value for scope in scopes)
        self._parts.audit.changed("token-made", token=token.name, peer=peer_of(request), name=name, scopes=listed)
        return Answer({"name": name, "scopes": listed, "token": made}, 201)

    async def revoke_token(self, request: AdminRequest, token: Token, name: str) -> Answer:
        """It does not work from now on."""
        if name == ADMIN:
            detail = f"The token {ADMIN!r} is what its file says; remove the file and restart the node."
            raise Problem(409, "admin-token", detail)
        if not await self._parts.tokens.revoke(name):
            raise Problem(404, "unknown-token", f"No token has the name {name!r}.")
        _log.info("token {name} revoked by {by}", name=name, by=token.name)
        self._parts.audit.changed("token-revoked", token=token.name, peer=peer_of(request), name=name)
        return Answer({"name": name, "revoked": True})

    def _route(
        self, app: Klein, path: str, method: str, handler: Handler, scope: Scope, *, open_here: bool = False
    ) -> None:
        async def handle(request: AdminRequest, **arguments: str) -> bytes:
            try:
                token = self._parts.access.check(request, scope, open_here=open_here)
                if request.too_large:
                    limit = self._parts.config.purge.body_octets
                    raise Problem(413, "too-large", f"The body is larger than {limit} octets ([purge] body_octets).")
                answer = await handler(request, token, **arguments)
            except EdgeError as error:
                problem = problem_of(error)
                if problem is None:
                    return _broken(request)
                self._audit(request, problem)
                return refuse(request, problem)
            except CancelledError:
                # The client has gone.
                raise
            except Exception:  # noqa: BLE001  # the rim: a bug is logged, and told as one
                return _broken(request)
            return b"" if answer is None else respond(request, answer)

        app.route(path, methods=[method], endpoint=f"{method} {path}", strict_slashes=False)(handle)

    def _audit(self, request: AdminRequest, problem: Problem) -> None:
        """Whoever may not do something, and whatever would have changed something, leaves a trace when refused."""
        token = presented(request)
        if problem.status not in (401, 403) and request.method in (b"GET", b"HEAD"):
            return
        if token is None and request.method in (b"GET", b"HEAD"):
            # A health check without a token is nobody's attempt at anything.
            return
        self._parts.audit.refused(
            presented=token or "",
            token=self._parts.access.name_of(token),
            peer=peer_of(request),
            method=request.method.decode("latin-1"),
            path=named(request),
            status=problem.status,
            error=problem.error,
            detail=problem.detail,
        )


def _broken(request: AdminRequest) -> bytes:
    _log.failure("admin: {method} {path} failed", method=request.method, path=named(request))
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


def _scopes(listed: Any) -> frozenset[Scope]:
    known = {scope.value: scope for scope in Scope}
    if not isinstance(listed, list) or not listed:
        raise Problem(400, "invalid-token", f"scopes must be a list with some of {', '.join(known)}.")
    for scope in listed:
        if not isinstance(scope, str) or scope not in known:
            raise Problem(400, "invalid-token", f"scopes: {scope!r} is none of {', '.join(known)}.")
    return frozenset(known[scope] for scope in listed)
