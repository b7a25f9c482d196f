"""``PURGE <url>`` on the public listener: what it asks for, if a token comes with it (DESIGN 12)."""

from __future__ import annotations

from attrs import field, frozen

from edgecache.words.messages import Request

_BEARER = b"bearer "


@frozen
class PurgeRequest:
    """
    A purge that somebody asks for; whether they may is not known yet.

    :ivar url: absolute, as that client calls the resource.
    :ivar soft: ``Fastly-Soft-Purge`` asks for the mild kind.
    """

    url: str
    token: str = field(repr=False)
    soft: bool = False


def purge_request(request: Request) -> PurgeRequest | None:
    """:return: ``None`` for other methods, without exactly one token, and for what names no URL."""
    if request.method != b"PURGE" or request.has_content or not request.target.startswith(b"/"):
        return None
    tokens = [value for name, value in request.fields if name == b"fastly-key"]
    for name, value in request.fields:
        if name == b"authorization":
            if value[: len(_BEARER)].lower() != _BEARER:
                return None
            tokens.append(value[len(_BEARER) :])
    if len(tokens) != 1:
        return None
    scheme = b"https" if request.secure else b"http"
    try:
        url = (scheme + b"://" + request.authority + request.target).decode()
        token = tokens[0].strip().decode()
    except UnicodeDecodeError:
        return None
    soft = any(name == b"fastly-soft-purge" and value not in (b"", b"0") for name, value in request.fields)
    return PurgeRequest(url, token, soft)
