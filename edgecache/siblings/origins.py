"""Siblings as origins of content (DESIGN 9): which ones have any, where they are, and whose certificate counts."""

from __future__ import annotations

import asyncio
import ssl

from attrs import frozen

from edgecache.rules.homes import HomeNode, Homes
from edgecache.siblings.identity import BadCertificate, check_peer_der, client_context
from edgecache.upstream.addresses import Origin, sibling_origin
from edgecache.words.config import Config
from edgecache.words.siblingsettings import SiblingSettings, SiblingsSettings


def homes_of(config: Config) -> Homes:
    """:return: the nodes that have content, as this one is told of them."""
    settings = config.siblings
    assert settings is not None
    nodes = [] if settings.voter else [HomeNode(config.node.id, settings.weight, config.node.region)]
    nodes += [HomeNode(other.id, other.weight, other.region) for other in _with_content(config)]
    return Homes(tuple(nodes), config.node.region if settings.region_homes else None)


def content_origins(config: Config) -> list[Origin]:
    """:return: where the siblings answer look-ups of content."""
    return [sibling_origin(other.id, other.content_url) for other in _with_content(config)]


def _with_content(config: Config) -> list[SiblingSettings]:
    return [other for other in config.others if other.content_url and not other.leaving]


@frozen(eq=False, repr=False)
class SiblingTrust:
    """Implements :class:`edgecache.upstream.tls.Trust`."""

    context: ssl.SSLContext

    @classmethod
    def of(cls, settings: SiblingsSettings) -> SiblingTrust:
        """:raises ConfigError: a file cannot be used."""
        return cls(client_context(settings))

    def check(self, transport: asyncio.BaseTransport, origin: Origin) -> None:
        """See :meth:`edgecache.upstream.tls.Trust.check`."""
        tls = transport.get_extra_info("ssl_object")
        try:
            check_peer_der(None if tls is None else tls.getpeercert(True), origin.sibling, origin.host)
        except BadCertificate as error:
            raise ssl.CertificateError(1, error.problem) from error
