"""Those that one quest may still ask, and whom of them next: health may have changed since they were put in order."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from edgecache.upstream.addresses import Address

NONE: frozenset[Address] = frozenset()


@define(eq=False, repr=False)
class Candidates:
    """
    Of one quest.

    Who is ejected is asked once nobody is left that is in service, and who was wrong, after all others: what it sends
    is most likely wrong again, and that shows only at its end.

    :ivar left: in the order in which they are best asked.
    :ivar better: those that others may not be asked beside, only after (a fallback is no equal); none: all are equals.
    :ivar avoid: what these have sent was of no use.
    """

    _ejected: Callable[[Address], bool]
    left: list[Address]
    better: frozenset[Address] = NONE
    avoid: frozenset[Address] = NONE

    def first(self) -> Address:
        """:return: the one at the head, which is left no longer; there must be one."""
        return self.left.pop(0)

    def next(self) -> Address:
        """:return: the one to ask now, which is left no longer; there must be one."""
        address = self._following()
        self.left.remove(address)
        return address

    @property
    def choice(self) -> bool:
        """Is there another address that is as good as any?"""
        return any(not self._is_out(address) for address in self.left)

    def choice_beside(self, address: Address) -> bool:
        """Is the next one an equal of this one, so that both may be asked at the same time?"""
        return self.choice and (address not in self.better or self._following() in self.better)

    def _following(self) -> Address:
        return min(self.left, key=lambda address: (address in self.avoid, self._ejected(address)))

    def _is_out(self, address: Address) -> bool:
        return address in self.avoid or self._ejected(address)
