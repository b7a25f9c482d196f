"""The system tests' own parts: an origin that miscounts, or a comparison that sees nothing, would prove nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.system import processes
from tests.system.clients import Answer, Download, Together, ask
from tests.system.contents import PERIOD, Artifact, Octets, first_difference
from tests.system.origins import Hold, Origin, Reply, text

_WHEEL = Artifact("wheel", 3 * PERIOD + 17)


class ContentTests(SynchronousTestCase):
    @settings(max_examples=50)
    @given(start=st.integers(0, _WHEEL.size), length=st.integers(0, 1 << 17), at=st.integers(0, 1 << 17))
    def test_any_changed_octet_is_found_where_it_is(self, start: int, length: int, at: int) -> None:
        right = _WHEEL.read(start, length)
        self.assertIsNone(first_difference(_WHEEL, start, right))
        if at < len(right):
            wrong = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
            self.assertEqual(start + at, first_difference(_WHEEL, start, wrong))

    def test_octets_after_the_end_are_wrong(self) -> None:
        self.assertEqual(_WHEEL.size, first_difference(_WHEEL, _WHEEL.size - 2, _WHEEL.read(_WHEEL.size - 2, 2) + b"x"))

    def test_the_same_place_of_another_artifact_is_wrong(self) -> None:
        self.assertEqual(0, first_difference(_WHEEL, 0, Artifact("other", _WHEEL.size).read(0, 100)))

    def test_shifted_content_is_wrong(self) -> None:
        self.assertEqual(65520, first_difference(_WHEEL, 65520, _WHEEL.read(2 * 65520, 65520)))


class OriginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.origin = Origin().start()
        self.addCleanup(self.origin.stop)

    def test_requests_are_counted_by_target(self) -> None:
        self.origin.serve("/a", text("a"))
        for target in ("/a", "/a", "/b"):
            ask(self.origin.url, target)
        self.assertEqual((2, 1), (self.origin.count("/a"), self.origin.count("/b")))

    def test_ranges_and_conditions_are_those_of_a_file_server(self) -> None:
        self.origin.serve("/a", text("0123456789", etag='"1"'))
        part = ask(self.origin.url, "/a", fields={"Range": "bytes=2-4"})
        self.assertEqual((206, "bytes 2-4/10", b"234"), (part.status, part.fields["content-range"], part.content))
        self.assertEqual(b"89", ask(self.origin.url, "/a", fields={"Range": "bytes=-2"}).content)
        self.assertEqual(200, ask(self.origin.url, "/a", fields={"Range": "bytes=2-4", "If-Range": '"2"'}).status)
        self.assertEqual(304, ask(self.origin.url, "/a", fields={"If-None-Match": '"1"'}).status)

    def test_a_hold_lets_so_much_through_and_then_nothing(self) -> None:
        hold = Hold(after=300_000)
        self.origin.serve("/big", Reply(_WHEEL, hold=hold))
        download = Download(self.origin.url, "/big", _WHEEL)
        clients = Together()
        clients.start(download.read_all)
        hold.wait_reached()
        processes.until(lambda: download.position == 300_000, "the octets before the barrier")
        hold.release()
        clients.join()
        self.assertTrue(download.exact, str(download))

    def test_stopping_cuts_what_it_sends_and_starting_again_keeps_the_address(self) -> None:
        hold = Hold(after=10)
        self.origin.serve("/held", Reply(Octets(b"x" * 100), hold=hold))
        answers: list[Answer] = []
        clients = Together()
        clients.start(lambda: answers.append(ask(self.origin.url, "/held")))
        hold.wait_reached()
        url = self.origin.url
        self.origin.stop()
        hold.release()
        clients.join()
        self.assertFalse(answers[0].complete and len(answers[0].content) == 100)
        self.assertRaises(OSError, ask, url, "/held")
        self.origin.start()
        self.assertEqual(100, len(ask(url, "/held").content))


class CacheStatusTests(SynchronousTestCase):
    def test_the_nearest_cache_is_the_one_that_is_asked_about(self) -> None:
        def answer(value: str) -> Answer:
            return Answer(200, {"cache-status": value}, b"")

        self.assertTrue(answer("eu-1; hit; ttl=30").hit)
        self.assertTrue(answer("origin; fwd=miss, eu-1; hit").hit)
        self.assertFalse(answer("origin; hit, eu-1; fwd=uri-miss; stored").hit)
        self.assertTrue(answer("origin; hit, eu-1; fwd=uri-miss; stored").stored)


class ProcessTests(SynchronousTestCase):
    def test_a_family_is_found_measured_and_killed_also_when_its_leader_is_gone(self) -> None:
        hog = "x = bytearray(b'1' * 40_000_000); print(len(x), flush=True); import time; time.sleep(60)"
        leader = subprocess.Popen(
            ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, hog],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.addCleanup(lambda: processes.kill_now(processes.family(leader.pid)))
        assert leader.stdout is not None
        self.addCleanup(leader.stdout.close)
        self.assertEqual(b"40000000\n", leader.stdout.readline())
        members = processes.family(leader.pid)
        self.assertEqual(2, len(members))
        self.assertGreater(processes.anonymous_octets(members), 40_000_000)
        self.assertGreaterEqual(processes.cpu_seconds(members[-1]), 0)
        processes.kill_now([leader.pid])
        leader.wait()
        (orphan,) = processes.family(leader.pid)
        processes.kill_now([orphan])
        processes.until(lambda: not processes.family(leader.pid), "its end")
        self.assertNotIn(os.getpid(), members)
