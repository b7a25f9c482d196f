"""The TLS of the public listener."""

from __future__ import annotations

import ssl

from edgecache.words.config import TLSSettings


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """:raise ConfigError: certificate or key cannot be read, or do not belong together."""
    raise NotImplementedError
