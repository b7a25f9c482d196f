"""What ``/verify`` tells of a pass through the store."""

from __future__ import annotations

from typing import Any

from edgecache.admin.parts import AdminParts
from edgecache.rules.keys import Keyed
from edgecache.rules.sites import site_id
from edgecache.store.verifying import Found


def verify_document(parts: AdminParts, *, most: int | None = None) -> dict[str, Any]:
    """
    The last pass, or the one that runs.

    :param most: damaged responses that are named; ``None``: all that are known.
    """
    scrubbing = parts.scrubbing
    if scrubbing is None:
        return {"state": "none", "damaged": 0, "found": []}
    verified = scrubbing.verified
    return {
        "state": scrubbing.state.value,
        "began_at": scrubbing.began_at,
        "ended_at": scrubbing.ended_at,
        "rate_bytes": scrubbing.rate,
        "records": verified.records,
        "records_in_all": scrubbing.records,
        "bytes": verified.octets,
        "bytes_in_all": scrubbing.octets,
        "hashed": verified.hashed,
        "damaged": verified.damaged,
        "changed": verified.changed,
        "failed": verified.failed,
        "found": [_found(parts, one) for one in verified.found[:most]],
    }


def _found(parts: AdminParts, found: Found) -> dict[str, Any]:
    keyed = Keyed.of(found.key)
    sites = {site_id(site.name): site for site in parts.config.sites}
    site = None if keyed is None else sites.get(keyed.site)
    url = None
    if keyed is not None:
        url = (site.path if site is not None else "") + keyed.target.decode("latin-1")
    host = "" if site is None or "*" in site.hosts or not site.hosts else site.hosts[0]
    return {
        "record": found.key_hash.hex(),
        "site": None if site is None else site.name,
        # What to ask the public listener for, so that it is fetched again.
        "host": host if keyed is None else keyed.authority.decode("latin-1") or host,
        "url": url,
        "detail": found.why,
    }
