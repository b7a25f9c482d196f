"""The operator's command line: ``edgecache status``, ``edgecache purge``."""

from __future__ import annotations


def main() -> None:
    """Entry point of the ``edgecache`` command."""
    raise SystemExit("edgecache: not there yet")
