"""Syntax that many fields share: lists, tokens, quoted strings, entity tags (RFC 9110 §5.6, §8.8.3)."""

from __future__ import annotations

import re

from edgecache.words.messages import HOP_BY_HOP, Fields, Head

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

_ITEM = re.compile(rb'(?:[^",]+|"(?:[^"\\]|\\.)*"?)+', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_OPTION_SPACE = b" \t"


def members(value: bytes) -> list[bytes]:
    """
    :return: the members of a comma-separated list without the space around them; commas within quoted
        strings don't separate, empty members are left out (RFC 9110 §5.6.1).

    >>> members(b'a, "b, c" , ,d="e,f"')
    [b'a', b'"b, c"', b'd="e,f"']
    """
    # An open quote must not hide what follows it: better to see one directive too many than no-store never.
    if b'"' not in value or _ESCAPED.sub(b"", value).count(b'"') % 2:
        found = [member.strip(_OPTION_SPACE) for member in value.split(b",")]
    else:
        found = [member.strip(_OPTION_SPACE) for member in _ITEM.findall(value)]
    return [member for member in found if member]


def unquoted(value: bytes) -> bytes:
    """
    :return: what a quoted string means; anything else as it is.

    >>> unquoted(b'"a \\\\"b\\\\""'), unquoted(b"a")
    (b'a "b"', b'a')
    """
    if len(value) >= 2 and value[:1] == value[-1:] == b'"':
        return _ESCAPED.sub(rb"\1", value[1:-1])
    return value


def opaque_tag(etag: bytes) -> bytes:
    """
    :return: an entity tag without its weakness: what weak comparison compares (RFC 9110 §8.8.3.2).

    What is no entity tag at all is compared as it is: then an origin that forgot the quotes still gets its 304.
    """
    return etag[2:] if etag.startswith(b"W/") else etag


def is_strong(etag: bytes) -> bool:
    """Is it a strong validator: an entity tag, quoted, without ``W/``?"""
    return len(etag) >= 2 and etag[:1] == etag[-1:] == b'"'


def named_by_connection(fields: Fields) -> frozenset[bytes]:
    """:return: names of the fields that are for this connection only (RFC 9110 §7.6.1), lower case."""
    named: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            named.update(option.lower() for option in members(value))
    return HOP_BY_HOP | named if named else HOP_BY_HOP


def hop_by_hop(head: Head) -> frozenset[bytes]:
    """:return: :func:`named_by_connection` of a response's head. (What comes from upstream has no Connection left.)"""
    return named_by_connection(head.fields) if b"connection" in head.by_name else HOP_BY_HOP


def serialised(fields: Fields) -> bytes:
    """:return: field lines of HTTP/1.1."""
    return b"".join([b"%b: %b\r\n" % line for line in fields])


def parsed(head: bytes) -> Fields:
    """:return: the field lines of a head that :func:`serialised` (and a status line) made."""
    lines = head.split(b"\r\n")[1:-1]
    return [(name, value) for name, _, value in [line.partition(b": ") for line in lines]]
