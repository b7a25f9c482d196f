"""
What is refused, however it is cut into packets (FIELD 8, DESIGN 12).

Each row is followed by a well-formed request, as a smuggler would: nothing of
either reaches the route, the answer has the row's status, and the connection
is closed.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.rig import Rig, Verdict, cuts, judge

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def get(*lines: bytes, target: bytes = b"/", method: bytes = b"GET", host: bytes = b"Host: a\r\n") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def post(*lines: bytes, content: bytes = b"") -> bytes:
    return get(*lines, method=b"POST") + content


def chunked(content: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", content=content)


HOST = {
    "no Host": get(host=b""),
    "two Hosts": get(host=b"Host: a\r\nHost: b\r\n"),
    "the same Host twice": get(host=b"Host: a\r\nHost: a\r\n"),
    "a list of hosts": get(host=b"Host: a, b\r\n"),
    "a list without space": get(host=b"Host: a,b\r\n"),
    "user information": get(host=b"Host: u@a\r\n"),
    "an empty host": get(host=b"Host:\r\n"),
    "a host of white space": get(host=b"Host: \t \r\n"),
    "port of letters": get(host=b"Host: a:x\r\n"),
    "port too large": get(host=b"Host: a:65536\r\n"),
    "port zero": get(host=b"Host: a:0\r\n"),
    "empty port": get(host=b"Host: a:\r\n"),
    "signed port": get(host=b"Host: a:+80\r\n"),
    "two ports": get(host=b"Host: a:80:80\r\n"),
    "only a port": get(host=b"Host: :80\r\n"),
    "a path": get(host=b"Host: a/b\r\n"),
    "a query": get(host=b"Host: a?b\r\n"),
    "a fragment": get(host=b"Host: a#b\r\n"),
    "a scheme": get(host=b"Host: http://a\r\n"),
    "white space inside": get(host=b"Host: a b\r\n"),
    "an unclosed bracket": get(host=b"Host: [::1\r\n"),
    "letters in brackets": get(host=b"Host: [xyz]\r\n"),
    "octets beyond ASCII": get(host=b"Host: \xc3\xa4\r\n"),
    "a percent-encoded host": get(host=b"Host: a%00b\r\n"),
    "HTTP/1.0 with two Hosts": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/1.0 with an empty Host": b"GET / HTTP/1.0\r\nHost:\r\n\r\n",
    "absolute-form without Host": get(target=b"http://a/", host=b""),
    "absolute-form with a bad Host": get(target=b"http://a/", host=b"Host: u@a\r\n"),
}

FRAMING = {
    "Transfer-Encoding: " + repr(value): post(b"Transfer-Encoding:" + value, content=b"0\r\n\r\n")
    for value in (
        b" gzip, chunked",
        b" chunked, gzip",
        b" ,chunked",
        b" chunked,",
        b" chunked, chunked",
        b" chunked, identity",
        b" identity",
        b" identity, chunked",
        b" gzip",
        b" xchunked",
        b" chunkedx",
        b" chunked;q=1",
        b" chunked x",
        b" x chunked",
        b' "chunked"',
        b" 'chunked'",
        b" chunk ed",
        b" \x0bchunked",
        b" \x0cchunked",
        b" chunked\x0b",
        b" \x00chunked",
        b" chunked\x00",
        b" \x85chunked",
        b" \xa0chunked",
        b" chunked\xa0",
        b" \xef\xbb\xbfchunked",
        b" chunked\r",
        b"\rchunked",
        b"\nchunked",
        b"\r\n chunked",
        b"\r\n\tchunked",
        b" chunked\r\n ",
        b" chunked\r\n\t, identity",
        b"",
        b" ",
    )
} | {
    "Transfer-Encoding on HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "identity on HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\n",
    "two Transfer-Encoding lines": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", content=b"0\r\n\r\n"
    ),
    "a second unknown one": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", content=b"0\r\n\r\n"),
    "a first unknown one": post(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "length, then chunked": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "chunked, then length": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", content=b"0\r\n\r\n"),
    "length zero and chunked": post(b"Content-Length: 0", b"Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "white space before the colon": post(b"Transfer-Encoding : chunked", content=b"0\r\n\r\n"),
    "tab before the colon": post(b"Transfer-Encoding\t: chunked", content=b"0\r\n\r\n"),
    "a name with an underscore": post(b"Transfer_Encoding: chunked", b"Content-Length: 5", content=b"0\r\n\r\n"),
    "a length with an underscore": post(b"Content_Length: 5", content=b"hello"),
    "a Host with an underscore": get(b"Transfer_encoding: x"),
    "another target with an underscore": get(b"X_Original-URL: /admin"),
    "another method with an underscore": get(b"X-HTTP_Method_Override: DELETE"),
    "a name after a space": post(b"X: y", b" Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "a name after a form feed": post(b"\x0cTransfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "a name after NUL": post(b"\x00Transfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "a name with NUL": post(b"Transfer-Encoding\x00: chunked", content=b"0\r\n\r\n"),
    "a quoted name": post(b'"Transfer-Encoding": chunked', content=b"0\r\n\r\n"),
    "a name beyond ASCII": post(b"Tran\xc5\xbffer-Encoding: chunked", content=b"0\r\n\r\n"),
    "a line of its own after bare CR": post(b"X: y\rTransfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "a line of its own after bare LF": post(b"X: y\nTransfer-Encoding: chunked", content=b"0\r\n\r\n"),
    "no colon": post(b"Transfer-Encoding chunked", content=b"0\r\n\r\n"),
}

LENGTH = {
    "Content-Length: " + repr(value): post(b"Content-Length:" + value, content=b"hello")
    for value in (
        b" 5, 5",
        b" 5,6",
        b" 5,",
        b" ,5",
        b" +5",
        b" -5",
        b" -0",
        b" 0x5",
        b" 5 5",
        b" 5.0",
        b" 5e0",
        b" 1_0",
        b" 05",
        b" 00",
        b" five",
        b"",
        b" ",
        b' "5"',
        b" 5;",
        b" \xd9\xa5",
        b" \x0b5",
        b" 5\x00",
        b"\r\n 5",
        b" " + b"9" * 19,
        b" 18446744073709551621",
        b" " + b"1" * 5000,
    )
} | {
    "two equal lengths": post(b"Content-Length: 5", b"Content-Length: 5", content=b"hello"),
    "two lengths": post(b"Content-Length: 5", b"Content-Length: 6", content=b"hello"),
    "white space before its colon": post(b"Content-Length : 5", content=b"hello"),
    "on HTTP/1.0 as well": b"POST / HTTP/1.0\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "TRACE with content": get(b"Content-Length: 5", method=b"TRACE") + b"hello",
}

REQUEST_LINE = {
    "a fragment": get(target=b"/a#b"),
    "an empty fragment": get(target=b"/a#"),
    "a bare word": get(target=b"foo"),
    "* with GET": get(target=b"*"),
    "* with more": get(target=b"*/", method=b"OPTIONS"),
    "authority-form": get(target=b"a:80"),
    "a relative path": get(target=b"../a"),
    "another scheme": get(target=b"ftp://a/"),
    "no authority": get(target=b"http:///a"),
    "user information": get(target=b"http://u@a/"),
    "bad port": get(target=b"http://a:99999/"),
    "fragment of an absolute target": get(target=b"http://a/#b"),
    "one slash": get(target=b"http:/a/"),
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "a simple request": b"GET /\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces before the target": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two spaces before the version": b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space after the version": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a space before the method": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs": b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "form feeds": b"GET\x0c/\x0cHTTP/1.1\r\nHost: a\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the target": b"GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare CR in the target": b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
    "octets beyond ASCII in the target": b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a lower-case version": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "three numbers in the version": b"GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
    "two digits in the version": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "no point in the version": b"GET / HTTP/1\r\nHost: a\r\n\r\n",
    "a signed version": b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n",
    "another protocol": b"GET / ICY/1.1\r\nHost: a\r\n\r\n",
    "no method": b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method with a colon": b"GET: / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method beyond ASCII": b"G\xc3\x8bT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "only a method": b"GET\r\n\r\n",
    "two empty lines before it": b"\r\n\r\n" + get(),
    "a bare LF before it": b"\n" + get(),
    "a bare CR before it": b"\r" + get(),
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    "garbage": bytes(range(128, 256)),
}

LINES = {
    "bare LF after the request line": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "only bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "LF CR": b"GET / HTTP/1.1\n\rHost: a\n\r\n\r",
    "CR CR LF": b"GET / HTTP/1.1\r\r\nHost: a\r\r\n\r\r\n",
    "bare CR in a value": get(b"X: a\rb"),
    "bare CR at a value's end": get(b"X: a\r"),
    "bare CR before the colon": get(b"X\r: a"),
    "obsolete folding": get(b"X: a\r\n b"),
    "obsolete folding by tab": get(b"X: a\r\n\tb"),
    "folding of the first field": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "a line of white space": get(b" "),
    "a space before the colon": get(b"X : a"),
    "a tab before the colon": get(b"X\t: a"),
    "a space in a name": get(b"X Y: a"),
    "an empty name": get(b": a"),
    "no colon": get(b"X"),
    "NUL in a value": get(b"X: a\x00b"),
    "NUL in a name": get(b"X\x00: a"),
    "DEL in a value": get(b"X: a\x7fb"),
    "a control octet in a value": get(b"X: a\x01b"),
    "escape in a value": get(b"X: \x1b[31m"),
    "vertical tab in a value": get(b"X: a\x0bb"),
    "brackets in a name": get(b"X[]: a"),
    "a name beyond ASCII": get(b"\xc3\x84: a"),
    "a second request line": get(b"GET / HTTP/1.1"),
}

CHUNKS = {
    repr(content)[:60]: chunked(content)
    for content in (
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"5;\r\nhello\r\n0\r\n\r\n",
        b"5;;a\r\nhello\r\n0\r\n\r\n",
        b"5 ;a=b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\nx\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\rx\r\nhello\r\n0\r\n\r\n",
        b"5;a=\x00\r\nhello\r\n0\r\n\r\n",
        b'5;a="b\r\nhello\r\n0\r\n\r\n',
        b"5,a\r\nhello\r\n0\r\n\r\n",
        b"5.0\r\nhello\r\n0\r\n\r\n",
        b"1" * 16 + b"\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        b"100000000000000005\r\nhello\r\n0\r\n\r\n",
        b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\nX: y\r\n z\r\n\r\n",
        b"0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        b"0\r\n\rX\r\n\r\n",
        b"5;" + b"a" * (64 << 10) + b"\r\nhello\r\n0\r\n\r\n",
        b"".join(b"1;" + b"a" * 1000 + b"\r\nx\r\n" for _ in range(20)) + b"0\r\n\r\n",
    )
}

LARGE = {
    "a field of 100 KB": get(b"X: " + b"a" * 100_000),
    "a field name of 100 KB": get(b"a" * 100_000 + b": x"),
    "500 fields": get(*(b"X%d: y" % n for n in range(500))),
    "101 fields": get(*(b"X%d: y" % n for n in range(100))),
    "a head of 16 KiB and one octet": get(b"X: " + b"a" * (16384 - len(get(b"X: ")) + 1)),
    "a head that never ends": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000,
    "a trailer of 200 KB": chunked(b"5\r\nhello\r\n0\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n"),
    "a trailer of many fields": chunked(b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
    "a trailer of many octets": chunked(b"5\r\nhello\r\n0\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 20 + b"\r\n"),
}

OTHER = {
    "a long target": (414, get(target=b"/" + b"a" * 8192)),
    "a target of 64 KiB": (414, get(target=b"/" + b"a" * 65536)),
    "a target that never ends": (414, b"GET /" + b"a" * 9000),
    "a long method": (400, get(method=b"A" * 9000)),
    "CONNECT": (501, get(target=b"a:443", method=b"CONNECT")),
    "CONNECT with a path": (501, get(method=b"CONNECT")),
    "a lower-case method": (501, get(method=b"get")),
    "a mixed-case method": (501, get(method=b"Head")),
    "HTTP/3.0": (505, b"GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    "HTTP/9.9": (505, b"GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
    "another expectation": (417, post(b"Expect: 200-ok", b"Content-Length: 5", content=b"hello")),
    "two expectations": (417, post(b"Expect: 100-continue, x", b"Content-Length: 5", content=b"hello")),
}


class RefusedTests(SynchronousTestCase):
    """Whole, byte by byte, and split at every offset: status, closed, and the route saw nothing."""

    def refused(self, status: int, rows: dict[str, bytes]) -> None:
        rig = Rig()
        expected = Verdict(b"%d" % status, 1, 0, True)
        for name, row in rows.items():
            data = row + SMUGGLED
            self.assertEqual(expected, judge([data], rig), name)
            for pieces in cuts(data):
                self.assertEqual(expected, judge(pieces, rig), f"{name}, first piece {pieces[0]!r}")
        self.assertEqual([], rig.requests)

    def test_bad_hosts(self) -> None:
        """RFC 9112 §3.2"""
        self.refused(400, HOST)

    def test_ambiguous_transfer_codings(self) -> None:
        """RFC 9112 §6.1, §6.3"""
        self.refused(400, FRAMING)

    def test_bad_lengths(self) -> None:
        """RFC 9110 §8.6"""
        self.refused(400, LENGTH)

    def test_bad_request_lines(self) -> None:
        """RFC 9112 §3"""
        self.refused(400, REQUEST_LINE)

    def test_bad_lines(self) -> None:
        """RFC 9112 §2.2, §5"""
        self.refused(400, LINES)

    def test_bad_chunks(self) -> None:
        """RFC 9112 §7.1: nothing of the request is shown to the route before its content proved well-formed."""
        self.refused(400, CHUNKS)

    def test_heads_and_trailers_beyond_the_limits(self) -> None:
        """DESIGN 12: 16 KiB and 100 fields"""
        self.refused(431, LARGE)

    def test_other_refusals(self) -> None:
        for name, (status, row) in OTHER.items():
            self.refused(status, {name: row})


TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
VCHAR_AND_MORE = frozenset((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))
NOTHING: frozenset[int] = frozenset()
CONTROLS = frozenset((*range(0x21), 0x7F, 0x85, 0xA0, 0xFF))

# Where an octet is put, and which octets leave a field line there that has nothing to do with Transfer-Encoding.
PLACES = {
    b"%cTransfer-Encoding: chunked": TCHAR,
    b"Transfer%cEncoding: chunked": TCHAR - frozenset(b"-_") | frozenset(b":"),
    b"Transfer-Encoding%c: chunked": TCHAR,
    b"Transfer-Encoding:%cchunked": NOTHING,
    b"Transfer-Encoding: chun%cked": NOTHING,
    b"Transfer-Encoding: chunked%c": NOTHING,
    b"Transfer-Encoding: chunked%cX: y": NOTHING,
    b"Transfer-Encoding: chunked\r%cX: y": NOTHING,
    b"Transfer-Encoding: chunked%c\nX: y": NOTHING,
    b"X: y%cTransfer-Encoding: chunked": VCHAR_AND_MORE,
    b"X: y\r%cTransfer-Encoding: chunked": NOTHING,
    b"X: y%c\nTransfer-Encoding: chunked": NOTHING,
}


class OctetsTests(SynchronousTestCase):
    """Each octet at each place around a coding that the length beside it contradicts (FIELD 8, and more)."""

    def test_it_is_another_field_or_refused(self) -> None:
        """RFC 9110 §5.1, §5.5, RFC 9112 §6.1"""
        rig = Rig()
        refused, accepted = Verdict(b"400", 1, 0, True), Verdict(b"200", 1, 1, False)
        for place, harmless in PLACES.items():
            for octet in range(256):
                row = post(b"Content-Length: 5", place % octet, content=b"hello")
                data, expected = (row, accepted) if octet in harmless else (row + SMUGGLED, refused)
                self.assertEqual(expected, judge([data], rig), place % octet)
                if octet in CONTROLS:
                    octets = [data[at : at + 1] for at in range(len(data))]
                    self.assertEqual(expected, judge(octets, rig), (place % octet, "octet by octet"))
