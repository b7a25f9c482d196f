"""A request of twisted.web that a stranger cannot make hold more than he may."""

from __future__ import annotations

from io import BytesIO

from twisted.web.server import Request


class BoundedRequest(Request):
    """
    A request whose content is bounded; what is too much is read and dropped, so that the answer arrives.

    :ivar body: its content.
    :ivar too_large: content was dropped.
    """

    body: BytesIO
    too_large = False
    _most = 0

    def most_content(self) -> int:
        """:return: octets of content that are kept for this request, whose head is there."""
        raise NotImplementedError

    def parseCookies(self) -> None:
        """There are none: a browser must not be able to lend anybody its authority."""

    def gotLength(self, length: int | None) -> None:
        """The head is there."""
        self._most = self.most_content()
        self.body = BytesIO()
        self.too_large = length is not None and length > self._most
        # What is here twisted.web parses as a form, of any size, before anybody is asked who he is.
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Content came."""
        if not self.too_large and self.body.tell() + len(data) > self._most:
            self.too_large = True
            self.body = BytesIO()
        if not self.too_large:
            self.body.write(data)
