"""How a stored response answers this client: preconditions and ranges (RFC 9110 §13.2.2, §14)."""

from __future__ import annotations

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Presentation
from edgecache.words.stored import Stored


def present(asked: Asked, stored: Stored) -> Presentation:
    """
    Compare conditions and range with ``stored`` (also the prototype of a fill; of unknown size it is never
    presented in part). HEAD is presented like GET, never in part; the caller sends no content for it.
    """
    raise NotImplementedError


def head_of(asked: Asked, stored: Stored, presentation: Presentation, *, age: int, cache_status: bytes) -> bytes:
    """
    The response head, as ``Downstream.send`` wants it.

    :param age: for the Age field; negative: none (the response has not come from the store).
    :param cache_status: value of Cache-Status (:mod:`edgecache.rules.status_fields`).
    """
    raise NotImplementedError


def complete(stored: Stored, size: int, content_id: bytes, digest: bytes = b"") -> Stored:
    """The final record of a prototype whose content has come to its end."""
    raise NotImplementedError
