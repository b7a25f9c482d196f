"""The request that goes upstream, built anew (RFC 9110 §7.6)."""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward
from edgecache.rules.fields import named_by_connection, parsed, serialised
from edgecache.words.config import SIMPLE, Profile
from edgecache.words.messages import Fields, Outbound, field_values, without
from edgecache.words.ports import Source
from edgecache.words.stored import Stored

UPLOAD_SECONDS = 60.0
"""An index looks at a file before it takes it."""

_NO_CACHE = [(b"cache-control", b"no-cache"), (b"pragma", b"no-cache")]


def outbound(asked: Asked, forward: Forward, *, content: Source | None = None) -> Outbound:
    """
    End-to-end fields of the client, Via and CDN-Loop; conditions from ``forward.stored``.

    A fill (not ``forward.alone``) is always for the whole representation: a GET without the client's
    conditions and range. A part that lies ahead of one is asked for as the whole is, since others may be sent it.
    """
    fields = asked.own_fields if forward.alone and forward.ahead is None else asked.upstream_fields
    if forward.no_cache:
        fields = without(fields, (b"cache-control", b"pragma")) + _NO_CACHE
    if forward.ahead is not None:
        fields = [*fields, (b"range", b"bytes=%d-%d" % (forward.ahead.start, forward.ahead.stop - 1))]
    if forward.stored is not None and not forward.alone:
        fields = fields + conditions_for(forward.stored)
    request = asked.request
    return Outbound(
        # Of a page, what a HEAD is told is derived like what a GET is sent.
        method=b"GET" if asked.head and not asked.head_only else request.method,
        target=upstream_target(asked),
        fields=fields,
        authority=request.authority if asked.site.settings.preserve_host else None,
        content=content,
        content_length=None if content is None else request.content_length,
        head_seconds=UPLOAD_SECONDS if asked.upload else None,
    )


def upstream_target(asked: Asked) -> bytes:
    """Pages of an index are below /simple/ here, wherever its own are."""
    settings, target = asked.site.settings, asked.target
    if settings.simple_path == SIMPLE or settings.profile is not Profile.INDEX:
        return target
    below = SIMPLE.encode("ascii")
    return settings.simple_path.encode("ascii") + target.removeprefix(below) if target.startswith(below) else target


def conditions_for(stored: Stored) -> Fields:
    """:return: what validates ``stored``: its validators exactly as they were received (RFC 9111 §4.3.1)."""
    found: Fields = []
    if stored.etag:
        found.append((b"if-none-match", stored.etag))
    if stored.last_modified is not None and not _may_have_changed_since(stored):
        found += [(b"if-modified-since", value) for value in field_values(parsed(stored.head), b"last-modified")]
    return found


def _may_have_changed_since(stored: Stored) -> bool:
    """
    Was it changed within the second in which it was sent, so that its date may be that of two (RFC 9110 §8.8.2.2)?
    Uploads come in bursts, and a 304 after the purge for the second would make the first one good.
    """
    modified = stored.last_modified
    return not stored.etag and modified is not None and stored.date - modified < 1


def interim_head(status: int, reason: bytes, fields: Fields, asked: Asked) -> bytes:
    """A 1xx response to pass on to the client (RFC 9110 §15.2), serialised as ``Downstream.interim`` wants it."""
    kept = without(fields, named_by_connection(fields) | {b"content-length"})
    return b"HTTP/1.1 %03d %b\r\n" % (status, reason) + serialised([*kept, (b"via", asked.site.via)])
