"""
TLS of control calls, for Twisted: both sides show a certificate of the fleet, and none other counts.

Twisted's own options verify a host only; here the node's id belongs to it (:mod:`edgecache.siblings.identity`).
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from edgecache.siblings.identity import BadCertificate, Identity, check_peer
from edgecache.words.errors import ConfigError

_log = Logger()

_PROBLEMS = {
    SSL.X509VerificationCodes.ERR_CERT_HAS_EXPIRED: "the certificate has expired",
    SSL.X509VerificationCodes.ERR_CERT_NOT_YET_VALID: "the certificate is not valid yet",
    SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT: "the certificate is not of the fleet's CA",
    SSL.X509VerificationCodes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the certificate is not of the fleet's CA",
    SSL.X509VerificationCodes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "the certificate is not of the fleet's CA",
    SSL.X509VerificationCodes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "the certificate is not of the fleet's CA",
    SSL.X509VerificationCodes.ERR_SELF_SIGNED_CERT_IN_CHAIN: "the certificate is not of the fleet's CA",
    SSL.X509VerificationCodes.ERR_CERT_SIGNATURE_FAILURE: "the certificate is not of the fleet's CA",
    SSL.X509VerificationCodes.ERR_INVALID_PURPOSE: "the certificate is not for this use",
    SSL.X509VerificationCodes.ERR_INVALID_CA: "the certificate is signed by one that is no CA",
}

_VERDICT = "edgecache_verdict"


@define(eq=False, repr=False)
class Verdict:
    """What the verification of one connection's peer has found. :ivar problem: ``None``: nothing wrong so far."""

    problem: str | None = None

    def found(self, problem: str) -> bool:
        """:return: ``False``, which ends the handshake. The first problem is the one to tell."""
        if self.problem is None:
            self.problem = problem
        return False


def context_of(identity: Identity) -> SSL.Context:
    """
    :return: for either side: TLS 1.3, this node's certificate, the fleet's CA and no other.
    :raises ConfigError: TLS does not take the certificate: its key is too weak, for one.
    """
    try:
        return _context_of(identity)
    except SSL.Error as error:
        raise ConfigError("[siblings] certificate", f"TLS does not take it: {said(error)}") from error


def _context_of(identity: Identity) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    # A resumed session would be that of a certificate looked at long ago.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    context.use_certificate(identity.chain[0])
    for between in identity.chain[1:]:
        context.add_extra_chain_cert(between)
    context.use_privatekey(identity.key)  # type: ignore[arg-type]  # of the kinds that there are, those of TLS
    context.check_privatekey()
    store = context.get_cert_store()
    assert store is not None
    for authority in identity.authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    return context


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False, repr=False)
class CallerTLS:
    """
    Connections to one sibling.

    :ivar node_id: who it has to be, and ``host`` by which it is reached.
    :ivar verdict: of the connection made last.
    """

    _context: SSL.Context
    node_id: str
    host: str
    verdict: Verdict = field(factory=Verdict)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """:return: a connection that ends in its handshake when the peer is not that sibling."""
        verdict = self.verdict = Verdict()

        def verify(_: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
            if not ok:
                return verdict.found(_PROBLEMS.get(error, f"verification of the certificate failed ({error})"))
            return depth > 0 or self._is_it(certificate.to_cryptography(), verdict)

        return _connection(self._context, tlsProtocol, verdict, verify)

    def _is_it(self, certificate: x509.Certificate, verdict: Verdict) -> bool:
        try:
            check_peer(certificate, self.node_id, self.host)
        except BadCertificate as error:
            return verdict.found(str(error))
        except Exception:  # noqa: BLE001  # OpenSSL, which calls this, would swallow it and go on
            _log.failure("siblings: the certificate of {id} cannot be checked", id=self.node_id)
            return verdict.found("the certificate cannot be checked")
        return True


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False, repr=False)
class ListenerTLS:
    """Connections of siblings; the channel asks for the id. :ivar context: may be replaced at any time."""

    context: SSL.Context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """:return: a connection that demands a certificate of the fleet."""
        verdict = Verdict()

        def verify(_: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
            return bool(ok) or verdict.found(_PROBLEMS.get(error, f"verification of it failed ({error})"))

        return _connection(self.context, tlsProtocol, verdict, verify)


def _connection(context: SSL.Context, protocol: Any, verdict: Verdict, verify: Any) -> SSL.Connection:
    connection = SSL.Connection(context, None)
    # The connection's own place for such things is taken by Twisted.
    setattr(protocol, _VERDICT, verdict)
    connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    return connection


def verdict_of(transport: Any) -> Verdict | None:
    """:return: what is being found out about the peer of a connection made here; ``None`` of any other."""
    verdict = getattr(transport, _VERDICT, None)
    return verdict if isinstance(verdict, Verdict) else None


def said(error: SSL.Error) -> str:
    """:return: why OpenSSL gave up, in its own words, without its places."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    words = [str(reason[-1]) for reason in reasons if reason and reason[-1]]
    return ", ".join(dict.fromkeys(words)) or type(error).__name__


def refused_by_peer(error: SSL.Error) -> bool:
    """Did the peer say with an alert that it does not take our certificate (RFC 8446 §6.2)?"""
    text = said(error).lower()
    return "alert" in text and any(word in text for word in ("certificate", "unknown ca", "access denied"))
