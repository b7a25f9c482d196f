"""
How two parsers of other people read octets: llhttp (httptools) and h11, each octet by octet, so that it is known where
a message ends.

Both are more lenient than ours in places, and each in others: what both and we read must be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h11
import httptools
from attrs import Factory, define

from edgecache.words.messages import Fields

CLOSE = -1
"""The message ended with the connection."""


@define
class Message:
    """
    One message, of a request as of a response.

    :ivar start: method and target, or the status.
    :ivar fields: names in lower case, values without white space around them; no trailers.
    :ivar end: octets of the connection up to its end; ``0`` while it is not complete.
    """

    start: tuple[bytes, ...]
    fields: Fields = Factory(list)
    content: bytes = b""
    end: int = 0


@define
class Reading:
    """
    What a parser made of a connection.

    :ivar messages: the complete ones, in order.
    :ivar refused_at: octets after which it gave up, ``None`` where it did not.
    :ivar detail: why.
    """

    messages: list[Message] = Factory(list)
    refused_at: int | None = None
    detail: str = ""

    def agrees(self, number: int, ours: Message, seen: Callable[[Message], Message]) -> bool:
        """
        Is message ``number`` the one that we read, or was it refused?

        :param seen: what a message of this parser is in our words.
        """
        if number < len(self.messages):
            return seen(self.messages[number]) == ours
        # Whoever waits for more of a message that ended for us has lost the boundary.
        return self.refused_at is not None and (ours.end == CLOSE or self.refused_at <= ours.end)


def _field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return name.lower(), value.strip(b" \t")


@define(eq=False)
class _Heard:
    """httptools' callbacks. It gives trailers to ``on_header`` as well."""

    start: Callable[[], tuple[bytes, ...]]
    reading: Reading
    url: bytes = b""
    message: Message | None = None
    _fields: Fields = Factory(list)
    at: int = 0

    def on_message_begin(self) -> None:
        self.url, self._fields, self.message = b"", [], None

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.message is None:
            self._fields.append(_field(name, value))

    def on_headers_complete(self) -> None:
        self.message = Message(self.start(), self._fields)

    def on_body(self, octets: bytes) -> None:
        assert self.message is not None
        self.message.content += octets

    def on_message_complete(self) -> None:
        assert self.message is not None
        self.message.end = self.at
        self.reading.messages.append(self.message)


def _llhttp(heard: _Heard, feed: Callable[[bytes], None], octets: bytes) -> Reading:
    reading = heard.reading
    for at in range(len(octets)):
        heard.at = at + 1
        try:
            feed(octets[at : at + 1])
        except httptools.HttpParserUpgrade:
            # It leaves HTTP here; whether that is right is the server's to say, so nobody knows what follows.
            reading.refused_at, reading.detail = at + 1, "upgrade"
            break
        except httptools.HttpParserError as error:
            reading.refused_at, reading.detail = at + 1, str(error)
            break
    return reading


def llhttp_requests(octets: bytes) -> Reading:
    """:return: what llhttp reads on a server's connection."""
    heard = _Heard(lambda: (parser.get_method(), heard.url), Reading())
    parser = httptools.HttpRequestParser(heard)
    return _llhttp(heard, parser.feed_data, octets)


def llhttp_responses(octets: bytes) -> Reading:
    """:return: what llhttp reads on a client's connection; it cannot be told that a request was HEAD."""
    heard = _Heard(lambda: (b"%d" % parser.get_status_code(),), Reading())
    parser = httptools.HttpResponseParser(heard)
    reading = _llhttp(heard, parser.feed_data, octets)
    message = heard.message
    if message is not None and not message.end and reading.refused_at is None and parser.should_keep_alive() is False:
        names = dict(message.fields)
        if b"content-length" not in names and b"transfer-encoding" not in names:
            message.end = CLOSE
            reading.messages.append(message)
    return reading


def h11_requests(octets: bytes) -> Reading:
    """:return: what h11 reads as a server that answers each request at once."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reading, current = Reading(), Message(())
    for at in range(len(octets)):
        try:
            connection.receive_data(octets[at : at + 1])
            while True:
                event: Any = connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    break
                if isinstance(event, h11.Request):
                    current = Message((event.method, event.target), _fields_of(event))
                elif isinstance(event, h11.Data):
                    current.content += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    current.end = at + 1
                    reading.messages.append(current)
                    if not _answered(connection):
                        # It keeps no connection of HTTP/1.0, and says nothing of what follows.
                        reading.refused_at = at + 1 if connection.their_http_version == b"1.0" else None
                        return reading
        except h11.RemoteProtocolError as error:
            reading.refused_at, reading.detail = at + 1, str(error)
            break
    return reading


def _answered(connection: h11.Connection) -> bool:
    """May another request follow?"""
    connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    return True


def h11_responses(octets: bytes, method: bytes, *, close: bool) -> Reading:
    """
    :param close: the connection ends in order after ``octets``.
    :return: what h11 reads as a client that has sent one request; interim responses too.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    reading, current = Reading(), Message(())
    for at in range(len(octets) + close):
        try:
            connection.receive_data(octets[at : at + 1])
            while True:
                event: Any = connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    break
                end = CLOSE if at == len(octets) else at + 1
                if isinstance(event, h11.InformationalResponse):
                    reading.messages.append(Message((b"%d" % event.status_code,), _fields_of(event), end=end))
                elif isinstance(event, h11.Response):
                    current = Message((b"%d" % event.status_code,), _fields_of(event))
                elif isinstance(event, h11.Data):
                    current.content += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    current.end = end
                    reading.messages.append(current)
        except h11.RemoteProtocolError as error:
            reading.refused_at, reading.detail = at + 1, str(error)
            break
    return reading


def _fields_of(event: Any) -> Fields:
    return [_field(bytes(name), bytes(value)) for name, value in event.headers]
