"""
Requests that hide others, through real nodes to an origin that keeps every octet (issue 8, RFC 9112 §11.2).

Of each case: what the client is answered, whether its connection goes on, and that the origin has read exactly what
was plainly sent.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzzing import around, inputs, pieces
from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.index_nodes import site
from tests.system.rawness import RawOrigin, Talk, tcp, unix
from tests.system.smuggles import Case, cases, get, head, in_chunks, with_length
from tests.system.troupes import site_table
from tests.wire import test_strictness as table
from tests.wire.rig import Rig
from tests.wire.test_differential import CORPUS as NEARLY
from tests.wire.test_differential import Ours, request

AMBIGUOUS = (table.FRAMING, table.LENGTH, table.CHUNKS, table.LINES)
REFUSED = (*AMBIGUOUS, table.HOST, table.REQUEST_LINE, table.LARGE)


class Smuggling(SynchronousTestCase):
    """One origin for all tests of a class."""

    origin: ClassVar[RawOrigin]
    root: ClassVar[Path]
    number = 0

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="edgecache-smuggling-")
        cls.addClassCleanup(directory.cleanup)
        cls.root = Path(directory.name)
        cls.origin = RawOrigin().start()
        cls.addClassCleanup(cls.origin.stop)

    def path(self) -> bytes:
        """One that is nobody else's."""
        type(self).number += 1
        return b"/%b/%d" % (type(self).__name__.encode(), self.number)

    def play(self, name: str, case: Case, connect: Callable[[], socket.socket]) -> None:
        probe = self.path()
        before = Counter(self.origin.sent)
        writes = (case.octets,) if case.shut else (case.octets + get(probe, b"Connection: close"),)
        talk = Talk.over(connect(), *writes, shut=case.shut)
        answers = talk.answers([*(method for method, _ in case.answers), b"GET"])
        expected = [status for _, status in case.answers] + [200] * case.goes_on
        self.assertEqual(expected, [answer.status for answer in answers], name)
        sent = [*case.sent]
        if case.goes_on:
            self.assertEqual(b"GET %b 0" % probe, answers[-1].content, name)
            sent.append((b"GET", probe, b""))
        self.assertEqual(sorted(sent), sorted((Counter(self.origin.sent) - before).elements()), name)
        for octets in case.never:
            self.assertFalse(self.origin.has(octets), f"{name}: {octets!r}")

    def refused(self, connect: Callable[[], socket.socket], *tables: dict[str, bytes]) -> None:
        """Each row with a request behind it: one answer, closed, and nobody else has seen an octet."""
        before = Counter(self.origin.sent)
        for name, row in [item for rows in tables for item in rows.items()]:
            status = 431 if rows_of(table.LARGE, row) else 400
            received = Talk.over(connect(), row + table.SMUGGLED).received
            self.assertEqual((b"HTTP/1.1 %d " % status, 1), (received[:13], received.count(b"HTTP/1.1 ")), name)
        self.assertEqual(Counter(), Counter(self.origin.sent) - before)

    def tearDown(self) -> None:
        self.assertEqual([], self.origin.wrong)
        self.assertFalse(self.origin.has(b"/smuggled"))


def rows_of(rows: dict[str, bytes], row: bytes) -> bool:
    return any(row is each for each in rows.values())


