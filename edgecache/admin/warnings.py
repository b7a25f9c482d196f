"""What an operator must know, in words: made of the document that ``/status`` is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from edgecache.admin.parts import FAILING
from edgecache.rules.health import State

EXPIRES_SOON_SECONDS = 14 * 86400.0
FREE_SHARE = 0.97
"""A store that is as full as this is not being evicted fast enough."""

_PURGE_LATE_SECONDS = 60.0
_RESTARTS = 3


def warnings(status: dict[str, Any]) -> list[dict[str, str]]:
    """
    :param status: what ``/status`` has, without its warnings.
    :return: the worst first: a ``severity`` (``critical`` or ``warning``), a stable ``code``, and a sentence.
    """
    found = [*_of_node(status), *_of_store(status), *_of_upstreams(status), *_of_fleet(status)]
    return sorted(found, key=lambda one: one["severity"])


def _critical(code: str, detail: str) -> dict[str, str]:
    return {"severity": "critical", "code": code, "detail": detail}


def _warning(code: str, detail: str) -> dict[str, str]:
    return {"severity": "warning", "code": code, "detail": detail}


def _of_node(status: dict[str, Any]) -> Iterator[dict[str, str]]:
    node = status["node"]
    if not node["ready"]:
        yield _critical("not-ready", f"No traffic should come here: {node['detail']}")
    for worker in status["workers"]:
        if not worker["running"] and not node["draining"] and node["uptime_seconds"] > 10.0:
            yield _warning("worker-down", f"Worker {worker['index']} does not accept connections.")
        if worker["restarts"] >= _RESTARTS:
            times = worker["restarts"]
            yield _warning("worker-restarts", f"Worker {worker['index']} died {times} times; the log says how.")
    for one in status["certificates"]:
        left = one["expires_in_seconds"]
        if one["problem"]:
            yield _warning("certificate-unreadable", f"{one['file']} ({one['use']}): {one['problem']}.")
        elif left is not None and left <= 0.0:
            yield _critical("certificate-expired", f"{one['file']} ({one['use']}) has expired.")
        elif left is not None and left < EXPIRES_SOON_SECONDS:
            yield _warning("certificate-expires", f"{one['file']} ({one['use']}) expires in {left / 86400:.1f} days.")
    reload = status.get("reload")
    if reload is not None and reload["detail"]:
        yield _warning("reload-failed", f"The last reload changed nothing: {reload['detail']}")
    if reload is not None and reload["waiting"]:
        yield _warning("restart-needed", f"A restart is needed for {', '.join(reload['waiting'])}.")
    if status["counters"]["downloads_lost"]:
        count = status["counters"]["downloads_lost"]
        yield _warning("downloads-lost", f"{count} downloads could not be noted since the start; is the disk full?")


def _of_store(status: dict[str, Any]) -> Iterator[dict[str, str]]:
    for name, one in status["store"]["environments"].items():
        if one["full"]:
            yield _critical("store-full", f"Nothing new is stored in {name} until there is room ({one['share']:.0%}).")
        elif one["share"] >= FREE_SHARE:
            yield _warning("store-nearly-full", f"{name} is {one['share']:.0%} full: eviction does not keep up.")
    if status["store"]["collected"]["failures"]:
        yield _warning("eviction-failed", "Making room in the store has failed; the log says why.")
    if status["counters"]["damaged"]:
        count = status["counters"]["damaged"]
        yield _warning("damage", f"{count} stored records or chunks were damaged and dropped; look at this disk.")
    verify = status["verify"]
    if verify["damaged"]:
        yield _warning("verify-damage", f"The last verify dropped {verify['damaged']} damaged responses.")


def _of_upstreams(status: dict[str, Any]) -> Iterator[dict[str, str]]:
    away = {one["id"] for one in status["siblings"] if one["problem"] or _silent(one, status)}
    origins: dict[str, list[dict[str, Any]]] = {}
    for one in status["upstreams"]:
        origins.setdefault(one["origin"], []).append(one)
    for origin, addresses in origins.items():
        sibling = addresses[0]["sibling"]
        if sibling in away:
            # That is said of the sibling.
            continue
        name = f"Sibling {sibling}'s contents, {origin}" if sibling else origin
        down = [one for one in addresses if not one["healthy"]]
        failing = [one for one in addresses if one["state"] == FAILING]
        for one in down:
            where = f" at {one['address']}" if one["address"] else ""
            yield _warning("upstream-down", f"{name}{where} is left out: {_why(one)}.{_next(one, status['now'])}")
        if len(down) + len(failing) == len(addresses) and not sibling:
            alone = _only_for(origin, origins, status["sites"])
            told = f"{origin} fails at every address." if failing else f"No address of {origin} is in service."
            if alone:
                yield _critical("origin-down", f"{told} Nobody else is there for {', '.join(alone)}.")
            else:
                yield _warning("origin-down", told)
        for one in addresses:
            if one["state"] == FAILING or (one["healthy"] and one["state"] == State.SUSPECT.value):
                yield _warning("upstream-failing", f"{name} at {one['address']}: {_why(one)}.")


def _only_for(origin: str, origins: dict[str, list[dict[str, Any]]], sites: list[dict[str, Any]]) -> list[str]:
    """:return: the sites that ask this origin, and have no other with an address in service."""
    well = {
        _place(name)
        for name, addresses in origins.items()
        if any(one["healthy"] and one["state"] != FAILING for one in addresses)
    }
    found = []
    for site in sites:
        places = {_place(url) for url in site["origins"]}
        if _place(origin) in places and not places & well:
            found.append(f"site {site['name']}")
    return found


def _why(upstream: dict[str, Any]) -> str:
    return str(upstream["said"] or upstream["detail"] or upstream["state"])


def _next(upstream: dict[str, Any], now: float) -> str:
    due = upstream["next_probe_at"]
    return "" if due is None else f" It is probed {f'in {due - now:.0f} s' if due > now else 'now'}."


def _silent(sibling: dict[str, Any], status: dict[str, Any]) -> bool:
    heard_at = sibling["heard_at"]
    return heard_at is None or status["now"] - heard_at > status["lease"]["of_seconds"]


def _unheard(sibling: dict[str, Any], status: dict[str, Any]) -> str:
    heard_at = sibling["heard_at"]
    how_long = "since this node's start" if heard_at is None else f"for {max(0.0, status['now'] - heard_at):.0f} s"
    return f"not heard of {how_long}"


def _place(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _of_fleet(status: dict[str, Any]) -> Iterator[dict[str, str]]:
    lease = status["lease"]
    if lease["fenced"]:
        yield _critical(
            "fenced", "This node cannot tell whether it has every purge, so it asks upstream before it serves a page."
        )
    for one in status["siblings"]:
        if one["problem"]:
            told = one["problem"].removesuffix(".")
            yield _warning("sibling-problem", f"Sibling {one['id']} cannot be called: {told}; {_unheard(one, status)}.")
        elif _silent(one, status):
            yield _warning("sibling-silent", f"Sibling {one['id']}: {_unheard(one, status)}.")
        elif one["joining"]:
            yield _warning("sibling-joining", f"Sibling {one['id']} is catching up before it is a member.")
    late = [
        purge
        for purge in status["purges"]["recent"]
        if purge["state"] in ("local", "durable") and status["now"] - purge["accepted_at"] > _PURGE_LATE_SECONDS
    ]
    if late:
        waiting = sorted({node for purge in late for node in purge["pending"]})
        yield _warning("purges-late", f"{len(late)} purges have not reached {', '.join(waiting)} yet.")
    for follower in status["followers"]:
        if follower["detail"]:
            yield _warning("follower", f"The project list of site {follower['site']}: {follower['detail']}.")


__all__ = ["warnings"]
