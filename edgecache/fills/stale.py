"""What is stored and not fresh any more, where nothing better is to be had (RFC 9111 §4.2.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, evolve

from edgecache.fills.sending import UNDERIVED
from edgecache.fills.waiting import Waiter
from edgecache.rules import status_fields
from edgecache.rules.asking import Asked
from edgecache.rules.decisions import Forward, Reuse
from edgecache.rules.fallback import expired
from edgecache.rules.pages import PAGE
from edgecache.rules.policy import stale_first
from edgecache.rules.varying import variant_hash
from edgecache.words.counters import Counter

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills


@define(eq=False, repr=False)
class Stale:
    """Answers of one worker."""

    _fills: Fills

    def answer(self, waiter: Waiter, reuse: Reuse, detail: str, proxy_status: bytes) -> bool:
        """
        Answer with what is stored, stale, and say why.

        :return: ``False``: its content is gone, and nothing was sent.
        """
        stored = waiter.forward.stored
        assert stored is not None
        status = status_fields.hit(waiter.asked.site, reuse, detail)
        # What was purged is stale whatever its time says; caches downstream go by its time alone.
        head = expired(stored.head) if stored.fresh_until > self._fills.clock() else stored.head
        stored = evolve(stored, head=head + proxy_status)
        # Where it was found, whatever its client has waited for since.
        record_hash = variant_hash(waiter.asked.key_hash, stored.variant)
        answer = (waiter.downstream, waiter.asked, stored, record_hash, reuse.age, status)
        sent = self._fills.sender.send_later(*answer)
        if sent is UNDERIVED:
            self._fills.representing.answer(*answer)
        if sent:
            self._fills.counts.add(Counter.STALE_HITS)
        return bool(sent)

    def first(self, waiter: Waiter) -> bool:
        """While everybody who could be asked fails, no installer shall wait for that to be seen once more."""
        asked = waiter.asked
        reuse = stale_first(asked, waiter.forward, self._fills.clock())
        if reuse is None or not self._fills.attempts.failing(asked.site):
            return False
        error = "destination_unavailable"
        return self.answer(waiter, reuse, error, status_fields.proxy_status(asked.site, error=error))

    def honest(self, asked: Asked, forward: Forward) -> Forward:
        """:return: the same, without the stored page as a last resort if it is known to be older than its project."""
        stored = forward.stored
        if stored is None or not forward.stale_allowed or not stored.flags & PAGE:
            return forward
        return evolve(forward, stale_allowed=False) if self._fills.serials.is_behind(asked, stored) else forward
