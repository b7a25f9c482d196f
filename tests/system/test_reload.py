"""
SIGHUP and SIGTERM under load (DESIGN 11): no request fails, and what runs is finished.

``EDGECACHE_RELOAD_RATE`` and ``EDGECACHE_RELOADS`` are the long form: requests per second, and how often it is
reloaded under them, each second time with a broken file.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.system.certificates import make_certificate
from tests.system.clients import Download, Together
from tests.system.contents import Artifact
from tests.system.harness import UNHURRIED, Node
from tests.system.origins import Hold, Origin, Reply, text
from tests.system.processes import until

RATE = float(os.environ.get("EDGECACHE_RELOAD_RATE", "200"))
RELOADS = int(os.environ.get("EDGECACHE_RELOADS", "2"))
WHEEL = Artifact("wheel", 3_000_000)

FILE = f"""
[[site]]
profile = "plain"
origins = ["{{origin}}"]

[limits]
idle_seconds = {{idle}}
drain_seconds = 100
{UNHURRIED}"""


@define(eq=False)
class Load:
    """
    Clients that keep their connections and ask again and again at a pace, as installers do.

    :ivar failures: every request that was not answered with 200: also one on a kept connection that closed.
    """

    url: str
    clients: int = 8
    answered: int = 0
    failures: list[str] = field(factory=list)
    _over: threading.Event = field(factory=threading.Event)
    _together: Together = field(factory=Together)

    def start(self) -> None:
        for number in range(self.clients):
            self._together.start(self._ask, number)

    def stop(self) -> None:
        self._over.set()
        self._together.join()

    def more(self, count: int) -> None:
        """Return when so many more were answered."""
        goal = self.answered + count
        until(lambda: self.answered >= goal or self.failures, f"{count} more answers", looks=4800)

    def _ask(self, number: int) -> None:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=120)
        due = time.monotonic()
        while not self._over.is_set():
            try:
                connection.request("GET", f"/hit/{number % 4}")
                response = connection.getresponse()
                if (response.status, response.read()) != (200, b"stored"):
                    self.failures.append(f"{number}: {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{number}: {error!r}")
                connection.close()
            self.answered += 1
            due += self.clients / RATE
            self._over.wait(max(0.0, due - time.monotonic()))
        connection.close()


class ReloadCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-reload-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.file = self.root / "edge.toml"

    def origin(self, name: str) -> Origin:
        origin = Origin(lambda seen: text("stored" if seen.target.startswith("/hit/") else name)).start()
        self.addCleanup(origin.stop)
        return origin

    def start(self, workers: int, *arguments: str) -> Node:
        node = Node(self.root / "node", workers=workers, arguments=("--config", str(self.file), *arguments))
        self.addCleanup(node.end)
        return node.start()

    def reload(self, node: Node) -> dict[str, Any]:
        """SIGHUP, and what /status says of it once that is over."""
        before = self.told(node)
        os.kill(node.twistd_pid(), signal.SIGHUP)
        until(lambda: self.told(node) != before, "the end of the reload")
        return self.told(node)

    def with_a_wheel_that_pauses(self, workers: int) -> tuple[Node, Origin, Hold]:
        """A node before the first origin, whose wheel stops in the middle until it is released; and the second one."""
        first, second = self.origin("first"), self.origin("second")
        hold = Hold(1_000_000)
        self.addCleanup(hold.release)
        first.serve("/wheel", Reply(WHEEL, etag='"1"', hold=hold))
        self.file.write_text(FILE.format(origin=first.url, idle=50))
        return self.start(workers), second, hold

    def told(self, node: Node) -> Any:
        return json.loads(node.admin("GET", "/status").content)["reload"]


class ReloadTests(ReloadCase):
    def _reloaded(self, workers: int) -> None:
        node, second, hold = self.with_a_wheel_that_pauses(workers)
        load, downloads = Load(node.url), Together()
        load.start()
        download = Download(node.url, "/wheel", WHEEL)
        downloads.start(download.read_all)
        hold.wait_reached()
        load.more(50)
        pids = set(node.worker_pids())

        self.file.write_text(FILE.format(origin=second.url, idle=40) + f"[node]\nworkers = {workers + 1}\n")
        os.kill(node.twistd_pid(), signal.SIGHUP)
        until(lambda: node.ask("/new/" + os.urandom(4).hex()).content == b"second", "what the second origin has")
        load.more(50)
        # The worker that has this download is there until the client has all of it.
        self.assertIsNone(self.told(node))
        hold.release()
        downloads.join()
        self.assertTrue(download.exact, str(download))
        until(lambda: self.told(node) is not None, "the end of the reload")
        self.assertEqual(
            ("", ["[[site]] default: origins", "[limits] idle_seconds"]),
            (self.told(node)["detail"], self.told(node)["taken"]),
        )
        self.assertTrue(pids.isdisjoint(node.worker_pids()))
        self.assertEqual(workers, len(node.worker_pids()))

        pids = set(node.worker_pids())
        self.file.write_text("[limits]\nidle_secnds = 3\n")
        said = self.reload(node)
        self.assertIn("edge.toml:2: [limits] idle_secnds: there is no such setting", said["detail"])
        self.assertIn(f"everything stays as it was: {said['detail']}", node.log)
        self.assertEqual(pids, set(node.worker_pids()))

        for at in range(RELOADS - 2):
            self.file.write_text(FILE.format(origin=second.url, idle=30 + at) if at % 2 == 0 else "[[")
            self.assertEqual(at % 2 == 0, not self.reload(node)["detail"])
        load.more(50)
        load.stop()
        self.assertEqual([], load.failures, node.log[-3000:])
        node.stop()

    def test_no_request_fails_and_what_runs_is_finished_by_the_worker_of_before(self) -> None:
        self._reloaded(2)

    def test_in_one_process_too(self) -> None:
        self._reloaded(0)

    def test_what_waits_for_a_restart_is_named_and_a_renewed_certificate_is_shown(self) -> None:
        certificate, key = make_certificate(self.root / "tls")
        tls = f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n'
        self.file.write_text(FILE.format(origin=self.origin("a").url, idle=50) + tls)
        node = self.start(0)
        before = self._shown(node)
        make_certificate(self.root / "tls")
        self.file.write_text(FILE.format(origin="http://127.0.0.1:9", idle=50) + tls + "[store]\nsmall_share = 0.5\n")
        said = self.reload(node)
        self.assertEqual((["[store] small_share"], ""), (said["waiting"], said["detail"]))
        self.assertIn("these settings wait for a restart: [store] small_share", node.log)
        self.assertNotEqual(before, self._shown(node))
        # A file that cannot be used is no reason to lose the one that can.
        key.write_text("no key")
        self.assertRegex(self.reload(node)["detail"], r"\.toml:\d+: \[tls\] certificate, key: ")
        self._shown(node)

    def _shown(self, node: Node) -> bytes | None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        where = urlsplit(node.url)
        with (
            socket.create_connection((str(where.hostname), where.port), timeout=120) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            return tls.getpeercert(True)

    def test_nothing_of_former_workers_stays_open(self) -> None:
        self.file.write_text(FILE.format(origin=self.origin("a").url, idle=50))
        for workers in (0, 1):
            node = Node(self.root / f"node{workers}", workers=workers, arguments=("--config", str(self.file)))
            self.addCleanup(node.end)
            node.start()
            self.reload(node)
            before = self._open(node)
            for _ in range(3):
                self.reload(node)
            self.assertEqual(before, self._open(node))
            node.stop()

    def _open(self, node: Node) -> list[str]:
        """What files and kinds of descriptors the node process has, but for sockets that come and go."""
        there = Path(f"/proc/{node.twistd_pid()}/fd")
        found = [os.readlink(one) for one in there.iterdir() if one.is_symlink()]
        return sorted(one.partition(":[")[0] for one in found if "socket:" not in one)

    def test_followers_that_came_with_a_reload_are_shown(self) -> None:
        origin = self.origin("a")
        settings = FILE.format(origin=origin.url, idle=50).replace('"plain"', '"index"')
        self.file.write_text(settings)
        node = Node(self.root / "node", profile="index", workers=0, arguments=("--config", str(self.file)))
        self.addCleanup(node.end)
        node.start()
        self.assertEqual([], self._followers(node))
        self.file.write_text(settings.replace('"index"', '"index"\nfollow_seconds = 5'))
        self.assertEqual("", self.reload(node)["detail"])
        self.assertEqual(["default"], self._followers(node))

    def _followers(self, node: Node) -> list[str]:
        return [one["site"] for one in json.loads(node.admin("GET", "/status").content)["followers"]]

    def test_a_worker_that_cannot_start_leaves_the_old_ones_and_their_settings(self) -> None:
        self.file.write_text(FILE.format(origin=self.origin("a").url, idle=50))
        node = self.start(1)
        pids = set(node.worker_pids())
        self.file.write_text(FILE.format(origin=self.origin("b").url, idle=50) + '[log]\naccess = "/"\n')
        self.assertIn("access log", self.reload(node)["detail"])
        self.assertEqual(pids, set(node.worker_pids()))
        self.assertEqual(b"a", node.ask("/new").content)


class DrainTests(ReloadCase):
    def test_downloads_are_finished_and_new_connections_are_refused_at_once(self) -> None:
        origin = self.origin("a")
        hold = Hold(1_000_000)
        self.addCleanup(hold.release)
        origin.serve("/wheel", Reply(WHEEL, etag='"1"', hold=hold))
        self.file.write_text(FILE.format(origin=origin.url, idle=50))
        node = self.start(2)
        clients, download = Together(), Download(node.url, "/wheel", WHEEL)
        clients.start(download.read_all)
        hold.wait_reached()
        os.kill(node.twistd_pid(), signal.SIGTERM)
        until(lambda: self._refused(node), "refused connections")
        hold.release()
        clients.join()
        self.assertTrue(download.exact, str(download))
        node.stop()
        self.assertNotIn("connections were cut", node.log)

    def test_it_ends_cleanly_while_a_reload_waits_for_a_download(self) -> None:
        self._stopped_in_a_reload(1)

    def test_in_one_process_too(self) -> None:
        self._stopped_in_a_reload(0)

    def _stopped_in_a_reload(self, workers: int) -> None:
        node, second, hold = self.with_a_wheel_that_pauses(workers)
        clients, download = Together(), Download(node.url, "/wheel", WHEEL)
        clients.start(download.read_all)
        hold.wait_reached()
        self.file.write_text(FILE.format(origin=second.url, idle=50))
        os.kill(node.twistd_pid(), signal.SIGHUP)
        until(lambda: node.ask("/new/" + os.urandom(4).hex()).content == b"second", "what the second origin has")
        os.kill(node.twistd_pid(), signal.SIGTERM)
        until(lambda: self._refused(node), "refused connections")
        hold.release()
        clients.join()
        self.assertTrue(download.exact, str(download))
        # A second signal would end it at once.
        until(lambda: node._process is not None and node._process.poll() is not None, "the end of the node")
        node.stop()
        self.assertNotIn("failed to", node.log)
        self.assertNotIn("Traceback", node.log)

    def test_what_is_cut_is_reported(self) -> None:
        origin = self.origin("a")
        hold = Hold(1_000_000)
        self.addCleanup(hold.release)
        origin.serve("/wheel", Reply(WHEEL, etag='"1"', hold=hold))
        self.file.write_text(FILE.format(origin=origin.url, idle=50).replace("= 100", "= 1"))
        node = self.start(1)
        clients, download = Together(), Download(node.url, "/wheel", WHEEL)
        clients.start(download.read_all)
        hold.wait_reached()
        node.stop()
        self.assertIn("1 connections were cut after 1 s", node.log)
        clients.join()
        self.assertFalse(download.exact)

    def _refused(self, node: Node) -> bool:
        where = urlsplit(node.url)
        try:
            with socket.create_connection((str(where.hostname), where.port)):
                return False
        except ConnectionRefusedError:
            return True
