"""Who asks, and whether they may: tokens, and what is open to this machine (DESIGN 11, 12)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from attrs import define, field
from twisted.logger import Logger

from edgecache.admin.answers import Problem, retry_after
from edgecache.admin.tokens import Tokens
from edgecache.siblings.pace import Pace
from edgecache.words.ports import Timers
from edgecache.words.purging import Scope, Token

if TYPE_CHECKING:
    from edgecache.admin.requests import AdminRequest

_log = Logger()

_CHALLENGE = (("WWW-Authenticate", 'Bearer realm="edgecache"'),)
_MISSING = "Send Authorization: Bearer and a token; the first start wrote one to admin.token in the data directory."
_FASTLY_KEY = b"fastly-key"
_BEARER = b"bearer "
_GUESSES_PER_SECOND = 10.0

# Somebody in between adds one of these: then the peer's address is not the client's.
_FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")

ANYBODY_HERE = Token("loopback", b"", frozenset((Scope.STATUS,)))
"""Stands for whoever asks from this machine, where that is enough."""


@define(eq=False, repr=False)
class Access:
    """Decides who may; guesses are slowed down and logged."""

    _tokens: Tokens
    _timers: Timers
    _guesses: Pace = field(factory=lambda: Pace(_GUESSES_PER_SECOND))

    def check(self, request: AdminRequest, scope: Scope, *, open_here: bool) -> Token:
        """
        :param open_here: from this machine no token is needed.
        :return: on whose behalf it is done.
        :raises Problem: 401, 403, or 429 for guessing.
        """
        token = presented(request)
        if token is None and open_here and is_local(request):
            return ANYBODY_HERE
        return self.admit(token, peer_of(request), scope)

    def admit(self, presented: str | None, peer: str, scope: Scope) -> Token:
        """
        :param presented: what is said to be a token.
        :param peer: who says so, for the log.
        :return: the token.
        :raises Problem: as :meth:`check`.
        """
        if presented is None:
            raise Problem(401, "token-missing", _MISSING, _CHALLENGE)
        token = self._tokens.match(presented)
        if token is None:
            wait = self._guesses.take(self._timers.seconds())
            _log.warn("a wrong token from {peer}", peer=peer)
            if wait > 0.0:
                raise Problem(429, "too-many-guesses", "Too many wrong tokens; wait a moment.", retry_after(wait))
            raise Problem(401, "token-unknown", "The token that was sent is not known here.", _CHALLENGE)
        if scope not in token.scopes:
            detail = f"The token {token.name!r} lacks the scope {scope.value!r}."
            raise Problem(403, "scope-missing", detail)
        return token

    def knows(self, request: AdminRequest) -> bool:
        """:return: has it any of our tokens? Costs no guess."""
        return self.name_of(presented(request)) != ""

    def name_of(self, presented: str | None) -> str:
        """:return: of the token that it is; empty when it is none. Costs no guess."""
        token = None if presented is None else self._tokens.match(presented)
        return "" if token is None else token.name


def presented(request: AdminRequest) -> str | None:
    """:return: what a request gives as its token: in Authorization, or as the Fastly API's clients send it."""
    fields = request.requestHeaders.getRawHeaders(b"authorization") or []
    bearers = [each[len(_BEARER) :] for each in fields if each[: len(_BEARER)].lower() == _BEARER]
    keys = request.requestHeaders.getRawHeaders(_FASTLY_KEY) or []
    # Two of them can differ: then nobody could say who it was.
    if len(fields) > 1 or len(bearers) + len(keys) != 1:
        return None
    return (bearers or keys)[0].strip().decode("utf-8", "surrogateescape")


def is_local(request: AdminRequest) -> bool:
    """
    :return: does it come from this machine, from nobody in between, and from no web page?

    A name in Host that is not this machine's can be a page's that points it here (DNS rebinding).
    """
    if any(request.requestHeaders.hasHeader(name) for name in _FORWARDED):
        return False
    hosts = request.host_lines or [b"localhost"]
    return _is_loopback(peer_of(request)) and len(hosts) == 1 and _is_loopback(_host(hosts[0].decode("latin-1")))


def peer_of(request: AdminRequest) -> str:
    """:return: address of whoever asks, for logs."""
    address = request.getClientAddress()  # type: ignore[no-untyped-call]  # Twisted has no types here
    return str(getattr(address, "host", "a Unix socket"))


def _host(authority: str) -> str:
    """:return: without port and brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.rpartition(":")[0] if authority.count(":") == 1 else authority


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
