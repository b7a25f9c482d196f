"""TLS towards origins: the standard library's contexts, names checked with service-identity (RFC 9110 §4.3.4)."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from edgecache.words.errors import ConfigError


def client_context(ca: str | None) -> ssl.SSLContext:
    """
    :param ca: PEM file of further CAs; the system's are always trusted.

    :raises ConfigError: it cannot be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as error:
            raise ConfigError("[upstream] ca", f"{ca}: {error.strerror or error}") from error
    return context


def check_name(transport: asyncio.BaseTransport, host: str) -> None:
    """
    Is the peer's certificate one for ``host``? To be asked before the first octet of a request.

    OpenSSL has compared the name during the handshake already; it is compared
    again by RFC 6125's rules, so that a context made without that check cannot pass.

    :raises ssl.CertificateError: it is not, or there is none.
    """
    tls = transport.get_extra_info("ssl_object")
    octets = None if tls is None else tls.getpeercert(True)
    if octets is None:
        raise ssl.CertificateError("no certificate")
    try:
        certificate = x509.load_der_x509_certificate(octets)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            verify_certificate_hostname(certificate, host)
        else:
            verify_certificate_ip_address(certificate, host)
    except (VerificationError, CertificateError, ValueError) as error:
        raise ssl.CertificateError(f"certificate is not for {host}: {error}") from error
