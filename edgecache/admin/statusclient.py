"""What ``edgecache status`` does: how one node is, or several in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import Out, as_lines, call, shown_size

READY, NOT_READY, WARNED = 0, 1, 3
"""Exit statuses."""

_COLUMNS = ("node", "region", "state", "up", "requests", "hits", "sent", "store", "upstreams", "siblings", "warnings")


async def status(
    reactor: Any, nodes: Sequence[AdminAddress], out: Out, *, as_json: bool = False, strict: bool = False
) -> int:
    """
    Show how nodes are.

    :param nodes: one is shown in full, several in a table.
    :param strict: warnings have an exit status of their own.
    :return: :data:`READY` when every node is ready for traffic; :data:`NOT_READY` when one is not, or did not answer;
        :data:`WARNED` when all are, and one has warnings.
    :raises AdminFailed: the only one could not be asked.
    """
    if len(nodes) == 1:
        _, found = await call(reactor, nodes[0], "GET", "/status")
        for line in [as_lines(found)] if as_json else _lines(found):
            out(line)
        return exit_status([found], strict=strict)
    answers: list[dict[str, Any] | str] = await gatherResults(
        [Deferred.fromCoroutine(_ask(reactor, node)) for node in nodes]
    )
    told = [answer for answer in answers if isinstance(answer, dict)]
    missing = {node.url: why for node, why in zip(nodes, answers, strict=True) if isinstance(why, str)}
    if as_json:
        out(as_lines({"nodes": told, "not_answered": missing}))
    else:
        for line in _table(told):
            out(line)
        for found in told:
            for warning in found["warnings"]:
                out(f"{found['node']['id']}: {_warning(warning)}")
        for url, why in missing.items():
            out(f"not answered: {why if why.startswith(url) else f'{url}: {why}'}")
    return NOT_READY if missing else exit_status(told, strict=strict)


def exit_status(told: Sequence[dict[str, Any]], *, strict: bool) -> int:
    """:return: see :func:`status`."""
    if not all(found["node"]["ready"] for found in told):
        return NOT_READY
    return WARNED if strict and any(found["warnings"] for found in told) else READY


async def _ask(reactor: Any, node: AdminAddress) -> dict[str, Any] | str:
    """:return: the document, or why there is none."""
    try:
        _, found = await call(reactor, node, "GET", "/status")
    except AdminFailed as failure:
        return str(failure)
    return found


def _table(told: Sequence[dict[str, Any]]) -> list[str]:
    rows = [[name.upper() for name in _COLUMNS], *map(_row, told)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(found: dict[str, Any]) -> list[str]:
    node, counters = found["node"], found["counters"]
    state = "ready" if node["ready"] else "draining" if node["draining"] else "not ready"
    state += ", fenced" if found["lease"]["fenced"] else ""
    upstreams, siblings = found["upstreams"], found["siblings"]
    heard = [one for one in siblings if not one["problem"] and one["heard_at"] is not None]
    return [
        node["id"],
        node["region"] or "-",
        state,
        _duration(node["uptime_seconds"]),
        str(counters["requests"]),
        _percent(counters["hits"] + counters["stale_hits"], counters["requests"]),
        shown_size(counters["bytes_sent"]),
        "/".join(f"{one['share']:.0%}" for one in found["store"]["environments"].values()) or "-",
        f"{sum(one['healthy'] and one['state'] != 'failing' for one in upstreams)}/{len(upstreams)}",
        f"{len(heard)}/{len(siblings)}",
        str(len(found["warnings"])),
    ]


def _warning(warning: dict[str, str]) -> str:
    return f"{warning['severity']}: {warning['detail']}"


def _lines(found: dict[str, Any]) -> list[str]:
    node, counters, purges = found["node"], found["counters"], found["purges"]
    where = f" in {node['region']}" if node["region"] else ""
    state = "ready" if node["ready"] else f"not ready: {node['detail']}"
    state += " (a voter: it serves nobody)" if node["voter"] else ""
    asked = counters["requests"]
    lines = [
        f"node {node['id']}{where}: {state}",
        f"  edgecache {found['versions']['edgecache']}, up {_duration(node['uptime_seconds'])}",
        f"  {asked} requests, {_percent(counters['hits'] + counters['stale_hits'], asked)} hits, "
        f"{shown_size(counters['bytes_sent'])} sent, {shown_size(counters['bytes_fetched'])} fetched",
        f"  purges: epoch {purges['epoch']}, {sum(purges['accepted'].values())} accepted since the start",
    ]
    for worker in found["workers"]:
        running = f"pid {worker['pid']}" if worker["running"] else "not running"
        counts = worker["counters"]
        lines.append(
            f"  worker {worker['index']}: {running}, {counts['connections_open']} connections, "
            f"{counts['requests']} requests, {worker['restarts']} restarts"
        )
    for name, fill in found["store"]["environments"].items():
        full = ", full" if fill["full"] else ""
        used = f"{shown_size(fill['used_bytes'])} of {shown_size(fill['size_bytes'])}"
        lines.append(f"  {name}: {used} ({fill['share']:.0%}){full}")
    now = found["now"]
    for upstream in found["upstreams"]:
        lines.append(f"  {upstream['origin']} at {upstream['address'] or 'no address'}: {_health(upstream, now)}")
    for kind in ("hits", "misses"):
        took = found["latency"][kind]
        if took["p50"] is not None:
            lines.append(f"  {kind}: half {_within(took, 0.5, 'p50')}, 99 % {_within(took, 0.99, 'p99')}")
    for sibling in found["siblings"]:
        lines.append(f"  sibling {sibling['id']}: {_sibling(sibling, now)}")
    if found["lease"]["fenced"]:
        lines.append("  fenced: it asks upstream before it serves a page")
    lines += (f"  {_warning(warning)}" for warning in found["warnings"])
    return lines


def _sibling(sibling: dict[str, Any], now: float) -> str:
    if sibling["problem"]:
        return str(sibling["problem"])
    if sibling["heard_at"] is None:
        return "not heard of yet"
    heard = f"heard of {max(0.0, now - sibling['heard_at']):.0f} s ago"
    heard += ", joining" if sibling["joining"] else ""
    return heard + (f", lacks {sibling['lacking']} purges" if sibling["lacking"] else "")


def _within(took: dict[str, Any], share: float, name: str) -> str:
    """What took longer than the last bound took nobody knows how long."""
    over = took["recent"][-1] > (1 - share) * sum(took["recent"])
    return f"not within {took['bounds'][-1] * 1000:g} ms" if over else f"within {took[name] * 1000:g} ms"


def _health(upstream: dict[str, Any], now: float) -> str:
    state = "up" if upstream["healthy"] else "down"
    if upstream["state"] == "failing":
        state = "failing"
    elif upstream["state"] != "healthy":
        state += f", {upstream['state']}"
    if upstream["since"] is not None and upstream["detail"]:
        state += f" for {_duration(max(0.0, now - upstream['since']))}"
    if upstream["detail"]:
        state += f" ({upstream['detail']})"
    if not upstream["healthy"] and upstream["next_probe_at"] is not None:
        state += f", probed in {_duration(max(0.0, upstream['next_probe_at'] - now))}"
    return state


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "no"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
