"""How large the store is: the share of each environment, and what fits on the disk (DESIGN 7)."""

from __future__ import annotations

import os

from attrs import evolve
from twisted.logger import Logger

from edgecache.store import disk, layout
from edgecache.store.disk import Disk
from edgecache.words.config import MIB, StoreSettings

_log = Logger()

SMALLEST_STORE = 64 * MIB


def map_sizes(settings: StoreSettings) -> tuple[int, int]:
    """:return: octets of the maps of small and blobs: their shares are at most ``evict_share`` of them."""
    small = int(settings.size * settings.small_share)

    def mapped(share: int) -> int:
        return int(share / settings.evict_share) // layout.PAGE * layout.PAGE

    return mapped(small), mapped(settings.size - small)


def fitted(data: str, settings: StoreSettings, found: Disk) -> StoreSettings:
    """
    A store that the disk cannot hold is made smaller, with a warning.

    :param found: of ``data``.
    """
    ours = sum(disk.occupied(os.path.join(data, name, "data.mdb")) for name in ("small", "blobs"))
    # The maps are larger than the store by this much, and control and the logs need room too.
    room = int((found.free + ours) * settings.evict_share * 0.95)
    if settings.size <= room:
        return settings
    size = max(room, SMALLEST_STORE)
    _log.warn(
        "store: {wanted} MiB asked for, {free} MiB free in {data}: using {size} MiB",
        wanted=settings.size // MIB,
        free=found.free // MIB,
        data=data,
        size=size // MIB,
    )
    return evolve(settings, size=size)
