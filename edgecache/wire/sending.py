"""Streaming a Source to a client, as fast as the client takes it and no faster."""

from __future__ import annotations

from typing import Protocol

from twisted.logger import Logger

from edgecache.wire.turns import Turns
from edgecache.words.ports import Reader, Source, WriteTo

_log = Logger()

PIECE = 64 << 10
"""Octets of one write. With :data:`HIGH_WATER` a slow reader holds at most 96 KiB (DESIGN 13)."""

HIGH_WATER = 32 << 10
"""Above this in the transport's buffer no further piece is read; with TLS, while there is anything."""

BURST = 1 << 20
"""Octets written past the transport in one call: a few hundred microseconds' worth."""

TURN = 1 << 20
"""Octets of large contents, of all connections together, from when on in a turn of the loop further ones wait."""

CRLF = b"\r\n"


class Sink(Protocol):
    """What a pump needs of a connection."""

    def put(self, pieces: list[bytes], content_octets: int) -> bool:
        """Write ``pieces``. Is there room for more at once?"""

    def direct(self) -> int:
        """:return: the socket, if nothing is on its way through the transport and no TLS is in between; else -1."""

    def put_directly(self, octets: int, content_octets: int) -> None:
        """So much was written past the transport."""

    def pumped(self, complete: bool) -> None:
        """The end: ``complete``, or the source failed."""


class Pump:
    """
    Octets ``start`` to ``stop`` of a source, written to a sink; one response's life long.

    ``stop`` is ``None`` for "until the source ends".
    """

    # fmt: off
    __slots__ = (
        "_burst", "_busy", "_chunked", "_head", "_position", "_sink", "_source", "_stop", "_stopped", "_turns",
        "_waiting", "_write_to",
    )
    # fmt: on

    def __init__(
        self,
        sink: Sink,
        turns: Turns,
        source: Source,
        start: int,
        stop: int | None,
        *,
        chunked: bool,
    ) -> None:
        self._sink = sink
        self._turns = turns
        self._head = b""
        self._source = source
        self._position = start
        self._stop = stop
        self._chunked = chunked
        self._write_to: WriteTo | None = None if stop is None else getattr(source, "write_to", None)
        self._burst = BURST
        self._busy = False
        self._waiting = False  # for room, or for our next turn: the source need not wake us
        self._stopped = False

    def start(self, head: bytes) -> None:
        """
        Attach to the source and write what is there.

        :param head: with its empty line; goes out together with the first piece, if that is there.
        """
        self._head = head
        self._source.attach(self)
        self._run()
        if self._head and not (self._stopped or self._waiting):
            head, self._head = self._head, b""
            self._waiting = not self._sink.put([head], 0)

    def stop(self) -> None:
        """The client has gone, or all is written: let go of the source."""
        if not self._stopped:
            self._stopped = True
            self._source.detach(self)

    def wake(self) -> None:
        """The source has something."""
        if not self._waiting:
            self._run()

    def resume(self) -> None:
        """There is room again, or it is our turn."""
        self._waiting = False
        self._run()

    def _run(self) -> None:
        if self._busy or self._stopped:
            return
        self._busy = True  # a source may wake us while we read it
        try:
            complete = self._write_turn()
        except Exception:  # noqa: BLE001  # no memory for a piece, or a defect: nobody would ever wake us again
            _log.failure("sending a content failed")
            complete = False
        finally:
            self._busy = False
        if complete is not None:
            self.stop()
            self._sink.pumped(complete)

    def _write_turn(self) -> bool | None:
        """:return: ``None`` to go on later, else whether the content is complete."""
        turns = self._turns
        while True:
            if not turns.open and not self._is_brief():
                self._waiting = True
                turns.wait(self.resume)
                return None
            if self._write_to is not None and self._write_directly(self._write_to):
                continue
            limit = PIECE if self._stop is None else min(PIECE, self._stop - self._position)
            data = self._source.read(self._position, limit) if limit else b""
            if not data:
                # It was the source that had no more, not the socket that took no more.
                self._burst = BURST
                return self._verdict(limit)
            self._position += len(data)
            pieces = [self._head] if self._head else []
            self._head = b""
            if self._chunked:
                pieces += (b"%x\r\n" % len(data), data, CRLF)
            else:
                pieces.append(data)
            turns.spend(len(data))
            room = self._sink.put(pieces, len(data))
            if self._stopped:
                return None
            if not room:
                self._waiting = True
                return None

    def _is_brief(self) -> bool:
        """
        What is small, and the end of what is large, is for now. Where nobody knows how much comes, it is small until it
        no longer is: most are pages.
        """
        return self._position < PIECE if self._stop is None else self._stop - self._position <= PIECE

    def _write_directly(self, write_to: WriteTo) -> bool:
        """
        :return: is it worth to go on this way? If not, the transport is to be used, and tells when there is room.
        """
        assert self._stop is not None
        asked = min(self._burst, self._stop - self._position)
        descriptor = self._sink.direct() if asked >= PIECE else -1
        if descriptor < 0:
            return False
        head = self._head
        written = write_to(descriptor, head, self._position, asked)
        content = max(0, written - len(head))
        self._head = head[written:]
        self._position += content
        # Whatever the socket takes: all that was asked for is verified first.
        self._turns.spend(asked)
        self._sink.put_directly(written, content)
        # So ask for about as much as the socket takes.
        if content == asked:
            self._burst = min(2 * self._burst, BURST)
            return True
        self._burst = max(content, PIECE)
        return False

    def _verdict(self, limit: int) -> bool | None:
        if limit == 0:
            self._flush_head()
            return True
        if self._source.failed is not None:
            self._flush_head()
            return False
        if self._source.ended(self._position):
            if self._stop is not None:  # shorter than promised
                self._flush_head()
                return False
            end = b"0\r\n\r\n" if self._chunked else b""
            self._sink.put([self._head + end], 0)
            self._head = b""
            return True
        return None

    def _flush_head(self) -> None:
        if self._head:
            self._sink.put([self._head], 0)
            self._head = b""


class InMemory:
    """A source that is here as a whole."""

    __slots__ = ("_octets", "failed", "length")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.length: int | None = len(octets)
        self.failed: Exception | None = None

    def read(self, position: int, limit: int) -> bytes:
        return self._octets[position : position + limit]

    def ended(self, position: int) -> bool:
        return position == len(self._octets)

    def attach(self, reader: Reader) -> None:
        """Nobody is ever woken: all is here."""

    def detach(self, reader: Reader) -> None:
        """See :meth:`attach`."""
