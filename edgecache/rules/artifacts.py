"""
The files that the pages of an index name, under paths of ours (DESIGN 10): what is stored and said of them.

A *named* file is one whose sha256 its page gives: it is checked against it, never changes, is kept until evicted, and
everything that clients are told of it is ours. What an index gives no digest for is as its origin says.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin

from edgecache.rules.asking import Asked
from edgecache.rules.dates import format_date, parse_date
from edgecache.rules.decisions import Ahead, Pass, Store
from edgecache.rules.digests import SHA256, Digest
from edgecache.rules.fields import serialised
from edgecache.rules.freshness import UNSAID
from edgecache.rules.indexpaths import ArtifactAsked, project_tag
from edgecache.rules.lookups import Told
from edgecache.rules.selectors import tag_selector
from edgecache.rules.spans import Span, span_of
from edgecache.rules.status_fields import proxy_status
from edgecache.words.messages import Fields, Head, combined, field_values
from edgecache.words.stored import Flag, Stored

# What an origin says of a named file that means anything at our place; the rest is about its own host.
_KEPT = frozenset((b"last-modified", b"access-control-allow-origin", b"access-control-expose-headers"))
# Types that no browser runs, whoever has uploaded the file.
_HARMLESS = re.compile(rb"(?:application|binary)/[a-z0-9.+-]+", re.IGNORECASE)
_RUN = re.compile(rb"xml|html|script|pdf|flash", re.IGNORECASE)
_TYPES = ((b".metadata", b"text/plain; charset=utf-8"), (b".asc", b"application/pgp-signature"))
_ANY_TYPE = b"application/octet-stream"


def digest_in_path(artifact: ArtifactAsked) -> Digest | None:
    """:return: what the file's content must hash to; ``None`` for what belongs to a file, whose path has the file's."""
    return Digest(SHA256, artifact.sha256) if artifact.sha256 and not artifact.companion else None


def is_named(asked: Asked, stored: Stored) -> bool:
    """Is it a file that its page vouches for: not the origin's to validate, and not fenced (DESIGN 9)?"""
    return asked.artifact is not None and bool(stored.digest) and stored.status == 200


def etag_of(digest: Digest) -> bytes:
    """:return: the strong entity tag of a named file: the same on every node."""
    return b'"%b"' % digest.value.hex().encode("ascii")


def plan(
    asked: Asked, head: Head, digest: Digest, size: int | None, *, floor: int, responded_at: float, told: Told | None
) -> Store:
    """
    How a named file is stored. It is committed only if its content has that digest.

    :param head: of the upstream's 200.
    :param size: octets, by its page or by the upstream; ``None`` while unknown.
    :param told: by the sibling whose response it is.
    """
    artifact, site = asked.artifact, asked.site
    assert artifact is not None
    selectors = (*asked.selectors, tag_selector(site.id, project_tag(artifact.project)))
    if told is not None and told.selectors is not None:
        selectors = tuple(dict.fromkeys(selectors + told.selectors))
    modified = field_values(head.fields, b"last-modified")
    stored = Stored(
        site=site.id,
        key=asked.key,
        status=200,
        flags=int(Flag.IMMUTABLE),
        floor=floor,
        generated_at=responded_at,
        fresh_until=responded_at + UNSAID,
        stale_while_revalidate_until=responded_at + UNSAID,
        stale_if_error_until=float("inf"),
        validated_at=responded_at,
        date=responded_at,
        last_modified=parse_date(modified[0], responded_at) if len(modified) == 1 else None,
        etag=etag_of(digest),
        size=-1 if size is None else size,
        content_id=b"",
        selectors=selectors,
        head=named_head(asked, head, digest, size, responded_at),
        digest=digest.value,
    )
    return Store(stored, asked.key_hash, None, stored)


def named_head(asked: Asked, head: Head, digest: Digest, size: int | None, now: float) -> bytes:
    """:return: the head that clients get; Content-Length, if the size is known, is the last line."""
    fields = _named_fields(asked, head, digest, now)
    if size is not None:
        # Without a length no range could be sent, and uv takes the field at its word (FIELD 3).
        fields += [(b"accept-ranges", b"bytes"), (b"content-length", b"%d" % size)]
    return b"HTTP/1.1 200 OK\r\n" + serialised(fields)


