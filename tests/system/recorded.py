"""
What installers, mirrors and publishers really send: request heads as they came, of the versions named (FIELD 3).

Only Host and the target are put in anew, and positions where they depend on the file.
"""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

from attrs import frozen

from tests.system.clients import Answer

_PATIENCE_SECONDS = 120.0

_PIP_AGENT = (
    'pip/{version} {{"ci":null,"cpu":"x86_64","distro":{{"id":"bookworm","libc":{{"lib":"glibc","version":"2.36"}},'
    '"name":"Debian GNU/Linux","version":"12"}},"implementation":{{"name":"CPython","version":"3.11.7"}},'
    '"installer":{{"name":"pip","version":"{version}"}},"openssl_version":"OpenSSL 3.0.19 27 Jan 2026",'
    '"python":"3.11.7","system":{{"name":"Linux","release":"6.18.44"}}}}'
)
_UV_AGENT = (
    'uv/0.13.9 {"installer":{"name":"uv","version":"0.13.9","subcommand":["pip","install"]},"python":"3.11.7",'
    '"implementation":{"name":"CPython","version":"3.11.7"},"distro":{"name":"Debian GNU/Linux","version":"12",'
    '"id":"bookworm","libc":{"lib":"glibc","version":"2.36"}},"system":{"name":"Linux","release":"6.18.44"},'
    '"cpu":"x86_64","openssl_version":null,"setuptools_version":null,"rustc_version":null,"ci":null}'
)
_POETRY_AGENT = "poetry/2.5.1 CPython/3.11.7 Linux/6.18.44"
_BANDERSNATCH_AGENT = "bandersnatch/6.8.0 (cpython 3.11.7-final0, Linux x86_64) (aiohttp 3.14.5)"
_PIP_PAGES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"
_UV_PAGES = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


@frozen
class Recorded:
    """
    One request as its client writes it.

    :ivar method: as sent. :ivar lines: the fields in its order; ``Host:`` is where the client puts it.
    """

    method: str
    lines: tuple[str, ...]

    def head(self, target: str, host: str, *more: str) -> bytes:
        """:param more: field lines at the end."""
        lines = [f"Host: {host}" if line == "Host:" else line for line in self.lines]
        return "\r\n".join([f"{self.method} {target} HTTP/1.1", *lines, *more, "", ""]).encode("latin-1")


def _pip(version: str, *more: str, method: str = "GET", accept: str = "*/*", coding: str = "identity") -> Recorded:
    agent = _PIP_AGENT.format(version=version)
    fields = (f"Accept-Encoding: {coding}", f"Accept: {accept}", "Connection: keep-alive", *more)
    return Recorded(method, ("Host:", f"User-Agent: {agent}", *fields))


PIP_22_PAGE = _pip("22.3.1", "Cache-Control: max-age=0", accept=_PIP_PAGES, coding="gzip, deflate")
PIP_25_PAGE = _pip("25.0.1", "Cache-Control: max-age=0", accept=_PIP_PAGES, coding="gzip, deflate")
PIP_26_PAGE = _pip("26.3", accept=_PIP_PAGES, coding="gzip, deflate")
PIP_22_FILE, PIP_26_FILE = _pip("22.3.1"), _pip("26.3")
PIP_22_HEAD, PIP_26_HEAD = _pip("22.3.1", method="HEAD"), _pip("26.3", method="HEAD")
PIP_26_RANGE = _pip("26.3")
"""fast-deps; Range and ``Cache-Control: no-cache`` come last, in this order. A resume has Range and If-Range there."""

UV_PAGE = Recorded(
    "GET", ("Accept-Encoding: gzip, deflate, zstd", f"Accept: {_UV_PAGES}", f"User-Agent: {_UV_AGENT}", "Host:")
)
UV_METADATA = Recorded(
    "GET", ("Accept: */*", f"User-Agent: {_UV_AGENT}", "Accept-Encoding: zstd,gzip,deflate", "Host:")
)
UV_FILE = Recorded("GET", ("Accept-Encoding: identity", "Accept: */*", f"User-Agent: {_UV_AGENT}", "Host:"))
UV_HEAD = Recorded("HEAD", UV_FILE.lines)


