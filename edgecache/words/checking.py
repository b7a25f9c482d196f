"""What settings demand of each other; what one setting may be is said by its own type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

import attrs

from edgecache.words.config import SIMPLE, Access, ClientSettings, Config, Profile, Secret, SiteSettings
from edgecache.words.credentials import credentials, digested
from edgecache.words.endpoints import Endpoint, endpoint, host_spelt, origin_url, proxy_url
from edgecache.words.errors import ConfigError
from edgecache.words.fleet import IDENTIFIER, check_fleet
from edgecache.words.places import Path
from edgecache.words.reading import Document
from edgecache.words.voters import as_voter, is_voter

T = TypeVar("T")

MOST_FOLLOWED = 32
"""Sites that there is a word for (:data:`edgecache.store.pagelayout.FOLLOWED`)."""

LEAST_CHARACTERS = 8
"""Of a client's secret: fewer are a slip, such as an empty variable."""

_PAGES = re.compile(r"/([!-~]+/)?")
_SITE_PATH = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TARGET = re.compile(r"(/[!\"$-~]*)?")
# As Host says it, names of other alphabets too.
_SITE_HOST = re.compile(r"(?:[^\s/@:?#*\[\]]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def checked(config: Config, document: Document) -> Config:
    """
    Put settings in the form that the program uses, or refuse them.

    :param document: what ``config`` was built from; it knows where each setting stands.
    :raises ConfigError: at the first thing that cannot be.
    """
    return _Checks(config, document).run()


def listens_at(config: Config, host: str, port: int) -> bool:
    """Is this one of the node's own listeners? A node in front of itself would ask itself for ever."""
    asked = Endpoint(host.lower(), port)
    for own in map(endpoint, config.listen.public):
        everything = own.host in ("0.0.0.0", "::") and asked.loopback
        by_name = "localhost" in (own.host, asked.host) and own.loopback and asked.loopback
        if own.port == port and (own.host == asked.host or everything or by_name):
            return True
    return False


@attrs.frozen
class _Checks:
    config: Config
    document: Document

    def run(self) -> Config:
        config = self.config
        if not IDENTIFIER.fullmatch(config.node.id):
            self.refuse(("node", "id"), "is up to 64 letters, digits, '.', '_' and '-'")
        taken: dict[Endpoint, str] = {}
        for name in ("public", "admin"):
            addresses = getattr(config.listen, name)
            if not addresses and name == "public" and not is_voter(config):
                self.refuse(("listen", name), "is empty: nobody could ask this node anything")
            for at, text in enumerate(addresses):
                where = self.parse(("listen", name, at), endpoint, text)
                if where.port and where in taken:
                    self.refuse(("listen", name, at), f"{where} is [listen] {taken[where]}'s already")
                taken[where] = name
        if config.store.evict_share >= config.store.full_share:
            self.refuse(("store", "evict_share"), "must be below full_share: eviction begins before the store is full")
        if config.log.format not in ("json", "combined"):
            self.refuse(("log", "format"), "is one of 'json', 'combined'")
        self.upstream()
        check_fleet(config, self.refuse)
        if is_voter(config):
            config = as_voter(config, self.document, self.refuse)
        sites = tuple(self.site(at, site) for at, site in enumerate(config.sites))
        self.distinct(sites)
        return attrs.evolve(config, sites=sites)

    def upstream(self) -> None:
        settings = self.config.upstream
        if settings.eject_seconds > settings.eject_longest_seconds:
            self.refuse(("upstream", "eject_longest_seconds"), "must not be below eject_seconds, the shortest ejection")
        if settings.client_key is not None and settings.client_certificate is None:
            self.refuse(("upstream", "client_key"), "is the key of no client_certificate")
        if settings.proxy is not None:
            proxy = self.parse(("upstream", "proxy"), proxy_url, settings.proxy.value)
            if listens_at(self.config, proxy.host, proxy.port):
                self.refuse(("upstream", "proxy"), f"{proxy.name} is this node's own listener")

    def site(self, at: int, site: SiteSettings) -> SiteSettings:
        path: Path = ("site", at)
        if not site.origins:
            self.refuse((*path, "origins"), "names no origin")
        if not site.hosts:
            self.refuse((*path, "hosts"), 'is empty; ["*"] takes every host')
        for name in ("hosts", "file_hosts"):
            for host in getattr(site, name):
                if not (_SITE_HOST.fullmatch(host) or (host == "*" and name == "hosts")):
                    self.refuse((*path, name), f"{host!r} is no host, with or without a port, and nothing more")
                try:
                    host_spelt(host)
                except UnicodeError:
                    self.refuse((*path, name), f"{host!r} can be no host's name")
        if not _PAGES.fullmatch(site.simple_path):
            self.refuse((*path, "simple_path"), "is a path that begins and ends with a slash")
        if not _TARGET.fullmatch(site.probe_path):
            self.refuse((*path, "probe_path"), "is a path, percent-encoded, that begins with a slash")
        if not _SITE_PATH.fullmatch(site.path):
            self.refuse((*path, "path"), 'is a path such as "/team-a", without a slash at its end and without escapes')
        if site.follow_seconds:
            if site.profile is not Profile.INDEX:
                self.refuse((*path, "follow_seconds"), "is for an index; a plain site has no list of projects")
            if at >= MOST_FOLLOWED:
                self.refuse((*path, "follow_seconds"), f"is for the first {MOST_FOLLOWED} sites only")
        for name in site.request_fields:
            if not _FIELD_NAME.fullmatch(name):
                self.refuse((*path, "request_fields"), f"{name!r} is no name of a field")
        if site.request_fields and site.profile is not Profile.PLAIN:
            self.refuse((*path, "request_fields"), "is for a plain site; an index has a list of its own")
        if not _TARGET.fullmatch(site.upload) or "?" in site.upload:
            self.refuse((*path, "upload"), "is a path, percent-encoded, that begins with a slash")
        if site.upload and site.profile is not Profile.INDEX:
            self.refuse((*path, "upload"), "is for an index; a plain site passes every method")
        if site.public_url:
            self.public_url((*path, "public_url"), site.public_url)
        return attrs.evolve(
            site,
            public_url=site.public_url.rstrip("/"),
            origin_authorization=self.authorization(path, site),
            clients=self.clients(path, site),
            origins=tuple(self.origin((*path, "origins", nr), site, url) for nr, url in enumerate(site.origins)),
            hosts=tuple(host.lower() for host in site.hosts),
            file_hosts=tuple(host.lower() for host in site.file_hosts),
        )

    def origin(self, path: Path, site: SiteSettings, url: str) -> str:
        parsed = self.parse(path, origin_url, url)
        if listens_at(self.config, parsed.host, parsed.port):
            self.refuse(path, f"{parsed.shown} is this node's own listener")
        if parsed.credentials:
            if site.origin_authorization is not None:
                self.refuse(path, "has credentials, and so has origin_authorization")
            self.not_lent(path, site)
        if site.profile is Profile.INDEX and f"{parsed.path}/".endswith(SIMPLE):
            # What installers are given is the root of the pages; clients ask us for /simple/... below it.
            return url.rstrip("/").removesuffix(SIMPLE.rstrip("/"))
        return url.rstrip("/")

    def not_lent(self, path: Path, site: SiteSettings) -> None:
        """Whoever could reach the listener would read with the origin's password (DESIGN 11)."""
        for text in self.config.listen.public:
            if site.access is Access.OPEN and not endpoint(text).loopback:
                self.refuse(
                    path,
                    f'has credentials, and {text} can be reached from other machines; access = "token" lets clients in',
                )

    def authorization(self, path: Path, site: SiteSettings) -> Secret | None:
        """:return: the value of the field."""
        if site.origin_authorization is None:
            return None
        path = (*path, "origin_authorization")
        self.not_lent(path, site)
        return Secret(self.parse(path, credentials, site.origin_authorization.value))

    def clients(self, path: Path, site: SiteSettings) -> tuple[ClientSettings, ...]:
        if site.access is Access.OPEN and site.clients:
            self.refuse((*path, "client", 0), 'has no effect while access is "open"')
        if site.access is Access.TOKEN and not site.clients:
            self.refuse((*path, "access"), 'is "token", and there is no [[site.client]] who has one')
        if site.access is Access.TOKEN and site.pass_authorization:
            self.refuse((*path, "pass_authorization"), 'would pass on what access = "token" asks clients for')
        names: set[str] = set()
        for at, client in enumerate(site.clients):
            place = (*path, "client", at)
            if not IDENTIFIER.fullmatch(client.name):
                self.refuse((*place, "name"), "is up to 64 letters, digits, '.', '_' and '-'")
            if client.name in names:
                self.refuse((*place, "name"), f"{client.name!r} is another client's already")
            names.add(client.name)
            if (client.token is None) == (client.password is None) or bool(client.user) != bool(client.password):
                self.refuse(place, "has a token, or a user and a password")
            if ":" in client.user:
                self.refuse((*place, "user"), "has no colon in it (RFC 7617)")
        return tuple(
            attrs.evolve(
                client,
                token=self.digest((*path, "client", at, "token"), client.token),
                password=self.digest((*path, "client", at, "password"), client.password),
            )
            for at, client in enumerate(site.clients)
        )

    def digest(self, path: Path, secret: Secret | None) -> Secret | None:
        """All that is kept of a client's secret; it may be written as such."""
        if secret is None or _DIGEST.fullmatch(secret.value):
            return secret
        if len(secret.value) < LEAST_CHARACTERS:
            self.refuse(path, f"has fewer than {LEAST_CHARACTERS} characters, and could be guessed")
        return Secret(digested(secret.value.encode()))

    def public_url(self, path: Path, url: str) -> None:
        parsed = self.parse(path, origin_url, url)
        if parsed.credentials:
            self.refuse(path, "has credentials, and clients would see them")

    def distinct(self, sites: tuple[SiteSettings, ...]) -> None:
        names: set[str] = set()
        places: set[tuple[str, str]] = set()
        for at, site in enumerate(sites):
            if site.name in names:
                self.refuse(("site", at), f"the name {site.name!r} is taken by another site")
            names.add(site.name)
            for host in site.hosts:
                place = host_spelt(host), site.path
                if place in places:
                    below = f" below {site.path}" if site.path else ""
                    self.refuse(("site", at, "hosts"), f"{host!r}{below} belongs to another site already")
                places.add(place)

    def parse(self, path: Path, parser: Callable[[str], T], text: str) -> T:
        try:
            return parser(text)
        except ValueError as error:
            self.refuse(path, str(error))

    def refuse(self, path: Path, problem: str) -> NoReturn:
        raise ConfigError(self.document.where(path), problem)