class PublicTests(Smuggling):
    """Two workers, a plain site and an index: at the public listener, and at an owner's own socket."""

    node: ClassVar[Node]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        plain, index = site_table("*", "ordered", cls.origin.url), site("", cls.origin.url, hosts=["index.test"])
        file = cls.root / "edgecache.toml"
        file.write_text(f"{plain}\n{index}\n")
        cls.node = Node(cls.root / "node", arguments=("--config", str(file)))
        cls.addClassCleanup(cls.node.end)
        cls.node.start()

    def public(self) -> socket.socket:
        return tcp(int(self.node.url.rpartition(":")[2]))()

    def owner(self) -> socket.socket:
        return unix(str(self.node.data / "run" / f"owner-{self.number % 2}.sock"))()

    def test_what_has_two_readings_is_refused(self) -> None:
        self.refused(self.public, *REFUSED)

    def test_and_by_a_worker_that_another_asks(self) -> None:
        self.refused(self.owner, *AMBIGUOUS)

    def test_what_has_one_is_sent_as_that(self) -> None:
        for name, case in cases(self.path):
            self.play(name, case, self.public)

    def test_and_so_it_is_by_a_worker_that_another_asks(self) -> None:
        for name, case in cases(self.path):
            self.play(name, case, self.owner)

    def test_what_is_nearly_right_reaches_the_origin_as_the_strict_reader_has_it(self) -> None:
        """Whatever a client sends, and leaves: the origin is asked what was read of it, or less."""
        for seed, rng in inputs(40):
            octets = b"".join(request(rng) for _ in range(rng.choice((1, 2, 3))))
            octets = around(rng, octets, NEARLY) + table.SMUGGLED.replace(b"/smuggled", b"/behind")
            said = Ours(Rig())
            said.feed(octets)
            plain = Counter((each.start[0], each.start[1], each.content) for each in said.told())
            before = Counter(self.origin.sent)
            Talk.over(self.public(), *pieces(rng, octets), shut=True)
            self.assertLessEqual(Counter(self.origin.sent) - before, plain, f"{seed} {octets!r}")
        self.assertNotIn("Traceback", self.node.log)

    def test_a_request_in_content_that_was_waited_for_is_content(self) -> None:
        for version in (b"1.1", b"1.2"):
            p = self.path()
            hidden = get(p + b"/hidden")
            expecting = head(b"POST", p, b"Content-Length: %d" % len(hidden), b"Expect: 100-continue", version=version)
            sock = self.public()
            sock.settimeout(120.0)
            sock.sendall(expecting)
            self.assertEqual(b"HTTP/1.1 100 Continue\r\n\r\n", sock.recv(1 << 16))
            talk = Talk.over(sock, hidden + get(p + b"/b", b"Connection: close"))
            self.assertEqual([200, 200], [answer.status for answer in talk.answers([b"POST", b"GET"])])
            sent = [(b"GET", p + b"/b", b""), (b"POST", p, hidden)]
            self.assertEqual(sent, sorted(each for each in self.origin.sent if each[1].startswith(p)))

    def test_what_follows_a_refusal_instead_of_100_is_no_request(self) -> None:
        p = self.path()
        expecting = head(b"POST", p, b"Content-Length: 100", b"Expect: 100-continue").replace(b": a", b": index.test")
        sock = self.public()
        sock.settimeout(120.0)
        sock.sendall(expecting)
        received = sock.recv(1 << 16)
        self.assertEqual(b"HTTP/1.1 405 ", received[:13])
        talk = Talk.over(sock, get(p + b"/hidden"))
        self.assertNotIn(b"HTTP/1.1", talk.received)
        self.assertEqual([], [each for each in self.origin.sent if each[1].startswith(p)])

    def test_an_index_takes_no_content_so_nothing_hides_in_it(self) -> None:
        """DESIGN 12: refused and closed, whatever comes."""
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"GE-T", b"GET", b"HEAD"):
            p = self.path()
            hidden = get(p + b"/hidden").replace(b"Host: a", b"Host: index.test")
            for octets in (
                with_length(method, p, hidden),
                with_length(method, p, hidden, b"Expect: 100-continue"),
                in_chunks(method, p, b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)),
            ):
                octets = octets.replace(b"Host: a", b"Host: index.test", 1)
                status = 400 if method in (b"GET", b"HEAD", b"TRACE") else 405
                self.play(f"{octets!r}", Case(octets, ((method, status),), goes_on=False), self.public)
        p = self.path()
        empty = with_length(b"GET", p, b"").replace(b"Host: a", b"Host: index.test")
        self.play("no content", Case(empty, ((b"GET", 200),), ((b"GET", p, b""),)), self.public)


class SiblingTests(Smuggling):
    """
    Two nodes that ask each other: at either's public listener, and at the one that siblings ask.

    :cvar elsewhere: of another site.
    """

    elsewhere: ClassVar[RawOrigin]
    fleet: ClassVar[Fleet]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.elsewhere = RawOrigin().start()
        cls.addClassCleanup(cls.elsewhere.stop)
        # By this host siblings know each other.
        other = site("", cls.elsewhere.url, hosts=["127.0.0.1"], profile="plain")
        cls.fleet = Fleet(cls.root, 2, more=f'{site_table("*", "ordered", cls.origin.url)}fill = "home"\n{other}')
        cls.addClassCleanup(cls.fleet.end)
        cls.fleet.start()

    def public(self) -> socket.socket:
        node = self.fleet.nodes[self.fleet.ids[self.number % 2]]
        return tcp(int(node.url.rpartition(":")[2]))()

    def content(self) -> socket.socket:
        """As the second node asks the first one."""
        certificates = self.fleet.certificates
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        context.load_cert_chain(certificates / "n2.pem", certificates / "n2.key")
        port = self.fleet.ports("n1")[1]
        return context.wrap_socket(tcp(port)(), server_hostname="127.0.0.1")

    def test_what_has_two_readings_is_refused_to_a_sibling(self) -> None:
        self.refused(self.content, table.FRAMING)

    def test_what_has_one_is_sent_as_that_through_whichever(self) -> None:
        for name, case in cases(self.path):
            self.play(name, case, self.public)

    def test_who_names_no_host_is_not_taken_for_whom_a_sibling_is_called(self) -> None:
        """HTTP/1.0 may leave Host out; what a sibling is asked for it would be another site's response, and stored."""
        targets = [self.path() for _ in range(8)]
        for target in targets:
            [answer] = Talk.over(self.public(), b"GET " + target + b" HTTP/1.0\r\n\r\n").answers([b"GET"])
            self.assertEqual((200, b"GET %b 0" % target), (answer.status, answer.content))
        self.assertEqual([], self.elsewhere.sent)
        self.assertEqual(sorted(targets), sorted(sent[1] for sent in self.origin.sent if sent[1] in targets))
