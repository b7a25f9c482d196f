"""Which worker of this node fills a key, and the way to it (DESIGN 4)."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from edgecache.fills.passing import Passing
from edgecache.processes.background import background
from edgecache.rules.asking import Asked
from edgecache.rules.fields import named_by_connection, serialised
from edgecache.rules.hops import SCHEME
from edgecache.store.layout import CHUNK
from edgecache.upstream.addresses import Address
from edgecache.upstream.client import Client
from edgecache.upstream.responses import Response
from edgecache.words.counters import Counter
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Head, Outbound, without
from edgecache.words.ports import Counts, Downstream


@define(eq=False, repr=False)
class Owners:
    """
    The workers of this node; each owns the keys whose hash says so.

    The hop to the owner is an ordinary exchange over its Unix socket. The owner's answer is the client's:
    it adds no Via, no count and no log line.

    :ivar addresses: of every worker, by index; empty for a lone worker.
    :ivar head_seconds: the owner's whole ladder of attempts fits into it.
    """

    _index: int
    addresses: list[Address]
    _client: Client
    _counts: Counts
    _head_seconds: float
    _refreshing: set[bytes] = field(factory=set)

    def elsewhere(self, key_hash: bytes) -> Address | None:
        """:return: the owner of the key, ``None`` if that is this worker."""
        if not self.addresses:
            return None
        owner = int.from_bytes(key_hash[:8], "big") % len(self.addresses)
        return None if owner == self._index else self.addresses[owner]

    async def ask(
        self, owner: Address, asked: Asked, downstream: Downstream, continued: Callable[[Response], Response]
    ) -> bool:
        """
        Let ``owner`` answer ``downstream``.

        :param continued: makes a response go on elsewhere if the owner dies in the middle of it.
        :return: ``False`` if it gave no head (nothing was sent then): the caller goes on by itself.
        """
        self._counts.add(Counter.OWNER_HOPS)

        def interim(head: Head) -> None:
            downstream.interim(head.status, _serialised(head, None))

        try:
            response = await self._ask(owner, asked, interim)
        except UpstreamFailed:
            return False
        head = _serialised(response.head, response.length)
        content = response.whole
        if response.empty:
            response.cancel()
            downstream.send(head, b"")
        elif content is not None and response.length is not None and len(content) < CHUNK:
            # The owner has seen that it is right, and nothing is left that could break off.
            downstream.send(head, content)
        else:
            source = Passing(continued(response), UNCOUNTED, response.length)
            downstream.send_from(head, source, 0, response.length)
        return True

    def refresh(self, owner: Address, asked: Asked) -> None:
        """Let ``owner`` see the request, so that it refreshes what it finds stale; nobody waits for the answer."""
        if asked.key_hash not in self._refreshing:
            self._refreshing.add(asked.key_hash)
            background(self._refresh(owner, asked), "ask the owner of a key to refresh it")

    async def _refresh(self, owner: Address, asked: Asked) -> None:
        try:
            response = await self._ask(owner, asked, None)
            response.cancel()
        finally:
            self._refreshing.discard(asked.key_hash)

    async def _ask(self, owner: Address, asked: Asked, interim: Callable[[Head], None] | None) -> Response:
        request = asked.request
        fields = without(request.fields, _OWN_FIELDS | named_by_connection(request.fields))
        if asked.page is not None and request.secure:
            fields.append((SCHEME, b"https"))
        out = Outbound(request.method, request.target, fields, authority=request.authority)
        return await self._client.ask(owner, out, interim=interim, head_seconds=self._head_seconds)


_OWN_FIELDS = frozenset((b"host", b"content-length", b"expect"))


class _Uncounted:
    """What crosses between two workers was counted where it came from the network."""

    def add(self, counter: int, n: int = 1) -> None:
        """Count nothing."""


UNCOUNTED = _Uncounted()


def _serialised(head: Head, length: int | None) -> bytes:
    fields = head.fields if length is None else [*head.fields, (b"content-length", b"%d" % length)]
    return b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason) + serialised(fields)
