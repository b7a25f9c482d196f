"""
An origin that every recipe of FIELD 8 poisons, where it reaches it: it says in its content what it was asked with,
takes override fields at their word, and lets everybody store everything, its errors too.
"""

from __future__ import annotations

import json

from tests.system.contents import Octets
from tests.system.origins import Reply, Seen

FRESH = ("Cache-Control", "public, max-age=600")
STAYING = frozenset(("host", "connection", "via", "cdn-loop", "accept-encoding", "cache-control", "pragma"))
"""About the way, or of every request."""

LARGEST = 6_000
"""Octets of a field; a larger one is an error of the client's, and many servers let that be stored."""


def reflected(seen: Seen) -> dict[str, str]:
    """:return: what tells this request from the plainest one for the same target."""
    return {name: value for name, value in sorted(seen.fields.items()) if name not in STAYING}


def answer(seen: Seen) -> Reply:
    """As an application does it that trusts its cache."""
    fields = seen.fields
    method = fields.get("x-http-method-override") or fields.get("x-method-override") or seen.method
    target = fields.get("x-original-url") or fields.get("x-rewrite-url") or seen.target
    path = target.partition("?")[0]
    if any(len(value) > LARGEST for value in fields.values()):
        return Reply(Octets(b"too large"), 400, (FRESH,))
    if method == "DELETE" or "range" in fields or "if-match" in fields:
        return Reply(Octets(f"{method} failed".encode()), 404 if method == "DELETE" else 416, (FRESH,))
    if fields.get("x-forwarded-scheme") == "http":
        return Reply(Octets(b""), 301, (FRESH, ("Location", f"https://{fields['host']}{target}")))
    if path.startswith("/simple/"):
        return page(path.split("/")[2], seen)
    if path.startswith("/account"):
        whose = fields.get("cookie", "nobody")
        return Reply(Octets(f"account of {whose}".encode()), 200, (("Set-Cookie", f"last={whose}"),))
    shown = {"method": method, "target": target, "fields": reflected(seen)}
    vary = (("Vary", "Accept-Language, Origin"),) if path.startswith("/vary") else ()
    return Reply(Octets(json.dumps(shown).encode()), 200, (FRESH, *vary, ("Content-Type", "application/json")))


def page(project: str, seen: Seen) -> Reply:
    """A page of an index; what nobody knows is kept of it (PEP 700), so clients see what it was made of."""
    document = {
        "meta": {"api-version": "1.1", "_reflected": reflected(seen)},
        "name": project,
        "versions": [],
        "files": [],
    }
    kind = ("Content-Type", "application/vnd.pypi.simple.v1+json")
    return Reply(Octets(json.dumps(document).encode()), 200, (kind, ("Vary", "X-Forwarded-Host, Cookie")))
