"""Cache-Status (RFC 9211), Proxy-Status (RFC 9209) and the errors that we answer ourselves."""

from __future__ import annotations

from http import HTTPStatus

from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Refuse, Reuse
from edgecache.rules.sites import Site, node_name, node_token
from edgecache.words.reasons import ForwardReason


def hit(site: Site, reuse: Reuse, detail: str = "") -> bytes:
    """Cache-Status of an answer from the store."""
    value = b"%b; hit; ttl=%d" % (site.cache_name, reuse.ttl)
    return value + b"; detail=" + _string(detail) if detail else value


def lines_of(age: int, cache_status: bytes) -> bytes:
    """
    The field lines that every answer has of its own.

    :param age: negative: it has not come from the store.
    """
    if age < 0:
        return b"cache-status: %b\r\n" % cache_status
    return b"age: %d\r\ncache-status: %b\r\n" % (age, cache_status)


def forwarded(
    site: Site,
    reason: ForwardReason,
    *,
    status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl: int | None = None,
    detail: str = "",
) -> bytes:
    """
    Cache-Status of an answer that had to be asked for.

    :param status: what the upstream answered, where the client sees another one (RFC 9211 §2.3).
    """
    parts = [site.cache_name, b"fwd=" + reason.value.encode("ascii")]
    if status is not None:
        parts.append(b"fwd-status=%d" % status)
    if stored:
        parts.append(b"stored")
    if collapsed:
        parts.append(b"collapsed")
    if ttl is not None:
        parts.append(b"ttl=%d" % ttl)
    if detail:
        parts.append(b"detail=" + _string(detail))
    return b"; ".join(parts)


def with_cache_status(head: bytes, cache_status: bytes) -> bytes:
    """``head`` of a :class:`~edgecache.rules.decisions.Pass` with our member of Cache-Status, after others'."""
    return head + b"cache-status: " + cache_status + b"\r\n"


def proxy_status(site: Site, *, error: str = "", received: int | None = None, detail: str = "") -> bytes:
    """
    The field line that says what went wrong upstream, on an answer that was given in spite of it (RFC 9209 §2).

    It goes to the end of a head, after the lines of others.

    :param error: the type of the error (§2.3).
    :param received: the status that the upstream answered (§2.1.4).
    :param detail: one line for people (§2.1.5).
    """
    return b"proxy-status: %b\r\n" % _proxy_status(site.cache_name, error, received, detail)


def _proxy_status(name: bytes, error: str, received: int | None, detail: str) -> bytes:
    parts = [name]
    if error:
        parts.append(b"error=" + error.encode("ascii"))
    if received is not None:
        parts.append(b"received-status=%d" % received)
    if detail:
        parts.append(b"details=" + _string(detail))
    return b"; ".join(parts)


def refusal(
    site: Site | None, node_id: bytes, refuse: Refuse, now: float, cache_status: bytes = b""
) -> tuple[bytes, bytes]:
    """
    :param node_id: used where the request named no site of ours.
    :param now: wall time, seconds since the epoch: who makes a response says when (RFC 9110 §6.6.1).
    :param cache_status: of a request that was forwarded.
    :return: head and content of an answer of ours, for ``Downstream.send`` (HEAD: leave the content away).
    """
    content = refuse.detail.encode() + b"\n"
    name = site.cache_name if site is not None else node_name(node_id.decode("utf-8", "replace"))
    via = site.via if site is not None else b"1.1 " + node_token(node_id.decode("utf-8", "replace"))
    lines = [
        b"HTTP/1.1 %d %b" % (refuse.status, _phrase(refuse.status)),
        *[b"%b: %b" % line for line in refuse.fields],
        b"cache-control: no-store",
        b"content-type: text/plain; charset=utf-8",
        b"date: " + format_date(now),
        b"via: " + via,
        b"cache-status: " + (cache_status or name),
    ]
    if refuse.status >= 400:
        lines.append(b"proxy-status: " + _proxy_status(name, _error(refuse), None, refuse.detail))
    lines.append(b"content-length: %d" % len(content))
    return b"\r\n".join(lines) + b"\r\n", content


def _error(refuse: Refuse) -> str:
    """:return: its type (RFC 9209 §2.3), ``""`` where none fits."""
    if refuse.proxy_error or refuse.status > 500:
        return refuse.proxy_error
    return "http_request_error" if refuse.status < 500 else "proxy_internal_error"


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Refused"


def _string(text: str) -> bytes:
    """A structured string (RFC 9651 §3.3.3): what is not printable ASCII is shown as ``?``."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    return b'"' + printable.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'
