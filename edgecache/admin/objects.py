"""What is asked for most, and what is biggest: ``/objects``, and the tops of both in ``/status``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from edgecache.rules.keys import Keyed
from edgecache.rules.partrecords import as_whole
from edgecache.rules.sites import site_id
from edgecache.store.survey import Survey, Surveyed
from edgecache.store.threads import InThread
from edgecache.words.config import SiteSettings
from edgecache.words.ports import Timers
from edgecache.words.stored import Flag

_log = Logger()

SURVEY_SECONDS = 10.0
"""The store is looked at no more often, however many dashboards are open."""

TOP = 20

Row = tuple[str, str, str]
"""Site, host, target as clients name them."""


@define(eq=False, repr=False)
class Objects:
    """
    :ivar survey: of the store; ``None`` where nothing is stored.
    """

    survey: Survey | None
    _in_thread: InThread | None
    _timers: Timers
    _told: dict[int, Mapping[Row, int]] = field(factory=dict)
    _surveyed: Surveyed | None = None
    _looking: bool = False
    _looked_at: float = field(default=float("-inf"))

    def popular(self, index: int, rows: Sequence[Sequence[Any]]) -> None:
        """
        A worker tells what is asked for most (:mod:`edgecache.wire.sampling`).

        :param rows: of row and count.
        """
        self._told[index] = {(site, host, target): count for (site, host, target), count in rows}

    def hottest(self, most: int = TOP) -> dict[str, Any]:
        """:return: what is asked for most, over all workers; counts are of a sample, and old ones count less."""
        counts: Counter[Row] = Counter()
        for told in self._told.values():
            counts.update(told)
        whole = counts.total()
        return {
            "sampled": whole,
            "objects": [
                {"site": site, "host": host, "url": target, "count": count, "share": count / whole}
                for (site, host, target), count in counts.most_common(most)
            ],
        }

    def biggest(self, sites: Sequence[SiteSettings], now: float, most: int = TOP) -> dict[str, Any]:
        """
        What has been seen so far; :meth:`look` sees more.

        :param now: seconds since the epoch.
        """
        surveyed = self._surveyed
        if surveyed is None:
            return {"examined": 0, "records": 0, "complete": False, "objects": []}
        by_id = {site_id(site.name): site for site in sites}
        objects = []
        for stored in surveyed.biggest[:most]:
            keyed = Keyed.of(stored.key)
            site = None if keyed is None else by_id.get(keyed.site)
            if keyed is None:
                continue
            whole = as_whole(stored)
            objects.append(
                {
                    "site": None if site is None else site.name,
                    "url": (site.path if site is not None else "") + keyed.target.decode("latin-1"),
                    "bytes": stored.size,
                    # Where it is but a part.
                    "of": None if whole is None else whole[0].size,
                    "age_seconds": max(0.0, now - stored.generated_at),
                    "fresh": stored.fresh_until > now,
                    "content": "blobs" if stored.flags & Flag.IN_BLOBS else "small",
                }
            )
        return {
            "examined": surveyed.examined,
            "records": surveyed.records,
            "complete": surveyed.rounds > 0,
            "objects": objects,
        }

    def look(self) -> Deferred[None]:
        """
        Look at the next stretch of the store, unless that was done just now.

        :return: fires when that is over; never fails.
        """
        now = self._timers.seconds()
        if self.survey is None or self._in_thread is None or self._looking:
            return succeed(None)
        if now - self._looked_at < SURVEY_SECONDS:
            return succeed(None)
        self._looking, self._looked_at = True, now
        return self._in_thread(self.survey.turn).addCallbacks(self._seen, self._failed)

    def _seen(self, surveyed: Surveyed) -> None:
        self._looking, self._surveyed = False, surveyed

    def _failed(self, failure: Failure) -> None:
        self._looking = False
        _log.failure("the store could not be surveyed", failure)
