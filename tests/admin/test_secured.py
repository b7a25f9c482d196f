"""TLS of the operator's commands: whom they speak to, and what they say of those to whom they do not (DESIGN 12)."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from twisted.internet import reactor  # noqa: TID251  # the one that conftest installed
from twisted.trial.unittest import TestCase

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import call
from edgecache.admin.fetching import Fetcher
from tests.system.secure_origin import SecureOrigin
from tests.upstream.authority import Authority


class SecuredTests(TestCase):
    """:ivar ours: a CA that is trusted; nothing else is."""

    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.ours, self.foreign = Authority(root), Authority(root, "foreign")
        # As OpenSSL's own programs let a machine's CAs be named.
        self.environment("SSL_CERT_FILE", self.ours.path)

    def environment(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value

        def undo() -> None:
            del os.environ[name]
            if before is not None:
                os.environ[name] = before

        self.addCleanup(undo)

    async def said(self, context: ssl.SSLContext) -> str:
        """What the command line says of a node behind that."""
        origin = SecureOrigin(context)
        self.addCleanup(origin.stop)
        try:
            await call(reactor, AdminAddress(f"https://localhost:{origin.port}", "hush"), "GET", "/status")
        except AdminFailed as failure:
            return str(failure)
        self.fail("it is no node")

    def older(self, version: ssl.TLSVersion, ciphers: str) -> ssl.SSLContext:
        context = self.ours.server("localhost")
        context.set_ciphers(ciphers)
        context.minimum_version = context.maximum_version = version
        return context

    async def test_who_shows_the_right_certificate_is_asked(self) -> None:
        self.assertIn("the answer is not JSON", await self.said(self.ours.server("localhost")))

    async def test_wrong_certificates_are_refused_by_what_is_wrong_with_them(self) -> None:
        for context, why in (
            (self.ours.server("localhost", expired=True), "has expired, or is of no CA that is trusted"),
            (self.ours.server("localhost", early=True), "has expired, or is of no CA that is trusted"),
            (self.foreign.server("localhost"), "has expired, or is of no CA that is trusted"),
            (self.ours.server("other.example"), "is for another host"),
        ):
            said = await self.said(context)
            self.assertIn(f"no answer: TLS failed: its certificate {why}", said)
            self.assertNotIn("hush", said)

    async def test_older_versions_and_ciphers_are_not_spoken(self) -> None:
        self.assertIn("TLS failed: ", await self.said(self.older(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA")))
        self.assertIn("TLS failed: ", await self.said(self.older(ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256")))

    async def test_what_warms_and_verifies_is_as_strict(self) -> None:
        origin = SecureOrigin(self.foreign.server("localhost"))
        self.addCleanup(origin.stop)
        for authority, expected in ((self.ours, "TLS failed"), (self.foreign, "")):
            fetcher = Fetcher.of(reactor, f"https://localhost:{origin.port}", authorities=authority.path)
            self.assertIn(expected, (await fetcher.get("/a")).problem)
            await fetcher.close()
