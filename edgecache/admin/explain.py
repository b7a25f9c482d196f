"""``GET /explain``: what would become of a request, and why."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from attrs import define

from edgecache.admin.answers import Answer, Problem
from edgecache.admin.explained import summary
from edgecache.admin.parts import AdminParts, UpstreamState
from edgecache.admin.queries import arguments
from edgecache.admin.requests import AdminRequest
from edgecache.rules.sites import host_octets
from edgecache.words.messages import Fields
from edgecache.words.purging import Token

_METHODS = ("GET", "HEAD")

_NO_SITES = ("localhost", "default.invalid")
"""Of these, the first by which no site is called means the default one (RFC 6761 §6.4: nobody has the second)."""


@define(eq=False, repr=False)
class Explanations:
    """The route's handler."""

    _parts: AdminParts

    async def get(self, request: AdminRequest, token: Token) -> Answer:
        """``GET /explain?url=https://edge.example/simple/attrs/&method=GET&field=Cache-Control:no-cache``"""
        explain = self._parts.explain
        if explain is None:
            raise Problem(421, "voter", "This node is a voter: it serves nothing. Ask one that does.")
        asked = arguments(request, "url", "method", "field")
        url = asked.get("url", [""])[-1]
        method = asked.get("method", ["GET"])[-1].upper()
        if method not in _METHODS:
            raise Problem(400, "invalid-query", f"method: {method!r} is none of {', '.join(_METHODS)}.")
        secure, authority, target = self._where(url)
        fields = [_field(text) for text in asked.get("field", [])]
        document = await explain(method.encode(), authority, target, fields, secure)
        self._complete(document)
        document["summary"] = summary(document, self._parts.wall())
        return Answer(document)

    def _where(self, url: str) -> tuple[bool, bytes, bytes]:
        """:return: TLS?, authority, and path with query."""
        try:
            parts = urlsplit(url)
            authority = parts.netloc.rpartition("@")[2].lower().encode("ascii")
            target = url.partition("#")[0].encode("ascii")
        except ValueError as error:
            raise Problem(400, "invalid-query", f"url: {url!r} is no URL: {error}.") from error
        if any(octet <= 0x20 or octet == 0x7F for octet in target):
            raise Problem(400, "invalid-query", f"url: {url!r} has characters that no URL has.")
        if target.startswith(b"/"):
            return self._parts.config.tls is not None, self._some_host(), target
        if parts.scheme not in ("http", "https") or not authority:
            raise Problem(400, "invalid-query", f"url: {url!r} must be a path, or begin with http:// or https://.")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return parts.scheme == "https", authority, path.encode("ascii")

    def _some_host(self) -> bytes:
        """A path alone: on the default site, or else the first."""
        hosts = [host for site in self._parts.config.sites for host in site.hosts]
        if "*" in hosts or not hosts:
            return next(name.encode("ascii") for name in _NO_SITES if name not in hosts or name == _NO_SITES[-1])
        return host_octets(hosts[0])

    def _complete(self, document: dict[str, Any]) -> None:
        """What the loop alone knows: how addresses are, and which purge it was."""
        upstreams = self._parts.upstreams()
        states = {(one.origin, one.address): one for one in upstreams}
        for place, one in enumerate(document["upstreams"]):
            one["order"] = place + 1
            one |= _condition(states.get((one["origin"], one["address"])))
        if document["siblings"] is not None:
            homes = {one.sibling: one for one in upstreams}
            for one in document["siblings"]["passed_over"]:
                one |= _condition(homes.get(one["sibling"]))
        purge = document["purge"]
        if purge is not None:
            epoch = purge["epoch"]
            recent = self._parts.purger.recent(200)
            found = next((one for one in recent if one.entry.first_epoch < epoch <= one.entry.last_epoch), None)
            # Others are this node's own: an unsafe request, a page that has gone, the follower.
            purge["id"] = None if found is None else found.entry.purge_id
            purge["accepted_at"] = None if found is None else found.purge.accepted_at
            purge["accepted_by"] = None if found is None else found.entry.log.id


def _condition(state: UpstreamState | None) -> dict[str, Any]:
    return {
        "state": "unknown" if state is None else state.state,
        "reason": "" if state is None else state.detail,
        "said": "" if state is None else state.said,
        "since": None if state is None else state.since,
        "next_probe_at": None if state is None else state.next_probe_at,
    }


def _field(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    line = name.strip().lower(), value.strip()
    if not colon or not line[0] or not all(part.isascii() and part.isprintable() for part in line):
        raise Problem(400, "invalid-query", f"field: {text!r} must be Name: value.")
    return line[0].encode(), line[1].encode()


__all__ = ["Explanations", "Fields"]
