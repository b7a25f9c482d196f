"""What clients are sent beside what the origin sent, octet for octet: nothing changes but what a cache must change."""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64encode

from tests.fills.rig import Exchange, RigCase

FRESH = b"Cache-Control: max-age=60"
PACKED = gzip.compress(b"packed", mtime=0)
LONG = bytes(range(256)) * 800
DIGEST = b64encode(hashlib.sha256(b"digested").digest())


Made = tuple[bytes, bytes]
"""A response, and the content that is in it."""


def plain(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK", content: bytes = b"content", before: bytes = b"") -> Made:
    return before + b"\r\n".join((status, *lines, b"Content-Length: %d" % len(content), b"", content)), content


def chunked(*lines: bytes, chunks: bytes, content: bytes = b"") -> Made:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"Transfer-Encoding: chunked", b"", chunks)), content


STORED = {
    "a small one": plain(FRESH, b"Content-Type: text/plain"),
    "an empty one": plain(FRESH, content=b""),
    "a large one": plain(FRESH, content=LONG),
    "content that looks like a response": plain(FRESH, content=b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "chunks, extensions and trailers": chunked(
        FRESH,
        b"Trailer: X-Trailer",
        chunks=b'3;a=b;c="d"\r\ncon\r\n4\r\ntent\r\n0\r\nX-Trailer: x\r\n\r\n',
        content=b"content",
    ),
    "chunks of nothing": chunked(FRESH, chunks=b"0\r\n\r\n"),
    "a large one in chunks": chunked(FRESH, chunks=b"%x\r\n%b\r\n0\r\n\r\n" % (len(LONG), LONG), content=LONG),
    "no content": (b"HTTP/1.1 204 No Content\r\n" + FRESH + b"\r\n\r\n", b""),
    "nothing to reset": plain(FRESH, status=b"HTTP/1.1 205 Reset Content", content=b""),
    "from somebody else": plain(FRESH, status=b"HTTP/1.1 203 Non-Authoritative Information"),
    "a redirect": plain(
        FRESH, b"Location: //else.example/?a=b#c", status=b"HTTP/1.1 301 Moved Permanently", content=b""
    ),
    "not found": plain(FRESH, status=b"HTTP/1.1 404 Not Found"),
    "an error": plain(FRESH, status=b"HTTP/1.1 500 Internal Server Error"),
    "an unknown status": plain(FRESH, status=b"HTTP/1.1 799 Whatever"),
    "a reason with spaces": plain(FRESH, status=b"HTTP/1.1 200 All  is\twell "),
    "a reason of other letters": plain(FRESH, status=b"HTTP/1.1 200 \xc3\xbc\xff"),
    "an empty reason": plain(FRESH, status=b"HTTP/1.1 200 "),
    "no reason": plain(FRESH, status=b"HTTP/1.1 200"),
    "HTTP/1.0": plain(FRESH, status=b"HTTP/1.0 200 OK"),
    "lines of one name": plain(FRESH, b"Set-Cookie: a=b, c", b"X: y", b"Set-Cookie: d=e", b"Link: <a>", b"Link: <b>"),
    "many lines": plain(FRESH, *(b"X-%d: %d" % (one % 7, one) for one in range(200))),
    "an empty value": plain(FRESH, b"X-Empty:", b"X-Spaces: \t "),
    "space around values": plain(FRESH, b"X:\t a , b \t", b"Y:c"),
    "quotes, commas, colons": plain(FRESH, b'X: "a, \\"b", c: d; e=": "', b"Y: ::"),
    "octets of no alphabet": plain(FRESH, b"X: \x80\xff\xa0", b"Y: \xe2\x82\xac"),
    "any name": plain(FRESH, b"!#$%&'*+-.^_`|~09aZ: x"),
    "a long value": plain(FRESH, b"X: " + b"x" * 30_000),
    "a coding": plain(FRESH, b"Content-Encoding: gzip", b'ETag: "a-gzip"', content=PACKED),
    "a weak tag": plain(FRESH, b'ETag: W/"a,\xff b"', b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"),
    "a tag without quotes": plain(FRESH, b"ETag: a"),
    "dates that are none": plain(FRESH, b"Expires: 0", b"Last-Modified: yesterday"),
    "a range of its own": plain(FRESH, b"Content-Range: bytes 0-6/7"),
    "what it is": plain(
        FRESH, b"Content-Location: /b", b"Content-Language: de", b"Content-Disposition: x; filename*=UTF-8''%e2"
    ),
    "a digest": plain(FRESH, b"Repr-Digest: sha-256=:%b:" % DIGEST, b"Content-Digest: x=:AA==:", content=b"digested"),
    "directives that nobody knows": plain(
        b'Cache-Control: max-age="60", x="a, no-store", stale-if-error', b"Surrogate-Control: a"
    ),
    "hints before it": plain(FRESH, before=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "variants": plain(FRESH, b"Vary: Accept, , x-a"),
}

PASSED = {
    "not to be stored": plain(b"Cache-Control: no-store", b"X:  y", b"Age: 7", b"Expires: -1"),
    "without anything": plain(b"X: y"),
    "a part that nobody asked for": plain(
        b"Content-Range: bytes 0-6/9", status=b"HTTP/1.1 206 Partial Content", content=b"content"
    ),
    "not allowed": plain(
        b'WWW-Authenticate: Basic realm="a, b"', b"WWW-Authenticate: Bearer", status=b"HTTP/1.1 401 Unauthorized"
    ),
}

TAKEN_OUT = {
    "of this connection": (b"Connection: X-Hop, keep-alive", b"X-Hop: 1", b"Keep-Alive: timeout=5", b"TE: a"),
    "of this proxy": (b"Proxy-Authenticate: Basic", b"Proxy-Connection: close", b"Upgrade: h2c"),
    "tags": (b"Surrogate-Key: a b", b"Cache-Tag: c", b'Cache-Groups: "d"'),
    "what fleets say to each other": (b"Edgecache-Fresh: 9", b"Edgecache-Refused: 1"),
    "what is ours to say": (b"Age: 5", b"Accept-Ranges: none", b"Cache-Status: other; hit", b"Date: never"),
}

OURS = frozenset((b"age", b"accept-ranges", b"cache-status", b"date", b"via"))
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"trailer", b"connection"))


def fields_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """Names in lower case, values without the space around them; nothing else is done to either."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:] if line]
    return [(name.lower(), value.strip(b" \t")) for name, _, value in lines]


def final(response: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """:return: the status line behind its version, and the fields that clients are to see."""
    head = response.partition(b"\r\n\r\n")[0]
    if head[9:10] == b"1":
        return final(response[len(head) + 4 :])
    line = head.partition(b"\r\n")[0][9:]
    # The space after the status is there also without a reason (RFC 9112 §4).
    return line if len(line) > 3 else line + b" ", [one for one in fields_of(head) if one[0] not in OURS | FRAMING]


class OctetTests(RigCase):
    async def shown(self, target: str) -> tuple[bytes, list[tuple[bytes, bytes]], list[bytes], bytes]:
        """:return: status and reason, the fields that are not ours, the names of those that are, the content."""
        client = await self.client()
        client.send(target, "Accept: a/b")
        head = await client.reader.readuntil(b"\r\n\r\n")
        while head[9:10] == b"1":
            head = await client.reader.readuntil(b"\r\n\r\n")
        told = dict(fields_of(head))
        content = b""
        if b"transfer-encoding" in told:
            while size := int(await client.reader.readuntil(b"\r\n"), 16):
                content += (await client.reader.readexactly(size + 2))[:-2]
        elif head[9:12] != b"204":
            content = await client.reader.readexactly(int(told[b"content-length"]))
        status, fields = final(head)
        ours = [name for name, _ in fields_of(head) if name in OURS]
        self.assertTrue(head.startswith(b"HTTP/1.1 "), head)
        return status, fields, ours, content

    def serve(self, responses: dict[str, Made]) -> dict[str, str]:
        def script(response: bytes):
            async def serve(exchange: Exchange) -> None:
                await exchange.send(response)

            return serve

        targets = {name: f"/{number}" for number, name in enumerate(responses)}
        for name, target in targets.items():
            self.origin.scripts[target] = script(responses[name][0])
        return targets

    def test_what_is_stored(self):
        async def test():
            for name, target in self.serve(STORED).items():
                response, content = STORED[name]
                status, fields = final(response)
                expected = status, fields, content
                missed = await self.shown(target)
                self.assertEqual(expected, (*missed[:2], missed[3]), name)
                await self.hit(target, "Accept: a/b")
                found = await self.shown(target)
                self.assertEqual(expected, (*found[:2], found[3]), name)
                # Each once; and an Age on what was stored alone.
                ranges = [b"accept-ranges"] if status.startswith(b"200") else []
                self.assertEqual([b"date", b"via", *ranges, b"cache-status"], missed[2], name)
                self.assertEqual([b"date", b"via", *ranges, b"age", b"cache-status"], found[2], name)
                self.assertEqual(1, self.origin.count(target), name)

        return self.run_async(test())

    def test_what_is_passed_on(self):
        async def test():
            for name, target in self.serve(PASSED).items():
                response, content = PASSED[name]
                for _ in range(2):
                    found = await self.shown(target)
                    self.assertEqual((*final(response), content), (*found[:2], found[3]), name)
                self.assertEqual(2, self.origin.count(target), name)

        return self.run_async(test())

    def test_what_nobody_is_to_see(self):
        async def test():
            responses = {name: plain(FRESH, b"A: 1", *lines, b"B: 2") for name, lines in TAKEN_OUT.items()}
            kept = [(b"cache-control", b"max-age=60"), (b"a", b"1"), (b"b", b"2")]
            for name, target in self.serve(responses).items():
                self.assertEqual(kept, (await self.shown(target))[1], name)
                hit = await self.hit(target, "Accept: a/b")
                self.assertEqual(kept, (await self.shown(target))[1], name)
                self.assertEqual("node-a", hit.cache_status.partition(";")[0], name)
                self.assertNotEqual("none", hit.fields["accept-ranges"], name)

        return self.run_async(test())
