"""
Origins with a character: what a client of ours may meet, each with a name.

They are asyncio protocols, so the same ones play on the in-memory network (:class:`Stage`) and on real
sockets (:func:`perform`). Each counts what it was asked.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from edgecache.upstream.addresses import Address, parse_origin
from edgecache.words.ports import Timers
from tests.memnet import MemoryTransport, Network

EPOCH = 1_700_000_000


@define(eq=False)
class Asked:
    """One request as an origin saw it; names of fields in lower case."""

    method: bytes
    target: bytes
    fields: dict[bytes, bytes]
    content: bytes = b""


@define(eq=False)
class Character:
    """
    What an origin does, on all of its connections.

    :ivar asked: every request, in the order in which its head came.
    :ivar connections: those made so far.
    :ivar tired: from now on it closes the connection instead of answering.
    :ivar playing: open ones.
    """

    asked: list[Asked] = field(factory=list, init=False)
    connections: int = field(default=0, init=False)
    playing: list[Player] = field(factory=list, init=False)
    tired: bool = field(default=False, init=False)

    def player(self) -> Player:
        """:return: the protocol of one more connection."""
        return Player(self)

    def answer(self, asked: Asked, player: Player) -> None:
        """A request has come in whole."""
        raise NotImplementedError

    def hurry(self, asked: Asked, player: Player) -> bool:
        """The head of a request with content has come. Was it answered already?"""
        return False


@define(eq=False)
class Player(asyncio.Protocol):
    """One connection: cuts what comes into requests and lets the character answer."""

    character: Character
    transport: Any = None
    resetting: Callable[[Any], None] = lambda transport: _reset(transport)
    _buffer: bytes = b""
    _begun: bool = False
    _answered: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.character.connections += 1
        self.character.playing.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.character.playing.remove(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (found := _request(self._buffer)) is not None:
            asked, rest, whole = found
            if not self._begun:
                self._begun = True
                self._answered = not whole and self.character.hurry(asked, self)
                if self._answered:
                    self.character.asked.append(asked)
            if not whole:
                return
            self._buffer = rest
            self._begun = False
            if not self._answered:
                self.character.asked.append(asked)
                if self.character.tired:
                    self.transport.close()
                else:
                    self.character.answer(asked, self)

    def reset(self) -> None:
        """Make the other side see a reset."""
        self.resetting(self.transport)

    def send(self, *octets: bytes) -> None:
        """Write, whatever it is."""
        self.transport.write(b"".join(octets))


@define(eq=False)
class Good(Character):
    """Answers every request as it should, ranges and conditions of one validator included."""

    content: bytes = b"good content"
    status: bytes = b"200 OK"
    etag: bytes | None = b'"one"'
    fields: tuple[tuple[bytes, bytes], ...] = ()
    announce: bytes | None = None

    def answer(self, asked: Asked, player: Player) -> None:
        head, content = self.response(asked)
        player.send(head, b"" if asked.method == b"HEAD" else content)

    def response(self, asked: Asked) -> tuple[bytes, bytes]:
        """:return: head and content of the right answer."""
        status, content, fields = self.status, self.content, list(self.fields)
        if self.etag is not None:
            fields.append((b"ETag", self.etag))
            if asked.fields.get(b"if-none-match") == self.etag:
                return _head(b"304 Not Modified", fields), b""
        wanted = re.fullmatch(rb"bytes=(\d+)-(\d*)", asked.fields.get(b"range", b""))
        if wanted is not None and asked.fields.get(b"if-range", self.etag) == self.etag:
            start, stop = int(wanted[1]), int(wanted[2] or len(content) - 1) + 1
            fields.append((b"Content-Range", b"bytes %d-%d/%d" % (start, stop - 1, len(content))))
            status, content = b"206 Partial Content", content[start:stop]
        if self.announce is not None:
            fields.append((b"Keep-Alive", self.announce))
        fields.append((b"Content-Length", b"%d" % len(content)))
        return _head(status, fields), content


@define(eq=False)
class Silent(Character):
    """Reads, and never answers."""

    def answer(self, asked: Asked, player: Player) -> None:
        pass


@define(eq=False)
class Stalling(Good):
    """The right head and ``after`` octets of the right content; then nothing, and it stays open."""

    after: int = 0

    def answer(self, asked: Asked, player: Player) -> None:
        head, content = self.response(asked)
        player.send(head, content[: self.after])


@define(eq=False)
class Cut(Stalling):
    """Like :class:`Stalling`, but closes in order."""

    def answer(self, asked: Asked, player: Player) -> None:
        super().answer(asked, player)
        player.transport.close()


@define(eq=False)
class Resetting(Stalling):
    """Like :class:`Stalling`, but resets the connection once those octets have arrived."""

    def answer(self, asked: Asked, player: Player) -> None:
        super().answer(asked, player)
        player.reset()


@define(eq=False)
class Lying(Good):
    """The right head, validator and length, and content that is wrong from octet ``after`` on."""

    after: int = 0

    def answer(self, asked: Asked, player: Player) -> None:
        head, content = self.response(asked)
        wrong = bytes(octet ^ 0xFF for octet in content[self.after :])
        player.send(head, content[: self.after], wrong)


@define(eq=False)
class Wholesale(Good):
    """Knows no ranges: the whole content for every request."""

    def response(self, asked: Asked) -> tuple[bytes, bytes]:
        return super().response(_less(asked, b"range"))


@define(eq=False)
class Stubborn(Good):
    """Takes every If-Range for granted: a 206 of its own content, whose entity tag may be another."""

    def response(self, asked: Asked) -> tuple[bytes, bytes]:
        return super().response(_less(asked, b"if-range"))


@define(eq=False)
class Shifting(Good):
    """Answers a range with one that begins ``by`` octets later, and says so."""

    by: int = 1

    def response(self, asked: Asked) -> tuple[bytes, bytes]:
        wanted = asked.fields.get(b"range", b"")
        if wanted:
            start = int(wanted.removeprefix(b"bytes=").partition(b"-")[0])
            asked = evolve(asked, fields={**asked.fields, b"range": b"bytes=%d-" % (start + self.by)})
        return super().response(asked)


@define(eq=False)
class Boasting(Good):
    """Says of a range that the whole content is ``more`` octets longer than it is."""

    more: int = 1

    def response(self, asked: Asked) -> tuple[bytes, bytes]:
        head, content = super().response(asked)
        length = len(self.content)
        return head.replace(b"/%d\r\n" % length, b"/%d\r\n" % (length + self.more)), content


@define(eq=False)
class Multipart(Good):
    """Answers a range with a part in multipart/byteranges, whose head names the range as well."""

    def response(self, asked: Asked) -> tuple[bytes, bytes]:
        head, content = super().response(asked)
        if b" 206 " not in head:
            return head, content
        fields = b"Content-Type: multipart/byteranges; boundary=x\r\n"
        return head.replace(b"\r\n\r\n", b"\r\n" + fields + b"\r\n"), content


@define(eq=False)
class Chunking(Good):
    """
    The right answer in chunks of ``piece`` octets, without a length; a range too, if ``ranges``.

    Of a whole content it sends only ``after`` octets and no last chunk, unless that is ``None``; then it closes.
    """

    piece: int = 1000
    after: int | None = None
    ranges: bool = True

    def answer(self, asked: Asked, player: Player) -> None:
        head, content = self.response(asked if self.ranges else _less(asked, b"range"))
        head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
        cut = self.after is not None and b" 200 " in head
        if cut:
            content = content[: self.after]
        pieces = [content[start : start + self.piece] for start in range(0, len(content), self.piece)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        player.send(head, chunks, b"" if cut else b"0\r\n\r\n")
        if cut:
            player.transport.close()


@define(eq=False)
class Dripping(Good):
    """The right answer, ``at_once`` octets of it, then ``piece`` octets every ``seconds``."""

    timers: Timers = field(factory=Clock)
    piece: int = 1
    seconds: float = 1.0
    at_once: int = 0

    def answer(self, asked: Asked, player: Player) -> None:
        head, content = self.response(asked)
        octets = head + content
        if self.at_once:
            player.send(octets[: self.at_once])
            octets = octets[self.at_once :]
        self._drip(octets, player)

    def _drip(self, octets: bytes, player: Player) -> None:
        if octets and player in self.playing:
            player.send(octets[: self.piece])
            self.timers.callLater(self.seconds, self._drip, octets[self.piece :], player)


@define(eq=False)
class Saying(Character):
    """Exactly these octets for every request, then an end of the stream where ``close``."""

    octets: bytes = b""
    close: bool = False

    def answer(self, asked: Asked, player: Player) -> None:
        player.send(self.octets)
        if self.close:
            player.transport.close()


@define(eq=False)
class Hasty(Saying):
    """Says it as soon as it has a request's head, content or not."""

    def hurry(self, asked: Asked, player: Player) -> bool:
        self.answer(asked, player)
        return True


