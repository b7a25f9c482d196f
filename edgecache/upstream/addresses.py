"""
Origins and the addresses behind their names.

An origin is what the configuration names; an address is what one exchange is
made with, and what health, pools and failures are counted for.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from attrs import evolve, field, frozen

from edgecache.words.config import SiteSettings
from edgecache.words.endpoints import Endpoint
from edgecache.words.errors import ConfigError

PORTS = {"http": 80, "https": 443}


@frozen(cache_hash=True)
class Origin:
    """
    One origin server as configured (:func:`parse_origin`).

    :ivar scheme: ``http`` or ``https``.
    :ivar host: lower-case name, or an IP address without brackets.
    :ivar prefix: path put before every target, ``b""`` or ``b"/path"`` without a final slash.
    :ivar authority: value of the Host field: the port only where it is not the scheme's own.
    :ivar authorization: value of an Authorization field made of the URL's credentials, never shown.
    :ivar sibling: id of the node that this is; ``""`` for all others. A sibling is an upstream like any other, but is
        known by its certificate, asked without a proxy, and not charged for what may be behind it.
    """

    scheme: str
    host: str
    port: int
    prefix: bytes = b""
    authority: bytes = b""
    authorization: bytes | None = field(default=None, repr=False)
    sibling: str = ""

    @property
    def name(self) -> str:
        """For people and as a label: scheme and authority, no path, no credentials."""
        return f"{self.scheme}://{self.authority.decode('ascii')}"


def parse_origin(url: str) -> Origin:
    """
    :param url: scheme and authority, a path prefix at most (DESIGN 11).

    :raises ConfigError: it cannot be an origin; the message shows no credentials.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        # Its text may show a password that was not percent-encoded.
        raise ConfigError("origin", "not a URL") from None
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in PORTS:
        raise ConfigError("origin", f"{shown}: the scheme must be http or https")
    if not host or not _plain(host):
        raise ConfigError("origin", f"{shown}: no usable host name")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigError("origin", f"{shown}: an origin has neither query nor fragment")
    if not _plain(parts.path):
        raise ConfigError("origin", f"{shown}: the path must be percent-encoded ASCII")
    if port == 0:
        raise ConfigError("origin", f"{shown}: port 0")
    authorization = None
    if parts.username is not None:
        pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        authorization = b"Basic " + base64.b64encode(pair)
    bracketed = f"[{host}]" if ":" in host else host
    authority = bracketed if port is None or port == PORTS[parts.scheme] else f"{bracketed}:{port}"
    return Origin(
        parts.scheme,
        host,
        port or PORTS[parts.scheme],
        parts.path.rstrip("/").encode("ascii"),
        authority.encode("ascii"),
        authorization,
    )


def origins_of(site: SiteSettings) -> tuple[Origin, ...]:
    """
    :return: the origins of a site, in the order configured, with its credentials where their URLs have none.
    :raises ConfigError: one cannot be an origin.
    """
    origins = tuple(parse_origin(url) for url in site.origins)
    if site.origin_authorization is None:
        return origins
    value = site.origin_authorization.value.encode()
    return tuple(evolve(one, authorization=one.authorization or value) for one in origins)


def sibling_origin(node_id: str, url: str) -> Origin:
    """
    :param url: its ``content_url``.
    :raises ConfigError: it cannot be one.
    """
    return evolve(parse_origin(url), sibling=node_id)


@frozen(cache_hash=True)
class Address:
    """
    One place where an origin is reached: an IP address and port, or a Unix socket.

    With a proxy these are the proxy's; each origin behind it still has addresses, pools and health of its own.

    :ivar host: numeric IP address; ``""`` for a Unix socket.
    :ivar path: of a Unix socket (the hop to a key's owner): no stall deadline there, for a
        closed socket is its failure.
    :ivar slot: where its health is in the mapped page, -1 without one. Not part of its identity.
    """

    origin: Origin
    host: str = ""
    port: int = 0
    path: str | None = None
    slot: int = field(default=-1, eq=False)

    @property
    def ours(self) -> bool:
        """Does this program answer there?"""
        return self.path is not None or bool(self.origin.sibling)

    @property
    def name(self) -> str:
        """For people: the origin and which of its addresses."""
        if self.path is not None:
            return f"unix:{self.path}"
        where = self.host if self.port == self.origin.port else str(Endpoint(self.host, self.port))
        return f"{self.origin.name} ({where})"


OWNER = Origin("http", "owner.invalid", 80, b"", b"owner.invalid")
"""What a worker asks over a Unix socket; the request carries its own authority."""


def unix_address(path: str) -> Address:
    """:return: the address of a worker of this node that listens at ``path``."""
    return Address(OWNER, path=path)


class AddressBook:
    """
    A worker's view of who resolves to what; the node process sends it (:mod:`edgecache.upstream.resolving`).

    An origin that nobody resolved yet has no addresses.
    """

    def __init__(self) -> None:
        self._addresses: dict[Origin, tuple[Address, ...]] = {}
        # What was told of all names, and what was made of it for others than the configured origins.
        self._told: dict[str, list[tuple[str, int, int]]] = {}
        self._others: dict[Origin, tuple[Address, ...]] = {}

    def update(self, document: dict[str, Any], origins: Iterable[Origin]) -> None:
        """
        :param document: ``{"origins": {name: [[host, port, slot], ...]}}``, plain JSON.
        :param origins: the configured ones; credentials and prefixes never travel.
        """
        self._told, self._others = document["origins"], {}
        for origin in origins:
            found = self._told.get(origin.name)
            if found:
                self._addresses[origin] = tuple(Address(origin, host, port, None, slot) for host, port, slot in found)

    def of(self, origin: Origin) -> tuple[Address, ...]:
        """:return: the addresses of ``origin`` in the resolver's order, ``()`` while none is known."""
        known = self._addresses.get(origin)
        return self._named(origin) if known is None else known

    def _named(self, origin: Origin) -> tuple[Address, ...]:
        """Of one that no setting names: its name may be known all the same, because a page has a link there."""
        found = self._others.get(origin)
        if found is None:
            rows = self._told.get(origin.name, ())
            found = tuple(Address(origin, host, port, None, slot) for host, port, slot in rows)
            if found:
                self._others[origin] = found
        return found


def literal(host: str) -> bool:
    """Is ``host`` an IP address, so that nothing has to be resolved?"""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _plain(text: str) -> bool:
    return text.isascii() and not any(c <= " " or c == "\x7f" for c in text)
