"""
What happened in a fleet, as those who took part saw it: records, and the files in which they are kept.

All times are CLOCK_BOOTTIME in seconds: ``called`` before the first octet was sent, ``returned`` after the last one
was read. What happened in between may have happened at any moment of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import orjson
from attrs import define, field, frozen

R = TypeVar("R")


def now() -> float:
    """CLOCK_BOOTTIME: nobody steps it, and all processes of a machine have the same."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@frozen
class Begun:
    """
    What is known before anything happens.

    :ivar bound_seconds: a durable purge is effective after this, whatever fails (DESIGN 9).
    :ivar settled_seconds: what a client has read is on the node's disk after this.
    :ivar recovery_seconds: an upstream's failure is forgotten this long after its end; a node's, too.
    """

    seed: int
    members: list[str]
    bound_seconds: float
    settled_seconds: float
    recovery_seconds: float


@frozen
class Uploaded:
    """
    The origin has new versions: all requests that reach it after ``returned`` are given them.

    :ivar versions: by key.
    :ivar looks: what a reader has to see of each key's version.
    """

    called: float
    returned: float
    versions: dict[str, int]
    looks: dict[str, str]


@frozen
class Asked:
    """
    A purge is going to be asked for, under an id that none had before.

    :ivar covers: keys that it names.
    :ivar strict: what is older may not even be served as stale.
    :ivar voids: keys of which no strictness holds any longer.
    """

    called: float
    id: str
    covers: list[str]
    strict: bool
    voids: list[str] = field(factory=list)


@frozen
class Claimed:
    """
    An answer about a purge.

    :ivar at: the node that answers.
    :ivar effective_by: of the answer, here on CLOCK_BOOTTIME.
    :ivar log: of the node that took it, with its incarnation.
    """

    called: float
    returned: float
    at: str
    id: str
    status: int
    state: str
    applied: list[str]
    pending: list[str]
    effective_by: float | None
    log: str
    sequence: int


@frozen
class Read:
    """
    A client's request.

    :ivar key: what was asked for, whatever its form.
    :ivar version: what was served; 0 for content that has none, and when nothing was served.
    :ivar fresh: the node did not say that it is stale.
    :ivar form: requests of the same form get the same octets of the same version.
    :ivar look: what can be told of the content.
    :ivar octets: a digest of the content.
    :ivar least: no older version was asked for.
    :ivar wrong: what is wrong with it whatever happened; empty when nothing is.
    :ivar failure: why there is no whole answer; empty when there is one.
    :ivar lists: versions that a list tells of other keys.
    :ivar download: it should count as a download of this file: "whole", "cut" when it broke off; empty: it must not.
    """

    called: float
    returned: float
    node: str
    reader: str
    key: str
    status: int = 0
    version: int = 0
    fresh: bool = True
    form: str = ""
    look: str = ""
    octets: str = ""
    least: int = 0
    wrong: str = ""
    failure: str = ""
    cache_status: str = ""
    lists: dict[str, int] = field(factory=dict)
    download: str = ""


@frozen
class Told:
    """
    A node's feed gave out a purge, or said where a reader is.

    :ivar id: of the purge; empty: this is where the reader begins, or goes on after a reset.
    :ivar places: by log: the place after it.
    """

    returned: float
    node: str
    id: str
    places: dict[str, int]


@frozen
class Sampled:
    """:ivar positions: how much of each log a node says that it has."""

    called: float
    returned: float
    node: str
    positions: dict[str, int]


CONTROL, CONTENT, DOWNLOADS = "control", "content", "downloads"
"""What a node can lose."""


@frozen
class Disturbed:
    """
    A fault; ``ended`` is when its cause was gone.

    :ivar nodes: that may fail to answer because of it; the origin is ``origin``. Cut cables excuse nobody.
    :ivar died: processes of theirs were killed.
    :ivar gone: all their processes were gone by then, and not yet started again; 0.0 when some lived on.
    :ivar lost: parts of what they had on disk: of these.
    """

    kind: str
    began: float
    ended: float
    nodes: list[str]
    died: bool = False
    gone: float = 0.0
    lost: list[str] = field(factory=list)


@frozen
class Agreed:
    """
    Faults were over at ``healed``; at ``returned`` all nodes said the same of all logs.

    :ivar known: purges that each node knows, of those that were durable; empty: nobody was asked.
    """

    healed: float
    returned: float
    positions: dict[str, int]
    known: dict[str, list[str]]


@frozen
class Counted:
    """:ivar downloads: at the end, by node; what a node counted before its data were lost is not in it."""

    returned: float
    downloads: dict[str, int]


Record = Begun | Uploaded | Asked | Claimed | Read | Told | Sampled | Disturbed | Agreed | Counted
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Begun, Uploaded, Asked, Claimed, Read, Told, Sampled, Disturbed, Agreed, Counted)
}


@frozen
class History:
    """All records of a run."""

    records: list[Record]

    def of(self, kind: type[R]) -> list[R]:
        """Those of one kind, in the order in which they were kept."""
        return [record for record in self.records if isinstance(record, kind)]

    @property
    def begun(self) -> Begun:
        return self.of(Begun)[0]

    @classmethod
    def kept_in(cls, directory: Path) -> History:
        """
        :raises KeyError, TypeError: there is something else.
        """
        records = []
        for path in sorted(directory.glob("*.ndjson")):
            for line in path.read_bytes().splitlines():
                fields = orjson.loads(line)
                records.append(_KINDS[fields.pop("record")](**fields))
        return cls(records)


@define(eq=False)
class Keeper:
    """Writes the records of one who takes part; for several threads."""

    path: Path
    _lock: threading.Lock = field(factory=threading.Lock)

    def keep(self, *records: Record) -> None:
        self.keep_all(records)

    def keep_all(self, records: Iterable[Record]) -> None:
        lines = [orjson.dumps({"record": type(record).__name__, **attrs.asdict(record)}) + b"\n" for record in records]
        with self._lock, self.path.open("ab") as file:
            file.writelines(lines)
