"""What differs between the settings that a node has and those of its file, and what of it can be had at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from attrs import evolve, frozen

from edgecache.words.config import Config

_AT_START = {
    # Sockets, environments and the mapped page are made once, and workers share keys by their number.
    "node": ("id", "data", "workers"),
    "listen": ("public", "admin", "siblings", "content"),
    "store": ("size", "small_share", "evict_share", "full_share"),
    "upstream": ("proxy",),
    "purge": ("body_octets",),
    "index": ("downloads", "download_log", "downloads_days"),
    "siblings": ("voter", "call_seconds", "message_octets"),
}
"""Settings of each table that are read at the start of a node, and not again."""


@frozen
class Changes:
    """
    :ivar config: to go on with: as the file has it, but for what waits.
    :ivar taken: names of the settings that are other ones from now on, never their values.
    :ivar waiting: names of those that wait for a restart.
    """

    config: Config
    taken: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def changes(running: Config, read: Config) -> Changes:
    """
    :param running: what the node runs with.
    :param read: what its file and flags say now; each is right by itself.
    """
    config = _kept(running, read)
    waiting = tuple(_differences(config, read))
    return Changes(config, tuple(name for name in _differences(running, config) if name not in waiting), waiting)


def _kept(running: Config, read: Config) -> Config:
    config = read
    for table, names in _AT_START.items():
        before, after = getattr(running, table), getattr(read, table)
        if before is not None and after is not None:
            config = evolve(config, **{table: evolve(after, **{name: getattr(before, name) for name in names})})
    if (running.siblings is None) != (read.siblings is None):
        config = evolve(config, siblings=running.siblings, others=running.others)
    if running.listen != read.listen:
        # Who may be let in without TLS, or without a token, was judged by where the file would have us listen.
        config = evolve(config, tls=running.tls, sites=running.sites)
    if config.counts_downloads and not running.counts_downloads:
        # Nobody folds what workers would write.
        config = evolve(config, index=evolve(config.index, downloads=False))
    return config


def _differences(before: Config, after: Config) -> Iterator[str]:
    for table in attrs.fields(Config):
        one, other = getattr(before, table.name), getattr(after, table.name)
        if one == other:
            continue
        match table.name:
            case "sites":
                yield from _members("[[site]]", {site.name: site for site in one}, {site.name: site for site in other})
            case "others":
                yield from _members("[[sibling]]", {each.id: each for each in one}, {each.id: each for each in other})
            case _ if one is None or other is None:
                yield f"[{table.name}]"
            case _:
                yield from (f"[{table.name}] {name}" for name in _fields(one, other))


def _members(table: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for name in {**before, **after}:
        if name not in after:
            yield f"{table} {name} (gone)"
        elif name not in before:
            yield f"{table} {name} (new)"
        else:
            yield from (f"{table} {name}: {field}" for field in _fields(before[name], after[name]))
    if before == after:
        yield f"{table} (their order)"


def _fields(before: Any, after: Any) -> list[str]:
    return [one.name for one in attrs.fields(type(before)) if getattr(before, one.name) != getattr(after, one.name)]
