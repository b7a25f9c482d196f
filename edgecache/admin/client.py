"""
The operator's side of the admin listener: asking it.

Each command gets the reactor, writes lines for people (or JSON) and returns its exit status.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import treq
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, TimeoutError
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.secured import Secured, innermost, reason

Out = Callable[[str], None]
"""Takes one line."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 75.0
"""More than the longest ``timeout`` of a purge."""

_MOST_OCTETS = 16 << 20
_LOST = (ConnectError, ResponseNeverReceived, ResponseFailed, CancelledError, TimeoutError, OSError)


async def call(
    reactor: Any, where: AdminAddress, method: str, path: str, document: Any = None
) -> tuple[int, dict[str, Any]]:
    """
    One request to the admin listener.

    :return: status and JSON document.
    :raises AdminFailed: no answer, or none that a node gives.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)  # type: ignore[no-untyped-call]  # Twisted has no types here
    agent = Agent(reactor, Secured(), connectTimeout=CONNECT_SECONDS, pool=pool)  # type: ignore[no-untyped-call]  # the same
    client = treq.client.HTTPClient(agent)
    headers = Headers({"Authorization": [f"Bearer {where.token}"], "Accept": ["application/json"]})
    data = None
    if document is not None:
        headers.addRawHeader("Content-Type", "application/json")
        data = orjson.dumps(document)
    content = bytearray()

    def collect(piece: bytes) -> None:
        # What is too much is dropped: it will be no JSON, and there is a deadline.
        content.extend(piece[: _MOST_OCTETS - len(content)])

    async def exchange() -> tuple[int, float]:
        response = await client.request(method, where.url.rstrip("/") + path, headers=headers, data=data)
        await treq.collect(response, collect)
        return int(response.code), _seconds(response.headers.getRawHeaders("Retry-After", [""])[0])

    try:
        status, retry_after = await Deferred.fromCoroutine(exchange()).addTimeout(ANSWER_SECONDS, reactor)
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise AdminFailed(f"{where.url}{path}: the answer is not JSON; is this the admin listener?") from error
    except _LOST as error:
        late = isinstance(innermost(error), (CancelledError, TimeoutError))
        why = f"none within {ANSWER_SECONDS:g} s" if late else reason(error)
        raise AdminFailed(f"{where.url}: no answer: {why}", again=True) from error
    except (SchemeNotSupported, ValueError) as error:
        raise AdminFailed(f"{where.url}: {error}") from error
    if not isinstance(found, dict):
        raise AdminFailed(f"{where.url}{path}: the answer is not a node's")
    if "error" in found:
        problem = f"{found['error']} ({status}): {found.get('detail', '')}"
        raise AdminFailed(problem, status in (429, 503), retry_after)
    return status, found


def _seconds(text: str) -> float:
    """:return: what Retry-After says; 0.0 where it is no number."""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def as_lines(document: Any) -> str:
    """:return: JSON for people."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def shown_size(octets: float) -> str:
    """:return: octets as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} TiB"
