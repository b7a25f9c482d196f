"""What ``edgecache verify`` does: it has a node look through its store, and watches it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import Out, as_lines, call, shown_size
from edgecache.admin.fetching import Fetcher
from edgecache.admin.progress import Progress
from edgecache.admin.warming import FILE_FIELDS, PAGE_FIELDS

_LOOK_SECONDS = 0.5


async def verify(
    reactor: Any,
    where: AdminAddress,
    out: Out,
    progress: Progress,
    *,
    rate: int | None = None,
    fetcher: Fetcher | None = None,
    as_json: bool = False,
) -> int:
    """
    :param rate: octets a second; ``None``: the node's own choice.
    :param fetcher: asks for what was dropped, so that the node fetches it again; ``None``: clients will.
    :return: 0 when all is what was written, or was fetched again; else 1.
    :raises AdminFailed: the node could not be asked, or said no.
    """
    try:
        _, found = await call(reactor, where, "POST", "/verify", {} if rate is None else {"rate_bytes": rate})
    except AdminFailed as failure:
        # Somebody else's pass is as good.
        _, found = await call(reactor, where, "GET", "/verify")
        if found["state"] != "running":
            raise failure from None
    while found["state"] == "running":
        progress.show(progress_line(found))
        await deferLater(reactor, _LOOK_SECONDS)
        _, found = await call(reactor, where, "GET", "/verify")
    progress.end(progress_line(found))
    refetched = [] if fetcher is None else await _refetch(fetcher, found)
    failed = [one for one in refetched if one["problem"]]
    clean = found["state"] == "done" and not failed and len(refetched) >= found["damaged"]
    if as_json:
        out(as_lines({**found, "refetched": refetched}))
    else:
        for one in found["found"]:
            out(f"damaged: {one['url'] or one['record']}: {one['detail']}")
        for one in refetched:
            out(f"fetched again: {one['url']}" + (f": failed: {one['problem']}" if one["problem"] else ""))
        out(_result(found))
    return 0 if clean else 1


async def cancel(reactor: Any, where: AdminAddress, out: Out, *, as_json: bool = False) -> int:
    """
    End the pass that runs, whoever began it.

    :return: 0.
    """
    _, found = await call(reactor, where, "DELETE", "/verify")
    out(as_lines(found) if as_json else _result(found))
    return 0


async def _refetch(fetcher: Fetcher, found: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = [one for one in found["found"] if one["url"]]
    answers = await gatherResults(
        [
            fetcher.get(one["url"], one["host"], fields=PAGE_FIELDS if one["url"].endswith("/") else FILE_FIELDS)
            for one in wanted
        ]
    )
    return [{"url": answer.target, "status": answer.status, "problem": answer.problem} for answer in answers]


def progress_line(found: dict[str, Any]) -> str:
    """:return: how far a pass is."""
    whole = found["bytes_in_all"]
    share = min(1.0, found["bytes"] / whole) if whole else 1.0
    share = 1.0 if found["state"] == "done" else share
    return (
        f"{share:.0%}: {found['records']} of {found['records_in_all']} records, {shown_size(found['bytes'])} of about "
        f"{shown_size(whole)}, {found['damaged']} damaged"
    )


def _result(found: dict[str, Any]) -> str:
    looked = f"{found['records']} records and {shown_size(found['bytes'])} looked at, {found['hashed']} hashed"
    line = f"verify: {found['state']}: {looked}, {found['damaged']} damaged and dropped"
    return f"{line}: {found['failed']}" if found["failed"] else line
