"""Installers as they name themselves, in the words of real ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.index.useragents import BROWSER, OTHER, Installer, installer_of

PIP = (
    b'pip/24.0 {"ci":true,"cpu":"x86_64","distro":{"id":"jammy","libc":{"lib":"glibc","version":"2.35"},"name":'
    b'"Ubuntu","version":"22.04"},"implementation":{"name":"CPython","version":"3.11.9"},"installer":{"name":"pip",'
    b'"version":"24.0"},"openssl_version":"OpenSSL 3.0.2 15 Mar 2022","python":"3.11.9","rustc_version":"1.75.0",'
    b'"setuptools_version":"65.5.0","system":{"name":"Linux","release":"6.5.0-1018-azure"}}'
)
UV = (
    b'uv/0.5.11 {"installer":{"name":"uv","version":"0.5.11"},"python":"3.12.3","implementation":{"name":"CPython",'
    b'"version":"3.12.3"},"distro":{"name":"Ubuntu","version":"24.04","id":"noble","libc":null},"system":{"name":"Linux",'
    b'"release":"6.8.0"},"cpu":"x86_64","openssl_version":null,"setuptools_version":null,"rustc_version":null,"ci":null}'
)

KNOWN = {
    PIP: Installer("pip", "24.0", "3.11.9", "CPython", "Linux", True),
    UV: Installer("uv", "0.5.11", "3.12.3", "CPython", "Linux", False),
    b"poetry/1.8.3 CPython/3.12.3 Linux/6.8.0-31-generic": Installer("poetry", "1.8.3", "3.12.3", "CPython", "Linux"),
    b"pip/1.5.6 CPython/2.7.9 Linux/3.16.0-4-amd64": Installer("pip", "1.5.6", "2.7.9", "CPython", "Linux"),
    b"bandersnatch/6.5.0 (cpython 3.10.12-final0, Linux x86_64) (aiohttp 3.9.1)": Installer(
        "bandersnatch", "6.5.0", "3.10.12", "CPython", "Linux"
    ),
    b"devpi-server/6.9.2 (py3.11.2; linux)": Installer("devpi-server", "6.9.2", "3.11.2", "", "Linux"),
    b"devpi-server/4.3.1 (py2.7.6; linux2)": Installer("devpi-server", "4.3.1", "2.7.6", "", "Linux"),
    b"Python-urllib/3.6 setuptools/39.0.1": Installer("setuptools", "39.0.1", "3.6"),
    b"setuptools/65.5.0 Python-urllib/3.11": Installer("setuptools", "65.5.0", "3.11"),
    b"pdm/2.12.4 CPython/3.11.8 Darwin/23.3.0": Installer("pdm", "2.12.4", "3.11.8", "CPython", "Darwin"),
    b"conda/23.3.1 requests/2.28.1 CPython/3.10.9 Linux/5.15.0 ubuntu/22.04.2 glibc/2.35": Installer(
        "conda", "23.3.1", "3.10.9", "CPython", "Linux"
    ),
    b"python-requests/2.31.0": Installer("python-requests", "2.31.0"),
    b"python-requests/2.9.1 PyPy/2.7.18 Windows/10": Installer("python-requests", "2.9.1", "2.7.18", "PyPy", "Windows"),
    b"curl/8.5.0": Installer("curl", "8.5.0"),
    b"Wget/1.21.4": Installer("wget", "1.21.4"),
    b"Nexus/3.58.1-02 (PRO; Linux; 5.10; amd64; 1.8.0_362)": Installer("nexus", "3.58.1-02"),
    b"Artifactory/7.77.5 77705900": Installer("artifactory", "7.77.5"),
    b"Mozilla/5.0 (X11; Linux x86_64; rv:122.0) Gecko/20100101 Firefox/122.0": BROWSER,
}


class InstallerTests(SynchronousTestCase):
    def test_every_installer_that_we_know_of(self) -> None:
        for user_agent, expected in KNOWN.items():
            self.assertEqual(expected, installer_of(user_agent), user_agent)

    def test_what_says_nothing_is_other(self) -> None:
        for user_agent in (b"", b"hello", b"/1.0", b"(comment)", b"\xff\xfe", b"pip"):
            self.assertEqual(OTHER, installer_of(user_agent), user_agent)

    def test_json_that_lies_is_believed_where_it_can_be(self) -> None:
        for document, expected in (
            (b'{"installer":7,"python":[3],"system":{"name":{}},"implementation":null,"ci":"yes"}', ("pip", "1.0")),
            (b"[]", ("pip", "1.0")),
            (b"{broken", ("pip", "1.0")),
            (b'{"installer":{"name":"a\\nb","version":"1\\u0000"}}', ("pip", "1.0")),
            (b"{" * 5000, ("pip", "1.0")),
            (b'{"installer":{"name":"' + b"x" * 90 + b'","version":"2"}}', ("pip", "2")),
        ):
            found = installer_of(b"pip/1.0 " + document)
            self.assertEqual(expected, (found.name, found.version), document[:40])

    def test_the_series_of_python_is_its_first_two_numbers(self) -> None:
        self.assertEqual(["3.11", ""], [Installer("a", "1", python).python_series for python in ("3.11.9", "snake")])

    @given(st.binary(max_size=200))
    def test_whatever_it_says_it_is_short_and_of_plain_characters(self, user_agent: bytes) -> None:
        found = installer_of(user_agent)
        for text in (found.name, found.version, found.python, found.implementation, found.system):
            self.assertLess(len(text), 40)
            self.assertTrue(text.isascii() and text.isprintable())
