"""The page of a project as other parts of a worker need it: its document, as new as they must have it (DESIGN 10)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred

from edgecache.rules.asking import Asked, ask
from edgecache.rules.hops import PAGE as NEEDED
from edgecache.rules.hops import PageNeeded
from edgecache.rules.pages import PAGE
from edgecache.rules.sites import Sites
from edgecache.words.messages import Request
from edgecache.words.ports import Downstream, HotContent, Reader, Source, Timers
from edgecache.words.stored import Stored

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills

_ERROR = re.compile(rb"\r\nproxy-status:[^\r]*error=([a-z_]+)", re.IGNORECASE)
_TURN = 1 << 20


@frozen(eq=False, repr=False)
class FoundPage:
    """
    A project's page.

    :ivar stored: its base record; ``stored.floor`` is the epoch up to which it is known good.
    :ivar document: canonical (:mod:`edgecache.index.documents`): the origin's links, absolute. ``None``: it was not
        read, for its catalogue is kept.
    :ivar current: it is fresh, and known good up to the epoch that was asked for. If not, it is what there is for
        want of an origin.
    """

    stored: Stored
    document: bytes | None
    current: bool


@frozen
class NoPage:
    """
    The origin says that there is no such project.

    :ivar status: 404 or 410.
    """

    status: int


@frozen
class Unobtainable:
    """
    No page, and nobody who could say whether there is one: to be answered 503.

    :ivar proxy_error: the Proxy-Status error type (RFC 9209 §2.3), ``""`` where none is known.
    """

    proxy_error: str = ""


PageOutcome = FoundPage | NoPage | Unobtainable


class ProjectPages(Protocol):
    """Whoever needs to know what a project's page says, a file's fill above all."""

    def document(
        self, asked: Asked, project: bytes, since: int, until: float, validated_since: float = 0.0
    ) -> Deferred[PageOutcome]:
        """
        The page from the store, or by joining or starting its fill (at its key's owner).

        :param asked: the request that it is needed for: site, authority, and whether a sibling asks (then only the
            origin is asked for the page).
        :param project: normalised name.
        :param since: the page must be known good up to this epoch (the one in which the file was purged; 0: any).
        :param validated_since: wall time; a page that was validated earlier is validated now, however fresh it is. (A
            file that it does not name may be on a newer one that another node has.)
        :param until: monotonic seconds; after that the outcome is :class:`Unobtainable`.
        :return: never fails.
        """


@define(eq=False, repr=False)
class Pages:
    """
    :class:`ProjectPages` of one worker: the page is asked for as any client's request is.

    :ivar catalogued: is what the document of that digest says of files kept? It takes a moment to read a large one.
    :ivar answer: the route (:meth:`edgecache.node.Node.answer_within`).
    """

    _sites: Sites
    _fills: Fills
    _timers: Timers
    _catalogued: Callable[[bytes], bool]
    answer: Callable[[Request, Downstream], None] | None = None

    def document(
        self, asked: Asked, project: bytes, since: int, until: float, validated_since: float = 0.0
    ) -> Deferred[PageOutcome]:
        """See :class:`ProjectPages`."""
        return Deferred.fromCoroutine(self._outcome(asked, project, since, until, validated_since))

    async def _outcome(
        self, asked: Asked, project: bytes, since: int, until: float, validated_since: float
    ) -> PageOutcome:
        # What a sibling has may have been validated long before it is told here.
        at_origin = asked.sibling is not None or validated_since > 0.0
        request = self._request(asked, project, PageNeeded(at_origin, since, validated_since))
        page = request.asked
        assert self.answer is not None
        # Below another site's path there is no page of this one.
        if not isinstance(page, Asked) or page.page is None or page.site.id != asked.site.id:
            return Unobtainable()
        epoch = self._fills.epochs.current()
        good: list[Stored] = []

        def enough(head: bytes) -> bool:
            stored = self._kept(page, head)
            if stored is None or stored.floor < since or stored.validated_at < validated_since:
                return False
            good.append(stored)
            return True

        inside = _Inside(enough)
        timer = self._timers.callLater(max(until - self._timers.seconds(), 0.0), inside.give_up)
        try:
            self.answer(request, inside)
            await inside.answered
        except CancelledError:
            timer.cancel()
            inside.give_up()
            raise
        if not inside.gone:
            timer.cancel()
        if good:
            return FoundPage(good[0], None, True)
        failed = _ERROR.search(inside.head)
        error = "" if failed is None else failed[1].decode("ascii")
        if inside.status in (404, 410):
            return NoPage(inside.status)
        if inside.status != 200 or not inside.complete:
            return Unobtainable(error)
        document = bytes(inside.content)
        digest = hashlib.sha256(document).digest()
        stored = self._fills.look_up(page.key_hash, page.key)
        if not isinstance(stored, Stored) or stored.digest != digest:
            # The store takes nothing just now, or has another one meanwhile. What was sent is good as of then, unless
            # it was so for want of anything better.
            floor = 0 if error else epoch
            return FoundPage(self._unstored(page, floor, document, digest), document, not error)
        current = not error and stored.floor >= since and stored.validated_at >= validated_since
        return FoundPage(stored, document, current)

    def _kept(self, page: Asked, head: bytes) -> Stored | None:
        """:return: what is stored of a page whose ``head`` is sent, if that is good, and what it says of files kept."""
        if int(head[9:12]) != 200 or _ERROR.search(head):
            return None
        stored = self._fills.look_up(page.key_hash, page.key)
        if not isinstance(stored, Stored) or not self._catalogued(stored.digest):
            return None
        # What is sent may be another one that the store has not taken.
        fresh = stored.fresh_until > self._fills.clock() and self._fills.epochs.since(stored) is None
        return stored if fresh or _is_of(head, stored) else None

    def _request(self, asked: Asked, project: bytes, needed: PageNeeded) -> Request:
        """The page as a client of the same site would ask for it, and as nobody but this node may."""
        target = asked.site.path + b"/simple/" + project + b"/"
        fields = [(NEEDED, needed.value)]
        request = Request(b"GET", target, asked.request.authority, fields, asked.request.secure)
        request.asked = ask(request, self._sites, admitted=True)
        return request

    def _unstored(self, page: Asked, floor: int, document: bytes, digest: bytes) -> Stored:
        now = self._fills.clock()
        return Stored(
            page.site.id,
            page.key,
            200,
            PAGE,
            floor,
            now,
            now,
            now,
            now,
            now,
            now,
            None,
            b"",
            len(document),
            b"",
            page.selectors,
            b"HTTP/1.1 200 OK\r\n",
            digest=digest,
        )


def _is_of(head: bytes, stored: Stored) -> bool:
    """Does it tell the same strong validator, and as many octets?"""
    etag = stored.etag
    if not etag or etag.startswith(b"W/"):
        return False
    return b"\r\netag: %b\r\n" % etag in head and b"\r\ncontent-length: %d\r\n" % stored.size in head


@define(eq=False, repr=False)
class _Inside:
    """
    A :class:`~edgecache.words.ports.Downstream` whose client is this worker itself.

    :ivar enough: asked with the head: can its content be done without?
    :ivar answered: fires once the answer is here, or is not waited for any longer.
    :ivar complete: all of it has come.
    """

    enough: Callable[[bytes], bool]
    answered: Deferred[None] = field(factory=Deferred)
    head: bytes = b""
    content: bytearray = field(factory=bytearray)
    complete: bool = False
    gone: bool = False
    peer: bytes = b""
    _source: Source | None = None
    _stop: int | None = None
    _position: int = 0
    _reader: Reader | None = None

    @property
    def status(self) -> int:
        """Of the answer; 0 without one."""
        return int(self.head[9:12] or b"0")

    def give_up(self) -> None:
        """Nobody waits any longer."""
        self.gone = True
        if self._source is not None:
            self._source.detach(self)
        if self._reader is not None:
            self._reader.wake()
        if not self.answered.called:
            self.answered.callback(None)

    # Downstream

    def interim(self, status: int, head: bytes) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""

    def send(self, head: bytes, content: bytes) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self.send_pieces(head, [content])

    def send_pieces(self, head: bytes, content: list[bytes]) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self.head = head
        for piece in content:
            self.content += piece
        # Only now: it looks something up, and that ends the transaction in which the pieces were read.
        self.enough(head)
        self._end(complete=True)

    def send_from(self, head: bytes, source: Source, start: int, stop: int | None) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        source.attach(self)
        if self.gone:
            source.detach(self)
            return
        self.head = head
        if self.enough(head):
            source.detach(self)
            self._end(complete=True)
            return
        self._source, self._position, self._stop = source, start, stop
        self.wake()

    def send_hot(self, head: bytes, content: HotContent, start: int, stop: int) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self.send_pieces(head, [content.read(start, stop)])

    def straight_socket(self, octets: int) -> int:
        """See :class:`~edgecache.words.ports.Downstream`."""
        return -1

    def sent(self, head: bytes, octets: int, rest: Source | None, start: int, stop: int) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        raise AssertionError("there is no socket")

    def close_after(self) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""

    def request_content(self) -> Source:
        """See :class:`~edgecache.words.ports.Downstream`."""
        raise AssertionError("there is no content")

    def on_gone(self, reader: Reader | None) -> None:
        """See :class:`~edgecache.words.ports.Downstream`."""
        self._reader = reader

    # Reader

    def wake(self) -> None:
        """See :class:`~edgecache.words.ports.Reader`."""
        source = self._source
        if source is None or self.answered.called:
            return
        while data := source.read(self._position, _TURN):
            self.content += data
            self._position += len(data)
        if self._position == self._stop or source.ended(self._position) or source.failed is not None:
            complete = source.failed is None
            source.detach(self)
            self._end(complete=complete)

    def _end(self, *, complete: bool) -> None:
        if not self.answered.called:
            self.complete = complete
            self.answered.callback(None)
