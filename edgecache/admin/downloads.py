"""
``/downloads``: what this node's clients downloaded; and the same as PEP 381 wanted it of mirrors (docs/DOWNLOADS.md).
"""

from __future__ import annotations

import bz2
import csv
import io
import time
from typing import Any

import orjson
from attrs import define

from edgecache.admin.answers import Answer, Problem, retry_after
from edgecache.admin.parts import AdminParts
from edgecache.admin.requests import AdminRequest
from edgecache.index.tabulating import KEYS, Query, day_number, iso_day
from edgecache.rules.indexpaths import normalised_name
from edgecache.store import folding
from edgecache.store.folding import CountsUnread, Downloads
from edgecache.words.counters import Counter
from edgecache.words.purging import Token

DAYS = 30
"""That are told when nothing is said."""

ROWS = 10_000
MOST_ROWS = 1_000_000
BY = ("day", "project")

_NDJSON = b"application/x-ndjson"
_STATS_KEYS = ("project", "filename", "installer", "installer_version")
_CHOICES = frozenset(("from", "to", "day", "by", "limit", "format"))


@define(eq=False, repr=False)
class DownloadRoutes:
    """The routes' handlers."""

    _parts: AdminParts

    async def get(self, request: AdminRequest, token: Token) -> Answer:
        """``GET /downloads?from=2026-01-01&to=2026-01-31&by=day,project&project=attrs``"""
        asked = _asked(request)
        query = self._query(asked)
        limit = _limit(asked)
        lines = asked.get("format") == "ndjson" or _NDJSON in request.field(b"accept").lower()
        if asked.get("format") not in (None, "json", "ndjson"):
            raise Problem(400, "invalid-query", "format is json or ndjson.")
        told = {
            "node": self._parts.config.node.id,
            "from": iso_day(query.first),
            "to": iso_day(query.last),
            "by": list(query.by),
            "where": query.where,
            "lost": self._parts.page.totals()[Counter.DOWNLOADS_LOST],
        }

        def shape(answer: folding.Answer) -> Answer:
            return _lines(told, answer) if lines else _document(told, answer, limit)

        return await self._ask(query, shape)

    async def day(self, request: AdminRequest, token: Token, name: str) -> Answer:
        """``GET /local-stats/days/2026-01-31.bz2`` (PEP 381)."""
        try:
            day = day_number(name.removesuffix(".bz2"))
        except ValueError as error:
            raise Problem(404, "not-found", f"{error}.") from error

        def shape(answer: folding.Answer) -> Answer:
            if not answer.rows:
                raise Problem(404, "not-found", f"Nothing was downloaded here on {iso_day(day)}, or it is forgotten.")
            return Answer(_stats(answer), content_type=b"application/x-bzip2")

        return await self._ask(Query(day, day, _STATS_KEYS), shape)

    async def last_modified(self, request: AdminRequest, token: Token) -> Answer:
        """``GET /last-modified`` (PEP 381): up to when everything is counted."""
        now = self._parts.wall()
        today = int(now // 86400)

        def shape(answer: folding.Answer) -> Answer:
            if answer.behind:
                raise Problem(503, "behind", "Events are still being counted.", retry_after(1.0))
            text = time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime(now))
            return Answer(text.encode(), content_type=b"text/plain")

        return await self._ask(Query(today, today, ()), shape)

    async def _ask(self, query: Query, shape: Any) -> Answer:
        try:
            answer: Answer = await self._counted().ask(query, shape)
        except CountsUnread as error:
            detail = f"The counts cannot be read ({error.reason})."
            raise Problem(503, "not-read", detail, retry_after(1.0)) from error
        return answer

    def _counted(self) -> Downloads:
        if self._parts.downloads is None:
            raise Problem(
                404, "not-counted", "No downloads are counted here ([index] downloads, and a site that is one)."
            )
        return self._parts.downloads

    def _query(self, asked: dict[str, str]) -> Query:
        today = int(self._parts.wall() // 86400)
        last = _day(asked, "to", _day(asked, "day", today))
        first = _day(asked, "from", _day(asked, "day", last - DAYS + 1))
        by = tuple(key for key in asked.get("by", ",".join(BY)).split(",") if key)
        where = {key: value for key, value in asked.items() if key not in _CHOICES}
        if "project" in where:
            where["project"] = normalised_name(where["project"].encode()).decode()
        for key in (*by, *where):
            if key not in KEYS:
                raise Problem(400, "invalid-query", f"{key!r} is none of {', '.join(KEYS)}.")
        query = Query(first, last, tuple(dict.fromkeys(by)), where)
        if not query.possible:
            detail = "What clients tell of themselves (python, implementation, system, ci) is not counted by file."
            raise Problem(400, "invalid-query", detail)
        return query


def _asked(request: AdminRequest) -> dict[str, str]:
    asked = {}
    for name, values in (request.args or {}).items():
        if len(values) > 1:
            raise Problem(400, "invalid-query", f"{name.decode('utf-8', 'replace')} is there twice.")
        asked[name.decode("utf-8", "replace")] = values[0].decode("utf-8", "replace")
    return asked


def _day(asked: dict[str, str], name: str, default: int) -> int:
    try:
        return day_number(asked[name]) if name in asked else default
    except ValueError as error:
        raise Problem(400, "invalid-query", f"{name}: {error}.") from error


def _limit(asked: dict[str, str]) -> int:
    text = asked.get("limit", str(ROWS))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= MOST_ROWS):
        raise Problem(400, "invalid-query", f"limit is a number up to {MOST_ROWS}.")
    return int(text)


def _document(told: dict[str, Any], answer: folding.Answer, limit: int) -> Answer:
    return Answer(
        {
            **told,
            "life": answer.life,
            "behind": answer.behind,
            "damaged": answer.folded.damaged_lines,
            "total": sum(int(row["downloads"]) for row in answer.rows),
            "truncated": len(answer.rows) > limit,
            "rows": answer.rows[:limit],
        }
    )


def _lines(told: dict[str, Any], answer: folding.Answer) -> Answer:
    whose = {"node": told["node"], "life": answer.life}
    content = b"".join(orjson.dumps({**whose, **row}, option=orjson.OPT_APPEND_NEWLINE) for row in answer.rows)
    return Answer(content, content_type=_NDJSON)


def _stats(answer: folding.Answer) -> bytes:
    text = io.StringIO()
    text.write("# package,filename,useragent,count\n")
    table = csv.writer(text, lineterminator="\n")
    for row in answer.rows:
        agent = f"{row['installer']}/{row['installer_version']}" if row["installer_version"] else row["installer"]
        table.writerow((row["project"], row["filename"], agent, row["downloads"]))
    return bz2.compress(text.getvalue().encode())
