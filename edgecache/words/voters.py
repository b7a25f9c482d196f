"""What a voter may be told: it has the purge log and votes, and nothing else (DESIGN 9)."""

from __future__ import annotations

import attrs

from edgecache.words.config import Config
from edgecache.words.fleet import Refuse
from edgecache.words.places import Path
from edgecache.words.reading import Document

# Everything else is about clients, content or origins. Of [purge], how long one may wait is for voters too.
_TABLES = frozenset(("node", "listen", "siblings", "sibling", "purge"))

_NOTHING = "a voter has the purge log and votes, and nothing else"


def is_voter(config: Config) -> bool:
    """:return: does this node serve nobody?"""
    return config.siblings is not None and config.siblings.voter


def as_voter(config: Config, document: Document, refuse: Refuse) -> Config:
    """
    :param document: what ``config`` was built from: defaults for nodes that serve are no contradiction.
    :param refuse: raises; it is given the path of the first setting that would have no effect.
    :return: without what only nodes that serve have.
    """
    if not config.others:
        refuse(("siblings", "voter"), "is for one of several: there is no [[sibling]] to vote with")
    for table, settings in document.data.items():
        if table not in _TABLES:
            refuse(_first(document, (table,), settings), f"has no effect here: {_NOTHING}")
    if document.data.get("listen", {}).get("public"):
        refuse(("listen", "public"), f"must be empty: {_NOTHING}")
    for path in (("siblings", "weight"), ("siblings", "region_homes"), ("node", "workers")):
        if document.written(path) and document.data[path[0]][path[1]]:
            refuse(path, f"has no effect here: {_NOTHING}")
    return attrs.evolve(
        config, node=attrs.evolve(config.node, workers=0), listen=attrs.evolve(config.listen, public=())
    )


def _first(document: Document, path: Path, settings: object) -> Path:
    """:return: the path of the first setting of a table, or of one that a flag gave."""
    if isinstance(settings, list) and settings:
        path, settings = (*path, 0), settings[0]
    if not isinstance(settings, dict) or not settings:
        return path
    paths: list[Path] = [(*path, name) for name in settings]
    return next((one for one in paths if document.flag(one)), paths[0])
