"""How upstreams are, for people: the watch's word about each address of each name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgecache.admin.parts import UpstreamCounts, UpstreamState
from edgecache.rules.health import State
from edgecache.upstream.watching import Watch


def upstream_states(names: Iterable[str], found: dict[str, Any], watch: Watch, offset: float) -> list[UpstreamState]:
    """
    :param names: of origins; some may be there twice.
    :param found: rows of host, port and slot by name.
    :param offset: from monotonic seconds to wall time.
    """
    return [
        _upstream(name, host, port, watch, slot, offset)
        for name in dict.fromkeys(names)
        for host, port, slot in found.get(name) or [("", 0, -1)]
    ]


def upstream_counts(watch: Watch) -> UpstreamCounts:
    """:return: what exchanges came to, by origin."""
    return UpstreamCounts(
        {(origin, kind.value): count for (origin, kind), count in watch.outcomes_seen.items()},
        {(origin, kind.value): count for (origin, kind), count in watch.ejections_seen.items()},
    )


def _upstream(origin: str, host: str, port: int, watch: Watch, slot: int, offset: float) -> UpstreamState:
    if not host:
        return UpstreamState(origin, "", False, "no address is known", state="unresolved")
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    condition = watch.condition(slot)
    if condition is None:
        # More addresses than the page has room for.
        return UpstreamState(origin, address, state="unwatched")
    probe = condition.next_probe_at
    return UpstreamState(
        origin,
        address,
        condition.state.in_service,
        "" if condition.state is State.HEALTHY else condition.reason,
        state=condition.state.value,
        reason=condition.reason,
        since=offset + condition.since,
        next_probe_at=None if probe is None else offset + probe,
        ejections=condition.ejections,
    )
