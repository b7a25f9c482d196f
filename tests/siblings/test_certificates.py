"""``edgecache certs``, and which files a node accepts for its own (DESIGN 9, 12)."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache import cli
from edgecache.siblings.certificates import CertificatesFailed, make_ca, make_node
from edgecache.siblings.identity import (
    BadCertificate,
    Identity,
    check_peer,
    client_context,
    named_id,
    node_uri,
    server_context,
)
from edgecache.siblings.tls import context_of
from edgecache.words.errors import ConfigError
from edgecache.words.fleet import IDENTIFIER
from edgecache.words.siblingsettings import SiblingsSettings
from tests.siblings.fleet import DAY, Certificates, today
from tests.system.impostors import Issuer, issue
from tests.upstream.authority import Authority, key_pem

ROOT = Path(__file__).parent.parent.parent


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.out = Path(self.mktemp())

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.out / f"{name}.pem").read_bytes())

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()}


class CommandTests(Case):
    """What scripts run."""

    def run_command(self, *words: str) -> tuple[int, str]:
        """Exit status, and what was said."""
        done = subprocess.run(
            [sys.executable, "-c", "from edgecache.cli import main; main()", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def test_the_commands_of_the_documentation(self) -> None:
        text = (ROOT / "docs" / "SIBLINGS.md").read_text()
        commands = [shlex.split(line) for line in re.findall(r"^\$ edgecache (.*)$", text, re.MULTILINE)]
        self.assertEqual(5, len(commands))
        for words in commands:
            words[words.index("--out") + 1] = str(self.out)
            self.assertEqual(0, self.run_command(*words)[0], words)
        self.assertEqual(
            {f"{name}.{kind}" for name in ("ca", "eu-1", "us-1", "ap-1", "vote-1") for kind in ("pem", "key")},
            set(self.files()),
        )
        check_peer(self.certificate("eu-1"), "eu-1", "edge-eu.example")
        check_peer(self.certificate("eu-1"), "eu-1", "127.0.0.1")

    def test_a_key_that_is_there_stays_and_that_is_said(self) -> None:
        out = f"--out={self.out}"
        self.assertEqual(0, self.run_command("certs", out, "ca")[0])
        before = self.files()
        status, said = self.run_command("certs", out, "ca")
        self.assertEqual((1, f"edgecache: {self.out}/ca.key is there already; --force replaces it\n"), (status, said))
        self.assertEqual(before, self.files())
        self.assertEqual(0, self.run_command("certs", out, "ca", "--force")[0])
        self.assertNotEqual(before, self.files())

    def test_what_is_missing_is_said(self) -> None:
        for words, expected in (
            (("certs",), "say what to make: ca or node"),
            (("certs", "node", "eu-1"), "say with --host"),
            (("certs", "node", "--host", "a"), "Wrong number of arguments"),
            (("certs", "node", "a", "b", "--host", "a"), "Wrong number of arguments"),
            (("certs", "ca", "--days", "0"), "--days is a whole number from 1"),
            (("certs", "ca", "--days", "soon"), "'soon'"),
            (("certs", "other"), "Unknown command"),
        ):
            status, said = self.usage(*words)
            self.assertEqual(2, status, words)
            self.assertIn(expected, said)

    def usage(self, *words: str) -> tuple[int, str]:
        """In this process: nothing is made."""
        options: Any = cli.Options()  # type: ignore[no-untyped-call]  # Twisted has no types here
        try:
            options.parseOptions(list(words))
        except Exception as error:  # noqa: BLE001  # usage's own errors are of several kinds
            return 2, str(error)
        return 0, ""

    def test_the_id_may_stand_before_its_flags_or_after_them(self) -> None:
        for words in (["eu-1", "--host", "a", "--host", "b"], ["--host", "a", "--host", "b", "eu-1"]):
            options: Any = cli.Options()  # type: ignore[no-untyped-call]  # Twisted has no types here
            options.parseOptions(["certs", "node", *words])
            made = options.subOptions.subOptions
            self.assertEqual(("eu-1", ["a", "b"]), (made["node"], made["hosts"]))


class MakingTests(Case):
    def test_keys_are_for_their_owner_alone_whatever_the_umask(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        make_ca(self.out, today())
        make_node(self.out, today(), "eu-1", ["a"])
        modes = {path.name: path.stat().st_mode & 0o777 for path in self.out.iterdir()}
        self.assertEqual({"ca.key": 0o600, "eu-1.key": 0o600, "ca.pem": 0o644, "eu-1.pem": 0o644}, modes)

    def test_a_key_that_is_replaced_was_never_readable_by_others(self) -> None:
        make_ca(self.out, today())
        (self.out / "ca.key").chmod(0o644)
        make_ca(self.out, today(), force=True)
        self.assertEqual(0o600, (self.out / "ca.key").stat().st_mode & 0o777)

    def test_a_certificate_without_its_key_is_not_replaced_either(self) -> None:
        make_ca(self.out, today())
        (self.out / "ca.key").unlink()
        self.assertRaises(CertificatesFailed, make_ca, self.out, today())
        self.assertEqual({"ca.pem"}, set(self.files()))

    def test_a_node_is_server_and_client_and_signs_nothing(self) -> None:
        make_ca(self.out, today())
        make_node(self.out, today(), "eu-1", ["a"])
        extensions = self.certificate("eu-1").extensions
        self.assertEqual(
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
            set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value),
        )
        self.assertFalse(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertFalse(extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign)

    def test_the_ca_signs_nodes_and_no_other_cas(self) -> None:
        make_ca(self.out, today())
        constraints = self.certificate("ca").extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertEqual((True, 0), (constraints.value.ca, constraints.value.path_length))
        self.assertTrue(constraints.critical)

    def test_it_is_valid_at_once_where_clocks_are_a_little_slow(self) -> None:
        now = today()
        make_ca(self.out, now)
        make_node(self.out, now, "eu-1", ["a"])
        for name in ("ca", "eu-1"):
            self.assertLessEqual(self.certificate(name).not_valid_before_utc, now - datetime.timedelta(minutes=59))

    def test_no_certificate_outlives_its_ca(self) -> None:
        make_ca(self.out, today(), days=10)
        error = self.assertRaises(CertificatesFailed, make_node, self.out, today(), "eu-1", ["a"], days=11)
        self.assertIn("the CA expires before that", str(error))
        make_node(self.out, today(), "eu-1", ["a"], days=9)

    def test_without_a_ca_the_command_that_makes_it_is_named(self) -> None:
        error = self.assertRaises(CertificatesFailed, make_node, self.out, today(), "eu-1", ["a"])
        self.assertIn("edgecache certs ca", str(error))

    def test_a_ca_whose_key_is_another_ones(self) -> None:
        make_ca(self.out, today())
        (self.out / "ca.key").write_bytes(key_pem(Authority(self.out)._key))
        error = self.assertRaises(CertificatesFailed, make_node, self.out, today(), "eu-1", ["a"])
        self.assertIn("is not the key of", str(error))

    def test_ids_and_hosts_that_cannot_be(self) -> None:
        make_ca(self.out, today())
        before = self.files()
        for node_id in ("", "a b", "../up", "ca", "x" * 65, "a/b", "-a"):
            self.assertRaises(CertificatesFailed, make_node, self.out, today(), node_id, ["a"])
        for host in ("", "a:1", "a b", "https://a", "1.2.3", "[::1", "\u00e4", "*.example"):
            self.assertRaises(CertificatesFailed, make_node, self.out, today(), "eu-1", [host])
        self.assertRaises(CertificatesFailed, make_node, self.out, today(), "eu-1", [])
        self.assertEqual(before, self.files())

    def test_addresses_of_both_kinds_and_names_without_case(self) -> None:
        make_ca(self.out, today())
        make_node(self.out, today(), "eu-1", ["::1", "[::2]", "10.0.0.1", "Edge_1.Example."])
        for host in ("::1", "::2", "10.0.0.1", "edge_1.example", "EDGE_1.example"):
            check_peer(self.certificate("eu-1"), "eu-1", host)
        self.assertRaises(BadCertificate, check_peer, self.certificate("eu-1"), "eu-1", "::3")

    def test_a_directory_that_cannot_be_written(self) -> None:
        self.out.write_bytes(b"a file")
        self.assertRaises(CertificatesFailed, make_ca, self.out, today())


class NameTests(Case):
    @given(st.from_regex(IDENTIFIER, fullmatch=True))
    @settings(max_examples=25)
    def test_every_id_can_be_in_a_certificate(self, node_id: str) -> None:
        """Digits alone and ids like addresses, too."""
        if node_id == "ca":
            return
        out = Path(self.mktemp())
        make_ca(out, today())
        made = make_node(out, today(), node_id, ["127.0.0.1"])
        certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
        self.assertEqual(node_id, named_id(certificate))
        check_peer(certificate, node_id, "127.0.0.1")

    def test_ids_that_look_like_addresses(self) -> None:
        make_ca(self.out, today())
        for node_id in ("1", "10.0.0.1", "a.", "node", "a.node", "1_2"):
            make_node(self.out, today(), node_id, ["a"])
            check_peer(self.certificate(node_id), node_id, "a")

    def test_two_names_are_none(self) -> None:
        make_ca(self.out, today())
        make_node(self.out, today(), "eu-1", ["a"])
        ca_key: Any = serialization.load_pem_private_key((self.out / "ca.key").read_bytes(), None)
        one = self.certificate("eu-1")
        uris = [x509.UniformResourceIdentifier(node_uri(name)) for name in ("eu-1", "us-1")]
        host = [x509.DNSName("eu-1")]
        builder = x509.CertificateBuilder(
            one.issuer,
            one.subject,
            one.public_key(),
            one.serial_number,
            one.not_valid_before_utc,
            one.not_valid_after_utc,
        )
        for names, problem in ((uris, "names several nodes"), (host, "names no node")):
            two = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(
                ca_key, one.signature_hash_algorithm
            )
            error = self.assertRaises(BadCertificate, named_id, two)
            self.assertIn(problem, error.problem)


class LoadTests(Case):
    """What a node says of files that are not its own."""

    def setUp(self) -> None:
        super().setUp()
        self.certificates = Certificates(self.out)
        self.certificates.issue("eu-1")

    def settings(self, **paths: str) -> SiblingsSettings:
        at = {"ca": "ca.pem", "certificate": "eu-1.pem", "key": "eu-1.key"} | paths
        return SiblingsSettings(**{name: str(self.out / path) for name, path in at.items()})

    def refused(self, node_id: str = "eu-1", **paths: str) -> str:
        return str(self.assertRaises(ConfigError, Identity.load, self.settings(**paths), node_id))

    def test_its_own_files_are_loaded(self) -> None:
        self.assertEqual("eu-1", Identity.load(self.settings(), "eu-1").id)

    def test_a_secret_is_not_shown(self) -> None:
        self.assertNotIn("key", repr(Identity.load(self.settings(), "eu-1")).lower())

    def test_files_that_are_not_there(self) -> None:
        for name in ("ca", "certificate", "key"):
            said = self.refused(**{name: "nowhere"})
            self.assertTrue(said.startswith(f"[siblings] {name}: "), said)
            self.assertIn("nowhere: No such file", said)

    def test_files_that_are_something_else(self) -> None:
        self.assertIn("[siblings] ca: ", self.refused(ca="eu-1.key"))
        self.assertIn("holds no certificate", self.refused(certificate="eu-1.key"))
        self.assertIn("holds no private key", self.refused(key="eu-1.pem"))

    def test_the_key_of_another_node(self) -> None:
        self.certificates.issue("us-1")
        self.assertIn("us-1.key is not the key of", self.refused(key="us-1.key"))

    def test_the_certificate_of_another_node(self) -> None:
        self.certificates.issue("us-1")
        said = self.refused(certificate="us-1.pem", key="us-1.key")
        self.assertIn("us-1.pem is the certificate of node us-1; this node is eu-1", said)

    def test_another_ca(self) -> None:
        authority = Authority(self.out, "other")
        self.assertIn("eu-1.pem is not signed by", self.refused(ca=Path(authority.path).name))

    def test_a_chain_has_to_lead_to_the_ca_link_by_link(self) -> None:
        foreign = issue(self.out, "foreign", None, ca=True)
        for root, refused in ((Issuer.read(self.out), False), (foreign, True)):
            # The fleet's own CA lets nobody between sign for TLS; what is loaded is a matter of signatures.
            between = issue(self.out, "between", root, ca=True)
            issue(self.out, "leaf", between, node="eu-1")
            if refused:
                self.assertIn("leaf.pem is not signed by", self.refused(certificate="leaf.pem", key="leaf.pem"))
            else:
                self.assertEqual(
                    2, len(Identity.load(self.settings(certificate="leaf.pem", key="leaf.pem"), "eu-1").chain)
                )
        chain = (self.out / "leaf.pem").read_text() + (self.out / "ca.pem").read_text()
        (self.out / "mixed.pem").write_text(chain)
        self.assertIn("mixed.pem is not signed by", self.refused(certificate="mixed.pem", key="leaf.pem"))

    def test_what_tls_does_not_take_is_a_setting_that_cannot_be_used(self) -> None:
        identity = Identity.load(self.settings(), "eu-1")
        other = evolve(identity, key=self.certificates.issue("us-1").key)
        refused = self.assertRaises(ConfigError, context_of, other)
        self.assertIn("[siblings] certificate: TLS does not take it: ", str(refused))

    def test_an_old_and_a_new_ca_in_one_file(self) -> None:
        authority = Authority(self.out, "other")
        both = self.out / "both.pem"
        both.write_bytes(Path(authority.path).read_bytes() + (self.out / "ca.pem").read_bytes())
        self.assertEqual(2, len(Identity.load(self.settings(ca="both.pem"), "eu-1").authorities))

    def test_an_encrypted_key(self) -> None:
        key: Any = serialization.load_pem_private_key((self.out / "eu-1.key").read_bytes(), None)
        (self.out / "locked.key").write_bytes(key_pem(key, b"secret"))
        self.assertIn("locked.key is encrypted", self.refused(key="locked.key"))
        for make in (server_context, client_context):
            self.assertRaises(ConfigError, make, self.settings(key="locked.key"))

    def test_an_expired_certificate_is_loaded_for_the_node_serves_on(self) -> None:
        self.certificates.issue("eu-1", begins=-9, days=2)
        identity = Identity.load(self.settings(), "eu-1")
        self.assertLess(identity.expires_in(time.time()), 0)

    def test_how_long_it_is_valid(self) -> None:
        left = Identity.load(self.settings(), "eu-1").expires_in(time.time())
        self.assertTrue(7 * DAY.total_seconds() < left < 9 * DAY.total_seconds())
