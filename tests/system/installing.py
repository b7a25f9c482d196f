"""Installers before an index: what each is called with, and what it has installed in the end."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from attrs import frozen

from tests.system.packages import Package
from tests.system.tools import PIP_NEW, PIP_OLD, PIP_RELOADING, POETRY, Client, tool, uv

Ran = subprocess.CompletedProcess[str]


class Installer(Protocol):
    """
    One installer of one version.

    :ivar name: for messages.
    """

    @property
    def name(self) -> str: ...

    def install(self, home: Path, index: str, *requirements: str, certificate: str = "") -> tuple[Ran, Path]:
        """
        :param home: a directory of its own for each call: no cache from before.
        :param index: URL of the list of projects, with credentials if it needs them.
        :param certificate: a file with what an https index is known by.
        :return: how it ended, and where its modules are.
        """
        ...


def _trusting(certificate: str) -> dict[str, str]:
    """What says so to requests, which looks there before it believes pip's --cert, and to uv."""
    return {"REQUESTS_CA_BUNDLE": certificate, "SSL_CERT_FILE": certificate} if certificate else {}


@frozen
class Pip:
    """:ivar words: more of its command line."""

    requirement: str
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.requirement

    def install(self, home: Path, index: str, *requirements: str, certificate: str = "") -> tuple[Ran, Path]:
        target = home / "target"
        words = ["install", "--no-input", "--no-compile", "--target", str(target), "--index-url", index, *self.words]
        return Client(home, **_trusting(certificate)).run(tool(self.requirement) / "pip", *words, *requirements), target


@frozen
class Uv:
    """:ivar words: more of its command line."""

    words: tuple[str, ...] = ()
    name: str = "uv"

    def install(self, home: Path, index: str, *requirements: str, certificate: str = "") -> tuple[Ran, Path]:
        target = home / "target"
        words = ["--python", sys.executable, "--target", str(target), "--default-index", index, *self.words]
        return Client(home, **_trusting(certificate)).run(uv(), "pip", "install", *words, *requirements), target


_PROJECT = """
[project]
name = "consumer"
version = "1.0"
requires-python = ">=3.11,<4"
dependencies = [{dependencies}]
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "here"
url = "{index}"
priority = "primary"
"""


@frozen
class Poetry:
    """It makes an environment of its own, below its home."""

    name: str = "poetry"

    def install(self, home: Path, index: str, *requirements: str, certificate: str = "") -> tuple[Ran, Path]:
        parts = urlsplit(index)
        variables = {
            "POETRY_CACHE_DIR": str(home / "cache"),
            "POETRY_VIRTUALENVS_IN_PROJECT": "true",
            "POETRY_VIRTUALENVS_OPTIONS_NO_PIP": "true",
            "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
            **_trusting(certificate),
        }
        if parts.username is not None:
            variables |= {
                "POETRY_HTTP_BASIC_HERE_USERNAME": parts.username,
                "POETRY_HTTP_BASIC_HERE_PASSWORD": parts.password or "",
            }
            index = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        client = Client(home, **variables)
        dependencies = ", ".join(f'"{requirement}"' for requirement in requirements)
        (home / "pyproject.toml").write_text(_PROJECT.format(dependencies=dependencies, index=index))
        ran = client.run(tool(POETRY) / "poetry", "install", "--no-interaction", "-v")
        # Of whichever Python it found first.
        made = (home / ".venv" / "lib").glob("python*/site-packages")
        return ran, next(made, home / ".venv")


OLD_PIP, PIP_25, PIP = Pip(PIP_OLD), Pip(PIP_RELOADING), Pip(PIP_NEW)
UV = Uv()
ALL: tuple[Installer, ...] = (OLD_PIP, PIP_25, PIP, UV, Poetry())


def missing(target: Path, packages: Iterable[Package]) -> list[str]:
    """:return: what of the packages is not installed octet for octet."""
    wrong = []
    for package in packages:
        with zipfile.ZipFile(io.BytesIO(package.content)) as archive:
            for name in archive.namelist():
                # Installers write a RECORD of their own.
                path = target / name
                if not name.endswith("RECORD") and (not path.exists() or path.read_bytes() != archive.read(name)):
                    wrong.append(f"{package.filename}: {name}")
    return wrong
