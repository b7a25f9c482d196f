"""Certificates made on the spot: an authority, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


@define(eq=False)
class Authority:
    """A CA that signs for whoever asks. Files go into ``directory``, which must exist."""

    directory: Path
    name: str = "authority"
    _key: ec.EllipticCurvePrivateKey = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    _certificate: x509.Certificate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._certificate = self._build(self.name, self._key, ca=True)
        Path(self.path).write_bytes(_pem(self._certificate))

    @property
    def path(self) -> str:
        """The file to trust."""
        return str(self.directory / f"{self.name}.ca.pem")

    def issue(self, name: str, *, expired: bool = False, early: bool = False) -> tuple[str, str]:
        """
        :param expired: it was valid until yesterday; ``early``: it will be, from tomorrow.
        :return: the files of a certificate for ``name`` and 127.0.0.1, and of its key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        days = (-9, -1) if expired else (1, 9) if early else (-1, 9)
        certificate = self._build(name, key, days=days)
        paths = str(self.directory / f"{self.name}.{name}.pem"), str(self.directory / f"{self.name}.{name}.key")
        Path(paths[0]).write_bytes(_pem(certificate))
        Path(paths[1]).write_bytes(key_pem(key))
        return paths

    def server(self, name: str, *, clients: Authority | None = None, **how: bool) -> ssl.SSLContext:
        """:return: of a server with a certificate for ``name``; ``clients`` must sign those of its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(name, **how))
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients.path)
        return context

    def _build(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool = False, days: tuple[int, int] = (-1, 9)
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * _DAY)
            .not_valid_after(now + days[1] * _DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            # From Python 3.13 on, both are asked for, and what a CA's key is for.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if ca:
            builder = builder.add_extension(_SIGNS, critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name), LOOPBACK]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    """:return: ``key`` as a file has it, encrypted where there is a ``password``."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
