"""Tables of what was counted: by day, project, file, installer, whatever is asked for."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from attrs import field, frozen

FILE_KEYS = ("site", "project", "version", "type", "filename", "sha256", "installer", "installer_version")
"""What downloads are counted by."""

CLIENT_KEYS = ("site", "installer", "installer_version", "python", "implementation", "system", "ci")
"""What they are counted by besides, without files."""

DAY = "day"
KEYS = (DAY, *dict.fromkeys((*FILE_KEYS, *CLIENT_KEYS)))

Row = dict[str, str | int]
"""What is counted together, and ``downloads``; in what the store gives, ``day`` is days since the epoch."""

_EPOCH = datetime.date(1970, 1, 1)


@frozen
class Query:
    """
    :ivar first: with ``last`` the days since the epoch, both included.
    :ivar by: keys of a row; what has the same of these is added up.
    :ivar where: only what has these values.
    """

    first: int
    last: int
    by: tuple[str, ...] = (DAY, *FILE_KEYS)
    where: dict[str, str] = field(factory=dict)

    @property
    def of_clients(self) -> bool:
        """Is it about what only :data:`CLIENT_KEYS` has?"""
        return any(key not in FILE_KEYS and key != DAY for key in (*self.by, *self.where))

    @property
    def possible(self) -> bool:
        """Files and what clients tell of themselves are not counted together: there would be too many."""
        keys = CLIENT_KEYS if self.of_clients else FILE_KEYS
        return all(key == DAY or key in keys for key in (*self.by, *self.where))


def tabulated(rows: Iterable[Row], query: Query) -> list[Row]:
    """:return: rows with the keys of ``query.by`` and ``downloads``, in the order of the keys; days as ISO 8601."""
    sums: dict[tuple[str | int, ...], int] = {}
    for row in _fitting(rows, query.where):
        key = tuple(row[name] for name in query.by)
        sums[key] = sums.get(key, 0) + int(row["downloads"])
    return [{**_shown(query.by, key), "downloads": count} for key, count in sorted(sums.items())]


def _fitting(rows: Iterable[Row], where: dict[str, str]) -> Iterator[Row]:
    for row in rows:
        if all(row[name] == value for name, value in where.items()):
            yield row


def _shown(by: tuple[str, ...], key: tuple[str | int, ...]) -> Row:
    return {name: iso_day(int(value)) if name == DAY else value for name, value in zip(by, key, strict=True)}


def iso_day(day: int) -> str:
    """
    :param day: days since the epoch.

    >>> iso_day(17732)
    '2018-07-20'
    """
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()


def day_number(text: str) -> int:
    """
    :return: days since the epoch.
    :raises ValueError: it is no day as ``2018-07-20``.
    """
    if len(text) != 10:
        raise ValueError(f"{text!r} is no day as 2018-07-20")
    return (datetime.date.fromisoformat(text) - _EPOCH).days


def merged(answers: Iterable[tuple[str, list[Row]]]) -> list[Row]:
    """
    Add up what several nodes have counted. Each node's counts are its own and only grow, so of one node that was
    asked twice the higher one is right.

    :param answers: whose counts (node and life of its counts), and its rows.
    """
    highest: dict[str, dict[tuple[tuple[str, str | int], ...], int]] = {}
    for whose, rows in answers:
        own = highest.setdefault(whose, {})
        for row in rows:
            key = tuple((name, value) for name, value in row.items() if name != "downloads")
            own[key] = max(own.get(key, 0), int(row["downloads"]))
    sums: dict[tuple[tuple[str, str | int], ...], int] = {}
    for own in highest.values():
        for key, count in own.items():
            sums[key] = sums.get(key, 0) + count
    return [{**dict(key), "downloads": count} for key, count in sorted(sums.items())]
