"""A request, parsed for the caching rules: once per distinct head (``request.asked`` keeps it)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from attrs import define, evolve, field

from edgecache.rules.conditions import CONDITION_FIELDS, Conditions, RangeAsked, conditions_of, range_of
from edgecache.rules.decisions import Refuse
from edgecache.rules.directives import NONE, RequestDirectives, request_directives
from edgecache.rules.fields import members
from edgecache.rules.forwarding import fields_for_fills, own_fields, passed, shared_fields
from edgecache.rules.hops import PAGE, PageNeeded, is_secure, page_needed
from edgecache.rules.indexpaths import (
    NOWHERE,
    ArtifactAsked,
    PageAsked,
    PageKind,
    place_of,
)
from edgecache.rules.lookups import POSITIONS, REFUSED, FromSibling, from_sibling
from edgecache.rules.representations import SOURCE, Representation, representation_of
from edgecache.rules.selectors import selectors_of_target
from edgecache.rules.sites import Site, Sites, climbs, crosses
from edgecache.words.messages import SAFE, Fields, Request, combined, without


@define(eq=False, repr=False)
class Asked:
    """
    What the rules need to know about a request. Nothing of one exchange is written here: it is shared by
    every request with the same head.

    :ivar target: what is asked for, below the site's own path: that is what everything but the wire is about.
    :ivar key: the cache key: site, authority if it is sent, target, and on an index the fields that are sent.
    :ivar key_hash: 32 octets of ``key``: where its record lies.
    :ivar file: on an index: the target is an artifact, not a page.
    :ivar conditions: ``None`` without any.
    :ivar range: the single range asked for, ``None`` without a usable one.
    :ivar authorized: the request has Authorization, and the origin sees it (RFC 9111 §3.5).
    :ivar joinable: GET or HEAD without content: the store may answer it. (Only a GET fills.)
    :ivar fills: it may start or join a fill: joinable and a GET; a HEAD of a page as well.
    :ivar head_only: a HEAD that goes upstream as such.
    :ivar bypass: it must be forwarded on its own although it is joinable: what is stored is no answer to it, nor is its
        answer one for others.
    :ivar simple: a client's GET or HEAD without directives: what is stored and fresh answers it, nothing else is asked.
    :ivar whole: neither conditions nor a range: all of the response is sent.
    :ivar plain: a GET, whose answer is what is stored, as it is stored.
    :ivar unsafe: its success invalidates (RFC 9111 §4.4).
    :ivar sibling: set for a look-up by a sibling.
    :ivar page: on an index: the page that is asked for, ``None`` for anything else.
    :ivar representation: in which form; ``None`` without ``page``.
    :ivar min_serial: of a page: it must not be older than this; ``None``: any will do.
    :ivar needed: this node itself needs the page, and this is how good it must be.
    :ivar artifact: on an index: the file that is asked for by a path of ours, ``None`` for anything else.
    :ivar client: name of the site's client whose credentials it has, ``""`` where everybody may read.
    :ivar uncached: a token that is to let it past the store, if it is good for that (DESIGN 10).
    :ivar upload: it goes to the origin with the client's credentials, and changes a project (DESIGN 10).
    :ivar gated: not its head alone says whether it is answered: ``client`` or ``uncached`` is set.
    :ivar variants: memo of :mod:`edgecache.rules.varying`.
    :ivar straight_until: memo of :mod:`edgecache.node`: ``simple``, and what is stored for it is believed to be in
        memory until then, seconds since the epoch; 0: not so.
    :ivar shown: memo of :mod:`edgecache.rules.presenting`: how what was found for it last answers it.
    """

    request: Request
    target: bytes
    site: Site
    method: bytes
    head: bool
    key: bytes
    key_hash: bytes
    file: bool
    directives: RequestDirectives
    conditions: Conditions | None
    range: RangeAsked | None
    authorized: bool
    joinable: bool
    fills: bool
    bypass: bool
    simple: bool
    whole: bool
    plain: bool
    unsafe: bool
    sibling: FromSibling | None = None
    page: PageAsked | None = None
    representation: Representation | None = None
    min_serial: int | None = None
    needed: PageNeeded | None = None
    head_only: bool = False
    artifact: ArtifactAsked | None = None
    client: str = ""
    uncached: bytes | None = None
    upload: bool = False
    gated: bool = False
    variants: dict[tuple[bytes, ...], bytes] = field(factory=dict)
    straight_until: float = 0.0
    shown: Any = None

    # What follows is for fills: a hit has no use for it.

    @cached_property
    def selectors(self) -> tuple[int, ...]:
        """Hashes of all, its URL, its path prefixes: what a purge can name before the head is known."""
        return selectors_of_target(self.site.id, self.target)

    @cached_property
    def upstream_fields(self) -> Fields:
        """End-to-end fields to send for a fill: without conditions and Range."""
        if self.upload or self.site.index:
            return self.own_fields
        return fields_for_fills(tuple(self.request.fields), self.site.via, self.site.cdn_id)

    @cached_property
    def own_fields(self) -> Fields:
        """Likewise for a request that is forwarded on its own: with them."""
        return own_fields(self.request, self.site, file=self.file, page=self.page, upload=self.upload)

    @property
    def sends_authorization(self) -> bool:
        """Do credentials of the client's own go to the origin?"""
        return any(name == b"authorization" for name, _ in self.own_fields)


