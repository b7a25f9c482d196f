"""The node process as fills know it: what only it may do (DESIGN 4, 9)."""

from __future__ import annotations

import base64
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from edgecache.processes.channel import Channel
from edgecache.rules.asking import Asked
from edgecache.rules.selectors import Selector, rows_of
from edgecache.rules.sharing import parted
from edgecache.words.counters import Counter
from edgecache.words.errors import EdgeError
from edgecache.words.messages import combined
from edgecache.words.ports import Counts
from edgecache.words.reasons import PurgeMode

_log = Logger()


@define(eq=False, repr=False)
class NodeProcess:
    """
    Over the control channel of one worker.

    :ivar _shares: sites whose groups are invalidated at the siblings as well.
    """

    _channel: Channel
    _counts: Counts
    _shares: frozenset[int]

    async def invalidate(self, selectors: tuple[Selector, ...]) -> None:
        """An unsafe request went through (RFC 9111 §4.4): done once that is published here."""
        here, shared = parted(selectors, self._shares)
        # Not as stale either.
        told: list[Any] = [Deferred.fromCoroutine(self.invalidate_here(here, PurgeMode.DELETE))]
        if shared:
            told.append(self._channel.call("share", selectors=[selector.canonical.hex() for selector in shared]))
        await gatherResults(told, consumeErrors=True)

    async def invalidate_here(self, selectors: tuple[Selector, ...], mode: PurgeMode) -> None:
        """A local epoch for ``selectors``, never for siblings: done once it is published."""
        rows = rows_of((selector.canonical for selector in selectors), mode)
        await self._channel.call("outdated", rows=[(canonical.hex(), key, each) for canonical, key, each in rows])

    async def uploaded(self, asked: Asked, begin: bytes, peer: bytes) -> None:
        """
        An origin has taken an upload: done once its project is purged.

        :param begin: what its content begins with.
        :param peer: who sent it.
        """
        self._counts.add(Counter.UPLOADS)
        try:
            await self._channel.call(
                "uploaded",
                site=asked.site.settings.name,
                content_type=(combined(asked.request.fields, b"content-type") or b"").decode("latin-1"),
                begin=base64.b64encode(begin).decode("ascii"),
                peer=peer.decode("latin-1"),
            )
        except EdgeError as error:
            # The origin has it: whoever sent it must not send it again.
            _log.error("an upload to {site} is not purged: {error}", site=asked.site.settings.name, error=error)
