"""The TLS of the public listener, and what becomes of handshakes that fail."""

from __future__ import annotations

import ssl

from attrs import define, field
from twisted.logger import Logger

from edgecache.rules.lately import Lately
from edgecache.words.config import TLSSettings
from edgecache.words.counters import Counter
from edgecache.words.errors import ConfigError
from edgecache.words.ports import Counts, Timers

_log = Logger()


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
            raise ConfigError(f"[tls] {key}", f"{path}: {error.strerror}") from error
    try:
        # An encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: b"")
    except ssl.SSLError as error:
        files = f"{settings.certificate}, {settings.key}"
        raise ConfigError("[tls] certificate, key", f"{files}: {error.reason or error}") from error
    return context


def why(problem: ssl.SSLError) -> str:
    """
    :return: why a client's handshake failed, for people.

    >>> why(ssl.SSLError(1, "no words of OpenSSL's"))
    "no words of OpenSSL's"
    """
    verdict = getattr(problem, "verify_message", "")
    if verdict:
        return f"its certificate: {verdict}"
    words = (getattr(problem, "reason", None) or "").replace("_", " ").lower()
    if "alert" in words:
        # An alert is the other side's word (RFC 8446 §6).
        return f"it refuses: {words.rpartition('alert ')[2]}"
    return words or str(problem.args[-1])


@define(eq=False, repr=False)
class Handshakes:
    """Those of clients that failed: all are counted, and each reason is logged once in a while."""

    _counts: Counts
    _timers: Timers
    _lately: Lately = field(factory=Lately)

    def failed(self, peer: bytes, problem: ssl.SSLError | None) -> None:
        """See :attr:`edgecache.wire.listener.Listener.unshaken`."""
        self._counts.add(Counter.TLS_FAILED)
        if problem is None:
            return
        words = why(problem)
        # By reason alone: whoever scans the network comes from many addresses, with the same few.
        if self._lately.news(words, self._timers.seconds()):
            _log.warn("clients: TLS with {peer} failed: {why}", peer=peer.decode("latin-1"), why=words)