MIN_SERIAL = b"edgecache-min-serial"
"""Field of a request: a page that is older is not good enough (DESIGN 11)."""

BYPASS = b"edgecache-bypass"

OVERRIDES = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)
"""Some origins take these for the method or the target: then the answer is to another request than the key says."""

_SPEAKING = (
    CONDITION_FIELDS
    | OVERRIDES
    | {b"authorization", b"cache-control", b"cdn-loop", b"pragma", b"range", BYPASS, MIN_SERIAL, PAGE, POSITIONS}
)
"""Fields that change what becomes of a request. Most have none of them, and are not searched for each one."""


def _alone(request: Request) -> Request:
    """
    :return: it without its memos: a circle of request and Asked would be garbage that only the collector finds, after
        a thousand times as many heads.
    """
    return Request(
        request.method,
        request.target,
        request.authority,
        request.fields,
        request.secure,
        request.minor,
        request.has_content,
        request.content_length,
    )


def ask(request: Request, sites: Sites, *, admitted: bool = False) -> Asked | Refuse:
    """
    Parse ``request`` for the rules; the caller keeps the answer in ``request.asked``.

    :param admitted: another worker of this node has let it in.

    :return: :class:`Refuse` for a host of no site (421), a path of no site of the host (404), one that climbs above
        its site or leads into another (400), a loop (508, RFC 8586), what an index does not take: other methods (405),
        GET or HEAD with content (400), and for want of a client's credentials (401).
    """
    of_host = sites.of_host(request.authority)
    if not of_host:
        return Refuse(421, "This node serves no site of that name.")
    site, target = next(_sites_at(of_host, request.target), (None, b""))
    if site is None:
        return Refuse(404, "No site of this host is at that path.")
    if climbs(target):
        return Refuse(400, "The path climbs above its site.")
    if len(of_host) > 1 and crosses(request.target, site, of_host):
        return Refuse(400, "The path may be another site's.")
    path, mark, query = target.partition(b"?")
    upload = site.index and bool(site.settings.upload) and path == site.settings.upload.encode("ascii")
    said = _SPEAKING.intersection([name for name, _ in request.fields])
    refused = _refused(request, site, upload=upload, loops=b"cdn-loop" in said)
    if refused is not None:
        return refused
    upload = upload and request.method == b"POST"
    try:
        sibling = from_sibling(request.fields) if POSITIONS in said else None
    except ValueError as error:
        return Refuse(400, str(error), fields=((REFUSED, b"malformed"),), close=True)
    client = ""
    if site.clients is not None and not upload:
        if sibling is None and not admitted:
            found = site.clients.admit(request.fields)
            if found is None:
                return site.clients.challenge()
            client = found
        # It was for us: neither an origin nor another node ever sees it, and no variant depends on it.
        if b"authorization" in said:
            request = evolve(request, fields=without(request.fields, (b"authorization",)))
            said -= {b"authorization"}
    method = request.method
    readable = method in (b"GET", b"HEAD")
    joinable = readable and not request.has_content
    if site.passes is not None and joinable and not site.index:
        request = evolve(request, fields=passed(request.fields, site.passes))
        said = _SPEAKING.intersection([name for name, _ in request.fields])
    place = place_of(path) if site.index else NOWHERE
    if place.reference is not None and readable:
        # Relative: however this node is reached, and wherever the site is below it.
        above = site.above if place.reference.startswith(b"/") else b""
        return Refuse(301, "The page is elsewhere.", fields=((b"location", above + place.reference + mark + query),))
    try:
        min_serial = _min_serial(request.fields) if MIN_SERIAL in said else None
    except ValueError as error:
        return Refuse(400, str(error))
    # However it is spelt, and whatever query is added: nobody shall make us store it many times.
    target = place.canonical or target
    artifact, file, page = place.artifact, place.file, place.page
    conditions = conditions_of(request.fields) if readable and not said.isdisjoint(CONDITION_FIELDS) else None
    range_asked = range_of(request.fields) if method == b"GET" and b"range" in said else None
    directed = readable and (b"cache-control" in said or b"pragma" in said)
    directives = request_directives(request.fields) if directed else NONE
    authorized = b"authorization" in said
    shared_key = b""
    if upload:
        bypass = False
    elif site.index:
        authorized = authorized and site.settings.pass_authorization
        bypass = authorized
        # One page is stored, whatever of it clients want to have.
        if page is None:
            shared_key = b"\n".join(value for _, value in shared_fields(request, file=file))
    else:
        bypass = (
            (conditions is not None and conditions.for_origin) or directives.no_store or not said.isdisjoint(OVERRIDES)
        )
    authority = request.authority if site.settings.preserve_host else b""
    needed = page_needed(request.fields) if page is not None and PAGE in said else None
    representation = None
    if page is not None:
        source = sibling is not None or needed is not None
        representation = SOURCE if source else _representation(request, site, page)
    unguarded = BYPASS in said and joinable and sibling is None and not admitted
    uncached = combined(request.fields, BYPASS) if unguarded else None
    gated = bool(client) or uncached is not None
    whole = conditions is None and range_asked is None
    key = _key(site, authority, target, shared_key)
    return Asked(
        request=_alone(request),
        target=target,
        site=site,
        method=method,
        head=method == b"HEAD",
        key=key,
        key_hash=hashlib.blake2b(key, digest_size=32).digest(),
        file=file,
        directives=directives,
        conditions=conditions,
        range=range_asked,
        authorized=authorized,
        joinable=joinable,
        fills=joinable and (method == b"GET" or page is not None) and not bypass,
        bypass=bypass,
        simple=joinable
        and not bypass
        and not gated
        and directives is NONE
        and min_serial is None
        and needed is None
        and sibling is None,
        whole=whole,
        plain=whole and method == b"GET" and page is None and site.clients is None and sibling is None,
        unsafe=method not in SAFE,
        sibling=sibling,
        page=page,
        representation=representation,
        min_serial=None if page is None else min_serial,
        needed=needed,
        head_only=method == b"HEAD" and page is None,
        artifact=artifact,
        client=client,
        uncached=uncached,
        upload=upload,
        gated=gated,
    )