@define(eq=False)
class Refusing(Character):
    """No listener at all: for :meth:`Stage.play` only."""


@define(eq=False)
class Stage(Network):
    """The in-memory network as a dialer: characters play on it, resets included."""

    clock: Clock = field(factory=Clock)
    _resets: list[MemoryTransport] = field(factory=list)
    _hanging: dict[str, float] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not self.clock.seconds():
            self.clock.advance(EPOCH)

    def play(self, host: str, character: Character, url: str = "http://origin.example") -> Address:
        """:return: where ``character`` plays from now on."""
        if not isinstance(character, Refusing):
            self.listen(host, lambda: self._player(character))
        return Address(parse_origin(url), host, 80)

    def hang(self, host: str, seconds: float = math.inf) -> None:
        """From now on ``host`` takes so long to answer to a connection attempt; by default for ever."""
        self._hanging[host] = seconds

    def connect(self, factory: Callable[[], asyncio.Protocol], address: Any) -> Any:
        """The dialer's: an address, and the transport alone."""
        host = address.path or address.host
        answer: Deferred[Any] = Deferred()
        seconds = self._hanging.get(host, 0.0)
        if seconds == math.inf:
            return answer
        if seconds:
            answer.addCallback(lambda _: super(Stage, self).connect(factory, host))
            self.clock.callLater(seconds, lambda: None if answer.called else answer.callback(None))
        else:
            answer = super().connect(factory, host)
        return answer.addCallback(lambda pair: pair[0])

    def secure(self, transport: Any, protocol: Any, context: ssl.SSLContext, host: str) -> Deferred[Any]:
        """Nobody speaks TLS in memory: a handshake hangs."""
        return Deferred()

    def settle(self, quantum: int = 65536) -> None:
        super().settle(quantum)
        for link in self.links:
            # What is on its way to an end that has gone arrives nowhere.
            if link.a._lost and link.b.outbox:
                link.b.outbox.clear()
        super().settle(quantum)
        while self._resets:
            resets, self._resets = self._resets, []
            for link in self.links:
                if link.b in resets:
                    link.cut(ConnectionResetError("reset by peer"))
            super().settle(quantum)

    def _player(self, character: Character) -> Player:
        player = character.player()
        player.resetting = self._resets.append
        return player


