"""TLS towards origins: the standard library's contexts, names checked with service-identity (RFC 9110 §4.3.4)."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from typing import Protocol, TypeGuard

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from edgecache.upstream.addresses import Origin
from edgecache.words.config import UpstreamSettings
from edgecache.words.errors import ConfigError


class Trust(Protocol):
    """
    How siblings are known.

    :ivar context: for connections to them.
    """

    @property
    def context(self) -> ssl.SSLContext: ...

    def check(self, transport: asyncio.BaseTransport, origin: Origin) -> None:
        """
        Is the peer the sibling that ``origin`` is? To be asked before the first octet of a request.

        :raises ssl.CertificateError: it is not.
        """


_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 §4.2), as towards clients."""

_NOTHING_IN_COMMON = re.compile(r"ALERT_HANDSHAKE_FAILURE")

_REFUSALS = re.compile(r"_ALERT_.*(CERTIFICATE|UNKNOWN_CA|ACCESS_DENIED)")


def client_context(settings: UpstreamSettings) -> ssl.SSLContext:
    """
    :param settings: of it ``ca``, whose CAs are trusted besides the system's, ``client_certificate`` with
        ``client_key``, which are shown to origins that ask for one, and ``ciphers``.
    :raises ConfigError: a file cannot be read, or holds not what it should; or there are no such ciphers.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers(settings.ciphers or _CIPHERS)
    except ssl.SSLError as error:
        raise ConfigError("[upstream] ciphers", f"OpenSSL has none of these: {settings.ciphers}") from error
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if settings.ca is not None:
        try:
            context.load_verify_locations(cafile=settings.ca)
        except OSError as error:
            raise ConfigError("[upstream] ca", f"{settings.ca}: {_problem(error)}") from error
    if settings.client_certificate is not None:
        _show(context, settings.client_certificate, settings.client_key)
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """OpenSSL says of two files only that one is wrong."""
    for setting, path in (("client_certificate", certificate), ("client_key", key)):
        if path is not None:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise ConfigError(f"[upstream] {setting}", f"{path}: {_problem(error)}") from error
    try:
        # An encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:
        where = "client_certificate" if key is None else "client_certificate, client_key"
        files = certificate if key is None else f"{certificate}, {key}"
        raise ConfigError(f"[upstream] {where}", f"{files}: {_problem(error)}") from error


def _problem(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return _code(error) or "holds not what it should: PEM"
    return error.strerror or str(error)


def _code(error: ssl.SSLError) -> str:
    """OpenSSL's name for it; an error that Python makes by itself has none."""
    return getattr(error, "reason", None) or ""


def is_refusal(error: Exception | None) -> TypeGuard[ssl.SSLError]:
    """
    Did the peer refuse our certificate, or miss one?

    In TLS 1.3 its alert comes after the handshake, when the request may be on its way already; it is not processed
    (RFC 8446 §4.4.2.4, §6.2).
    """
    return isinstance(error, ssl.SSLError) and _REFUSALS.search(_code(error)) is not None


def reason(error: OSError) -> str:
    """:return: why a handshake failed, as short as OpenSSL can say it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return getattr(error, "verify_message", "") or str(error)
    if isinstance(error, ssl.SSLError):
        words = _code(error).replace("_", " ").lower() or str(error)
        if _NOTHING_IN_COMMON.search(_code(error)):
            # It does not say what it lacks. Of what can be helped here, it is this.
            return f"{words} (none of the ciphers offered may be known to it: [upstream] ciphers)"
        return words
    return str(error) or type(error).__name__


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
        raise ssl.CertificateError(1, "no certificate")
    try:
        certificate = x509.load_der_x509_certificate(octets)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            verify_certificate_hostname(certificate, host)
        else:
            verify_certificate_ip_address(certificate, host)
    except (VerificationError, CertificateError, ValueError) as error:
        raise ssl.CertificateError(1, f"certificate is not for {host}: {error}") from error
