"""Which configured site a request is for (RFC 9110 §7.4): Host chooses among them and names nothing else."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import xxhash
from attrs import define

from edgecache.rules.access import Clients
from edgecache.words.config import SIMPLE, Config, Profile, SiteSettings
from edgecache.words.endpoints import host_spelt


@define(eq=False, repr=False)
class Site:
    """
    One site at run time.

    :ivar id: stable 64-bit hash of the name: in keys, selectors and records.
    :ivar index: its profile is :attr:`Profile.INDEX`.
    :ivar via: what this node adds to Via (RFC 9110 §7.6.3), e.g. ``1.1 eu-1``.
    :ivar cache_name: this node in Cache-Status and Proxy-Status, serialised (RFC 9211 §2).
    :ivar cdn_id: this node in CDN-Loop (RFC 8586 §2), lower case.
    :ivar origins: (authority, path prefix without its last slash) of each origin.
    :ivar path: below which of its hosts' paths it is, ``b""`` or without its last slash. Everything but what clients
        see, and what is sent to siblings, is about what is below that.
    :ivar clients: who may read it; ``None``: everybody.
    :ivar lends: requests without credentials of their own get those of the site at its origins.
    :ivar followed: its place among all sites, where the word about its follower is; -1: it has none.
    :ivar passes: names of the fields of a request without content that go upstream; ``None``: all that are end-to-end.
    :ivar origin_url: of the first origin, without credentials and without its last slash.
    :ivar public: (authority, path before ``path``) of ``public_url``; ``None`` without one.
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
    path: bytes = b""
    public: tuple[bytes, bytes] | None = None
    clients: Clients | None = None
    lends: bool = False
    followed: int = -1
    passes: frozenset[bytes] | None = None
    origin_url: bytes = b""

    @property
    def one_user(self) -> bool:
        """
        Is whoever asks here the same user to the origin? Then what an index says is private (RFC 9111 §5.2.2.7) is that
        user's, and may be stored: servers of private indexes say it of everything.
        """
        return self.index and self.lends

    @property
    def above(self) -> bytes:
        """What is before a path of the site for clients, as far as that is known."""
        return (b"" if self.public is None else self.public[1]) + self.path

    def below(self, target: bytes) -> bytes | None:
        """
        :param target: as its clients know it.
        :return: the same below :attr:`path`; ``None`` for what is not there.
        """
        if not self.path:
            return target
        return target[len(self.path) :] if target.startswith(self.path + b"/") else None

    def selected(self, path: bytes, *, prefix: bool) -> bytes | None:
        """
        :param path: that a purge names, as clients know it.
        :param prefix: whatever begins with it is meant.
        :return: the same below :attr:`path`; ``None``: nothing of this site.
        """
        return b"/" if prefix and (self.path + b"/").startswith(path) else self.below(path)

    def known(self, prefix: bytes, path: bytes) -> bytes | None:
        """
        :param prefix: of one of its origins.
        :param path: there.
        :return: below :attr:`path`, as clients know that resource; ``None`` if they don't.
        """
        if not path.startswith(prefix + b"/"):
            return None
        path = path[len(prefix) :]
        pages = self.settings.simple_path.encode("ascii")
        if self.index and pages != _SIMPLE and path.startswith(pages):
            return _SIMPLE + path[len(pages) :]
        return path


def site_id(name: str) -> int:
    """:return: what stands for a site of this name, on every node that calls it so."""
    return xxhash.xxh3_64_intdigest(name.encode())


