"""
What would become of a request, and why: ``/explain`` (DESIGN 11).

The route itself answers: a :class:`~edgecache.node.Node` whose sender and fills note what they are given instead of
doing it. So there is no second opinion about what is stored, fresh, purged or to be forwarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from attrs import define, field

from edgecache.fills.homes import LookUp, SiblingsAsked
from edgecache.fills.outlet import Outlet
from edgecache.fills.parts import Parts
from edgecache.node import Node
from edgecache.noting import Alone, Noted, NotedDownstream, NotedFills, ReadPage
from edgecache.rules import status_fields
from edgecache.rules.asking import Asked, ask
from edgecache.rules.decisions import Forward, Refuse
from edgecache.rules.indexpaths import normalised_name, project_of_page, project_tag
from edgecache.rules.partrecords import Place, as_whole, part_hash
from edgecache.rules.purges import PurgeTable
from edgecache.rules.routing import candidates
from edgecache.rules.selectors import Selector, normal_target
from edgecache.rules.siblinghood import fills_at_home, may_ask_siblings
from edgecache.rules.sites import Site, Sites
from edgecache.siblings.origins import content_origins, homes_of
from edgecache.store import layout
from edgecache.store.controlreading import ControlReader
from edgecache.store.environments import Environments
from edgecache.store.epochs import WINDOW, Epochs
from edgecache.store.page import Page
from edgecache.store.reading import StoreReader
from edgecache.upstream.addresses import Address, AddressBook, origins_of
from edgecache.upstream.standing import Standing
from edgecache.words.config import Config
from edgecache.words.messages import Fields, Request
from edgecache.words.ports import Timers
from edgecache.words.reasons import PurgeMode
from edgecache.words.stored import Flag, Stored

_PREFIXES = 17
_REMEMBERED = 4096


@define(eq=False, repr=False)
class Explaining:
    """
    Looks with a worker's eyes, from the node process.

    :ivar config: as it is now.
    :ivar path: of the mapped page.
    :ivar known: what names resolve to: host, port, slot by the name of an origin.
    :ivar wall: seconds since the epoch.
    :ivar boot: CLOCK_BOOTTIME seconds.
    """

    _config: Callable[[], Config]
    _environments: Environments
    _control: ControlReader
    _path: str
    _timers: Timers
    _known: Callable[[], Mapping[str, Any]]
    _wall: Callable[[], float]
    _boot: Callable[[], float]
    _page: Page | None = None
    _epochs: Epochs | None = field(default=None)
    _unstored: dict[str, dict[str, Any]] = field(factory=dict)

    def look(self, method: bytes, authority: bytes, target: bytes, fields: Fields, secure: bool) -> dict[str, Any]:
        """
        To be called in a thread, one call after the other: it reads the store.

        :param target: path and query.
        :return: a document (docs/STATUS.md), without what only the loop knows.
        """
        page = self._page = self._page or Page.open(self._path, 0)
        epochs = self._epochs = self._epochs or self._all_epochs(page)
        sites = Sites(self._config())
        request = Request(method, target, authority, fields, secure)
        asked = request.asked = ask(request, sites, admitted=True)
        noted = Noted()
        now = self._wall()
        if isinstance(asked, Asked):
            noted.asked = asked
            self._route(sites, page, epochs, noted).answer(request, cast(Any, NotedDownstream(noted)))
        document: dict[str, Any] = {
            "method": method.decode("latin-1"),
            "host": authority.decode("latin-1"),
            "url": target.decode("latin-1"),
            "fenced": page.fresh_until <= self._boot(),
            **_asked_document(asked),
            **_outcome(noted, asked),
            "stored": None,
            "parts": [],
            "purge": None,
            "siblings": None,
            "upstreams": [],
            "not_stored": None if isinstance(asked, Refuse) else self._unstored.get(asked.key_hash.hex()),
        }
        if isinstance(asked, Refuse):
            return document
        # The route forgets what was deleted; an operator wants to see it.
        stored = noted.stored or self._stored(noted, asked)
        if stored is not None:
            document["stored"] = self._stored_document(stored, noted.record_hash, asked, now)
            document["purge"] = self._purge(stored, asked)
        if noted.stored is None:
            document["parts"] = self._parts_stored(noted, asked, epochs, now)
        if noted.forward is not None or noted.refresh is not None:
            forward = noted.forward or noted.refresh
            assert forward is not None
            document["siblings"] = self._siblings(asked, forward, page)
            document["upstreams"] = self._upstreams(asked.site, page)
        return document

    def unstored(self, rows: Iterable[Sequence[Any]]) -> None:
        """:param rows: of key hash, wall time, status (0: no response), what was said in fields, detail, upstream."""
        for key_hash, at, status, said, detail, upstream in rows:
            self._unstored.pop(key_hash, None)
            self._unstored[key_hash] = {
                "at": at,
                "status": status,
                "fields": said,
                "detail": detail,
                "upstream": upstream,
            }
        while len(self._unstored) > _REMEMBERED:
            del self._unstored[next(iter(self._unstored))]

    def close(self) -> None:
        """Nothing is asked any more."""
        if self._page is not None:
            self._page.close()
            self._page = None

    def _all_epochs(self, page: Page) -> Epochs:
        purges = PurgeTable(max(page.trimmed, page.epoch - WINDOW), WINDOW)
        purges.extend(self._control.rows_since(purges.epoch))
        return Epochs(page, self._control, purges)

    def _route(self, sites: Sites, page: Page, epochs: Epochs, noted: Noted) -> Node:
        alone: Any = Alone()
        reader = StoreReader(self._environments, alone)
        parts = Parts(
            *(reader, alone, epochs, cast(Any, noted), alone, self._timers, self._wall),
            lambda: page.fresh_until <= self._boot(),
        )
        return Node(
            sites,
            reader,
            alone,
            cast(Any, ReadPage(page)),
            epochs,
            cast(Any, noted),
            cast(Any, NotedFills(noted, parts)),
            alone,
            self._config().node.id.encode(),
            self._wall,
            self._boot,
            self._timers,
            alone,
            lambda _: None,
            alone,
        )

    # What is stored

    def _stored(self, noted: Noted, asked: Asked) -> Stored | None:
        return self._lying_at(noted.record_hash or asked.key_hash, asked)

    def _lying_at(self, record_hash: bytes, asked: Asked) -> Stored | None:
        reader = StoreReader(self._environments, cast(Any, Alone()))
        try:
            found = reader.look_up(record_hash, asked.key)
        finally:
            reader.done()
        return found if isinstance(found, Stored) else None

    def _parts_stored(self, noted: Noted, asked: Asked, epochs: Epochs, now: float) -> list[dict[str, Any]]:
        """:return: what is stored of its content for want of the whole, and was not purged since."""
        found = []
        for place in Place:
            part = self._lying_at(part_hash(noted.record_hash or asked.key_hash, place), asked)
            whole = None if part is None or epochs.since(part) is not None else as_whole(part)
            if part is None or whole is None:
                continue
            stored, span = whole
            found.append(
                {
                    "start": span.start,
                    "stop": span.stop,
                    "size": stored.size,
                    "fresh_for": part.fresh_until - now,
                    "etag": part.etag.decode("latin-1"),
                }
            )
        return found

    def _stored_document(self, stored: Stored, record_hash: bytes, asked: Asked, now: float) -> dict[str, Any]:
        names = _names(asked, stored)
        return {
            "record": record_hash.hex(),
            "status": stored.status,
            "age": max(0, int(now - stored.generated_at)),
            "lifetime": stored.fresh_until - stored.generated_at,
            "fresh_for": stored.fresh_until - now,
            "stale_while_revalidate_for": _left(stored.stale_while_revalidate_until, now),
            "stale_if_error_for": _left(stored.stale_if_error_until, now),
            "validated_at": stored.validated_at,
            "floor": stored.floor,
            "epoch": self._page.epoch if self._page is not None else 0,
            "size": stored.size,
            "content": self._where(stored, record_hash),
            "content_id": stored.content_id.hex(),
            "sha256": stored.digest.hex(),
            "etag": stored.etag.decode("latin-1"),
            "flags": [flag.name.lower() for flag in Flag if stored.flags & flag and flag.name],
            "variant": stored.variant.decode("latin-1"),
            "tags": [
                {"kind": names[hashed][0], "value": names[hashed][1]}
                if hashed in names
                else {"kind": "tag", "hash": f"{hashed:016x}"}
                for hashed in stored.selectors
            ],
            "head": stored.head.decode("latin-1").splitlines(),
        }

    def _where(self, stored: Stored, record_hash: bytes) -> str:
        """:return: where its content lies: ``record``, ``small``, ``blobs``, or ``none``."""
        if stored.flags & Flag.IN_BLOBS:
            return "blobs"
        if not stored.size:
            return "none"
        small = self._environments.small
        with small.env.begin() as txn:
            value: Any = txn.get(record_hash, db=small.databases[layout.RECORDS])
        if value is None:
            return "none"
        octets = layout.RECORD_PREFIX.unpack_from(value)[2]
        return "record" if len(value) > octets else "small"

    def _purge(self, stored: Stored, asked: Asked) -> dict[str, Any] | None:
        """:return: the strictest purge that counts against it, the latest of those."""
        names = _names(asked, stored)
        found = [
            (mode, epoch, hashed)
            for hashed in stored.selectors
            for mode, epoch in self._control.last(hashed).items()
            if epoch > stored.floor
        ]
        if not found:
            return None
        mode, epoch, hashed = max(found)
        kind, value = names.get(hashed, ("tag", f"{hashed:016x}"))
        return {"mode": PurgeMode(mode).name.lower(), "epoch": epoch, "kind": kind, "value": value}

    # Who would be asked

    def _upstreams(self, site: Site, page: Page) -> list[dict[str, Any]]:
        """:return: every address of the site, as it would be asked at the first turn."""
        config = self._config()
        book, standing = self._book(config), self._standing(config, page)
        known = [book.of(origin) for origin in origins_of(site.settings)]
        ordered = candidates(known, site.settings.policy, 0, standing.share, standing.ejected)
        return [_address_document(address, standing.share(address)) for address in ordered]

    def _siblings(self, asked: Asked, forward: Forward, page: Page) -> dict[str, Any] | None:
        config = self._config()
        if config.siblings is None:
            return None
        standing = self._standing(config, page)
        outlet = Outlet(cast(Any, None), standing, config.upstream, self._timers, cast(Any, Alone()))
        siblings = SiblingsAsked(
            config.node.id,
            homes_of(config),
            {origin.sibling: origin for origin in content_origins(config)},
            self._book(config),
            outlet,
            # What a look-up would say is of no interest here.
            lambda: b"",
            lambda: page.fresh_until <= self._boot(),
        )
        found: LookUp | None = siblings.look_up(asked, forward)
        order = homes_of(config).order(asked.key_hash)
        why_not = _why_no_home(asked, forward, found)
        first = None if why_not else siblings.home_of(order)
        fills = config.node.id if first is None else first.origin.sibling
        passed_over = [] if why_not else order[: order.index(fills)]
        if order[0] == config.node.id:
            why_not = why_not or f"{config.node.id} itself is the home"
        elif passed_over:
            why_not = "its contents are not asked for now"
        return {
            "order": order,
            "home": order[0],
            "home_is_asked": not why_not,
            "why_not": why_not,
            "asked_first": None if first is None else fills,
            "passed_over": [{"sibling": node_id} for node_id in passed_over],
            "copies": found is not None,
        }

    def _standing(self, config: Config, page: Page) -> Standing:
        return Standing(page.health, lambda *_, **__: None, self._timers, config.upstream)

    def _book(self, config: Config) -> AddressBook:
        book = AddressBook()
        origins = [origin for site in config.sites for origin in origins_of(site)] + content_origins(config)
        book.update({"origins": dict(self._known())}, origins)
        return book


def _asked_document(asked: Asked | Refuse) -> dict[str, Any]:
    if isinstance(asked, Refuse):
        return {"site": None, "target": None, "key_hash": None, "page": None}
    page = None
    if asked.artifact is not None:
        page = f"{asked.site.path.decode('ascii')}/simple/{asked.artifact.project.decode('ascii')}/"
    return {
        "site": asked.site.settings.name,
        "target": asked.target.decode("latin-1"),
        "key_hash": asked.key_hash.hex(),
        # Which names the file's place and digest.
        "page": page,
    }


def _outcome(noted: Noted, asked: Asked | Refuse) -> dict[str, Any]:
    refused = None
    if isinstance(asked, Refuse):
        outcome, status = "refuse", b""
        refused = {"status": asked.status, "detail": asked.detail}
    elif noted.sent:
        stale = noted.refresh is not None or b"ttl=-" in noted.cache_status
        outcome, status = "stale-hit" if stale else "hit", noted.cache_status
    elif noted.forward is not None:
        outcome, status = "forward", status_fields.forwarded(asked.site, noted.forward.reason)
    else:
        outcome, status = "refuse", b""
        refused = {"status": int(noted.refused[9:12] or 0), "detail": "Nothing stored may answer it."}
    return {
        "outcome": outcome,
        "cache_status": status.decode("latin-1"),
        "reason": None if noted.forward is None else noted.forward.reason.value,
        "alone": noted.forward is not None and noted.forward.alone,
        "validates": noted.forward is not None and noted.forward.stored is not None,
        "stale_allowed": noted.forward is not None and noted.forward.stale_allowed,
        "refresh": noted.refresh is not None,
        "refused": refused,
    }


def _names(asked: Asked, stored: Stored) -> dict[int, tuple[str, str]]:
    """:return: what selectors of a record mean, as far as its URL tells; of other tags there are hashes alone."""
    site, target = asked.site.id, asked.target
    values: list[tuple[str, bytes]] = [("all", b""), ("url", normal_target(target))]
    path = normal_target(target).partition(b"?")[0]
    ends = [at + 1 for at, octet in enumerate(path) if octet == ord("/")][:_PREFIXES]
    values += [("prefix", path[:end]) for end in ends]
    project = project_of_page(target.partition(b"?")[0])
    if asked.artifact is not None:
        project = asked.artifact.project
    if project is not None:
        values.append(("tag", project_tag(normalised_name(project))))
    found = [Selector(kind, site, value) for kind, value in values]
    return {one.hash: (one.kind, one.value.decode("utf-8", "backslashreplace")) for one in found}


def _address_document(address: Address, wanted: float) -> dict[str, Any]:
    return {
        "origin": address.origin.name,
        "address": f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}",
        "slot": address.slot,
        "share": wanted,
    }


def _why_no_home(asked: Asked, forward: Forward, found: LookUp | None) -> str:
    """:return: why no sibling is asked first, whatever state they are in."""
    if not may_ask_siblings(asked, forward):
        return "it is one client's alone, or was deleted or invalidated here: the origin knows best"
    if found is None:
        return "this node is fenced: it cannot tell what a sibling must have applied"
    if not fills_at_home(asked):
        return "the site fills from its origin (page_fill, fill)"
    return ""


def _left(until: float, now: float) -> float | None:
    """:return: seconds; ``None`` for ever."""
    return None if until == float("inf") else until - now
