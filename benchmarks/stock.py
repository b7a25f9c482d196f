"""A plain node's store, filled before the node starts: as its fills would, but without origin, network and waits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from attrs import evolve

from edgecache.processes.settings import local_facts, read_secret
from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward, Store
from edgecache.rules.policy import on_response
from edgecache.rules.presenting import complete
from edgecache.rules.sites import Sites
from edgecache.store import layout
from edgecache.store.checks import sealed
from edgecache.store.environments import Environments
from edgecache.store.filling import BlobsTransaction
from edgecache.store.layout import CHUNK
from edgecache.store.small import SmallTransaction
from edgecache.words.config import StoreSettings
from edgecache.words.messages import Head, Request
from edgecache.words.reading import Document, build, octets
from edgecache.words.reasons import ForwardReason
from edgecache.words.stored import Flag, Stored
from tests.system.contents import Artifact

FRESH_SECONDS = 86_400
_GROUP_OCTETS = 32 << 20
_GROUP_RECORDS = 4096


class Stock:
    """The store of a node with this origin on its command line, which is not running."""

    def __init__(self, data: Path, origin: str, size: str) -> None:
        settings = {"site": [{"profile": "plain", "hosts": ["*"], "origins": [origin]}]}
        self._sites = Sites(build(Document("benchmark", "/", settings), local_facts(), read_secret))
        self._environments = Environments.open(str(data), StoreSettings(size=octets(size)), node_process=True)
        self._prototypes: dict[int, Stored] = {}

    def put(self, contents: Iterable[tuple[bytes, Artifact]]) -> None:
        """Have them stored, fresh for a day."""
        for group in _groups(contents):
            placed = [(target, content, os.urandom(layout.CONTENT_ID_OCTETS)) for target, content in group]
            blobs, small = self._environments.blobs, self._environments.small
            if any(content.size >= CHUNK for _, content, _ in placed):
                with blobs.env.begin(write=True) as txn:
                    chunks = BlobsTransaction(txn, blobs.databases)
                    for _, content, content_id in placed:
                        indices = range(layout.chunks_of(content.size))
                        parts = (content.read(index * CHUNK, CHUNK) for index in indices)
                        seeds = (layout.seed(content_id, index) for index in indices)
                        chunks.put(
                            content_id,
                            indices,
                            [bytearray(sealed((part,), seed)) for part, seed in zip(parts, seeds, strict=True)],
                        )
            with small.env.begin(write=True) as txn:
                records = SmallTransaction(txn, small.databases)
                for target, content, content_id in placed:
                    asked, stored = self._record(target, content.size, content_id)
                    tail = content.read(content.size - content.size % CHUNK, CHUNK)
                    records.store(asked.key_hash, stored, [tail] if tail else [], None)
                records.finish()

    def close(self) -> None:
        """The node may start."""
        self._environments.close()

    def _record(self, target: bytes, size: int, content_id: bytes) -> tuple[Asked, Stored]:
        asked = ask(Request(b"GET", target, b"127.0.0.1", []), self._sites)
        assert isinstance(asked, Asked)
        prototype = self._prototypes.get(size)
        if prototype is None:
            prototype = self._prototypes[size] = _fresh(asked, size)
        stored = complete(prototype, size, content_id)
        flags = stored.flags | (Flag.IN_BLOBS if size >= CHUNK else 0)
        return asked, evolve(stored, flags=int(flags), key=asked.key, selectors=asked.selectors)


def _fresh(asked: Asked, size: int) -> Stored:
    """The record of an origin's ordinary answer."""
    now = time.time()
    fields = [(b"content-type", b"application/octet-stream"), (b"etag", b'"%d"' % size)]
    plan = on_response(
        asked,
        Forward(ForwardReason.URI_MISS),
        Head(200, b"OK", [*fields, (b"cache-control", b"public, max-age=%d" % FRESH_SECONDS)]),
        length=size,
        delimited_by_close=False,
        requested_at=now,
        responded_at=now,
        floor=0,
    )
    assert isinstance(plan, Store)
    return plan.stored


def _groups(contents: Iterable[tuple[bytes, Artifact]]) -> Iterator[list[tuple[bytes, Artifact]]]:
    """So much as one transaction holds in memory."""
    group: list[tuple[bytes, Artifact]] = []
    held = 0
    for target, content in contents:
        group.append((target, content))
        held += content.size
        if held >= _GROUP_OCTETS or len(group) >= _GROUP_RECORDS:
            yield group
            group, held = [], 0
    if group:
        yield group
