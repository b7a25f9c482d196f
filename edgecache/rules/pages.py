"""
The pages of an index as they are stored and sent (DESIGN 10): one record for each, from which all that clients get is
derived.

The *base record* has the canonical document as its content, and the origin's validators. What is derived from it is
stored as well, but has no freshness, no floor and no name of its own: whether it may be sent is decided by the base
record alone, in the same read transaction, so that no form of a page goes stale alone.
"""

from __future__ import annotations

import hashlib
from math import inf

from attrs import define, evolve

from edgecache.rules.asking import Asked
from edgecache.rules.fields import parsed, serialised
from edgecache.rules.indexpaths import PageKind, project_tag
from edgecache.rules.representations import Coding, Media, Representation
from edgecache.rules.selectors import Selector
from edgecache.words.messages import Fields, Head, combined
from edgecache.words.stored import Flag, Stored

LAST_SERIAL = b"x-pypi-last-serial"

# An operator on IntFlag members costs a microsecond, and this is asked on each hit.
PAGE = int(Flag.PAGE)

ABOUT_THE_ORIGINS = frozenset(
    (
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-location",
        b"content-disposition",
        b"content-md5",
        b"content-digest",
        b"repr-digest",
        b"digest",
        b"vary",
    )
)
"""Metadata of what the origin sent (RFC 9110 §8): nobody is sent that."""

_ABOUT_THE_DOCUMENT = frozenset((b"content-type", b"content-length", b"accept-ranges", b"etag", b"last-modified"))
_TYPES = {Media.TEXT: Media.TEXT.value + b"; charset=utf-8"}


def is_page(asked: Asked, status: int) -> bool:
    """Is a response of that status one from which others are derived?"""
    return asked.page is not None and status == 200


def is_list(asked: Asked) -> bool:
    """Is it about the list of all projects, which is asked for often and purged by nobody?"""
    return asked.page is not None and asked.page.kind is PageKind.LIST


def serial_of(stored: Stored) -> int | None:
    """:return: the serial that a stored page tells, ``None`` without one."""
    head = stored.head
    start = head.find(b"\r\n" + LAST_SERIAL + b": ")
    if start < 0:
        return None
    start += len(LAST_SERIAL) + 4
    value = head[start : head.index(b"\r\n", start)]
    return int(value) if value.isdigit() else None


def serial_field(head: Head) -> int | None:
    """:return: what X-PyPI-Last-Serial of a response says, ``None`` without a usable one."""
    value = combined(head.fields, LAST_SERIAL)
    return int(value) if value is not None and value.isdigit() and len(value) < 19 else None


def serial_told(field: int | None, document: int | None) -> int | None:
    """
    :param field: of the response's head.
    :param document: that its content tells.
    :return: up to which serial the page is good for certain.
    """
    if field is None or document is None:
        return document if field is None else field
    return min(field, document)


def lacks_serial(asked: Asked, stored: Stored) -> bool:
    """Is it older than the client demands (``Edgecache-Min-Serial``)?"""
    if asked.min_serial is None:
        return False
    serial = serial_of(stored)
    return serial is None or serial < asked.min_serial


def base_record(stored: Stored, document: bytes, digest: bytes, content_id: bytes, serial: int | None) -> Stored:
    """
    :param stored: what was planned when the head came.
    :param document: canonical.
    :param digest: its sha256.
    :return: the record of the page.
    """
    return evolve(with_serial(stored, serial, len(document)), size=len(document), digest=digest, content_id=content_id)


def with_serial(stored: Stored, serial: int | None, size: int) -> Stored:
    """:return: the record of a page that tells ``serial``, and has so many octets."""
    line, _, _ = stored.head.partition(b"\r\n")
    fields = [each for each in parsed(stored.head) if each[0] not in (LAST_SERIAL, b"content-length")]
    if serial is not None:
        fields.append((LAST_SERIAL, b"%d" % serial))
    fields.append((b"content-length", b"%d" % size))
    return evolve(stored, head=line + b"\r\n" + serialised(fields))


def project_selector(asked: Asked) -> Selector:
    """:return: what everything about the project is purged by; of a page that is about one."""
    assert asked.page is not None
    return Selector("tag", asked.site.id, project_tag(asked.page.project))


def document_url(asked: Asked, target: bytes) -> bytes:
    """
    :param target: as it was sent upstream.
    :return: of the page at the site's first origin: whichever of them has sent it, the document says the same.
    """
    return asked.site.origin_url + target


# What is derived


@define(eq=False, repr=False)
class View:
    """
    What is sent of one base record in one representation.

    :ivar key: of the record of its content ...
    :ivar record_hash: ... and where that lies.
    :ivar prototype: everything but content, size and Content-Length.
    :ivar derived: the record of its content, as it was found the last time ...
    :ivar stored: ... and what was made of both, to be sent.
    """

    key: bytes
    record_hash: bytes
    prototype: Stored
    derived: Stored | None = None
    stored: Stored | None = None

    def of(self, derived: Stored) -> Stored:
        """:return: what is sent, with the content of ``derived``."""
        if self.derived is not derived or self.stored is None:
            self.derived, self.stored = derived, self.sized(derived.size, derived.content_id, derived.flags)
        return self.stored

    def sized(self, size: int, content_id: bytes = b"", flags: int = 0) -> Stored:
        """:return: what is sent, with so many octets of content."""
        head = self.prototype.head + b"content-length: %d\r\n" % size
        return evolve(self.prototype, head=head, size=size, content_id=content_id, flags=flags)


def view_of(asked: Asked, base: Stored, representation: Representation, etag: bytes) -> View:
    """
    :param base: the page.
    :param etag: of what is sent (``edgecache.index.representing.etag_of``): whatever goes into the content is in it.
    """
    key = b"derived %b %b" % (etag, asked.key)
    line, _, _ = base.head.partition(b"\r\n")
    fields: Fields = [each for each in parsed(base.head) if each[0] not in _ABOUT_THE_DOCUMENT]
    assert asked.page is not None
    fields.append((b"content-type", _TYPES.get(representation.media, representation.media.value)))
    if representation.coding is not Coding.IDENTITY:
        fields.append((b"content-encoding", representation.coding.value))
    vary = b"accept-encoding" if asked.page.kind is PageKind.RELEASES else b"accept, accept-encoding"
    fields += [(b"vary", vary), (b"etag", etag), (b"accept-ranges", b"bytes")]
    prototype = evolve(
        base,
        key=key,
        etag=etag,
        # The tag says all; a date of the origin's may not have changed when what we make of it has.
        last_modified=None,
        date=inf,
        size=-1,
        content_id=b"",
        digest=b"",
        flags=0,
        head=line + b"\r\n" + serialised(fields),
    )
    return View(key, hashlib.blake2b(key, digest_size=32).digest(), prototype)


def derived_record(view: View, base: Stored) -> Stored:
    """
    :return: the record under which derived content is stored. Nothing in it decides anything: see the module.
    """
    return evolve(
        view.prototype, floor=base.floor, selectors=base.selectors, head=b"HTTP/1.1 200 OK\r\n", date=base.date
    )
