"""The page of a project as other parts of a worker need it: its document, as new as they must have it (DESIGN 10)."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from edgecache.rules.asking import Asked
from edgecache.words.stored import Stored


@frozen(eq=False)
class FoundPage:
    """
    A project's page.

    :ivar stored: its base record; ``stored.floor`` is the epoch up to which it is known good.
    :ivar document: canonical (:mod:`edgecache.index.documents`): the origin's links, absolute.
    :ivar current: it is fresh, and known good up to the epoch that was asked for. If not, it is what there is for
        want of an origin.
    """

    stored: Stored
    document: bytes
    current: bool


@frozen(eq=False)
class NoPage:
    """
    The origin says that there is no such project.

    :ivar status: 404 or 410.
    """

    status: int


@frozen(eq=False)
class Unobtainable:
    """
    No page, and nobody who could say whether there is one: to be answered 503.

    :ivar proxy_error: the Proxy-Status error type (RFC 9209 §2.3), ``""`` where none is known.
    """

    proxy_error: str = ""


PageOutcome = FoundPage | NoPage | Unobtainable


class ProjectPages(Protocol):
    """Whoever needs to know what a project's page says, a file's fill above all."""

    def document(
        self, asked: Asked, project: bytes, since: int, until: float, validated_since: float = 0.0
    ) -> Deferred[PageOutcome]:
        """
        The page from the store, or by joining or starting its fill (at its key's owner).

        :param asked: the request that it is needed for: site, authority, and whether a sibling asks (then only the
            origin is asked for the page).
        :param project: normalised name.
        :param since: the page must be known good up to this epoch (the one in which the file was purged; 0: any).
        :param validated_since: wall time; a page that was validated earlier is validated now, however fresh it is. (A
            file that it does not name may be on a newer one that another node has.)
        :param until: monotonic seconds; after that the outcome is :class:`Unobtainable`.
        :return: never fails.
        """
