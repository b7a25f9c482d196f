"""
What the caching policy decides, as values with their reasons (RFC 9111).

Callers ``match`` on them. They are ``@define(eq=False)`` because one is built for every hit.
"""

from __future__ import annotations

from attrs import define

from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Stored


@define(eq=False, repr=False)
class Reuse:
    """
    Answer with the stored response.

    :ivar age: its current age in whole seconds, for the Age field (RFC 9111 §4.2.3).
    :ivar ttl: whole seconds that it stays fresh; negative once stale (RFC 9211 §2.5).
    :ivar stale: it is stale, and served on purpose.
    :ivar behind: how to refresh it behind the client's back (RFC 5861 §3); ``None``: not to be refreshed.
    :ivar lines: Age and Cache-Status, if they are made already.
    """

    age: int
    ttl: int
    stale: bool = False
    behind: Forward | None = None
    lines: bytes = b""


@define(eq=False, repr=False)
class Forward:
    """
    Ask an upstream.

    :ivar reason: why the store could not answer.
    :ivar stored: what is stored and may be validated (``outbound`` adds the conditions), freshened, or
        served stale if everything fails; ``None`` without any. For a HEAD it is the stored GET response
        that the answer may freshen or invalidate.
    :ivar alone: not to be joined or collapsed: the client's own request goes upstream, conditions, range and
        content included.
    :ivar no_cache: the request carries ``Cache-Control: no-cache``, so that no cache on the way answers
        it from before a purge.
    :ivar stale_allowed: ``stored`` may be served stale if no upstream gives a good answer.
    :ivar at_origin: no sibling is to be asked: it may not know why what it has is not good any more.
    :ivar ahead: of what is being filled, only this part is asked for, which has not come yet.
    """

    reason: ForwardReason
    stored: Stored | None = None
    alone: bool = False
    no_cache: bool = False
    stale_allowed: bool = False
    at_origin: bool = False
    ahead: Ahead | None = None


@define(eq=False, repr=False)
class Refuse:
    """
    An error that we answer ourselves; :func:`edgecache.rules.status_fields.refusal` writes it.

    :ivar proxy_error: Proxy-Status error type (RFC 9209 §2.3), ``""`` when no proxy error caused it.
    :ivar detail: one line for people, in the content and in Proxy-Status' ``details``.
    :ivar fields: further fields (Allow, Retry-After).
    :ivar close: the connection must not be used again.
    """

    status: int
    detail: str = ""
    proxy_error: str = ""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False


@define(eq=False, repr=False)
class Store:
    """
    Stream it to everybody who :func:`~edgecache.rules.sharing.may_share`, and to the store.

    :ivar stored: the record to be: ``size`` is the announced length or -1, ``content_id`` is ``b""``.
        Its ``head`` has Content-Length as its *last* line if and only if ``size`` is known (and the status
        allows one); :func:`edgecache.rules.presenting.complete` makes the final record.
    :ivar record_hash: under which it is stored: the primary key's hash, or the variant's.
    :ivar nominated: the field names of Vary, sorted; ``None`` without Vary.
    :ivar own: what the one client whose request was forwarded is shown: ``stored`` with the fields that
        ``private="…"`` and ``no-cache="…"`` withhold from everybody else (RFC 9111 §5.2.2.4, §5.2.2.7).
    """

    stored: Stored
    record_hash: bytes
    nominated: tuple[bytes, ...] | None
    own: Stored


@define(eq=False, repr=False)
class Freshen:
    """
    304: the stored response is good; ``stored`` is its updated record (RFC 9111 §3.2, §4.3.4).

    It has the content id, size and variant of the old one, so it is served from the same content. It is
    written where the old one was read: ``record_hash``.
    """

    stored: Stored
    record_hash: bytes


@define(eq=False, repr=False)
class ServeStale:
    """
    The upstream failed to give a good answer (RFC 9111 §4.3.3, RFC 5861 §4): send ``forward.stored``, stale.

    :ivar detail: for Cache-Status' ``detail``.
    :ivar received: the status of the error that came instead, for Proxy-Status; ``None``: a fallback's good answer.
    """

    reuse: Reuse
    detail: str
    received: int | None = None


@define(eq=False, repr=False)
class Again:
    """
    Ask once more, with ``forward``: it is a 304 that is not about what we have (RFC 9111 §4.3.3), without conditions
    then; or a sibling's, and no newer than what we have, and an origin knows better.
    """

    forward: Forward


@define(eq=False, repr=False)
class Pass:
    """
    Send it on and store nothing.

    :ivar head: its head as it goes to the client: Via and Date added, private tags taken out.
    :ivar remember: the response forbids sharing: for 2 minutes nobody need queue for this key.
    :ivar update: a stored record to write besides: freshened or made stale by a HEAD (RFC 9111 §4.3.5), or
        superseded by a response that may not be stored.
    :ivar update_hash: its record's hash.
    :ivar detail: for Cache-Status' ``detail``.
    :ivar page: of a page of an index: the record from which the client's form of it is derived; it is not stored.
    """

    head: bytes
    remember: bool = False
    update: Stored | None = None
    update_hash: bytes = b""
    detail: str = ""
    page: Stored | None = None


OnRequest = Reuse | Forward | Refuse
OnResponse = Store | Freshen | ServeStale | Again | Pass
OnFailure = Reuse | Refuse


@define(eq=False, repr=False)
class Whole:
    """Present all of the stored content, with its own status."""


@define(eq=False, repr=False)
class NotModified:
    """304: the client's copy is good (RFC 9110 §13.2.2)."""


@define(eq=False, repr=False)
class Part:
    """206: octets ``start`` up to, not including, ``stop`` (RFC 9110 §14)."""

    start: int
    stop: int


@define(eq=False, repr=False)
class Ahead(Part):
    """
    A part that is fetched on its own, because it is far from what has come.

    :ivar size: octets of the whole, as the client is told.
    :ivar etag: of the whole.
    """

    size: int
    etag: bytes


@define(eq=False, repr=False)
class Unsatisfiable:
    """416: no octet of the content is in the range asked for."""


Presentation = Whole | NotModified | Part | Unsatisfiable

WHOLE = Whole()
NOT_MODIFIED = NotModified()
UNSATISFIABLE = Unsatisfiable()
