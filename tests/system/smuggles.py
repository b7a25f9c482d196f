"""What hides requests in requests, and what of each is plainly sent (issue 8, RFC 9112 §11.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from tests.system.rawness import Sent


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
    never: tuple[bytes, ...] = ()
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
