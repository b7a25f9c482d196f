"""What ``edgecache downloads`` does: it asks nodes what their clients downloaded, and adds it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from attrs import define, field

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import Out, as_lines, call
from edgecache.index.tabulating import Row, merged

ROWS = 100_000
"""Of one node; more are not shown, and said to be missing."""


@define(eq=False, repr=False)
class Found:
    """
    :ivar nodes: ids of those that have answered.
    :ivar missing: URLs of those that have not, and why.
    :ivar notes: what is not right with an answer.
    """

    rows: list[Row] = field(factory=list)
    nodes: list[str] = field(factory=list)
    missing: dict[str, str] = field(factory=dict)
    notes: list[str] = field(factory=list)


async def ask(reactor: Any, nodes: Sequence[AdminAddress], query: Mapping[str, str]) -> Found:
    """:return: what all of them have counted; a node that has several URLs among ``nodes`` counts once."""
    found = Found()
    answers: list[tuple[str, list[Row]]] = []
    path = "/downloads?" + urlencode({**query, "limit": str(ROWS)})
    for node in nodes:
        try:
            _, told = await call(reactor, node, "GET", path)
        except AdminFailed as failure:
            found.missing[node.url] = str(failure)
            continue
        answers.append((f"{told['node']} {told['life']}", told["rows"]))
        if told["node"] not in found.nodes:
            found.nodes.append(told["node"])
        for what, note in (
            (told["truncated"], f"only the first {ROWS} rows are here"),
            (told["behind"], "newer events are not counted yet"),
            (told["lost"], f"{told['lost']} downloads could not be noted since its start"),
        ):
            if what:
                found.notes.append(f"{told['node']}: {note}")
    found.rows = merged(answers)
    return found


async def downloads(
    reactor: Any, nodes: Sequence[AdminAddress], query: Mapping[str, str], out: Out, *, as_json: bool = False
) -> int:
    """
    Show what was downloaded.

    :param query: of ``/downloads``.
    :return: 0 when every node has answered, else 1.
    """
    found = await ask(reactor, nodes, query)
    total = sum(int(row["downloads"]) for row in found.rows)
    if as_json:
        told = {"nodes": found.nodes, "not_answered": found.missing, "notes": found.notes}
        out(as_lines({**told, "total": total, "rows": found.rows}))
    else:
        for line in _table(found.rows):
            out(line)
        out(f"{total} downloads from {len(found.nodes)} nodes: {', '.join(found.nodes) or 'none'}")
        for note in found.notes:
            out(f"note: {note}")
        for url, why in found.missing.items():
            out(f"not answered: {why if why.startswith(url) else f'{url}: {why}'}")
    return 1 if found.missing else 0


def _table(rows: Sequence[Row]) -> list[str]:
    if not rows or list(rows[0]) == ["downloads"]:
        return []
    names = list(rows[0])
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    # Numbers are read from their end.
    return ["  ".join([*map(str.ljust, line[:-1], widths), line[-1].rjust(widths[-1])]) for line in cells]
