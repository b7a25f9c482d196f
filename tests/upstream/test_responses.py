"""Which responses are accepted, and what is made of them: FIELD 8, DESIGN 8, RFC 9112 §4 to §7."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from edgecache.words.errors import BadResponse, ConnectionLost
from edgecache.words.messages import Fields, Outbound
from tests.characters import Saying
from tests.upstream.rig import GET, HEAD, Rig

OK = b"HTTP/1.1 200 OK\r\n"


@frozen
class Good:
    """A response that is accepted."""

    octets: bytes
    content: bytes = b""
    status: int = 200
    reason: bytes = b"OK"
    fields: Fields = field(factory=list)
    length: int | None = None
    reusable: bool = True
    by_close: bool = False
    close: bool = False
    outbound: Outbound = GET
    interims: tuple[int, ...] = ()


@frozen
class Bad:
    """A response that is refused: ``BadResponse`` before anything was given, or after ``content``."""

    octets: bytes
    content: bytes = b""
    outbound: Outbound = GET


GOOD = {
    "length": Good(OK + b"Content-Length: 5\r\n\r\nhello", b"hello", length=5),
    "length of nothing": Good(OK + b"Content-Length: 0\r\n\r\n", length=0),
    "white space around values": Good(
        OK + b"A: \t b c \t \r\nContent-Length: \t 5 \r\n\r\nhello", b"hello", fields=[(b"a", b"b c")], length=5
    ),
    "empty value": Good(OK + b"A:\r\nContent-Length: 0\r\n\r\n", fields=[(b"a", b"")], length=0),
    "names in any case": Good(OK + b"ETAG: x\r\ncontent-LENGTH: 0\r\n\r\n", fields=[(b"etag", b"x")], length=0),
    "octets above 127 in a value": Good(
        OK + b"A: \xc3\xa9\xff\r\nContent-Length: 0\r\n\r\n", fields=[(b"a", b"\xc3\xa9\xff")], length=0
    ),
    "the same field twice": Good(
        OK + b"A: 1\r\nB: 2\r\nA: 3\r\nContent-Length: 0\r\n\r\n",
        fields=[(b"a", b"1"), (b"b", b"2"), (b"a", b"3")],
        length=0,
    ),
    "no reason": Good(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", reason=b"", length=0),
    "empty reason": Good(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", reason=b"", length=0),
    "reason of several words": Good(
        b"HTTP/1.1 200 All is \xe9 well\r\nContent-Length: 0\r\n\r\n", reason=b"All is \xe9 well", length=0
    ),
    "status 999": Good(b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nab", b"ab", 999, b"Odd", length=2),
    "status 299": Good(b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nab", b"ab", 299, b"Odd", length=2),
    "status 600": Good(b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", b"", 600, b"Odd", length=0),
    "chunks": Good(
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"
    ),
    "chunked in any case": Good(OK + b"Transfer-Encoding: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n", b"x"),
    "no chunk but the last": Good(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "last chunk of many zeros": Good(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n00000\r\n\r\n", b"x"),
    "size in upper and lower case": Good(
        OK + b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\nb\r\n0123456789x\r\n0\r\n\r\n",
        b"01234567890123456789x",
    ),
    "chunk extensions": Good(
        OK + b'Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n1 ; c="d"\r\ny\r\n0;e\r\n\r\n', b"xy"
    ),
    "content that looks like chunks": Good(
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"
    ),
    "trailers are dropped": Good(
        OK + b"Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n1\r\nx\r\n0\r\nX: y\r\nContent-Length: 3\r\n\r\n", b"x"
    ),
    "octets after the end": Good(OK + b"Content-Length: 5\r\n\r\nhelloHTTP", b"hello", length=5, reusable=False),
    "octets after the last chunk": Good(
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n", reusable=False
    ),
    "a second response": Good(
        OK + b"Content-Length: 1\r\n\r\nx" + OK + b"Content-Length: 1\r\n\r\ny", b"x", length=1, reusable=False
    ),
    "Connection: close": Good(
        OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx", b"x", length=1, reusable=False
    ),
    "Connection: close among others": Good(
        OK + b"Connection: a, CLOSE\r\nContent-Length: 1\r\n\r\nx", b"x", length=1, reusable=False
    ),
    "up to the end of the connection": Good(
        OK + b"\r\nhello", b"hello", by_close=True, close=True, reusable=False
    ),
    "nothing up to the end of the connection": Good(OK + b"\r\n", by_close=True, close=True, reusable=False),
    "HTTP/1.0": Good(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", length=5, reusable=False),
    "HTTP/1.0 that stays": Good(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", length=5
    ),
    "HTTP/1.0 up to the end": Good(
        b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", by_close=True, close=True, reusable=False
    ),
    "HEAD with a length": Good(OK + b"Content-Length: 5\r\n\r\n", length=5, outbound=HEAD, reusable=False),
    "HEAD of chunks": Good(OK + b"Transfer-Encoding: chunked\r\n\r\n", outbound=HEAD, reusable=False),
    "HEAD with neither": Good(OK + b"\r\n", outbound=HEAD, reusable=False),
    "HEAD followed by content": Good(
        OK + b"Content-Length: 5\r\n\r\nhello", length=5, outbound=HEAD, reusable=False
    ),
    "204": Good(b"HTTP/1.1 204 None\r\n\r\n", status=204, reason=b"None"),
    "204 that announces content": Good(
        b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\n", status=204, reason=b"None", reusable=False
    ),
    "204 of chunks": Good(
        b"HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        status=204,
        reason=b"None",
        reusable=False,
    ),
    "304 with the length of the 200": Good(
        b'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n',
        status=304,
        reason=b"Not Modified",
        fields=[(b"etag", b'"x"')],
        length=5,
        reusable=False,
    ),
    "304 as most send it": Good(b"HTTP/1.1 304 Not Modified\r\n\r\n", status=304, reason=b"Not Modified"),
    "205 by its framing": Good(
        b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", status=205, reason=b"Reset", length=0
    ),
    "an offer to upgrade": Good(
        OK + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx", b"x", length=1
    ),
    "100 first": Good(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx", b"x", length=1,
                      interims=(100,)),
    "103 with fields, twice, then chunks": Good(
        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n"
        + OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"x",
        interims=(103, 103),
    ),
    "16 times 102": Good(
        b"HTTP/1.1 102 Processing\r\n\r\n" * 16 + OK + b"Content-Length: 0\r\n\r\n", length=0, interims=(102,) * 16
    ),
    "1xx that would close": Good(
        b"HTTP/1.1 103 Hints\r\nConnection: close\r\nContent-Length: 7\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        length=0,
        interims=(103,),
    ),
    "hop-by-hop fields": Good(
        OK + b"Connection: x-one, X-Two , keep-alive\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\nKeep-Alive: timeout=9\r\n"
        b"Proxy-Connection: a\r\nTE: trailers\r\nTrailer: a\r\nUpgrade: b\r\nContent-Length: 0\r\n\r\n",
        fields=[(b"x-three", b"3")],
        length=0,
    ),
    "Connection must not take Cache-Control away": Good(
        OK + b"Connection: cache-control, vary, x\r\nCache-Control: private\r\nX: 1\r\nContent-Length: 0\r\n\r\n",
        fields=[(b"cache-control", b"private")],
        length=0,
    ),
    "a head of just under 64 KiB": Good(
        OK + b"Content-Length: 0\r\nA: " + b"x" * ((64 << 10) - 64) + b"\r\n\r\n",
        fields=[(b"a", b"x" * ((64 << 10) - 64))],
        length=0,
    ),
}  # fmt: skip

BAD = {
    "not HTTP": Bad(b"SSH-2.0-server\r\n\r\n"),
    "HTTP/2.0": Bad(b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "HTTP/1.2": Bad(b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "HTTP/0.9": Bad(b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "lower-case name of the protocol": Bad(b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "empty line first": Bad(b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "two spaces before the status": Bad(b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
    "tab before the status": Bad(b"HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n"),
    "status 99999": Bad(b"HTTP/1.1 99999 OK\r\nContent-Length: 0\r\n\r\n"),
    "status 1000": Bad(b"HTTP/1.1 1000 OK\r\nContent-Length: 0\r\n\r\n"),
    "status 99": Bad(b"HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n"),
    "status 099": Bad(b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    "status 000": Bad(b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
    "status 2x0": Bad(b"HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"),
    "status minus 20": Bad(b"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n"),
    "no status": Bad(b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n"),
    "NUL in the reason": Bad(b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n"),
    "CR in the reason": Bad(b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"),
    "DEL in the reason": Bad(b"HTTP/1.1 200 O\x7fK\r\nContent-Length: 0\r\n\r\n"),
    "lines end with LF": Bad(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    "one line ends with LF": Bad(OK + b"A: b\nContent-Length: 0\r\n\r\n"),
    "the empty line ends with LF": Bad(OK + b"Content-Length: 0\r\n\n"),
    "obsolete line folding": Bad(OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n"),
    "white space before the first field": Bad(OK + b" A: b\r\nContent-Length: 0\r\n\r\n"),
    "space before the colon": Bad(OK + b"A : b\r\nContent-Length: 0\r\n\r\n"),
    "no colon": Bad(OK + b"A\r\nContent-Length: 0\r\n\r\n"),
    "no name": Bad(OK + b": b\r\nContent-Length: 0\r\n\r\n"),
    "space in a name": Bad(OK + b"A b: c\r\nContent-Length: 0\r\n\r\n"),
    "octet above 127 in a name": Bad(OK + b"\xe9: c\r\nContent-Length: 0\r\n\r\n"),
    "parenthesis in a name": Bad(OK + b"A(b): c\r\nContent-Length: 0\r\n\r\n"),
    **{
        f"octet {octet} in a value": Bad(OK + b"A: b%bc\r\nContent-Length: 0\r\n\r\n" % bytes([octet]))
        for octet in (0, 1, 8, 10, 11, 12, 13, 14, 27, 31, 127)
    },
    "a head over 64 KiB in one field": Bad(OK + b"A: " + b"x" * (64 << 10) + b"\r\nContent-Length: 0\r\n\r\n"),
    "a head over 64 KiB in many fields": Bad(OK + b"A: b\r\n" * 11_000 + b"Content-Length: 0\r\n\r\n"),
    "a head over 64 KiB without end": Bad(OK + b"A: b\r\n" * 11_000),
    "a status line over 64 KiB": Bad(b"HTTP/1.1 200 " + b"x" * (66 << 10)),
    "length with chunks": Bad(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunks with length": Bad(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
    "length with chunks, HEAD": Bad(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", outbound=HEAD),
    "two lengths": Bad(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    "two lengths in one field": Bad(OK + b"Content-Length: 5, 6\r\n\r\nhello"),
    "the same length twice": Bad(OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    "empty length": Bad(OK + b"Content-Length:\r\n\r\n"),
    "length plus 5": Bad(OK + b"Content-Length: +5\r\n\r\nhello"),
    "length minus 5": Bad(OK + b"Content-Length: -5\r\n\r\nhello"),
    "length 0x5": Bad(OK + b"Content-Length: 0x5\r\n\r\nhello"),
    "length 5.0": Bad(OK + b"Content-Length: 5.0\r\n\r\nhello"),
    "length 5 5": Bad(OK + b"Content-Length: 5 5\r\n\r\nhello"),
    "length of 5,000 digits": Bad(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello"),
    "length over 64 bits": Bad(OK + b"Content-Length: 18446744073709551617\r\n\r\nh"),
    "gzip, chunked": Bad(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "gzip": Bad(OK + b"Transfer-Encoding: gzip\r\n\r\n"),
    "identity": Bad(OK + b"Transfer-Encoding: identity\r\n\r\nhello"),
    "comma and chunked": Bad(OK + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    "chunked and a comma": Bad(OK + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    "chunked, chunked": Bad(OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": Bad(OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunked; a=b": Bad(OK + b"Transfer-Encoding: chunked; a=b\r\n\r\n0\r\n\r\n"),
    "xchunked": Bad(OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunked in quotes": Bad(OK + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n'),
    "chunked by folding": Bad(OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "chunked and a tab": Bad(OK + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n"),
    "length and a tab": Bad(OK + b"Content-Length: 5\t\r\n\r\nhello"),
    "vertical tab before chunked": Bad(OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "empty Transfer-Encoding": Bad(OK + b"Transfer-Encoding:\r\n\r\n"),
    "chunked in HTTP/1.0": Bad(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "gzip, HEAD": Bad(OK + b"Transfer-Encoding: gzip\r\n\r\n", outbound=HEAD),
    "gzip, 304": Bad(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: gzip\r\n\r\n"),
    "101": Bad(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
    "101 after 100": Bad(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n"),
    "17 times 102": Bad(b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + OK + b"Content-Length: 0\r\n\r\n"),
    "bad interim response": Bad(b"HTTP/1.1 103 Hints\r\nA : b\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    **{
        f"chunks: {name}": Bad(OK + b"Transfer-Encoding: chunked\r\n\r\n" + octets, content)
        for name, octets, content in (
            ("no size", b"\r\n\r\n", b""),
            ("size of no digits", b";a\r\nx\r\n", b""),
            ("size 0x1", b"0x1\r\nx\r\n", b""),
            ("size minus 1", b"-1\r\nx\r\n", b""),
            ("size plus 1", b"+1\r\nx\r\n", b""),
            ("size g", b"g\r\nx\r\n", b""),
            ("space before the size", b" 1\r\nx\r\n", b""),
            ("space after the size", b"1 \r\nx\r\n", b""),
            ("size over 64 bits", b"10000000000000000\r\nx\r\n", b""),
            ("line of a size ends with LF", b"1\nx\r\n0\r\n\r\n", b""),
            ("line of a size ends with CR CR LF", b"1\r\r\nx\r\n0\r\n\r\n", b""),
            ("chunk ends with LF", b"1\r\nx\n0\r\n\r\n", b"x"),
            ("chunk longer than its size", b"1\r\nxy\r\n0\r\n\r\n", b"x"),
            ("chunk shorter than its size", b"3\r\nx\r\n0\r\n\r\n", b"x\r\n"),
            ("chunk without end", b"1\r\nx0\r\n\r\n", b"x"),
            ("extension with NUL", b"1;a=\x00\r\nx\r\n0\r\n\r\n", b""),
            ("extension with a bare LF", b"1;a\nx\r\n0\r\n\r\n", b""),
            ("extension of 64 KiB", b"1;" + b"a" * (64 << 10) + b"\r\nx\r\n0\r\n\r\n", b""),
            ("last chunk ends with LF", b"0\n\r\n", b""),
            ("trailer without a colon", b"0\r\nx\r\n\r\n", b""),
            ("trailer folded", b"0\r\nx: y\r\n z\r\n\r\n", b""),
            ("trailer ends with LF", b"0\r\nx: y\n\r\n", b""),
            ("trailer with NUL", b"0\r\nx: \x00\r\n\r\n", b""),
            ("one trailer of 20 KiB", b"0\r\nx: " + b"y" * (20 << 10) + b"\r\n\r\n", b""),
            ("200 KiB of trailers", b"0\r\n" + b"x: y\r\n" * 33_000 + b"\r\n", b""),
            ("end of the trailers ends with LF", b"0\r\n\n", b""),
        )
    },
}


class TableTests(SynchronousTestCase):
    """Each row whole, byte by byte, and split at each offset (a sample of them where it is long)."""

    def good(self, name: str, row: Good, rig: Rig, how: str) -> None:
        origin = Saying(row.octets, row.close)
        address = rig.stage.play("1", origin)
        asking = rig.ask(address, row.outbound, settle=None)
        _deliver(rig, how)
        where = f"{name}, {how}"
        self.assertIsNone(asking.failure, where)
        response = asking.response
        assert response is not None
        self.assertEqual(
            (row.status, row.reason, row.fields), (response.head.status, response.head.reason, response.head.fields),
            where,
        )  # fmt: skip
        self.assertEqual((row.content, True), (asking.taker.content, asking.taker.ended), where)
        self.assertEqual((row.length, row.by_close), (response.length, response.delimited_by_close), where)
        self.assertEqual(row.interims, tuple(head.status for head in asking.interims), where)
        self.assertEqual(int(row.reusable), rig.client.idle(address), where)
        self.assertEqual(0, rig.client.awaited(address), where)

    def bad(self, name: str, row: Bad, rig: Rig, how: str) -> None:
        address = rig.stage.play("1", Saying(row.octets))
        asking = rig.ask(address, row.outbound, settle=None)
        _deliver(rig, how)
        where = f"{name}, {how}"
        self.assertIsInstance(asking.failure, BadResponse, where)
        self.assertEqual(row.content, asking.taker.content, where)
        self.assertEqual((0, 0), (rig.client.idle(address), rig.client.awaited(address)), where)
        self.assertTrue(all(link.a.is_closing() for link in rig.stage.links), where)

    def each_way(self, check: Any, name: str, row: Any) -> None:
        size = len(row.octets)
        ways = ["whole"]
        if size < 2048:
            ways.append("by 1")
            ways += [f"split at {at}" for at in range(1, size)]
        else:
            ways += [f"split at {at}" for at in (1, size // 2, size - 3, size - 1)] + ["by 1000"]
        for how in ways:
            rig = Rig()
            check(name, row, rig, how)
            self.assertTrue(rig.quiet(), f"{name}, {how}")


def _add(kind: str, name: str, row: Good | Bad) -> None:
    def test(self: TableTests) -> None:
        self.each_way(self.good if isinstance(row, Good) else self.bad, name, row)

    words = "".join(c if c.isalnum() else "_" for c in name)
    test.__name__ = f"test_{words}_is_{kind}"
    assert not hasattr(TableTests, test.__name__), test.__name__
    setattr(TableTests, test.__name__, test)


for _name, _good in GOOD.items():
    _add("accepted", _name, _good)
for _name, _bad in BAD.items():
    _add("refused", _name, _bad)


def _deliver(rig: Rig, how: str) -> None:
    """Let the request through, then the response as ``how`` says, then everything."""
    link = rig.stage.links[-1]
    link._carry(link.a, link.b, 1 << 20)
    assert link.b.outbox, "the response waits to be moved"
    if how.startswith("by "):
        rig.stage.settle(int(how[3:]))
    elif how.startswith("split at "):
        link.pump(int(how[9:]))
        rig.stage.settle(1 << 20)
    else:
        rig.stage.settle(1 << 20)


class EndTests(SynchronousTestCase):
    """RFC 9112 §8: an incomplete message is never taken for a complete one."""

    def cut_at_each_octet(self, octets: bytes, head: int, error: Exception | None, complete: int | None) -> None:
        for at in range(len(octets)):
            rig = Rig()
            asking = rig.ask(rig.stage.play("1", Saying(octets[:at])))
            if error is None:
                rig.stage.links[0].b.close()
                rig.stage.settle()
            else:
                rig.stage.links[0].cut(error)
            where = f"cut at {at}"
            if complete is not None and at >= complete:
                self.assertTrue(asking.taker.ended, where)
            else:
                self.assertIsInstance(asking.failure, ConnectionLost, where)
                self.assertEqual(at >= head, asking.response is not None, where)
            self.assertTrue(rig.quiet(), where)

    def test_content_of_known_length_that_ends_early_is_lost(self) -> None:
        octets = OK + b"Content-Length: 5\r\n\r\nhello"
        self.cut_at_each_octet(octets, len(octets) - 5, None, None)

    def test_content_of_known_length_that_is_reset_is_lost(self) -> None:
        octets = OK + b"Content-Length: 5\r\n\r\nhello"
        self.cut_at_each_octet(octets, len(octets) - 5, ConnectionResetError("reset"), None)

    def test_chunks_without_the_last_one_and_its_empty_line_are_lost(self) -> None:
        chunks = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"
        head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        self.cut_at_each_octet(head + chunks, len(head), None, None)

    def test_a_clean_end_completes_what_only_the_end_delimits(self) -> None:
        octets = OK + b"\r\nhello"
        self.cut_at_each_octet(octets, len(octets) - 5, None, len(octets) - 5)

    def test_a_reset_completes_nothing(self) -> None:
        octets = OK + b"\r\nhello"
        self.cut_at_each_octet(octets, len(octets) - 5, ConnectionResetError("reset"), None)


class AnyContentTests(SynchronousTestCase):
    """What was sent is what arrives, however it is framed and cut into pieces."""

    @settings(max_examples=80)
    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=12),
        st.integers(min_value=1, max_value=60),
        st.booleans(),
        st.data(),
    )
    def test_content_survives_framing_and_pieces(
        self, parts: list[bytes], quantum: int, chunked: bool, data: st.DataObject
    ) -> None:
        content = b"".join(parts)
        if chunked:
            framed = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            octets = OK + b"Transfer-Encoding: chunked\r\n\r\n" + framed
        else:
            octets = OK + b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
        rig = Rig()
        address = rig.stage.play("1", Saying(octets))
        asking = rig.ask(address, attach=False, settle=None)
        attached = paused = False
        [link] = rig.stage.links
        while link.pump(quantum):
            response = asking.response
            if response is None:
                continue
            match data.draw(st.sampled_from(("attach", "pause", "resume", "nothing"))):
                case "attach" if not attached:
                    attached = True
                    response.attach(asking.taker)
                case "pause":
                    paused = True
                    response.pause()
                case "resume":
                    paused = False
                    response.resume()
                case _:
                    pass
            seen = len(asking.taker.content)
            self.assertEqual(content[:seen], asking.taker.content)
        assert asking.response is not None
        if not attached:
            asking.response.attach(asking.taker)
        if paused:
            asking.response.resume()
        rig.stage.settle(quantum)
        self.assertEqual((content, True), (asking.taker.content, asking.taker.ended))
        self.assertEqual(1, rig.client.idle(address))
