"""
What ``edgecache audit`` does: it asks nodes, as any client would, for what was purged last.

A response's Age says when its content was fresh at its origin. One that is older than a purge of it
which holds everywhere must not be served: by this node's fault, or because an upstream gave it out again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from attrs import asdict, define, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults
from twisted.internet.error import ConnectError, TimeoutError
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers

from edgecache.admin.address import AdminAddress, AdminFailed
from edgecache.admin.client import Out, as_lines, call
from edgecache.admin.secured import Secured, reason
from edgecache.words.endpoints import Endpoint, endpoint

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0

SLACK_SECONDS = 2.0
"""Age has whole seconds, and nodes' clocks differ a little."""

_AT_A_TIME = 8
_HOLDS = ("effective", "complete")
_LOST = (ConnectError, ResponseNeverReceived, ResponseFailed, CancelledError, TimeoutError, OSError)

_VERDICTS = ("current", "absent", "older", "unclear")

# Codings are stored apart: once the compressed page was old while the other was not.
_CODINGS = ("identity", "gzip")


@frozen
class Key:
    """
    Something that was purged.

    :ivar host: by which its site is asked for; empty: any.
    :ivar target: as clients know it.
    :ivar private: only clients of the site may read it.
    :ivar purge: id of its newest purge.
    :ivar purged: monotonic seconds of our own, when that was accepted.
    """

    host: str
    target: str
    purge: str
    purged: float
    private: bool = False


@frozen
class Found:
    """
    What one node said to one question.

    :ivar verdict: ``current``, ``absent`` (it has nothing stored), ``older``, or ``unclear``.
    :ivar age: of the content, whole seconds.
    :ivar since: seconds from the purge to the answer.
    """

    node: str
    target: str
    host: str
    coding: str
    purge: str
    verdict: str
    detail: str
    age: int | None = None
    since: float = 0.0


def keys_of(status: dict[str, Any], now: float, most: int) -> list[Key]:
    """
    :param status: a node's ``/status``.
    :param now: monotonic seconds.
    :return: the first URLs of the newest purges that hold everywhere; soft ones let old content be served.
    """
    sites = {site["id"]: site for site in status["sites"]}
    found: dict[tuple[str, str], Key] = {}
    for purge in status["purges"]["recent"]:
        if purge["state"] not in _HOLDS or purge["mode"] == "soft":
            continue
        purged = now - (status["now"] - purge["accepted_at"])
        for selector in purge["sample"]:
            site = sites.get(selector["site"])
            if site is None:
                continue
            host = "" if "*" in site["hosts"] else next(iter(site["hosts"]), "")
            for target in _targets(selector, index=site["profile"] == "index"):
                if len(found) < most:
                    target = site.get("path", "") + target
                    key = Key(host, target, purge["id"], purged, site.get("access", "open") != "open")
                    found.setdefault((host, target), key)
    return list(found.values())


def _targets(selector: dict[str, Any], *, index: bool) -> Iterable[str]:
    """:return: URLs that a selector surely names; of most tags only their pages know."""
    kind, value = selector["kind"], selector["value"]
    if kind in ("url", "prefix"):
        return (value,)
    if kind == "all":
        return ("/simple/",) if index else ("/",)
    project = value.removeprefix("project/")
    return (f"/simple/{project}/",) if index and project != value else ()


def verdict_of(status: int, age: str | None, since: float) -> tuple[str, str, int | None]:
    """:return: verdict, why, and the age."""
    if status == 504:
        return "absent", "not stored", None
    if status >= 500 or status in (401, 403, 421):
        return "unclear", f"status {status}", None
    if age is None:
        return "current", "not from the store", None
    if not age.isascii() or not age.isdigit():
        return "unclear", f"Age {age!r} is no number", None
    if int(age) > since + SLACK_SECONDS:
        return "older", f"Age {age} s, but it was purged {since:.0f} s ago", int(age)
    return "current", f"Age {age} s", int(age)


