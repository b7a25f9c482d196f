"""
What a fallback answered: good for seconds, and never in the place of what a better origin said (FIELD 1, 3).

An origin that only stands in for another may be months behind it. So its responses are marked, their lifetime is cut,
here and for the caches downstream, and validators of one origin are never shown to vouch for content of the other.
"""

from __future__ import annotations

from attrs import evolve

from edgecache.rules.dates import parse_seconds
from edgecache.rules.fields import members, parsed, serialised, unquoted
from edgecache.words.messages import Fields
from edgecache.words.stored import Flag, Stored

ANSWERED = "only a fallback answered"
"""Why a stored response is served stale although an upstream gave a good answer."""

_LIFETIMES = frozenset((b"max-age", b"s-maxage"))
_PROLONGING = frozenset((b"immutable", b"stale-while-revalidate", b"stale-if-error"))


def is_good(stored: Stored) -> bool:
    """Is it something else than an error of the origin, which must not take its place?"""
    return stored.status < 500


def is_better(stored: Stored) -> bool:
    """Must an answer of a fallback leave it where it is?"""
    return is_good(stored) and not stored.flags & Flag.FALLBACK


def limited(stored: Stored, responded_at: float, seconds: float) -> Stored:
    """:return: the record of a fallback's answer: marked, and fresh for ``seconds`` from now on at most."""
    until = min(stored.fresh_until, responded_at + seconds)
    line, _, _ = stored.head.partition(b"\r\n")
    fields = capped(parsed(stored.head), max(0, int(until - stored.generated_at)))
    return evolve(
        stored,
        flags=int(stored.flags | Flag.FALLBACK),
        fresh_until=until,
        # Else a client would get the fallback's once more when the better origin is back.
        stale_while_revalidate_until=until,
        head=line + b"\r\n" + serialised(fields),
    )


def capped(fields: Fields, seconds: int) -> Fields:
    """
    :param seconds: of freshness lifetime, of which the response's age is taken off (RFC 9111 §4.2).
    :return: ``fields`` for caches downstream, which must not keep it for longer than we do.
    """
    found: Fields = []
    limits = False
    for name, value in fields:
        if name in (b"cache-control", b"cdn-cache-control"):
            kept = [_capped(member, seconds) for member in members(value) if _name(member) not in _PROLONGING]
            limits |= name == b"cache-control" and any(_name(member) == b"max-age" for member in kept)
            if kept:
                found.append((name, b", ".join(kept)))
        elif name != b"expires":
            found.append((name, value))
    # In front: Content-Length stays the last line.
    return found if limits else [(b"cache-control", b"max-age=%d" % seconds), *found]


def expired(head: bytes) -> bytes:
    """:return: a stored head as caches downstream are to see it that must not take the response for fresh."""
    start = head.index(b"\r\n") + 2
    return head[:start] + serialised(capped(parsed(head), 0))


def _name(member: bytes) -> bytes:
    return member.partition(b"=")[0].strip().lower()


def _capped(member: bytes, seconds: int) -> bytes:
    name, _, argument = member.partition(b"=")
    if _name(member) not in _LIFETIMES:
        return member
    return b"%b=%d" % (name, min(parse_seconds(unquoted(argument)) or 0, seconds))
