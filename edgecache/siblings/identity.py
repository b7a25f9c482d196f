"""
Who a node is, by its certificate (DESIGN 9, 12).

A node's certificate is signed by the fleet's own CA and has two kinds of names: one URI that says which node
it is, ``edgecache:<id>.node``, and the hosts by which it is reached. A caller checks both, with service-identity; a
listener learns the id of its caller from the URI and asks for nothing else, for callers have no fixed hosts.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from itertools import pairwise

from attrs import define, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, URI_ID, IPAddress_ID, ServiceID, verify_service_identity

from edgecache.words.errors import ConfigError, EdgeError
from edgecache.words.siblingsettings import SiblingsSettings

_SCHEME = "edgecache:"
# An id alone may look like an address (all digits), which service-identity takes for no name.
_SUFFIX = ".node"


@define(eq=False, repr=False)
class BadCertificate(EdgeError):
    """A certificate of this fleet, but not of whom it has to be. :ivar problem: for people."""

    problem: str

    def __str__(self) -> str:
        return self.problem


def node_uri(node_id: str) -> str:
    """
    :return: the name of a node in its certificate.

    >>> node_uri("eu-1")
    'edgecache:eu-1.node'
    """
    return f"{_SCHEME}{node_id}{_SUFFIX}"


def named_id(certificate: x509.Certificate) -> str:
    """
    :return: the id of the node whose certificate this is, as it is written there.
    :raises BadCertificate: it names none, or several, or is a CA's.
    """
    try:
        # The chain's verification says nothing of that: a CA's is a fine end of a chain.
        if _is_authority(certificate):
            raise BadCertificate("the certificate is a CA's, not a node's")
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise BadCertificate("the certificate names no node") from None
    except ValueError as error:
        raise BadCertificate(f"the certificate cannot be read: {error}") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    ids = [uri for uri in uris if uri.startswith(_SCHEME) and uri.endswith(_SUFFIX)]
    if len(ids) != 1:
        raise BadCertificate("the certificate names several nodes" if ids else "the certificate names no node")
    return ids[0].removeprefix(_SCHEME).removesuffix(_SUFFIX)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def check_peer(certificate: x509.Certificate, node_id: str, host: str) -> None:
    """
    Is this the certificate of node ``node_id``, reached as ``host``? Its signature has been verified.

    :param host: a name, or an address without brackets.
    :raises BadCertificate: it is not.
    """
    found = named_id(certificate)
    if found != node_id:
        raise BadCertificate(f"the certificate is that of node {found}, not of {node_id}")
    try:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            where: ServiceID = DNS_ID(host)
        else:
            where = IPAddress_ID(host)
        verify_service_identity(extract_patterns(certificate), [URI_ID(node_uri(node_id)), where], [])
    except (VerificationError, CertificateError, ValueError) as error:
        raise BadCertificate(f"the certificate of node {node_id} is not for {host}") from error


def check_peer_der(octets: bytes | None, node_id: str, host: str) -> None:
    """
    :func:`check_peer` for a transport of the standard library: give it ``ssl_object.getpeercert(True)``.

    :raises BadCertificate: there is no certificate, or not that one.
    """
    check_peer(certificate_of(octets), node_id, host)


def certificate_of(octets: bytes | None) -> x509.Certificate:
    """
    :param octets: ``ssl_object.getpeercert(True)``.
    :raises BadCertificate: there is none, or it is malformed.
    """
    if octets is None:
        raise BadCertificate("there is no certificate")
    try:
        return x509.load_der_x509_certificate(octets)
    except ValueError as error:
        raise BadCertificate(f"the certificate cannot be read: {error}") from error


@frozen
class Identity:
    """
    What this node shows, and whom it trusts.

    :ivar chain: its own certificate, then those between it and the CA.
    :ivar authorities: whose signature makes a certificate one of the fleet; several while the CA is exchanged.
    """

    id: str
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKeyTypes = field(repr=False)
    authorities: tuple[x509.Certificate, ...] = field(repr=False)

    def same(self, other: Identity) -> bool:
        """Do both show the same, and trust the same?"""
        return (self.chain, self.authorities) == (other.chain, other.authorities)

    @property
    def not_after(self) -> datetime.datetime:
        """Its certificate is worth nothing after this."""
        return self.chain[0].not_valid_after_utc

    def expires_in(self, now: float) -> float:
        """
        :param now: seconds since the epoch.
        :return: seconds until the certificate is worth nothing; below 0 it is already.
        """
        return self.not_after.timestamp() - now

    @classmethod
    def load(cls, settings: SiblingsSettings, node_id: str) -> Identity:
        """
        Read the files and see that they belong together.

        An expired certificate is loaded: a node serves on without its siblings.

        :raises ConfigError: a file cannot be read, holds not what it should, or is another node's.
        """
        authorities = _certificates("ca", settings.ca)
        chain = _certificates("certificate", settings.certificate)
        key = _key(settings.key)
        if _public(key.public_key()) != _public(chain[0].public_key()):
            raise ConfigError("[siblings] key", f"{settings.key} is not the key of {settings.certificate}")
        try:
            found = named_id(chain[0])
        except BadCertificate as error:
            raise ConfigError("[siblings] certificate", f"{settings.certificate}: {error}") from error
        if found != node_id:
            problem = f"{settings.certificate} is the certificate of node {found}; this node is {node_id}"
            raise ConfigError("[siblings] certificate", problem)
        if not _leads(chain, authorities):
            raise ConfigError("[siblings] certificate", f"{settings.certificate} is not signed by {settings.ca}")
        return cls(found, chain, key, authorities)


def server_context(settings: SiblingsSettings) -> ssl.SSLContext:
    """
    For a listener of asyncio (``[listen] content``): callers show certificates of the fleet; see :func:`named_id`.

    :raises ConfigError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, settings)


