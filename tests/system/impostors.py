"""Who is not whom a listener waits for: certificates that are wrong, one way each; and greetings of older TLS."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from edgecache.siblings.identity import node_uri

_DAY = datetime.timedelta(days=1)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@frozen
class Issuer:
    """A certificate that signs others. :ivar path: of it."""

    path: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, directory: Path) -> Issuer:
        """:return: the CA that ``edgecache certs`` has made there."""
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        path = directory / "ca.pem"
        return cls(path, x509.load_pem_x509_certificate(path.read_bytes()), key)


def issue(
    directory: Path,
    name: str,
    signer: Issuer | None,
    *,
    node: str | None = None,
    days: tuple[int, int] = (-1, 30),
    uses: tuple[ObjectIdentifier, ...] = BOTH,
    ca: bool = False,
    hosts: tuple[str, ...] = ("127.0.0.1",),
) -> Issuer:
    """
    Write ``<name>.pem``: certificate, its signer's if that is no root, and key in one file.

    :param signer: ``None``: itself.
    :param node: whose certificate it says it is.
    :param days: from now, from when until when it is valid.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts if not host[0].isdigit()]
    names += [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts if host[0].isdigit()]
    if node is not None:
        names.append(x509.UniformResourceIdentifier(node_uri(node)))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    certificate = builder.sign(key if signer is None else signer.key, hashes.SHA256())
    path = directory / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.touch(0o600)
    between = [] if signer is None or signer.certificate.issuer == signer.certificate.subject else [signer.certificate]
    chain = [one.public_bytes(serialization.Encoding.PEM) for one in (certificate, *between)]
    path.write_bytes(b"".join(chain) + secret)
    return Issuer(path, certificate, key)


def answer_to(port: int, shown: Path | None, request: bytes, *, host: str = "127.0.0.1") -> bytes:
    """
    :param shown: certificate and key; ``None``: none.
    :return: what a listener answers to ``request``; empty: nothing, and the connection was closed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(shown)
    try:
        with (
            socket.create_connection((host, port), 20) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            tls.sendall(request)
            return tls.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return b""


_ALERT, _HANDSHAKE = 21, 22


def greeting(version: int, ciphers: tuple[int, ...], *, compressions: bytes = b"\0", names: bytes = b"") -> bytes:
    """
    :param version: 0x0303 is TLS 1.2, and the last that is greeted like this (RFC 5246 §7.4.1.2).
    :return: a ClientHello that offers these and nothing else, whatever this machine's OpenSSL still knows.
    """
    extensions = (
        # Curves, formats of points, signatures: of any kind that a server may have.
        _extension(10, _counted(2, b"\x00\x17\x00\x18\x00\x1d"))
        + _extension(11, _counted(1, b"\0"))
        + _extension(13, _counted(2, b"\x04\x03\x05\x03\x08\x04\x04\x01\x02\x01\x02\x03"))
    )
    if names:
        extensions += _extension(0, _counted(2, b"\0" + _counted(2, names)))
    suites = b"".join(cipher.to_bytes(2, "big") for cipher in ciphers)
    body = version.to_bytes(2, "big") + bytes(range(32)) + _counted(1, b"") + _counted(2, suites)
    body += _counted(1, compressions) + _counted(2, extensions)
    return b"\x16\x03\x01" + _counted(2, b"\x01" + _counted(3, body))


def greeted(port: int, hello: bytes) -> str:
    """:return: what the answer is: ``cipher 0x... compression n``, ``alert n``, or ``nothing``."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(hello)
        heard = b""
        while len(heard) < 5 or len(heard) < 5 + int.from_bytes(heard[3:5], "big"):
            try:
                piece = sock.recv(4096)
            except ConnectionError:
                return "nothing"
            if not piece:
                return "nothing"
            heard += piece
    if heard[0] == _ALERT:
        return f"alert {heard[6]}"
    assert heard[0] == _HANDSHAKE, heard
    assert heard[5] == 2, heard
    after = 5 + 4 + 2 + 32
    after += 1 + heard[after]
    return f"cipher {int.from_bytes(heard[after : after + 2], 'big'):#06x} compression {heard[after + 2]}"


def _counted(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def _extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + _counted(2, data)