@define(eq=False, repr=False)
class Auditor:
    """Asks nodes for keys."""

    _reactor: Any
    _agent: Any
    _authorization: str = ""

    @classmethod
    def of(cls, reactor: Any, authorization: str = "") -> Auditor:
        """
        :param authorization: of a client of the sites that are for clients only.
        :return: one that keeps no connection.
        """
        pool = HTTPConnectionPool(reactor, persistent=False)  # type: ignore[no-untyped-call]  # Twisted has no types here
        return cls(reactor, Agent(reactor, Secured(), connectTimeout=CONNECT_SECONDS, pool=pool), authorization)  # type: ignore[no-untyped-call]  # the same

    async def ask(self, nodes: Sequence[str], keys: Sequence[Key]) -> list[Found]:
        """:return: what each node says of each key in each coding."""
        questions = [(node, key, coding) for node in nodes for key in keys for coding in _CODINGS]
        turns = DeferredSemaphore(_AT_A_TIME)
        asked = [turns.run(self._ask_one, *question) for question in questions]
        return list(await gatherResults(asked))

    def _ask_one(self, node: str, key: Key, coding: str) -> Deferred[Found]:
        return Deferred.fromCoroutine(self._asked(node, key, coding))

    async def _asked(self, node: str, key: Key, coding: str) -> Found:
        # Of its store alone: an audit must not fill it, nor ask an origin.
        headers = Headers({"Cache-Control": ["only-if-cached"], "Accept": ["*/*"], "Accept-Encoding": [coding]})
        if key.host:
            headers.setRawHeaders("Host", [key.host])
        if key.private and self._authorization:
            headers.setRawHeaders("Authorization", [self._authorization])
        # What a selector has is escaped already, but for what no URL may have.
        url = node.rstrip("/") + quote(key.target, safe="/?&=%:@!$'()*+,;~-._")
        try:
            response = await self._agent.request(b"HEAD", url.encode(), headers).addTimeout(
                ANSWER_SECONDS, self._reactor
            )
        except (*_LOST, SchemeNotSupported, ValueError) as error:
            return self._found(node, key, coding, "unclear", f"no answer: {reason(error)}")
        since = time.monotonic() - key.purged
        ages = response.headers.getRawHeaders("age")
        verdict, detail, age = verdict_of(response.code, ages[0] if ages else None, since)
        return self._found(node, key, coding, verdict, detail, age, since)

    def _found(self, node: str, key: Key, coding: str, verdict: str, detail: str, *times: Any) -> Found:
        return Found(node, key.target, key.host, coding, key.purge, verdict, detail, *times)


def nodes_of(status: dict[str, Any], admin: str) -> tuple[list[str], list[str]]:
    """
    :param status: of a node.
    :return: public URLs of all nodes that serve, that one's first; and the ids of those of which it knows none.
    """
    serving = [sibling for sibling in status["siblings"] if not sibling["voter"]]
    nodes = public_urls(status, admin)
    unknown = [] if nodes else [status["node"]["id"]]
    nodes += (sibling["public_url"] for sibling in serving if sibling["public_url"])
    unknown += (sibling["id"] for sibling in serving if not sibling["public_url"])
    return nodes, unknown


def public_urls(status: dict[str, Any], admin: str) -> list[str]:
    """
    :param admin: URL of the admin listener of the node whose ``/status`` it is.
    :return: of its public listener; every address has the same behind it.
    """
    host = urlsplit(admin).hostname or ""
    found = []
    for text in status["listen"]["public"]:
        where = endpoint(text)
        where = Endpoint(host, where.port) if where.host in ("0.0.0.0", "::") else where
        found.append(f"{'https' if status['node']['tls'] else 'http'}://{where}")
    return found[:1]


async def audit(
    reactor: Any,
    where: AdminAddress,
    nodes: Sequence[str],
    out: Out,
    *,
    most: int = 100,
    as_json: bool = False,
    authorization: str = "",
) -> int:
    """
    :param authorization: value of that field, for sites that are for their clients only.
    :param where: whose newest purges are looked at.
    :param nodes: URLs of public listeners; none: those of that node and of every sibling that serves.
    :return: 0 when everybody was asked and has answered, and nothing is older than its purge, else 1.
    :raises AdminFailed: the purges could not be had, or there is nobody to ask.
    """
    _, status = await call(reactor, where, "GET", "/status")
    if not status["sites"]:
        raise AdminFailed("a voter knows no site, nor what the purges of one name; ask another node with --admin")
    keys = keys_of(status, time.monotonic(), most)
    nodes, unknown = (list(nodes), []) if nodes else nodes_of(status, where.url)
    found = await Auditor.of(reactor, authorization).ask(nodes, keys)
    bad = [each for each in found if each.verdict in ("older", "unclear")]
    if as_json:
        answers = [asdict(each) for each in found]
        out(as_lines({"nodes": nodes, "not_asked": unknown, "keys": len(keys), "answers": answers}))
    else:
        for node in unknown:
            out(f"not asked: {node}: no public_url is configured for it; or name all nodes with --node")
        for each in bad:
            named = f"{each.host} " if each.host else ""
            out(f"{each.verdict}: {each.node}: {named}{each.target} ({each.coding}): {each.detail}; purge {each.purge}")
        counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in _VERDICTS}
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        out(f"{len(nodes)} nodes, {len(keys)} URLs: {told}")
    return 1 if bad or unknown else 0
