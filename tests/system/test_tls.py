"""TLS of the legs of real nodes: what is refused, and what the log says of it (DESIGN 12)."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.system.certificates import make_certificate
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.impostors import Issuer, answer_to, greeted, greeting, issue
from tests.system.processes import until

OLDER = {"SSL 3": 0x0300, "TLS 1.0": 0x0301, "TLS 1.1": 0x0302}
TLS_1_2 = 0x0303
# RFC 9325 §4.2 wants these, for either kind of key.
GOOD = (0xC02B, 0xC02F)
WEAK = {
    "NULL": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010),
    "export": (0x0003, 0x0006, 0x0008, 0x0014),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011),
    "3DES": (0x000A, 0x0016, 0xC008, 0xC012),
    "no forward secrecy": (0x002F, 0x0035, 0x009C, 0x009D),
    "CBC": (0xC009, 0xC013, 0xC00A, 0xC014, 0xC023, 0xC027, 0xC024, 0xC028, 0x0067),
    "anonymous": (0x0018, 0x001B, 0x0034, 0x00A6, 0xC018),
    "CCM with short tags": (0xC0AE, 0xC0AF),
}
# handshake_failure, protocol_version
REFUSED = ("alert 40", "alert 70")
PULL = b"POST /siblings/pull HTTP/1.1\r\nHost: n1\r\nContent-Length: 2\r\n\r\n{}"
LOOK_UP = b"GET /wheel HTTP/1.1\r\nHost: n1\r\n\r\n"


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


class LegsTests(SynchronousTestCase):
    """Two siblings with TLS for clients too; the first is looked at."""

    fleet: Fleet
    node: Node
    public: int
    control: int
    content: int
    root: Path

    @classmethod
    def setUpClass(cls) -> None:
        cls.root = Path(tempfile.mkdtemp(prefix="edgecache-tls-"))
        cls.addClassCleanup(shutil.rmtree, cls.root)
        certificate, key = make_certificate(cls.root / "public")
        more = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
        cls.fleet = Fleet(cls.root, 2, "http://127.0.0.1:9", more=more)
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()
        cls.node = cls.fleet.nodes["n1"]
        cls.public = port_of(cls.node.url)
        cls.control, cls.content = cls.fleet.ports("n1")

    def test_what_is_good_is_spoken(self) -> None:
        """So that what follows is refused for what it is."""
        self.assertIn(
            greeted(self.public, greeting(TLS_1_2, GOOD)), [f"cipher {one:#06x} compression 0" for one in GOOD]
        )

    def test_clients_get_no_older_version_and_no_weak_cipher(self) -> None:
        for name, version in OLDER.items():
            self.assertIn(greeted(self.public, greeting(version, (*GOOD, 0xC013, 0x002F))), REFUSED, name)
        for name, ciphers in WEAK.items():
            self.assertIn(greeted(self.public, greeting(TLS_1_2, ciphers)), REFUSED, name)

    def test_a_good_cipher_is_chosen_whatever_a_client_likes_better(self) -> None:
        weak = tuple(one for ciphers in WEAK.values() for one in ciphers)
        self.assertIn(f"{GOOD[0]:#06x}", greeted(self.public, greeting(TLS_1_2, (*weak, *GOOD))))

    def test_nothing_is_compressed(self) -> None:
        self.assertIn("compression 0", greeted(self.public, greeting(TLS_1_2, GOOD, compressions=b"\1\0")))

    def test_a_name_that_is_not_in_the_certificate_is_the_clients_to_judge(self) -> None:
        self.assertIn("cipher", greeted(self.public, greeting(TLS_1_2, GOOD, names=b"other.example")))

    def test_siblings_speak_nothing_below_1_3(self) -> None:
        for port in (self.control, self.content):
            for version in (*OLDER.values(), TLS_1_2):
                self.assertIn(greeted(port, greeting(version, GOOD)), REFUSED, (port, version))

    def test_nobody_renegotiates(self) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        with socket.create_connection(("127.0.0.1", self.public), 20) as sock:
            tls = SSL.Connection(context, sock)
            tls.set_connect_state()
            sock.settimeout(None)
            tls.do_handshake()
            tls.renegotiate()
            # The node says that it does not want to, and OpenSSL gives up at once.
            self.assertRaises(SSL.Error, tls.do_handshake)

    def test_handshakes_that_fail_are_counted_and_their_reasons_logged(self) -> None:
        def failed() -> float:
            lines = self.node.admin("GET", "/metrics").content.decode().splitlines()
            return float(
                next(one for one in lines if one.startswith("edgecache_failed_tls_handshakes_total")).split()[-1]
            )

        before = failed()
        greeted(self.public, greeting(0x0301, GOOD))
        strict = ssl.create_default_context()
        self.assertRaises(ssl.SSLError, self._shaken, strict)
        until(lambda: failed() >= before + 2, "both are counted")
        for why in ("unsupported protocol", "it refuses: unknown ca"):
            until(lambda why=why: f"clients: TLS with 127.0.0.1 failed: {why}" in self.node.log, why)

    def _shaken(self, context: ssl.SSLContext) -> None:
        with (
            socket.create_connection(("127.0.0.1", self.public), 20) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            pass

    def test_only_members_are_let_in_and_the_log_says_who_was_not_and_why(self) -> None:
        ca, where = Issuer.read(self.fleet.certificates), self.root / "impostors"
        where.mkdir()
        foreign = issue(where, "foreign-ca", None, ca=True)
        leaf = issue(where, "leaf", ca, node="n2")
        fleets = "the certificate is not of the fleet's CA"
        # What the listener of control calls says, then what that of content says.
        impostors = {
            "none": (None, "peer did not return a certificate", "peer did not return a certificate"),
            "of another CA": (issue(where, "a", foreign, node="n2"), fleets, "unable to get local issuer certificate"),
            "signed by itself": (issue(where, "b", None, node="n2"), fleets, "self-signed certificate"),
            "expired": (issue(where, "c", ca, node="n2", days=(-9, -1)), "has expired", "certificate has expired"),
            "early": (
                issue(where, "d", ca, node="n2", days=(2, 9)),
                "is not valid yet",
                "certificate is not yet valid",
            ),
            "for servers": (
                issue(where, "e", ca, node="n2", uses=(ExtendedKeyUsageOID.SERVER_AUTH,)),
                "the certificate is not for this use",
                "unsuitable certificate purpose",
            ),
            "of a member": (
                issue(where, "f", leaf, node="n2"),
                "the certificate is signed by one that is no CA",
                "invalid CA certificate",
            ),
            "of nobody": (issue(where, "g", ca), "the certificate names no node", "the certificate names no node"),
            "of no member": (issue(where, "h", ca, node="n3"), "n3 is no member", "n3 is no member"),
            "of a CA": (issue(where, "i", ca, node="n2", ca=True), "is a CA's", "is a CA's"),
        }
        for name, (impostor, *words) in impostors.items():
            shown = None if impostor is None else impostor.path
            for leg, port, request, why in (
                ("siblings", self.control, PULL, words[0]),
                ("siblings (content)", self.content, LOOK_UP, words[1]),
            ):
                answer = answer_to(port, shown, request)
                self.assertNotIn(b" 200 ", answer[:20], (leg, name))
                line = f"{leg}: a connection from 127.0.0.1 was refused: "
                until(
                    lambda line=line, why=why: any(line in one and why in one for one in self.node.log.splitlines()),
                    f"{name}: {line}{why}\n{self.node.log[-1500:]}",
                )
        good = issue(where, "good", ca, node="n2")
        self.assertIn(b"HTTP/1.1 ", answer_to(self.control, good.path, PULL)[:9])
        self.assertIn(b"HTTP/1.1 ", answer_to(self.content, good.path, LOOK_UP)[:9])