def page_key(asked: Asked, target: bytes) -> bytes:
    """:return: the key of another page of the same site; whatever of it clients want to have, it is one."""
    authority = asked.request.authority if asked.site.settings.preserve_host else b""
    return _key(asked.site, authority, target, b"")


def _key(site: Site, authority: bytes, target: bytes, shared: bytes) -> bytes:
    return b"%016x %b %b\n%b" % (site.id, authority, target, shared)


def _sites_at(of_host: tuple[Site, ...], target: bytes) -> Iterator[tuple[Site, bytes]]:
    """The sites that the target is below, the one with the longest path first, each with what is below it."""
    for site in of_host:
        below = site.below(target)
        if below is not None:
            yield site, below


def _representation(request: Request, site: Site, page: PageAsked) -> Representation:
    # Other pages have relative links. A public URL is the same for all clients: then it is no client's own form.
    base = b""
    if page.kind is PageKind.RELEASES and site.public is None:
        base = (b"https://" if is_secure(request.fields, request.secure) else b"http://") + request.authority
    # With any port, or where any host will do, clients could make up as many as they like.
    configured = site.public is not None or request.authority in site.hosts
    return representation_of(page.kind, request.fields, base, configured=configured)


def _min_serial(fields: Fields) -> int | None:
    value = combined(fields, MIN_SERIAL)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise ValueError("Edgecache-Min-Serial is no serial.")
    return int(value)


def _refused(request: Request, site: Site, *, upload: bool, loops: bool) -> Refuse | None:
    """
    :param upload: it is at the path that takes uploads.
    :param loops: it has CDN-Loop.
    """
    method = request.method
    if method == b"CONNECT":
        return Refuse(501, "This node is no tunnel.", close=True)
    if method == b"PURGE":
        # Never forwarded: another cache behind us might take it for its own (DESIGN 12).
        return Refuse(405, "Purges go to the admin listener.", fields=((b"allow", b"GET, HEAD"),), close=True)
    if site.index:
        if method == b"POST" and upload:
            refused = _bad_upload(request, site)
            if refused is not None:
                return refused
        elif method not in (b"GET", b"HEAD"):
            allow = ((b"allow", b"GET, HEAD, POST" if upload else b"GET, HEAD"),)
            return Refuse(405, "This index is read-only here.", fields=allow, close=True)
        elif request.has_content:
            return Refuse(400, "GET and HEAD have no content here.", close=True)
    for name, value in request.fields if loops else ():
        if name == b"cdn-loop" and _names(value, site.cdn_id):
            return Refuse(508, "This request has been here before.", proxy_error="proxy_loop_detected")
    if method in (b"TRACE", b"OPTIONS") and combined(request.fields, b"max-forwards") == b"0":
        return Refuse(501, "Max-Forwards ends here, and this node does not answer that method itself.")
    return None


def _bad_upload(request: Request, site: Site) -> Refuse | None:
    if request.content_length is None:
        return Refuse(411, "An upload says how long it is.", close=True)
    if request.content_length > site.settings.upload_octets:
        return Refuse(413, f"An upload has at most {site.settings.upload_octets} octets here.", close=True)
    media = (combined(request.fields, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media != b"multipart/form-data":
        return Refuse(415, "An upload is multipart/form-data.", close=True)
    if site.lends and not any(name == b"authorization" for name, _ in request.fields):
        # Ours are for reading.
        challenge = (b"www-authenticate", b'Basic realm="upload"')
        return Refuse(401, "An upload needs credentials of its own.", fields=(challenge,), close=True)
    return None


def _names(value: bytes, cdn_id: bytes) -> bool:
    return any(member.partition(b";")[0].strip(b" \t").lower() == cdn_id for member in members(value))
