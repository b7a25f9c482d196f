"""
Are the files that this process has open still those of their names?

A data directory that is removed or replaced under a running node goes on to be written, and nobody will ever find
there what was: purges would be acknowledged and lost, no worker could be started again, and another node could take
the directory's new lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from attrs import frozen

EACH_SECONDS = 1.0

NOTHING, UNKNOWN = (0, 0), (0, -1)
"""Instead of a device and a file there."""


@frozen
class Staying:
    """
    :ivar files: which file there was at each path.
    """

    files: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, paths: Iterable[str]) -> Staying:
        """:return: of those that there are now."""
        return cls({path: found for path in paths if (found := _look(path)) not in (NOTHING, UNKNOWN)})

    def gone(self) -> str | None:
        """
        :return: the first path at which it is no longer. A disk that cannot be asked has lost nothing yet: what is in
            memory is served on.
        """
        return next((path for path, file in self.files.items() if _look(path) not in (file, UNKNOWN)), None)


def _look(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return NOTHING
    except OSError:
        return UNKNOWN
    return status.st_dev, status.st_ino
