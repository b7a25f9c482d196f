"""An answer of our own where a fill expects an upstream's: there is nobody to ask, and all is known."""

from __future__ import annotations

from edgecache.upstream.addresses import Address, Origin
from edgecache.upstream.delivery import Delivery
from edgecache.words.messages import Head

NOBODY = Address(Origin("http", "nobody.invalid", 80, b"", b"nobody.invalid"))


class Said(Delivery):
    """A :class:`~edgecache.upstream.responses.Response` that is complete from the begin."""

    minor = 1
    delimited_by_close = False

    def __init__(self, head: Head, content: bytes, requested_at: float, *, length: int | None = None) -> None:
        """:param length: without content: that of what a GET would bring."""
        self.address = NOBODY
        self.head = head
        self.requested_at = requested_at
        self.empty = length is not None
        self.length: int | None = len(content) if length is None else length
        if content:
            self.hand_over(content)
        self.finish(True)

    def cancel(self) -> None:
        """See :meth:`edgecache.upstream.responses.Response.cancel`."""
        self.drop()
