"""
Seeded inputs: octets of HTTP, most of them nearly right.

``EDGECACHE_FUZZ=600`` goes on for so many seconds instead of a small number of inputs. Each input has a seed of its
own, which the failure names: ``EDGECACHE_SEED`` with it begins with that one.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator, Sequence

SECONDS = float(os.environ.get("EDGECACHE_FUZZ", "0"))
SEED = int(os.environ.get("EDGECACHE_SEED", random.SystemRandom().randrange(1 << 32)))


def inputs(few: int) -> Iterator[tuple[int, random.Random]]:
    """
    :param few: inputs in the short form.
    :return: seeds, each with its generator.
    """
    seed, began = SEED, time.monotonic()
    while time.monotonic() - began < SECONDS if SECONDS else seed - SEED < few:
        yield seed, random.Random(seed)
        seed += 1
    if SECONDS:
        sys.stderr.write(f"{seed - SEED} inputs from seed {SEED} on\n")


_OCTETS = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\0", b"\t", b" ", b"\x0b", b"\x0c", b"\x7f", b"\x85",
    b"\xa0", b"\xff", b",", b";", b":", b"_", b"=", b'"', b"#", b"%00", b"0", b"1", b"f", b"\r\n ", b"\r\n\t", b"-",
)  # fmt: skip

_LINES = (
    b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: \tCHUNKED ", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding:\r\n chunked", b"Transfer_Encoding: chunked",
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 5, 5", b"Content-Length: +5", b"Content-Length: 0x5",
    b"Content-Length: 05", b"Content-Length:5 ", b"Content-Length: 18446744073709551621", b"Content_Length: 5",
    b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade, te", b"Connection: content-length",
    b"Connection: transfer-encoding, host", b"Upgrade: h2c", b"Upgrade: websocket", b"HTTP2-Settings: AAMAAABk",
    b"Expect: 100-continue", b"Expect: 200-ok", b"TE: trailers", b"Trailer: Content-Length", b"Keep-Alive: timeout=5",
    b"Host: b", b"Host: a, b", b"Host:", b"X:", b"X: \t", b"X: a b", b"X : a", b" X: a", b"X", b": a", b"X: \xe4",
    b"Proxy-Connection: keep-alive", b"Content-Encoding: gzip", b"X-HTTP-Method-Override: PUT", b"Range: bytes=0-1",
)  # fmt: skip


def around(rng: random.Random, octets: bytes, others: Sequence[bytes]) -> bytes:
    """:return: ``octets`` after some changes of the kinds that make parsers disagree."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        octets = _changed(rng, octets, others)
    return octets


def _changed(rng: random.Random, octets: bytes, others: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(octets) + 1)
    lines = octets.split(b"\r\n")
    line = rng.randrange(len(lines))
    match rng.randrange(11):
        case 0 | 1:
            return octets[:at] + rng.choice(_OCTETS) + octets[at:]
        case 2:
            return octets[:at] + octets[at + rng.choice((1, 1, 2, 4)) :]
        case 3:
            return octets[:at] + bytes([rng.randrange(256)]) + octets[at + 1 :]
        case 4 | 5:
            lines.insert(max(1, line), rng.choice(_LINES))
        case 6:
            lines.insert(line, lines[rng.randrange(len(lines))])
        case 7:
            del lines[line]
        case 8:
            lines[line] = rng.choice((lines[line].swapcase(), lines[line] + b" ", lines[line].replace(b" ", b"\t")))
        case 9:
            other = rng.choice(others)
            return octets[:at] + other[rng.randrange(len(other)) :]
        case _:
            near = [n for n, octet in enumerate(octets) if octet in b"\r\n:0123456789 "]
            if near:
                at = rng.choice(near)
                return octets[:at] + rng.choice(_OCTETS) + octets[at + rng.choice((0, 1)) :]
    return b"\r\n".join(lines)


def pieces(rng: random.Random, octets: bytes) -> list[bytes]:
    """:return: ``octets``, cut where packets may end."""
    cuts = sorted(rng.randrange(len(octets) + 1) for _ in range(rng.choice((0, 1, 1, 2, 3, 8))))
    return [octets[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(octets)], strict=True) if stop > start]


_NAMES = (b"Accept", b"X", b"Cookie", b"X-Forwarded-Host", b"a.b", b"!#$%&'*+-.^_`|~", b"Via")
_VALUES = (b"", b"a", b"a, b", b"q;w=1", b'"x"', b"\xc3\xa9", b"a  b\tc", b"*/*;q=0.1", b"chunked", b"5")


def fields(rng: random.Random) -> bytes:
    """:return: some field lines that mean nothing for framing."""
    lines = (rng.choice(_NAMES) + b":" + rng.choice((b" ", b"", b" \t")) + rng.choice(_VALUES) for _ in range(3))
    return b"".join(line + b"\r\n" for line in lines if rng.random() < 0.5)


def framed(rng: random.Random, content: bytes) -> bytes:
    """:return: framing fields, the empty line, and ``content`` in that framing."""
    if rng.random() < 0.5:
        return b"Content-Length: %d\r\n\r\n" % len(content) + content
    chunks = b""
    while content:
        size = rng.randrange(1, len(content) + 1)
        extension = rng.choice((b"", b"", b";a", b";a=b", b';a="b c"', b" ", b";"))
        number = rng.choice((b"%x", b"%X", b"0%x", b"%x")) % size
        chunks += number + extension + b"\r\n" + content[:size] + b"\r\n"
        content = content[size:]
    trailers = rng.choice((b"", b"", b"X: y\r\n", b"Content-Length: 3\r\n", b"Host: b\r\nX: \r\n"))
    end = rng.choice((b"0", b"0", b"00", b"0;a=b")) + b"\r\n" + trailers + b"\r\n"
    return b"Transfer-Encoding: chunked\r\n\r\n" + chunks + end
