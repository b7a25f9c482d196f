"""Our own error responses, where no composition gives better ones."""

from __future__ import annotations

from http import HTTPStatus


def refusal(status: int, detail: str) -> tuple[bytes, bytes]:
    """
    :param detail: for the person who reads it; ASCII.
    :return: head and content, as :class:`~edgecache.words.ports.Downstream` takes them.
    """
    phrase = HTTPStatus(status).phrase
    content = f"{status} {phrase}: {detail}\n".encode("ascii", "replace")
    head = (
        f"HTTP/1.1 {status} {phrase}\r\n"
        "Content-Type: text/plain\r\n"
        # Nobody on the way may keep what one malformed request got.
        "Cache-Control: no-store\r\n"
        f"Content-Length: {len(content)}\r\n"
    )
    return head.encode("ascii"), content
