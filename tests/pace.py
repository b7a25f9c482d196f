"""
Whether the machine let a test's processes run (see docs/TESTING.md, "A machine that stands still").

A node gives a sibling 0.3 s, a lease lasts seconds: deadlines that a test of real processes cannot all do without. A
machine that takes its CPUs away for that long (another one on the same host, a disk that everybody waits for) is a
fault that the test did not order, and what fails then says nothing of the node.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

import pytest
from _pytest.runner import runtestprotocol

STILL_SECONDS = 0.1
"""Somebody who wanted to run, and waited for so long: the machine stood still."""
TRIES = 3
"""How often a test is run that fails each time while the machine stands still."""

_TICK_SECONDS = 0.02


class Pace(Protocol):
    """How long somebody had to wait for a turn."""

    def begin(self) -> None:
        """What was until now does not count."""

    def longest(self) -> float:
        """:return: seconds, since then."""


class Watch:
    """A thread that wants to run 50 times a second, and sees how late it is."""

    def __init__(self) -> None:
        self._longest = 0.0
        threading.Thread(target=self._look, name="pace", daemon=True).start()

    def begin(self) -> None:
        self._longest = 0.0

    def longest(self) -> float:
        return self._longest

    def _look(self) -> None:
        while True:
            began = time.monotonic()
            # This is what is measured: nothing waits for it.
            time.sleep(_TICK_SECONDS)
            self._longest = max(self._longest, time.monotonic() - began - _TICK_SECONDS)


def run(item: pytest.Item, nextitem: pytest.Item | None, pace: Pace) -> None:
    """
    Run a test and report it; from its very beginning once more if it fails while the machine stood still.

    Each failure that does not count is a warning of the run, with all that was said of it.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for left in reversed(range(TRIES)):
        pace.begin()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        still = pace.longest()
        failed = next((report for report in reports if report.failed), None)
        if failed is None or not left or still < STILL_SECONDS:
            break
        item.warn(pytest.PytestWarning(f"run again, for the machine stood still for {still:.2f} s\n{failed.longrepr}"))
        # What its class has set up may be what failed.
        item.session._setupstate.teardown_exact(None)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
