"""Who is asked for the rest of a content that broke off (DESIGN 8, FIELD 1)."""

# Note [who is asked for the rest]
#
# Those that broke off come last. So the rest is asked for in two steps: first of everybody who neither broke
# off nor gave a rest before, then, if that brings nothing, of those that broke off but gave no rest yet. That
# way an only address, too, is asked again, once.

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from edgecache.processes.background import background
from edgecache.upstream.addresses import Address
from edgecache.upstream.responses import Response
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Outbound

AskRest = Callable[[Outbound, frozenset[Address]], Deferred[Response]]
"""
Ask for the rest of a content, none of those addresses: the first head of another one.

Fails with a subclass of :class:`~edgecache.words.errors.UpstreamFailed` if none gives one, or none is left.
"""


@define(eq=False, repr=False)
class Rests:
    """
    Of one content.

    :ivar given: how many there were.
    """

    _ask: AskRest
    given: int = 0
    _broken: set[Address] = field(factory=set)
    _gave: set[Address] = field(factory=set)
    _asking: Deferred[Response] | None = None
    _cancelled: bool = False

    def gave(self, address: Address) -> None:
        """A rest has come from there."""
        self.given += 1
        self._gave.add(address)

    def broke_off(self, address: Address) -> None:
        """What came from there did."""
        self._broken.add(address)

    def ask(
        self, outbound: Outbound, answered: Callable[[Response], None], unanswered: Callable[[Failure], None]
    ) -> None:
        """See Note [who is asked for the rest]. One of the two is called, unless :meth:`cancel` comes first."""
        self._step(outbound, self._broken | self._gave, answered, unanswered)

    def cancel(self) -> None:
        """None is wanted any more."""
        self._cancelled = True
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _step(
        self,
        outbound: Outbound,
        tried: set[Address],
        answered: Callable[[Response], None],
        unanswered: Callable[[Failure], None],
    ) -> None:
        def good(response: Response) -> None:
            self._asking = None
            if self._cancelled:
                response.cancel()
                return
            self.gave(response.address)
            answered(response)

        def bad(why: Failure) -> None:
            self._asking = None
            if self._cancelled:
                return
            unasked = tried - self._gave
            if unasked and isinstance(why.value, UpstreamFailed):
                self._step(outbound, tried - unasked, answered, unanswered)
            else:
                unanswered(why)

        asking = self._asking = self._ask(outbound, frozenset(tried))
        background(asking.addCallbacks(good, bad), "go on with a content")
