"""What all requests of a worker to upstreams have in common (DESIGN 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from edgecache.upstream.client import Client
from edgecache.upstream.standing import Standing
from edgecache.words.config import UpstreamSettings
from edgecache.words.ports import Counts, Timers

if TYPE_CHECKING:
    from edgecache.fills.quest import Quest

ELSEWHERE = frozenset((502, 503, 504))
"""Statuses by which an origin says that it is not well: another one may be (FIELD 1)."""


@define(eq=False, repr=False)
class Outlet:
    """:ivar quests: those under way."""

    client: Client
    standing: Standing
    settings: UpstreamSettings
    timers: Timers
    counts: Counts
    quests: set[Quest] = field(factory=set)
