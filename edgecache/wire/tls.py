"""The TLS of the public listener."""

from __future__ import annotations

import ssl

from edgecache.words.config import TLSSettings
from edgecache.words.errors import ConfigError


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """
    :return: TLS 1.2 and later, with forward secrecy and authenticated encryption only.
    :raise ConfigError: certificate or key cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for key, path in (("certificate", settings.certificate), ("key", settings.key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise ConfigError(f"[tls] {key} {path}", str(error.strerror)) from error
    try:
        # An encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ConfigError(
            f"[tls] certificate {settings.certificate}, key {settings.key}", str(error.reason or error)
        ) from error
    return context
