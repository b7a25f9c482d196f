"""
The operator's side of the admin listener: asking it, and what ``edgecache status`` does.

Each command gets the reactor, writes lines for people (or JSON) and returns its exit status.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import treq
from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, TimeoutError
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers

from edgecache.admin.tokens import ADMIN_FILE
from edgecache.words.errors import EdgeError

Out = Callable[[str], None]
"""Takes one line."""

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 75.0
"""More than the longest ``timeout`` of a purge."""

_MOST_OCTETS = 16 << 20
_LOST = (ConnectError, ResponseNeverReceived, ResponseFailed, CancelledError, TimeoutError, OSError)


@define(eq=False)
class AdminFailed(EdgeError):
    """
    The node could not be asked, or said no.

    :ivar problem: what to tell the operator.
    :ivar again: it may be another thing later.
    :ivar retry_after: seconds, if the node said so.
    """

    problem: str
    again: bool = False
    retry_after: float = 0.0

    def __str__(self) -> str:
        return self.problem


@frozen
class AdminAddress:
    """
    Where to ask, and with what.

    :ivar url: of the admin listener, ``http://127.0.0.1:8081``.
    """

    url: str
    token: str = field(repr=False)


def find_token(data: str, environment: Mapping[str, str]) -> str:
    """
    :param data: the node's data directory.
    :return: ``EDGECACHE_TOKEN``, else what the node has written.
    :raises AdminFailed: there is neither.
    """
    if environment.get("EDGECACHE_TOKEN"):
        return environment["EDGECACHE_TOKEN"].strip()
    path = os.path.join(data, ADMIN_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problem = f"no token: {path}: {reason}; name the data directory, or set EDGECACHE_TOKEN"
        raise AdminFailed(problem) from error


async def call(
    reactor: Any, where: AdminAddress, method: str, path: str, document: Any = None
) -> tuple[int, dict[str, Any]]:
    """
    One request to the admin listener.

    :return: status and JSON document.
    :raises AdminFailed: no answer, or none that a node gives.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)  # type: ignore[no-untyped-call]  # Twisted has no types here
    agent = Agent(reactor, connectTimeout=CONNECT_SECONDS, pool=pool)  # type: ignore[no-untyped-call]  # the same
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
        raise AdminFailed(f"{where.url}: no answer: {_reason(error)}", again=True) from error
    except (SchemeNotSupported, ValueError) as error:
        raise AdminFailed(f"{where.url}: {error}") from error
    if not isinstance(found, dict):
        raise AdminFailed(f"{where.url}{path}: the answer is not a node's")
    if "error" in found:
        problem = f"{found['error']} ({status}): {found.get('detail', '')}"
        raise AdminFailed(problem, status in (429, 503), retry_after)
    return status, found


async def status(reactor: Any, where: AdminAddress, out: Out, *, as_json: bool = False) -> int:
    """
    Show how the node is.

    :return: 0 when it is ready for traffic, 1 when it is not.
    :raises AdminFailed: it could not be asked.
    """
    _, found = await call(reactor, where, "GET", "/status")
    if as_json:
        out(as_lines(found))
    else:
        for line in _status_lines(found):
            out(line)
    return 0 if found["node"]["ready"] else 1


def _status_lines(found: dict[str, Any]) -> list[str]:
    node, counters, purges = found["node"], found["counters"], found["purges"]
    where = f" in {node['region']}" if node["region"] else ""
    state = "ready" if node["ready"] else f"not ready: {node['detail']}"
    state += " (a voter: it serves nobody)" if node["voter"] else ""
    asked = counters["requests"]
    lines = [
        f"node {node['id']}{where}: {state}",
        f"  edgecache {found['versions']['edgecache']}, up {_duration(node['uptime_seconds'])}",
        f"  {asked} requests, {_percent(counters['hits'], asked)} hits, "
        f"{_size(counters['bytes_sent'])} sent, {_size(counters['bytes_fetched'])} fetched",
        f"  purges: epoch {purges['epoch']}, {sum(purges['accepted'].values())} accepted since the start",
    ]
    for worker in found["workers"]:
        running = f"pid {worker['pid']}" if worker["running"] else "not running"
        counts = worker["counters"]
        lines.append(
            f"  worker {worker['index']}: {running}, {counts['connections_open']} connections, "
            f"{counts['requests']} requests, {worker['restarts']} restarts"
        )
    for name, fill in found["store"]["environments"].items():
        full = ", full" if fill["full"] else ""
        used = f"{_size(fill['used_bytes'])} of {_size(fill['size_bytes'])}"
        lines.append(f"  {name}: {used} ({fill['share']:.0%}){full}")
    now = found["now"]
    for upstream in found["upstreams"]:
        lines.append(f"  {upstream['origin']} at {upstream['address'] or 'no address'}: {_health(upstream, now)}")
    return lines


def _health(upstream: dict[str, Any], now: float) -> str:
    state = "up" if upstream["healthy"] else "down"
    if upstream["state"] != "healthy":
        state += f", {upstream['state']}"
    if upstream["since"] is not None and upstream["detail"]:
        state += f" for {_duration(max(0.0, now - upstream['since']))}"
    if upstream["detail"]:
        state += f" ({upstream['detail']})"
    if not upstream["healthy"] and upstream["next_probe_at"] is not None:
        state += f", probed in {_duration(max(0.0, upstream['next_probe_at'] - now))}"
    return state


def _reason(error: BaseException) -> str:
    """:return: the innermost cause, which says most."""
    reasons = getattr(error, "reasons", None)
    if reasons and isinstance(reasons[0], Failure):
        error = reasons[0].value or error
    if isinstance(error, (CancelledError, TimeoutError)):
        return f"none within {ANSWER_SECONDS:g} s"
    return str(error) or type(error).__name__


def _seconds(text: str) -> float:
    """:return: what Retry-After says; 0.0 where it is no number."""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def as_lines(document: Any) -> str:
    """:return: JSON for people."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "no"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _size(octets: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "B" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} TiB"
