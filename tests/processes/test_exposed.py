"""Whoever lets others read what is secret is told of it (DESIGN 12)."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from edgecache.preparing import check
from edgecache.processes.settings import read_secret
from edgecache.tap import Options
from edgecache.words.config import Config, NodeSettings, TLSSettings, UpstreamSettings
from tests.upstream.authority import Authority


class ExposedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []

        def observer(event: LogEvent) -> None:
            self.lines.append(eventAsText(event, includeTimestamp=False, includeSystem=False))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.root = Path(self.mktemp())
        self.root.mkdir()

    def test_a_file_with_a_secret(self) -> None:
        file = self.root / "token"
        file.write_text("hush\n")
        for mode, said in ((0o600, 0), (0o640, 0), (0o644, 1)):
            file.chmod(mode)
            self.assertEqual("hush", read_secret("file", str(file)))
            self.assertEqual(said, len(self.lines), oct(mode))
        self.assertEqual([f"{file} holds a secret, and every user of this machine may read it: chmod o-r"], self.lines)

    def test_a_private_key_of_either_side(self) -> None:
        certificate, key = Authority(self.root).issue("localhost")
        config = Config(
            NodeSettings("n"),
            (),
            tls=TLSSettings(certificate, key),
            upstream=UpstreamSettings(client_certificate=certificate, client_key=key),
        )
        Path(key).chmod(0o600)
        check(config)
        self.assertEqual([], self.lines)
        Path(key).chmod(0o604)
        check(config)
        self.assertEqual(
            2 * [f"{key} holds a private key, and every user of this machine may read it: chmod o-r"], self.lines
        )

    def test_credentials_on_the_command_line_which_are_not_repeated(self) -> None:
        options = Options()
        options.opt_origin("http://127.0.0.1:1")
        self.assertEqual([], self.lines)
        options.opt_origin("http://me:hush@127.0.0.1:1")
        self.assertIn("shown to whoever lists processes", self.lines[0])
        self.assertNotIn("hush", self.lines[0])
