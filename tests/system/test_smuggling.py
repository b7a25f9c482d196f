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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from attrs import field, frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.system.fleet import Fleet
from tests.system.harness import Node
from tests.system.index_nodes import site
from tests.system.rawness import RawOrigin, Sent, Talk, tcp, unix
from tests.system.troupes import site_table
from tests.wire import test_strictness as table

AMBIGUOUS = (table.FRAMING, table.LENGTH, table.CHUNKS, table.LINES)
REFUSED = (*AMBIGUOUS, table.HOST, table.REQUEST_LINE, table.LARGE)


def head(method: bytes, target: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    first = method + b" " + target + b" HTTP/" + version + b"\r\nHost: a\r\n"
    return first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def get(target: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    return head(b"GET", target, *lines, version=version)


def with_length(method: bytes, target: bytes, content: bytes, *lines: bytes, version: bytes = b"1.1") -> bytes:
    return head(method, target, b"Content-Length: %d" % len(content), *lines, version=version) + content


def in_chunks(method: bytes, target: bytes, chunks: bytes, *lines: bytes) -> bytes:
    return head(method, target, b"Transfer-Encoding: chunked", *lines) + chunks


@frozen
class Case:
    """
    :ivar octets: what the client sends.
    :ivar answers: method and status of each response.
    :ivar sent: what of it are requests for the origin.
    :ivar goes_on: another request on the same connection is answered.
    :ivar shut: the client ends its side after them.
    """

    octets: bytes
    answers: tuple[tuple[bytes, int], ...]
    sent: tuple[Sent, ...] = ()
    goes_on: bool = True
    shut: bool = False
    never: tuple[bytes, ...] = field(default=())
    """Octets that the origin is never sent."""


def cases(at: Callable[[], bytes]) -> Iterator[tuple[str, Case]]:
    """:param at: a path that is nobody else's."""
    p = at()
    hidden = get(p + b"/hidden")
    ok, refused = ((b"POST", 200),), ((b"POST", 400),)
    yield "CL.0: a request as content", Case(with_length(b"POST", p, hidden), ok, ((b"POST", p, hidden),))
    p = at()
    yield "0.CL: content of a GET", Case(with_length(b"GET", p, hidden), ((b"GET", 200),), ((b"GET", p, hidden),))
    p = at()
    yield (
        "no content, and a request behind it",
        Case(
            with_length(b"POST", p, b"") + get(p + b"/b"),
            ((b"POST", 200), (b"GET", 200)),
            ((b"POST", p, b""), (b"GET", p + b"/b", b"")),
        ),
    )
    p = at()
    both = head(b"POST", p, b"Content-Length: 6", b"Transfer-Encoding: chunked")
    yield "CL.TE", Case(both + b"0\r\n\r\nG", refused, goes_on=False)
    both = head(b"POST", p, b"Transfer-Encoding: chunked", b"Content-Length: 4")
    yield "TE.CL", Case(both + b"5c\r\n" + hidden + b"\r\n0\r\n\r\n", refused, goes_on=False)
    for line in (b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"X: y\nTransfer-Encoding: chunked"):
        both = head(b"POST", p, b"Transfer-Encoding: chunked", line)
        yield f"TE.TE {line!r}", Case(both + b"0\r\n\r\n" + hidden, refused, goes_on=False)
    yield (
        "length too short: the rest is no request",
        Case(
            head(b"POST", p + b"/short", b"Content-Length: 3") + b"a=1=" + hidden,
            (*ok, (b"GET", 400)),
            ((b"POST", p + b"/short", b"a=1"),),
            goes_on=False,
        ),
    )
    yield (
        "length too long: the end is not here",
        Case(head(b"POST", p + b"/long", b"Content-Length: 10000") + hidden, refused, goes_on=False, shut=True),
    )
    p = at()
    yield (
        "a request in a chunk",
        Case(in_chunks(b"POST", p, b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)), ok, ((b"POST", p, hidden),)),
    )
    p = at()
    yield (
        "extensions and trailers go nowhere",
        Case(
            in_chunks(b"POST", p, b'5;ext=1;q="x y"\r\nhello\r\n0;ext=2\r\nX-Trailing: 1\r\nContent-Length: 3\r\n\r\n'),
            ok,
            ((b"POST", p, b"hello"),),
            never=(b"ext=", b"X-Trailing", b"x-trailing"),
        ),
    )
    yield "a request in the trailers", Case(in_chunks(b"POST", p, b"0\r\n" + hidden), refused, goes_on=False)
    yield "a chunk of 2^64", Case(in_chunks(b"POST", p, b"10000000000000000\r\n" + hidden), refused, goes_on=False)
    yield (
        "a chunk of 2^60 that ends",
        Case(in_chunks(b"POST", p, b"fffffffffffffff\r\n" + hidden), refused, goes_on=False, shut=True),
    )
    yield (
        "a chunk with NUL in its size",
        Case(in_chunks(b"POST", p, b"5\0\r\nhello\r\n0\r\n\r\n"), refused, goes_on=False),
    )
    p = at()
    inner = with_length(b"POST", p + b"/b", hidden)
    yield (
        "a pipeline with a request in a content",
        Case(
            get(p + b"/a") + inner + get(p + b"/c"),
            ((b"GET", 200), (b"POST", 200), (b"GET", 200)),
            ((b"GET", p + b"/a", b""), (b"POST", p + b"/b", hidden), (b"GET", p + b"/c", b"")),
        ),
    )
    p = at()
    yield (
        "nothing after Connection: close",
        Case(get(p, b"Connection: close") + hidden, ((b"GET", 200),), ((b"GET", p, b""),), goes_on=False),
    )
    p = at()
    yield (
        "100-continue with the content at once",
        Case(
            with_length(b"POST", p, hidden, b"Expect: 100-continue"),
            ok,
            ((b"POST", p, hidden),),
            never=(b"100-continue",),
        ),
    )
    p = at()
    yield (
        "100-continue without content",
        Case(
            get(p, b"Expect: 100-continue") + get(p + b"/b"),
            ((b"GET", 200), (b"GET", 200)),
            ((b"GET", p, b""), (b"GET", p + b"/b", b"")),
        ),
    )
    p = at()
    yield (
        "another expectation",
        Case(with_length(b"POST", p, hidden, b"Expect: 100-continue, x"), ((b"POST", 417),), goes_on=False),
    )
    yield (
        "100-continue and both framings",
        Case(
            head(b"POST", p, b"Expect: 100-continue", b"Content-Length: 5", b"Transfer-Encoding: chunked") + hidden,
            refused,
            goes_on=False,
        ),
    )
    for upgrade in (b"h2c", b"websocket"):
        p = at()
        lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + upgrade, b"HTTP2-Settings: AAMAAABkAAQAAP__")
        yield (
            f"Upgrade: {upgrade.decode()}",
            Case(
                get(p, *lines) + get(p + b"/b"),
                ((b"GET", 200), (b"GET", 200)),
                ((b"GET", p, b""), (b"GET", p + b"/b", b"")),
                never=(b"Upgrade: ", b"upgrade: ", b"AAMAAABk", b"websocket"),
            ),
        )
    p = at()
    yield "the preface of HTTP/2", Case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden, ((b"PRI", 400),), goes_on=False)
    yield (
        "an absolute target is only its path",
        Case(
            get(b"http://elsewhere.test" + p + b"/x?y"),
            ((b"GET", 200),),
            ((b"GET", p + b"/x?y", b""),),
            never=(b"elsewhere",),
        ),
    )
    yield "an absolute target of another scheme", Case(get(b"gopher://a" + p), ((b"GET", 400),), goes_on=False)
    p = at()
    yield (
        "HTTP/1.0 that stays",
        Case(
            get(p, b"Connection: keep-alive", version=b"1.0") + get(p + b"/b"),
            ((b"GET", 200), (b"GET", 200)),
            ((b"GET", p, b""), (b"GET", p + b"/b", b"")),
        ),
    )
    p = at()
    yield (
        "HTTP/1.0 that does not",
        Case(get(p, version=b"1.0") + hidden, ((b"GET", 200),), ((b"GET", p, b""),), goes_on=False),
    )
    yield (
        "HTTP/1.0 with chunks",
        Case(
            head(b"POST", p, b"Transfer-Encoding: chunked", version=b"1.0") + b"0\r\n\r\n" + hidden,
            refused,
            goes_on=False,
        ),
    )
    p = at()
    yield (
        "HTTP/1.0 with content and a request behind it",
        Case(
            with_length(b"POST", p, b"hello", b"Connection: keep-alive", version=b"1.0") + get(p + b"/b"),
            (*ok, (b"GET", 200)),
            ((b"POST", p, b"hello"), (b"GET", p + b"/b", b"")),
        ),
    )
    p = at()
    yield "HEAD with content", Case(with_length(b"HEAD", p, hidden), ((b"HEAD", 200),), ((b"HEAD", p, hidden),))
    p = at()
    yield (
        "fields that Connection names are not framing",
        Case(
            with_length(b"POST", p, hidden, b"Connection: content-length, transfer-encoding, host"),
            ok,
            ((b"POST", p, hidden),),
        ),
    )
    p = at()
    yield "a method of nobody's", Case(with_length(b"GE-T", p, hidden), ((b"GE-T", 200),), ((b"GE-T", p, hidden),))
    yield "PURGE and what is behind it", Case(with_length(b"PURGE", p, b"") + hidden, ((b"PURGE", 405),), goes_on=False)
    yield (
        "a proxy's fields are not ours",
        Case(
            head(b"POST", at(), b"Proxy-Connection: x", b"Content-Length: 5, 5") + b"hello" + hidden,
            refused,
            goes_on=False,
        ),
    )


class Smuggling(SynchronousTestCase):
    """One origin for all tests of a class."""

    origin: ClassVar[RawOrigin]
    root: ClassVar[Path]
    front = "x"
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
    """Two nodes that ask each other: at either's public listener, and at the one that siblings ask."""

    fleet: ClassVar[Fleet]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.fleet = Fleet(cls.root, 2, cls.origin.url, site='fill = "home"', profile="plain")
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
