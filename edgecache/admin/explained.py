"""The document of ``/explain`` in sentences, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecache.admin.parts import FAILING

_WHY = {
    "uri-miss": "nothing is stored for it",
    "vary-miss": "something is stored for this URL, but not for fields like this request's (Vary)",
    "stale": "what is stored may not be served without asking",
    "request": "the request's own directives do not accept what is stored",
    "method": "its method must be forwarded",
    "bypass": "it goes past the store",
    "partial": "only a part of it is stored",
}


def summary(found: dict[str, Any], now: float) -> list[str]:
    """
    :param now: wall time.
    :return: what would happen, then why, the most important first.
    """
    return [
        *_outcome(found),
        *_stored(found),
        *_parts(found),
        *_not_stored(found),
        *_purged(found),
        *_asked(found, now),
    ]


def _outcome(found: dict[str, Any]) -> Iterator[str]:
    if found["site"] is not None:
        yield f"It is for site {found['site']}."
    match found["outcome"]:
        case "hit":
            yield "It would be answered from the store at once."
        case "stale-hit":
            yield "It would be answered from the store at once, stale, and refreshed behind that."
        case "forward":
            yield f"It would be forwarded (fwd={found['reason']}): {_WHY.get(found['reason'], 'it must be')}."
            if found["alone"]:
                yield "Nobody else's request can share the answer."
            if found["validates"]:
                yield "What is stored would be validated; 304 makes it fresh again."
            if found["validates"] and found["stale_allowed"]:
                yield "If no upstream answers well, what is stored is served stale."
        case _:
            refused = found["refused"]
            yield f"It would be refused with {refused['status']}: {refused['detail']}"


def _stored(found: dict[str, Any]) -> Iterator[str]:
    stored = found["stored"]
    if stored is None:
        if found["outcome"] == "forward" and not found["parts"]:
            yield "Nothing is stored that it could use."
        return
    fresh_for = stored["fresh_for"]
    how = f"fresh for {fresh_for:.0f} s more" if fresh_for > 0 else f"stale for {-fresh_for:.0f} s"
    yield (
        f"Stored: status {stored['status']}, {stored['size']} octets in {stored['content']}, "
        f"{stored['age']} s old, {how} (lifetime {stored['lifetime']:.0f} s)."
    )
    if "heuristic" in stored["flags"]:
        yield "Its lifetime was guessed: the origin gave none."
    if "always_validate" in stored["flags"]:
        yield "It must be validated each time."
    if found["fenced"]:
        yield "This node is fenced: it validates whatever a purge that it may have missed could name."


def _parts(found: dict[str, Any]) -> Iterator[str]:
    for part in found["parts"]:
        if part["start"]:
            yield f"Of its content the last {part['stop'] - part['start']} of {part['size']} octets are stored."
        else:
            beginning = f"the first {part['stop']} of {part['size']} octets"
            yield f"Of its content {beginning} are stored; a fill asks for the rest."


def _not_stored(found: dict[str, Any]) -> Iterator[str]:
    last = found["not_stored"]
    if last is None:
        return
    if not last["status"]:
        yield f"The last time no upstream answered: {last['detail']}"
        return
    said = ", ".join(f"{name}: {value}" for name, value in last["fields"].items()) or "no word about storing"
    yield f"The last answer, {last['status']} from {last['upstream']}, was not stored; it came with {said}."


def _purged(found: dict[str, Any]) -> Iterator[str]:
    purge = found["purge"]
    if purge is None:
        return
    what = f"{purge['kind']} {purge['value']}".strip()
    who = f"purge {purge['id']}" if purge["id"] else "an invalidation of this node's own, or an old purge"
    yield f"It was purged since it was last known good: {who} ({purge['mode']}) of {what}, epoch {purge['epoch']}."


def _asked(found: dict[str, Any], now: float) -> Iterator[str]:
    siblings = found["siblings"]
    if found["page"] is not None and found["upstreams"]:
        yield f"Where the file is, and its digest, is read from the page {found['page']}."
    if siblings is not None:
        yield from _home(siblings, now)
    for one in found["upstreams"]:
        why, said = "", one["said"] or one["reason"]
        if one["share"] < 1.0:
            why = f", asked after others: {one['state']} ({said or 'no failure'})"
        elif one["state"] == FAILING:
            why = f", which fails: {said}"
        which = f"Address {one['order']} of {len(found['upstreams'])} to be asked"
        yield f"{which}: {one['origin']} at {one['address']}{why}."


def _home(siblings: dict[str, Any], now: float) -> Iterator[str]:
    home, instead, passed_over = siblings["home"], siblings["asked_first"], siblings["passed_over"]
    if siblings["home_is_asked"]:
        yield f"First its home among the siblings would be asked: {home}."
    elif not passed_over:
        yield f"Its home ({home}) is not asked first: {siblings['why_not']}."
    for place, one in enumerate(passed_over):
        who = f"Nor is {one['sibling']}" if place else f"Its home among the siblings, {home}, is not asked now"
        said, at = one["said"] or one["reason"], one["next_probe_at"]
        why = f"{one['state']} ({said})" if said else one["state"]
        yield f"{who}: {why}{'' if at is None else f', probed next in {max(0.0, at - now):.0f} s'}."
    if passed_over:
        yield f"In its place {instead} would be asked first." if instead else "In its place this node asks the origin."


__all__ = ["summary"]
