"""Short ways to write requests, responses and what became of them. NOW is a real time, not 1970."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from edgecache.rules.asking import Asked, ask
from edgecache.rules.dates import format_date
from edgecache.rules.decisions import Forward, OnRequest, OnResponse, Reuse, Store
from edgecache.rules.policy import on_request, on_response
from edgecache.rules.presenting import complete
from edgecache.rules.sites import Sites
from edgecache.words.config import Config, NodeSettings, Profile, SiteSettings
from edgecache.words.messages import Fields, Head, Request
from edgecache.words.reasons import ForwardReason, PurgeMode
from edgecache.words.stored import Stored

NOW = 1_700_000_000.0
CONTENT_ID = b"c" * 16


def sites(**settings: Any) -> Sites:
    """One plain site, or whatever ``settings`` say."""
    known = {"name": "main", "profile": Profile.PLAIN, "origins": ("http://origin.test:8000",), **settings}
    return Sites(Config(NodeSettings("edge-1"), (SiteSettings(**known),)))


PLAIN = sites()
INDEX = sites(profile=Profile.INDEX)


def fields_of(lines: tuple[str, ...]) -> Fields:
    """``"Name: value"`` as the parsers hand it on."""
    found = []
    for line in lines:
        name, _, value = line.partition(":")
        found.append((name.lower().encode("latin-1"), value.strip().encode("latin-1")))
    return found


def request(*lines: str, target: str = "/a", method: str = "GET", authority: str = "edge.test", **more: Any) -> Request:
    return Request(method.encode(), target.encode(), authority.encode(), fields_of(lines), **more)


def asked(*lines: str, of: Sites = PLAIN, **more: Any) -> Asked:
    found = ask(request(*lines, **more), of)
    assert isinstance(found, Asked), found
    return found


def head(*lines: str, status: int = 200, date: float | None = NOW, reason: str = "OK") -> Head:
    """A response with a Date unless ``date`` is ``None`` or a line gives one."""
    fields = fields_of(lines)
    if date is not None and all(name != b"date" for name, _ in fields):
        fields.append((b"date", format_date(date)))
    return Head(status, reason.encode(), fields)


def respond(
    asked: Asked,
    head: Head,
    *,
    forward: Forward | None = None,
    at: float = NOW,
    took: float = 0.0,
    length: int | None = 10,
    floor: int = 7,
    delimited_by_close: bool = False,
    fallback: bool = False,
) -> OnResponse:
    if forward is None:
        forward = Forward(ForwardReason.URI_MISS, alone=asked.head or asked.bypass or not asked.joinable)
    return on_response(
        asked,
        forward,
        head,
        length=length,
        delimited_by_close=delimited_by_close,
        requested_at=at - took,
        responded_at=at,
        floor=floor,
        fallback=fallback,
    )


def plan_for(asked: Asked, head: Head, **more: Any) -> Store:
    found = respond(asked, head, **more)
    assert isinstance(found, Store), found
    return found


def stored(*lines: str, by: Asked | None = None, status: int = 200, size: int = 10, **more: Any) -> Stored:
    """What is stored of a response with ``lines``, received at NOW (``at``)."""
    at = more.get("at", NOW)
    plan = plan_for(by or asked(), head(*lines, status=status, date=at), length=size, **more)
    return complete(plan.stored, size, CONTENT_ID)


def consider(
    asked: Asked,
    stored: Stored | None,
    *,
    after: float = 0.0,
    purged: PurgeMode | None = None,
    fenced: bool = False,
    vary_miss: bool = False,
) -> OnRequest:
    return on_request(asked, stored, purged, fenced, NOW + after, vary_miss=vary_miss)


def reused(asked: Asked, stored: Stored | None, **more: Any) -> bool:
    """Does the store answer without asking anybody first?"""
    return isinstance(consider(asked, stored, **more), Reuse)


def changed(stored: Stored, **more: Any) -> Stored:
    return evolve(stored, **more)


def field_lines(octets: bytes) -> dict[str, str]:
    """Field lines of a serialised head; several of one name are joined."""
    found: dict[str, str] = {}
    for line in octets.split(b"\r\n")[1:-1]:
        name, _, value = line.decode("latin-1").partition(": ")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def status_of(octets: bytes) -> int:
    return int(octets.split(b" ")[1])
