"""What the admin listener answers: JSON, and problems that say what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from attrs import define, field, frozen

from edgecache.siblings.feed import BadCursor
from edgecache.siblings.purger import NoSites, NotAdmitted, PurgeConflict, PurgeInvalid, TooManyPurges
from edgecache.words.errors import ControlFailed, EdgeError

if TYPE_CHECKING:
    from twisted.web.http import Request

JSON = b"application/json"

# No page of anybody may read, frame or guess at what is here.
_HEADERS = (
    (b"Cache-Control", b"no-store"),
    (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Server", b"edgecache"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Frame-Options", b"DENY"),
)


_FASTLY = b"/service/"


@define(eq=False, repr=False)
class Problem(EdgeError):
    """
    A request that is not done.

    :ivar error: one token, for programs.
    :ivar detail: one sentence that names the offending entry, for people.
    """

    status: int
    error: str
    detail: str
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class Answer:
    """:ivar content: what becomes JSON, or octets of ``content_type``."""

    content: Any
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[str, str], ...] = field(default=())


def problem_of(error: EdgeError) -> Problem | None:
    """:return: what a client is told about an error of ours; ``None`` for one that is a bug."""
    match error:
        case Problem():
            return error
        case PurgeInvalid(problem):
            return Problem(400, "invalid-purge", problem)
        case PurgeConflict(purge_id):
            detail = f"id: {purge_id!r} is the id of another purge, which asked for something else; nothing was done."
            return Problem(409, "id-conflict", detail)
        case NoSites():
            detail = "This node is a voter: it has no site, so it cannot tell what a purge names. Ask one that serves."
            return Problem(421, "voter", detail)
        case BadCursor():
            return Problem(
                400, "invalid-cursor", "since: this is no cursor of a feed; without it, one for now is given."
            )
        case NotAdmitted(reason):
            return Problem(503, "joining", reason, retry_after(1.0))
        case TooManyPurges(after, setting):
            detail = f"More purges than [purge] {setting} allows; one more is taken in {after:.3f} s."
            return Problem(429, "too-many-purges", detail, retry_after(after))
        case ControlFailed():
            detail = f"It is not on disk, so it counts as not done ({error}); the same id may be sent again."
            return Problem(503, "not-written", detail, retry_after(1.0))
    return None


def retry_after(seconds: float) -> tuple[tuple[str, str], ...]:
    """:return: the field, in whole seconds, rounded up (RFC 9110 §10.2.3)."""
    return (("Retry-After", str(max(1, -int(-seconds // 1)))),)


def begin(request: Request, status: int, content_type: bytes) -> None:
    """Set status and the fields that every answer has."""
    request.setResponseCode(status)
    headers = request.responseHeaders
    for name, value in _HEADERS:
        headers.setRawHeaders(name, [value])
    headers.setRawHeaders(b"Content-Type", [content_type])


def respond(request: Request, answer: Answer) -> bytes:
    """Set status and fields. :return: the content."""
    content = answer.content
    if answer.content_type == JSON:
        content = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
    begin(request, answer.status, answer.content_type)
    headers = request.responseHeaders
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(content)])
    for field_name, text in answer.headers:
        headers.setRawHeaders(field_name, [text])
    return bytes(content)


def refuse(request: Request, problem: Problem) -> bytes:
    """Like :func:`respond`, for a problem."""
    content = {"error": problem.error, "detail": problem.detail}
    if request.path.startswith(_FASTLY):
        # What these clients show.
        content["msg"] = problem.detail
    return respond(request, Answer(content, problem.status, headers=problem.headers))
