"""
Nodes with two workers in front of origins that hang, break off, lie, drop packets, die and come back (FIELD 1).

What is told apart is what was asked of whom, in which order, and every octet that a client got; never how long it took.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from itertools import chain, count, repeat
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

from tests.characters import Good, Lying, Saying, Silent, Stalling
from tests.system.clients import Together
from tests.system.contents import Artifact
from tests.system.harness import _DIE_WITH_US, environment
from tests.system.processes import free_port, until
from tests.system.stages import AT_ONCE, Choosing, Dropping, Each, Role
from tests.system.troupes import FRESH, OCTETS, FailoverCase, Troupe, metrics, of_workers

GOOD = Good(content=OCTETS, fields=FRESH)
PROBE = b"edgecache (probe)"

# Scaled, so that a hang costs a second or two; still far longer than a good origin needs. Whoever is out stays out,
# and however busy this machine is, nobody counts as slow to connect.
HANGING = """
[upstream]
connect_seconds = 30.0
next_address_seconds = 30.0
head_seconds = 2.0
stall_seconds = 2.0
first_byte_seconds = 20.0
eject_seconds = 300.0
"""

# Who begins is waited for, however busy this machine is: what goes elsewhere has stalled.
STALLING = HANGING.replace("head_seconds = 2.0", "head_seconds = 20.0\nhedge_share = 0.0")

# Whoever is out is probed soon, and comes back so slowly that every moment of a test is in its slow start.
RETURNING = """
[upstream]
connect_seconds = 30.0
next_address_seconds = 30.0
head_seconds = 1.0
stall_seconds = 1.0
first_byte_seconds = 30.0
eject_seconds = 0.5
slow_start_seconds = 100.0
hedge_share = 0.0
"""

# Only who drops packets is slow to connect.
DROPPING = """
[upstream]
connect_seconds = 2.0
next_address_seconds = 0.5
eject_seconds = 300.0
hedge_share = 0.0
"""


def repr_digest(octets: bytes) -> tuple[bytes, bytes]:
    """:return: the field of RFC 9530."""
    return b"Repr-Digest", b"sha-256=:%b:" % base64.b64encode(hashlib.sha256(octets).digest())


STREAM_OCTETS = 100_000


def fifty_streams(case: FailoverCase, troupe: Troupe) -> None:
    clients, downloads = Together(), []
    for number in range(50):
        target = f"/stream/{number}"
        download = troupe.download(target, Artifact(target, STREAM_OCTETS))
        downloads.append(download)
        clients.start(download.read_all)
    clients.join()
    case.assertEqual([], [str(download) for download in downloads if not download.exact])
    case.assertGreaterEqual(len(troupe.roles[0].asked), 10)
    bad, good = troupe.conditions()
    case.assertEqual(("ejected", "healthy"), (bad["state"], good["state"]))


class HangingTests(FailoverCase):
    settings = HANGING
    sites: ClassVar = {
        "a_silent_origin_is_asked_once_in_all": "ordered",
        "a_head_that_takes_unusually_long_is_asked_for_elsewhere": "ordered",
        "a_stall_in_the_middle_is_not_seen_by_four_clients_of_both_workers": "ordered",
        "a_rest_of_another_entity_tag_is_no_rest": "ordered",
        "a_rest_of_another_entity_tag_and_the_same_digest_is_one": "ordered",
        "what_does_not_fit_to_its_digest_is_never_complete": "ordered",
        "half_of_fifty_streams_hang": "round-robin",
        "an_outage_costs_hardly_more_requests": "round-robin",
        "a_process_that_is_killed_in_the_middle_is_not_missed": "ordered",
    }

    @classmethod
    def cast(cls, name: str) -> Troupe:
        if "killed" not in name:
            return super().cast(name)
        # A process of its own will listen at the first port.
        roles = [*cls.stages.cast("127.0.0.1", port=free_port()), *cls.stages.cast("127.0.0.1")]
        return Troupe(cls.node, name, roles, [f"http://{role.where}" for role in roles])

    def test_a_silent_origin_is_asked_once_in_all(self) -> None:
        """Must-show 1."""
        troupe = self.troupe(Silent(), GOOD)
        self.require_whole(troupe.ask("/first"))
        self.assertEqual([(0, "/first", ""), (1, "/first", "")], troupe.asked)
        asked = 1 + self.ask_both_workers(troupe, "next")
        self.assertEqual(["/first"], troupe.roles[0].targets)
        self.assertEqual(asked, len(troupe.roles[1].asked))
        self.require_ejected(troupe, "no-head")
        self.assertEqual(Counter({"no-head": 1}), troupe.outcomes(0))

    def test_a_head_that_takes_unusually_long_is_asked_for_elsewhere(self) -> None:
        """Must-show 1, with latency history: hedged. Who loses is not blamed."""
        small = Good(fields=FRESH)
        troupe = self.troupe(small, small)
        before = of_workers(self.node, "upstream_requests_total")
        for number in range(400):
            self.assertEqual(200, troupe.ask(f"/history/{number}").status)
            grown = of_workers(self.node, "upstream_requests_total") - before
            # What a worker knows of latencies is its own.
            if len(grown) == 2 and min(grown.values()) >= 20:
                break
        self.assertEqual({0}, {origin for origin, _, _ in troupe.asked})
        silent, hedges = Silent(), of_workers(self.node, "hedges_total")
        troupe.roles[0].part = silent
        self.require_whole(troupe.ask("/hedged"), small.content)
        self.assertEqual([(0, "/hedged", ""), (1, "/hedged", "")], troupe.asked[-2:])
        self.assertEqual(1, (of_workers(self.node, "hedges_total") - hedges).total())
        self.assertEqual(0, troupe.outcomes(0)["no-head"])
        self.assertEqual(["healthy", "healthy"], [condition["state"] for condition in troupe.conditions()])

    def test_a_stall_in_the_middle_is_not_seen_by_four_clients_of_both_workers(self) -> None:
        """Must-show 2."""
        troupe = self.troupe(Stalling(content=OCTETS, fields=FRESH, after=100_000), GOOD)
        clients, downloads = Together(), self.spread(troupe, "/wheel")
        for download in downloads:
            clients.start(download.read_all)
        clients.join()
        self.assertEqual([], [str(download) for download in downloads if not download.exact])
        self.assertEqual([(0, "/wheel", ""), (1, "/wheel", "bytes=95904-")], troupe.asked)
        _, asked = troupe.roles[0].playbill[1]
        self.assertEqual(b'"one"', asked.fields[b"if-range"])
        # It is one complete content of the store from now on.
        for download in self.spread(troupe, "/wheel"):
            download.read_all()
            self.assertTrue(download.exact and "; hit" in download.cache_status, str(download))
        self.ask_both_workers(troupe, "next")
        self.assertEqual(["/wheel"], troupe.roles[0].targets)
        self.require_ejected(troupe, "stalled")

    def test_a_rest_of_another_entity_tag_is_no_rest(self) -> None:
        """Must-show 3: broken off detectably, and nothing of it is stored."""
        other = Artifact("another wheel", 1_000_000).whole()
        stalling, closing = Stalling(content=OCTETS, fields=FRESH, after=100_000), Saying(close=True)
        troupe = self.troupe(
            Choosing(lambda asked: closing if b"range" in asked.fields else stalling),
            Good(content=other, etag=b'"two"', fields=FRESH),
        )
        download = troupe.download("/wheel")
        download.read_all()
        self.assertEqual((200, None, 100_000), (download.status, download.wrong_at, download.position))
        # The other one is asked first, then once more the one that broke off; by one worker, whichever the client has.
        rest = "bytes=95904-"
        self.assertEqual([(0, "/wheel", ""), (1, "/wheel", rest), (0, "/wheel", rest)], troupe.asked)
        self.assertEqual(504, troupe.stored("/wheel").status)
        answer = troupe.ask("/wheel")
        self.require_whole(answer, other)
        self.assertIn("fwd=uri-miss", answer.cache_status)

    def test_a_rest_of_another_entity_tag_and_the_same_digest_is_one(self) -> None:
        """Must-show 3, with a known digest: put together, verified and stored."""
        fields = (*FRESH, repr_digest(OCTETS))
        troupe = self.troupe(
            Stalling(content=OCTETS, fields=fields, after=100_000),
            Good(content=OCTETS, etag=b'"two"', fields=fields),
        )
        self.require_whole(troupe.ask("/wheel"))
        self.assertEqual([(0, "/wheel", ""), (1, "/wheel", "bytes=95904-")], troupe.asked)
        _, asked = troupe.roles[0].playbill[1]
        self.assertNotIn(b"if-range", asked.fields)
        until(lambda: troupe.ask("/wheel").hit, "the wheel in the store")
        self.require_whole(troupe.ask("/wheel"))
        self.assertEqual(2, len(troupe.asked))

    def test_what_does_not_fit_to_its_digest_is_never_complete(self) -> None:
        """Must-show 3: the digest decides, whatever entity tags and lengths promise."""
        long = Artifact("long wheel", 2_000_000)
        fields = (*FRESH, repr_digest(long.whole()))
        troupe = self.troupe(
            Stalling(content=long.whole(), fields=fields, after=100_000),
            Lying(content=long.whole(), fields=fields, after=1_500_000),
        )
        download = troupe.download("/wheel", long)
        download.read_all()
        self.assertEqual(200, download.status)
        self.assertLess(download.position, long.size)
        self.assertEqual([(0, "/wheel", ""), (1, "/wheel", "bytes=95904-")], troupe.asked)
        self.assertEqual(504, troupe.stored("/wheel").status)
        # Nobody knows which of them sent what is wrong.
        self.assertEqual(0, troupe.outcomes(1)["wrong-digest"])

    def test_half_of_fifty_streams_hang(self) -> None:
        """Must-show 8."""
        troupe = self.troupe(Silent(), Each(STREAM_OCTETS, lambda content: Good(content=content, fields=FRESH)))
        fifty_streams(self, troupe)
        self.assertEqual(50, len(troupe.roles[1].asked))

    def test_an_outage_costs_hardly_more_requests(self) -> None:
        """Must-show 8: upstream requests stay under 1.2 times the misses, plus the fills in flight when it began."""
        small = Each(2000, lambda content: Good(content=content, fields=FRESH))
        troupe = self.troupe(small, small)
        clients, in_flight, misses = Together(), 8, 300
        numbers, began = iter(range(misses)), threading.Event()
        taking = threading.Lock()

        def client() -> None:
            while True:
                with taking:
                    number = next(numbers, None)
                if number is None:
                    return
                if number == misses // 4:
                    troupe.roles[0].part = Silent()
                    began.set()
                target = f"/loop/{number}"
                self.require_whole(troupe.ask(target), Artifact(target, 2000).whole())

        for _ in range(in_flight):
            clients.start(client)
        clients.join()
        self.assertTrue(began.is_set())
        self.assertLessEqual(len(troupe.asked), 1.2 * misses + in_flight)
        # The good one alone answered from then on, and the bad one had what was in flight, and what came before both
        # workers had heard of it.
        self.assertLessEqual(troupe.outcomes(0)["no-head"], 2 * in_flight)
        self.require_ejected(troupe, "no-head")

    def test_a_process_that_is_killed_in_the_middle_is_not_missed(self) -> None:
        troupe = self.troupes["a_process_that_is_killed_in_the_middle_is_not_missed"]
        killed, good = troupe.roles
        good.part = GOOD
        process = play(killed.port)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        clients, download = Together(), troupe.download("/wheel")
        clients.start(download.read_all)
        until(lambda: download.position >= AT_ONCE // 2, "the beginning of the wheel")
        process.kill()
        process.wait()
        clients.join()
        self.assertTrue(download.exact, str(download))
        (asked,) = good.asked
        self.assertRegex(asked.fields[b"range"], rb"^bytes=[1-9]\d*-$")
        self.assertEqual(1, troupe.outcomes(0)["lost"])
        # Nobody listens there any more: some more failures, and it is left out.
        numbers = count()

        def ejected() -> bool:
            self.require_whole(troupe.ask(f"/after/{next(numbers)}"))
            return bool(troupe.conditions()[0]["state"] == "ejected")

        until(ejected, "its ejection")
        before = troupe.outcomes(0)
        self.assertGreaterEqual(before["connect-failed"], 2)
        self.ask_both_workers(troupe, "next")
        self.assertEqual(before, troupe.outcomes(0))


class StallingTests(FailoverCase):
    settings = STALLING
    sites: ClassVar = {"half_of_fifty_streams_stall": "round-robin"}

    def test_half_of_fifty_streams_stall(self) -> None:
        """Must-show 8, in the middle of each content."""
        troupe = self.troupe(
            Each(STREAM_OCTETS, lambda content: Stalling(content=content, fields=FRESH, after=STREAM_OCTETS // 2)),
            Each(STREAM_OCTETS, lambda content: Good(content=content, fields=FRESH)),
        )
        fifty_streams(self, troupe)
        resumed = [target for origin, target, range_ in troupe.asked if range_ and origin == 1]
        self.assertEqual(sorted(troupe.roles[0].targets), sorted(resumed))


class LastOneTests(FailoverCase):
    """The last remaining one is never ejected, and whoever is out is needed back as soon as it is well."""

    # Nobody would come back for minutes.
    settings = HANGING
    sites: ClassVar = {"one_that_has_recovered_is_found_as_soon_as_the_other_fails": "ordered"}

    def test_one_that_has_recovered_is_found_as_soon_as_the_other_fails(self) -> None:
        troupe = self.troupe(Silent(), GOOD)
        first, second = troupe.roles
        self.require_whole(troupe.ask("/first"))
        self.require_ejected(troupe, "no-head")
        first.part, second.part = GOOD, Silent()
        self.require_whole(troupe.ask("/second"))
        until(lambda: troupe.conditions()[0]["state"] == "recovering", "the return of the one that is well")
        bad = troupe.conditions()[1]
        self.assertEqual(("ejected", "no-head, and another one is back"), (bad["state"], bad["reason"]))
        before = len(second.asked)
        self.require_whole(troupe.ask("/third"))
        self.assertEqual(before, len(second.asked))


class ReturningTests(FailoverCase):
    """Must-show 7."""

    settings = RETURNING
    sites: ClassVar = {
        "it_comes_back_by_itself_once_a_content_has_come": "ordered",
        "a_flapping_one_stays_out_longer_each_time": "ordered",
    }

    def test_it_comes_back_by_itself_once_a_content_has_come(self) -> None:
        # One request, three probes, then whoever asks.
        small = Artifact("small", 100_000).whole()
        well = Good(content=small, fields=FRESH)
        parts = chain((Silent(), Silent(), Stalling(content=small, fields=FRESH, after=1000)), repeat(well))
        troupe = self.troupe(Choosing(lambda _: next(parts)), well)
        bad, good = troupe.roles
        self.require_whole(troupe.ask("/first"), small)
        self.assertEqual(0, self.up(troupe))
        until(lambda: troupe.conditions()[0]["state"] == "recovering", "the end of its ejection")
        self.assertEqual(1, self.up(troupe))
        # Only probes had come, for what had failed, and a head alone did not restore it.
        self.assertEqual(["/first"] * 4, bad.targets)
        self.assertEqual([False, True, True, True], [asked.fields.get(b"user-agent") == PROBE for asked in bad.asked])
        self.assertEqual(
            [
                ("healthy", "ejected", "no-head", 1),
                ("ejected", "probing", "its time is over", 1),
                ("probing", "ejected", "no-head, when probed", 2),
                ("ejected", "probing", "its time is over", 2),
                ("probing", "ejected", "stalled, when probed", 3),
                ("ejected", "probing", "its time is over", 3),
                ("probing", "recovering", "a probe went well", 3),
            ],
            self.changes(bad),
        )
        ejections = metrics(self.node, "upstream_ejections_total", "outcome", origin=troupe.urls[0])
        self.assertEqual(Counter({"no-head": 2, "stalled": 1}), ejections)
        # Slowly: it would have all of them, were it as good as new.
        for number in range(40):
            self.require_whole(troupe.ask(f"/back/{number}"), small)
        back = len(bad.asked) - 4
        self.assertEqual(40, back + len(good.asked) - 1)
        self.assertTrue(back <= 20, back)
        # Its share grows with time: sooner or later it is asked again.
        numbers = count(40)

        def asked_again() -> bool:
            self.require_whole(troupe.ask(f"/back/{next(numbers)}"), small)
            return len(bad.asked) > 4

        until(asked_again, "a request to the one that came back")

    def test_a_flapping_one_stays_out_longer_each_time(self) -> None:
        silent, well = Silent(), Good(fields=FRESH)
        troupe = self.troupe(Choosing(lambda asked: well if asked.fields.get(b"user-agent") == PROBE else silent), well)
        bad, _good = troupe.roles
        numbers = count()
        planned: list[float] = []

        def ejected(times: int) -> bool:
            condition = troupe.conditions()[0]
            if condition["state"] == "ejected" and condition["ejections"] == times:
                planned.append(condition["next_probe_at"] - condition["since"])
                return True
            self.require_whole(troupe.ask(f"/flap/{next(numbers)}"), well.content)
            return False

        for times in (1, 2, 3):
            until(lambda times=times: ejected(times), f"ejection {times}", looks=4000, pause_seconds=0.0)
        first, second, third = planned
        self.assertTrue(first < second < third, planned)
        changes = [(before, state, ejections) for before, state, _, ejections in self.changes(bad)]
        returned = [("ejected", "probing"), ("probing", "recovering")]
        self.assertEqual(
            [
                ("healthy", "ejected", 1),
                *((*change, 1) for change in returned),
                ("recovering", "ejected", 2),
                *((*change, 2) for change in returned),
                ("recovering", "ejected", 3),
            ],
            changes[:7],
        )

    def up(self, troupe: Troupe) -> int:
        """What ``/metrics`` says of the first origin."""
        (value,) = metrics(self.node, "upstream_up", "address", origin=troupe.urls[0]).values()
        return value

    def changes(self, role: Role) -> list[tuple[str, str, str, int]]:
        """What the log says: states before and after, reason, ejections in a row."""
        found = []
        for line in self.lines(role):
            matched = re.search(r": (\w+) -> (\w+): (.*); ejections in a row: (\d+); next probe: (\S+)$", line)
            assert matched is not None, line
            # Who is ejected is told when it will be probed; who is back is not probed at all.
            self.assertEqual(matched[2] in ("ejected", "probing"), matched[5].endswith("Z"), line)
            found.append((matched[1], matched[2], matched[3], int(matched[4])))
        return found


class DroppingTests(FailoverCase):
    """Must-show 4: a name with four addresses, one of which drops packets."""

    settings = DROPPING
    sites: ClassVar = {"one_of_four_addresses_drops_packets": "round-robin"}

    @classmethod
    def prefix(cls, root: Path) -> tuple[str, ...]:
        """A mount namespace in which the hosts file is ours."""
        for flags in ("-m", "-rm"):
            if (
                shutil.which("unshare")
                and not subprocess.run(["unshare", flags, "true"], capture_output=True).returncode
            ):
                break
        else:
            raise SkipTest("needs a mount namespace of its own: root, or user namespaces")
        hosts = ("127.0.0.1 localhost", *(f"{host} many.test" for host in FOUR))
        for name, text in (
            ("hosts", "\n".join(hosts)),
            # Only files: no name server is asked.
            ("nsswitch.conf", "hosts: files"),
            ("resolv.conf", "nameserver 127.0.0.1"),
        ):
            (root / name).write_text(f"{text}\n")
        script = """
            for name in hosts nsswitch.conf resolv.conf; do
                test ! -e /etc/$name || mount --bind "$0/$name" /etc/$name || exit 70
            done
            exec "$@"
        """
        return "unshare", flags, "sh", "-c", script, str(root)

    @classmethod
    def cast(cls, name: str) -> Troupe:
        port = free_port()
        dropping = Dropping.at(FOUR[1], port)
        cls.addClassCleanup(dropping.close)
        roles = cls.stages.cast(*FOUR, port=port)
        for role in roles:
            if role.host != FOUR[1]:
                cls.stages.open(role)
        return Troupe(cls.node, name, roles, [f"http://many.test:{port}"])

    def test_one_of_four_addresses_drops_packets(self) -> None:
        troupe = self.troupe(GOOD, GOOD, GOOD, GOOD)
        numbers = count()

        def ejected() -> bool:
            self.require_whole(troupe.ask(f"/before/{next(numbers)}"))
            return bool(troupe.conditions()[1]["state"] == "ejected")

        until(ejected, "its ejection")
        outcomes = troupe.outcomes(0)
        # Each worker found out for itself at most.
        self.assertLessEqual(outcomes["connect-timeout"], 2)
        self.assertGreaterEqual(outcomes["slow-to-connect"], 1)
        self.assertEqual("connect-timeout", troupe.conditions()[1]["reason"])
        asked = next(numbers) + self.ask_both_workers(troupe, "after")
        self.assertEqual(asked, len(troupe.asked))
        after = troupe.outcomes(0)
        for outcome in ("connect-timeout", "slow-to-connect"):
            self.assertEqual(outcomes[outcome], after[outcome])
        self.assertEqual({0, 2, 3}, {origin for origin, _, _ in troupe.asked})
        (line,) = [line for line in self.node.log.splitlines() if " -> ejected: " in line]
        self.assertIn(f"{troupe.urls[0]} ({FOUR[1]}): suspect -> ejected: connect-timeout; ", line)


FOUR = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")


def play(port: int) -> subprocess.Popen[bytes]:
    """:return: a process that plays :mod:`tests.system.stages` at ``port``, and accepts."""
    process = subprocess.Popen(
        [*_DIE_WITH_US, sys.executable, "-m", "tests.system.stages", str(port)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise AssertionError(f"the origin ended with {process.wait()}")
    process.stdout.close()
    return process
