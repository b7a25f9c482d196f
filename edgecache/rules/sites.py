"""Which configured site a request is for (RFC 9110 §7.4): Host chooses among them and names nothing else."""

from __future__ import annotations

import re

import xxhash
from attrs import define

from edgecache.words.config import Config, Profile, SiteSettings


@define(eq=False)
class Site:
    """
    One site at run time.

    :ivar id: stable 64-bit hash of the name: in keys, selectors and records.
    :ivar index: its profile is :attr:`Profile.INDEX`.
    :ivar via: what this node adds to Via (RFC 9110 §7.6.3), e.g. ``1.1 eu-1``.
    :ivar cache_name: this node in Cache-Status and Proxy-Status, serialised (RFC 9211 §2).
    :ivar cdn_id: this node in CDN-Loop (RFC 8586 §2), lower case.
    :ivar origins: (authority, path prefix without its last slash) of each origin.
    """

    id: int
    settings: SiteSettings
    profile: Profile
    index: bool
    via: bytes
    cache_name: bytes
    cdn_id: bytes
    hosts: frozenset[bytes]
    origins: tuple[tuple[bytes, bytes], ...]


def site_id(name: str) -> int:
    """:return: what stands for a site of this name, on every node that calls it so."""
    return xxhash.xxh3_64_intdigest(name.encode())


_NOT_TOKEN = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_SF_TOKEN = re.compile(rb"[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*")
_ORIGIN = re.compile(rb"[a-z]+://(?:[^/@]*@)?([^/?#]*)([^?#]*)")


def node_token(node_id: str) -> bytes:
    """:return: the node's id as a token: its pseudonym in Via and CDN-Loop."""
    return _NOT_TOKEN.sub(b"-", node_id.encode("ascii", "replace")) or b"edgecache"


def node_name(node_id: str) -> bytes:
    """:return: the node's id as a structured token, or a string where it can be none."""
    name = node_token(node_id)
    return name if _SF_TOKEN.fullmatch(name) else b'"%b"' % name


class Sites:
    """
    All sites of a node.

    :ivar all: in the order configured.
    """

    def __init__(self, config: Config) -> None:
        token = node_token(config.node.id)
        self.all = tuple(
            Site(
                id=site_id(settings.name),
                settings=settings,
                profile=settings.profile,
                index=settings.profile is Profile.INDEX,
                via=b"1.1 " + token,
                cache_name=node_name(config.node.id),
                cdn_id=token.lower(),
                hosts=frozenset(
                    host.lower().encode("idna" if not host.isascii() else "ascii") for host in settings.hosts
                ),
                origins=tuple(_origin(url) for url in settings.origins),
            )
            for settings in config.sites
        )
        self._by_host: dict[bytes, Site] = {}
        for site in self.all:
            for host in site.hosts:
                self._by_host.setdefault(host, site)
        self._default = self._by_host.get(b"*")

    def match(self, authority: bytes) -> Site | None:
        """:return: the site whose ``hosts`` name this host, or the default one (``*``); ``None`` without (421)."""
        return self._by_host.get(authority) or self._by_host.get(host_of(authority)) or self._default

    def named(self, authority: bytes, path: bytes) -> list[tuple[Site, bytes]]:
        """
        :return: sites that an absolute URL names, by host (``*`` is every host) or as an origin of theirs,
            each with the path by which its clients know that resource.
        """
        found: list[tuple[Site, bytes]] = []
        host = host_of(authority)
        for site in self.all:
            if b"*" in site.hosts or authority in site.hosts or host in site.hosts:
                found.append((site, path))
            for origin, prefix in site.origins:
                if origin == authority and path.startswith(prefix + b"/"):
                    found.append((site, path[len(prefix) :]))
        return found


def host_of(authority: bytes) -> bytes:
    """
    :return: an authority without its port.

    >>> host_of(b"a.example:80"), host_of(b"[::1]:80"), host_of(b"[::1]")
    (b'a.example', b'[::1]', b'[::1]')
    """
    if authority[-1:] == b"]":
        return authority
    host, colon, _ = authority.rpartition(b":")
    return host if colon else authority


_DEFAULT_PORTS = ((b"http:", b":80"), (b"https:", b":443"))


def without_default_port(scheme: bytes, authority: bytes) -> bytes:
    """:return: the authority less a port that its scheme implies (RFC 9110 §4.2.3)."""
    for name, port in _DEFAULT_PORTS:
        if scheme + b":" == name and authority.endswith(port):
            return authority[: -len(port)]
    return authority


def _origin(url: str) -> tuple[bytes, bytes]:
    lowered = url.encode("utf-8")
    scheme = lowered.partition(b":")[0].lower()
    matched = _ORIGIN.match(scheme + lowered[len(scheme) :])
    if matched is None:
        return b"", b""
    return without_default_port(scheme, matched[1].lower()), matched[2].rstrip(b"/")
