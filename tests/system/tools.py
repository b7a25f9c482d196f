"""
Installers, mirror tools and index servers of other people, each in an environment of its own.

They are installed once with this machine's own package settings and kept in the system's temporary directory; where
they cannot be had, the tests that need them are skipped with a message.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.system.harness import environment

# Old ones on purpose: what they send differs (FIELD 3), and farms run them for years.
PIP_OLD = "pip==22.3.1" if sys.version_info < (3, 12) else "pip==23.2.1"
"""The second is the first one that runs on these Pythons."""
PIP_RELOADING = "pip==25.0.1"
"""The last line of those that send ``max-age=0`` with every page."""
PIP_NEW = "pip>=26.2"
POETRY = "poetry"
BANDERSNATCH = "bandersnatch"
DEVPI = "devpi-server"
TWINE = "twine"
PROXPI = ("proxpi", "gunicorn")
"""With the server that its image runs it in."""

_INSTALL_SECONDS = 300

_ROOT = (
    Path(tempfile.gettempdir())
    / f"edgecache-test-tools-{os.getuid()}"
    / f"cp{sys.version_info[0]}{sys.version_info[1]}"
)


def uv() -> str:
    """
    :raises unittest.SkipTest: it is not installed.
    """
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise unittest.SkipTest("uv is not installed here")
    return found


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """For making ``directory``, which another process may need too and make at the same time."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with directory.with_name(f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def tool(requirement: str, *more: str) -> Path:
    """
    :return: the directory of an environment's commands in which ``requirement`` is installed, and ``more`` beside it.
    :raises unittest.SkipTest: it cannot be installed here.
    """
    directory = _ROOT / requirement.translate(str.maketrans("=<>", "---"))
    done = directory / "complete"
    with alone(directory):
        if not done.exists():
            # Scripts name their environment, so it is made where it stays.
            shutil.rmtree(directory, ignore_errors=True)
            _run([uv(), "venv", "--quiet", "--python", sys.executable, str(directory)], requirement)
            python = str(directory / "bin" / "python")
            _run([uv(), "pip", "install", "--quiet", "--python", python, requirement], requirement)
            done.touch()
    return directory / "bin"


def _run(command: list[str], requirement: str) -> None:
    ran = subprocess.run(
        command, env=_settings(), capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if ran.returncode != 0:
        raise unittest.SkipTest(f"{requirement} cannot be installed here: {ran.stderr[-500:]}")


def _settings() -> dict[str, str]:
    """uv reads none of pip's settings, which is where a machine says what index it has."""
    variables = dict(os.environ)
    for ours, theirs, key in (
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "global.index-url"),
        ("SSL_CERT_FILE", "PIP_CERT", "global.cert"),
    ):
        if ours not in variables and (value := variables.get(theirs) or _pip_setting(key)):
            variables[ours] = value
    return variables


def _pip_setting(key: str) -> str:
    command = [sys.executable, "-m", "pip", "config", "get", key]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else ""


class Client:
    """
    One installer with a home of its own: no settings of this machine, and no cache but what it made itself.

    :ivar home: where it runs.
    """

    def __init__(self, home: Path, **variables: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._variables = environment() | {
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "UV_CACHE_DIR": str(home / "uv"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
            **variables,
        }

    def run(self, *command: str | Path, seconds: float = 600.0) -> subprocess.CompletedProcess[str]:
        """:return: how it ended; whether that is right is the caller's to say."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=self.home,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