def uv_refresh(etag: str) -> Recorded:
    """``--refresh`` of a page that uv has; it has sent the tag without ``W/`` in front, or not at all."""
    coding, accept, *rest = UV_PAGE.lines
    return Recorded("GET", (coding, accept, "Cache-Control: no-cache", f"If-None-Match: {etag}", *rest))


def uv_range(first: int, last: int) -> Recorded:
    """Of the wheel's end: the last 16,384 octets, by positions that HEAD has told."""
    return Recorded("GET", (f"Range: bytes={first}-{last}", *UV_FILE.lines))


def _poetry(*more: str, coding: str = "gzip, deflate, zstd", accept: str = "*/*") -> Recorded:
    fields = (f"Accept-Encoding: {coding}", f"Accept: {accept}", "Connection: keep-alive", *more)
    return Recorded("GET", ("Host:", f"User-Agent: {_POETRY_AGENT}", *fields))


POETRY_PAGE = _poetry(accept="application/vnd.pypi.simple.v1+json, */*;q=0.1")
POETRY_METADATA = _poetry()
POETRY_TAIL = _poetry("Cache-Control: no-cache", "Range: bytes=-10000", coding="identity")
POETRY_FILE = _poetry(coding="Identity")

BANDERSNATCH_LIST = Recorded(
    "GET",
    (
        "Host:",
        "User-Agent: bandersnatch 6.8.0 aiohttp XML-RPC client (Python: 3.11.7.final.0, version: 1.5.0)",
        "Accept: application/vnd.pypi.simple.v1+json",
        "Accept-Encoding: gzip, deflate",
    ),
)
BANDERSNATCH_GET = Recorded(
    "GET", ("Host:", f"User-Agent: {_BANDERSNATCH_AGENT}", "Accept: */*", "Accept-Encoding: gzip, deflate")
)
"""Of releases documents and of files."""

TWINE_UPLOAD = Recorded(
    "POST",
    (
        "Host:",
        "User-Agent: twine/7.0.0 CPython/3.11.7",
        "Accept-Encoding: gzip, deflate",
        "Accept: */*",
        "Connection: keep-alive",
        "Content-Type: multipart/form-data; boundary=f9e693d698e4481d85f4750fa97fab04",
        "Content-Length: 302038",
        "Authorization: Basic YTpi",
    ),
)


def send(url: str, recorded: Recorded, target: str, *more: str, content: bytes = b"") -> Answer:
    """
    Send it as it is, and read what comes as Python's ``http.client`` does: the first head is the answer.

    :param more: field lines at the end.
    :return: content is as it came, coded.
    :raises AssertionError: the end of the content cannot be told, or octets come after it.
    """
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), _PATIENCE_SECONDS) as sock:
        sock.sendall(recorded.head(target, parts.netloc, *more) + content)
        octets = b""
        while b"\r\n\r\n" not in octets:
            piece = sock.recv(1 << 16)
            if not piece:
                raise AssertionError(f"no head but {octets!r}")
            octets += piece
        head, _, body = octets.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        number = int(status.split(" ")[1])
        if recorded.method == "HEAD" or number in (204, 304):
            length = 0
        elif "content-length" in fields:
            length = int(fields["content-length"])
        else:
            raise AssertionError(f"nobody knows how long it is: {head!r}")
        while len(body) < length:
            piece = sock.recv(1 << 16)
            if not piece:
                break
            body += piece
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            body += sock.recv(1 << 16)
        if len(body) > length:
            raise AssertionError(f"{len(body) - length} octets after the content of {head!r}")
        return Answer(number, fields, body, len(body) == length)