def part(asked: Asked, head: Head, wanted: Ahead, digest: Digest | None, now: float) -> Pass | None:
    """
    A range that was fetched on its own: nothing vouches for its octets, so it is not stored, and says so.

    :param head: of the upstream's answer.
    :return: ``None`` if it is not exactly that range of exactly that file, as far as anybody can tell.
    """
    asked_for = Span(wanted.start, wanted.stop, wanted.size)
    if head.status != 206 or span_of(head.get(b"content-range")) != asked_for:
        return None
    if digest is not None:
        fields = _named_fields(asked, head, digest, now)
    elif head.get(b"etag") != (wanted.etag or None):
        return None
    else:
        kept = (*_KEPT, b"etag", b"date", b"content-encoding")
        fields = [line for line in head.fields if line[0] in kept]
        fields += [(b"via", _via(asked, head)), (b"content-type", _content_type(asked, head))]
    fields = [line for line in fields if line[0] not in (b"cache-control", b"repr-digest")]
    fields += [
        (b"cache-control", b"no-store"),
        (b"accept-ranges", b"bytes"),
        (b"content-range", asked_for.field),
        (b"content-length", b"%d" % asked_for.octets),
    ]
    return Pass(b"HTTP/1.1 206 Partial Content\r\n" + serialised(fields), detail="unverified")


def missing(asked: Asked, detail: str) -> Head:
    """:return: the 404 for a file that its page does not name, or that is not where the page says."""
    return _own(asked, 404, b"Not Found", detail, "destination_not_found")


def elsewhere(asked: Asked, head: Head, url: str) -> Head | None:
    """
    :param head: of the answer of a file's host that is neither the file nor 404.
    :param url: of the file there.
    :return: what the client is told: a redirect, which is the client's to follow and never ours (DESIGN 12), or that
        it may not have it; ``None``: the host has failed, and 503 is all there is to say.
    """
    location = head.get(b"location")
    if head.status in (301, 302, 303, 307, 308) and location is not None and location.isascii():
        try:
            target = urljoin(url, location.decode("ascii")).encode("ascii")
        except ValueError:
            return None
        return Head(head.status, head.reason, [(b"location", target), (b"cache-control", b"no-store")])
    if head.status in (401, 402, 403, 451):
        return _own(asked, head.status, head.reason, f"the file's host answered {head.status}", "http_request_denied")
    return None


def passed(asked: Asked, head: Head, length: int | None, now: float) -> Pass:
    """An answer that :func:`missing` or :func:`elsewhere` made, to a request that stores nothing."""
    fields = [*head.fields, (b"date", format_date(now)), (b"via", asked.site.via)]
    if length is not None:
        fields.append((b"content-length", b"%d" % length))
    return Pass(b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason) + serialised(fields))


def _own(asked: Asked, status: int, reason: bytes, detail: str, error: str) -> Head:
    value = proxy_status(asked.site, error=error, detail=detail).partition(b": ")[2].rstrip(b"\r\n")
    fields: Fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"max-age=0"),
        (b"proxy-status", value),
    ]
    return Head(status, reason, fields)


def _named_fields(asked: Asked, head: Head, digest: Digest, now: float) -> Fields:
    seconds = asked.site.settings.client_file_max_age_seconds
    fields = [line for line in head.fields if line[0] in _KEPT]
    return [
        *fields,
        (b"content-type", _content_type(asked, head)),
        (b"etag", etag_of(digest)),
        (b"repr-digest", digest.field),
        (b"cache-control", b"max-age=%d, immutable" % seconds),
        (b"x-content-type-options", b"nosniff"),
        (b"date", format_date(now)),
        (b"via", _via(asked, head)),
    ]


def _content_type(asked: Asked, head: Head) -> bytes:
    """As the origin says, where a browser does nothing with it; else by the name."""
    said = head.get(b"content-type") or b""
    if _HARMLESS.fullmatch(said) and not _RUN.search(said):
        return said
    assert asked.artifact is not None
    return next((kind for suffix, kind in _TYPES if asked.artifact.companion == suffix), _ANY_TYPE)


def _via(asked: Asked, head: Head) -> bytes:
    before = combined(head.fields, b"via")
    return asked.site.via if before is None else before + b", " + asked.site.via
