"""Traces of requests: read in the formats that public ones have, or made like the traffic of a package index."""

from __future__ import annotations

import csv
import io
import itertools
import random
import struct
from array import array
from bisect import bisect
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard
from attrs import define, field
from xxhash import xxh3_64_intdigest

FORMATS = ("oracle", "csv", "plain")

_ORACLE = struct.Struct("<IQIq")
_PIECE = _ORACLE.size * 40_000

PAGES, FILES = 60_000, 300_000
_RELEASES = 50
"""So often, evenly spread over the trace, one in fifty of the files is replaced by a newer one."""


@define
class Trace:
    """
    Requests, one column each.

    :ivar keys: what was asked for.
    :ivar sizes: its octets.
    :ivar pages: keys of index pages.
    """

    name: str
    keys: array[int] = field(factory=lambda: array("Q"))
    sizes: array[int] = field(factory=lambda: array("Q"))
    pages: frozenset[int] = frozenset()

    @property
    def footprint(self) -> int:
        """Octets of everything that is asked for, each once."""
        return sum(dict(zip(self.keys, self.sizes, strict=True)).values())


def read(path: str, form: str, most: int) -> Trace:
    """
    :param form: one of :data:`FORMATS`: libCacheSim's oracleGeneral, its csv (time, key, size), or webcachesim's lines
        of "time key size"; each may be compressed with zstandard (``.zst``).
    :param most: requests.
    """
    trace = Trace(Path(path).name)
    with Path(path).open("rb") as file:
        plain = zstandard.ZstdDecompressor().stream_reader(file) if path.endswith(".zst") else file
        rows = {"oracle": _oracle, "csv": _csv, "plain": _plain}[form](plain)
        for key, size in itertools.islice(rows, most):
            trace.keys.append(key)
            trace.sizes.append(max(1, size))
    return trace


def _oracle(file: BinaryIO) -> Iterator[tuple[int, int]]:
    while piece := file.read(_PIECE):
        yield from ((key, size) for _, key, size, _ in _ORACLE.iter_unpack(piece))


def _csv(file: BinaryIO) -> Iterator[tuple[int, int]]:
    for row in csv.reader(io.TextIOWrapper(file)):
        if row and row[2].strip().isdigit():
            yield _key(row[1].strip()), int(row[2])


def _plain(file: BinaryIO) -> Iterator[tuple[int, int]]:
    for line in io.TextIOWrapper(file):
        parts = line.split()
        if len(parts) > 2:
            yield _key(parts[1]), int(parts[2])


def _key(name: str) -> int:
    return int(name) if name.isdigit() and len(name) < 20 else xxh3_64_intdigest(name.encode())


def artifacts(requests: int, seed: int) -> Trace:
    """
    FIELD 3's shape: 46 % pages of 10 to 500 kB, 54 % files of which many are metadata below 50 kB and few are above
    100 MB; Zipf popularity; new releases take the places of old ones.
    """
    chance = random.Random(seed)
    trace = Trace("artifacts", pages=frozenset(range(PAGES)))
    page_sizes = [min(500_000, max(10_000, int(chance.lognormvariate(10.3, 1.0)))) for _ in range(PAGES)]
    files = list(range(PAGES, PAGES + FILES))
    sizes = {key: _file_size(chance) for key in files}
    pages_drawn, files_drawn = _zipf(chance, PAGES, 1.0), _zipf(chance, FILES, 0.9)
    newest = PAGES + FILES
    for number in range(requests):
        if number % (requests // _RELEASES) == 0:
            for place in chance.sample(range(FILES), FILES // 50):
                files[place] = newest
                sizes[newest] = _file_size(chance)
                newest += 1
        if chance.random() < 0.46:
            key = next(pages_drawn)
            trace.keys.append(key)
            trace.sizes.append(page_sizes[key])
        else:
            key = files[next(files_drawn)]
            trace.keys.append(key)
            trace.sizes.append(sizes[key])
    return trace


def _file_size(chance: random.Random) -> int:
    if chance.random() < 0.4:
        return int(chance.uniform(1_000, 50_000))
    return min(500_000_000, max(2_000, int(chance.lognormvariate(11.7, 2.2))))


def _zipf(chance: random.Random, count: int, exponent: float) -> Iterator[int]:
    """:return: ranks below ``count``, without end."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, count + 1)))
    while True:
        yield bisect(weights, chance.random() * weights[-1], hi=count - 1)
