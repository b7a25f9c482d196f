"""
Siblings' look-ups of content, answered (DESIGN 9): who is at the other end of a connection, what this node has applied,
and the signs of life of a look-up that takes a while. Those that this node makes: :mod:`edgecache.siblings.origins`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from attrs import define, field

from edgecache.rules.lookups import positions_value
from edgecache.rules.rounds import covers
from edgecache.rules.siblinghood import BEAT_SECONDS
from edgecache.siblings.identity import BadCertificate, certificate_of, named_id
from edgecache.siblings.problems import Problems
from edgecache.wire.connection import Connection
from edgecache.wire.listener import Listener
from edgecache.words.errors import ControlFailed
from edgecache.words.ports import Downstream, HotContent, Reader, Source, Timer, Timers
from edgecache.words.purging import LogName, Positions


@define(eq=False, repr=False)
class Guests:
    """
    Who may look content up here.

    :ivar members: ids.
    """

    _members: Collection[str]
    _problems: Problems

    def connection(self, listener: Listener, peer: bytes, release: Callable[[], None]) -> Connection:
        """For :attr:`edgecache.wire.listener.Listener.make`."""
        return SiblingConnection(self, listener, peer, release)

    def identify(self, transport: asyncio.BaseTransport, host: bytes) -> tuple[str, float] | None:
        """:return: id and end of the certificate, seconds since the epoch; ``None``, and logged: no member's."""
        tls = transport.get_extra_info("ssl_object")
        try:
            certificate = certificate_of(None if tls is None else tls.getpeercert(True))
            found = named_id(certificate)
            if found not in self._members:
                raise BadCertificate(f"{found} is no member of this node's fleet")
        except BadCertificate as error:
            self._problems.tell(host.decode("latin-1"), error.problem)
            return None
        return found, certificate.not_valid_after_utc.timestamp()


class SiblingConnection(Connection):
    """
    A connection of a sibling; nobody else's is kept open.

    :ivar sibling: its id.
    :ivar not_after: of its certificate, seconds since the epoch.
    """

    __slots__ = ("_guests", "not_after", "sibling")

    def __init__(self, guests: Guests, listener: Listener, peer: bytes, release: Callable[[], None]) -> None:
        super().__init__(listener, peer, release)
        self._guests = guests
        self.sibling = ""
        self.not_after = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: the certificate is the fleet's."""
        super().connection_made(transport)
        found = self._guests.identify(transport, self.peer)
        if found is None:
            self.turn_away()
        else:
            self.sibling, self.not_after = found


@define(eq=False, repr=False)
class Applied:
    """
    Up to where this node has applied the logs of purges, as every worker of it sees.

    :ivar own: its own log, which is known before anything is in it.
    :ivar read: epoch and positions that are in control.
    :ivar published: the epoch in the page.
    """

    _own: LogName
    _read: Callable[[], tuple[int, Positions]]
    _published: Callable[[], int]
    _epoch: int = -1
    _there: Positions | None = None
    _positions: Positions = field(factory=dict)
    _value: bytes | None = None

    def positions(self) -> Positions:
        """
        :return: at this moment, at least all that was published before.
        :raises ControlFailed: they cannot be read.
        """
        self._epoch, there = self._read()
        if there is not self._there:
            self._there, self._positions = there, {self._own: 0, **there}
            self._value = positions_value(self._positions)
        return self._positions

    def value(self) -> bytes | None:
        """
        :return: :meth:`positions` as a look-up carries them; ``None`` if there are too many for that.
        :raises ControlFailed: they cannot be read.
        """
        self.positions()
        return self._value

    def cover(self, wanted: Positions) -> bool:
        """May an asker who has applied ``wanted`` be answered from what is stored here?"""
        # Positions never go back: what was read before is good enough if it covers.
        if not covers(self._positions, wanted):
            try:
                self.positions()
            except ControlFailed:
                return False
        # Committed is not published yet, and look-ups go by what is published.
        return covers(self._positions, wanted) and self._published() >= self._epoch


_PROCESSING = b"HTTP/1.1 102 Processing\r\n"


@define(eq=False, repr=False)
class Processing:
    """A sibling's side of an exchange that has to wait: it is told at once, and every second, that we are at it."""

    _to: Downstream
    _timers: Timers
    _timer: Timer | None = None

    def begin(self) -> Processing:
        """Until a response is sent, or the sibling has gone."""
        self._beat()
        return self

    def _beat(self) -> None:
        self._timer = None
        if not self._to.gone:
            self._to.interim(102, _PROCESSING)
            self._timer = self._timers.callLater(BEAT_SECONDS, self._beat)

    def _enough(self) -> Downstream:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        return self._to

    # Downstream

    @property
    def gone(self) -> bool:
        """See :class:`~edgecache.words.ports.Downstream`."""
        return self._to.gone

    @property
    def peer(self) -> bytes:
        """See :class:`~edgecache.words.ports.Downstream`."""
        return self._to.peer

    def interim(self, status: int, head: bytes) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        # After the response the connection is another exchange's.
        if self._timer is not None:
            self._to.interim(status, head)

    def send(self, head: bytes, content: bytes) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._enough().send(head, content)

    def send_pieces(self, head: bytes, content: list[bytes]) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._enough().send_pieces(head, content)

    def send_from(self, head: bytes, source: Source, start: int, stop: int | None) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._enough().send_from(head, source, start, stop)

    def send_hot(self, head: bytes, content: HotContent, start: int, stop: int) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._enough().send_hot(head, content, start, stop)

    def straight_socket(self, octets: int) -> int:
        """See :class:`~edgecache.words.ports.Downstream`."""
        return self._to.straight_socket(octets)

    def sent(self, head: bytes, octets: int, rest: Source | None, start: int, stop: int) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._enough().sent(head, octets, rest, start, stop)

    def close_after(self) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._to.close_after()

    def request_content(self) -> Source:
        """See :class:`~edgecache.words.ports.Downstream`."""
        return self._to.request_content()

    def on_gone(self, reader: Reader | None) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._to.on_gone(reader)
