"""What ``/status`` and the purge answers consist of: JSON documents that a dashboard or a script reads."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from math import isinf
from typing import Any

from attrs import asdict

import edgecache
from edgecache.admin.parts import AdminParts
from edgecache.admin.verified import verify_document
from edgecache.admin.warnings import warnings
from edgecache.rules.selectors import Selector
from edgecache.rules.sites import site_id
from edgecache.siblings.purger import PurgeAnswer
from edgecache.store.collecting import Collected
from edgecache.words.config import Config, SiteSettings
from edgecache.words.counters import Counter
from edgecache.words.endpoints import origin_url
from edgecache.words.voters import is_voter

RECENT_PURGES = 50

# What behaves differently from release to release, in places that we depend on.
_DISTRIBUTIONS = ("Twisted", "uvloop", "httptools", "lmdb", "klein")


SAMPLE = 10
"""Selectors of a purge that are shown."""


def purge_document(answer: PurgeAnswer) -> dict[str, Any]:
    """A purge and how far it has come. Times are seconds since the epoch; ``sample`` has the first of its selectors."""
    entry, purge = answer.entry, answer.purge
    return {
        "id": entry.purge_id,
        "state": answer.state.value,
        "mode": purge.mode.name.lower(),
        "selectors": len(purge.selectors),
        "sample": [_selector(canonical) for canonical in purge.selectors[:SAMPLE]],
        "serials": purge.serials,
        "accepted_at": purge.accepted_at,
        "accepted_by": entry.log.id,
        "token": purge.by,
        "log": {"node": entry.log.id, "incarnation": entry.log.incarnation.hex(), "sequence": entry.sequence},
        "epoch": entry.last_epoch,
        "applied": list(answer.spreading.applied),
        "pending": list(answer.spreading.pending),
        "effective_by": answer.spreading.effective_by,
    }


def status_document(parts: AdminParts) -> dict[str, Any]:
    """
    Everything that the dashboard shows. Keys are added, never changed.

    :raises ControlFailed: control cannot be read.
    """
    now = parts.wall()
    unready = parts.unready()
    node, reloaded = parts.config.node, parts.reloaded()
    document = {
        "node": {
            "id": node.id,
            "region": node.region,
            "incarnation": parts.control.name.incarnation.hex(),
            "started_at": parts.started_at,
            "uptime_seconds": max(0.0, now - parts.started_at),
            "ready": unready is None,
            "detail": unready or "",
            "draining": parts.page.draining,
            "tls": parts.config.tls is not None,
            "voter": is_voter(parts.config),
            "configuration": configuration_hash(parts.config),
        },
        "now": now,
        "reload": None if reloaded is None else asdict(reloaded),
        "versions": versions(),
        "listen": asdict(parts.config.listen),
        "sites": [_site(site) for site in parts.config.sites],
        "counters": _counters(parts.page.totals()),
        "history": parts.history.document(),
        "latency": parts.history.latency(),
        "workers": _workers(parts),
        "store": _store(parts),
        "upstreams": [asdict(upstream) for upstream in parts.upstreams()],
        "purges": _purges(parts),
        "followers": [asdict(follower) for follower in parts.followers()],
        "feed": {
            "listeners": parts.feed.listeners,
            "most_listeners": parts.config.purge.feed_listeners,
            "changes_given": parts.feed.given,
            "resets_given": parts.feed.resets,
        },
        "tokens": [
            {"name": token.name, "scopes": sorted(scope.value for scope in token.scopes)}
            for token in parts.tokens.known
        ],
        "siblings": [asdict(sibling) for sibling in parts.siblings()],
        "lease": _lease(parts),
        "certificates": parts.certificates.document(parts.config, now),
        "verify": verify_document(parts, most=SAMPLE),
        "hottest": parts.objects.hottest(),
        "biggest": parts.objects.biggest(parts.config.sites, now),
    }
    document["warnings"] = warnings(document)
    return document


def configuration_hash(config: Config) -> str:
    """:return: the same as long as the settings are; of secrets it says only whether they are there."""
    return hashlib.sha256(repr(config).encode()).hexdigest()[:16]


def _lease(parts: AdminParts) -> dict[str, Any]:
    """How long this node may still serve what is purgeable as fresh without having heard of its siblings."""
    left = parts.lease()
    return {
        "fenced": left < 0,
        # Without siblings it does not end.
        "left_seconds": None if isinf(left) else left,
        "of_seconds": 0.0 if parts.config.siblings is None else parts.config.siblings.lease_seconds,
    }


@cache
def versions() -> dict[str, str]:
    """:return: releases of this program and of what it stands on; read from disk once."""
    # Needed by nothing else, and not before somebody asks.
    from importlib import metadata

    found = {"edgecache": edgecache.__version__, "python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        found[name.lower()] = metadata.version(name)
    return found


def _counters(counts: list[int]) -> dict[str, int]:
    return {counter.name.lower(): counts[counter] for counter in Counter}


def _site(site: SiteSettings) -> dict[str, Any]:
    return {
        "name": site.name,
        "id": f"{site_id(site.name):016x}",
        "profile": site.profile.value,
        "hosts": list(site.hosts),
        "path": site.path,
        "public_url": site.public_url,
        "access": site.access.value,
        "clients": [client.name for client in site.clients],
        "upload": site.upload,
        "origins": [origin_url(url).shown for url in site.origins],
        "policy": site.policy.value,
        "purged": site.purged,
    }


def _workers(parts: AdminParts) -> list[dict[str, Any]]:
    return [{**asdict(worker), "counters": _counters(parts.page.counters(worker.index))} for worker in parts.workers()]


def _store(parts: AdminParts) -> dict[str, Any]:
    environments = {
        fill.name: {
            "used_bytes": fill.used,
            "size_bytes": fill.size,
            "share": fill.share,
            "full": fill.full,
            "entries": fill.entries,
        }
        for fill in ([] if parts.collector is None else parts.collector.fills())
    }
    settings = parts.config.store
    return {
        "environments": environments,
        "evict_share": settings.evict_share,
        "full_share": settings.full_share,
        "collected": asdict(Collected() if parts.collector is None else parts.collector.collected),
    }


def _selector(canonical: bytes) -> dict[str, Any]:
    found = Selector.of(canonical)
    return {"kind": found.kind, "site": f"{found.site:016x}", "value": found.value.decode("utf-8", "backslashreplace")}


def _purges(parts: AdminParts) -> dict[str, Any]:
    purges = parts.control.read.purges()
    heads = {head.log: head.sequence for head in parts.control.read.heads()}
    return {
        "epoch": purges.epoch,
        "trimmed": purges.trimmed,
        "published_epoch": parts.page.epoch,
        "fenced": parts.lease() < 0,
        "logs": [
            {"node": log.id, "incarnation": log.incarnation.hex(), "position": sequence}
            for log, sequence in {parts.control.name: 0, **heads}.items()
        ],
        "accepted": {mode.name.lower(): count for mode, count in parts.purger.accepted.items()},
        "groups": parts.groups(),
        "recent": [purge_document(answer) for answer in parts.purger.recent(RECENT_PURGES)],
    }
