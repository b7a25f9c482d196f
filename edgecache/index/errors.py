"""What pages of an index can have wrong with them."""

from __future__ import annotations

from attrs import define

from edgecache.words.errors import EdgeError


@define(eq=False, repr=False)
class BadPage(EdgeError):
    """
    What an upstream sent is not a page that anything can be made of; nothing of it is stored or shown.

    :ivar why: for the log and the answer; contains nothing of the page.
    """

    why: str
