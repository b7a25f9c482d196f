"""What one node shows to many clients, with every number of workers: one fetch per key, plain and over TLS."""

from __future__ import annotations

import http.client
import ssl
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.system.certificates import make_certificate
from tests.system.clients import Download, Together
from tests.system.contents import Artifact
from tests.system.harness import Node, unhurried
from tests.system.origins import BEFORE_HEAD, Hold, Origin, Reply
from tests.system.processes import until

CLIENTS = 16
TARGET = "/packages/wheel.whl"
WHEEL = Artifact("wheel", 3_000_000)


class ServingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-serving-")
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)

    def start(self, workers: int, *arguments: str, profile: str = "plain") -> Node:
        node = Node(
            self.root / f"{workers}{profile}",
            self.origin.url,
            workers=workers,
            profile=profile,
            arguments=arguments or unhurried(self.root),
        )
        self.addCleanup(node.end)
        return node.start()


class CollapsingTests(ServingTestCase):
    def _one_fetch(self, workers: int, after: int) -> None:
        hold = Hold(after)
        self.addCleanup(hold.release)
        self.origin.forget()
        self.origin.serve(TARGET, Reply(WHEEL, etag='"1"', hold=hold))
        node = self.start(workers)
        downloads = [Download(node.url, TARGET, WHEEL) for _ in range(CLIENTS)]
        clients = Together()
        for download in downloads:
            clients.start(download.read_all)
        hold.wait_reached()
        if after > 0:
            # Nobody waits for the end: every client has what has come so far.
            until(lambda: all(download.position >= after for download in downloads), "the first part at every client")
        hold.release()
        clients.join()
        self.assertEqual([], [str(download) for download in downloads if not download.exact])
        self.assertEqual(1, self.origin.count(TARGET), f"{self.origin.seen}\n{node.log[-3000:]}")
        until(lambda: node.ask(TARGET, method="HEAD").hit, "the stored wheel")
        self.assertEqual(WHEEL.whole(), node.ask(TARGET).content)
        self.assertEqual(1, self.origin.count(TARGET))
        node.end()

    def test_many_clients_at_once_stream_from_one_fetch_with_two_workers(self) -> None:
        self._one_fetch(2, 2_000_000)

    def test_many_clients_at_once_stream_from_one_fetch_in_one_process(self) -> None:
        self._one_fetch(0, 2_000_000)

    def test_clients_that_come_before_the_head_share_the_fetch(self) -> None:
        self._one_fetch(2, BEFORE_HEAD)

    def test_a_first_client_that_leaves_takes_nobody_with_it(self) -> None:
        hold = Hold(2_500_000)
        self.addCleanup(hold.release)
        self.origin.serve(TARGET, Reply(WHEEL, etag='"1"', hold=hold))
        node = self.start(2)
        clients, leader = Together(), Together()
        first = Download(node.url, TARGET, WHEEL)
        leader.start(first.read_all)
        until(lambda: first.position > 0, "the first client's first octets")
        second = Download(node.url, TARGET, WHEEL)
        clients.start(second.read_all)
        until(lambda: second.position > 0, "the second client's first octets")
        first.leave()
        hold.release()
        clients.join()
        self.assertTrue(second.exact, str(second))
        self.assertEqual(1, self.origin.count(TARGET))


class RangeTests(ServingTestCase):
    def test_ranges_come_from_the_stored_whole(self) -> None:
        self.origin.serve(TARGET, Reply(WHEEL, etag='"1"'))
        node = self.start(2)
        whole = WHEEL.whole()
        for value, start, stop in (
            ("bytes=0-0", 0, 1),
            ("bytes=65511-65512", 65511, 65513),
            ("bytes=2999999-", 2_999_999, 3_000_000),
            ("bytes=-10000", 2_990_000, 3_000_000),
            ("bytes=100-1000099", 100, 1_000_100),
        ):
            answer = node.ask(TARGET, fields={"Range": value})
            self.assertEqual((206, f"bytes {start}-{stop - 1}/3000000"), _range_of(answer.status, answer.fields), value)
            self.assertEqual(whole[start:stop], answer.content, value)
        until(lambda: node.ask(TARGET, method="HEAD").hit, "the stored wheel")
        self.assertTrue(node.ask(TARGET, fields={"Range": "bytes=7-8"}).hit)


def _range_of(status: int, fields: dict[str, str]) -> tuple[int, str]:
    return status, fields.get("content-range", "")


class TLSTests(ServingTestCase):
    def test_the_public_listener_speaks_tls_with_its_certificate(self) -> None:
        certificate, key = make_certificate(self.root)
        configuration = self.root / "edgecache.toml"
        configuration.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
        self.origin.serve(TARGET, Reply(WHEEL, etag='"1"'))
        node = self.start(1, "--config", str(configuration))
        context = ssl.create_default_context(cafile=str(certificate))
        port = int(node.url.rpartition(":")[2])
        for _ in range(2):
            connection = http.client.HTTPSConnection("localhost", port, timeout=120, context=context)
            connection.request("GET", TARGET)
            response = connection.getresponse()
            self.assertEqual((200, WHEEL.whole()), (response.status, response.read()))
            connection.close()
        self.assertEqual(1, self.origin.count(TARGET))


class StoppingTests(ServingTestCase):
    def test_sigterm_lets_a_running_download_finish_and_ends_cleanly(self) -> None:
        hold = Hold(2_000_000)
        self.addCleanup(hold.release)
        self.origin.serve(TARGET, Reply(WHEEL, etag='"1"', hold=hold))
        node = self.start(2)
        download = Download(node.url, TARGET, WHEEL)
        clients = Together()
        clients.start(download.read_all)
        until(lambda: download.position > 0, "the first octets")
        stopping = Together()
        stopping.start(node.stop)
        until(lambda: _refuses(node), "no new connection being taken")
        hold.release()
        clients.join()
        stopping.join()
        self.assertTrue(download.exact, str(download))
        self.assertNotIn("Traceback", node.log)


def _refuses(node: Node) -> bool:
    """Does readiness say that it is going, or is it gone?"""
    try:
        return node.admin("GET", "/readyz", token=False).status != 200
    except (OSError, http.client.HTTPException):
        return True
