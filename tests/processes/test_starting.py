"""``twistd edgecache`` as a command: what it says when it cannot start, and that it starts again after a kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import edgecache
from edgecache.preparing import prepare
from edgecache.store.disk import Disk
from edgecache.words.config import Config, NodeSettings
from edgecache.words.errors import StartError

ROOT = Path(edgecache.__file__).parent.parent
TWISTD = Path(sys.executable).with_name("twistd")
NFS = 0x6969
NOBODY = "http://127.0.0.1:9"
"""An origin that no test asks."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def line(address: socket.socket) -> str:
    return "{}:{}".format(*address.getsockname()[:2])


class CommandTests(SynchronousTestCase):
    """One clear line on standard error, exit status 1, no traceback (must show 8)."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    def run_it(self, *arguments: str, twistd: tuple[str, ...] = ("-n",)) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(TWISTD), *twistd, "edgecache", *arguments],
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def refused(self, *arguments: str, twistd: tuple[str, ...] = ("-n",)) -> str:
        done = self.run_it(*arguments, twistd=twistd)
        self.assertEqual(1, done.returncode, done)
        (said,) = done.stderr.splitlines()
        self.assertTrue(said.startswith("edgecache: "), said)
        self.assertNotIn("Traceback", done.stdout)
        return said.removeprefix("edgecache: ")

    def settings(self, text: str) -> str:
        (self.directory / "e.toml").write_text(text)
        return "e.toml"

    def test_an_unknown_setting(self) -> None:
        self.assertEqual(
            "e.toml:2: [node] wokers: there is no such setting; is 'workers' meant?",
            self.refused("--config", self.settings("[node]\nwokers = 2")),
        )

    def test_a_file_that_is_not_there(self) -> None:
        self.assertEqual("none.toml: cannot be read: No such file or directory", self.refused("--config", "none.toml"))

    def test_an_impossible_flag(self) -> None:
        self.assertIn("--size: '3 bags' is no size", self.refused("--size", "3 bags", "--origin", NOBODY))
        self.assertEqual("--workers: is a whole number", self.refused("--workers", "two", "--origin", NOBODY))

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.assertEqual(
                f"cannot listen on {line(taken)}: Address already in use",
                self.refused("--origin", NOBODY, "--listen", line(taken)),
            )

    def test_an_admin_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.assertEqual(
                f"cannot listen on {line(taken)}: Address already in use",
                self.refused("--origin", NOBODY, "--listen", "127.0.0.1:0", "--admin", line(taken)),
            )

    def test_a_certificate_that_is_not_there(self) -> None:
        settings = self.settings('[tls]\ncertificate = "c.pem"\nkey = "k.pem"')
        self.assertIn("c.pem", self.refused("--config", settings, "--origin", NOBODY))

    def test_a_certificate_that_is_none(self) -> None:
        (self.directory / "c.pem").write_text("no certificate")
        settings = self.settings('[tls]\ncertificate = "c.pem"\nkey = "c.pem"')
        self.assertIn("c.pem", self.refused("--config", settings, "--origin", NOBODY))

    def test_a_data_directory_that_cannot_be_made(self) -> None:
        (self.directory / "file").write_text("")
        self.assertIn(
            "cannot make the data directory", self.refused("--origin", NOBODY, "--data", str(self.directory / "file/x"))
        )

    def test_an_access_log_that_a_worker_cannot_write(self) -> None:
        """What only a worker can find out ends the node as well."""
        settings = self.settings('[log]\naccess = "."\n[store]\nsize = "256MiB"')
        said = self.refused(
            *("--config", settings, "--origin", NOBODY, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
        )
        self.assertIn("access log", said)

    def test_another_reactor(self) -> None:
        self.assertIn("leave --reactor out", self.refused("--origin", NOBODY, twistd=("-n", "--reactor", "poll")))

    def test_an_unknown_flag_is_told_as_twistd_tells_it(self) -> None:
        done = self.run_it("--sise", "1GiB")
        self.assertEqual(1, done.returncode)
        self.assertIn("option --sise not recognized", done.stdout)

    def test_check_only_checks(self) -> None:
        done = self.run_it("--check", "--config", self.settings('[[site]]\nprofile = "plain"\norigins = ["http://a"]'))
        self.assertEqual((0, "edgecache: the settings can be used\n", ""), (done.returncode, done.stdout, done.stderr))
        self.assertEqual(["e.toml"], os.listdir(self.directory))

    def test_check_finds_what_a_start_would(self) -> None:
        settings = self.settings('[tls]\ncertificate = "c.pem"\nkey = "k.pem"')
        said = self.refused("--check", "--config", settings, "--origin", NOBODY)
        self.assertTrue(said.startswith("e.toml:2: [tls] certificate: "), said)
        for table, name in (("log", "access"), ("index", "download_log")):
            settings = self.settings(f'[{table}]\n{name} = "no/such/file.log"')
            said = self.refused("--check", "--config", settings, "--origin", NOBODY)
            self.assertTrue(said.startswith(f"e.toml:2: [{table}] {name}: "), said)

    def test_a_log_may_be_in_the_data_directory_that_the_first_start_makes(self) -> None:
        settings = self.settings('[node]\ndata = "new"\n[log]\naccess = "new/access.log"')
        done = self.run_it("--check", "--config", settings, "--origin", NOBODY)
        self.assertEqual((0, ""), (done.returncode, done.stderr))


class ReadAgainTests(SynchronousTestCase):
    """SIGHUP, in a node that runs."""

    def test_what_only_workers_need_is_not_imported_while_pip_is_asked(self) -> None:
        """Nor is all that the node process has at that moment kept from the collector, which imports at a start are."""
        pip = Path(self.mktemp()).absolute()
        pip.write_text("[global]\nindex-url = https://index.example/simple/\n")
        program = (
            "import gc, sys; from edgecache.tap import Options; options = Options(); options['nursery'] = None; "
            "config = options.read(); "
            "print(config.sites[0].origins, gc.get_freeze_count(), 'edgecache.workers' in sys.modules)"
        )
        given = {name: value for name, value in environment().items() if not name.startswith("PIP_")}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=pip.parent,
            env={**given, "PIP_CONFIG_FILE": str(pip)},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual("('https://index.example',) 0 False", done.stdout.strip())


class NetworkFileSystemTests(SynchronousTestCase):
    def test_it_is_refused_before_anything_is_locked(self) -> None:
        data = self.mktemp()
        config = Config(NodeSettings("n", data=data), ())
        error = self.assertRaises(StartError, prepare, config, inspect=lambda path: Disk(NFS, 1 << 40))
        self.assertIn("network file system (NFS)", str(error))
        self.assertEqual([], os.listdir(data))


class LifeTests(SynchronousTestCase):
    """A node's life as its operator sees it; the origin is never asked."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.log = self.directory / "log"

    def start(
        self, *arguments: str, twistd: tuple[str, ...] = ("-n",), prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--size", "256MiB")
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [*prefix, str(TWISTD), *twistd, "edgecache", "--origin", NOBODY, *ports, *arguments],
                cwd=self.directory,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()

    def wait_for(self, text: str, name: str = "log") -> str:
        """The log once ``text`` is in it: a starting process tells in no other way."""
        for _ in range(2400):
            path = self.directory / name
            said = path.read_text() if path.exists() else ""
            if text in said:
                return said
            time.sleep(0.05)
        raise AssertionError(f"{text!r} never came:\n{said}")

    def test_it_says_who_it_is_and_ends_cleanly(self) -> None:
        process = self.start("--node", "eu-1", "--workers", "1")
        said = self.wait_for("ready: ")
        for expected in ("node eu-1", f"{NOBODY}", "admin on 127.0.0.1:", "store of 0.2 GiB", "1 worker"):
            self.assertIn(expected, said)
        process.send_signal(signal.SIGTERM)
        process.wait(300)
        said = self.log.read_text()
        self.assertIn("stopped", said)
        self.assertNotIn("killing", said)
        self.assertNotIn("Traceback", said)

    def test_credentials_of_an_origin_are_in_no_log(self) -> None:
        process = self.start("--origin", "http://me:hush@127.0.0.1:9", "--workers", "1")
        self.wait_for("ready: ")
        process.send_signal(signal.SIGTERM)
        process.wait(300)
        self.assertNotIn("hush", self.log.read_text())
        # Workers are forked from who has logged that already.
        self.assertEqual(1, self.log.read_text().count("shown to whoever lists processes"))

    def test_it_starts_without_any_standard_file(self) -> None:
        """As some start what is to run for long; what is opened first must not be taken for one of them."""
        closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        process = self.start("--workers", "1", twistd=("-n", "-l", "twistd.log"), prefix=closed)
        self.wait_for("ready: ", "twistd.log")
        (nursery,) = self.children(str(process.pid))
        for pid in (str(process.pid), nursery):
            self.assertEqual("/dev/null", os.readlink(f"/proc/{pid}/fd/0"))
        self.assertEqual("/dev/null", os.readlink(f"/proc/{process.pid}/fd/1"))

    def test_everything_in_one_process(self) -> None:
        process = self.start("--workers", "0")
        said = self.wait_for("ready: ")
        self.assertIn("no worker processes", said)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        self.assertEqual("", children)
        process.send_signal(signal.SIGTERM)
        process.wait(300)
        self.assertIn("stopped", self.log.read_text())

    def test_a_second_node_on_the_same_data_is_refused_and_says_who_has_it(self) -> None:
        process = self.start("--workers", "1")
        self.wait_for("ready: ")
        (self.directory / "e.toml").write_text("[node]\nlease_seconds = 0.2")
        done = subprocess.run(
            [str(TWISTD), "-n", "edgecache", "--config", "e.toml", "--origin", NOBODY, "--listen", "127.0.0.1:0"],
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(1, done.returncode)
        self.assertIn(f"in use by another node (process {process.pid})", done.stderr.splitlines()[-1])

    def test_after_a_kill_it_starts_again_at_once(self) -> None:
        """Workers die with their node: none is left that could hold the lock, or serve what was purged since."""
        process = self.start("--workers", "2")
        self.wait_for("ready: ")
        workers = self.workers_of(process)
        self.assertEqual(2, len(workers))
        process.kill()
        process.wait()
        self.start("--workers", "2")
        said = self.wait_for("ready: ")
        self.assertNotIn("waiting up to", said)
        self.assertEqual([], [pid for pid in workers if self.lives(pid)])

    def workers_of(self, process: subprocess.Popen[bytes]) -> list[str]:
        """The children of the node's child, from which they were forked."""
        (nursery,) = self.children(str(process.pid))
        return self.children(nursery)

    def children(self, pid: str) -> list[str]:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

    def lives(self, pid: str) -> bool:
        """Zombies of a container without init do not count."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def test_a_stopped_worker_does_not_outlive_its_node(self) -> None:
        process = self.start("--workers", "1")
        self.wait_for("ready: ")
        (worker,) = self.workers_of(process)
        os.kill(int(worker), signal.SIGSTOP)
        process.kill()
        process.wait()
        self.start("--workers", "1")
        self.wait_for("ready: ")
        self.assertFalse(self.lives(worker))

    def test_in_the_foreground_a_stale_pidfile_stops_nobody(self) -> None:
        """Process 1 of a container finds its own number in it."""
        (self.directory / "twistd.pid").write_text(str(os.getpid()))
        self.start("--workers", "0")
        self.wait_for("ready: ")

    def test_in_the_background_it_logs_to_a_file_and_leaves_a_pidfile(self) -> None:
        started = self.start("--workers", "1", twistd=())
        self.assertEqual(0, started.wait(300))
        self.wait_for("ready: ", "twistd.log")
        pid = int((self.directory / "twistd.pid").read_text())
        self.assertEqual(f"{pid}\n", (self.directory / "edgecache-data" / "lock").read_text())
        os.kill(pid, signal.SIGTERM)
        self.wait_for("Server Shut Down", "twistd.log")
