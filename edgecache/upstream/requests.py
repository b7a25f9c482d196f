"""A request towards an upstream: built anew, its content streamed with back-pressure (RFC 9112 §3, §6)."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence
from typing import Protocol

from edgecache.upstream.addresses import Origin
from edgecache.words.messages import Outbound
from edgecache.words.ports import Source

PIECE = 64 << 10
"""Octets of a client's content read at a time."""

_NOT_OURS = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade"))
_WITH_CONTENT = frozenset((b"POST", b"PUT", b"PATCH"))
_UNSAFE = bytes(sorted(frozenset((*range(32), 127)) - frozenset(b"\t\r\n")))
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def serialise(outbound: Outbound, origin: Origin) -> bytes:
    """
    :return: the request's head, its empty line included.

    :raises ValueError: it would not be one request: a mistake of ours that
        must never become octets (request splitting).
    """
    method, target = outbound.method, outbound.target
    if target[:1] == b"/":
        target = origin.prefix + target
    elif target != b"*":
        raise ValueError("target is neither origin-form nor an asterisk")
    if _TOKEN.fullmatch(method) is None or method == b"CONNECT" or b" " in target or b"\t" in target:
        raise ValueError("malformed method or target")
    block, authorized = _field_lines(tuple(outbound.fields))
    authority = outbound.authority or origin.authority
    lines = [method, b" ", target, b" HTTP/1.1\r\nHost: ", authority, b"\r\n", block]
    count = 2 + len(outbound.fields)
    # The answer to TRACE is what was sent (RFC 9110 §9.3.8): ours must not be in it.
    if origin.authorization is not None and not authorized and method != b"TRACE":
        lines += (b"authorization: ", origin.authorization, b"\r\n")
        count += 1
    if outbound.content is not None:
        count += 1
        if outbound.content_length is None:
            lines.append(b"transfer-encoding: chunked\r\n")
        else:
            lines.append(b"content-length: %d\r\n" % outbound.content_length)
    elif method in _WITH_CONTENT:
        # RFC 9110 §8.6: a server may demand it (411).
        count += 1
        lines.append(b"content-length: 0\r\n")
    lines.append(b"\r\n")
    head = b"".join(lines)
    # Dropping them and comparing takes a third of a search.
    ends = count + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or len(head.translate(None, _UNSAFE)) != len(head):
        raise ValueError("control octet in a request")
    return head


# Of a client's requests, and of all clients' of one kind, all but the target is the same.
@functools.lru_cache(64)
def _field_lines(fields: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bool]:
    """
    :return: their lines; is Authorization among them?
    :raises ValueError: one is not theirs to set.
    """
    for name, _ in fields:
        if name in _NOT_OURS:
            raise ValueError(f"field {name!r} belongs to the connection")
    return b"".join([b"%b: %b\r\n" % line for line in fields]), any(name == b"authorization" for name, _ in fields)


class Sender(Protocol):
    """Who is told how sending the content goes."""

    def waiting(self) -> None:
        """The client, not the upstream, is awaited now: no deadline of the upstream runs."""

    def sent(self) -> None:
        """All content was handed to the transport."""

    def unsendable(self, error: Exception) -> None:
        """The content broke off (the client has gone) or is not as long as announced."""


class ContentPump:
    """
    Carries one request's content from its source to the transport.

    :ivar done: nothing more will be written: all was sent, or :meth:`stop` was called.
    :ivar blocked: the transport's buffer is full.
    """

    __slots__ = ("_left", "_position", "_pumping", "_sender", "_source", "_transport", "blocked", "done")

    def __init__(self, source: Source, length: int | None, sender: Sender) -> None:
        self.done = False
        self.blocked = False
        self._source = source
        self._left = length
        self._sender = sender
        self._transport: asyncio.Transport | None = None
        self._position = 0
        self._pumping = False

    def start(self, transport: asyncio.Transport) -> None:
        """The head was written; go on with the content."""
        self._transport = transport
        self._source.attach(self)
        self.wake()

    def stop(self) -> None:
        """The rest is not wanted, or cannot be sent any more."""
        if not self.done:
            self.done = True
            self._source.detach(self)

    def wake(self) -> None:
        """More may be there, or the transport takes more."""
        # Reading may let more come at once, which wakes us again.
        if self._pumping or self._transport is None:
            return
        self._pumping = True
        try:
            while not self.done and not self.blocked:
                if not self._step(self._transport):
                    break
        finally:
            self._pumping = False

    def _step(self, transport: asyncio.Transport) -> bool:
        """Send one piece. Is there any use in trying the next?"""
        # One octet more than is announced shows a source that lies, before it is sent.
        limit = PIECE if self._left is None else min(PIECE, self._left + 1)
        piece = self._source.read(self._position, limit)
        if piece:
            self._position += len(piece)
            if self._left is None:
                transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
            elif len(piece) > self._left:
                self._break(ValueError("content is longer than announced"))
            else:
                self._left -= len(piece)
                transport.write(piece)
        elif self._source.failed is not None:
            self._break(self._source.failed)
        elif self._source.ended(self._position):
            if self._left:
                self._break(ValueError("content is shorter than announced"))
            else:
                if self._left is None:
                    transport.write(b"0\r\n\r\n")
                self.stop()
                self._sender.sent()
        else:
            self._sender.waiting()
            return False
        return True

    def _break(self, error: Exception) -> None:
        self.stop()
        self._sender.unsendable(error)
