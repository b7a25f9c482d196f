"""One document of an origin, asked for again and again: whole when it has changed, and bounded (RFC 9110 §13)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from edgecache.upstream.addresses import Address, Origin
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.words.errors import EdgeError, UpstreamFailed
from edgecache.words.messages import Fields, Head, Outbound


@define(eq=False, repr=False)
class NotPolled(EdgeError):
    """The document could not be had. :ivar why: in a few words."""

    why: str


@frozen(eq=False, repr=False)
class Polled:
    """
    What one poll brought; to be given to the next, which then asks whether that is still so.

    :ivar content_type: lower case, without parameters.
    :ivar content: ``None``: it is what it was.
    """

    origin: Origin
    content_type: bytes
    validators: Fields
    content: bytes | None


@define(eq=False, repr=False)
class Poller:
    """
    :ivar origins: in the order in which they are asked.
    :ivar addresses: of an origin, likewise.
    :ivar target: below each origin's prefix.
    :ivar most: octets of content.
    """

    _client: Client
    _origins: Sequence[Origin]
    _addresses: Callable[[Origin], Sequence[Address]]
    _target: bytes
    _accept: bytes
    _most: int

    async def poll(self, before: Polled | None) -> Polled:
        """
        :param before: what is known.
        :raises NotPolled: what the last address that was asked did not like, or that none is known.
        :raises UpstreamFailed: how the last one failed.
        """
        failure: EdgeError = NotPolled("no address of its origins is known")
        for origin in self._origins:
            for address in self._addresses(origin):
                try:
                    return await self._ask(address, before)
                except (UpstreamFailed, NotPolled) as error:
                    failure = error
        raise failure

    async def _ask(self, address: Address, before: Polled | None) -> Polled:
        fields: Fields = [(b"accept", self._accept), (b"accept-encoding", b"identity"), (b"user-agent", b"edgecache")]
        # Another origin's validators mean nothing.
        known = before if before is not None and before.origin == address.origin else None
        if known is not None:
            fields += known.validators
        response = await self._client.ask(address, Outbound(b"GET", self._target, fields))
        head = response.head
        if head.status == 304 and known is not None and known.validators:
            response.cancel()
            return Polled(known.origin, known.content_type, known.validators, None)
        coding = (head.get(b"content-encoding") or b"identity").strip().lower()
        if head.status != 200 or coding != b"identity":
            response.cancel()
            what = f" in the coding {coding.decode('latin-1')}" if head.status == 200 else ""
            raise NotPolled(f"{address.name} answered {head.status}{what}")
        kind = (head.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        return Polled(address.origin, kind, _validators(head), await collected(response, self._most))


def _validators(head: Head) -> Fields:
    pairs = ((b"if-none-match", head.get(b"etag")), (b"if-modified-since", head.get(b"last-modified")))
    return [(name, value) for name, value in pairs if value is not None]


def collected(response: Response, most: int) -> Awaitable[bytes]:
    """:return: all of the content; fails with what it broke off with, or :class:`NotPolled` if it is larger."""
    collecting = _Collecting(response, most)
    if response.length is not None and response.length > most:
        collecting.too_large()
    else:
        response.attach(collecting)
    return collecting.done


@define(eq=False, repr=False)
class _Collecting:
    """A :class:`~edgecache.upstream.responses.Sink`."""

    _response: Response
    _most: int
    _octets: bytearray = field(factory=bytearray)
    done: Deferred[bytes] = field(init=False)

    @done.default
    def _cancellable(self) -> Deferred[bytes]:
        return Deferred(lambda _: self._response.cancel())

    def data(self, data: bytes) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self._octets += data
        if len(self._octets) > self._most:
            self.too_large()

    def too_large(self) -> None:
        """The rest is not wanted."""
        self._response.cancel()
        self.done.errback(NotPolled(f"it has more than {self._most} octets"))

    def end(self) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self.done.callback(bytes(self._octets))

    def fail(self, failure: UpstreamFailed) -> None:
        """See :class:`~edgecache.upstream.responses.Sink`."""
        self.done.errback(failure)
