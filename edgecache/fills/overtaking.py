"""
A page that tells a higher serial than other documents of its project: nobody goes back to those (DESIGN 10).

A project has its page and its documents of releases, each stored for itself. When one is fetched anew, because it was
purged alone or was the first to be asked for, the others are as old as they were.
"""

# Note [twice]
#
# Looked at before the commit, so that nobody is shown the new page before the old documents are invalid; and after it,
# for what was committed in between. What comes later than that is below the serial that the commit has written, and is
# not stored.

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgecache.rules.asking import Asked, page_key
from edgecache.rules.pages import PAGE, serial_of
from edgecache.rules.selectors import Selector
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Stored

if TYPE_CHECKING:
    from edgecache.fills.fills import Fills


async def overtake(fills: Fills, asked: Asked, serial: int | None) -> None:
    """
    Invalidate, on this node, what of the project is older. See Note [twice].

    :param asked: for the page that tells ``serial``.
    """
    if serial is None or asked.page is None or not asked.page.project:
        return
    older = tuple(_older(fills, asked, serial))
    if older:
        await fills.node_process.invalidate_here(older, PurgeMode.REVALIDATE)


def _older(fills: Fills, asked: Asked, serial: int) -> Iterator[Selector]:
    assert asked.page is not None
    project, site = asked.page.project, asked.site.id
    below = b"/pypi/%b/" % project
    page, releases = b"/simple/%b/" % project, below + b"json"
    # With the document of all releases go those of single ones, unless it is one of them that has come.
    whole = Selector("url", site, releases) if asked.target.startswith(below) else Selector("prefix", site, below)
    for target, selector in ((page, Selector("url", site, page)), (releases, whole)):
        if target != asked.target and _is_older(fills, page_key(asked, target), serial):
            yield selector


def _is_older(fills: Fills, key: bytes, serial: int) -> bool:
    """Is it stored, and might be shown to somebody as it is?"""
    stored = fills.look_up(hashlib.blake2b(key, digest_size=32).digest(), key)
    if not isinstance(stored, Stored) or not stored.flags & PAGE:
        return False
    told = serial_of(stored)
    return told is not None and told < serial and fills.epochs.since(stored) in (None, PurgeMode.SOFT)
