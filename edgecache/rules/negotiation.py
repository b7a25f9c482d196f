"""Negotiation fields in a normal form: same meaning, same octets (RFC 9110 §12.5; RFC 9111 §4.1)."""

from __future__ import annotations

import functools
import re

from edgecache.rules.fields import members
from edgecache.words.messages import Fields, field_values


def ranked(value: bytes) -> list[tuple[bytes, float]]:
    """
    :return: members of an Accept-like field, lower case, without space, with their weights; best first,
        equals in alphabetical order, refused ones (``q=0``) last. Other parameters stay with their member.
    """
    found: list[tuple[bytes, float]] = []
    for member in members(value):
        name, *parameters = [part.strip(b" \t") for part in member.split(b";")]
        weight = 1.0
        kept = [name.lower()]
        for parameter in parameters:
            key, _, argument = parameter.partition(b"=")
            if key.strip(b" \t").lower() == b"q":
                weight = _weight(argument.strip(b" \t"))
                break
            kept.append(parameter)
        found.append((b";".join(kept), weight))
    found.sort(key=lambda one: (-one[1], one[0]))
    return found


def _weight(value: bytes) -> float:
    try:
        weight = float(value.decode("ascii"))
    except ValueError:
        return 1.0
    return min(max(round(weight, 3), 0.0), 1.0) if weight == weight else 1.0


def normal(name: bytes, fields: Fields) -> bytes | None:
    """
    The request's value of a field that Vary nominates; ``None`` if the request has none.

    Lines are joined; the fields of negotiation are put into the order of their weights. Of any other field only space
    around commas is dropped: an origin that does not take it for a list tells ``a,`` from ``a``, and whoever sends the
    one must not leave its answer behind as the other's.
    """
    values = field_values(fields, name)
    if not values:
        return None
    joined = b",".join(values)
    if name in _NEGOTIATED and _ODD_WEIGHT.search(joined) is None:
        found = ranked(joined)
        if name == b"accept-encoding":
            found = sorted({(_CODINGS.get(coding, coding), weight) for coding, weight in found}, key=_best_first)
        return b",".join(kind if weight == 1.0 else b"%b;q=%.3g" % (kind, weight) for kind, weight in found)
    return joined if b'"' in joined else b",".join([part.strip(b" \t") for part in joined.split(b",")])


_NEGOTIATED = frozenset((b"accept", b"accept-encoding", b"accept-language", b"accept-charset"))
# What is no weight, or not the last parameter, means something else to each origin (RFC 9110 §12.4.2, §12.5.1).
_ODD_WEIGHT = re.compile(rb";[ \t]*q(?!=(?:0(?:\.[0-9]{0,3}0*)?|1(?:\.0*)?)[ \t]*(?:,|\Z))", re.IGNORECASE)
_CODINGS = {b"x-gzip": b"gzip", b"x-compress": b"compress"}


def _best_first(one: tuple[bytes, float]) -> tuple[float, bytes]:
    return -one[1], one[0]


def accepts_gzip(fields: Fields) -> bool:
    """Does the request name gzip as acceptable? (Not by ``*``: such clients may not expect any coding.)"""
    return _names_gzip(b",".join(field_values(fields, b"accept-encoding")))


# Clients of one kind send the same.
@functools.lru_cache(64)
def _names_gzip(accept_encoding: bytes) -> bool:
    found = ranked(accept_encoding)
    return any(coding in (b"gzip", b"x-gzip") and weight > 0 for coding, weight in found)
