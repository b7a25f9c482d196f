"""Which configured site a request is for (RFC 9110 §7.4): Host chooses among them and names nothing else."""

from __future__ import annotations

from attrs import define

from edgecache.words.config import Config, Profile, SiteSettings


@define(eq=False)
class Site:
    """
    One site at run time.

    :ivar id: stable 64-bit hash of the name: in keys, selectors and records.
    :ivar index: its profile is :attr:`Profile.INDEX`.
    :ivar via: the line that this node adds to Via (RFC 9110 §7.6.3), e.g. ``1.1 eu-1``.
    :ivar cache_name: this node in Cache-Status and Proxy-Status, serialised (RFC 9211 §2).
    :ivar cdn_id: this node in CDN-Loop (RFC 8586 §2).
    """

    id: int
    settings: SiteSettings
    profile: Profile
    index: bool
    via: bytes
    cache_name: bytes
    cdn_id: bytes


class Sites:
    """All sites of a node."""

    all: tuple[Site, ...]

    def __init__(self, config: Config) -> None:
        raise NotImplementedError

    def match(self, authority: bytes) -> Site | None:
        """:return: the site whose ``hosts`` name this host, or the default one (``*``); ``None`` without (421)."""
        raise NotImplementedError
