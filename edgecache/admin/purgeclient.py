"""
What ``edgecache purge`` does: a purge that is sent until it is taken, and watched until it has come far enough.

It always has an id, so sending it again, after a lost connection or a refusal for a while, changes nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from attrs import define, field
from twisted.internet.task import deferLater

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import Out, as_lines, call
from edgecache.words.purging import STATES, PurgeState

_RANK = {state.value: rank for rank, state in enumerate(STATES)}

WAITS = tuple(state.value for state in STATES if state is not PurgeState.LOCAL)

# What one request waits for at most, so that progress shows.
_SLICE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


@define(eq=False, repr=False)
class Purging:
    """
    One purge of an operator's.

    :ivar wait: how far it must come.
    :ivar timeout: seconds until it must.
    :ivar progress: takes a line whenever it has come on; ``None``: nobody looks.
    """

    _reactor: Any
    _where: AdminAddress
    wait: str
    timeout: float
    progress: Out | None = None
    _deadline: float = field(init=False, default=0.0)
    _shown: Any = None

    async def run(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param document: as of ``POST /purge``; it gets an id if it has none.
        :return: the last answer of the node, whether it has come far enough or not.
        :raises AdminFailed: it was refused, or nobody could be asked in time.
        """
        self._deadline = time.monotonic() + self.timeout
        document = {"id": secrets.token_hex(16), **document}
        answer = await self._until_answered("POST", "/purge", document)
        while not reached(answer, self.wait) and self._left() > 0.0:
            self._show(answer)
            answer = await self._until_answered("GET", f"/purge/{quote(answer['id'], safe='')}")
        return answer

    async def _until_answered(self, method: str, path: str, document: Any = None) -> dict[str, Any]:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            query = f"?wait={self.wait}&timeout={min(_SLICE_SECONDS, self._left()):.3f}"
            try:
                _, answer = await call(self._reactor, self._where, method, path + query, document)
            except AdminFailed as failure:
                wait = max(pause, failure.retry_after)
                if not failure.again or wait > self._left():
                    raise
                if self.progress is not None:
                    self.progress(f"{failure}; again in {wait:.1f} s")
                await deferLater(self._reactor, wait)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                return answer

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _show(self, answer: dict[str, Any]) -> None:
        shown = (answer["state"], answer["applied"], answer["pending"])
        if self.progress is not None and shown != self._shown:
            self._shown = shown
            self.progress(progress_line(answer))


def reached(answer: Mapping[str, Any], wait: str) -> bool:
    """:return: has a purge come as far as ``wait``?"""
    return _RANK[answer["state"]] >= _RANK[wait]


def progress_line(answer: Mapping[str, Any]) -> str:
    """:return: who has applied it, and who has not."""
    members = len(answer["applied"]) + len(answer["pending"])
    line = f"{answer['state']}: {len(answer['applied'])} of {members} nodes have applied it"
    if answer["pending"]:
        line += f", pending: {', '.join(answer['pending'])}"
    if answer["effective_by"] is not None:
        line += f"; effective everywhere by {datetime.fromtimestamp(answer['effective_by']):%H:%M:%S}"
    return line


async def purge(
    reactor: Any,
    where: AdminAddress,
    document: Mapping[str, Any],
    out: Out,
    *,
    wait: str = "durable",
    timeout: float = 5.0,
    as_json: bool = False,
    progress: Out | None = None,
) -> int:
    """
    :param document: as of ``POST /purge``.
    :return: 0 once the purge has come as far as ``wait``, 1 when it has not in time.
    :raises AdminFailed: it was refused, or nobody knows.
    """
    answer = await Purging(reactor, where, wait, timeout, progress).run(document)
    if as_json:
        out(as_lines(answer))
    else:
        out(f"purge {answer['id']}: {answer['state']} ({answer['mode']}, {answer['selectors']} selectors)")
        if not answer["selectors"]:
            out("  it names nothing: no site of that node has such a host or path")
        if answer["pending"]:
            out(f"  {progress_line(answer)}")
    return 0 if reached(answer, wait) else 1


async def purge_state(reactor: Any, where: AdminAddress, purge_id: str, out: Out) -> int:
    """
    Show how far a purge has come.

    :return: 0 when a majority has it, 1 when not.
    :raises AdminFailed: it is not known, or the node is not.
    """
    _, answer = await call(reactor, where, "GET", f"/purge/{quote(purge_id, safe='')}")
    out(as_lines(answer))
    return 0 if reached(answer, PurgeState.DURABLE.value) else 1
