"""How upstreams are, for people: the watch's word about each address of each name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecache.admin.parts import FAILING, UpstreamCounts, UpstreamState
from edgecache.rules.health import State
from edgecache.upstream.watching import Watch
from edgecache.words.reasons import Outcome

_SAID = {outcome.value: outcome.said for outcome in Outcome}


def upstream_states(
    names: Mapping[str, str], found: dict[str, Any], watch: Watch, offset: float
) -> list[UpstreamState]:
    """
    :param names: of origins, each with the sibling that it is, if it is one.
    :param found: rows of host, port and slot by name.
    :param offset: from monotonic seconds to wall time.
    """
    return [
        _upstream(name, host, port, watch, slot, offset, sibling)
        for name, sibling in names.items()
        for host, port, slot in found.get(name) or [("", 0, -1)]
    ]


def upstream_counts(watch: Watch) -> UpstreamCounts:
    """:return: what exchanges came to, by origin."""
    return UpstreamCounts(
        {(origin, kind.value): count for (origin, kind), count in watch.outcomes_seen.items()},
        {(origin, kind.value): count for (origin, kind), count in watch.ejections_seen.items()},
    )


def _upstream(origin: str, host: str, port: int, watch: Watch, slot: int, offset: float, sibling: str) -> UpstreamState:
    if not host:
        unknown = "no address is known"
        return UpstreamState(origin, "", False, unknown, state="unresolved", sibling=sibling, said=unknown)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    condition = watch.condition(slot)
    if condition is None:
        # More addresses than the page has room for.
        return UpstreamState(origin, address, state="unwatched", sibling=sibling)
    probe = condition.next_probe_at
    detail = "" if condition.state is State.HEALTHY else condition.ejected_for or condition.reason
    said = _said(detail)
    if condition.failing:
        detail = f"{condition.failing}; there is no other"
        said = f"{_said(condition.failing)}; it is asked on, for there is no other"
    return UpstreamState(
        origin,
        address,
        condition.state.in_service,
        detail,
        state=FAILING if condition.failing else condition.state.value,
        reason=condition.failing or condition.reason,
        since=offset + condition.since,
        next_probe_at=None if probe is None else offset + probe,
        ejections=condition.ejections,
        sibling=sibling,
        said=said,
    )


def _said(reason: str) -> str:
    """A reason begins with what the address did, if that led to it."""
    first, *rest = reason.split(", ")
    return ", ".join([_SAID.get(first, first), *rest])