def perform(
    loop: asyncio.AbstractEventLoop,
    character: Character,
    context: ssl.SSLContext | None = None,
    path: str | None = None,
) -> Deferred[Performance]:
    """Let ``character`` play on a real socket of loopback, or at ``path``."""

    async def started() -> Performance:
        if path is not None:
            return Performance(await loop.create_unix_server(character.player, path, ssl=context), path)
        return Performance(await loop.create_server(character.player, "127.0.0.1", 0, ssl=context), None)

    return Deferred.fromFuture(loop.create_task(started()))


@define(eq=False)
class Performance:
    """A character on a real socket."""

    server: asyncio.Server
    path: str | None

    def address(self, url: str = "http://origin.example") -> Address:
        """:return: where it plays."""
        if self.path is not None:
            return Address(parse_origin(url), path=self.path)
        return Address(parse_origin(url), "127.0.0.1", self.server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Accept no more."""
        self.server.close()


def _reset(transport: Any) -> None:
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _less(asked: Asked, name: bytes) -> Asked:
    """:return: the request as it looks to an origin that ignores the field ``name``."""
    return evolve(asked, fields={key: value for key, value in asked.fields.items() if key != name})


def _head(status: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % line for line in fields)
    return b"HTTP/1.1 %b\r\n%b\r\n" % (status, lines)


def _request(octets: bytes) -> tuple[Asked, bytes, bool] | None:
    """:return: the first request in ``octets``, what follows, and is it whole? ``None`` before its head is."""
    head, end, rest = octets.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    method, target, _version = first.split(b" ")
    fields = {}
    for line in lines:
        name, _colon, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    asked = Asked(method, target, fields)
    if fields.get(b"transfer-encoding") == b"chunked":
        while True:
            size, end, after = rest.partition(b"\r\n")
            length = int(size, 16) if end else 0
            if not end or len(after) < length + 2:
                return asked, octets, False
            asked.content += after[:length]
            rest = after[length + 2 :]
            if not length:
                return asked, rest, True
    length = int(fields.get(b"content-length", b"0"))
    asked.content = rest[:length]
    return asked, rest[length:], len(rest) >= length
