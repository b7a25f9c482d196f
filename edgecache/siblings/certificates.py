"""
Making a fleet's certificates: a CA of its own, and one certificate for each node.

Keys are P-256: small, fast, and known to every TLS library. A key once written is not replaced unless that is
demanded, for its certificates would be worth nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from pathlib import Path

from attrs import define, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgecache.siblings.identity import node_uri
from edgecache.words.endpoints import Endpoint, endpoint
from edgecache.words.errors import EdgeError
from edgecache.words.fleet import IDENTIFIER

CA_DAYS = 3650
NODE_DAYS = 730
# Clocks differ: a certificate made here must be valid there at once.
_EARLIER = datetime.timedelta(hours=1)
_CA = "ca"
# X.520 allows no more in a common name; the name that counts is another one.
_COMMON_NAME_LENGTH = 64


@define(eq=False, repr=False)
class CertificatesFailed(EdgeError):
    """Nothing was made. :ivar problem: what to tell the operator."""

    problem: str

    def __str__(self) -> str:
        return self.problem


@frozen
class Made:
    """:ivar not_after: when it expires."""

    certificate: Path
    key: Path
    not_after: datetime.datetime


def make_ca(
    out: Path, now: datetime.datetime, *, days: int = CA_DAYS, name: str = "edgecache", force: bool = False
) -> Made:
    """
    Write ``ca.pem``, which every node needs, and ``ca.key``, which none does.

    :param now: with its time zone.
    :raises CertificatesFailed: there is one already, or the directory cannot be written.
    """
    subject = _named(f"{name} siblings"[:_COMMON_NAME_LENGTH])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _dated(subject, subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _write(out, _CA, key, builder.sign(key, hashes.SHA256()), force)


def make_node(
    out: Path, now: datetime.datetime, node_id: str, hosts: list[str], *, days: int = NODE_DAYS, force: bool = False
) -> Made:
    """
    Write ``<id>.pem`` and ``<id>.key``, signed by the CA in the same directory.

    :param hosts: names and addresses by which the others reach it, at least one.
    :raises CertificatesFailed: bad id or host, no CA, there is a key already, or the directory cannot be written.
    """
    if not IDENTIFIER.fullmatch(node_id):
        raise CertificatesFailed(f"{node_id!r} is no id: up to 64 letters, digits, '.', '_' and '-'")
    if node_id == _CA:
        raise CertificatesFailed("a node called 'ca' would have the files of the CA")
    if not hosts:
        raise CertificatesFailed("name at least one host by which the others reach the node")
    ca, ca_key = _authority(out)
    ends = now + datetime.timedelta(days=days)
    if ca.not_valid_after_utc < ends:
        raise CertificatesFailed(f"the CA expires before that, on {ca.not_valid_after_utc:%Y-%m-%d}: fewer days")
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(node_uri(node_id))]
    names += [_host(host) for host in dict.fromkeys(hosts)]
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _dated(_named(node_id), ca.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        # Every node calls and is called.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return _write(out, node_id, key, builder.sign(ca_key, hashes.SHA256()), force)


def _host(text: str) -> x509.GeneralName:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return x509.IPAddress(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        # What the endpoints of a configuration may name.
        found = endpoint(f"{text}:1")
    except ValueError:
        found = Endpoint("", 0)
    if not found.host or found.host.rpartition(".")[2].isdigit():
        raise CertificatesFailed(f"{text!r} is no host: a name or an address, without port")
    return x509.DNSName(found.host.lower().removesuffix("."))


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _dated(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(out: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_path, key_path = out / f"{_CA}.pem", out / f"{_CA}.key"
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        certificate.verify_directly_issued_by(certificate)
    except FileNotFoundError as error:
        raise CertificatesFailed(f"there is no {error.filename}; make the CA first: edgecache certs ca") from error
    except OSError as error:
        raise CertificatesFailed(f"{error.filename}: {error.strerror}") from error
    except (ValueError, TypeError, InvalidSignature) as error:
        raise CertificatesFailed(f"{certificate_path}, {key_path} are no CA that this command made") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificatesFailed(f"{key_path} is not the key of {certificate_path}")
    return certificate, key


def _write(out: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, force: bool) -> Made:
    made = Made(out / f"{name}.pem", out / f"{name}.key", certificate.not_valid_after_utc)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in (made.key, made.certificate):
            if path.exists() and not force:
                raise CertificatesFailed(f"{path} is there already; --force replaces it")
        _replace(made.key, secret, 0o600, force)
        _replace(made.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644, True)
    except OSError as error:
        raise CertificatesFailed(f"{error.filename}: {error.strerror}") from error
    return made


def _replace(path: Path, content: bytes, mode: int, force: bool) -> None:
    """Whole or not at all; two runs at once do not both win."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if force:
            os.replace(temporary, path)
        else:
            try:
                os.link(temporary, path)
            except FileExistsError as error:
                raise CertificatesFailed(f"{path} is there already; --force replaces it") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