_SIMPLE = SIMPLE.encode("ascii")
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
                hosts=frozenset(map(host_octets, settings.hosts)),
                origins=tuple(_origin(url) for url in settings.origins),
                path=settings.path.encode("ascii"),
                public=_origin(settings.public_url) if settings.public_url else None,
                clients=Clients.of(settings),
                lends=settings.origin_authorization is not None or any(map(_has_credentials, settings.origins)),
                followed=place if settings.follow_seconds else -1,
                passes=frozenset(name.lower().encode("ascii") for name in settings.request_fields) or None,
                origin_url=_origin_url(settings.origins[0]),
            )
            for place, settings in enumerate(config.sites)
        )
        self._by_host: dict[bytes, tuple[Site, ...]] = {}
        for site in sorted(self.all, key=lambda site: len(site.path), reverse=True):
            for host in site.hosts:
                self._by_host[host] = (*self._by_host.get(host, ()), site)
        self._default = self._by_host.get(b"*", ())

    def of_host(self, authority: bytes) -> tuple[Site, ...]:
        """
        :return: the sites whose ``hosts`` name this host, or where none does the default ones (``*``): those with
            the longest path first. Nothing: misdirected (421).
        """
        return self._by_host.get(authority) or self._by_host.get(host_of(authority)) or self._default

    def named(self, authority: bytes, path: bytes, *, prefix: bool = False) -> list[tuple[Site, bytes]]:
        """
        :return: sites that an absolute URL names, by host (``*`` is every host), by their ``public_url`` or as an
            origin of theirs, each with the path below its own by which its clients know that resource.
        :param prefix: all that the path is the beginning of is meant, all of a site if that is above it.
        """
        host = host_of(authority)
        found: dict[tuple[Site, bytes], None] = {}
        for site in self.all:
            paths = []
            if b"*" in site.hosts or authority in site.hosts or host in site.hosts:
                paths.append(site.selected(path, prefix=prefix))
            if site.public is not None and site.public[0] == authority and path.startswith(site.public[1] + b"/"):
                paths.append(site.selected(path[len(site.public[1]) :], prefix=prefix))
            for origin, above in site.origins:
                if origin == authority:
                    paths.append(b"/" if prefix and (above + b"/").startswith(path) else site.known(above, path))
            found.update(((site, below), None) for below in paths if below is not None)
        return list(found)


_STEPS = re.compile(rb"[/\\]")
# A path that origins may read otherwise than it stands.
_ODD = re.compile(rb"[%;\\]|/[./]")


def climbs(target: bytes) -> bool:
    """
    Does a path lead above where it begins, for any origin that resolves it? It could leave the prefix of an origin,
    and with it the site whose clients were let in. Some origins undo escapes first, merge slashes, take a backslash
    for one, or leave out parameters of a segment.

    >>> climbs(b"/a/../b"), climbs(b"/a/../../b"), climbs(b"/a//%2e%2E%2f..;x=1/b"), climbs(b"/a?/../..")
    (False, True, True, False)
    """
    return (b".." in target or b"%" in target) and _resolved(target) is None


def crosses(target: bytes, site: Site, of_host: tuple[Site, ...]) -> bool:
    """
    Does a path lead into another site of the same host, for any origin that resolves it? Where one origin has both, the
    other's clients and credentials would count for nothing.

    :param target: as clients know it, of ``site``.
    :param of_host: see :meth:`Sites.of_host`.
    """
    if _ODD.search(target) is None:
        return False
    steps = _resolved(target) or []
    for other in of_host:
        path = other.path.split(b"/")[1:]
        if len(steps) > len(path) and steps[: len(path)] == path:
            return other is not site
    return False


def _resolved(target: bytes) -> list[bytes] | None:
    """:return: segments of the path, the last one empty for a directory; ``None``: it climbs."""
    steps: list[bytes] = []
    name = b""
    for segment in _STEPS.split(unquote_to_bytes(target.partition(b"?")[0])):
        name = segment.partition(b";")[0]
        if name == b"..":
            if not steps:
                return None
            steps.pop()
        elif name not in (b"", b"."):
            steps.append(name)
    return [*steps, b""] if name in (b"", b".", b"..") else steps


def host_octets(authority: str) -> bytes:
    """
    :return: see :func:`edgecache.words.endpoints.host_spelt`; one that can be no name's as it is.

    >>> host_octets("B\xfccher.example:80")
    b'xn--bcher-kva.example:80'
    """
    try:
        return host_spelt(authority).encode("ascii")
    except UnicodeError:
        return authority.lower().encode()


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


def _has_credentials(url: str) -> bool:
    return "@" in url.partition("://")[2].partition("/")[0]


def _origin_url(url: str) -> bytes:
    authority, path = _origin(url)
    return url.partition(":")[0].lower().encode() + b"://" + authority + path


def _origin(url: str) -> tuple[bytes, bytes]:
    lowered = url.encode("utf-8")
    scheme = lowered.partition(b":")[0].lower()
    matched = _ORIGIN.match(scheme + lowered[len(scheme) :])
    if matched is None:
        return b"", b""
    return without_default_port(scheme, matched[1].lower()), matched[2].rstrip(b"/")
