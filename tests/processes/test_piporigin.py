"""Without ``--origin``, the index that pip uses on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.trial.unittest import SynchronousTestCase

from edgecache.processes import piporigin
from edgecache.processes.piporigin import default_origin, split_index
from edgecache.words.config import Config, NodeSettings
from edgecache.words.errors import StartError

CONFIG = Config(NodeSettings("n"), ())
HELP = """
  -i, --index-url <url>       Base URL of the index. This should point to a repository compliant with PEP 503 or a
                              local directory laid out in the same format.
                              (default: https://default.example/simple)
  --extra-index-url <url>     Extra URLs (default: none)
"""


class PipOriginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.listing = ""
        self.environments: list[Mapping[str, str]] = []

    def pip(self, arguments: Sequence[str], environ: Mapping[str, str]) -> str:
        self.environments.append(environ)
        return self.listing if arguments[0] == "config" else HELP

    def origin(self, **environ: str) -> str:
        return default_origin(CONFIG, environ, self.pip)

    def test_the_environment_comes_first_and_pip_is_not_even_asked(self) -> None:
        self.assertEqual("https://env.example/simple", self.origin(PIP_INDEX_URL="https://env.example/simple"))
        self.assertEqual([], self.environments)

    def test_then_pips_configuration(self) -> None:
        self.listing = "global.index-url='https://conf.example/simple/'\nglobal.timeout='5'\n"
        self.assertEqual("https://conf.example/simple/", self.origin())

    def test_the_section_of_pip_install_comes_before_the_global_one(self) -> None:
        self.listing = "global.index-url='https://a.example/'\ninstall.index-url='https://b.example/'\n"
        self.assertEqual("https://b.example/", self.origin())

    def test_then_pips_own_default(self) -> None:
        self.assertEqual("https://default.example/simple", self.origin(PIP_TIMEOUT="3"))
        self.assertNotIn("PIP_TIMEOUT", self.environments[-1])

    def test_this_nodes_own_listener_is_skipped(self) -> None:
        self.listing = "global.index-url='http://localhost:8080/simple/'\n"
        self.assertEqual("https://default.example/simple", self.origin(PIP_INDEX_URL="http://127.0.0.1:8080/simple/"))

    def test_an_index_that_is_no_http_server_is_an_error_that_names_the_flag(self) -> None:
        error = self.assertRaises(StartError, self.origin, PIP_INDEX_URL="file:///srv/simple")
        self.assertIn("give --origin", str(error))

    def test_the_root_above_its_pages_is_the_origin(self) -> None:
        cases = {
            "https://a.example/simple/": ("https://a.example", "/simple/"),
            "https://a.example/simple": ("https://a.example", "/simple/"),
            "https://u:p@a.example:8/root/pypi/+simple/": ("https://u:p@a.example:8/root/pypi", "/+simple/"),
            "https://a.example/": ("https://a.example", "/"),
            "https://a.example": ("https://a.example", "/"),
        }
        self.assertEqual(cases, {url: split_index(url) for url in cases})

    def test_credentials_are_not_in_the_error(self) -> None:
        error = self.assertRaises(StartError, self.origin, PIP_INDEX_URL="ftp://me:hush@a.example/")
        self.assertNotIn("hush", str(error))

    def test_no_pip_is_an_error_that_names_the_flag(self) -> None:
        self.patch(piporigin.importlib.util, "find_spec", lambda name: None)
        self.patch(piporigin.shutil, "which", lambda name: None)
        self.assertIn("give --origin", str(self.assertRaises(StartError, default_origin, CONFIG, {})))

    def test_the_pip_of_this_interpreter_is_understood(self) -> None:
        """The real one, without any configuration: its own default."""
        found = default_origin(
            CONFIG, {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PIP_CONFIG_FILE": "/dev/null"}
        )
        self.assertTrue(found.startswith("https://"), found)
