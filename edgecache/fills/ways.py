"""Whom to ask for something: the origins of a site, or wherever else it turns out to be (DESIGN 8, 10)."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from edgecache.rules.digests import Digest
from edgecache.upstream.addresses import Origin
from edgecache.upstream.responses import Response
from edgecache.words.config import Policy
from edgecache.words.errors import UpstreamFailed
from edgecache.words.messages import Outbound


class Lesser(enum.Enum):
    """A verdict: another address may know better, and this one is not to blame."""

    LESSER = "lesser"


LESSER = Lesser.LESSER

Judge = Callable[[Response], UpstreamFailed | Lesser | None]
"""What is wrong with an answer: a failure of that address, to be left; or only that others may have a better one."""


@frozen(eq=False, repr=False)
class Way:
    """
    Whom to ask for something of a site, and what for.

    :ivar family: whose latencies are alike.
    :ivar target: below each origin's prefix; ``None``: what the request says.
    :ivar judge: see :class:`~edgecache.fills.quest.Quest`.
    :ivar foreign: they are no origins of the site: nothing of its clients is theirs to know.
    """

    origins: tuple[Origin, ...]
    policy: Policy
    family: int | str
    target: bytes | None = None
    judge: Judge | None = None
    foreign: bool = False


class Seeking(Protocol):
    """
    What is asked for is somewhere else than its path says (:mod:`edgecache.fills.artifacts`).

    :ivar digest: what it must hash to, as far as that is known by now.
    :ivar found: where it is, once that is known.
    """

    digest: Digest | None
    found: Way | None

    async def way(self, until: float) -> Way | Response:
        """
        :param until: monotonic seconds.
        :return: where it is; or an answer of our own, where there is nobody to ask.
        :raises UpstreamFailed: that cannot be found out, or must not be asked.
        """

    def taken(self, outbound: Outbound, response: Response) -> Response:
        """
        :param outbound: what was asked for.
        :param response: of one of the way's origins.
        :return: what it means: the same, or an answer of our own.
        :raises UpstreamFailed: it is of no use.
        """
