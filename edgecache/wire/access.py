"""The access log: one line per exchange, gathered during a turn of the loop and written at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import orjson
from attrs import define, field
from twisted.logger import Logger

from edgecache.words.messages import Request, field_values

_log = Logger()

_CACHE_STATUS = b"\r\ncache-status: "


@define(eq=False, repr=False)
class AccessLog:
    """
    Appends to one file; lines of several workers never mix, for each is written by one ``write``.

    :ivar combined: the "combined" format of web servers; else one JSON object per line.
    :ivar soon: ``loop.call_soon``.
    """

    _path: str
    _combined: bool
    _wall: Callable[[], float]
    _soon: Callable[[Callable[[], None]], Any]
    _descriptor: int = -1
    _lines: list[bytes] = field(factory=list)

    def open(self) -> None:
        """
        Open the file, or open it anew after it was rotated.

        :raises OSError: it cannot be written.
        """
        if self._path == "-":
            self._descriptor = 1
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self.close()
        self._descriptor = descriptor

    def close(self) -> None:
        """Write what is left and close."""
        self._write()
        if self._descriptor > 2:
            os.close(self._descriptor)
        self._descriptor = -1

    def done(
        self, request: Request | None, head: bytes, octets: int, complete: bool, started: float, peer: bytes
    ) -> None:
        """One exchange has ended (:class:`edgecache.wire.listener.OnDone`)."""
        if not self._lines:
            self._soon(self._write)
        line = _combined if self._combined else _json
        self._lines.append(line(request, head, octets, complete, started, self._wall(), peer))

    def _write(self) -> None:
        if self._lines and self._descriptor >= 0:
            lines, self._lines = self._lines, []
            try:
                os.write(self._descriptor, b"".join(lines))
            except OSError as error:
                # Serving goes on; the log says that lines are missing.
                _log.error("access log: {count} lines lost: {error}", count=len(lines), error=error)


def _json(
    request: Request | None, head: bytes, octets: int, complete: bool, started: float, now: float, peer: bytes
) -> bytes:
    line: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started)) + f".{int(started % 1 * 1000):03d}Z",
        "client": peer.decode("ascii"),
        "status": _status(head),
        "bytes": octets,
        "complete": complete,
        "seconds": round(now - started, 6),
    }
    if request is not None:
        line["method"] = request.method.decode("latin-1")
        line["host"] = request.authority.decode("latin-1")
        line["target"] = request.target.decode("latin-1")
        line["user_agent"] = _first(request, b"user-agent")
        if user := _user(request):
            line["user"] = user
    # This node's is the last one (RFC 9211 §2).
    _, found, after = head.rpartition(_CACHE_STATUS)
    if found:
        line["cache_status"] = after.partition(b"\r\n")[0].decode("latin-1")
    return orjson.dumps(line) + b"\n"


def _combined(
    request: Request | None, head: bytes, octets: int, complete: bool, started: float, now: float, peer: bytes
) -> bytes:
    when = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(started))
    asked = "-"
    referer = agent = user = "-"
    if request is not None:
        method, target = request.method.decode("latin-1"), request.target.decode("latin-1")
        asked = _quoted(f"{method} {target} HTTP/1.{request.minor}")
        referer = _quoted(_first(request, b"referer") or "-")
        agent = _quoted(_first(request, b"user-agent") or "-")
        user = _user(request) or "-"
    client = peer.decode("ascii") or "-"
    return f'{client} - {user} [{when}] "{asked}" {_status(head)} {octets} "{referer}" "{agent}"\n'.encode()


def _user(request: Request) -> str:
    """:return: name of the client of a private site that it was; never what it sent."""
    return str(getattr(request.asked, "client", ""))


def _status(head: bytes) -> int:
    return int(head[9:12]) if head else 0


def _first(request: Request, name: bytes) -> str:
    values = field_values(request.fields, name)
    return values[0].decode("latin-1") if values else ""


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
