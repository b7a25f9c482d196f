"""
The fronts of purging on the admin listener (DESIGN 9): our own, ``PURGE <url>``, and asking how far one has come.

Each makes the same document of what it is asked, and the same purger does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from attrs import define, evolve

from edgecache.admin.access import peer_of
from edgecache.admin.answers import JSON, Answer, Problem, retry_after
from edgecache.admin.documents import purge_document
from edgecache.admin.parts import AdminParts
from edgecache.admin.queries import seconds_to_wait
from edgecache.siblings.purger import PurgeAnswer
from edgecache.words.purging import PurgeState, Token

if TYPE_CHECKING:
    from edgecache.admin.requests import AdminRequest

# What is waited for when nothing is said, and how long.
WAIT = PurgeState.DURABLE
WAIT_SECONDS = 5.0
_WAITS = {state.value: state for state in (PurgeState.DURABLE, PurgeState.EFFECTIVE, PurgeState.COMPLETE)}

# Beside the entries: the keys of the document and what has one value.
_OTHER_STRINGS = 16


@define(eq=False, repr=False)
class Purges:
    """Handlers of requests that purge, and what they have in common with the other fronts."""

    parts: AdminParts

    async def post(self, request: AdminRequest, token: Token) -> Answer:
        """``POST /purge``"""
        wait, timeout = self.wanted(request)
        document = json_document(request, self.parts.config.purge.selectors)
        return purged(await self.purge(document, wait, timeout, token, peer=peer_of(request), front="purge"))

    async def state(self, request: AdminRequest, token: Token, purge_id: str) -> Answer:
        """``GET /purge/<id>``: at once, or when it has come as far as ``wait``."""
        wait, timeout = self.wanted(request)
        answer = self.parts.purger.state(purge_id)
        if answer is None:
            raise Problem(404, "unknown-purge", f"No purge with the id {purge_id!r} is known here, or no longer.")
        if b"wait" in (request.args or {}):
            answer = await self.parts.purger.reached(answer, wait, timeout)
        return purged(answer)

    async def by_url(self, request: AdminRequest, token: Token) -> Answer:
        """
        ``PURGE <url>``: as this listener serves no site, a path is that path of every site.

        As elsewhere what it names is gone at once, unless a soft purge is asked for.
        """
        no_content(request)
        answer = await self.purge(
            self.url_document(request.uri, soft=self.is_soft(request)),
            WAIT,
            WAIT_SECONDS,
            token,
            peer=peer_of(request),
            front="PURGE",
        )
        return purged(answer)

    def url_document(self, url: bytes, *, soft: bool) -> dict[str, Any]:
        """
        :return: as of ``POST /purge``.
        :raises Problem: it is no text.
        """
        try:
            return {"urls": [url.decode()], "mode": self.mode(soft=soft)}
        except UnicodeDecodeError:
            raise Problem(400, "invalid-purge", f"{url!r} is not UTF-8.") from None

    def mode(self, *, soft: bool) -> str:
        """:return: what the two kinds of purges that others know are here."""
        return self.parts.config.purge.fastly_soft.value if soft else "delete"

    def is_soft(self, request: AdminRequest) -> bool:
        """:return: does ``Fastly-Soft-Purge`` ask for it?"""
        return request.field(b"fastly-soft-purge").strip() not in (b"", b"0")

    async def purge(
        self, document: Any, wait: PurgeState, timeout: float, token: Token, *, peer: str, front: str
    ) -> PurgeAnswer:
        """
        Do a purge and wait.

        :raises EdgeError: as :meth:`~edgecache.siblings.purger.Purger.accept`.
        """
        purger = self.parts.purger

        def audit(answer: PurgeAnswer, new: bool) -> None:
            # The id sent again by somebody else is still the purge of whoever was first: who asked now is told.
            answer = evolve(answer, purge=evolve(answer.purge, by=token.name))
            self.parts.audit.purged(answer, new, peer=peer, front=front)

        return await purger.reached(await purger.accept(document, token.name, audit), wait, timeout)

    def wanted(self, request: AdminRequest) -> tuple[PurgeState, float]:
        """
        :return: ``wait`` and ``timeout`` of the query; more seconds than are allowed are as many as are.
        :raises Problem: they make no sense.
        """
        arguments: dict[bytes, list[bytes]] = request.args or {}
        for name, values in arguments.items():
            if name not in (b"wait", b"timeout"):
                raise _bad_query(f"{name.decode('utf-8', 'backslashreplace')}: unknown; known are wait and timeout.")
            if len(values) > 1:
                raise _bad_query(f"{name.decode()}: given {len(values)} times.")
        wait = arguments.get(b"wait", [WAIT.value.encode()])[0].decode("utf-8", "backslashreplace")
        if wait not in _WAITS:
            raise _bad_query(f"wait: {wait!r} is none of {', '.join(_WAITS)}.")
        return _WAITS[wait], seconds_to_wait(request, WAIT_SECONDS, self.parts.config.purge.wait_longest_seconds)


def purged(answer: PurgeAnswer) -> Answer:
    """DESIGN 9: what the states of a purge are as statuses."""
    document = purge_document(answer)
    match answer.state:
        case PurgeState.COMPLETE | PurgeState.EFFECTIVE:
            return Answer(document)
        case PurgeState.DURABLE:
            return Answer(document, 202)
        case PurgeState.LOCAL:
            return Answer(document, 503, headers=retry_after(1.0))


def json_document(request: AdminRequest, most: int | None = None) -> Any:
    """
    :param most: entries of a purge; many more are refused before any of them becomes an object.
    :raises Problem: it is not JSON, or not said to be, which a page of somebody else cannot do unasked.
    """
    if request.media_type() != JSON:
        given = request.field(b"content-type").decode("latin-1")
        raise Problem(415, "not-json", f"Content-Type must be application/json, not {given!r}.")
    body = request.body.getvalue()
    if most is not None and _has_more_than(body, most):
        raise Problem(413, "too-many", f"More entries than the {most} that one purge may have ([purge] selectors).")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, "not-json", f"The body is not JSON: {error}.") from error


def no_content(request: AdminRequest) -> None:
    """:raises Problem: the request has content, which would mean nothing."""
    if request.body.tell():
        raise Problem(400, "content", "This request has no content; POST /purge takes a document.")


def _has_more_than(body: bytes, most: int) -> bool:
    """
    :return: has JSON more strings or lists than a purge of ``most`` entries? Counts octets and makes nothing.

    An escaped quote counts for nothing, a bracket within a string as one more list, which few URLs have.
    """
    quotes = body.count(b'"') - body.count(b'\\"')
    lists = body.count(b"[") + body.count(b"{")
    return quotes > 2 * (most + _OTHER_STRINGS) or lists > most + _OTHER_STRINGS


def _bad_query(detail: str) -> Problem:
    return Problem(400, "invalid-query", detail)
