"""
Was every promise of DESIGN 9 kept? Of a history, in one pass over its moments for each promise.

``python -m tests.system.historychecks DIRECTORY`` checks one that was kept.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from tests.system.history import (
    CONTROL,
    DOWNLOADS,
    Agreed,
    Asked,
    Claimed,
    Counted,
    Disturbed,
    History,
    Read,
    Sampled,
    Told,
    Uploaded,
)
from tests.system.historysweeps import Floors, Heads, Pass, Seen

STATES = ("local", "durable", "effective", "complete")
STATUSES = {"local": 503, "durable": 202, "effective": 200, "complete": 200}
ORIGIN = "origin"


@frozen
class Violation:
    """
    :ivar promise: which was broken.
    :ivar how: with the records that show it.
    """

    promise: str
    how: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.how}"


def violations(history: History) -> list[Violation]:
    """:return: all; empty for a history as it should be."""
    return [Violation(promise.__name__.replace("_", " "), how) for promise in PROMISES for how in promise(history)]


def nothing_older_than_a_purge_promised(history: History) -> Iterator[str]:
    """
    What ``applied`` names holds at those nodes at once; what is complete or effective, or was given out by a feed, at
    all; what is durable after ``effective_by``, and after the bound at the latest; at a node that was dead, at once.
    """
    sweep, floors = Pass(), Floors()
    members, bound = history.begun.members, history.begun.bound_seconds
    for uploaded in history.of(Uploaded):
        sweep.after(uploaded.returned, floors.published.update, uploaded.versions)
    for asked in history.of(Asked):
        sweep.before(asked.called, floors.asked_for, asked)
    for claimed in history.of(Claimed):
        sweep.after(claimed.returned, floors.applied, claimed.id, claimed.applied, claimed)
        if claimed.state in ("effective", "complete"):
            sweep.after(claimed.returned, floors.bind, claimed.id, members, claimed)
        if claimed.state != "local":
            latest = claimed.returned + bound
            by = latest if claimed.effective_by is None else min(latest, claimed.effective_by)
            sweep.after(by, floors.bind, claimed.id, members, claimed)
            sweep.after(claimed.returned, floors.durable.update, {claimed.id: claimed})
    for told in history.of(Told):
        if told.id:
            sweep.after(told.returned, floors.bind, told.id, members, told)
    for disturbed in history.of(Disturbed):
        if disturbed.gone:
            sweep.after(disturbed.gone, floors.restarted, disturbed.nodes)
    for read in history.of(Read):
        if read.version:
            sweep.before(read.called, floors.check, read)
    sweep.run()
    return iter(floors.found)


def no_node_goes_back(history: History) -> Iterator[str]:
    """Not to an older page, and not below what its list of projects has said. A death may take what was not settled."""
    sweep, seen = Pass(), Seen()
    for disturbed in history.of(Disturbed):
        if disturbed.died:
            # What was answered while it died may be lost as well.
            sweep.after(disturbed.began, seen.died, disturbed)
            sweep.after(disturbed.gone or disturbed.ended, seen.died, disturbed)
    for read in history.of(Read):
        if read.version:
            sweep.before(read.called, seen.check, read)
            sweep.after(read.returned, seen.add, read, {read.key: read.version, **read.lists})
            settled = read.returned + history.begun.settled_seconds
            sweep.after(settled, seen.settle, read, {read.key: read.version, **read.lists})
    sweep.run()
    return iter(seen.found)


def every_octet_is_right(history: History) -> Iterator[str]:
    """What is served is what was uploaded by then, and the same version in the same form is the same everywhere."""
    uploads = {(key, version): each for each in history.of(Uploaded) for key, version in each.versions.items()}
    first: dict[tuple[str, str, int], Read] = {}
    for read in history.of(Read):
        if read.wrong:
            yield f"{read.wrong}: {read}"
        if not read.version:
            continue
        upload = uploads.get((read.key, read.version))
        if upload is None or upload.called > read.returned:
            yield f"nobody has uploaded this: {read}"
        elif read.look and read.look != upload.looks[read.key]:
            yield f"this was not uploaded as version {read.version}: {read}, but {upload.looks[read.key]}"
        if read.octets:
            other = first.setdefault((read.key, read.form, read.version), read)
            if other.octets != read.octets:
                yield f"{read} and {other} are the same version in the same form"


def who_demands_a_version_gets_no_older_one(history: History) -> Iterator[str]:
    """``Edgecache-Min-Serial``."""
    for read in history.of(Read):
        if read.version and read.version < read.least:
            yield f"{read}"


def whoever_can_answer_does(history: History) -> Iterator[str]:
    """
    With a whole and fresh answer, unless the origin or the node itself is disturbed: no sibling that is away, and no
    cable that is cut, keeps a node from it.
    """
    excuses: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for disturbed in history.of(Disturbed):
        for name in disturbed.nodes:
            excuses[name].append((disturbed.began, disturbed.ended + history.begun.recovery_seconds))
    for read in history.of(Read):
        good = not read.failure and read.status in (200, 206, 304)
        if good and read.fresh:
            continue
        # A node answers whatever its origin does; what had begun when that failed may break off.
        names = (read.node, ORIGIN) if read.status else (read.node,)
        if not any(read.called <= until and read.returned >= since for name in names for since, until in excuses[name]):
            yield f"{read}"


def what_an_answer_claims_is_possible(history: History) -> Iterator[str]:
    """States, and who has applied the purge. A place in a log is that of one purge, and stays."""
    members = set(history.begun.members)
    places: dict[str, tuple[str, int]] = {}
    purges: dict[tuple[str, int], str] = {}
    for claimed in history.of(Claimed):
        applied, pending, by = set(claimed.applied), set(claimed.pending), claimed.effective_by
        possible = (
            STATUSES.get(claimed.state) == claimed.status
            and applied | pending == members
            and not applied & pending
            and (claimed.state == "complete") is (not pending)
            and (claimed.state == "local" or 2 * len(applied) > len(members))
            and (by is not None) is (claimed.state == "durable")
            and (by is None or by <= claimed.returned + history.begun.bound_seconds)
        )
        if not possible:
            yield f"{claimed}"
        place = claimed.log, claimed.sequence
        if places.setdefault(claimed.id, place) != place or purges.setdefault(place, claimed.id) != claimed.id:
            yield f"{claimed}, but {places[claimed.id]} and {purges[place]}"


def positions_never_go_back(history: History) -> Iterator[str]:
    """And who is said to have applied a purge says so too. A node that lost its control begins anew."""
    sweep, heads = Pass(), Heads()
    losses = {node: each for each in history.of(Disturbed) if CONTROL in each.lost for node in each.nodes}
    for node, lost in losses.items():
        for moment in (lost.began, lost.ended):
            sweep.after(moment, heads.forget, node)
    for claimed in history.of(Claimed):
        for node in claimed.applied:
            # What is known of a node may be of before its loss.
            if node not in losses or claimed.returned < losses[node].began:
                sweep.after(claimed.returned, heads.bind, node, {claimed.log: claimed.sequence}, claimed)
    for sampled in history.of(Sampled):
        lost_meanwhile = losses.get(sampled.node)
        if lost_meanwhile and sampled.returned >= lost_meanwhile.began and sampled.called <= lost_meanwhile.ended:
            continue
        sweep.before(sampled.called, heads.check, sampled)
        sweep.after(sampled.returned, heads.bind, sampled.node, sampled.positions, sampled)
    sweep.run()
    return iter(heads.found)


def a_feed_leaves_nothing_out(history: History) -> Iterator[str]:
    """Each log's purges one after the other, each once, by the ids that they were asked for under; no reset in vain."""
    known = {asked.id for asked in history.of(Asked)}
    lost = any(CONTROL in disturbed.lost for disturbed in history.of(Disturbed))
    places: dict[str, dict[str, int]] = {}
    ids: dict[tuple[str, int], str] = {}
    for told in history.of(Told):
        if not told.id:
            if told.node in places and not lost:
                yield f"{told}, and nobody has lost anything"
            places[told.node] = told.places
            continue
        before = places.setdefault(told.node, {})
        moved = {log: place for log, place in told.places.items() if before.get(log, 0) != place}
        steps = {log: place - before.get(log, 0) for log, place in moved.items()}
        if list(steps.values()) != [1] or told.id not in known:
            yield f"{told} after {before}"
        for log, place in moved.items():
            if ids.setdefault((log, place), told.id) != told.id:
                yield f"{told}, but {ids[log, place]} at another node"
        places[told.node] = told.places


