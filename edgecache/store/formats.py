"""
Formats of rows. Octets that were not written so are damage, whatever LMDB thinks of the page that they are in.

Only reading a row says so: a mistake of ours elsewhere must not have a store moved aside that is as it should be.
"""

from __future__ import annotations

import struct
from typing import Any

import lmdb
import orjson


class Format(struct.Struct):
    """A :class:`struct.Struct` that says of octets which it cannot have packed what LMDB says of damaged pages."""

    def unpack(self, octets: Any, /) -> tuple[Any, ...]:
        """:raises lmdb.CorruptedError: these are not as many as there should be."""
        try:
            return super().unpack(octets)
        except struct.error as error:
            raise odd(error) from error

    def unpack_from(self, octets: Any, /, offset: int = 0) -> tuple[Any, ...]:
        """:raises lmdb.CorruptedError: there are too few."""
        try:
            return super().unpack_from(octets, offset)
        except struct.error as error:
            raise odd(error) from error


def from_json(octets: bytes | memoryview) -> Any:
    """:raises lmdb.CorruptedError: this is no JSON."""
    try:
        return orjson.loads(octets)
    except orjson.JSONDecodeError as error:
        raise odd(error) from error


def odd(why: object) -> lmdb.CorruptedError:
    """:return: what reading a row raises that is not what was written."""
    return lmdb.CorruptedError(f"a row is not what was written: {why}")
