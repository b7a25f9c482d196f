"""The fields of a client's request that go upstream (RFC 9110 §7.6, DESIGN 12)."""

from __future__ import annotations

import functools

from edgecache.rules.conditions import CONDITION_FIELDS
from edgecache.rules.fields import named_by_connection
from edgecache.rules.indexpaths import SIMPLE_ACCEPT, PageAsked, PageKind, page_accept
from edgecache.rules.lookups import INTERNAL
from edgecache.rules.negotiation import accepts_gzip, ranked
from edgecache.rules.sites import Site
from edgecache.words.messages import Fields, Request, combined, without

_NOT_SENT = frozenset((b"host", b"content-length", b"expect", b"http2-settings"))
"""Besides hop-by-hop fields: the upstream's own, or framing, or for us."""

_OF_UPLOAD = frozenset((b"accept", b"authorization", b"content-type", b"user-agent"))
"""All that an origin gets of an upload's fields."""

_NOT_SHARED = CONDITION_FIELDS | {b"range"}

_PASSED = _NOT_SHARED | {b"cache-control", b"cdn-loop", b"connection", b"host", b"max-forwards", b"pragma", b"via"}
"""What HTTP gives a meaning to on the way, whatever ``[[site]] request_fields`` names."""

_FILE_FIELDS: Fields = [(b"accept", b"*/*"), (b"accept-encoding", b"identity")]
"""A file has one representation: whoever asks with whatever, it is stored once."""


def own_fields(request: Request, site: Site, *, file: bool, page: PageAsked | None, upload: bool) -> Fields:
    """:return: see :attr:`edgecache.rules.asking.Asked.own_fields`."""
    if upload:
        fields = [line for line in request.fields if line[0] in _OF_UPLOAD]
    elif site.index:
        fields = _index_fields(request, site, file, page)
    else:
        fields = _end_to_end(request.fields)
        if request.method in (b"TRACE", b"OPTIONS"):
            fields = [_one_less(line) if line[0] == b"max-forwards" else line for line in fields]
    via = None if site.index else combined(request.fields, b"via")
    return _with_trace(fields, via, combined(request.fields, b"cdn-loop"), site.via, site.cdn_id)


def shared_fields(request: Request, *, file: bool) -> Fields:
    """:return: what an index is sent for a file, or for what may be a page and is none of ours: it is in the key."""
    if file:
        return _FILE_FIELDS
    accept = combined(request.fields, b"accept")
    return [
        (b"accept", b"*/*" if accept is None else _known_kinds(accept)),
        (b"accept-encoding", b"gzip" if accepts_gzip(request.fields) else b"identity"),
    ]


# Clients of one kind send the same.
@functools.lru_cache(64)
def _known_kinds(accept: bytes) -> bytes:
    return page_accept([one for one in ranked(accept) if one[1] > 0])


def _index_fields(request: Request, site: Site, file: bool, page: PageAsked | None) -> Fields:
    """The fields that reach an index: all of them are in the key, or sent without storing (DESIGN 12)."""
    if page is not None:
        kinds = b"application/json" if page.kind is PageKind.RELEASES else SIMPLE_ACCEPT
        shared = [(b"accept", kinds), (b"accept-encoding", b"identity")]
    else:
        shared = shared_fields(request, file=file)
    fields = [*shared, (b"user-agent", b"edgecache")]
    if site.settings.pass_authorization:
        fields += [line for line in request.fields if line[0] == b"authorization"]
    return fields


def passed(fields: Fields, named: frozenset[bytes]) -> Fields:
    """:return: those that ``[[site]] request_fields`` names, and those that have a meaning on the way."""
    return [line for line in fields if line[0] in named or line[0] in _PASSED or line[0].startswith(INTERNAL)]


# All that a client sends but the target is the same from one request to the next.
@functools.lru_cache(64)
def fields_for_fills(lines: tuple[tuple[bytes, bytes], ...], via: bytes, cdn_id: bytes) -> Fields:
    """:return: see :attr:`edgecache.rules.asking.Asked.upstream_fields`, of a plain site."""
    fields = list(lines)
    shared = without(_end_to_end(fields), _NOT_SHARED)
    return _with_trace(shared, combined(fields, b"via"), combined(fields, b"cdn-loop"), via, cdn_id)


def _end_to_end(fields: Fields) -> Fields:
    dropped = named_by_connection(fields) | _NOT_SENT
    return [line for line in fields if line[0] not in dropped and not line[0].startswith(INTERNAL)]


def _one_less(line: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """RFC 9110 §7.6.2"""
    name, value = line
    return (name, b"%d" % (int(value) - 1)) if value.isdigit() and len(value) < 10 else line


def _with_trace(fields: Fields, via: bytes | None, loop: bytes | None, our_via: bytes, cdn_id: bytes) -> Fields:
    """
    Via and CDN-Loop with this node added; a CDN-Loop of others is kept even on an index (RFC 8586 §2).

    :param via: and ``loop``, of the request.
    """
    return [
        *without(fields, (b"via", b"cdn-loop")),
        (b"via", our_via if via is None else via + b", " + our_via),
        (b"cdn-loop", cdn_id if loop is None else loop + b", " + cdn_id),
    ]
