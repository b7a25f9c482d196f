"""What a request's head does not decide alone: was its address wrong too often, does a token let it past the store?"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from math import ceil
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Refuse
from edgecache.rules.guesses import Guesses
from edgecache.words.counters import Counter
from edgecache.words.errors import EdgeError
from edgecache.words.messages import Request
from edgecache.words.ports import Counts, Timers

_log = Logger()

MOST_WAITING = 64
"""Of one worker: strangers must not fill the control channel."""

LOG_SECONDS = 60.0
"""From one line about wrong credentials to the next."""


@define(eq=False, repr=False)
class Gate:
    """
    Of one worker's public listener.

    :ivar waiting: tokens that the node process is asked about, and has not answered yet.
    """

    _call: Callable[..., Deferred[dict[str, Any]]]
    _counts: Counts
    _timers: Timers
    _guesses: Guesses
    _digests: tuple[bytes, ...] = ()
    waiting: int = 0
    _quiet_until: float = field(default=float("-inf"))

    def denied(self, request: Request, refuse: Refuse, peer: bytes) -> Refuse:
        """
        :param refuse: 401, of whoever has no credentials that are good.
        :return: that, or 429 to an address that was wrong too often. Sending none is no attempt: most installers do
            that first.
        """
        self._counts.add(Counter.DENIED)
        if not any(name == b"authorization" for name, _ in request.fields):
            return refuse
        now = self._timers.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_SECONDS
            _log.warn("wrong credentials from {peer} for {host}", peer=peer.decode(), host=request.authority.decode())
        wait = self._guesses.failed(peer, now)
        return refuse if wait == 0.0 else _too_many(wait)

    def waits(self, asked: Asked, peer: bytes) -> Refuse | None:
        """:return: 429 to a client whose address was wrong too often, ``None``: let it in."""
        wait = self._guesses.waits(peer, asked.client, self._timers.seconds())
        if wait == 0.0:
            return None
        self._counts.add(Counter.DENIED)
        return _too_many(wait)

    def tokens_are(self, digests: list[str]) -> None:
        """The node process says which tokens let a request past the store."""
        self._digests = tuple(bytes.fromhex(digest) for digest in digests)

    def knows(self, token: bytes) -> bool:
        """:return: does it let a request past the store? How long this takes tells nothing about any token."""
        presented = hashlib.sha256(token).digest()
        found = False
        for digest in self._digests:
            found |= hmac.compare_digest(digest, presented)
        return found

    async def refused(self, asked: Asked, peer: bytes) -> Refuse | None:
        """
        Ask the node process about a token that is not known here: it is the one that counts guesses and audits.

        :return: ``None``: it is good.
        """
        if self.waiting >= MOST_WAITING:
            return Refuse(503, "Too many tokens are being looked at.", fields=((b"retry-after", b"1"),))
        self.waiting += 1
        request = asked.request
        try:
            told = await self._call(
                "bypass",
                token=(asked.uncached or b"").decode("utf-8", "replace"),
                peer=peer.decode("latin-1"),
                method=request.method.decode("latin-1"),
                path=request.target.decode("latin-1"),
            )
        except EdgeError as error:
            _log.warn("a token of {peer} could not be looked at: {error}", peer=peer, error=error)
            return Refuse(503, "The token could not be looked at.", fields=((b"retry-after", b"1"),))
        finally:
            self.waiting -= 1
        if not told["status"]:
            return None
        after = told["retry_after"]
        fields = ((b"retry-after", after.encode()),) if after else ()
        return Refuse(told["status"], told["detail"], fields=fields)


def _too_many(wait: float) -> Refuse:
    return Refuse(429, "Too many wrong credentials from this address.", fields=((b"retry-after", b"%d" % ceil(wait)),))
