"""Who the members of a fleet are, as one node's configuration says it, and what those settings demand of each other."""

from __future__ import annotations

import re
from typing import NoReturn, Protocol

from edgecache.words.config import Config
from edgecache.words.endpoints import endpoint, origin_url
from edgecache.words.places import Path
from edgecache.words.siblingsettings import Quorum, SiblingSettings, SiblingsSettings

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What the id of a node looks like."""


class Refuse(Protocol):
    """Says where a setting stands and what is wrong with it."""

    def __call__(self, path: Path, problem: str) -> NoReturn: ...


def members(config: Config) -> tuple[str, ...]:
    """
    :return: ids of all members in order, this node's included; alone without ``[siblings]``.

    A node that is leaving is none.
    """
    return tuple(sorted({config.node.id, *(other.id for other in config.others if not other.leaving)}))


def previous_members(config: Config) -> tuple[str, ...]:
    """:return: ids of all members before the change that is going on, in order; ``()`` when none is."""
    return () if config.siblings is None else tuple(sorted(config.siblings.previous_members))


def acquainted(config: Config) -> frozenset[str]:
    """:return: ids that may speak to this node: members of now and before, without its own."""
    return frozenset((*members(config), *previous_members(config))) - {config.node.id}


def check_fleet(config: Config, refuse: Refuse) -> None:
    """
    Refuse what cannot be, at the first setting.

    :param refuse: raises; it is given the path of the offending setting.
    """
    if config.siblings is None:
        _without(config, refuse)
        return
    for name in ("siblings", "content"):
        for at, text in enumerate(getattr(config.listen, name)):
            try:
                endpoint(text)
            except ValueError as error:
                refuse(("listen", name, at), str(error))
    if config.others and not config.listen.siblings:
        refuse(("listen", "siblings"), "is empty: no sibling could reach this node")
    if config.others and not config.listen.content and not config.siblings.voter:
        refuse(("listen", "content"), "is empty: no sibling could ask this node for content")
    if config.siblings.voter and config.listen.content:
        refuse(("listen", "content"), "must be empty: a voter has no content")
    seen = {config.node.id.lower()}
    urls: set[str] = set()
    for at, other in enumerate(config.others):
        _other(at, other, seen, urls, refuse)
    _change(config, config.siblings, refuse)
    _numbers(config, config.siblings, refuse)


def _without(config: Config, refuse: Refuse) -> None:
    if config.others:
        refuse(("sibling", 0), "needs [siblings], which names the certificates of this node")
    for name in ("siblings", "content"):
        if getattr(config.listen, name):
            refuse(("listen", name), "needs [siblings], which names the certificates of this node")


def _other(at: int, other: SiblingSettings, seen: set[str], urls: set[str], refuse: Refuse) -> None:
    path: Path = ("sibling", at)
    if not IDENTIFIER.fullmatch(other.id):
        refuse((*path, "id"), "is up to 64 letters, digits, '.', '_' and '-'")
    # Names in certificates know no case.
    if other.id.lower() in seen:
        refuse((*path, "id"), f"{other.id!r} is taken by another node; small and capital letters are the same")
    seen.add(other.id.lower())
    if other.voter and other.content_url:
        refuse((*path, "content_url"), "a voter has no content")
    if not other.voter and not other.content_url:
        refuse((*path, "content_url"), "is missing; only a voter has none")
    for name in ("control_url", "content_url"):
        url = getattr(other, name)
        if not url:
            continue
        try:
            parsed = origin_url(url)
        except ValueError as error:
            refuse((*path, name), str(error))
        if not parsed.shown.startswith("https://"):
            refuse((*path, name), "begins with https://: siblings know each other by their certificates")
        if parsed.path or parsed.credentials:
            refuse((*path, name), "is https://host:port and nothing more")
        if parsed.shown in urls:
            refuse((*path, name), f"{parsed.shown} is used twice")
        urls.add(parsed.shown)
    if other.public_url:
        _public(path, other, urls, refuse)


def _public(path: Path, other: SiblingSettings, urls: set[str], refuse: Refuse) -> None:
    if other.voter:
        refuse((*path, "public_url"), "a voter has no clients")
    try:
        parsed = origin_url(other.public_url)
    except ValueError as error:
        refuse((*path, "public_url"), str(error))
    if parsed.path or parsed.credentials:
        refuse((*path, "public_url"), "is http://host:port or https://host:port and nothing more")
    if parsed.shown in urls:
        refuse((*path, "public_url"), f"{parsed.shown} is used twice; what stands before all nodes is no node's own")
    urls.add(parsed.shown)


def _change(config: Config, settings: SiblingsSettings, refuse: Refuse) -> None:
    now, before = set(members(config)), set(settings.previous_members)
    path: Path = ("siblings", "previous_members")
    for at, member in enumerate(settings.previous_members):
        if not IDENTIFIER.fullmatch(member):
            refuse((*path, at), "is up to 64 letters, digits, '.', '_' and '-'")
    if len(before) < len(settings.previous_members):
        refuse(path, "names a member twice")
    for at, other in enumerate(config.others):
        if other.leaving and other.id not in before:
            refuse(("sibling", at, "leaving"), "is only for one of previous_members")
    if not before:
        for name in ("previous_quorum", "previous_lease_seconds"):
            if getattr(settings, name) is not None:
                refuse(("siblings", name), "is only used while previous_members is set")
        return
    if len(now ^ before) > 1:
        refuse(path, "differs from the members by more than one: members change one at a time")


def _numbers(config: Config, settings: SiblingsSettings, refuse: Refuse) -> None:
    if settings.quorum is Quorum.ANY and len(members(config)) > 2:
        refuse(("siblings", "quorum"), "'any' is for two members; of more a majority has to know")
    if settings.previous_quorum is Quorum.ANY and len(settings.previous_members) > 2:
        refuse(("siblings", "previous_quorum"), "'any' is for two members; of more a majority has to know")
    # A round that is late, and another one, must not cost the lease.
    if settings.lease_seconds < 2 * (settings.pull_seconds + settings.call_seconds):
        refuse(("siblings", "lease_seconds"), "is at least twice pull_seconds and call_seconds together")