def nothing_durable_is_lost(history: History) -> Iterator[str]:
    """When faults are over, every node knows what any node has ever called durable, and has all of its log."""
    claims = [claimed for claimed in history.of(Claimed) if claimed.state != "local"]
    for agreed in history.of(Agreed):
        due = [claimed for claimed in claims if claimed.returned <= agreed.healed]
        ids = {claimed.id for claimed in due}
        for node in history.begun.members:
            missing = ids - set(agreed.known[node]) if agreed.known else ()
            if missing:
                yield f"{node} does not know {sorted(missing)} at {agreed.returned}"
        for claimed in due:
            if agreed.positions.get(claimed.log, 0) < claimed.sequence:
                yield f"{claimed}, but {agreed.positions}"


def downloads_are_counted_once(history: History) -> Iterator[str]:
    """What was read whole is counted, but for what finished as its node was killed; and no more than was sent."""
    for counted in history.of(Counted):
        for node, count in counted.downloads.items():
            reads = [read for read in history.of(Read) if read.node == node and read.download]
            deaths = [each for each in history.of(Disturbed) if each.died and node in each.nodes]
            sure = [
                read
                for read in reads
                if read.download == "whole" and not any(_lost_with(read, each, history) for each in deaths)
            ]
            if not len(sure) <= count <= len(reads):
                yield f"{node} has counted {count} of {len(sure)} to {len(reads)}"


def _lost_with(read: Read, death: Disturbed, history: History) -> bool:
    lost = DOWNLOADS in death.lost
    until = death.ended if lost else death.gone or death.ended
    since = 0.0 if lost else death.began - history.begun.settled_seconds
    return since <= read.returned and read.called <= until


PROMISES: tuple[Callable[[History], Iterator[str]], ...] = (
    nothing_older_than_a_purge_promised,
    no_node_goes_back,
    every_octet_is_right,
    who_demands_a_version_gets_no_older_one,
    whoever_can_answer_does,
    what_an_answer_claims_is_possible,
    positions_never_go_back,
    a_feed_leaves_nothing_out,
    nothing_durable_is_lost,
    downloads_are_counted_once,
)


def main(directory: Path) -> int:
    """:return: how many violations were printed."""
    history = History.kept_in(directory)
    found = violations(history)
    for each in found:
        sys.stdout.write(f"{each}\n")
    sys.stdout.write(f"{len(history.records)} records, {len(found)} violations\n")
    return len(found)


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]))))
