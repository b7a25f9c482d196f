"""What is secret and can be read by others here: said, not refused, for a mounted volume may know no better."""

from __future__ import annotations

import os
import stat

from twisted.logger import Logger

_log = Logger()


def warn_of(path: str, holds: str) -> None:
    """
    Log it if every user of this machine may read ``path``.

    :param holds: what is in it, for people. Whether it can be read at all is its reader's business.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        _log.warn("{path} holds {holds}, and every user of this machine may read it: chmod o-r", path=path, holds=holds)
