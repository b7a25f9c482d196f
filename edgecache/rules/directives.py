"""Cache-Control, Pragma and CDN-Cache-Control as values (RFC 9111 §5.2, §5.4; RFC 5861; RFC 8246; RFC 9213)."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from typing import Any

import http_sf
from attrs import define

from edgecache.rules.dates import MOST_SECONDS, parse_seconds
from edgecache.rules.fields import members, unquoted
from edgecache.words.messages import Fields, Head, field_values


@define(eq=False, repr=False)
class RequestDirectives:
    """Cache-Control of a request, or Pragma if there is none (RFC 9111 §5.2.1, §5.4). ``None``: not given."""

    max_age: int | None = None
    min_fresh: int | None = None
    # Without a value any staleness is accepted: infinite.
    max_stale: float | None = None
    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False


NONE = RequestDirectives()
"""No directive that matters."""


@define(eq=False, repr=False)
class ResponseDirectives:
    """
    What a response says about being stored and reused (RFC 9111 §5.2.2).

    :ivar lifetime: of ``s-maxage``, else of ``max-age``, in seconds. An invalid value counts as 0: stale
        (RFC 9111 §4.2.1). ``None`` when neither is there.
    :ivar targeted: it comes from CDN-Cache-Control, so Expires does not count (RFC 9213 §2.2).
    :ivar withheld: names of fields that ``no-cache="…"`` and ``private="…"`` list: not for others.
    """

    lifetime: int | None = None
    s_maxage: bool = False
    public: bool = False
    private: bool = False
    no_cache: bool = False
    no_store: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    immutable: bool = False
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    targeted: bool = False
    withheld: frozenset[bytes] = frozenset()

    @property
    def for_all(self) -> bool:
        """Whatever credentials it was asked for with, may others be sent it (RFC 9111 §3.5)?"""
        return self.public or self.must_revalidate or self.s_maxage


_Directives = dict[bytes, bytes | None]

_WITHHOLDING = (b"private", b"no-cache")
"""With an argument they are about the fields that it names, without or with an empty one about the whole response."""


_FORBIDDING = frozenset((b"no-store", b"private", b"no-cache"))
"""These count also in what is no directive (``no-cache; no-store``): who writes that means it."""

_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BETWEEN_WORDS = re.compile(rb"[; \t]+")


def _parse(values: Iterable[bytes]) -> _Directives:
    """:return: each directive's first occurrence (RFC 9111 §4.2.1); of those that withhold, all of them together."""
    found: _Directives = {}
    for value in values:
        for member in members(value):
            name, equals, argument = member.partition(b"=")
            name, meant = name.lower(), unquoted(argument) if equals else None
            earlier = found.setdefault(name, meant)
            if name in _WITHHOLDING and earlier != meant:
                found[name] = earlier + b"," + meant if earlier and meant else None
            words = _BETWEEN_WORDS.split(_QUOTED.sub(b"", member))
            if len(words) > 1:
                found.update(dict.fromkeys(_FORBIDDING.intersection(word.rstrip(b"=").lower() for word in words)))
    return found


def request_directives(fields: Fields) -> RequestDirectives:
    """:param fields: of the request; invalid values are as if the directive were not there."""
    values = field_values(fields, b"cache-control")
    if not values:
        for value in field_values(fields, b"pragma"):
            if any(member.lower() == b"no-cache" for member in members(value)):
                return RequestDirectives(no_cache=True)
        return NONE
    found = _parse(values)
    max_stale: float | None = None
    if b"max-stale" in found:
        argument = found[b"max-stale"]
        max_stale = math.inf if argument is None else parse_seconds(argument)
    directives = RequestDirectives(
        max_age=_seconds(found, b"max-age"),
        min_fresh=_seconds(found, b"min-fresh"),
        max_stale=max_stale,
        no_cache=b"no-cache" in found,
        no_store=b"no-store" in found,
        only_if_cached=b"only-if-cached" in found,
    )
    nothing = (None, None, None, False, False, False)
    given = (
        directives.max_age,
        directives.min_fresh,
        directives.max_stale,
        directives.no_cache,
        directives.no_store,
        directives.only_if_cached,
    )
    return NONE if given == nothing else directives


def _seconds(found: _Directives, name: bytes) -> int | None:
    argument = found.get(name)
    return None if argument is None else parse_seconds(argument)


def response_directives(head: Head) -> ResponseDirectives:
    """The targeted field if it is there and valid, else Cache-Control (RFC 9213 §2.2)."""
    targeted, general = tuple(head.values(b"cdn-cache-control")), tuple(head.values(b"cache-control"))
    if sum(map(len, targeted)) + sum(map(len, general)) > _LONGEST:
        return _of_fields.__wrapped__(targeted, general)
    return _of_fields(targeted, general)


_LONGEST = 512
"""Octets; what is longer is not worth its memory."""


# An origin says the same of most of what it has.
@functools.lru_cache(256)
def _of_fields(cdn_cache_control: tuple[bytes, ...], cache_control: tuple[bytes, ...]) -> ResponseDirectives:
    targeted = _targeted(cdn_cache_control)
    if targeted is not None:
        return _understood(targeted, targeted=True)
    return _understood(_parse(cache_control), targeted=False)


def _understood(found: _Directives, *, targeted: bool) -> ResponseDirectives:
    withheld: set[bytes] = set()
    for name in _WITHHOLDING:
        argument = found.get(name)
        if argument:
            withheld.update(member.lower() for member in members(argument))
    lifetime: int | None = None
    for name in (b"s-maxage", b"max-age"):
        if name in found:
            lifetime = _seconds(found, name) or 0
            break
    return ResponseDirectives(
        lifetime=lifetime,
        s_maxage=b"s-maxage" in found,
        public=b"public" in found,
        private=b"private" in found and not found[b"private"],
        no_cache=b"no-cache" in found and not found[b"no-cache"],
        no_store=b"no-store" in found,
        must_revalidate=b"must-revalidate" in found,
        proxy_revalidate=b"proxy-revalidate" in found,
        must_understand=b"must-understand" in found,
        immutable=b"immutable" in found,
        stale_while_revalidate=_seconds(found, b"stale-while-revalidate"),
        stale_if_error=_seconds(found, b"stale-if-error"),
        targeted=targeted,
        withheld=frozenset(withheld),
    )


_NUMBERS = frozenset((b"max-age", b"s-maxage", b"stale-while-revalidate", b"stale-if-error"))


def _targeted(values: tuple[bytes, ...]) -> _Directives | None:
    """
    :return: the directives of CDN-Cache-Control, a structured dictionary; ``None`` if the field is absent,
        empty, or not valid: a directive of the wrong type makes it invalid as well (RFC 9213 §2.1).
    """
    if not values:
        return None
    try:
        dictionary: Any = http_sf.parse(b", ".join(values), tltype="dictionary")
    except http_sf.StructuredFieldError:
        return None
    found: _Directives = {}
    for key, member in dictionary.items():
        name = key.encode("ascii")
        value = member[0]
        if name in _NUMBERS:
            if type(value) is not int:
                return None
            # Not a delta-seconds when negative: stale.
            found[name] = b"%d" % min(value, MOST_SECONDS) if value >= 0 else b"invalid"
        elif value is True:
            found[name] = None
        elif value is not False:
            found[name] = str(value).encode("latin-1", "replace") if isinstance(value, str) else b""
    return found or None
