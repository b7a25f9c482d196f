"""Which addresses there are at the moment, and which of them can stand in for each other: those of a site."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from edgecache.rules.health import Health
from edgecache.upstream.addresses import Address, Origin, origins_of
from edgecache.words.config import SiteSettings, UpstreamSettings


@define(eq=False, repr=False)
class Member:
    """
    One address that has a slot.

    :ivar origins: those that have it: of one name, but each site may have a prefix and credentials of its own.
    :ivar name: as :attr:`edgecache.upstream.addresses.Address.name`.
    :ivar word: as published.
    :ivar target: of the last failure that had one, prefix included.
    :ivar probes: running ones by the path that a site wants asked; ``None`` is the half-open one.
    :ivar due: when each such path is asked next.
    :ivar quiet_until: until then it is not said again that it was spared.
    """

    origins: tuple[Origin, ...]
    name: str
    host: str
    port: int
    slot: int
    health: Health
    word: int = 0
    target: bytes | None = None
    probes: dict[str | None, Deferred[None]] = field(factory=dict)
    due: dict[str, float] = field(factory=dict)
    quiet_until: float = -inf

    @property
    def origin(self) -> str:
        """The name of its origins."""
        return self.origins[0].name

    @property
    def next_at(self) -> float:
        """When something has to be done without being told."""
        return min(self.next_regular, self.health.next_at)

    @property
    def next_regular(self) -> float:
        """When one of its paths is asked next; what is out is probed when its time is over, and only then."""
        return min(self.due.values(), default=inf) if self.health.in_service else inf

    def address(self, origin: Origin) -> Address:
        """:return: how ``origin``, one of its own, is asked here."""
        return Address(origin, self.host, self.port, None, self.slot)


@define(eq=False, repr=False)
class Group:
    """
    The addresses of one site: each can stand in for the others.

    :ivar members: those with a slot.
    :ivar unslotted: there are others, which nobody watches and which are taken for well.
    :ivar sibling: it is no site: the origin stands in for a sibling that is asked first.
    """

    origins: tuple[Origin, ...]
    probe_path: str
    members: list[Member] = field(factory=list)
    unslotted: bool = False
    sibling: bool = False

    def others(self, member: Member) -> list[Member]:
        """:return: all but ``member``."""
        return [other for other in self.members if other is not member]

    @property
    def deserted(self) -> bool:
        """Has it addresses, and none in service?"""
        return bool(self.members) and not self.unslotted and not any(one.health.in_service for one in self.members)


@define(eq=False, repr=False)
class Roster:
    """
    All addresses of all sites, and of the siblings.

    :ivar members: by slot.
    :ivar links: hosts that files are fetched from because pages link there; each has nobody to stand in for it.
    """

    _sites: Iterable[SiteSettings]
    _settings: UpstreamSettings
    _siblings: Iterable[Origin] = ()
    members: dict[int, Member] = field(factory=dict)
    links: dict[str, Group] = field(factory=dict)
    _fixed: list[Group] = field(init=False)

    def configured(
        self, sites: Iterable[SiteSettings], settings: UpstreamSettings, siblings: Iterable[Origin] = ()
    ) -> None:
        """The sites are others now; :meth:`follow` is to be called."""
        self._sites, self._settings, self._siblings = sites, settings, siblings
        self._fixed = self._grouped()

    @_fixed.default
    def _grouped(self) -> list[Group]:
        sites = [Group(origins_of(site), site.probe_path) for site in self._sites]
        return sites + [Group((origin,), "", sibling=True) for origin in self._siblings]

    @property
    def groups(self) -> list[Group]:
        """All of them."""
        return [*self._fixed, *self.links.values()]

    def link(self, origins: Iterable[Origin]) -> None:
        """From now on :attr:`links` are these; who is one already keeps its members."""
        before = self.links
        self.links = {origin.name: before.get(origin.name) or Group((origin,), "") for origin in origins}

    def follow(self, document: dict[str, Any], now: float) -> tuple[list[Member], list[Member]]:
        """
        The names have other addresses now.

        :param document: as :attr:`edgecache.upstream.resolving.Resolver.document`.
        :return: those that have gone, and those that are new; who stays keeps its history.
        """
        before, self.members = self.members, {}
        for group in self.groups:
            group.members, group.unslotted = [], group.sibling
            for name in dict.fromkeys(origin.name for origin in group.origins):
                for host, port, slot in document["origins"].get(name, ()):
                    if slot < 0:
                        group.unslotted = True
                    else:
                        group.members.append(self._member(name, host, port, slot, before, now))
        gone = [one for slot, one in before.items() if self.members.get(slot) is not one]
        new = [one for slot, one in self.members.items() if before.get(slot) is not one]
        return gone, new

    def of_sibling(self, sibling: str) -> list[Member]:
        """:return: where that node's contents are asked for."""
        return [one for one in self.members.values() if any(origin.sibling == sibling for origin in one.origins)]

    def groups_of(self, member: Member) -> list[Group]:
        """:return: of every site that uses it."""
        return [group for group in self.groups if member in group.members]

    def mates(self, member: Member) -> list[Member]:
        """:return: all others of the sites that use it."""
        return [other for group in self.groups_of(member) for other in group.others(member)]

    def last(self, member: Member) -> bool:
        """Would one of the sites have nobody in service without it?"""
        return any(
            not group.unslotted and not any(other.health.in_service for other in group.others(member))
            for group in self.groups_of(member)
        )

    def all_fail(self, member: Member) -> bool:
        """Are those that one of the sites still asks in its place no better?"""
        return any(
            not group.unslotted
            and all(other.health.spared for other in group.others(member) if other.health.in_service)
            for group in self.groups_of(member)
        )

    def paths(self, member: Member) -> Iterator[str]:
        """:return: what the sites that use it want to be asked regularly."""
        for group in self.groups:
            if group.probe_path and any(origin in member.origins for origin in group.origins):
                yield group.probe_path

    def question(self, member: Member, path: str | None) -> tuple[Address, bytes]:
        """
        :param path: that a site wants asked; ``None`` for the half-open probe: a site's path if there is one,
            else what failed last, else ``/``.
        :return: whom to ask for what: with the credentials and below the prefix of that origin.
        """
        if path is None:
            path = next(self.paths(member), None)
        if path is not None:
            wanting = (group for group in self.groups if group.probe_path == path)
            origin = next(one for group in wanting for one in group.origins if one in member.origins)
            return member.address(origin), path.encode("ascii")
        failed = member.target
        # What fails everywhere says nothing about this one: nobody shall empty a site by one bad path.
        if failed is not None and not any(other.target == failed for other in self.mates(member)):
            fitting = [one for one in member.origins if failed.startswith(one.prefix + b"/")]
            if fitting:
                origin = max(fitting, key=lambda one: len(one.prefix))
                return member.address(origin), failed[len(origin.prefix) :]
        return member.address(member.origins[0]), b"/"

    def _member(self, origin: str, host: str, port: int, slot: int, before: dict[int, Member], now: float) -> Member:
        # Another site may have brought it already.
        found = self.members.get(slot)
        if found is None:
            origins = tuple(dict.fromkeys(one for group in self.groups for one in group.origins if one.name == origin))
            found = Member(origins, "", host, port, slot, Health(self._settings, now))
            found.name = found.address(origins[0]).name
            known = before.get(slot)
            if known is not None and (known.name, known.port) == (found.name, port):
                found = known
                found.origins = origins
                found.health.settings = self._settings
            self.members[slot] = found
        return found
