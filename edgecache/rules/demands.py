"""
What purges say about the serials of projects (DESIGN 10).

A purge with ``serials`` says that pages below them are old, whoever answers with them. One that deletes a project's
pages makes void what was known: the origin may have been restored from a backup, and counts on from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from edgecache.rules.indexpaths import normalised_name, project_of_page, project_tag
from edgecache.rules.selectors import Selector, all_selector, tag_selector
from edgecache.words.purging import SerialDemand
from edgecache.words.reasons import PurgeMode

_TAG = project_tag(b"")

# A site may be below a path of its own.
_PAGE = re.compile(rb"/(?:simple|pypi)/.*", re.DOTALL)


def demands_of(selectors: Iterable[bytes], mode: PurgeMode, serials: Mapping[str, int]) -> list[SerialDemand]:
    """
    :param selectors: canonical octets; each of ``serials`` has its project's tag among them, for every site.
    :param serials: normalised names to serials.
    :return: one for each project and site concerned, in the order named.
    """
    found: dict[int, SerialDemand] = {}
    delete = mode is PurgeMode.DELETE
    for canonical in selectors:
        selector = Selector.of(canonical)
        project = _project(selector)
        if project is None:
            continue
        site = all_selector(selector.site)
        tag = tag_selector(selector.site, project_tag(project)) if project else site
        serial = serials.get(project.decode("latin-1"), 0)
        if delete or serial:
            found.setdefault(tag, SerialDemand(site, tag, serial, delete))
    return list(found.values())


def _project(selector: Selector) -> bytes | None:
    """:return: whose pages it selects; ``b""``: every project's; ``None``: no page."""
    match selector.kind:
        case "all":
            return b""
        case "tag":
            name = normalised_name(selector.value.removeprefix(_TAG))
            return name if selector.value.startswith(_TAG) and name else None
        case _:
            path = selector.value.partition(b"?")[0]
            if selector.kind == "prefix" and (path == b"/" or path.endswith(b"/simple/")):
                return b""
            page = _PAGE.search(path)
            return None if page is None else project_of_page(page[0])
