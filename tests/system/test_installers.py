"""
pip and uv install through a node in front of a real index server, and again when that is gone.

The wheels are fetched once by name with this machine's own pip settings, and kept in the system's temporary directory;
where they cannot be had, the tests are skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

import orjson
from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.clients import ask
from tests.system.harness import Node, environment
from tests.system.tools import alone, uv

# Compiled wheels among them, and more than a dozen dependencies in all; 6 MB.
PROJECT = "aiohttp[speedups]"
AT_LEAST = 12

_CACHE = (
    Path(tempfile.gettempdir())
    / f"edgecache-test-wheels-{os.getuid()}"
    / f"cp{sys.version_info[0]}{sys.version_info[1]}"
)


def fetch_wheels() -> Path:
    """
    The directory with the project's wheels and those of its dependencies.

    :raises unittest.SkipTest: this machine's pip cannot download them.
    """
    with alone(_CACHE), tempfile.TemporaryDirectory(dir=_CACHE.parent) as scratch:
        if _CACHE.exists():
            return _CACHE
        fetched = Path(scratch) / "wheels"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary",
            ":all:",
            "-d",
            str(fetched),
            PROJECT,
        ]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if ran.returncode != 0:
            raise unittest.SkipTest(f"the wheels of {PROJECT} cannot be downloaded here: {ran.stderr[-500:]}")
        # In one step, so that a half-filled directory is never taken for the cache.
        fetched.rename(_CACHE)
    return _CACHE


def digests(directory: Path) -> dict[str, str]:
    """File name -> SHA-256."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def differences(wheels: Path, installed: Path) -> list[str]:
    """What of the wheels' own files is not in ``installed`` byte for byte."""
    wrong = []
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                # RECORD is written anew by installers; .data/ is spread over other directories.
                if name.endswith(("/", ".dist-info/RECORD")) or ".data/" in name:
                    continue
                path = installed / name
                if not path.exists() or path.read_bytes() != archive.read(name):
                    wrong.append(f"{wheel.name}: {name}")
    return wrong


class IndexServer:
    """pypiserver in its own process over a directory of wheels."""

    def __init__(self, wheels: Path, log: Path) -> None:
        self.port = processes.free_port()
        self.url = f"http://127.0.0.1:{self.port}/simple/"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pypiserver", "run", "-i", "127.0.0.1", "-p", str(self.port)),
                    *("--disable-fallback", str(wheels)),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        processes.until(self._answers, f"pypiserver on port {self.port}")

    def _answers(self) -> bool:
        try:
            return ask(self.url).status == 200
        except OSError:
            return False

    def stop(self) -> None:
        processes.kill_now(processes.family(self._process.pid))
        self._process.wait()


class InstallerTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-install-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.wheels = Path(shutil.copytree(fetch_wheels(), self.root / "wheels"))
        self.index = IndexServer(self.wheels, self.root / "index.log")
        self.addCleanup(self.index.stop)
        self.node = Node(self.root / "node", self.index.url, profile="index")
        self.addCleanup(self.node.end)
        self.node.start()
        self.simple = f"{self.node.url}/simple/"

    def _call(self, *command: str, name: str) -> None:
        """An installer with nothing of this machine's settings and with no cache from before."""
        home = self.root / f"home-{name}"
        home.mkdir()
        variables = environment() | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "UV_CACHE_DIR": str(home / "uv")}
        ran = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=600, check=False)
        shutil.rmtree(home)
        said = f"{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}\n--- node:\n{self.node.log[-3000:]}"
        self.assertEqual(0, ran.returncode, f"{' '.join(command)}\n{said}")

    def _install_with_pip(self, name: str) -> Path:
        target = self.root / name
        options = ("--quiet", "--no-compile", "--no-cache-dir", "--only-binary", ":all:", "--index-url", self.simple)
        self._call(
            str(self.venv_python()), "-m", "pip", "install", *options, "--target", str(target), PROJECT, name=name
        )
        return target

    def _install_with_uv(self, name: str) -> Path:
        target = self.root / name
        options = ("--no-config", "--index-url", self.simple, "--python", sys.executable, "--only-binary", ":all:")
        self._call(uv(), "pip", "install", *options, "--target", str(target), PROJECT, name=name)
        return target

    def venv_python(self) -> Path:
        """A virtual environment with the pip that this Python brings."""
        venv = self.root / "venv"
        if not venv.exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, env=environment(), timeout=600)
        return venv / "bin" / "python"

    def _download(self, name: str) -> Path:
        """All wheels as pip gets them through the node, unpacked by nobody."""
        target = self.root / name
        options = ("--quiet", "--no-cache-dir", "--only-binary", ":all:", "--index-url", self.simple)
        self._call(str(self.venv_python()), "-m", "pip", "download", *options, "-d", str(target), PROJECT, name=name)
        return target

    def test_both_install_through_the_node_and_again_byte_for_byte_when_the_origin_is_gone(self) -> None:
        due = digests(self.wheels)
        self.assertGreater(len(due), AT_LEAST)
        self.assertEqual([], differences(self.wheels, self._install_with_pip("pip-first")))
        self.assertEqual([], differences(self.wheels, self._install_with_uv("uv-first")))

        self.index.stop()
        self.assertRaises(OSError, ask, self.index.url)
        self.assertEqual([], differences(self.wheels, self._install_with_uv("uv-again")))
        self.assertEqual(due, digests(self._download("files-again")))
        self.assertNotIn("Traceback", self.node.log)
        # Hit or miss, by whatever requests they came: twice with each.
        counted = orjson.loads(self.node.admin("GET", "/downloads?by=filename,installer").content)["rows"]
        expected = {(name, installer): 2 for name in due for installer in ("pip", "uv")}
        self.assertEqual(expected, {(row["filename"], row["installer"]): row["downloads"] for row in counted})

    def test_a_node_that_was_restarted_still_has_everything(self) -> None:
        self.assertEqual([], differences(self.wheels, self._install_with_uv("uv-first")))
        self.index.stop()
        self.node.stop()
        self.node.start()
        self.assertEqual([], differences(self.wheels, self._install_with_uv("uv-again")))

    def test_a_release_published_while_the_node_runs_is_seen_after_a_purge(self) -> None:
        """The page is covered for its lifetime; a purge of the project ends that at once."""
        page = f"{self.simple}edgecache-sample/"
        self.assertEqual(404, ask(page).status)
        published = self.wheels / "edgecache_sample-1.0-py3-none-any.whl"
        with zipfile.ZipFile(published, "w") as archive:
            archive.writestr("edgecache_sample-1.0.dist-info/METADATA", "Name: edgecache-sample\nVersion: 1.0\n")
        processes.until(lambda: ask(f"{self.index.url}edgecache-sample/").status == 200, "the server's new page")
        self.node.purge(tags=["project/edgecache-sample"])
        after = ask(page)
        self.assertEqual(200, after.status, str(after))
        self.assertIn(b"edgecache_sample-1.0", after.content)