def client_context(settings: SiblingsSettings) -> ssl.SSLContext:
    """
    For calls by asyncio to a sibling's ``content_url``: name the host, then ask :func:`check_peer_der`.

    Only the fleet's CA is trusted, not the system's.

    :raises ConfigError: a file cannot be used.
    """
    return _filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), settings)


def _filled(context: ssl.SSLContext, settings: SiblingsSettings) -> ssl.SSLContext:
    # Both ends are this program: nothing older has to be spoken.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("ca", settings.ca), ("certificate", settings.certificate), ("key", settings.key)):
        _read(name, path)
    try:
        context.load_verify_locations(cafile=settings.ca)
        # An encrypted key would make OpenSSL ask on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=lambda: b"")
    except ssl.SSLError as error:
        files = f"{settings.ca}, {settings.certificate}, {settings.key}"
        raise ConfigError("[siblings] ca, certificate, key", f"{files}: {error.reason or error}") from error
    return context


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"[siblings] {name}", f"{path}: {error.strerror}") from error


def _certificates(name: str, path: str) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(_read(name, path)))
    except ValueError as error:
        raise ConfigError(f"[siblings] {name}", f"{path} holds no certificate in PEM") from error


def _key(path: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_read("key", path), None)
    except TypeError as error:
        raise ConfigError("[siblings] key", f"{path} is encrypted; nobody could type its password") from error
    except ValueError as error:
        raise ConfigError("[siblings] key", f"{path} holds no private key in PEM") from error


def _public(key: object) -> bytes:
    octets: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # every kind of key has it
    return octets


def _leads(chain: tuple[x509.Certificate, ...], authorities: tuple[x509.Certificate, ...]) -> bool:
    """Is each signed by the next, and the last by an authority, or one itself?"""
    linked = all(_signed(one, signer) for one, signer in pairwise(chain))
    last = chain[-1]
    return linked and (last in authorities or any(_signed(last, authority) for authority in authorities))


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
